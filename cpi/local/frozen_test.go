package local_test

import (
	"bytes"
	"os"
	"os/exec"
	"path/filepath"
	"strconv"
	"strings"
	"testing"
	"time"

	"github.com/quiesced/quiesced/cpi"
	"github.com/quiesced/quiesced/quiesce/loopfs"
)

// TestASnapshotOfAFrozenSubvolumeWaitsForTheThaw shows why a daemon does not freeze what
// it has this driver snapshot: and that nothing comes of it but the wait.
func TestASnapshotOfAFrozenSubvolumeWaitsForTheThaw(t *testing.T) {
	t.Parallel()
	f := onBtrfs.mount(t)
	p := f.place(t)
	p.addDisk("d", 1)
	must(p.SnapshotDisk("d", nil))(t)
	before := p.contents()
	safe, err := loopfs.ThawAfter(f.at, 40*time.Second)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(safe)
	for _, tt := range []struct {
		name   string
		killed bool
	}{{"and is killed there", true}, {"and is made then", false}} {
		t.Run(tt.name, func(t *testing.T) {
			command(t, "fsfreeze", "-f", f.at)
			cmd := p.process("snapshot_disk", `["d",{}]`)
			var out bytes.Buffer
			cmd.Stdout = &out
			if err := cmd.Start(); err != nil {
				t.Fatal(err)
			}
			awaitSleep(t, cmd)
			if tt.killed {
				_ = cmd.Process.Kill()
			}
			command(t, "fsfreeze", "-u", f.at)
			_ = cmd.Wait()
			_, err := cpi.ParseResponse(out.Bytes())
			if (err == nil) == tt.killed {
				t.Errorf("answered %s", out.Bytes())
			}
			after := p.contents()
			if len(after) == len(before)+1 != (err == nil) || p.content("disks", "d") != before["d"] {
				t.Errorf("there are %v, there were %v", after, before)
			}
			p.t = t
			p.checkSwept("d")
		})
	}
}

// awaitSleep waits until a thread of a process sleeps so that nothing wakes it but what
// it waits for.
func awaitSleep(t *testing.T, cmd *exec.Cmd) {
	t.Helper()
	threads := filepath.Join("/proc", strconv.Itoa(cmd.Process.Pid), "task", "*", "stat")
	for end := time.Now().Add(20 * time.Second); time.Now().Before(end); time.Sleep(10 * time.Millisecond) {
		paths, _ := filepath.Glob(threads)
		for _, path := range paths {
			text, _ := os.ReadFile(path)
			if _, rest, ok := strings.Cut(string(text), ") "); ok && strings.HasPrefix(rest, "D") {
				return
			}
		}
	}
	t.Error("the call does not wait")
}
