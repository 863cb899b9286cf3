// Package monittest runs a real monit for tests and benchmarks, which supervises real
// processes below one directory. Its monit is the one in PATH, or what make deps has
// put into build/testbed.
//
// Monit and all that it starts are descendants of a child of the caller's own program,
// which reaps what has ended as the first process of a machine does, and kills all of
// them when the caller ends, however it ends.
package monittest
