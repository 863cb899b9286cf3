package agent

import (
	"context"

	"github.com/quiesced/quiesced/quiesce"
)

// Plan says what a request would do, and touches nothing.
func (a *Agent) Plan(ctx context.Context, r Request) (*Plan, error) {
	r, err := a.Settings.completed(r)
	if err != nil {
		return nil, err
	}
	plan, _, err := a.plan(ctx, r)
	return plan, err
}

// plan looks at the disks and the jobs, checks that the daemon depends on none of
// what is to be frozen, and decides.
func (a *Agent) plan(ctx context.Context, r Request) (*Plan, *Inventory, error) {
	disks, err := a.Settings.selected(r.Disks)
	if err != nil {
		return nil, nil, err
	}
	if err := a.checkCPI(r); err != nil {
		return nil, nil, err
	}
	in, err := a.inventory(ctx, r.Level)
	if err != nil {
		return nil, nil, err
	}
	plan, err := a.survey(r, disks, in)
	return plan, in, err
}

// checkCPI says what is wrong with the CPI, where it is needed.
func (a *Agent) checkCPI(r Request) error {
	if r.Lease != 0 {
		return nil
	}
	if a.CPI == nil {
		return refuse("", "no CPI is configured (cpi.path)")
	}
	if err := a.CPI.Check(); err != nil {
		return &RefusedError{Err: err}
	}
	return nil
}

// survey looks at the disks, and plans by what it finds.
func (a *Agent) survey(r Request, disks []quiesce.Disk, in *Inventory) (*Plan, error) {
	survey, err := a.System.Survey()
	if err != nil {
		return nil, err
	}
	on, err := survey.Filesystems(disks)
	if err != nil {
		return nil, &RefusedError{Err: err}
	}
	plan, err := newPlan(r, &a.Settings, disks, on, in)
	if err != nil || !plan.Freezes() {
		return plan, err
	}
	if err := survey.Independent(plan.Filesystems, a.Settings.Depends); err != nil {
		return nil, &RefusedError{Err: err}
	}
	return plan, nil
}
