package front

import (
	"encoding/json"
	"time"
)

// AlertSubject is where a director sends its own alerts.
const AlertSubject = "hm.director.alert"

// Severity is the health monitor's.
type Severity int

// The severities that are used.
const (
	SeverityAlert Severity = 1 // something is still held up
	SeverityError Severity = 3 // as a director's own for a snapshot that failed
)

// Alert is what an operator is told.
type Alert struct {
	ID       string // the health monitor passes over one that it has seen
	Severity Severity
	Title    string
	Summary  string
}

// Message is the alert in the health monitor's form.
func (a Alert) Message() []byte {
	message, _ := json.Marshal(struct {
		ID        string   `json:"id"`
		Severity  Severity `json:"severity"`
		Title     string   `json:"title"`
		Summary   string   `json:"summary"`
		CreatedAt int64    `json:"created_at"`
		Source    string   `json:"source"`
	}{a.ID, a.Severity, "quiesce-cpi - " + a.Title, a.Summary, time.Now().Unix(), "quiesce-cpi"})
	return message
}
