package wire

import (
	"bytes"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"reflect"

	"github.com/quiesced/quiesced/agent"
)

// MaxRequest bounds a request's JSON document, in bytes.
const MaxRequest = 64 << 10

// Request is the argument of take_snapshot, plan_snapshot and quiesce.
type Request struct {
	ID           string            `json:"id,omitempty"`
	Trigger      string            `json:"trigger,omitempty"`
	Level        string            `json:"level,omitempty"`
	Job          string            `json:"job,omitempty"`
	Disks        []string          `json:"disks,omitempty"`
	Metadata     map[string]string `json:"metadata,omitempty"`
	AllowDegrade bool              `json:"allow_degrade,omitempty"`
	Wait         bool              `json:"wait,omitempty"`
	Lease        float64           `json:"lease_seconds,omitempty"` // of quiesce alone
}

// ParseRequest reads one request document and nothing after it. The error names
// the field that is wrong.
func ParseRequest(doc []byte) (agent.Request, error) {
	r, err := parse[Request](doc)
	return r.domain(), err
}

// ParseOptions reads one document of options and nothing after it. The error names the
// field that is wrong.
func ParseOptions[T any](doc []byte) (T, error) { return parse[T](doc) }

// parse reads one document strictly.
func parse[T any](doc []byte) (T, error) {
	var into *T
	var none T
	if len(doc) > MaxRequest {
		return none, fmt.Errorf("the request has %d bytes, more than %d", len(doc), MaxRequest)
	}
	d := json.NewDecoder(bytes.NewReader(doc))
	d.DisallowUnknownFields()
	if err := d.Decode(&into); err != nil {
		return none, fmt.Errorf("cannot read the request: %w", plain(err))
	}
	if into == nil {
		return none, errors.New("cannot read the request: it is null")
	}
	if _, err := d.Token(); !errors.Is(err, io.EOF) {
		return none, errors.New("cannot read the request: something follows it")
	}
	return *into, nil
}

// plain says in JSON's words what is wrong with a document.
func plain(err error) error {
	if errors.Is(err, io.EOF) {
		return errors.New("it is empty")
	}
	wrong, ok := errors.AsType[*json.UnmarshalTypeError](err)
	if !ok {
		return err
	}
	kinds := map[reflect.Kind]string{
		reflect.String: "a string", reflect.Slice: "an array", reflect.Map: "an object",
		reflect.Struct: "an object", reflect.Bool: "true or false", reflect.Float64: "a number", reflect.Int: "a whole number",
	}
	where := wrong.Field
	if where == "" {
		where = "the document"
	}
	return fmt.Errorf("%s: got %s, want %s", where, wrong.Value, kinds[wrong.Type.Kind()])
}

func (r Request) domain() agent.Request {
	return agent.Request{
		ID: r.ID, Trigger: agent.Trigger(r.Trigger), Level: agent.Level(r.Level), Job: r.Job,
		Disks: r.Disks, Metadata: r.Metadata, AllowDegrade: r.AllowDegrade, Wait: r.Wait, Lease: duration(r.Lease),
	}
}

// FromRequest is the request's JSON form.
func FromRequest(r agent.Request) Request {
	return Request{
		ID: r.ID, Trigger: string(r.Trigger), Level: string(r.Level), Job: r.Job,
		Disks: r.Disks, Metadata: r.Metadata, AllowDegrade: r.AllowDegrade, Wait: r.Wait, Lease: r.Lease.Seconds(),
	}
}
