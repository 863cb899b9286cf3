package front_test

import (
	"encoding/json"
	"io"
	"strings"
	"testing"
	"testing/iotest"

	"github.com/google/go-cmp/cmp"
	"github.com/google/go-cmp/cmp/cmpopts"

	"github.com/quiesced/quiesced/cpi/front"
)

func TestTheMethodIsToldFromTheRequestsBeginning(t *testing.T) {
	for _, tt := range []struct{ name, document, want string }{
		{"a director's request", asked, "snapshot_disk"},
		{"another method", `{"method":"info","arguments":[]}`, "info"},
		{"a request cut short behind it", `{"method":"info","argum`, "info"},
		{"a method behind other keys", `{"arguments":[{"method":"info"}],"method":"has_disk"}`, "has_disk"},
		{"the first of two", `{"method":"info","method":"snapshot_disk"}`, "info"},
		{"white space before it", "\n { \"method\" : \"info\" }", "info"},
		{"no method", `{"arguments":[]}`, ""},
		{"a method of another type", `{"method":1}`, ""},
		{"a key in another case", `{"Method":"snapshot_disk"}`, ""},
		{"a list", `["method","info"]`, ""},
		{"nothing", "", ""},
		{"no JSON", "\xff\xfe", ""},
	} {
		t.Run(tt.name, func(t *testing.T) { same(t, "method", tt.want, front.Method([]byte(tt.document))) })
	}
}

func TestARequestForASnapshotIsReadAsTheDirectorMeansIt(t *testing.T) {
	plain := front.Snapshot{
		Disk: "disk-1", Deployment: "dep", Job: "db", AgentID: "a-1", DirectorUUID: "d-uuid",
		Tags: map[string]string{"director_name": "mini", "director_uuid": "d-uuid", "instance_id": "i-1", "owner": "me"},
	}
	nobody := plain
	nobody.AgentID = ""
	for _, tt := range []struct {
		name, document string
		want           front.Snapshot
	}{
		{"the first agent_id counts", asked, plain},
		{"null as agent_id stays, whatever a tag says", strings.Replace(asked, `"agent_id":"a-1"`, `"agent_id":null`, 1), nobody},
		{"a context repeats its director", strings.Replace(asked, `"request_id"`, `"director_uuid":"other","request_id"`, 1), plain},
		{"no metadata", `{"method":"snapshot_disk","arguments":["disk-1",{}],"context":{}}`, front.Snapshot{Disk: "disk-1", Tags: map[string]string{}}},
	} {
		t.Run(tt.name, func(t *testing.T) {
			got, err := front.ParseSnapshot([]byte(tt.document))
			if err != nil {
				t.Fatal(err)
			}
			if diff := cmp.Diff(tt.want, got, cmpopts.IgnoreUnexported(front.Snapshot{})); diff != "" {
				t.Errorf("-want +got\n%s", diff)
			}
		})
	}
}

func TestWhatNoDirectorAsksIsNotRead(t *testing.T) {
	for _, tt := range []struct{ name, old, replacement string }{
		{"a request cut short", `"api_version":2}`, ""},
		{"a second document", `"api_version":2}`, `"api_version":2}{}`},
		{"a second list of arguments", `"api_version"`, `"arguments":[]`},
		{"no arguments", `"arguments"`, `"argument"`},
		{"a disk without a name", `"disk-1"`, `""`},
		{"a disk that is a number", `"disk-1"`, `1`},
		{"metadata that is a list", `{"deployment":"dep"`, `[],{"deployment":"dep"`},
		{"a third argument", `}],"context"`, `},1],"context"`},
		{"an agent_id that is a number", `"agent_id":"a-1"`, `"agent_id":1`},
		{"bytes that are no UTF-8", `"owner":"me"`, "\"owner\":\"\xff\""},
	} {
		t.Run(tt.name, func(t *testing.T) {
			document := strings.Replace(asked, tt.old, tt.replacement, 1)
			if s, err := front.ParseSnapshot([]byte(document)); err == nil {
				t.Errorf("it was read as %+v", s)
			} else if strings.Contains(err.Error(), "s3cr3t") {
				t.Errorf("the error tells a secret: %v", err)
			}
		})
	}
}

// FuzzParseSnapshot checks that what is read is read rightly, and that metadata can be
// added to it without a change to anything else.
func FuzzParseSnapshot(f *testing.F) {
	f.Add([]byte(asked))
	f.Add([]byte(`{"arguments":["d",{}]}`))
	f.Add([]byte(`{"arguments":["d",{"a":{"b":[1,"}"]}} ]} `))
	f.Fuzz(func(t *testing.T, document []byte) {
		s, err := front.ParseSnapshot(document)
		if err != nil {
			return
		}
		var before, after struct {
			Arguments []json.RawMessage `json:"arguments"`
		}
		added := s.WithMetadata(document, "quiesced_run", "id-1")
		if json.Unmarshal(document, &before) != nil || json.Unmarshal(added, &after) != nil {
			t.Fatalf("%q became %q", document, added)
		}
		metadata := map[string]json.RawMessage{}
		if err := json.Unmarshal(after.Arguments[1], &metadata); err != nil || string(metadata["quiesced_run"]) != `"id-1"` {
			t.Fatalf("%q became %q", document, added)
		}
		if front.Method(document) != front.Method(added) || string(before.Arguments[0]) != string(after.Arguments[0]) {
			t.Fatalf("%q became %q", document, added)
		}
		if again, err := front.ParseSnapshot(added); err != nil || again.Disk != s.Disk || again.AgentID != s.AgentID {
			t.Fatalf("%q became %q: %v", document, added, err)
		}
	})
}

func TestARequestIsKeptAsItCame(t *testing.T) {
	long := strings.Repeat(" ", 200<<10)
	for _, tt := range []struct{ name, text, method string }{
		{"nothing", "", ""},
		{"a director's", asked, "snapshot_disk"},
		{"a method behind much else", `{"arguments":["` + long + `"],"method":"has_disk"}`, "has_disk"},
		{"much behind the method", `{"method":"info","arguments":["` + long + `"]}`, "info"},
	} {
		t.Run(tt.name, func(t *testing.T) {
			for name, from := range map[string]io.Reader{
				"at once": strings.NewReader(tt.text), "in pieces": iotest.HalfReader(strings.NewReader(tt.text)),
				"with its end": iotest.DataErrReader(strings.NewReader(tt.text)),
			} {
				r, err := front.ReadRequest(from)
				if err != nil {
					t.Fatalf("%s: %v", name, err)
				}
				document, err := r.Document()
				if string(document) != tt.text || err != nil {
					t.Errorf("%s: got %d bytes, %v", name, len(document), err)
				}
				same(t, "the method, "+name, tt.method, r.Method())
			}
		})
	}
	if _, err := front.ReadRequest(iotest.ErrReader(io.ErrUnexpectedEOF)); err == nil {
		t.Error("half a request was taken")
	}
}
