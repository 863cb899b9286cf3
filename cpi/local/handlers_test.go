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
		{"delete_disk", `["../x"]`, `"../x"`},
	} {
		_, err := call(t, root, tt.method, tt.arguments)
		if !errors.Is(err, cpi.CpiError) || !strings.Contains(err.Error(), tt.part) {
			t.Errorf("%s %s: got %v", tt.method, tt.arguments, err)
		}
	}
}

func TestARequestWithoutRootIsRefused(t *testing.T) {
	for _, context := range []string{`{}`, `{"root":1}`, `null`} {
		var out bytes.Buffer
		request := `{"method":"has_disk","arguments":["d"],"context":` + context + `}`
		if err := cpi.Serve(strings.NewReader(request), &out, local.Handlers(io.Discard)); err != nil {
			t.Fatal(err)
		}
		if _, err := cpi.ParseResponse(out.Bytes()); !errors.Is(err, cpi.CpiError) || !strings.Contains(err.Error(), `"root"`) {
			t.Errorf("%s: got %v", context, err)
		}
	}
}

func TestAMethodOfOtherCPIsIsNotImplemented(t *testing.T) {
	if _, err := call(t, t.TempDir(), "create_vm", `[]`); !errors.Is(err, cpi.NotImplemented) {
		t.Errorf("got %v", err)
	}
}
