// Package cpi is the contract between a BOSH director and a cloud provider
// interface: an executable that reads one JSON document from its standard
// input and prints one to its standard output.
//
// A Client runs any CPI the way a director does: a process per call, no
// arguments, a bare environment. Two things differ from a director, because a
// filesystem may be frozen while the call is made:
//
//   - A call is prepared before the freeze. The process is started and given
//     its request up to the last byte; Send gives it that byte. Starting an
//     interpreter is thus no part of the frozen window, and as long as the last
//     byte is missing there is no document on which the CPI could act: a
//     caller that dies leaves no snapshot behind.
//   - The answer goes to a file and the process is in a group of its own, so
//     that both outlive the caller. Client.Reattach picks a call up again.
//
// Serve is the other side, for executables that are a CPI.
//
// The request's context can hold secrets. It is never written to a file, and
// no error of this package quotes it: where the CPI itself repeats a value of
// the context in its output, the quoted tail has it blacked out.
package cpi
