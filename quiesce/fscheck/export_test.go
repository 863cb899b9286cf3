package fscheck

import "context"

var Look = look

// Run runs a program as a checker is run, and returns its status.
func Run(ctx context.Context, program string, args ...string) (int, error) {
	out, err := run(ctx, program, args...)
	return out.status, err
}
