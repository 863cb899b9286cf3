// Package natsapi serves the agent's methods over NATS, in BOSH's agent
// protocol, and calls them.
//
// A VM's certificate may subscribe to agent.<agent_id> alone, where bosh-agent
// listens too and refuses methods it does not know. So the daemon's methods
// carry a prefix, it is silent on every other method, and a Client passes over
// bosh-agent's refusal while it waits for the daemon's answer. Answers go to the
// call's reply_to, and only if that is director.<uuid>.<agent_id>.<request>.
package natsapi
