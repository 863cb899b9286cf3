package cpi_test

import (
	"errors"
	"regexp"
	"testing"
	"time"

	"github.com/quiesced/quiesced/cpi"
)

// created is what AWS's CPI prints once the point in time is fixed.
var created = regexp.MustCompile(`snapshot '[^']+' of volume 'disk-cid-1' created`)

// watched is a call of a CPI that was told to go on, with its output watched.
func watched(t *testing.T, script string, pattern *regexp.Regexp) *cpi.Call {
	t.Helper()
	c, _ := newClient(t, "cat >/dev/null\n"+script)
	call, _ := prepare(t, c)
	if err := errors.Join(call.WatchPointInTime(pattern), call.Arm(withPatience(t)), call.Send()); err != nil {
		t.Fatal(err)
	}
	return call
}

func fixed(call *cpi.Call, within time.Duration) bool {
	select {
	case <-call.PointInTime():
		return true
	case <-time.After(within):
		return false
	}
}

func ended(call *cpi.Call) bool {
	select {
	case <-call.Done():
		return true
	default:
		return false
	}
}

func TestThePointInTimeIsKnownBeforeTheCPIEnds(t *testing.T) {
	for _, tt := range []struct{ name, script string }{
		{"from a line of stderr", "echo Waiting >&2; echo \"I, snapshot 'snap-1' of volume 'disk-cid-1' created\" >&2; sleep 1000"},
		{"from a line that comes in pieces", "printf \"snapshot 'snap-1' of vol\" >&2; sleep 0.1; echo \"ume 'disk-cid-1' created\" >&2; sleep 1000"},
		{"from a line behind many others", "seq 100000 >&2; echo \"snapshot 'snap-1' of volume 'disk-cid-1' created\" >&2; sleep 1000"},
		{"from a whole answer", "printf '" + good + "'; sleep 1000"},
		{"from a whole answer in pieces", "printf '" + good[:9] + "'; sleep 0.1; printf '" + good[9:] + "\\n'; sleep 1000"},
		{"from an error that it answers", `printf '{"result":null,"error":{"type":"Bosh::Clouds::CloudError","message":"no","ok_to_retry":false},"log":""}'; sleep 1000`},
	} {
		t.Run(tt.name, func(t *testing.T) {
			call := watched(t, tt.script, created)
			if !fixed(call, 10*time.Second) {
				t.Fatal("it was not seen")
			}
			if ended(call) {
				t.Error("it was seen only when the process had ended")
			}
		})
	}
}

func TestThePointInTimeIsNotTakenFromOtherOutput(t *testing.T) {
	for _, tt := range []struct{ name, script string }{
		{"a line about another disk", "echo \"snapshot 'snap-1' of volume 'disk-cid-2' created\" >&2; sleep 1000"},
		{"a line that is not finished", "printf \"snapshot 'snap-1' of volume 'disk-cid-1' created\" >&2; sleep 1000"},
		{"the line on stdout", "echo \"snapshot 'snap-1' of volume 'disk-cid-1' created\"; sleep 1000"},
		{"half an answer", `printf '{"result":"snap-1","error":null}'; sleep 1000`},
		{"an answer with text before it", "printf 'note " + good + "'; sleep 1000"},
	} {
		t.Run(tt.name, func(t *testing.T) {
			call := watched(t, tt.script, created)
			if fixed(call, 300*time.Millisecond) {
				t.Error("it was taken for the point in time")
			}
		})
	}
}

func TestTheEndIsThePointInTimeAtTheLatest(t *testing.T) {
	for _, pattern := range []*regexp.Regexp{nil, created} {
		call := watched(t, "exit 1", pattern)
		if !fixed(call, 10*time.Second) {
			t.Errorf("pattern %v: the process ended and the point in time is not fixed", pattern)
		}
	}
}

func TestAnAnswerIsJudgedAtTheEndAllTheSame(t *testing.T) {
	call := watched(t, "printf '"+good+"'; sleep 0.2; echo more", nil)
	if !fixed(call, 10*time.Second) {
		t.Fatal("the answer was not seen")
	}
	if _, err := call.Wait(withPatience(t)); err == nil {
		t.Error("two documents were accepted")
	}
}
