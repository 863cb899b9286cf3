package api

import (
	"encoding/json"
	"fmt"

	"github.com/quiesced/quiesced/agent/wire"
)

// envelope is an answer as it is sent.
type envelope struct {
	Value     json.RawMessage `json:"value,omitempty"`
	Exception *exception      `json:"exception,omitempty"`
}

type exception struct {
	Message string       `json:"message"`
	Kind    Kind         `json:"kind,omitempty"`
	Cause   string       `json:"cause,omitempty"`
	Report  *wire.Report `json:"report,omitempty"`
	Deleted []string     `json:"deleted,omitempty"`
}

// Encode writes the answer to a call as JSON.
func Encode(value any, err error) []byte {
	if err == nil {
		doc, encErr := json.Marshal(struct {
			Value any `json:"value"`
		}{value})
		if encErr == nil {
			return doc
		}
		err = fmt.Errorf("cannot encode the answer: %w", encErr)
	}
	x := exception{Message: err.Error(), Kind: KindOf(err)}
	if own, ok := err.(*Error); ok { //nolint:errorlint // the handler's own, not one that wraps it
		x = exception{own.Message, own.Kind, own.Cause, own.Report, own.Deleted}
	}
	doc, _ := json.Marshal(envelope{Exception: &x})
	return doc
}

// Decode reads an answer. The error is an *Error when the answer is an
// exception.
func Decode(doc []byte) (json.RawMessage, error) {
	var e envelope
	if err := json.Unmarshal(doc, &e); err != nil {
		return nil, fmt.Errorf("cannot read the answer: %w", err)
	}
	if x := e.Exception; x != nil {
		return nil, &Error{Kind: x.Kind, Message: x.Message, Cause: x.Cause, Report: x.Report, Deleted: x.Deleted}
	}
	if e.Value == nil {
		return nil, fmt.Errorf("cannot read the answer: it has neither value nor exception")
	}
	return e.Value, nil
}
