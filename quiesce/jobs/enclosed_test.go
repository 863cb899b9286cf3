package jobs_test

import (
	"errors"
	"os"
	"strings"
	"testing"
	"time"

	"github.com/quiesced/quiesced/quiesce/jobs"
)

func (s *site) enclosed(in jobs.Enclosure, scripts ...jobs.Script) error {
	return s.RunEnclosed(s.t.Context(), scripts, in, time.Minute, nil)
}

func TestEnclosedScriptIsRunByItsCommandAndLeavesNothing(t *testing.T) {
	s := newSite(t)
	script := s.script("db", jobs.Verify, "echo $WHERE $FROM; setsid sleep 4716 & echo $! >$0.pid")
	in := jobs.Enclosure{Command: []string{"/usr/bin/env", "FROM=the command"}, Env: []string{"WHERE=here"}}
	must(t, s.enclosed(in, script))
	if got := s.read("sys/log/db/verify.stdout.log"); got != "here the command\n" {
		t.Errorf("got %q", got)
	}
	pid, err := os.ReadFile(script.Path + ".pid")
	must(t, err)
	text, _ := os.ReadFile("/proc/" + strings.TrimSpace(string(pid)) + "/cmdline") // of one that has ended it is empty
	if len(text) > 0 {
		t.Errorf("what it left running still runs: %q", text)
	}
}

func TestScriptRefusesByItsExitStatusAlone(t *testing.T) {
	s := newSite(t)
	for body, refused := range map[string]bool{
		"exit 1": true, "exit 124": true, "exit 125": false, "kill -9 $$": false, "exit 255": true,
	} {
		err := s.enclosed(jobs.Enclosure{}, s.script("db", jobs.Verify, body))
		failed, ok := errors.AsType[*jobs.ScriptError](err)
		if !ok || failed.Refused() != refused {
			t.Errorf("%s: %v", body, err)
		}
	}
	script := s.script("db", jobs.Verify, "exit 0")
	must(t, os.Chmod(script.Path, 0o600))
	failed, ok := errors.AsType[*jobs.ScriptError](s.enclosed(jobs.Enclosure{}, script))
	if !ok || failed.Refused() {
		t.Errorf("one that cannot be executed: %v", failed)
	}
}
