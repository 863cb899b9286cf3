package main

import (
	"bufio"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"os"
	"strings"
	"time"

	"github.com/jedib0t/go-pretty/v6/table"
	"golang.org/x/term"
)

// terminal is where a verb reads and prints.
type terminal struct {
	in       io.Reader
	out, err io.Writer
}

// interactive says whether a person looks at what goes to err.
func (t *terminal) interactive() bool {
	f, ok := t.err.(*os.File)
	return ok && term.IsTerminal(int(f.Fd()))
}

func (t *terminal) printf(format string, args ...any) {
	_, _ = fmt.Fprintf(t.out, format, args...)
}

// document prints a value as indented JSON.
func (t *terminal) document(v any) error {
	e := json.NewEncoder(t.out)
	e.SetIndent("", "  ")
	e.SetEscapeHTML(false)
	return e.Encode(v)
}

// success prints a value as JSON or, without --json, as a line.
func (g *globals) success(v any, format string, args ...any) error {
	if g.json {
		return g.document(v)
	}
	g.printf(format, args...)
	return nil
}

// table prints rows as the BOSH CLI does: no lines, two spaces between columns,
// a count and a verdict below.
func (t *terminal) table(header []string, rows [][]string) {
	w := table.NewWriter()
	style := table.StyleDefault
	style.Options = table.OptionsNoBordersAndSeparators
	style.Box.PaddingLeft, style.Box.PaddingRight = "", "  "
	style.Format.Header = 0
	w.SetStyle(style)
	w.SuppressTrailingSpaces()
	w.AppendHeader(cells(header))
	for _, row := range rows {
		for i, cell := range row {
			if cell == "" {
				row[i] = "-"
			}
		}
		w.AppendRow(cells(row))
	}
	t.printf("%s\n", w.Render())
}

func cells(texts []string) table.Row {
	row := make(table.Row, 0, len(texts))
	for _, text := range texts {
		row = append(row, text)
	}
	return row
}

// count prints "1 snapshot" or "2 snapshots" as the line under a table.
func (t *terminal) count(n int, noun string) {
	if n != 1 {
		noun += "s"
	}
	t.printf("\n%d %s\n\nSucceeded\n", n, noun)
}

// aside prints what is not the verb's answer: with --json on stderr.
func (g *globals) aside() *globals {
	if !g.json {
		return g
	}
	return &globals{terminal: &terminal{in: g.in, out: g.err, err: g.err}}
}

// confirm asks a yes-or-no question. Anything but yes is a usage error.
func (g *globals) confirm(question string) error {
	g.aside().printf("%s [yN]: ", question)
	line, _ := bufio.NewReader(g.in).ReadString('\n')
	answer := strings.ToLower(strings.TrimSpace(line))
	if answer == "y" || answer == "yes" {
		return nil
	}
	return usageError{errors.New("nothing was deleted: not confirmed (--yes)")}
}

func timestamp(at time.Time) string {
	if at.IsZero() {
		return ""
	}
	return at.UTC().Format("2006-01-02 15:04:05 MST")
}

// span prints seconds in the unit that suits them.
func span(seconds float64) string {
	d := time.Duration(seconds * float64(time.Second))
	switch {
	case d == 0:
		return ""
	case d < 10*time.Millisecond:
		return d.Round(10 * time.Microsecond).String()
	case d < 10*time.Second:
		return d.Round(time.Millisecond).String()
	}
	return d.Round(time.Second).String()
}

func yesNo(b bool) string {
	if b {
		return "true"
	}
	return "false"
}
