package local_test

import (
	"bytes"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"path/filepath"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"

	"github.com/quiesced/quiesced/cpi"
	"github.com/quiesced/quiesced/cpi/local"
)

// call makes a call as a director would and returns the result.
func call(t *testing.T, root, method, arguments string) (string, error) {
	t.Helper()
	request := fmt.Sprintf(`{"method":%q,"arguments":%s,"context":{"director_uuid":"u","root":%q},"api_version":2}`,
		method, arguments, root)
	var out bytes.Buffer
	if err := cpi.Serve(strings.NewReader(request), &out, local.Handlers(io.Discard)); err != nil {
		t.Fatal(err)
	}
	answer, err := cpi.ParseResponse(out.Bytes())
	return string(answer.Result), err
}

func TestTheMethodsWorkOverTheWire(t *testing.T) {
	root := t.TempDir()
	must := func(method, arguments string) string {
		t.Helper()
		result, err := call(t, root, method, arguments)
		if err != nil {
			t.Fatalf("%s: %v", method, err)
		}
		return result
	}
	want := func(got, want string) {
		t.Helper()
		if got != want {
			t.Errorf("got %s, want %s", got, want)
		}
	}
	want(must("info", `[]`), `{"api_version":2,"stemcell_formats":[]}`)
	want(must("get_disks", `["vm-1"]`), `[]`)
	disk := must("create_disk", `[2,{},"vm-1"]`)
	want(must("has_disk", `[`+disk+`]`), `true`)
	want(must("get_disks", `["vm-1"]`), `[`+disk+`]`)
	want(must("set_disk_metadata", `[`+disk+`,{"a":"b"}]`), `null`)
	// A tag repeats a key of the director.
	snapshot := must("snapshot_disk", `[`+disk+`,{"agent_id":"a","agent_id":"evil"}]`)
	var listed []cpi.SnapshotInfo
	if err := json.Unmarshal([]byte(must("list_snapshots", `[]`)), &listed); err != nil || len(listed) != 1 {
		t.Fatalf("got %v, %v", listed, err)
	}
	if diff := cmp.Diff(map[string]any{"agent_id": "a"}, listed[0].Metadata); diff != "" || listed[0].DiskSize != 2*mib {
		t.Errorf("%d bytes, metadata: -want +got\n%s", listed[0].DiskSize, diff)
	}
	other := must("create_disk", `[3,{"snapshot_cid":`+snapshot+`},null]`)
	at := must("attach_disk", `["vm-1",`+other+`]`)
	if !strings.HasPrefix(at, `{"path":"/dev/loop`) {
		t.Errorf("attached is %s", at)
	}
	want(must("attach_disk", `["vm-2",`+other+`]`), at)
	want(must("detach_disk", `["vm-1",`+other+`]`), `null`)
	want(must("swap_disks", `[`+disk+`,`+other+`]`), `null`)
	want(must("delete_disk", `[`+other+`]`), `null`)
	want(must("delete_disk", `[`+disk+`]`), `null`)
	want(must("has_disk", `[`+disk+`]`), `false`)
	var cid string
	if err := json.Unmarshal([]byte(snapshot), &cid); err != nil {
		t.Fatal(err)
	}
	wantNames(t, filepath.Join(root, "snapshots"), cid+".img", cid+".json")
	want(must("delete_snapshot", `[`+snapshot+`]`), `null`)
	wantNames(t, filepath.Join(root, "snapshots"))
}

func TestBadArgumentsAreNamed(t *testing.T) {
	root := t.TempDir()
	for _, tt := range []struct{ method, arguments, part string }{
		{"snapshot_disk", `["d"]`, "it takes 2 arguments and got 1"},
		{"snapshot_disk", `[1,{}]`, "disk_cid"},
		{"snapshot_disk", `["d",[]]`, "metadata"},
		{"create_disk", `["1",{},"vm"]`, "size"},
		{"create_disk", `[1.5,{},"vm"]`, "size"},
		{"create_disk", `[1,"",""]`, "cloud_properties"},
		{"create_disk", `[1,{},1]`, "vm_cid"},
		{"delete_snapshot", `[null]`, "snapshot_cid"},
		{"list_snapshots", `[1]`, "it takes 0 arguments and got 1"},
		{"attach_disk", `["vm",null]`, "disk_cid"},
		{"detach_disk", `[null,"d"]`, "vm_cid"},
		{"swap_disks", `["d",1]`, "other_cid"},
		{"delete_disk", `["../x"]`, `"../x"`},
	} {
		_, err := call(t, root, tt.method, tt.arguments)
		if !errors.Is(err, cpi.CpiError) || !strings.Contains(err.Error(), tt.part) {
			t.Errorf("%s %s: got %v", tt.method, tt.arguments, err)
		}
	}
}

func TestAContextThatIsOfNoUseIsRefused(t *testing.T) {
	root := t.TempDir()
	for _, tt := range []struct{ context, part string }{
		{`{}`, `"root"`},
		{`{"root":1}`, `"root"`},
		{`null`, `"root"`},
		{fmt.Sprintf(`{"root":%q,"driver":1}`, root), `"driver"`},
		{fmt.Sprintf(`{"root":%q,"driver":"zfs"}`, root), `"zfs"`},
	} {
		var out bytes.Buffer
		request := `{"method":"create_disk","arguments":[1,{},null],"context":` + tt.context + `}`
		if err := cpi.Serve(strings.NewReader(request), &out, local.Handlers(io.Discard)); err != nil {
			t.Fatal(err)
		}
		_, err := cpi.ParseResponse(out.Bytes())
		wantError(t, err, cpi.CpiError, tt.part)
	}
}

func TestAMethodOfOtherCPIsIsNotImplemented(t *testing.T) {
	if _, err := call(t, t.TempDir(), "create_vm", `[]`); !errors.Is(err, cpi.NotImplemented) {
		t.Errorf("got %v", err)
	}
}
