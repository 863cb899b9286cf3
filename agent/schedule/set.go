package schedule

import "math/bits"

// set holds numbers from 0 to 62.
type set uint64

func (s set) has(n int) bool { return s>>n&1 != 0 }

func (s set) with(n int) set { return s | 1<<n }

// from is the lowest number in the set that is not below another, or one above all
// that a set holds.
func (s set) from(n int) int { return n + bits.TrailingZeros64(uint64(s)>>n) }
