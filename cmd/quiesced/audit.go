package main

import (
	"io"
	"log"
	"log/slog"

	"github.com/quiesced/quiesced/agent/audit"
)

// newAudit writes events to where the log goes, whatever its level is. Their lines
// are as bosh-agent writes its own, after the date and without a further escape, for
// who greps for CEF or has the log forwarded to what reads it. Where the log is to be
// JSON they are the messages of records.
func newAudit(c LogConfig, w io.Writer) func(audit.Event) {
	if c.Format == "json" {
		records := slog.New(slog.NewJSONHandler(w, nil))
		return func(e audit.Event) { records.Info(e.String()) }
	}
	lines := log.New(w, "", log.LstdFlags)
	return func(e audit.Event) { lines.Print(e) }
}
