package cpi

import (
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"reflect"
)

// maxRequest bounds what Serve reads, in bytes.
const maxRequest = 4 << 20

// Handler answers one method. Its result must have a form in JSON; an error
// that is no *Error goes out as CloudError.
type Handler func(Request) (any, error)

// Serve reads one request to the end of in, has the handler of its method
// answer it and writes the answer to out. A method without a handler is
// NotImplemented, which a director takes well for snapshot_disk; a request that
// is none is CpiError. The error is that of out alone: a CPI that answered has
// done its work and exits with 0.
func Serve(in io.Reader, out io.Writer, handlers map[string]Handler) error {
	response, err := encode(respond(in, handlers))
	if err != nil {
		response, err = encode(failure(Errorf(CloudError, "cannot encode the result")))
	}
	if err != nil {
		return fmt.Errorf("cannot encode the answer: %w", err)
	}
	if _, err := out.Write(response); err != nil {
		return fmt.Errorf("cannot write the answer: %w", err)
	}
	return nil
}

type wireResponse struct {
	Result any        `json:"result"`
	Error  *wireError `json:"error"`
	Log    string     `json:"log"`
}

type wireError struct {
	Type      string `json:"type"`
	Message   string `json:"message"`
	OKToRetry bool   `json:"ok_to_retry"`
}

func respond(in io.Reader, handlers map[string]Handler) wireResponse {
	document, err := io.ReadAll(io.LimitReader(in, maxRequest+1))
	if err != nil {
		return failure(Errorf(CpiError, "cannot read the request: %v", err))
	}
	if len(document) > maxRequest {
		return failure(Errorf(CpiError, "cannot read the request: it is longer than %d bytes", maxRequest))
	}
	request, err := DecodeRequest(document)
	if err != nil {
		return failure(Errorf(CpiError, "%v", err))
	}
	handle, ok := handlers[request.Method]
	if !ok {
		return failure(Errorf(NotImplemented, "cannot do %q: there is no such method here", request.Method))
	}
	result, err := handle(request)
	if err != nil {
		return failure(err)
	}
	return wireResponse{Result: result}
}

func failure(err error) wireResponse {
	var e *Error
	if !errors.As(err, &e) {
		e = Errorf(CloudError, "%v", err)
	}
	return wireResponse{Error: &wireError{Type: e.wireType(), Message: e.Message, OKToRetry: e.OKToRetry}}
}

// WriteError writes the answer of a CPI that failed.
func WriteError(out io.Writer, e *Error) error {
	response, err := encode(failure(e))
	if err == nil {
		_, err = out.Write(response)
	}
	if err != nil {
		return fmt.Errorf("cannot write the answer: %w", err)
	}
	return nil
}

// Arg is where an argument goes.
type Arg struct {
	// Name is for errors.
	Name string

	// Into is a pointer, as for json.Unmarshal.
	Into any

	// Nullable lets a null pass, which leaves Into alone.
	Nullable bool
}

// Bind takes the arguments of a decoded request apart. There must be as many
// as args. It returns a CpiError that names the argument it cannot use.
func (r Request) Bind(args ...Arg) error {
	if len(r.Arguments) != len(args) {
		return Errorf(CpiError, "cannot do %s: it takes %d arguments and got %d",
			r.Method, len(args), len(r.Arguments))
	}
	for i, arg := range args {
		raw, ok := r.Arguments[i].(json.RawMessage)
		if arg.Nullable && string(raw) == "null" {
			continue
		}
		if !ok || string(raw) == "null" || json.Unmarshal(raw, arg.Into) != nil {
			return Errorf(CpiError, "cannot do %s: argument %d (%s) is not %s",
				r.Method, i+1, arg.Name, kind(arg.Into))
		}
	}
	return nil
}

func kind(into any) string {
	t := reflect.TypeOf(into).Elem()
	switch t.Kind() {
	case reflect.String:
		return "a string"
	case reflect.Int, reflect.Int64:
		return "an integer"
	case reflect.Bool:
		return "a boolean"
	case reflect.Map, reflect.Struct:
		return "an object"
	case reflect.Slice:
		return "a list"
	}
	return "a " + t.String()
}
