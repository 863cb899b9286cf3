// Package api is the agent's methods as every transport serves them: one table,
// one Handler, one kind of error, and a Client over any transport's Caller.
//
// A call is a method's name and an array of arguments; its answer is a value or
// an exception, in the envelope of BOSH's agent protocol:
//
//	{"value":…}
//	{"value":{"agent_task_id":"6f1c…","state":"running"}}
//	{"exception":{"message":"…","kind":"busy","cause":"…"}}
//
// Long work answers with a task, whose end is asked for with get_task. Where an
// exception has the same occasion as one of bosh-agent's it has the same bytes:
// message alone. For others kind says what sort of failure it is and cause is
// the bare error.
package api
