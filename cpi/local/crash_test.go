package local_test

import (
	"bytes"
	"errors"
	"fmt"
	"maps"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"strings"
	"sync"
	"testing"

	"github.com/google/go-cmp/cmp"
	"golang.org/x/sys/unix"

	"github.com/quiesced/quiesced/cpi"
	"github.com/quiesced/quiesced/cpi/local"
	"github.com/quiesced/quiesced/quiesce/loopfs"
)

// binary builds local-cpi, once. It has no race detector, whose start under strace takes
// seconds.
var binary = sync.OnceValues(func() (string, error) {
	dir, err := os.MkdirTemp("", "local-cpi-")
	if err != nil {
		return "", err
	}
	binaryDir = dir
	path := filepath.Join(dir, "local-cpi")
	cmd := exec.Command("go", "build", "-o", path, "../../cmd/local-cpi")
	cmd.Env = append(os.Environ(), "CGO_ENABLED=0")
	if out, err := cmd.CombinedOutput(); err != nil {
		return "", fmt.Errorf("cannot build local-cpi: %w\n%s", err, out)
	}
	return path, nil
})

var binaryDir string

func TestMain(m *testing.M) {
	code := m.Run()
	_ = os.RemoveAll(binaryDir)
	os.Exit(code)
}

// process is a call of local-cpi, under a command if one is given.
func (p *place) process(method, arguments string, under ...string) *exec.Cmd {
	p.t.Helper()
	command := append(under, must(binary())(p.t))
	cmd := exec.Command(command[0], command[1:]...)
	cmd.Stdin = strings.NewReader(fmt.Sprintf(`{"method":%q,"arguments":%s,"context":{"root":%q,"driver":%q}}`,
		method, arguments, p.root, p.driver))
	return cmd
}

// changing are the system calls that change what is on a disk or who has locked it.
const changing = "/^(ioctl|fsync|flock|ftruncate|fchmod|write|copy_file_range|rename|unlink|rmdir|mkdir)"

// kill is a moment: before the nth call of one name that a thread makes, which is how
// strace counts.
type kill struct {
	syscall string
	n       int
}

// callLine takes note of the calls that ask each loop device of the machine for its
// image, of which there may be more the next time.
var callLine = regexp.MustCompile(`(?m)^(\d+) +(\w+)\((\d+, LOOP_GET_STATUS64)?`)

// moments makes a call to its end and returns every moment of it.
func (p *place) moments(method, arguments string) []kill {
	p.t.Helper()
	trace := filepath.Join(p.t.TempDir(), "trace")
	cmd := p.process(method, arguments, "strace", "-f", "-o", trace, "-e", "trace="+changing)
	if out, err := cmd.CombinedOutput(); err != nil {
		p.t.Fatalf("%s: %v\n%s", method, err, out)
	}
	count := map[string]int{}
	var all []kill
	for _, line := range callLine.FindAllStringSubmatch(string(must(os.ReadFile(trace))(p.t)), -1) {
		thread, name := line[1], line[2]
		count[thread+name]++
		if line[3] == "" {
			all = append(all, kill{name, count[thread+name]})
		}
	}
	return all
}

// killed makes a call that is killed at a moment, and reports whether it was: a call may
// go on in another thread now and then.
func (p *place) killed(at kill, method, arguments string) bool {
	p.t.Helper()
	cmd := p.process(method, arguments, "strace", "-f", "-o", "/dev/null", "-e", "trace="+at.syscall,
		"-e", fmt.Sprintf("inject=%s:signal=KILL:when=%d", at.syscall, at.n))
	var out, errs bytes.Buffer
	cmd.Stdout, cmd.Stderr = &out, &errs
	err := cmd.Run()
	if _, answer := cpi.ParseResponse(out.Bytes()); answer == nil {
		return false
	}
	if out.Len() > 0 || err == nil || cmd.ProcessState.ExitCode() >= 0 {
		p.t.Fatalf("%s, to be killed before %s %d: %v: %s\n%s", method, at.syscall, at.n, err, out.Bytes(), errs.Bytes())
	}
	return true
}

// crashes are the calls that are killed. Their disks are "a" and "b", a snapshot of each
// is there.
var crashes = []struct {
	name      string
	method    string
	arguments func(snapshots [2]string) string

	// done is what the disks and snapshots are after the call, of what they were before.
	// What is new has the CID "new".
	done func(before map[string]string, snapshots [2]string)
}{
	{"a snapshot", "snapshot_disk", func([2]string) string { return `["a",{}]` },
		func(c map[string]string, _ [2]string) { c["new"] = c["a"] }},
	{"a disk from a snapshot", "create_disk", func(s [2]string) string { return `[1,{"snapshot_cid":"` + s[1] + `"},null]` },
		func(c map[string]string, s [2]string) { c["new"] = c[s[1]] }},
	{"a deletion", "delete_snapshot", func(s [2]string) string { return `["` + s[1] + `"]` },
		func(c map[string]string, s [2]string) { delete(c, s[1]) }},
	{"an exchange", "swap_disks", func([2]string) string { return `["a","b"]` },
		func(c map[string]string, _ [2]string) { c["a"], c["b"] = c["b"], c["a"] }},
}

func TestACallThatIsKilledAnywhereIsDoneOrNot(t *testing.T) {
	for _, s := range stages {
		t.Run(s.name, func(t *testing.T) {
			t.Parallel()
			f := s.mount(t)
			for _, c := range crashes {
				t.Run(c.name, func(t *testing.T) {
					p := f.place(t)
					moments := p.moments(c.method, c.arguments(p.two()))
					if len(moments) < 4 {
						t.Errorf("it has the moments %v only", moments)
					}
					var missed []kill
					for _, at := range moments {
						killed := false
						for try := 0; try < 3 && !killed; try++ {
							p := f.place(t)
							snapshots := p.two()
							before := p.contents()
							killed = p.killed(at, c.method, c.arguments(snapshots))
							after := maps.Clone(before)
							c.done(after, snapshots)
							p.checkCrash(at, before, after)
							p.checkSwept("a")
						}
						if !killed {
							missed = append(missed, at)
						}
					}
					if len(missed) > 1 { // one may be a call that a signal had started again
						t.Errorf("of %v it was not killed at %v", moments, missed)
					}
				})
			}
		})
	}
}

// two makes two small disks, "a" and "b", and a snapshot of each.
func (p *place) two() (snapshots [2]string) {
	p.t.Helper()
	if err := os.Mkdir(p.folder("disks"), 0o700); err != nil {
		p.t.Fatal(err)
	}
	for _, cid := range []string{"a", "b"} {
		if p.driver == "btrfs" {
			command(p.t, "btrfs", "subvolume", "create", p.folder("disks")+"/"+cid)
		}
		p.overwrite(cid, "disk "+cid)
	}
	return [2]string{must(p.SnapshotDisk("a", nil))(p.t), must(p.SnapshotDisk("b", nil))(p.t)}
}

// checkCrash wants one of two states, and a sidecar beside what is new.
func (p *place) checkCrash(at kill, before, after map[string]string) {
	p.t.Helper()
	got := map[string]string{}
	for cid, content := range p.contents() {
		if _, known := before[cid]; !known {
			if sidecars := must(filepath.Glob(p.root + "/*/" + cid + ".json"))(p.t); len(sidecars) != 1 {
				p.t.Errorf("killed before %s %d: %q has no sidecar", at.syscall, at.n, cid)
			}
			cid = "new"
		}
		got[cid] = content
	}
	if !maps.Equal(got, before) && !maps.Equal(got, after) {
		p.t.Errorf("killed before %s %d: got %v\nbefore the call %v\nafter it %v", at.syscall, at.n, got, before, after)
	}
}

// checkSwept makes calls in both folders and wants nothing there then but what exists.
func (p *place) checkSwept(disk string) {
	p.t.Helper()
	want := p.contents()
	snapshot, err := p.SnapshotDisk(disk, nil)
	created, err2 := p.CreateDisk(1, nil, "")
	if err := errors.Join(err, err2, p.DeleteDisk(created), p.DeleteSnapshot(snapshot)); err != nil {
		p.t.Fatal(err)
	}
	var disks, snapshots []string
	for cid := range want {
		if strings.HasPrefix(cid, "snap-") {
			snapshots = append(snapshots, cid)
		} else {
			disks = append(disks, cid)
		}
	}
	p.wantOnly("disks", disks...)
	p.wantOnly("snapshots", snapshots...)
}

func TestWhatWasAnsweredSurvivesAPowerCut(t *testing.T) {
	for _, s := range stages {
		t.Run(s.name, func(t *testing.T) {
			t.Parallel()
			f := s.mount(t)
			p := f.place(t)
			snapshots := p.two()
			command(t, "sync", "-f", p.root)
			for _, step := range []struct {
				name string
				do   func() error
			}{
				{"a snapshot", func() error { _, err := p.SnapshotDisk("a", nil); return err }},
				{"a disk from a snapshot", func() error { _, err := p.CreateDisk(1, fromSnapshot(snapshots[1]), ""); return err }},
				{"an empty disk", func() error { _, err := p.CreateDisk(1, local.Object{}, ""); return err }},
				{"an exchange", func() error { return p.SwapDisks("a", "b") }},
				{"a deleted snapshot", func() error { return p.DeleteSnapshot(snapshots[0]) }},
				{"a deleted disk", func() error { return p.DeleteDisk("b") }},
			} {
				if err := step.do(); err != nil {
					t.Fatal(err)
				}
				want := p.contents()
				f.cutPower(t)
				if diff := cmp.Diff(want, p.contents()); diff != "" {
					t.Errorf("%s: -before +after\n%s", step.name, diff)
				}
			}
		})
	}
}

// cutPower makes the filesystem lose what it has not written yet.
func (f *filesystem) cutPower(t *testing.T) {
	t.Helper()
	cut := f.image
	if f.fstype == "btrfs" { // which cannot be shut down; nor does it overwrite what it has committed
		cut += "-cut"
		command(t, "cp", "--sparse=always", f.image, cut)
	} else {
		shutDown(t, f.at)
	}
	unmount(t, f.at)
	if err := errors.Join(os.Rename(cut, f.image), loopfs.Mount(f.image, f.at)); err != nil {
		t.Fatal(err)
	}
}

// shutDown has a filesystem write nothing any more, not even its log.
func shutDown(t *testing.T, at string) {
	t.Helper()
	const goingDown, noLogFlush = 0x8004587d, 2 // XFS_IOC_GOINGDOWN, which ext4 has, too
	dir := must(os.Open(at))(t)
	defer dir.Close()
	if err := unix.IoctlSetPointerInt(int(dir.Fd()), goingDown, noLogFlush); err != nil {
		t.Fatal(err)
	}
}
