package natsapi_test

import (
	"errors"
	"fmt"
	"testing"

	"github.com/quiesced/quiesced/agent"
	"github.com/quiesced/quiesced/agent/natsapi"
)

func TestVerificationThatFindsNothingGoodIsAnAlert(t *testing.T) {
	bad := agent.Verified{CID: "snap-1", Verification: agent.Verification{How: "e2fsck", Result: "damaged"}}
	good := agent.Verified{CID: "snap-1", Verification: agent.Verification{OK: true}}
	for name, c := range map[string]struct {
		of       agent.Verified
		err      error
		severity natsapi.Severity
		summary  string
	}{
		"one that is good":               {good, nil, 0, ""},
		"one that is not":                {bad, nil, natsapi.SeverityCritical, "snapshot snap-1, looked at by e2fsck: damaged"},
		"one of which nobody can tell":   {good, errors.New("no checker"), natsapi.SeverityWarning, "no checker"},
		"one that somebody cancelled":    {bad, fmt.Errorf("x: %w", agent.ErrCancelled), 0, ""},
		"one that the daemon's end cut":  {bad, fmt.Errorf("x: %w", agent.ErrStopping), 0, ""},
		"one that the director cut":      {bad, fmt.Errorf("x: %w", agent.ErrYielded), 0, ""},
		"one whose disk cannot be freed": {agent.Verified{Verification: agent.Verification{OK: true}, Left: "in use"}, nil, 0, ""},
	} {
		t.Run(name, func(t *testing.T) {
			alert, ok := natsapi.AlertOfVerification(c.of, c.err)
			if alert.Severity != c.severity || alert.Summary != c.summary || ok != (c.severity != 0) || ok && (alert.ID == "" || alert.CreatedAt == 0) {
				t.Errorf("got %+v, %t", alert, ok)
			}
		})
	}
}
