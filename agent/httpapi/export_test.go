package httpapi

import (
	"encoding/json"
	"net/http"
)

// MaxConns bounds the connections over TCP.
const MaxConns = maxConns

// RootOnly gives a socket its first mode.
var RootOnly = rootOnly

// ReadArguments reads a call's body.
func ReadArguments(w http.ResponseWriter, r *http.Request) (json.RawMessage, error) {
	return readArguments(w, r)
}
