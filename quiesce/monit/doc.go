// Package monit speaks to a monit daemon over its HTTP interface, and is a
// jobs.Supervisor. Monit 5.2.5, which most stemcells carry, 5.29 and 5.33 are
// spoken to in the same way:
//
//   - Every action has a cookie and a field securitytoken that agree. Newer ones
//     refuse it otherwise, older ones do not look.
//   - 200 and 302 are success; a redirect is not followed. 503 is that the service
//     has an action pending, which is waited out.
//   - An action is asked for all services in one request, and one by one if monit
//     does not take that. It works them off one after the other, and while it waits
//     for one service's start or stop program nothing is done for another.
//
// A program that has ended, and a process that has come or gone, monit sees when it has
// slept: 100 ms for each, for one service after the other. So Stop and Start wake it,
// as "monit validate" does, when what it waits for has come: by pidfd, or as the pid file
// has it. That is done three times a service at most, for monit counts a sleep in full that
// was cut short: the start and stop programs may lose 0.3 s of what they are
// granted. Monit begins its next cycle at once then, as after each action.
//
// # What monit says
//
// An action is pending until it is done; 5.2.5 shows monitor=0 at once, 5.33 when it
// is done. A service that monit has not looked at yet is monitor=2. Of one that it does
// not monitor it shows neither a pid nor whether it runs: of a service that was stopped
// and one that was unmonitored and runs, the status says the same. This client looks for
// a process then, as monit would: in the pid file, which the service's page names. Where
// one runs the service is Unmonitored, else Stopped.
//
// Between the rounds of a check "every N cycles" 4 is added to monitor. A service whose
// process runs and whose checks fail is Failing, and has Processes.
//
// A stop program that ends while the process goes on is "failed to stop",
// status=4096, to 5.2.5; to 5.33 the service is stopped. Therefore Stop waits for the
// ends of the processes too, those that it was told of and those that monit has
// shown to this client, with their children.
//
// The action monitor starts a service that does not run; unmonitor leaves it as it
// is. A stop that is asked for a service that does not run, runs no stop program. A stop
// that is asked for one that is not monitored and runs, runs none in 5.33 either, which
// says that it is done: Stop has such a service monitored first, if monit will find
// that it runs, and then asks again.
//
// # What is lost
//
// A monit that ends forgets what is pending, and remembers in its state file what is
// monitored. Actions are asked for again then. A service that is not monitored though it
// was asked to start, with the same monit, was stopped by somebody else or given up by
// monit ("if 5 restarts within 5 cycles then timeout"); it is not started again.
package monit
