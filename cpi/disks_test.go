package cpi_test

import (
	"encoding/json"
	"errors"
	"fmt"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"

	"github.com/quiesced/quiesced/cpi"
)

// answering is a CPI that answers everything with one result and keeps its request in
// the file stdin of the directory.
func answering(t *testing.T, result string) (*cpi.Client, string) {
	t.Helper()
	return newClient(t, `cat >$D/stdin; printf '%s' '{"result":`+result+`,"error":null,"log":""}'`)
}

func TestMethodsOfDisksAreAskedForAsADirectorDoes(t *testing.T) {
	ctx := withPatience(t)
	for _, tt := range []struct {
		name, result string
		do           func(*cpi.Client) error
		want         string
	}{
		{"create_disk", `"disk-1"`, func(c *cpi.Client) error {
			_, err := c.CreateDisk(ctx, 1024, map[string]any{"type": "gp3"}, "vm-1")
			return err
		}, `[1024,{"type":"gp3"},"vm-1"]`},
		{"create_disk", `"disk-1"`, func(c *cpi.Client) error {
			_, err := c.CreateDisk(ctx, 1, nil, "")
			return err
		}, `[1,{},null]`},
		{"delete_disk", `null`, func(c *cpi.Client) error { return c.DeleteDisk(ctx, "disk-1") }, `["disk-1"]`},
		{"attach_disk", `"/dev/sdb"`, func(c *cpi.Client) error {
			_, err := c.AttachDisk(ctx, "vm-1", "disk-1")
			return err
		}, `["vm-1","disk-1"]`},
		{"detach_disk", `null`, func(c *cpi.Client) error { return c.DetachDisk(ctx, "vm-1", "disk-1") }, `["vm-1","disk-1"]`},
		{"list_snapshots", `[]`, func(c *cpi.Client) error {
			_, err := c.ListSnapshots(ctx)
			return err
		}, `[]`},
		{"swap_disks", `null`, func(c *cpi.Client) error { return c.SwapDisks(ctx, "disk-1", "disk-2") }, `["disk-1","disk-2"]`},
	} {
		t.Run(tt.name+" "+tt.want, func(t *testing.T) {
			c, dir := answering(t, tt.result)
			if err := tt.do(c); err != nil {
				t.Fatal(err)
			}
			sent := read(t, filepath.Join(dir, "stdin"))
			want := fmt.Sprintf(`{"method":%q,"arguments":%s,`, tt.name, tt.want)
			if !strings.HasPrefix(sent, want) {
				t.Errorf("sent %s\nwant it to begin with %s", sent, want)
			}
		})
	}
}

func TestTheCIDOfANewDiskIsRead(t *testing.T) {
	for result, want := range map[string]string{
		`"disk-1"`: "disk-1", `""`: "", `null`: "", `1`: "", `{"cid":"disk-1"}`: "",
	} {
		c, _ := answering(t, result)
		got, err := c.CreateDisk(withPatience(t), 1, nil, "vm")
		if got != want || (err == nil) != (want != "") {
			t.Errorf("%s: got %q, %v", result, got, err)
		}
	}
}

func TestAHintLeadsToADeviceOrIsShown(t *testing.T) {
	for _, tt := range []struct{ name, result, path, shows string }{
		{"a device", `"/dev/sdf"`, "/dev/sdf", ""},
		{"an object with a path", `{"path":"/dev/loop7","lun":"3"}`, "/dev/loop7", ""},
		{"a directory", `{"path":"/srv/cpi/disks/d"}`, "/srv/cpi/disks/d", ""},
		{"nothing", `null`, "", "but null"},
		{"an empty path", `{"path":""}`, "", `"path"`},
		{"a path of another type", `{"path":["/dev/sdf"]}`, "", `"path"`},
		{"a path in other letters", `{"Path":"/dev/sdf"}`, "", `"Path"`},
		{"a number of SCSI", `"3"`, "", `but "3"`},
		{"a number", `3`, "", "but 3"},
		{"a volume's id", `{"volume_id":"vol-1","host_device_id":"x"}`, "", `["host_device_id" "volume_id"]`},
		{"what has a password", `{"iscsi_settings":{"password":"hunter2"}}`, "", `["iscsi_settings"]`},
	} {
		t.Run(tt.name, func(t *testing.T) {
			c, _ := answering(t, tt.result)
			path, err := c.AttachDisk(withPatience(t), "vm", "disk-1")
			if path != tt.path || (err == nil) != (tt.path != "") {
				t.Errorf("got %q, %v", path, err)
			}
			if err != nil {
				wantText(t, err, tt.shows)
				if strings.Contains(err.Error(), "hunter2") {
					t.Errorf("the password is shown: %v", err)
				}
			}
		})
	}
}

func TestAListOfSnapshotsIsReadStrictly(t *testing.T) {
	c, _ := answering(t, `[{"snapshot_cid":"snap-1","disk_cid":"disk-1","created_at":"2026-11-26T18:00:00.5Z","size":4096,`+
		`"disk_size":1048576,"metadata":{"job":"db","index":0},"more":1},{"snapshot_cid":"snap-2","metadata":null}]`)
	got, err := c.ListSnapshots(withPatience(t))
	if err != nil {
		t.Fatal(err)
	}
	want := []cpi.SnapshotInfo{
		{CID: "snap-1", DiskCID: "disk-1", Created: time.Date(2026, 11, 26, 18, 0, 0, 5e8, time.UTC), Size: 4096,
			DiskSize: mebibyte, Metadata: map[string]any{"job": "db", "index": 0.0}},
		{CID: "snap-2"},
	}
	if diff := cmp.Diff(want, got); diff != "" {
		t.Errorf("-want +got\n%s", diff)
	}
	for name, result := range map[string]string{
		"null":                      `null`,
		"an object":                 `{}`,
		"CIDs alone":                `["snap-1"]`,
		"an entry that is null":     `[null]`,
		"an entry without CID":      `[{"disk_cid":"disk-1"}]`,
		"one CID twice":             `[{"snapshot_cid":"a"},{"snapshot_cid":"a"}]`,
		"a size below zero":         `[{"snapshot_cid":"a","size":-1}]`,
		"a disk's size below zero":  `[{"snapshot_cid":"a","disk_size":-1}]`,
		"a fraction for a size":     `[{"snapshot_cid":"a","size":1.5}]`,
		"a time that is none":       `[{"snapshot_cid":"a","created_at":"yesterday"}]`,
		"metadata that is a string": `[{"snapshot_cid":"a","metadata":"x"}]`,
	} {
		c, _ := answering(t, result)
		if got, err := c.ListSnapshots(withPatience(t)); err == nil {
			t.Errorf("%s was taken: %v", name, got)
		}
	}
}

const mebibyte = 1 << 20

func TestAMethodThatACPIDoesNotHaveIsToldApart(t *testing.T) {
	for _, tt := range []struct {
		kind, message string
		want          bool
	}{
		{"Bosh::Clouds::NotImplemented", "Must call implemented method", true},
		{"Bosh::Clouds::NotSupported", "no", true},
		{"InvalidCall", "Method is not known, got: 'swap_disks'", true},
		{"InvalidCall", "Arguments are not correct, details: 'x'", false},
		{"Bosh::Clouds::CloudError", "Invalid Method: swap_disks", true},
		{"Bosh::Clouds::CloudError", "the disk is on fire", false},
		{"Bosh::Clouds::CpiError", "Method is not known, got: 'x'", false},
		{"Other", "", false},
	} {
		message, _ := json.Marshal(tt.message)
		_, err := cpi.ParseResponse([]byte(`{"result":null,"error":{"type":"` + tt.kind + `","message":` + string(message) + `,"ok_to_retry":false},"log":""}`))
		if got := cpi.CannotDo(fmt.Errorf("cannot call: %w", err)); got != tt.want {
			t.Errorf("%s %q: got %v", tt.kind, tt.message, got)
		}
	}
	for _, err := range []error{nil, errors.New("broken"), cpi.ErrNoAnswer} {
		if cpi.CannotDo(err) {
			t.Errorf("%v is taken for a method that is not there", err)
		}
	}
}
