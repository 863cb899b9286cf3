package cpi_test

import (
	"encoding/json"
	"errors"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"

	"github.com/quiesced/quiesced/cpi"
)

func TestParseResponseTakes(t *testing.T) {
	for name, text := range map[string]string{
		"a bare answer":       good,
		"a trailing newline":  good + "\n",
		"white space around":  "\n " + good + " \r\n",
		"keys it knows not":   `{"result":"snap-1","error":null,"log":"","extra":[1]}`,
		"keys in any order":   `{"log":"","error":null,"result":"snap-1"}`,
		"space before values": `{"result": "snap-1" , "error": null , "log": ""}`,
	} {
		t.Run(name, func(t *testing.T) {
			got, err := cpi.ParseResponse([]byte(text))
			if err != nil {
				t.Fatal(err)
			}
			if diff := cmp.Diff(cpi.Answer{Result: json.RawMessage(`"snap-1"`)}, got); diff != "" {
				t.Errorf("-want +got\n%s", diff)
			}
		})
	}
}

func TestParseResponseRefuses(t *testing.T) {
	for _, tt := range []struct{ name, text, reason string }{
		{"nothing", "", "it is empty"},
		{"a newline alone", "\n", "it is empty"},
		{"garbage", "Segmentation fault", "does not begin with"},
		{"leading text", "warning: x\n" + good, "does not begin with"},
		{"a second document", good + "\n" + good, "bytes follow"},
		{"trailing text", good + "done", "bytes follow"},
		{"an answer cut short", good[:len(good)-1], "not a whole JSON object"},
		{"a list", "[]", "does not begin with"},
		{"null", "null", "does not begin with"},
		{"bytes that are not UTF-8", "{\"result\":\"\xff\",\"error\":null,\"log\":\"\"}", "UTF-8"},
		{"no result", `{"error":null,"log":""}`, `no "result"`},
		{"no error", `{"result":1,"log":""}`, `no "error"`},
		{"no log", `{"result":1,"error":null}`, `no "log"`},
		{"keys in other letters", `{"Result":1,"error":null,"log":""}`, `no "result"`},
		{"a log that is null", `{"result":1,"error":null,"log":null}`, `"log" is not a string`},
		{"a log that is a list", `{"result":1,"error":null,"log":[]}`, `"log" is not a string`},
		{"an error that is a string", `{"result":1,"error":"x","log":""}`, "neither null nor an object"},
		{"an error without type", `{"result":null,"error":{"message":"m","ok_to_retry":false},"log":""}`, `"type"`},
		{"an error without message", `{"result":null,"error":{"type":"t","ok_to_retry":false},"log":""}`, `"message"`},
		{"an error without ok_to_retry", `{"result":null,"error":{"type":"t","message":"m"},"log":""}`, `"ok_to_retry"`},
		{"an ok_to_retry that is a string", `{"result":null,"error":{"type":"t","message":"m","ok_to_retry":"no"},"log":""}`, `"ok_to_retry"`},
	} {
		t.Run(tt.name, func(t *testing.T) {
			_, err := cpi.ParseResponse([]byte(tt.text))
			e := wantError[*cpi.InvalidResponseError](t, err)
			if !strings.Contains(e.Reason, tt.reason) {
				t.Errorf("got reason %q, want one with %q", e.Reason, tt.reason)
			}
			if empty := strings.TrimSpace(tt.text) == ""; errors.Is(err, cpi.ErrNoAnswer) != empty {
				t.Errorf("ErrNoAnswer for %q: %v", tt.text, !empty)
			}
		})
	}
}

func TestParseResponseTellsTheTypesOfErrorsApart(t *testing.T) {
	known := []cpi.ErrorType{
		cpi.CpiError, cpi.NotSupported, cpi.NotImplemented, cpi.CloudError, cpi.VMNotFound,
		cpi.NetworkNotFound, cpi.NoDiskSpace, cpi.DiskNotAttached, cpi.DiskNotFound, cpi.VMCreationFailed,
	}
	for _, want := range known {
		t.Run(string(want), func(t *testing.T) {
			err := parseErrorOfType("Bosh::Clouds::" + string(want))
			if !errors.Is(err, want) {
				t.Fatalf("got %v", err)
			}
			if diff := cmp.Diff(&cpi.Error{Type: want, Message: "m", OKToRetry: true}, wantError[*cpi.Error](t, err)); diff != "" {
				t.Errorf("-want +got\n%s", diff)
			}
		})
	}
	for _, sent := range []string{"InvalidCall", "DiskNotFound", "Bosh::Clouds::Other", "Bosh::Clouds::UnknownError", ""} {
		t.Run("unknown "+sent, func(t *testing.T) {
			got := wantError[*cpi.Error](t, parseErrorOfType(sent))
			want := &cpi.Error{Type: cpi.UnknownError, Original: sent, Message: "m", OKToRetry: true}
			if diff := cmp.Diff(want, got); diff != "" {
				t.Errorf("-want +got\n%s", diff)
			}
			if errors.Is(got, cpi.DiskNotFound) {
				t.Error("it passes for DiskNotFound")
			}
		})
	}
}

func parseErrorOfType(sent string) error {
	_, err := cpi.ParseResponse([]byte(`{"result":null,"error":{"type":"` + sent + `","message":"m","ok_to_retry":true},"log":""}`))
	return err
}

func TestSnapshotCIDIsAStringThatIsNotEmpty(t *testing.T) {
	if cid, err := cpi.SnapshotCID("disk-1", json.RawMessage(`"snap-1"`)); cid != "snap-1" || err != nil {
		t.Errorf("got %q, %v", cid, err)
	}
	for _, result := range []string{`""`, "null", "1", `["snap-1"]`, `{}`} {
		_, err := cpi.SnapshotCID("disk-1", json.RawMessage(result))
		if !errors.Is(err, cpi.ErrNoCID) {
			t.Errorf("result %s: got %v", result, err)
		}
		wantText(t, err, `"disk-1"`)
	}
}

func TestTheTailOfALongOutputIsBounded(t *testing.T) {
	_, err := cpi.ParseResponse([]byte(strings.Repeat("é", 1<<16)))
	e := wantError[*cpi.InvalidResponseError](t, err)
	if len(e.Stdout) == 0 || len(e.Stdout) > 1024 || strings.Trim(e.Stdout, "é") != "" {
		t.Errorf("the tail has %d bytes: %.40q", len(e.Stdout), e.Stdout)
	}
}

func FuzzParseResponse(f *testing.F) {
	for _, text := range []string{
		"", "{}", good, good + good, "x" + good, `{"result":null,"error":{},"log":""}`,
		`{"result":null,"error":{"type":"Bosh::Clouds::CloudError","message":"m","ok_to_retry":false},"log":"l"}`,
		`{"result":{"a":[1]},"error":null,"log":"","result":"b"}`, "[[[[", "\xff",
	} {
		f.Add([]byte(text))
	}
	f.Fuzz(func(t *testing.T, text []byte) {
		answer, err := cpi.ParseResponse(text)
		var reported *cpi.Error
		var invalid *cpi.InvalidResponseError
		switch {
		case err == nil && !json.Valid(answer.Result):
			t.Errorf("the result is no JSON: %q", answer.Result)
		case err != nil && !errors.As(err, &reported) && !errors.As(err, &invalid):
			t.Errorf("an error of another type: %v", err)
		case invalid != nil && len(invalid.Stdout) > 1024:
			t.Errorf("a tail of %d bytes", len(invalid.Stdout))
		}
	})
}
