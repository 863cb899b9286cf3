package main

import (
	"bytes"
	"encoding/json"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"syscall"
	"testing"
	"time"
)

// fsfreeze freezes ("-f") or thaws ("-u") as somebody else would.
func (w *world) fsfreeze(how, mount string) {
	w.t.Helper()
	if out, err := exec.Command("fsfreeze", how, mount).CombinedOutput(); err != nil {
		w.t.Fatalf("fsfreeze %s %s: %v\n%s", how, mount, err, out)
	}
}

// garbage leaves a record of a freeze that nobody can read.
func (w *world) garbage() string {
	w.t.Helper()
	w.must(os.MkdirAll(filepath.Join(w.dir, "run"), 0o755))
	path := filepath.Join(w.dir, "run", "guard-garbage.state")
	w.must(os.WriteFile(path, bytes.Repeat([]byte("no state"), 1000), 0o600))
	return path
}

func TestThawLeavesWhatSomebodyElseFrozeUnlessItIsNamed(t *testing.T) {
	for name, running := range map[string]bool{"without a daemon": false, "with a daemon": true} {
		t.Run(name, func(t *testing.T) {
			w := newWorld(t)
			if running {
				w.start()
			}
			w.fsfreeze("-f", w.store)
			w.mustSay(w.run("thaw"), exitOK, "0 filesystems")
			if !w.frozen() {
				t.Fatal("the freeze of somebody else was thawed")
			}
			w.mustSay(w.run("thaw", w.store), exitOK, w.store, "thawed", "named", "1 filesystem\n")
			w.mustBeGoing()
			w.mustSay(w.run("thaw", w.store), exitOK, w.store, "not frozen")
		})
	}
}

func TestThawThatIsNamedSaysWhatCameOfEach(t *testing.T) {
	w := newWorld(t)
	w.fsfreeze("-f", w.store)
	directory, link := t.TempDir(), filepath.Join(w.dir, "link")
	w.must(os.Symlink(w.store, link))
	r := w.run("thaw", link+"/", directory)
	w.mustSay(r, exitRefused, "thawed", directory, "is not a mount point")
	w.mustSay(w.run("thaw", directory, filepath.Join(w.dir, "missing")), exitNotResumed, "is not a mount point", "no such file or directory")
	w.mustBeGoing()

	r = w.run("thaw", "--json", w.store)
	var rows []map[string]string
	w.must(json.Unmarshal([]byte(r.out), &rows))
	if len(rows) != 1 || rows[0]["mount"] != w.store || rows[0]["state"] != "not frozen" || rows[0]["cause"] != "named" {
		t.Errorf("rows are %v", rows)
	}
}

// The record is settled first: a thaw by name alone would leave it to undo the
// next freeze of somebody else.
func TestThawByNameOfOurOwnFreezeLeavesNoRecordOfIt(t *testing.T) {
	w, verb := inWindow(t)
	killAll(t, w)
	verb()
	w.mustSay(w.run("thaw", w.store), exitOK, "cut", "thawed", "not frozen")
	w.mustBeGoing()
	w.touch("go")
}

func TestThawOfALivingDaemonsFreeze(t *testing.T) {
	w, verb := inWindow(t)
	w.mustSay(w.run("thaw", "--abandoned"), exitOK, "cut", w.store, "frozen")
	if !w.frozen() {
		t.Fatal("the freeze of a living daemon was thawed")
	}
	w.mustSay(w.run("thaw"), exitOK, "cut", w.store, "thawed", "signal")
	w.mustBeGoing()
	w.touch("go")
	w.mustSay(verb(), exitFailed, "signal")
}

// What no record tells any more can be thawed by name, and the operator is told
// how.
func TestThawWithARecordThatCannotBeRead(t *testing.T) {
	w := newWorld(t)
	path := w.garbage()
	w.fsfreeze("-f", w.store)
	for range 2 {
		w.mustSay(w.run("thaw"), exitNotResumed, path, "quiesced thaw "+w.store, "rm "+path)
	}
	if !w.frozen() {
		t.Fatal("it was thawed, and nobody had said that it is ours")
	}
	w.mustSay(w.run("thaw", w.store), exitOK, "thawed", "rm "+path)
	w.must(os.Remove(path))
	w.mustSay(w.run("thaw"), exitOK, "0 filesystems")
	w.mustBeGoing()
}

// Where the records lie is a guess then, unless somebody says it.
func TestThawNeedsNoConfiguration(t *testing.T) {
	w, verb := inWindow(t)
	killAll(t, w)
	verb()
	socket := filepath.Join(w.dir, "run", "q.sock")
	w.must(os.WriteFile(w.config, []byte("listen: [wrong\n"), 0o600))
	w.mustSay(w.run("thaw"), exitUsage, "looked for records of freezes in /run/quiesced alone", "--socket")
	if !w.frozen() {
		t.Fatal("somebody thawed it")
	}
	w.mustSay(w.run("thaw", "--socket", socket), exitOK, "cut", w.store, "thawed")
	w.mustBeGoing()
	w.touch("go")
}

// A thaw that the kernel holds up keeps nobody waiting, and happens all the same.
func TestThawByNameThatIsStuck(t *testing.T) {
	w := newWorld(t)
	upper := w.nested()
	w.fsfreeze("-f", upper)
	w.fsfreeze("-f", w.store)
	began := time.Now()
	r := w.run("thaw", upper)
	if took := time.Since(began); took > 4*time.Second {
		t.Errorf("it took %s", took)
	}
	w.fsfreeze("-u", w.store)
	w.mustSay(r, exitNotResumed, "stuck", upper)
	w.eventually("it is thawed", func() bool {
		return strings.Contains(w.run("thaw", upper).out, "not frozen")
	})
	w.must(syscall.Access(upper, 2))
}
