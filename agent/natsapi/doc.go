// Package natsapi serves the agent's methods over NATS, in BOSH's agent
// protocol, and calls them.
//
// A VM's certificate may subscribe to agent.<agent_id> alone, where bosh-agent
// listens too and refuses methods it does not know. So the daemon's methods
// carry a prefix, it is silent on every other method, and a Client passes over
// bosh-agent's refusal while it waits for the daemon's answer. Answers go to the
// call's reply_to, and only if that is director.<uuid>.<agent_id>.<request>.
//
// Addresses and certificates are replaced while a VM runs. So a Server, which connects
// for ever, looks at them anew before each connection; a Client lives for a few calls,
// and its connection, made by Config.Dial, keeps what it was made with.
package natsapi
