package main

import (
	"testing"
	"time"
)

func TestWaitsAreToldApart(t *testing.T) {
	ms := func(from, to int) op {
		return op{time.Duration(from) * time.Millisecond, time.Duration(to) * time.Millisecond}
	}
	h := held{from: 200 * time.Millisecond, to: 300 * time.Millisecond}
	for name, c := range map[string]struct {
		ops           []op
		window, whole time.Duration
	}{
		"what came before the request does not count": {[]op{ms(0, 90), ms(199, 302)}, 3, 3},
		"what began after the thaw does not count":    {[]op{ms(199, 302), ms(301, 390)}, 3, 3},
		"what waited for the write-out is the whole's": {
			[]op{ms(110, 150), ms(199, 302)}, 3, 40},
		"what waited for the freeze and for the thaw is the window's": {
			[]op{ms(180, 310)}, 30, 30},
		"what began in the hold waits from then on": {[]op{ms(250, 304)}, 4, 4},
		"a request that came in the middle of a write": {
			[]op{ms(60, 120), ms(199, 302)}, 3, 60},
	} {
		t.Run(name, func(t *testing.T) {
			window, whole := waits(c.ops, 100*time.Millisecond, h)
			if window != c.window*time.Millisecond || whole != c.whole*time.Millisecond {
				t.Errorf("window %s, whole %s, want %d and %d ms", window, whole, c.window, c.whole)
			}
		})
	}
}

func TestSeries(t *testing.T) {
	s := series{5, 1, 3, 2, 4}
	if s.median() != 3 || s.at(0) != 1 || s.at(0.99) != 5 || s.at(1) != 5 || s.over(series{6}) != 0.5 {
		t.Errorf("median %d, least %d, p99 %d, ratio %g", s.median(), s.at(0), s.at(0.99), s.over(series{6}))
	}
}
