package cpi_test

import (
	"encoding/json"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"

	"github.com/quiesced/quiesced/cpi"
)

func requestContext(id string) map[string]any {
	return map[string]any{"director_uuid": director, "request_id": id}
}

func TestEncodeWritesTheDirectorsBytes(t *testing.T) {
	for _, tt := range []struct {
		file    string
		request cpi.Request
	}{
		{"info", cpi.Request{Method: "info", Context: requestContext("cpi-958857")}},
		{"snapshot_disk", cpi.Request{
			Method: "snapshot_disk", Arguments: []any{"disk-cid-1", metadata()},
			Context: requestContext("cpi-348175"), APIVersion: 2,
		}},
		{"delete_snapshot", cpi.Request{
			Method: "delete_snapshot", Arguments: []any{"snap-1"},
			Context: requestContext("cpi-348176"), APIVersion: 2,
		}},
	} {
		t.Run(tt.file, func(t *testing.T) {
			got, err := tt.request.Encode()
			if err != nil {
				t.Fatal(err)
			}
			if diff := cmp.Diff(read(t, "testdata/"+tt.file+".json"), string(got)); diff != "" {
				t.Errorf("-want +got\n%s", diff)
			}
		})
	}
}

func TestEncodeEscapesNothingForHTML(t *testing.T) {
	m := cpi.SnapshotMetadata{Tags: map[string]string{"a&b": "<c>"}}
	got, err := cpi.Request{Method: "m", Arguments: []any{"<&>", m}}.Encode()
	if err != nil {
		t.Fatal(err)
	}
	for _, part := range []string{`"<&>"`, `"a&b":"<c>"`, `"agent_id":null`, `"context":{}}`} {
		if !strings.Contains(string(got), part) {
			t.Errorf("%s has no %s", got, part)
		}
	}
}

func TestATagDoesNotRepeatAKeyOfTheDirector(t *testing.T) {
	m := metadata()
	m.Tags = map[string]string{"agent_id": "evil", "owner": "me"}
	got, err := json.Marshal(m)
	if err != nil {
		t.Fatal(err)
	}
	if strings.Count(string(got), "agent_id") != 1 || strings.Contains(string(got), "evil") {
		t.Errorf("the tag came through: %s", got)
	}
}

func TestAnErrorOfEncodeDoesNotQuoteTheContext(t *testing.T) {
	_, err := cpi.Request{Method: "m", Context: map[string]any{"hunter2": func() {}}}.Encode()
	if err == nil || strings.Contains(err.Error(), "hunter2") {
		t.Errorf("got %v", err)
	}
}

func TestDecodeRequestReadsWhatEncodeWrites(t *testing.T) {
	text := read(t, "testdata/snapshot_disk.json")
	r, err := cpi.DecodeRequest([]byte(text))
	if err != nil {
		t.Fatal(err)
	}
	again, err := r.Encode()
	if err != nil {
		t.Fatal(err)
	}
	if diff := cmp.Diff(text, string(again)); diff != "" {
		t.Errorf("-want +got\n%s", diff)
	}
}

func TestDecodeRequestRefuses(t *testing.T) {
	for name, text := range map[string]string{
		"nothing":                        "",
		"white space":                    " \n",
		"a request cut short":            `{"method":"info","arguments":[]`,
		"a second document":              `{"method":"info","arguments":[]}{}`,
		"leading text":                   `x{"method":"info","arguments":[]}`,
		"a list":                         `[]`,
		"no method":                      `{"arguments":[]}`,
		"an empty method":                `{"method":"","arguments":[]}`,
		"a method in other letters":      `{"Method":"info","arguments":[]}`,
		"a method that is no string":     `{"method":1,"arguments":[]}`,
		"no arguments":                   `{"method":"info"}`,
		"arguments that are null":        `{"method":"info","arguments":null}`,
		"arguments that are an object":   `{"method":"info","arguments":{}}`,
		"a context that is a string":     `{"method":"info","arguments":[],"context":"hunter2"}`,
		"an api_version that is a float": `{"method":"info","arguments":[],"api_version":1.5}`,
		"bytes that are not UTF-8":       "{\"method\":\"\xff\",\"arguments\":[]}",
	} {
		t.Run(name, func(t *testing.T) {
			_, err := cpi.DecodeRequest([]byte(text))
			if err == nil {
				t.Fatal("it was taken")
			}
			if strings.Contains(err.Error(), "hunter2") {
				t.Errorf("the error quotes the request: %v", err)
			}
		})
	}
}

func FuzzDecodeRequest(f *testing.F) {
	for _, text := range []string{
		"", "{}", `{"method":"info","arguments":[]}`,
		`{"method":"m","arguments":[null,{"a":1,"a":2}],"context":{"k":[1e999]},"api_version":2,"x":0}`,
		`{"method":"m","arguments":[],"context":null}`,
	} {
		f.Add([]byte(text))
	}
	f.Fuzz(func(t *testing.T, text []byte) {
		r, err := cpi.DecodeRequest(text)
		if err != nil {
			return
		}
		again, err := r.Encode()
		if err != nil {
			t.Fatalf("cannot encode what was decoded: %v", err)
		}
		if _, err := cpi.DecodeRequest(again); err != nil {
			t.Fatalf("cannot decode what was encoded: %v\n%s", err, again)
		}
	})
}
