package natsapi

import "time"

// What the tests measure against.
const (
	MaxWaiting = maxWaiting
	MaxReplyTo = maxReplyTo
	FirstPause = firstPause
	KeptAlerts = keptAlerts
)

// Admitted says whether a request is answered by an agent, and where to.
func Admitted(data []byte, agentID string) (replyTo string, ok bool) {
	m, ok := parse(data)
	return m.ReplyTo, ok && answerable(m.ReplyTo, agentID)
}

// SetWaits shortens a client's waits.
func (c *Client) SetWaits(answer, refusal time.Duration) {
	c.answerWait, c.refusalWait = answer, refusal
}

// Shortened is an exception as a bus takes it that has a limit.
func Shortened(method string, err error, limit int) []byte {
	return shortened(method, nil, err, limit)
}
