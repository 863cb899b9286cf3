package main

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"io"
	"os/exec"
	"path/filepath"
	"strings"
	"time"

	"github.com/quiesced/quiesced/agent/wire"
)

// result is how a verb ended.
type result struct {
	code     int
	out, err string
}

// run runs a verb to its end.
func (w *world) run(args ...string) result {
	w.t.Helper()
	return w.begin(args...)()
}

// told runs a verb to which somebody says something.
func (w *world) told(says string, args ...string) result {
	w.t.Helper()
	return w.beginTold(strings.NewReader(says), args...)()
}

// begin starts a verb; the function that it returns waits for its end.
func (w *world) begin(args ...string) func() result {
	w.t.Helper()
	return w.beginTold(nil, args...)
}

func (w *world) beginTold(stdin io.Reader, args ...string) func() result {
	w.t.Helper()
	ctx, cancel := context.WithTimeout(context.Background(), time.Minute)
	cmd := exec.CommandContext(ctx, filepath.Join(binaries, "quiesced"), append(args, "--config", w.config)...)
	var out, errs bytes.Buffer
	cmd.Stdin, cmd.Stdout, cmd.Stderr = stdin, &out, &errs
	w.must(cmd.Start())
	return func() result {
		defer cancel()
		err := cmd.Wait()
		var exit *exec.ExitError
		if err != nil && !errors.As(err, &exit) {
			w.t.Fatal(err)
		}
		return result{cmd.ProcessState.ExitCode(), out.String(), errs.String()}
	}
}

// take takes a snapshot and returns its report, where one was printed.
func (w *world) take(args ...string) (result, wire.Report) {
	w.t.Helper()
	r := w.run(append([]string{"take-snapshot", "--json"}, args...)...)
	return r, w.report(r)
}

func (w *world) report(r result) wire.Report {
	w.t.Helper()
	var report wire.Report
	if r.out != "" {
		w.must(json.Unmarshal([]byte(r.out), &report))
	}
	return report
}

func (w *world) snapshots() []wire.Snapshot {
	w.t.Helper()
	return list[wire.Snapshot](w, "snapshots")
}

func (w *world) runs() []wire.Report {
	w.t.Helper()
	return list[wire.Report](w, "runs")
}

func list[T any](w *world, verb string) []T {
	w.t.Helper()
	r := w.run(verb, "--json")
	if r.code != exitOK {
		w.t.Fatalf("%s: %+v", verb, r)
	}
	var all []T
	w.must(json.Unmarshal([]byte(r.out), &all))
	return all
}

// mustSay asserts an exit code and that each text is in what was printed.
func (w *world) mustSay(r result, code int, texts ...string) {
	w.t.Helper()
	if r.code != code {
		w.t.Errorf("exit code %d, want %d\n%s%s", r.code, code, r.out, r.err)
	}
	for _, text := range texts {
		if !strings.Contains(r.out+r.err, text) {
			w.t.Errorf("%q is missing from\n%s%s", text, r.out, r.err)
		}
	}
	if strings.Contains(r.out+r.err, "c1oudcow") {
		w.t.Errorf("a secret of the CPI's context is shown:\n%s%s", r.out, r.err)
	}
}
