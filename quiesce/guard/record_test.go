package guard_test

import (
	"math/rand/v2"
	"reflect"
	"strings"
	"testing"
	"time"

	"github.com/quiesced/quiesced/quiesce/guard"
)

func sampleRecord() guard.Record {
	return guard.Record{
		BootID:    "6a0a7b52-6ac5-4b63-8d7c-0f2e6c1f9a11",
		RunID:     "20260102T030405-ab12",
		Creator:   guard.Process{PID: 4711, StartTime: 123456},
		Deadline:  30 * time.Second,
		Heartbeat: time.Second,
		Filesystems: []guard.Filesystem{
			{Path: "/var/vcap/store", Major: 8, Minor: 17, MountID: 99, Type: "ext4", Rank: 1},
			{Path: "/var/vcap/store/a b\nc", Major: 7, Minor: 0, MountID: 1 << 40, Type: "xfs"},
		},
	}
}

func TestARecordIsReadAsItWasWritten(t *testing.T) {
	want := sampleRecord()
	b, err := want.Encode()
	if err != nil {
		t.Fatal(err)
	}
	got, err := guard.ParseRecord(b)
	if err != nil {
		t.Fatal(err)
	}
	want.Cells = make([]guard.Cell, 2)
	if !reflect.DeepEqual(got, &want) {
		t.Errorf("got %+v, want %+v", got, want)
	}
}

func TestTheLargestRecordIsReadAsItWasWritten(t *testing.T) {
	want := sampleRecord()
	f := guard.Filesystem{Path: "/" + strings.Repeat("p", 4094), Type: strings.Repeat("t", 255), Rank: 255}
	want.Filesystems = nil
	for range guard.MaxFilesystems {
		want.Filesystems = append(want.Filesystems, f)
	}
	b, err := want.Encode()
	if err != nil {
		t.Fatal(err)
	}
	if _, err := guard.ParseRecord(b); err != nil {
		t.Error(err)
	}
}

func TestNoDamagedByteOfTheDescriptorSectionIsAccepted(t *testing.T) {
	want := sampleRecord()
	b, err := want.Encode()
	if err != nil {
		t.Fatal(err)
	}
	for at := range 4096 {
		b[at] ^= byte(1 + rand.IntN(255))
		if _, err := guard.ParseRecord(b); err == nil {
			t.Errorf("accepted with byte %d damaged", at)
		}
		b, _ = want.Encode()
	}
	for n := range b {
		if _, err := guard.ParseRecord(b[:n]); err == nil {
			t.Fatalf("accepted when cut to %d bytes", n)
		}
	}
}

func TestARecordOutsideItsLimitsIsNotWritten(t *testing.T) {
	for name, spoil := range map[string]func(*guard.Record){
		"no filesystem":       func(r *guard.Record) { r.Filesystems = nil },
		"too many":            func(r *guard.Record) { r.Filesystems = make([]guard.Filesystem, 257) },
		"relative path":       func(r *guard.Record) { r.Filesystems[0].Path = "store" },
		"NUL in path":         func(r *guard.Record) { r.Filesystems[0].Path = "/a\x00" },
		"negative rank":       func(r *guard.Record) { r.Filesystems[0].Rank = -1 },
		"run id with a slash": func(r *guard.Record) { r.RunID = "../x" },
		"no run id":           func(r *guard.Record) { r.RunID = "" },
		"no deadline":         func(r *guard.Record) { r.Deadline = 0 },
		"endless deadline":    func(r *guard.Record) { r.Deadline = 48 * time.Hour },
		"negative heartbeat":  func(r *guard.Record) { r.Heartbeat = -time.Second },
		"no boot id":          func(r *guard.Record) { r.BootID = "" },
	} {
		t.Run(name, func(t *testing.T) {
			r := sampleRecord()
			spoil(&r)
			if _, err := r.Encode(); err == nil {
				t.Error("accepted")
			}
		})
	}
}

func FuzzParseState(f *testing.F) {
	r := sampleRecord()
	b, err := r.Encode()
	if err != nil {
		f.Fatal(err)
	}
	f.Add(b)
	f.Add(b[:4096])
	f.Add([]byte("QSCGUARD"))
	f.Fuzz(func(t *testing.T, b []byte) {
		r, err := guard.ParseRecord(b)
		if err != nil {
			return
		}
		again, err := r.Encode()
		if err != nil || string(again[:len(again)-64*(1+len(r.Filesystems))]) != string(b[:len(b)-64*(1+len(r.Filesystems))]) {
			t.Errorf("what was read is written otherwise: %v", err)
		}
	})
}

func FuzzParseAnswer(f *testing.F) {
	for _, line := range []string{"ready", "failed cannot", "warning x", "frozen now", "panic: runtime error", ""} {
		f.Add(line)
	}
	f.Fuzz(func(t *testing.T, line string) {
		kind, text := guard.ParseAnswer(line)
		if strings.TrimSuffix(kind+" "+text, " ") != strings.TrimSuffix(line, " ") && kind+text != line && kind != "" {
			t.Errorf("%q is read as %q and %q", line, kind, text)
		}
	})
}

func TestAProcessIsKnownBeyondItsPID(t *testing.T) {
	me, err := guard.Self()
	if err != nil || !me.Alive() {
		t.Fatalf("%+v, %v is not alive", me, err)
	}
	me.StartTime++
	if me.Alive() {
		t.Error("another process with this pid counts as alive")
	}
}
