// Package httpapi serves the agent's methods over HTTP on a unix socket, and
// calls them.
//
// A call is POST /v1/METHOD with the body {"arguments":[…]}, which may be left
// out; the answer is package api's envelope, its status telling the kind of
// error. Who is at the other end is the kernel's word (SO_PEERCRED): root and
// members of one configured group may do everything, one configured user may use
// holds, nobody else is served.
package httpapi
