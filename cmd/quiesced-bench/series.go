package main

import (
	"fmt"
	"slices"
	"time"
)

// series are measurements of one thing.
type series []time.Duration

// at is the measurement below which a share of all lie, 0 to 1.
func (s series) at(share float64) time.Duration {
	sorted := slices.Sorted(slices.Values(s))
	return sorted[min(int(share*float64(len(sorted))), len(sorted)-1)]
}

func (s series) median() time.Duration { return s.at(0.5) }

// over is the ratio of the medians.
func (s series) over(other series) float64 {
	return s.median().Seconds() / other.median().Seconds()
}

func (s series) String() string {
	return fmt.Sprintf("%.2f (%.2f to %.2f)", milliseconds(s.median()), milliseconds(s.at(0)), milliseconds(s.at(1)))
}

func milliseconds(d time.Duration) float64 { return d.Seconds() * 1000 }
