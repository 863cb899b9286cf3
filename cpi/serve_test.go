package cpi_test

import (
	"bytes"
	"errors"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"

	"github.com/quiesced/quiesced/cpi"
)

func handlers() map[string]cpi.Handler {
	return map[string]cpi.Handler{
		"echo": func(r cpi.Request) (any, error) {
			var text string
			var n int64
			var m map[string]any
			err := r.Bind(cpi.Arg{Name: "text", Into: &text}, cpi.Arg{Name: "size", Into: &n}, cpi.Arg{Name: "map", Into: &m})
			return text, err
		},
		"void": func(cpi.Request) (any, error) { return nil, nil },
		"full": func(cpi.Request) (any, error) { return nil, cpi.Errorf(cpi.NoDiskSpace, "<full>") },
		"fail": func(cpi.Request) (any, error) { return nil, errors.New("broken") },
		"forward": func(cpi.Request) (any, error) {
			return nil, &cpi.Error{Type: cpi.UnknownError, Original: "Other", Message: "m", OKToRetry: true}
		},
		"impossible": func(cpi.Request) (any, error) { return func() {}, nil },
	}
}

func TestServeAnswers(t *testing.T) {
	failure := func(kind, message, retry string) string {
		return `{"result":null,"error":{"type":"` + kind + `","message":"` + message + `","ok_to_retry":` + retry + `},"log":""}`
	}
	const cpiError = "Bosh::Clouds::CpiError"
	for _, tt := range []struct{ name, request, want string }{
		{"a call", `{"method":"echo","arguments":["<a>",1,{}],"context":{}}`, `{"result":"<a>","error":null,"log":""}`},
		{"a method without result", `{"method":"void","arguments":[]}`, `{"result":null,"error":null,"log":""}`},
		{"an error with its type", `{"method":"full","arguments":[]}`, failure("Bosh::Clouds::NoDiskSpace", "<full>", "false")},
		{"an error of another type as it came", `{"method":"forward","arguments":[]}`, failure("Other", "m", "true")},
		{"any error as CloudError", `{"method":"fail","arguments":[]}`, failure("Bosh::Clouds::CloudError", "broken", "false")},
		{"a result without a form", `{"method":"impossible","arguments":[]}`, failure("Bosh::Clouds::CloudError", "cannot encode the result", "false")},
		{"a method it has not", `{"method":"x","arguments":[]}`, failure("Bosh::Clouds::NotImplemented", `cannot do \"x\": there is no such method here`, "false")},
		{"too few arguments", `{"method":"echo","arguments":["a"]}`, failure(cpiError, "cannot do echo: it takes 3 arguments and got 1", "false")},
		{"a number for a string", `{"method":"echo","arguments":[1,1,{}]}`, failure(cpiError, "cannot do echo: argument 1 (text) is not a string", "false")},
		{"a fraction for an integer", `{"method":"echo","arguments":["",1.5,{}]}`, failure(cpiError, "cannot do echo: argument 2 (size) is not an integer", "false")},
		{"null for an object", `{"method":"echo","arguments":["",1,null]}`, failure(cpiError, "cannot do echo: argument 3 (map) is not an object", "false")},
		{"a request cut short", `{"method":"void","arguments":[]`, failure(cpiError, "cannot read the request: it is not a whole JSON object (byte 0 of 31)", "false")},
	} {
		t.Run(tt.name, func(t *testing.T) {
			var out bytes.Buffer
			if err := cpi.Serve(strings.NewReader(tt.request), &out, handlers()); err != nil {
				t.Fatal(err)
			}
			if diff := cmp.Diff(tt.want, out.String()); diff != "" {
				t.Errorf("-want +got\n%s", diff)
			}
			_, err := cpi.ParseResponse(out.Bytes())
			var invalid *cpi.InvalidResponseError
			if errors.As(err, &invalid) {
				t.Errorf("a director would refuse it: %v", err)
			}
		})
	}
}

func TestServeReadsNoMoreThanItsBound(t *testing.T) {
	var out bytes.Buffer
	if err := cpi.Serve(endless{}, &out, handlers()); err != nil {
		t.Fatal(err)
	}
	if _, err := cpi.ParseResponse(out.Bytes()); !errors.Is(err, cpi.CpiError) {
		t.Errorf("got %v", err)
	}
}

type endless struct{}

func (endless) Read(p []byte) (int, error) {
	for i := range p {
		p[i] = ' '
	}
	return len(p), nil
}
