// Package failpoint lets a test hold a program at a named place in its code.
// Without the build tag "failpoints" it is nothing: Hit is an empty function.
//
// With the tag the environment's QUIESCED_FAILPOINTS names a directory, on a
// filesystem that nobody freezes. A file NAME in it arms the point of that name.
// Whoever comes to the point first renames the file to NAME.hit, writes its pid
// there and waits until the file is gone. So one arming holds one process, once.
// A file oom.PID has process PID ask for more memory than it can get at the
// next point it comes to.
package failpoint
