package journal_test

import (
	"bufio"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"strings"
	"syscall"
	"testing"

	"github.com/quiesced/quiesced/agent/journal"
	"github.com/quiesced/quiesced/quiesce/loopfs"
)

func TestRecordsSurviveTheWritersDeath(t *testing.T) {
	dir := t.TempDir()
	var durable []string
	for round := range 4 {
		durable = append(durable, writeAndKill(t, dir, 10+7*round)...)
		j, err := journal.Open(dir)
		must(t, err)
		for _, id := range durable {
			if _, ok, err := j.Get(id); !ok || err != nil {
				t.Errorf("round %d: run %s is lost: %v", round, id, err)
			}
		}
		wantUndamaged(t, j)
		must(t, j.Close())
	}
}

func writeAndKill(t testing.TB, dir string, after int) []string {
	t.Helper()
	cmd := exec.Command("/proc/self/exe")
	cmd.Env = append(os.Environ(), writerEnv+"="+dir)
	cmd.Stderr = os.Stderr
	out, err := cmd.StdoutPipe()
	must(t, err)
	must(t, cmd.Start())
	var said []string
	for lines := bufio.NewScanner(out); lines.Scan(); {
		said = append(said, lines.Text())
		if len(said) == after {
			must(t, cmd.Process.Kill())
		}
	}
	_ = cmd.Wait()
	if len(said) < after {
		t.Fatalf("the writer ended after %d records: %s", len(said), cmd.ProcessState)
	}
	return said
}

func TestFullDiskLosesNothingAndIsGotOver(t *testing.T) {
	for name, mount := range map[string]func(testing.TB) string{"tmpfs": smallTmpfs, "ext4": smallExt4} {
		t.Run(name, func(t *testing.T) {
			dir := mount(t)
			j, err := journal.Open(dir)
			must(t, err)
			defer func() { must(t, j.Close()) }()
			must(t, put(j, ended("first", 1)))
			fill(t, dir+"/fill")
			written, err := putUntilFull(j)
			if err == nil || !errors.Is(err, syscall.ENOSPC) || !strings.Contains(err.Error(), fmt.Sprintf("run big-%d", written)) {
				t.Fatalf("after %d records: %v", written, err)
			}
			want := []string{"first"}
			for i := range written {
				want = append(want, fmt.Sprintf("big-%d", i))
			}
			wantIDs(t, j, want...)
			must(t, j.Close())
			j, err = journal.Open(dir) // a daemon that starts now must be able to recover
			must(t, err)
			wantIDs(t, j, want...)
			must(t, os.Remove(dir+"/fill"))
			must(t, put(j, begun("last", 1<<20)))
			wantIDs(t, j, append(want, "last")...)
			must(t, j.Close())
			j, err = journal.Open(dir)
			must(t, err)
			wantIDs(t, j, append(want, "last")...)
		})
	}
}

func putUntilFull(j *journal.Journal) (int, error) {
	for i := range 1000 {
		r := ended(fmt.Sprintf("big-%d", i), 10+i)
		r.Report.Error = strings.Repeat("x", 64<<10)
		if err := put(j, r); err != nil {
			return i, err
		}
	}
	return 1000, nil
}

func fill(t testing.TB, path string) {
	t.Helper()
	f, err := os.Create(path)
	must(t, err)
	defer f.Close()
	for size := 1 << 16; size >= 1<<10; size /= 2 {
		for err == nil {
			_, err = f.Write(make([]byte, size))
		}
		if !errors.Is(err, syscall.ENOSPC) {
			t.Fatal(err)
		}
		err = nil
	}
	if err := f.Sync(); err != nil && !errors.Is(err, syscall.ENOSPC) {
		t.Fatal(err)
	}
}

func smallTmpfs(t testing.TB) string {
	t.Helper()
	at := t.TempDir()
	must(t, syscall.Mount("none", at, "tmpfs", 0, "size=4m"))
	t.Cleanup(func() { must(t, syscall.Unmount(at, 0)) })
	return at
}

func smallExt4(t testing.TB) string {
	t.Helper()
	f, err := loopfs.Make(t.TempDir(), "small", "ext4", 8<<20)
	must(t, err)
	t.Cleanup(func() { must(t, f.Close()) })
	return f.Mount
}
