package main

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"os"
	"slices"
	"time"

	"github.com/nats-io/nats-server/v2/server"
	"github.com/nats-io/nats.go"
	"golang.org/x/sys/unix"
)

const busConfiguration = `state_dir: %[1]s/state
listen: {socket: %[1]s/run/q.sock, metrics: ""}
instance: {deployment: bench, job: db, index: 0, id: %[2]s, agent_id: %[2]s}
cpi: {path: %[1]s/cpi}
nats: {urls: [%[3]q]}
`

const (
	benchAgent     = "11111111-aaaa-4bbb-8ccc-000000000001"
	echoSubject    = "echo"
	droppedSubject = "dropped"

	busTime    = 3 * time.Second // of a measurement
	othersRate = 1000            // messages a second that are bosh-agent's
)

// bus measures how many requests a second the daemon answers on the bus, and how fast,
// beside a subscriber that sends a ready answer of the same size; and what the daemon
// uses while others are asked on its subject.
func (s *stage) bus(ctx context.Context, o options) error {
	return s.scope(func() error {
		url, err := s.nats()
		if err != nil {
			return err
		}
		dir, err := os.MkdirTemp(s.memory, "daemon-")
		if err != nil {
			return err
		}
		s.later(func() error { return os.RemoveAll(dir) })
		daemon, client, err := s.daemon(ctx, dir, fmt.Sprintf(busConfiguration, dir, benchAgent, url), nil)
		if err != nil {
			return err
		}
		status, err := client.Caller.Call(ctx, "status")
		if err != nil {
			return err
		}
		echo, err := begin("echo", url, fmt.Sprintf(`{"value":%s}`, status))
		if err != nil {
			return err
		}
		s.later(echo.end)
		conn, err := nats.Connect(url)
		if err != nil {
			return err
		}
		s.later(func() error { conn.Close(); return nil })
		for _, callers := range []int{1, 16} { // a director's task asks for one thing after the other
			if err := s.throughput(ctx, o, conn, callers, []int{echo.cmd.Process.Pid, daemon.Process.Pid}); err != nil {
				return err
			}
		}
		return s.idle(ctx, o, conn, daemon.Process.Pid, echo.cmd.Process.Pid)
	})
}

// nats starts a server in this process.
func (s *stage) nats() (url string, err error) {
	n, err := server.NewServer(&server.Options{Host: "127.0.0.1", Port: server.RANDOM_PORT, NoSigs: true, NoLog: true})
	if err != nil {
		return "", err
	}
	n.Start()
	s.later(func() error { n.Shutdown(); n.WaitForShutdown(); return nil })
	if !n.ReadyForConnections(10 * time.Second) {
		return "", errors.New("the bus does not start")
	}
	return "nats://" + n.Addr().String(), nil
}

// served is what came of a measurement.
type served struct {
	rate      float64 // answers a second
	latencies series
}

// throughput measures both in turns.
func (s *stage) throughput(ctx context.Context, o options, conn *nats.Conn, callers int, pids []int) error {
	subjects := []string{echoSubject, "agent." + benchAgent}
	rates, costs, tails := make([][]float64, 2), make([][]float64, 2), make([]series, 2)
	for rep := range o.reps + 1 { // the first is for nothing: connections and heaps grow
		for k := range subjects {
			at := (rep + k) % len(subjects)
			used := processor(pids[at])
			l, err := ask(ctx, conn, subjects[at], callers)
			if err != nil {
				return fmt.Errorf("%s: %w", subjects[at], err)
			}
			if rep > 0 {
				cost := (processor(pids[at]) - used).Seconds() * 1e6 / float64(len(l.latencies))
				rates[at], costs[at], tails[at] = append(rates[at], l.rate), append(costs[at], cost), append(tails[at], l.latencies.at(0.99))
			}
		}
	}
	s.say("\nstatus on the bus, callers at a time %d, %d runs of %s: median (least to most)\n", callers, o.reps, busTime)
	s.say("%-9s %-32s %-32s %s\n", "", "answers a second", "99th percentile, ms", "processor time of an answer, µs")
	for at, name := range []string{"echo", "quiesced"} {
		s.say("%-9s %-32s %-32s %s\n", name, spread(rates[at]), tails[at], spread(costs[at]))
	}
	s.say("quiesced over echo: answers %.2f, 99th percentile %.2f\n", median(rates[1])/median(rates[0]), tails[1].over(tails[0]))
	return nil
}

// ask has every caller ask again as soon as it is answered.
func ask(ctx context.Context, conn *nats.Conn, subject string, callers int) (served, error) {
	ctx, cancel := context.WithTimeout(ctx, busTime+30*time.Second)
	defer cancel()
	type result struct {
		latencies series
		err       error
	}
	results := make(chan result, callers)
	began := now()
	for caller := range callers {
		go func() {
			latencies, err := askOn(ctx, conn, subject, caller, began+busTime)
			results <- result{latencies, err}
		}()
	}
	var all served
	var errs []error
	for range callers {
		r := <-results
		all.latencies, errs = append(all.latencies, r.latencies...), append(errs, r.err)
	}
	all.rate = float64(len(all.latencies)) / (now() - began).Seconds()
	return all, errors.Join(errs...)
}

func askOn(ctx context.Context, conn *nats.Conn, subject string, caller int, until time.Duration) (series, error) {
	replyTo := fmt.Sprintf("director.bench.%s.%d", benchAgent, caller)
	answers, err := conn.SubscribeSync(replyTo)
	if err != nil {
		return nil, err
	}
	defer func() { _ = answers.Unsubscribe() }()
	request := message("quiesced_status", replyTo)
	var latencies series
	for asked := now(); asked < until; asked = now() {
		if err := conn.PublishRequest(subject, replyTo, request); err != nil {
			return nil, err
		}
		m, err := answers.NextMsgWithContext(ctx)
		if err != nil {
			return nil, err
		}
		latencies = append(latencies, now()-asked)
		var answer struct{ Value json.RawMessage }
		if len(latencies) == 1 && (json.Unmarshal(m.Data, &answer) != nil || answer.Value == nil) {
			return nil, fmt.Errorf("the answer is %s", m.Data)
		}
	}
	return latencies, nil
}

// message is a request of the agent protocol.
func message(method, replyTo string) []byte {
	return fmt.Appendf(nil, `{"protocol":3,"method":%q,"arguments":[],"reply_to":%q}`, method, replyTo)
}

// idle measures the processor time of the daemon, with nothing on the bus and with
// messages on its subject that are not its own; and that of the other subscriber, which
// drops as many.
func (s *stage) idle(ctx context.Context, o options, conn *nats.Conn, daemon, peer int) error {
	others := message("get_task", "director.bench."+benchAgent+".others")
	cells := []struct {
		name    string
		pid     int
		subject string
		rate    int
		shares  []float64
	}{
		{"quiesced, nothing on the bus", daemon, droppedSubject, 0, nil},
		{"quiesced, messages for bosh-agent", daemon, "agent." + benchAgent, othersRate, nil},
		{"a subscriber that drops them", peer, droppedSubject, othersRate, nil},
	}
	for range o.reps {
		for i := range cells {
			c := &cells[i]
			used, began := processor(c.pid), now()
			if err := publish(ctx, conn, c.subject, others, c.rate); err != nil {
				return err
			}
			c.shares = append(c.shares, 100*(processor(c.pid)-used).Seconds()/(now()-began).Seconds())
		}
	}
	s.say("\nProcessor time, %% of one core, %d messages a second, %d runs of %s: median (least to most)\n", othersRate, o.reps, busTime)
	for _, c := range cells {
		s.say("%-36s %s\n", c.name, spread(c.shares))
	}
	return nil
}

// publish sends so many messages a second for the time of a measurement.
func publish(ctx context.Context, conn *nats.Conn, subject string, data []byte, rate int) error {
	began := now()
	for sent := 0; now() < began+busTime && ctx.Err() == nil; time.Sleep(time.Millisecond) {
		for due := int((now() - began).Seconds() * float64(rate)); sent < due; sent++ {
			if err := conn.Publish(subject, data); err != nil {
				return err
			}
		}
	}
	return errors.Join(conn.Flush(), ctx.Err())
}

// processor is the processor time that a process has used. Every process has a clock
// that counts it, CPUCLOCK_SCHED in linux/posix-timers.h.
func processor(pid int) time.Duration {
	var ts unix.Timespec
	_ = unix.ClockGettime(int32(^pid<<3|2), &ts)
	return time.Duration(ts.Nano())
}

func median(all []float64) float64 {
	return slices.Sorted(slices.Values(all))[len(all)/2]
}

func spread(all []float64) string {
	digits := 0
	if median(all) < 100 {
		digits = 2
	}
	return fmt.Sprintf("%.*f (%.*f to %.*f)", digits, median(all), digits, slices.Min(all), digits, slices.Max(all))
}
