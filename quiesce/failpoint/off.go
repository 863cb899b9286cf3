//go:build !failpoints

package failpoint

// Hit marks a place where a test may hold the program.
func Hit(string) {}

// Environ is what a child needs in its environment to have failpoints, too.
func Environ() []string { return nil }
