package cpi

import (
	"bytes"
	"encoding/json"
	"errors"
	"fmt"
	"unicode/utf8"
)

// Request is one call of a CPI method.
type Request struct {
	Method string

	// Arguments are encoded as encoding/json does. DecodeRequest fills it with
	// json.RawMessage, which keeps the repeated keys of an object; Bind takes
	// them apart.
	Arguments []any

	// Context says on whose behalf the call is made. It can hold secrets.
	Context map[string]any

	// APIVersion is left out of the document when it is zero, as a director
	// does in its first call, info.
	APIVersion int
}

// wireRequest has the keys in the director's order.
type wireRequest struct {
	Method     string         `json:"method"`
	Arguments  []any          `json:"arguments"`
	Context    map[string]any `json:"context"`
	APIVersion int            `json:"api_version,omitempty"`
}

// Encode returns the director's document: no newline at its end, and no
// character escaped for the sake of HTML. The error names the method only.
func (r Request) Encode() ([]byte, error) {
	wire := wireRequest(r)
	if wire.Arguments == nil {
		wire.Arguments = []any{}
	}
	if wire.Context == nil {
		wire.Context = map[string]any{}
	}
	document, err := encode(wire)
	if err != nil {
		// The cause may quote a value of the context.
		return nil, fmt.Errorf("cannot encode the request %q: a value in it has no form in JSON", r.Method)
	}
	return document, nil
}

// DecodeRequest takes exactly one document, with a method, a list of arguments
// and, if there is one, an object as context. Keys it does not know pass. The
// errors do not quote the document.
func DecodeRequest(document []byte) (Request, error) {
	keys, err := decodeObject(document)
	if err != nil {
		return Request{}, fmt.Errorf("cannot read the request: %w", err)
	}
	r := Request{}
	if !decodeKey(keys, "method", &r.Method) || r.Method == "" {
		return Request{}, errors.New("cannot read the request: method must be a string that is not empty")
	}
	if r.Arguments, err = decodeArguments(keys); err != nil {
		return Request{}, err
	}
	if !decodeOptional(keys, "context", &r.Context) {
		return Request{}, errors.New("cannot read the request: context must be an object")
	}
	if !decodeOptional(keys, "api_version", &r.APIVersion) {
		return Request{}, errors.New("cannot read the request: api_version must be an integer")
	}
	return r, nil
}

func decodeArguments(keys map[string]json.RawMessage) ([]any, error) {
	var raw []json.RawMessage
	if !decodeKey(keys, "arguments", &raw) {
		return nil, errors.New("cannot read the request: arguments must be a list")
	}
	arguments := make([]any, len(raw))
	for i := range raw {
		arguments[i] = raw[i]
	}
	return arguments, nil
}

// encode is json.Marshal without its escapes for HTML.
func encode(v any) ([]byte, error) {
	var b bytes.Buffer
	e := json.NewEncoder(&b)
	e.SetEscapeHTML(false)
	if err := e.Encode(v); err != nil {
		return nil, err
	}
	return bytes.TrimSuffix(b.Bytes(), []byte("\n")), nil
}

// decodeObject reads one JSON object and nothing after it. Key names keep
// their case, which decoding into a struct would ignore. Its errors say in
// which way the document is no such thing, without quoting it.
func decodeObject(document []byte) (map[string]json.RawMessage, error) {
	text := bytes.TrimLeft(document, " \t\r\n")
	switch {
	case len(text) == 0:
		return nil, errNothing
	case !utf8.Valid(text):
		return nil, errors.New("it is not UTF-8")
	case text[0] != '{':
		return nil, errors.New("it does not begin with a JSON object")
	}
	var keys map[string]json.RawMessage
	d := json.NewDecoder(bytes.NewReader(text))
	if err := d.Decode(&keys); err != nil {
		return nil, fmt.Errorf("it is not a whole JSON object (byte %d of %d)", d.InputOffset(), len(text))
	}
	if rest := bytes.TrimSpace(text[d.InputOffset():]); len(rest) > 0 {
		return nil, fmt.Errorf("%d bytes follow the JSON object", len(rest))
	}
	return keys, nil
}

// decodeKey reports whether the key is there and of into's type. A null is of
// no type.
func decodeKey(keys map[string]json.RawMessage, key string, into any) bool {
	raw, ok := keys[key]
	return ok && string(raw) != "null" && json.Unmarshal(raw, into) == nil
}

// decodeOptional is decodeKey for a key that may be missing or null.
func decodeOptional(keys map[string]json.RawMessage, key string, into any) bool {
	raw, ok := keys[key]
	return !ok || string(raw) == "null" || json.Unmarshal(raw, into) == nil
}
