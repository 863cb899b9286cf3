package httpapi_test

import (
	"os"
	"slices"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/quiesced/quiesced/agent"
	"github.com/quiesced/quiesced/agent/api"
	"github.com/quiesced/quiesced/agent/api/apitest"
	"github.com/quiesced/quiesced/agent/httpapi"
)

// holder is the user whose the holds are, as vcap on a director's VM.
const holder = 4322

// ofHolders are the methods that a holder may call.
var ofHolders = []string{"info", "quiesce", "renew", "resume", "get_task", "cancel_task"}

func TestAnotherUserIsRefusedEveryMethod(t *testing.T) {
	socket := serve(t, apitest.Start(t), httpapi.Access{Group: group, Holder: holder})
	methods := append(api.Methods(), "ping")
	for name, cred := range map[string]syscall.Credential{
		"a user":                         {Uid: nobody, Gid: nobody},
		"a user of the holder's group":   {Uid: nobody, Gid: holder, Groups: []uint32{holder}},
		"a user with the group's number": {Uid: group, Gid: nobody},
	} {
		t.Run(name, func(t *testing.T) {
			no(t, os.Chmod(socket, 0o660))
			for i, got := range callAs(t, socket, cred, methods...) {
				if !strings.Contains(got, "permission denied") {
					t.Errorf("who calls %s on a socket that is not his is told %q", methods[i], got)
				}
			}
			no(t, os.Chmod(socket, 0o666))
			for i, got := range callAs(t, socket, cred, methods...) {
				if !strings.HasPrefix(got, "forbidden uid ") || !strings.HasSuffix(got, ") may not call "+methods[i]) {
					t.Errorf("who calls %s where all can connect is told %q", methods[i], got)
				}
			}
		})
	}
}

// A director's worker has the uid alone: no group of its own that means anything, and
// no others.
func TestAHolderIsRefusedAllButHolds(t *testing.T) {
	socket := serve(t, apitest.Start(t), httpapi.Access{Group: group, Holder: holder})
	worker := syscall.Credential{Uid: holder, Gid: nobody}
	methods := api.Methods()
	for i, got := range callAs(t, socket, worker, methods...) {
		refused := strings.HasPrefix(got, "forbidden holder uid 4322 (pid ")
		if may := slices.Contains(ofHolders, methods[i]); refused == may {
			t.Errorf("a holder who calls %s is told %q", methods[i], got)
		}
	}
	both := syscall.Credential{Uid: holder, Gid: nobody, Groups: []uint32{group}}
	if got := callAs(t, socket, both, "status")[0]; got != "served" {
		t.Errorf("a holder who is a member of the group is told %q", got)
	}
}

func TestAHolderHasNothingToDoWithTheRunsOfOthers(t *testing.T) {
	d := apitest.Start(t)
	d.Hold(t, "snapshot_disk")
	socket := serve(t, d, httpapi.Access{Holder: holder})
	operator := api.Client{Caller: httpapi.NewClient(socket)}
	_, err := operator.Take(t.Context(), agent.Request{ID: "run-1"})
	no(t, err)
	deleting, err := d.Handler.Call(t.Context(), api.Call{Method: "delete_snapshots", Role: api.RoleOperator})
	no(t, err)

	calls := []string{
		"get_task run-1", "cancel_task run-1", "renew run-1 30", "resume run-1 {}",
		"get_task " + deleting.(api.Task).ID, "get_task run-9", "renew run-9 30", "resume run-9 {}",
	}
	worker := syscall.Credential{Uid: holder, Gid: nobody}
	for i, got := range callAs(t, socket, worker, calls...) {
		id := strings.Fields(calls[i])[1]
		want := "which no holder asked for"
		if id != "run-1" {
			want = "Task with id " + id + " could not be found"
		}
		if !strings.Contains(got, want) {
			t.Errorf("of %s the holder is told %q, want %q", calls[i], got, want)
		}
	}
	status, err := operator.Status(t.Context())
	no(t, err)
	if status.Phase == "" || status.Work == "" {
		t.Errorf("the run is cancelled: %+v", status)
	}
}

func TestAHolderDoesNotJoinAnOperatorsHold(t *testing.T) {
	d := apitest.Start(t)
	socket := serve(t, d, httpapi.Access{Holder: holder})
	operator := api.Client{Caller: httpapi.NewClient(socket)}
	_, err := operator.Quiesce(t.Context(), agent.Request{ID: "hold-1", Level: "none", Disks: []string{apitest.DiskCID}, Lease: time.Minute})
	no(t, err)
	worker := syscall.Credential{Uid: holder, Gid: nobody}
	if got := callAs(t, socket, worker, quiesceCall)[0]; !strings.Contains(got, "may not call quiesce for hold-1, which no holder asked for") {
		t.Errorf("the holder is told %q", got)
	}
	_, err = operator.Renew(t.Context(), "hold-1", time.Minute)
	no(t, err)
	no(t, operator.Cancel(t.Context(), "hold-1"))
}

const quiesceCall = `quiesce {"id":"hold-1","level":"none","disks":["` + apitest.DiskCID + `"],"lease_seconds":60}`

// A holder may be any of his processes: a director's worker starts one for each call.
func TestAHolderFollowsAndEndsWhatAHolderAskedFor(t *testing.T) {
	d := apitest.Start(t)
	socket := serve(t, d, httpapi.Access{Holder: holder})
	worker := syscall.Credential{Uid: holder, Gid: nobody}
	for _, line := range []string{
		quiesceCall, quiesceCall, "renew hold-1 60", "get_task hold-1",
		`resume hold-1 {"snapshots":{"` + apitest.DiskCID + `":"snap-1"}}`, "get_task hold-1", "cancel_task hold-1",
	} {
		if got := callAs(t, socket, worker, line)[0]; got != "served" {
			t.Errorf("of %s the holder is told %q", line, got)
		}
	}
	reports, err := api.Client{Caller: httpapi.NewClient(socket)}.Runs(t.Context())
	no(t, err)
	if len(reports) != 1 || !strings.HasPrefix(reports[0].By, "holder uid 4322 (pid ") {
		t.Errorf("the reports are %+v", reports)
	}
}

func TestACallThatSaysNotWhoItIsIsRefused(t *testing.T) {
	h := &api.Handler{}
	for _, method := range append(api.Methods(), "ping") {
		if _, err := h.Call(t.Context(), api.Call{Method: method, By: "a new transport"}); api.KindOf(err) != api.KindForbidden {
			t.Errorf("%s is answered with %v", method, err)
		}
	}
}

// The holder is the director: to stop or to lock it would be to stop who asks.
func TestAHolderDoesNotBringItselfToRest(t *testing.T) {
	d := apitest.Start(t, func(s *agent.Settings) { s.Levels[agent.TriggerDirector] = agent.LevelStop })
	socket := serve(t, d, httpapi.Access{Holder: holder})
	worker := syscall.Credential{Uid: holder, Gid: nobody}
	quiesce := func(id, level string) string {
		return `quiesce {"id":"` + id + `",` + level + `"disks":["` + apitest.DiskCID + `"],"lease_seconds":60}`
	}
	for call, want := range map[string]string{
		quiesce("hold-1", `"level":"stop",`): `level: "stop" would bring to rest who asks`,
		quiesce("hold-2", `"level":"lock",`): `level: "lock" would bring to rest who asks`,
		quiesce("hold-3", ""):                `cannot reach level "freeze"`, // of a tmpfs
	} {
		if got := callAs(t, socket, worker, call)[0]; !strings.Contains(got, want) {
			t.Errorf("of %s the holder is told %q, want %q", call, got, want)
		}
	}
}
