package front_test

import (
	"bytes"
	"errors"
	"strings"
	"testing"

	"github.com/quiesced/quiesced/cpi/front"
)

// unread is a reader who does not read before go is closed.
type unread struct {
	output
	goOn chan struct{}
}

func (u *unread) Write(p []byte) (int, error) {
	<-u.goOn
	return u.output.Write(p)
}

func write(t *testing.T, r *front.Relay, text string) {
	t.Helper()
	if n, err := r.Write([]byte(text)); n != len(text) || err != nil {
		t.Fatalf("got %d, %v", n, err)
	}
}

func TestARelayHandsOnEverythingInItsOrder(t *testing.T) {
	var to output
	r := front.NewRelay(&to, false)
	var want strings.Builder
	for i := range 1000 {
		text := strings.Repeat("x", i) + "\n"
		want.WriteString(text)
		write(t, r, text)
	}
	r.Close()
	if to.String() != want.String() {
		t.Errorf("got %d bytes, want %d", len(to.String()), want.Len())
	}
}

func TestARelayDoesNotWaitForItsReader(t *testing.T) {
	to := &unread{goOn: make(chan struct{})}
	r := front.NewRelay(to, false)
	text := strings.Repeat("line\n", 1<<20/5)
	write(t, r, text)
	write(t, r, "last\n")
	close(to.goOn)
	r.Close()
	if to.String() != text+"last\n" {
		t.Errorf("got %d bytes", len(to.String()))
	}
}

func TestAShutRelayHandsOnNothingBeforeItIsOpened(t *testing.T) {
	to := &unread{goOn: make(chan struct{})}
	close(to.goOn)
	r := front.NewRelay(to, true)
	write(t, r, "early\n")
	same(t, "while shut", "", to.String())
	r.Open()
	eventually(t, "it is handed on", func() bool { return to.String() == "early\n" })
	r.Close()
}

func TestARelaySaysWhatItLeavesOut(t *testing.T) {
	to := &unread{goOn: make(chan struct{})}
	r := front.NewRelay(to, true) // so that nothing is under way to the reader
	big := bytes.Repeat([]byte("y"), front.MaxRelay-10)
	write(t, r, string(big))
	write(t, r, strings.Repeat("z", 100))
	write(t, r, "!")
	close(to.goOn)
	r.Close()
	same(t, "the end", "yy\nquiesce-cpi: 100 bytes of the CPI's stderr are left out here, since nobody read it\n!", to.String()[len(big)-2:])
}

func TestANoteBeginsALine(t *testing.T) {
	var to output
	r := front.NewRelay(&to, false)
	r.Note("one")
	write(t, r, "without an end")
	r.Note("two")
	r.Close()
	same(t, "text", "quiesce-cpi: one\nwithout an end\nquiesce-cpi: two\n", to.String())
}

// gone is a reader who is there no more.
type gone struct{}

func (gone) Write([]byte) (int, error) { return 0, errors.New("broken pipe") }

func TestARelayEndsThoughNobodyReads(t *testing.T) {
	r := front.NewRelay(gone{}, false)
	for range 100 {
		write(t, r, strings.Repeat("x", 1<<20))
	}
	r.Close()
}
