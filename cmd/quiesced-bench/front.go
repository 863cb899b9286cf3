package main

import (
	"bytes"
	"context"
	"fmt"
	"os/exec"
	"strings"
	"time"
)

// echo is the least of all CPIs: it answers with its request.
const echo = "/bin/cat"

// frontPairs is how often a call is made either way, for each repetition.
const frontPairs = 40

// front measures what quiesce-cpi costs before a CPI, for requests that it passes on.
func (s *stage) front(ctx context.Context, o options) error {
	s.say("\nA call of quiesce-cpi before a CPI, and of that CPI alone: ms, median (least to most)\n")
	s.say("%-10s %8s %6s %-24s %-24s %9s %s\n", "method", "bytes", "calls", "quiesce-cpi", "bare", "more", "ratio")
	for _, r := range []struct {
		method string
		size   int
	}{{"info", 0}, {"create_vm", 8 << 10}, {"create_vm", 1 << 20}} {
		if err := s.frontRow(ctx, r.method, r.size, frontPairs*o.reps); err != nil {
			return fmt.Errorf("%s of %d bytes: %w", r.method, r.size, err)
		}
	}
	return nil
}

// frontRow makes calls in turns. The answers have to be the same, to the last byte.
func (s *stage) frontRow(ctx context.Context, method string, size, calls int) error {
	request := requestOf(method, size)
	programs := [][]string{{sibling("quiesce-cpi"), "-cpi", echo}, {echo}}
	took := make([]series, len(programs))
	for i := range calls {
		for k := range programs {
			at := (i + k) % len(programs)
			began := time.Now()
			answer, err := callCPI(ctx, request, programs[at])
			took[at] = append(took[at], time.Since(began))
			if err != nil {
				return err
			}
			if !bytes.Equal(answer, request) {
				return fmt.Errorf("%s answered %d bytes, which are not those of the CPI", programs[at][0], len(answer))
			}
		}
	}
	ours, bare := took[0], took[1]
	s.say("%-10s %8d %6d %-24s %-24s %9.2f %.2f\n", method, len(request), calls, ours, bare,
		milliseconds(ours.median()-bare.median()), ours.over(bare))
	return nil
}

// requestOf is a director's request of about so many bytes.
func requestOf(method string, size int) []byte {
	const form = `{"method":%q,"arguments":[%q],"context":{"director_uuid":"80f6a3c2-5d2f-4c1e-9d4e-2f6b8c0a1e77","request_id":"cpi-958857"}}`
	filler := max(0, size-len(form)-len(method))
	return fmt.Appendf(nil, form, method, strings.Repeat("0123456789abcdef", filler/16))
}

// callCPI calls a CPI as a director does.
func callCPI(ctx context.Context, request []byte, program []string) ([]byte, error) {
	cmd := exec.CommandContext(ctx, program[0], program[1:]...)
	var answer bytes.Buffer
	cmd.Stdin, cmd.Stdout = bytes.NewReader(request), &answer
	cmd.Env = []string{"PATH=/usr/sbin:/usr/bin:/sbin:/bin", "HOME=/nonexistent"}
	if err := cmd.Run(); err != nil {
		return nil, fmt.Errorf("cannot call %s: %w", program[0], err)
	}
	return answer.Bytes(), nil
}
