package front

import (
	"cmp"
	"context"
	"fmt"
	"slices"

	"github.com/quiesced/quiesced/agent"
	"github.com/quiesced/quiesced/agent/api"
	"github.com/quiesced/quiesced/agent/wire"
)

// conclusion is all that is known at a hold's end.
type conclusion struct {
	holding
	cid    string // of the snapshot, "" for none
	report wire.Report
	err    error // why there is no report
}

// conclude says how the hold ended, and alerts where a snapshot is not what was
// asked for. The snapshot exists by then: whatever the policy, the director gets it.
func (f *Front) conclude(ctx context.Context, c conclusion, say func(string)) {
	about := fmt.Sprintf("disk %q of %s, run %s", c.snapshot.Disk, c.snapshot, c.hold.request.ID)
	wrong := c.wrong()
	switch {
	case wrong == "" && c.cid == "":
		say("no snapshot of " + about)
	case wrong == "" && c.err != nil:
		say(fmt.Sprintf("snapshot %q of %s: at rest (%s); the VM's daemon could not be told of it: %v", c.cid, about, c.lease.Level, c.err))
	case wrong == "":
		say(fmt.Sprintf("snapshot %q of %s: at rest (%s)", c.cid, about, c.report.Reached))
	case c.cid == "":
		say(fmt.Sprintf("no snapshot of %s, and the hold did not go well: %s", about, wrong))
	default:
		wrong = fmt.Sprintf("snapshot %q of %s is not what was asked for: %s", c.cid, about, wrong)
		if f.Config.Policy != Degrade {
			wrong += fmt.Sprintf("; it exists, so the director gets it in spite of policy %s", f.Config.Policy)
		}
		say(wrong)
	}
	if wrong != "" && (c.cid != "" || c.severity() == SeverityAlert) {
		f.alert(ctx, Alert{ID: c.hold.request.ID, Severity: c.severity(), Title: "snapshot without rest", Summary: wrong}, say)
	}
}

// wrong says why the snapshot is not what was asked for, "" if it is.
func (c conclusion) wrong() string {
	first := c.hold.thawed
	kept := first != nil && first.Unbroken != nil && *first.Unbroken // until the point in time
	switch {
	case c.err != nil && kept:
		return ""
	case c.err != nil && c.hold.over != nil:
		return fmt.Sprintf("the hold was broken (%v), and its end could not be told: %v", c.hold.over, c.err)
	case c.err != nil:
		return fmt.Sprintf("whether the hold was broken is not known: %v", c.err)
	case !kept && (c.report.Unbroken == nil || !*c.report.Unbroken):
		return "the hold was broken: " + cmp.Or(c.report.Reason, c.report.Error, "the daemon does not say why")
	case rank(c.report.Reached) < rank(c.report.Asked): // jobs that the director has stopped make it more
		return fmt.Sprintf("level %s was reached in place of %s: %s", c.report.Reached, c.report.Asked, cmp.Or(c.report.Reason, "the daemon does not say why"))
	case kept && c.report.Outcome != string(agent.OutcomeNotResumed): // what came after that matters not
		return ""
	case c.cid != "" && c.report.Error != "":
		return c.report.Error
	}
	return ""
}

// severity is the worst where the VM is still held up.
func (c conclusion) severity() Severity {
	if c.report.Outcome == string(agent.OutcomeNotResumed) || api.KindOf(c.err) == api.KindNotResumed {
		return SeverityAlert
	}
	return SeverityError
}

// rank compares levels by what they promise.
func rank(level string) int { return slices.Index(agent.Levels(), agent.Level(level)) }
