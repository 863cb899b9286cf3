// Package audit says in one line who asked for what, and what came of it, in the
// Common Event Format and with bosh-agent's keys:
//
//	CEF:0|CloudFoundry|BOSH|1|agent_api|quiesced_get_task|1|duser=director.80f6….1111….6f1c… src=10.0.0.6 spt=4222 shost=db-0 cs2=run-1 cs2Label=requestId
//	CEF:0|CloudFoundry|BOSH|1|agent_api|status|7|duser=uid 1000 (pid 4711) shost=db-0 cs1=forbidden cs1Label=statusReason
//
// What bosh-agent puts there and this does not is the text of an error: it can repeat
// arguments, and what a CPI printed.
package audit

import (
	"net"
	"os"
	"regexp"
	"strings"
	"unicode"
	"unicode/utf8"
)

// Event is a request that was answered.
type Event struct {
	Method string // as it was called
	By     string // who called
	From   string // the other end's host:port, "" for none
	ID     string // of the run, hold or task that it is about, "" for none
	Failed string // what sort of failure it was, "" for none
}

// Severities, as bosh-agent gives them.
const (
	succeeded = "1"
	failed    = "7"
)

// maxField bounds what a caller chooses, in bytes before it is escaped. A director's
// reply_to has about 120.
const maxField = 256

// idPattern is what ids look like. What does not is not repeated.
var idPattern = regexp.MustCompile(`^[A-Za-z0-9_][A-Za-z0-9_-]{0,63}$`)

// String is the event's line, without an end.
func (e Event) String() string {
	severity := succeeded
	if e.Failed != "" {
		severity = failed
	}
	var b strings.Builder
	b.WriteString("CEF:0|CloudFoundry|BOSH|1|agent_api|" + header(e.Method) + "|" + severity + "|duser=" + value(e.By))
	if host, port, err := net.SplitHostPort(e.From); err == nil {
		b.WriteString(" src=" + value(host) + " spt=" + value(port))
	}
	if name, err := os.Hostname(); err == nil {
		b.WriteString(" shost=" + value(name))
	}
	if e.Failed != "" {
		b.WriteString(" cs1=" + value(e.Failed) + " cs1Label=statusReason")
	}
	if idPattern.MatchString(e.ID) {
		b.WriteString(" cs2=" + e.ID + " cs2Label=requestId")
	}
	return b.String()
}

// The escapes of the format: a header ends at a bar, a key at an equals sign.
var (
	headerEscapes = strings.NewReplacer(`\`, `\\`, `|`, `\|`)
	valueEscapes  = strings.NewReplacer(`\`, `\\`, `=`, `\=`)
)

func header(text string) string { return headerEscapes.Replace(plain(text)) }

func value(text string) string { return valueEscapes.Replace(plain(text)) }

// plain is a text, bounded, in which nothing ends the line, moves a terminal's cursor
// or turns the direction of writing.
func plain(text string) string {
	cut := len(text) > maxField
	if cut {
		text = text[:maxField]
	}
	text = strings.Map(func(r rune) rune {
		if !unicode.IsPrint(r) {
			return utf8.RuneError
		}
		return r
	}, text)
	if cut {
		text += "…"
	}
	return text
}
