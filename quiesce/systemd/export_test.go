package systemd

// BusSocket is where the bus listens.
const BusSocket = busSocket

// UseSocket has a supervisor know one socket alone.
func UseSocket(s *Supervisor, socket string) { s.sockets = []string{socket} }

// UnitIn finds the unit that a /proc/PID/cgroup names.
var UnitIn = unitIn

// Processes are those in a control group.
var Processes = (*Supervisor).processes
