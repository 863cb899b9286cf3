// Package jobs is about release jobs: the services that a supervisor runs for
// them, and the scripts by which they are brought to rest and set going again. It
// knows how BOSH lays them out on a VM, and decides nothing: who is stopped, in
// which order and what is undone is the agent's.
package jobs
