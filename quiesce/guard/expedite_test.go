package guard_test

import (
	"encoding/binary"
	"os"
	"strings"
	"testing"
	"time"

	"github.com/quiesced/quiesced/quiesce/guard"
)

const rcuExpedited = "/sys/kernel/rcu_expedited"

// wantRelaxed checks that RCU is as usual. Other guards of this machine may
// expedite it for a moment.
func wantRelaxed(t *testing.T) {
	t.Helper()
	for range 200 {
		if value, err := os.ReadFile(rcuExpedited); err != nil || strings.TrimSpace(string(value)) == "0" {
			return
		}
		time.Sleep(5 * time.Millisecond)
	}
	t.Error("RCU is left expedited")
}

func TestRCUIsAsBeforeOnceAllIsFrozen(t *testing.T) {
	b, mnt := newBed(t), newFilesystem(t, "ext4")
	g := b.frozen(t, identify(t, mnt), guard.Options{})
	if rec, err := g.ReadState(); err != nil || rec.Expedited {
		t.Errorf("state %+v, %v: want RCU left as it was", rec, err)
	}
	wantRelaxed(t)
	thaw(t, g)
}

func TestRCUIsAsBeforeAfterAFreezeThatFailed(t *testing.T) {
	b, mnt := newBed(t), newFilesystem(t, "ext4")
	g := b.start(t, identify(t, mnt), guard.Options{})
	run(t, "fsfreeze", "-f", mnt)
	err := g.Freeze(t.Context())
	run(t, "fsfreeze", "-u", mnt)
	if err == nil {
		t.Error("it froze what is frozen")
	}
	wantRelaxed(t)
}

// A guard that was killed in its FIFREEZE could not put it back.
func TestRecoverRelaxesRCUForADeadGuard(t *testing.T) {
	b := newBed(t)
	boot, err := guard.BootID()
	if err != nil {
		t.Fatal(err)
	}
	writeRecord(t, b, guard.Record{BootID: boot})
	path := guard.StatePath(b.dir, "old")
	contents, err := os.ReadFile(path)
	if err != nil {
		t.Fatal(err)
	}
	cells := binary.LittleEndian.Uint32(contents[16:])
	binary.NativeEndian.PutUint64(contents[cells+24:], 1)
	if err := os.WriteFile(path, contents, 0o600); err != nil {
		t.Fatal(err)
	}
	if err := os.WriteFile(rcuExpedited, []byte("1"), 0o600); err != nil {
		t.Fatal(err)
	}
	if got := recoverAll(t, b, false); len(got) != 1 || got[0].Err != nil {
		t.Errorf("Recover: %+v, want it ended", got)
	}
	wantRelaxed(t)
	b.wantEmpty(t)
}
