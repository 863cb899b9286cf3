package natsapi

import (
	"errors"
	"fmt"
	"slices"
	"strings"
	"time"

	"github.com/quiesced/quiesced/agent"
)

// Severity is the health monitor's, the smaller the worse.
type Severity int

// The severities.
const (
	SeverityAlert    Severity = 1
	SeverityCritical Severity = 2
	SeverityError    Severity = 3
	SeverityWarning  Severity = 4
)

// Alert is an alert in the health monitor's form.
type Alert struct {
	ID        string   `json:"id"`
	Severity  Severity `json:"severity"`
	Title     string   `json:"title"`
	Summary   string   `json:"summary"`
	CreatedAt int64    `json:"created_at"` // seconds since 1970
}

// maxSummary bounds a summary, in bytes: reports quote what scripts and CPIs print.
const maxSummary = 2000

// AlertOf is the alert that a run's report deserves, if any. A run that was refused
// or cancelled has answered whoever asked, and needs none.
func AlertOf(r agent.Report) (Alert, bool) {
	a := Alert{ID: r.ID, Summary: r.Error, CreatedAt: time.Now().Unix()}
	if !r.Ended.IsZero() {
		a.CreatedAt = r.Ended.Unix()
	}
	switch {
	case r.Outcome == agent.OutcomeNotResumed && stuck(r):
		a.Severity, a.Title = SeverityAlert, "a filesystem may still be frozen"
	case r.Outcome == agent.OutcomeNotResumed && r.Restore != nil && r.Restore.Side == "":
		a.Severity, a.Title = SeverityCritical, "a disk is not in its place"
	case r.Outcome == agent.OutcomeNotResumed:
		a.Severity, a.Title = SeverityCritical, "jobs are not running again"
	case r.Outcome == agent.OutcomeCancelled:
		return Alert{}, false
	case r.Unbroken != nil && !*r.Unbroken:
		a.Severity, a.Title, a.Summary = SeverityError, "a snapshot was not held to its end", either(r.Error, r.Reason)
	case r.Outcome == agent.OutcomeFailed && r.Restore != nil:
		a.Severity, a.Title = SeverityError, "restoring a snapshot failed"
	case r.Outcome == agent.OutcomeFailed:
		a.Severity, a.Title = SeverityError, "taking a snapshot failed"
	case r.Outcome == agent.OutcomeSucceeded && !r.Clean && r.Asked.Clean() && r.Restore == nil:
		a.Severity, a.Title, a.Summary = SeverityWarning, "a snapshot is not clean", r.Reason
	default:
		return Alert{}, false
	}
	a.Summary = fmt.Sprintf("run %s at level %s: %s", r.ID, r.Asked, a.Summary)
	return a.finished(), true
}

// AlertOfVerification is the alert that a verification deserves, if any: it tells of what
// nobody may have asked for.
func AlertOfVerification(v agent.Verified, err error) (Alert, bool) {
	a := Alert{ID: agent.NewID(), CreatedAt: time.Now().Unix()}
	switch {
	case errors.Is(err, agent.ErrCancelled), errors.Is(err, agent.ErrStopping), errors.Is(err, agent.ErrYielded):
		return Alert{}, false
	case err != nil:
		a.Severity, a.Title, a.Summary = SeverityWarning, "a snapshot could not be verified", err.Error()
	case !v.OK:
		a.Severity, a.Title = SeverityCritical, "a snapshot is not good"
		a.Summary = fmt.Sprintf("snapshot %s, looked at by %s: %s", v.CID, v.How, v.Result)
	default:
		return Alert{}, false
	}
	return a.finished(), true
}

func (a Alert) finished() Alert {
	a.Title = "quiesced: " + a.Title
	if len(a.Summary) > maxSummary {
		a.Summary = strings.ToValidUTF8(a.Summary[:maxSummary], "") + "…"
	}
	return a
}

func either(one, other string) string {
	if one != "" {
		return one
	}
	return other
}

// stuck says whether a filesystem is known or feared to be frozen still.
func stuck(r agent.Report) bool {
	return slices.ContainsFunc(r.Thaws, func(t agent.Thaw) bool {
		return !strings.HasPrefix(t.State, "thawed") && t.State != "lost"
	})
}
