// Package wire is the JSON form of the domain: what both transports send, what
// the verbs print with --json, and what the journal stores. It is one form on
// purpose, so that a record can be read with the documentation of the API.
//
// Times are RFC 3339 in UTC, durations are seconds. Keys are only ever added:
// a record that an older version wrote must stay readable.
package wire
