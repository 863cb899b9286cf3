package main

import (
	"os"
	"path/filepath"
	"regexp"
	"strings"
	"testing"
	"time"
)

// After a reboot a daemon removes what was left, and is killed while the CPI is at it: the
// next one of the same boot waits for that.
func TestWhatABootBeforeHasLeftIsRemovedByOneCallAtATime(t *testing.T) {
	w := newWorld(t)
	w.bend()
	w.start()
	_, taken := w.take("--level", "freeze")
	cid := taken.Disks[0].SnapshotCID
	w.bent(`[ $method = detach_disk ] && fail CloudError`)
	w.mustSay(w.run("verify", cid), exitOK, "NOT REMOVED")
	w.kill()
	path := filepath.Join(w.dir, "state", "verification.json")
	record, err := os.ReadFile(path)
	w.must(err)
	record = regexp.MustCompile(`"boot_id":"[^"]*"`).ReplaceAll(record, []byte(`"boot_id":"the one before"`))
	w.must(os.WriteFile(path, record, 0o600))

	w.touch("hold")
	w.bent(`mkdir $dir/busy || touch $dir/overlapped
[ $method = delete_disk ] && while [ -e $dir/hold ]; do touch $dir/deleting; sleep 0.05; done
rmdir $dir/busy
`)
	w.start()
	w.eventually("the disk is being deleted", func() bool { return w.exists("deleting") })
	w.kill()
	w.start()
	time.Sleep(time.Second) // for what should not be called
	if w.exists("overlapped") {
		t.Error("the CPI was called beside the call of a daemon that was killed")
	}
	w.must(os.Remove(filepath.Join(w.dir, "hold")))
	w.eventually("it is removed", func() bool { return !strings.Contains(w.run("status").out, cid) })
	w.mustBeClear()
}
