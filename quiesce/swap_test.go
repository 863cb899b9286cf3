package quiesce_test

import (
	"os"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"

	"github.com/quiesced/quiesced/quiesce"
)

const (
	swapHeading = "Filename\t\t\t\tType\t\tSize\t\tUsed\t\tPriority\n"
	swapDevice  = "/dev/vdb2                               partition\t20476\t\t0\t\t-2\n"
	swapFile    = "/store/sw\\040ap\\134a                      file\t\t10228\t\t12\t\t5\n"
)

func TestSwapTableIsReadLineByLine(t *testing.T) {
	type answer struct{ Files, Devices []string }
	for name, c := range map[string]struct {
		table string
		want  answer
	}{
		"nothing":             {"", answer{}},
		"a heading alone":     {swapHeading, answer{}},
		"a device":            {swapHeading + swapDevice, answer{nil, []string{"/dev/vdb2"}}},
		"a device and a file": {swapHeading + swapDevice + swapFile, answer{[]string{`/store/sw ap\a`}, []string{"/dev/vdb2"}}},
	} {
		t.Run(name, func(t *testing.T) {
			files, devices, err := quiesce.ParseSwaps(c.table)
			must(t, err)
			if diff := cmp.Diff(c.want, answer{files, devices}); diff != "" {
				t.Errorf("-want +got:\n%s", diff)
			}
		})
	}
}

func TestSwapTableThatIsNotUnderstoodIsAnError(t *testing.T) {
	for name, line := range map[string]string{
		"a line cut short": "/dev/vdb2 partition\n", "another type": strings.Replace(swapDevice, "partition", "network", 1), "an empty line": "\n",
	} {
		t.Run(name, func(t *testing.T) {
			want := "cannot parse the table of swap areas: line 2 is"
			if _, _, err := quiesce.ParseSwaps(swapHeading + line); err == nil || !strings.HasPrefix(err.Error(), want) {
				t.Errorf("got %v", err)
			}
			system := quiesce.System{Proc: t.TempDir()}
			must(t, os.Mkdir(system.Proc+"/self", 0o755))
			must(t, os.WriteFile(system.Proc+"/self/mountinfo", []byte(bareLine+"\n"), 0o600))
			must(t, os.WriteFile(system.Proc+"/swaps", []byte(swapHeading+line), 0o600))
			s, err := system.Survey()
			must(t, err)
			if _, err := s.Filesystems(disks("/")); err == nil || !strings.HasPrefix(err.Error(), want) {
				t.Errorf("got %v", err)
			}
		})
	}
}

func FuzzParseSwaps(f *testing.F) {
	for _, seed := range []string{"", swapHeading, swapHeading + swapDevice + swapFile, swapDevice, "\n\n", "\n" + `\777 file 1 2 3`} {
		f.Add(seed)
	}
	f.Fuzz(func(t *testing.T, table string) {
		files, devices, err := quiesce.ParseSwaps(table)
		if n := len(files) + len(devices); err != nil && n > 0 || err == nil && n != strings.Count(strings.TrimSuffix(table, "\n"), "\n") {
			t.Errorf("got %d areas with error %v", n, err)
		}
	})
}
