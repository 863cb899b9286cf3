package natsapi

import (
	"encoding/json"
	"strings"
)

// message is a request of the agent protocol.
type message struct {
	Protocol  int             `json:"protocol"`
	Method    string          `json:"method"`
	Arguments json.RawMessage `json:"arguments"`
	ReplyTo   string          `json:"reply_to"`
}

// parse reads a request. What is no request of the protocol gets no answer, as
// from bosh-agent: ok is false.
func parse(data []byte) (m message, ok bool) {
	return m, json.Unmarshal(data, &m) == nil
}

// maxReplyTo bounds a reply_to, in bytes. The bus takes no line of its protocol
// above 4 KiB, and ends the connection that sends one.
const maxReplyTo = 1024

// answerable says whether a reply_to belongs to a request to this agent. It has
// four tokens; a wildcard or white space could never be published to.
func answerable(replyTo, agentID string) bool {
	if len(replyTo) > maxReplyTo {
		return false
	}
	tokens := strings.Split(replyTo, ".")
	if len(tokens) != 4 || tokens[0] != "director" || tokens[2] != agentID {
		return false
	}
	for _, token := range tokens {
		if token == "" || strings.ContainsAny(token, "*> \t\r\n") {
			return false
		}
	}
	return true
}
