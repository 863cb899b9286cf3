package jobs_test

import (
	"context"
	"os"
	"path/filepath"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"

	"github.com/quiesced/quiesced/quiesce/jobs"
)

func TestOutputIsAppendedToTheFilesThatBOSHUses(t *testing.T) {
	for name, base := range map[string]string{jobs.PreStop: "pre-stop", jobs.Lock: "pre-backup-lock", jobs.PostSnapshot: "post-snapshot"} {
		t.Run(name, func(t *testing.T) {
			s := newSite(t)
			must(t, os.MkdirAll(s.root+"/sys/log", 0o750))
			must(t, os.Chown(s.root+"/sys/log", 0, 1000)) // as vcap's
			script := s.script("db", name, "echo out; echo err >&2")
			must(t, s.run(script))
			must(t, s.run(script))
			got := map[string]string{}
			for _, path := range []string{base + ".stdout.log", base + ".stderr.log"} {
				got[path] = s.read("sys/log/db/" + path)
				info, err := os.Stat(s.root + "/sys/log/db/" + path)
				must(t, err)
				if info.Mode() != 0o640 {
					t.Errorf("mode of %s: %v", path, info.Mode())
				}
			}
			want := map[string]string{base + ".stdout.log": "out\nout\n", base + ".stderr.log": "err\nerr\n"}
			if diff := cmp.Diff(want, got); diff != "" || s.log.String() != "" {
				t.Errorf("%s -want +got:\n%s", s.log, diff)
			}
			info, err := os.Stat(s.root + "/sys/log/db")
			must(t, err)
			if st := info.Sys().(*syscall.Stat_t); info.Mode().Perm() != 0o770 || st.Uid != 0 || st.Gid != 1000 {
				t.Errorf("directory: mode %v, owner %d:%d", info.Mode(), st.Uid, st.Gid)
			}
		})
	}
}

// What another process can put where a job's logs lie.
func TestLogThatIsNoFileOfTheJobsIsNeverWrittenTo(t *testing.T) {
	for name, c := range map[string]struct {
		attack func(t *testing.T, logs, victim string)
		want   string
	}{
		"a link in the file's place": {
			func(t *testing.T, logs, victim string) { must(t, os.Symlink(victim, logs+"/db/pre-stop.stderr.log")) },
			"too many levels of symbolic links",
		},
		"a link to nothing yet": {
			func(t *testing.T, logs, victim string) {
				must(t, os.Symlink(victim+"-new", logs+"/db/pre-stop.stderr.log"))
			},
			"too many levels of symbolic links",
		},
		"a link in the directory's place": {
			func(t *testing.T, logs, victim string) {
				must(t, os.Remove(logs+"/db"))
				must(t, os.Symlink(filepath.Dir(victim), logs+"/db"))
			},
			"not a directory",
		},
		"a file in the directory's place": {
			func(t *testing.T, logs, _ string) {
				must(t, os.Remove(logs+"/db"))
				write(t, logs+"/db", "")
			},
			"not a directory",
		},
		"another name of the victim's file": {
			func(t *testing.T, logs, victim string) { must(t, os.Link(victim, logs+"/db/pre-stop.stderr.log")) },
			"it has other names",
		},
		"a FIFO that nobody reads": {
			func(t *testing.T, logs, _ string) {
				must(t, syscall.Mkfifo(logs+"/db/pre-stop.stderr.log", 0o666))
			},
			"it is no regular file",
		},
		"a directory in the file's place": {
			func(t *testing.T, logs, _ string) { must(t, os.Mkdir(logs+"/db/pre-stop.stderr.log", 0o777)) },
			"is a directory",
		},
		"a device": {
			func(t *testing.T, logs, _ string) {
				run(t, "mknod", logs+"/db/pre-stop.stderr.log", "c", "1", "3")
			},
			"it is no regular file",
		},
		"a full disk": {
			func(t *testing.T, logs, _ string) {
				run(t, "mount", "-t", "tmpfs", "-o", "size=64k", "none", logs+"/db")
				t.Cleanup(func() { run(t, "umount", logs+"/db") })
			},
			"no space left on device",
		},
	} {
		t.Run(name, func(t *testing.T) {
			s := newSite(t)
			logs, victim := s.root+"/sys/log", s.root+"/victim/pre-stop.stderr.log"
			must(t, os.MkdirAll(logs+"/db", 0o777))
			write(t, victim, "precious")
			c.attack(t, logs, victim)
			script := s.script("db", jobs.PreStop, "echo why >&2; [ -e DIR/good ]")
			s.wantError(s.run(script), `pre-stop of job "db" failed: exit status 1: why`)
			if got := s.log.String(); !strings.Contains(got, "what a script prints is not logged") || !strings.Contains(got, c.want) {
				t.Errorf("logged: %s", got)
			}
			write(t, s.root+"/good", "")
			must(t, s.run(script))
			if got := s.read("victim/pre-stop.stderr.log"); got != "precious" {
				t.Errorf("the victim's file: %q", got)
			}
			if files, err := os.ReadDir(filepath.Dir(victim)); len(files) != 1 {
				t.Errorf("the victim's directory: %v, %v", files, err)
			}
		})
	}
}

func TestErrorQuotesTheEndOfWhatWasPrinted(t *testing.T) {
	for name, c := range map[string]struct{ text, want string }{
		"of this run alone":         {"echo new >&2", "new"},
		"whole lines of much":       {"for i in $(seq 1000); do echo line $i of many; done >&2", "line 941 of many … line 1000 of many"},
		"whole characters of much":  {"printf 'é%.0s' $(seq 2000) >&2; printf x >&2", "éé … ééx"},
		"what is no text":           {`printf 'a\377b' >&2`, "a\uFFFDb"},
		"after a log was emptied":   {"echo old >&2; : > DIR/sys/log/db/post-start.stderr.log; echo new >&2", "new"},
		"after a log was taken off": {"rm DIR/sys/log/db/*; echo new >&2", "new"},
	} {
		t.Run(name, func(t *testing.T) {
			s := newSite(t)
			s.script("db", jobs.PostStart, "echo of an earlier run >&2")
			must(t, s.run(s.script("db", jobs.PostStart, "echo of an earlier run >&2")))
			logged := s.run(s.script("db", jobs.PostStart, c.text+"\nexit 1"))
			s.wantTail(logged, `post-start of job "db" failed: exit status 1: `, c.want)
			if strings.Contains(c.text, "sys/log") {
				return
			}
			kept := s.run(s.script("", jobs.PostSnapshot, c.text+"\nexit 1"))
			s.wantTail(kept, `quiesced/post-snapshot of job "" failed: exit status 1: `, c.want)
		})
	}
}

// wantTail checks an error's prefix and the ends of what it quotes.
func (s *site) wantTail(err error, prefix, want string) {
	s.t.Helper()
	got, ok := strings.CutPrefix(err.Error(), prefix)
	first, last, cut := strings.Cut(want, " … ")
	if !cut {
		last = first
	}
	if !ok || !strings.HasPrefix(got, first) || !strings.HasSuffix(got, last) || !cut && got != want || len(got) > 1024 || cut && len(got) < 900 {
		s.t.Errorf("got %d bytes: %s", len(got), err)
	}
}

func TestScriptMayPrintMuchWhereThereIsNoLog(t *testing.T) {
	s := newSite(t)
	script := s.script("", jobs.PreSnapshot, "head -c 20000000 /dev/zero; head -c 20000000 /dev/zero >&2")
	must(t, s.Run(context.Background(), []jobs.Script{script}, time.Minute, nil))
}
