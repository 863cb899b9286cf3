package cpi

import (
	"context"
	"os"
	"time"
)

// Input is the standard input of a CPI that its caller runs himself. The CPI gets its
// request in two parts: it loads its interpreter and reads the first, and cannot act
// on half a document. If the caller dies before the second, it sees a request cut
// short.
type Input struct{ in *input }

// NewInput makes an input whose first part is written at once, or as the CPI reads
// it. The file is the CPI's end, for the caller to close once it runs.
func NewInput(first []byte) (*Input, *os.File, error) {
	in, stdin, err := newInput(first, nil)
	if err != nil {
		return nil, nil, err
	}
	in.feed()
	return &Input{in}, stdin, nil
}

// Arm waits until the CPI has read the first part, or has closed its input, or ctx
// ends.
func (i *Input) Arm(ctx context.Context) {
	tick := time.NewTicker(armPoll)
	defer tick.Stop()
	for {
		if drained, err := i.in.drained(); drained || err != nil {
			return
		}
		select {
		case <-ctx.Done():
			return
		case <-tick.C:
		}
	}
}

// Send gives the CPI the second part and the end of its input. It does not wait for
// the CPI, whose answer shows whether it got it.
func (i *Input) Send(second []byte) {
	i.in.mu.Lock()
	i.in.last = second
	i.in.mu.Unlock()
	go func() { _ = i.in.send() }()
}

// Abort ends the input before the second part. After Send it does nothing.
func (i *Input) Abort() { i.in.abort() }
