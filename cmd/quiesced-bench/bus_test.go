package main

import (
	"bytes"
	"testing"
)

func TestTheAuditOfADaemonIsNotPassedOn(t *testing.T) {
	var out bytes.Buffer
	c := &complaints{to: &out}
	for _, part := range []string{"time=1 level=WA", "RN msg=a\n2026/11/26 14:45:42 CEF", ":0|CloudFoundry|\nlevel=ERROR\nunend", "ed"} {
		if n, err := c.Write([]byte(part)); n != len(part) || err != nil {
			t.Fatalf("%q is written to %d, %v", part, n, err)
		}
	}
	if got, want := out.String(), "time=1 level=WARN msg=a\nlevel=ERROR\n"; got != want {
		t.Errorf("%q is passed on, want %q", got, want)
	}
}

func TestRatesArePrintedWithTheirSpread(t *testing.T) {
	for _, test := range []struct {
		all  []float64
		want string
	}{
		{[]float64{3, 1, 2}, "2.00 (1.00 to 3.00)"},
		{[]float64{20000, 10000.4, 30000.6}, "20000 (10000 to 30001)"},
	} {
		if got := spread(test.all); got != test.want {
			t.Errorf("%v is %q, want %q", test.all, got, test.want)
		}
	}
}

func TestProcessorTimeIsThatOfTheProcess(t *testing.T) {
	before := processor(1)
	if spent := processor(1) - before; before <= 0 || spent < 0 {
		t.Errorf("the first process has used %s, then %s", before, spent)
	}
}
