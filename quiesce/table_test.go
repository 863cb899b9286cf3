package quiesce_test

import (
	"bytes"
	"os"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"
	"github.com/moby/sys/mountinfo"

	"github.com/quiesced/quiesced/quiesce"
)

func TestMountTableIsReadLineByLine(t *testing.T) {
	table := strings.Join([]string{plainLine, bareLine, escapedLine, btrfsLine}, "\n") + "\n"
	got, err := quiesce.ParseMounts([]byte(table))
	must(t, err)
	want := []*mountinfo.Info{
		{
			ID: 36, Parent: 35, Major: 98, Root: "/", Mountpoint: "/var/vcap/store", Options: "rw,noatime",
			Optional: "shared:7 master:1", FSType: "ext4", Source: "/dev/vdb1", VFSOptions: "rw,errors=continue",
		},
		{
			ID: 25, Parent: 1, Major: 8, Minor: 1, Root: "/", Mountpoint: "/", Options: "rw",
			FSType: "ext4", Source: "/dev/sda1", VFSOptions: "rw",
		},
		{
			ID: 40, Parent: 35, Minor: 44, Root: `/a\b`, Mountpoint: "/mnt/with space\ttab\nline", Options: "rw",
			FSType: "tmpfs", Source: "my tmp", VFSOptions: "rw",
		},
		{
			ID: 41, Parent: 35, Minor: 45, Root: "/sub", Mountpoint: "/data", Options: "rw",
			FSType: "btrfs", Source: "/dev/loop7", VFSOptions: "rw,space_cache=v2,subvolid=256,subvol=/sub",
		},
	}
	if diff := cmp.Diff(want, got); diff != "" {
		t.Errorf("-want +got:\n%s", diff)
	}
}

func TestMountTableThatWasNotReadInFullIsAnError(t *testing.T) {
	for name, table := range map[string]string{
		"nothing at all":             "",
		"an empty line":              "\n",
		"a line cut before the dash": plainLine + "\n" + plainLine[:50],
		"a line cut behind the dash": plainLine + "\n" + plainLine[:72],
		"no dash":                    strings.Replace(plainLine, " - ", " ", 1),
		"a device without a colon":   strings.Replace(plainLine, "98:0", "980", 1),
	} {
		t.Run(name, func(t *testing.T) {
			got, err := quiesce.ParseMounts([]byte(table))
			if err == nil || !strings.HasPrefix(err.Error(), "cannot parse the mount table") {
				t.Errorf("got %d mounts and error %v", len(got), err)
			}
		})
	}
}

func TestOptionsAreFoundByTheirWholeNameAndUnescaped(t *testing.T) {
	type answer struct {
		Value string
		There bool
	}
	overlay := strings.Fields(overlayLine)[9]
	for name, c := range map[string]struct {
		options, key string
		want         answer
	}{
		"the first one":                      {"ro,relatime", "ro", answer{"", true}},
		"the last one":                       {"rw,errors=continue", "errors", answer{"continue", true}},
		"a prefix of another is not there":   {"rootcontext=x,rw", "ro", answer{}},
		"a value is not a name":              {"errors=remount-ro", "remount-ro", answer{}},
		"a comma and a space are written so": {overlay, "upperdir", answer{"/a,b c/u", true}},
		"a backslash is written so":          {`upperdir=/a\134054`, "upperdir", answer{`/a\054`, true}},
		"a letter beyond ASCII":              {`upperdir=/\303\251`, "upperdir", answer{"/é", true}},
	} {
		t.Run(name, func(t *testing.T) {
			var got answer
			got.Value, got.There = quiesce.Option(c.options, c.key)
			if diff := cmp.Diff(c.want, got); diff != "" {
				t.Errorf("-want +got:\n%s", diff)
			}
		})
	}
}

func FuzzParseMounts(f *testing.F) {
	for _, seed := range []string{
		plainLine, bareLine, escapedLine, btrfsLine, overlayLine, readOnlyLine,
		bareLine + "\n" + overlayLine + "\n", plainLine[:50], plainLine[:72], "", "\n",
		`1 2 3:4 \04 /\999\1 rw - x.y \ \777`, `1 2 -1:99999999999 / / rw a b c - t s o o`,
	} {
		f.Add([]byte(seed))
	}
	f.Fuzz(func(t *testing.T, table []byte) {
		mounts, err := quiesce.ParseMounts(table)
		if err != nil {
			if mounts != nil {
				t.Errorf("got mounts with the error %v", err)
			}
			return
		}
		lines := bytes.Count(bytes.TrimSuffix(table, []byte("\n")), []byte("\n")) + 1
		if len(mounts) != lines {
			t.Errorf("got %d mounts of %d lines", len(mounts), lines)
		}
		for _, m := range mounts {
			value, there := quiesce.Option(m.VFSOptions, "upperdir")
			if len(value) > len(m.VFSOptions) || there && !strings.Contains(m.VFSOptions, "upperdir") {
				t.Errorf("option upperdir of %q is %q", m.VFSOptions, value)
			}
		}
	})
}

func TestSurveyNamesTheTableThatItCannotRead(t *testing.T) {
	dir := t.TempDir()
	if _, err := (quiesce.System{Proc: dir}).Survey(); err == nil || !strings.Contains(err.Error(), dir+"/self/mountinfo") {
		t.Errorf("got %v", err)
	}
	must(t, os.MkdirAll(dir+"/self", 0o755))
	must(t, os.WriteFile(dir+"/self/mountinfo", []byte(plainLine+"\n"), 0o600))
	if _, err := (quiesce.System{Proc: dir}).Survey(); err != nil {
		t.Error(err)
	}
}

// What the survey makes of real mounts.
