package main

import (
	"debug/elf"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"
	"time"
)

func TestReleasesScriptsAreWellWritten(t *testing.T) {
	for _, job := range releaseJobs {
		s := readSpec(t, job)
		r := render(t, job, examples(s))
		scripts, err := filepath.Glob(filepath.Join(r.dir, "bin", "*"))
		if err != nil {
			t.Fatal(err)
		}
		shellcheck(t, scripts...)
	}
	shellcheck(t, filepath.Join(releaseDir, "prepare"))
	shellcheck(t, "--shell=bash", filepath.Join(releaseDir, "packages", "quiesced", "packaging"))
}

func shellcheck(t *testing.T, args ...string) {
	t.Helper()
	if len(args) == 0 {
		t.Fatal("there are no scripts")
	}
	if out, err := exec.Command("shellcheck", args...).CombinedOutput(); err != nil {
		t.Errorf("%v\n%s", err, out)
	}
}

// An operator prepares the release, and its package's script runs on a stemcell.
func TestReleasePacksThePrograms(t *testing.T) {
	script := func(path, dir string, env ...string) {
		t.Helper()
		cmd := exec.Command("sh", path)
		cmd.Dir, cmd.Env = dir, append(os.Environ(), env...)
		if out, err := cmd.CombinedOutput(); err != nil {
			t.Fatalf("%s: %v\n%s", path, err, out)
		}
	}
	into := t.TempDir()
	script("prepare", releaseDir)
	script(filepath.Join("..", "packages", "quiesced", "packaging"), filepath.Join(releaseDir, "src"), "BOSH_INSTALL_TARGET="+into)
	for _, name := range []string{"quiesced", "quiesced-guard", "quiesce-cpi"} {
		program, err := elf.Open(filepath.Join(into, "bin", name))
		if err != nil {
			t.Fatal(err)
		}
		needs, err := program.ImportedLibraries()
		if err != nil || len(needs) > 0 {
			t.Errorf("%s needs %q of a stemcell (%v)", name, needs, err)
		}
		_ = program.Close()
	}
}

// runScript runs one of the job's scripts on this machine, which has no daemon of the
// job's, with programs of the test's first in PATH.
func runScript(t *testing.T, name string, properties map[string]any, programs map[string]string) (result, time.Duration) {
	t.Helper()
	r := render(t, "quiesced", properties)
	bin := t.TempDir()
	for program, body := range programs {
		if err := writeProgram(filepath.Join(bin, program), "#!/bin/sh\n"+body+"\n"); err != nil {
			t.Fatal(err)
		}
	}
	cmd := exec.Command(filepath.Join(r.dir, "bin", name))
	cmd.Env = []string{"PATH=" + bin + ":/usr/sbin:/usr/bin:/sbin:/bin"}
	began := time.Now()
	out, err := cmd.CombinedOutput()
	if cmd.ProcessState == nil {
		t.Fatal(err)
	}
	return result{code: cmd.ProcessState.ExitCode(), out: string(out)}, time.Since(began)
}

func TestScriptsWithoutADaemon(t *testing.T) {
	for name, c := range map[string]struct {
		code int
		says string
	}{
		"post-start": {1, "quiesced does not answer within 1 s"},
		"pre-stop":   {0, "quiesced has not yielded"},
	} {
		t.Run(name, func(t *testing.T) {
			r, _ := runScript(t, name, map[string]any{"start_timeout": 1}, nil)
			if r.code != c.code || !strings.Contains(r.out, c.says) {
				t.Errorf("%s ends with %d and says\n%s", name, r.code, r.out)
			}
		})
	}
}

func TestPostStopWritesOutThePersistentDisks(t *testing.T) {
	said := filepath.Join(t.TempDir(), "said")
	disks := []any{map[string]any{"cid": "a", "mounts": []string{"/mnt/a disk"}}, map[string]any{"cid": "b", "device": "/dev/b"}}
	r, _ := runScript(t, "post-stop", map[string]any{"disks": disks}, map[string]string{
		"mountpoint": `[ "$2" != /mnt/gone ]`, "sync": `echo "$@" >>` + said,
	})
	if r.code != 0 || r.out != "" {
		t.Errorf("it ends with %d and says\n%s", r.code, r.out)
	}
	text, err := os.ReadFile(said)
	if err != nil {
		t.Fatal(err)
	}
	for _, want := range []string{"-f /var/vcap/store\n", "-f /mnt/a disk\n"} {
		if !strings.Contains(string(text), want) {
			t.Errorf("sync was told %q, without %q", text, want)
		}
	}
}

func TestPostStopWaitsForNoDiskLongerThanItMay(t *testing.T) {
	pid := filepath.Join(t.TempDir(), "pid")
	r, took := runScript(t, "post-stop", map[string]any{"sync_timeout": 1}, map[string]string{
		"mountpoint": "true", "sync": "echo $$ >" + pid + "; trap '' TERM; exec sleep 30",
	})
	if out, err := exec.Command("sh", "-c", "kill -KILL $(cat "+pid+")").CombinedOutput(); err != nil {
		t.Errorf("what writes out is not there any more: %v\n%s", err, out)
	}
	if r.code != 0 || !strings.Contains(r.out, "not all is written out after 1 s") {
		t.Errorf("it ends with %d and says\n%s", r.code, r.out)
	}
	if took > 20*time.Second {
		t.Errorf("it took %s", took)
	}
}
