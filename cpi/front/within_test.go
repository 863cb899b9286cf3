package front_test

import (
	"encoding/json"
	"io"
	"os"
	"strings"
	"testing"
	"time"

	"github.com/quiesced/quiesced/agent/api"
	"github.com/quiesced/quiesced/agent/wire"
	"github.com/quiesced/quiesced/cpi/front"
)

// onThaw has the daemon make a file when it is told that the point in time is fixed.
func onThaw(t *testing.T, s *stand, name string) {
	s.daemon.answers["resume"] = func(_ int, arguments []json.RawMessage) (any, error) {
		if string(arguments[1]) == "{}" {
			s.signal(t, name)
		}
		return reportOf(arguments), nil
	}
}

func TestTheVMIsSetGoingWhenThePointInTimeIsFixed(t *testing.T) {
	t.Parallel()
	for _, tt := range []struct{ name, script string }{
		{"by a line of stderr", "echo \"I, snapshot 'snap-1' of volume 'disk-1' created\" >&2\nawait thawed\n" + answers},
		{"by a line in pieces", "printf \"snapshot 'snap-1' of vol\" >&2; sleep 0.1; echo \"ume 'disk-1' created\" >&2\nawait thawed\n" + answers},
		{"by a line behind a mebibyte", "yes | head -c 1048576 >&2; echo \"snapshot 'snap-1' of volume 'disk-1' created\" >&2\nawait thawed\n" + answers},
	} {
		t.Run(tt.name, func(t *testing.T) {
			s := newStand(t, await+tt.script)
			s.Config.Release, _ = front.ParseRelease("aws")
			onThaw(t, s, "thawed")
			s.take(t, asked)
			same(t, "stdout", good, s.out.String())
			all := told(t, s.daemon)
			if len(all) != 2 || len(all[0].Snapshots) != 0 || all[0].Error != "" || all[1].Snapshots["disk-1"] != "snap-1" {
				t.Errorf("told: %+v", all)
			}
		})
	}
}

// Nobody knows when what a CPI leaves behind takes the snapshot.
func TestASnapshotOfWhatTheCPILeavesBehindIsNotHeldFor(t *testing.T) {
	t.Parallel()
	s := newStand(t, await+"(await cancelled; "+answers+") &")
	s.daemon.answers["cancel_task"] = func(int, []json.RawMessage) (any, error) {
		s.signal(t, "cancelled")
		return "canceled", nil
	}
	s.daemon.answers["resume"] = func(_ int, arguments []json.RawMessage) (any, error) {
		no, r := false, reportOf(arguments)
		r.Unbroken, r.Clean, r.Reason = &no, false, "the run was cancelled"
		return r, nil
	}
	s.take(t, asked)
	same(t, "stdout", good, s.out.String())
	all := told(t, s.daemon)
	if len(all) != 1 || all[0].Snapshots["disk-1"] != "snap-1" {
		t.Errorf("told: %+v", all)
	}
	mustAlert(t, s, "the hold was broken: the run was cancelled")
}

// A CPI that has answered has nothing more to say, and may take its time to end.
func TestTheOutcomeIsToldWhenTheAnswerIsWhole(t *testing.T) {
	t.Parallel()
	s := newStand(t, await+`printf '{"result":"snap-1",'; sleep 0.1; printf '"error":null,"log":""}\n'; echo ending >&2`+"\nawait told\necho ended >&2")
	s.daemon.answers["resume"] = func(_ int, arguments []json.RawMessage) (any, error) {
		same(t, "the outcome", `{"snapshots":{"disk-1":"snap-1"}}`, string(arguments[1]))
		s.signal(t, "told")
		return reportOf(arguments), nil
	}
	s.take(t, strings.Replace(asked, "a-1", "self", 1))
	same(t, "stdout", good, s.out.String())
	contains(t, "stderr", s.log.String(), "ending\nended\nquiesce-cpi: snapshot")
}

func TestOtherLinesDoNotSetTheVMGoing(t *testing.T) {
	t.Parallel()
	s := newStand(t, "echo \"snapshot 'snap-1' of volume 'disk-2' created\" >&2\nprintf \"snapshot 'snap-1' of volume 'disk-1' created\" >&2\nsleep 0.3\ntouch $D/asleep\n"+answers)
	s.Config.Release, _ = front.ParseRelease("aws")
	s.daemon.answers["resume"] = func(_ int, arguments []json.RawMessage) (any, error) {
		if !s.exists("asleep") {
			t.Error("it was set going too early")
		}
		return reportOf(arguments), nil
	}
	s.take(t, asked)
}

func TestTheLeaseIsRenewedWhileTheCPIRuns(t *testing.T) {
	t.Parallel()
	s := newStand(t, await+"await renewed\n"+answers)
	s.Config.Lease = 300 * time.Millisecond
	s.daemon.answers["renew"] = func(before int, arguments []json.RawMessage) (any, error) {
		same(t, "the lease asked for", "0.3", string(arguments[1]))
		if before == 3 {
			s.signal(t, "renewed")
		}
		return wire.Lease{}, nil
	}
	s.take(t, asked)
	same(t, "stdout", good, s.out.String())
}

func TestCallsAreRepeatedOverANewLinkWhenNobodyAnswers(t *testing.T) {
	t.Parallel()
	lost := func(times int, otherwise func(before int, a []json.RawMessage) (any, error)) func(int, []json.RawMessage) (any, error) {
		return func(before int, a []json.RawMessage) (any, error) {
			if before < times {
				return nil, &api.Error{Kind: api.KindUnreachable, Message: "lost"}
			}
			return otherwise(before, a)
		}
	}
	s := newStand(t, await+"await renewed\n"+answers)
	lease := func(_ int, a []json.RawMessage) (any, error) { return leaseOf(a) }
	s.daemon.answers["info"] = lost(1, func(int, []json.RawMessage) (any, error) { return api.Info{}, nil })
	s.daemon.answers["quiesce"] = lost(2, lease)
	s.daemon.answers["renew"] = lost(1, func(int, []json.RawMessage) (any, error) {
		s.signal(t, "renewed")
		return wire.Lease{}, nil
	})
	s.daemon.answers["resume"] = lost(2, func(_ int, a []json.RawMessage) (any, error) { return reportOf(a), nil })
	s.take(t, asked)
	same(t, "stdout", good, s.out.String())
	contains(t, "stderr", s.log.String(), "at rest (freeze)")
	if s.daemon.links < 6 {
		t.Errorf("%d links", s.daemon.links)
	}
	ids := map[string]bool{}
	for _, text := range s.daemon.called("quiesce") {
		var r []wire.Request
		if err := json.Unmarshal([]byte(text), &r); err != nil {
			t.Fatal(err)
		}
		ids[r[0].ID] = true
	}
	if len(ids) != 1 {
		t.Errorf("%d holds were asked for", len(ids))
	}
}

func TestASnapshotThatExistsReachesTheDirectorWhateverBecomesOfTheHold(t *testing.T) {
	t.Parallel()
	no := false
	for _, tt := range []struct {
		name    string
		prepare func(*stand)
		says    string
	}{
		{"the lease ran out", func(s *stand) {
			s.daemon.answers["resume"] = func(_ int, a []json.RawMessage) (any, error) {
				r := reportOf(a)
				r.Unbroken, r.Clean, r.Reason = &no, false, "the lease ran out"
				return r, nil
			}
		}, "the hold was broken: the lease ran out"},
		{"the daemon knows nothing of it any more", func(s *stand) {
			for _, method := range []string{"renew", "resume"} {
				s.daemon.answers[method] = func(int, []json.RawMessage) (any, error) {
					return nil, &api.Error{Message: "Task with id a could not be found"}
				}
			}
		}, "could not be found"},
		{"the daemon is gone for good", func(s *stand) {
			for _, method := range []string{"renew", "resume"} {
				s.daemon.answers[method] = func(int, []json.RawMessage) (any, error) {
					return nil, &api.Error{Kind: api.KindUnreachable, Message: "no daemon answers"}
				}
			}
		}, "not known: no daemon answers"},
		{"the disk does not thaw", func(s *stand) {
			s.daemon.answers["resume"] = func(_ int, a []json.RawMessage) (any, error) {
				r := reportOf(a)
				r.Outcome, r.Error = "not_resumed", "it does not start to thaw"
				return r, nil
			}
		}, "it does not start to thaw"},
		{"less than asked for was reached", func(s *stand) {
			s.daemon.answers["resume"] = func(_ int, a []json.RawMessage) (any, error) {
				r := reportOf(a)
				r.Reached, r.Clean, r.Reason = "sync", false, "it cannot be frozen"
				return r, nil
			}
		}, "level sync was reached in place of freeze: it cannot be frozen"},
	} {
		for _, policy := range []front.Policy{front.Degrade, front.Skip, front.Fail} {
			t.Run(tt.name+", "+string(policy), func(t *testing.T) {
				t.Parallel()
				s := newStand(t, "sleep 0.5\n"+answers)
				s.Config.Policy, s.Config.Lease = policy, 600*time.Millisecond
				tt.prepare(s)
				if ending := s.take(t, asked); ending.PassOn || ending.Status != 0 {
					t.Errorf("the ending is %+v", ending)
				}
				same(t, "stdout", good, s.out.String())
				contains(t, "stderr", s.log.String(), `snapshot "snap-1" of disk "disk-1"`, tt.says)
				if policy != front.Degrade {
					contains(t, "stderr", s.log.String(), "in spite of policy "+string(policy))
				}
				mustAlert(t, s, tt.says)
			})
		}
	}
}

// The director has stopped the jobs already, as in a job update.
func TestMoreThanWasAskedForIsWell(t *testing.T) {
	t.Parallel()
	s := newStand(t, answers)
	s.daemon.answers["resume"] = func(_ int, a []json.RawMessage) (any, error) {
		r := reportOf(a)
		r.Reached = "stop"
		return r, nil
	}
	s.take(t, asked)
	contains(t, "stderr", s.log.String(), "at rest (stop)\n")
	if len(s.alerts) > 0 {
		t.Errorf("alerts: %+v", s.alerts)
	}
}

// The VM was at rest until the point in time: that is enough for the snapshot.
func TestADaemonThatIsGoneAfterThePointInTimeCostsNothingButItsCatalogue(t *testing.T) {
	t.Parallel()
	s := newStand(t, "echo \"snapshot 'snap-1' of volume 'disk-1' created\" >&2\nsleep 0.3\n"+answers)
	s.Config.Release, _ = front.ParseRelease("aws")
	s.Config.Lease = 600 * time.Millisecond
	s.daemon.answers["resume"] = func(before int, arguments []json.RawMessage) (any, error) {
		if before == 0 {
			return reportOf(arguments), nil
		}
		return nil, &api.Error{Kind: api.KindUnreachable, Message: "no daemon answers"}
	}
	s.take(t, asked)
	same(t, "stdout", good, s.out.String())
	contains(t, "stderr", s.log.String(), "at rest (freeze); the VM's daemon could not be told of it: no daemon answers")
	if len(s.alerts) > 0 {
		t.Errorf("alerts: %+v", s.alerts)
	}
}

// The daemon has waited for the outcome no longer than the lease.
func TestALeaseThatRunsOutAfterThePointInTimeCostsNothing(t *testing.T) {
	t.Parallel()
	s := newStand(t, await+"echo \"snapshot 'snap-1' of volume 'disk-1' created\" >&2\nawait thawed\n"+answers)
	s.Config.Release, _ = front.ParseRelease("aws")
	s.daemon.answers["resume"] = func(before int, arguments []json.RawMessage) (any, error) {
		r := reportOf(arguments)
		if before == 0 {
			s.signal(t, "thawed")
		} else {
			r.Outcome, r.Error = "failed", "the lease ran out"
		}
		return r, nil
	}
	s.take(t, asked)
	contains(t, "stderr", s.log.String(), "at rest (freeze)\n")
	if len(s.alerts) > 0 {
		t.Errorf("alerts: %+v", s.alerts)
	}
}

func TestTheCPIsAnswerGoesOutAsItIs(t *testing.T) {
	t.Parallel()
	for _, tt := range []struct{ name, print, outcome string }{
		{"an error", `{"result":null,"error":{"type":"Bosh::Clouds::NotSupported","message":"s3cr3t","ok_to_retry":false},"log":""}`, "the CPI answered NotSupported"},
		{"no JSON", "  s3cr3t\\n", "the CPI gave no answer: it does not begin with a JSON object"},
		{"two answers", strings.TrimSpace(good) + strings.TrimSpace(good), "the CPI gave no answer: 41 bytes follow the JSON object"},
		{"nothing", "", "the CPI gave no answer: it is empty"},
		{"an empty CID", `{"result":"","error":null,"log":""}`, "its CID is empty"},
	} {
		t.Run(tt.name, func(t *testing.T) {
			s := newStand(t, "printf '"+tt.print+"'\nkill -9 $$")
			ending := s.take(t, asked)
			if !ending.Status.Signaled() || ending.Status.Signal() != 9 {
				t.Errorf("the ending is %+v", ending)
			}
			same(t, "stdout", strings.ReplaceAll(tt.print, `\n`, "\n"), s.out.String())
			end := lastTold(t, s.daemon)
			contains(t, "the outcome told", end.Error, tt.outcome)
			if len(end.Snapshots) > 0 || strings.Contains(end.Error+s.log.String(), "s3cr3t") || len(s.alerts) > 0 {
				t.Errorf("told %+v, stderr %q, alerts %v", end, s.log, s.alerts)
			}
		})
	}
}

func TestWhatTheCPILeavesBehindIsNotWaitedForOnceItHasAnswered(t *testing.T) {
	t.Parallel()
	s := newStand(t, answers+"\nsleep 5 & echo $! >$D/left")
	began := time.Now()
	s.take(t, asked)
	if took := time.Since(began); took > 4*time.Second {
		t.Errorf("it took %s", took)
	}
	same(t, "stdout", good, s.out.String())
}

func TestStderrGoesOutLive(t *testing.T) {
	t.Parallel()
	s := newStand(t, await+"echo one >&2\nawait seen\n"+answers)
	go func() {
		for s.log.String() != "one\n" {
			time.Sleep(5 * time.Millisecond)
		}
		s.signal(t, "seen")
	}()
	s.take(t, asked)
	same(t, "stdout", good, s.out.String())
}

func TestTheDirectorsOwnVMIsSetGoingBeforeAnythingGoesToStderr(t *testing.T) {
	t.Parallel()
	s := newStand(t, "yes | head -c 1048576 >&2\n"+answers)
	s.daemon.answers["resume"] = func(before int, arguments []json.RawMessage) (any, error) {
		if before == 0 {
			same(t, "stderr before it was set going", "", s.log.String())
		}
		return reportOf(arguments), nil
	}
	s.take(t, strings.Replace(asked, "a-1", "self", 1))
	same(t, "stdout", good, s.out.String())
	if n := strings.Count(s.log.String(), "y\n"); n != 1<<19 {
		t.Errorf("%d lines", n)
	}
}

func TestAReaderWhoDoesNotReadHoldsNobodyUp(t *testing.T) {
	t.Parallel()
	for _, id := range []string{"a-1", "self"} {
		t.Run(id, func(t *testing.T) {
			s := newStand(t, "yes | head -c 1048576 >&2\n"+answers)
			read, write, err := os.Pipe()
			if err != nil {
				t.Fatal(err)
			}
			defer read.Close()
			s.Stderr = write
			done := make(chan int)
			s.daemon.answers["resume"] = func(_ int, arguments []json.RawMessage) (any, error) {
				if strings.Contains(string(arguments[1]), "snap-1") {
					go func() { // only now somebody reads
						text, _ := io.ReadAll(read)
						done <- strings.Count(string(text), "y\n")
					}()
				}
				return reportOf(arguments), nil
			}
			s.take(t, strings.Replace(asked, "a-1", id, 1))
			write.Close()
			if n := <-done; n != 1<<19 {
				t.Errorf("%d lines", n)
			}
			same(t, "stdout", good, s.out.String())
		})
	}
}
