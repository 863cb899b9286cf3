package cpi

import (
	"encoding/json"
	"errors"
	"fmt"
	"unicode/utf8"
)

// Answer is what a CPI answered when it reported no error.
type Answer struct {
	// Result is the JSON of the result, null for methods without one.
	Result json.RawMessage

	// Log is what the CPI wants in the task's log.
	Log string
}

// ParseResponse judges a CPI's standard output as a director does: one object
// with result, error and log, nothing before or after it but white space; other
// keys pass. It returns *Error for an error the CPI reports, and
// *InvalidResponseError for anything that is no answer.
func ParseResponse(stdout []byte) (Answer, error) {
	keys, err := decodeObject(stdout)
	if errors.Is(err, errNothing) {
		return Answer{}, &InvalidResponseError{Reason: "it is empty", empty: true}
	}
	if err != nil {
		return Answer{}, invalid(stdout, "%v", err)
	}
	for _, key := range []string{"result", "error", "log"} {
		if _, ok := keys[key]; !ok {
			return Answer{}, invalid(stdout, "it has no %q", key)
		}
	}
	answer := Answer{Result: keys["result"]}
	if !decodeKey(keys, "log", &answer.Log) {
		return Answer{}, invalid(stdout, `"log" is not a string`)
	}
	if string(keys["error"]) == "null" {
		return answer, nil
	}
	return Answer{}, parseError(stdout, keys["error"])
}

func parseError(stdout []byte, raw json.RawMessage) error {
	var keys map[string]json.RawMessage
	if json.Unmarshal(raw, &keys) != nil {
		return invalid(stdout, `"error" is neither null nor an object`)
	}
	var sent, message string
	var retry bool
	switch {
	case !decodeKey(keys, "type", &sent):
		return invalid(stdout, `"error" has no "type" that is a string`)
	case !decodeKey(keys, "message", &message):
		return invalid(stdout, `"error" has no "message" that is a string`)
	case !decodeKey(keys, "ok_to_retry", &retry):
		return invalid(stdout, `"error" has no "ok_to_retry" that is a boolean`)
	}
	e := errorOfType(sent)
	e.Message, e.OKToRetry = message, retry
	return e
}

func invalid(stdout []byte, format string, args ...any) error {
	return &InvalidResponseError{Reason: fmt.Sprintf(format, args...), Stdout: tail(stdout)}
}

// SnapshotCID takes the CID out of the result of snapshot_disk. It returns
// ErrNoCID, naming the disk, for an empty one, which breaks a director's
// database after the snapshot was made, and for anything but a string.
func SnapshotCID(disk string, result json.RawMessage) (string, error) {
	var cid *string
	if err := json.Unmarshal(result, &cid); err != nil || cid == nil {
		return "", fmt.Errorf("cannot name the snapshot of disk %q: %w: the result is not a string", disk, ErrNoCID)
	}
	if *cid == "" {
		return "", fmt.Errorf("cannot name the snapshot of disk %q: %w: its CID is empty", disk, ErrNoCID)
	}
	return *cid, nil
}

// tailSize bounds what errors quote of an output, in bytes.
const tailSize = 1024

// tail returns the end of an output, cut between characters.
func tail(text []byte) string {
	if len(text) > tailSize {
		text = text[len(text)-tailSize:]
		for len(text) > 0 && !utf8.RuneStart(text[0]) {
			text = text[1:]
		}
	}
	return string(text)
}
