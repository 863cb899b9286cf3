package systemd

import (
	"fmt"
	"slices"
	"strings"

	"github.com/quiesced/quiesced/quiesce/jobs"
)

// unit is a unit's properties by name, as D-Bus has them.
type unit map[string]any

func (u unit) text(property string) string {
	s, _ := u[property].(string)
	return s
}

// names are those of the units that some properties list.
func (u unit) names(properties ...string) []string {
	var all []string
	for _, property := range properties {
		names, _ := u[property].([]string)
		all = append(all, names...)
	}
	return all
}

func (u unit) name() string { return u.text("Id") }

func (u unit) missing() bool { return u.text("LoadState") == "not-found" }

func (u unit) masked() bool { return u.text("LoadState") == "masked" }

// restarts says whether systemd starts it again when it ends, some way or other.
func (u unit) restarts() bool {
	restart := u.text("Restart")
	return restart != "" && restart != "no" && !u.isDown()
}

// startedBy are the units that start it while they are up themselves.
func (u unit) startedBy() []string { return u.names("TriggeredBy", "UpheldBy") }

// stoppedWith are the units that systemd stops when it stops this one.
func (u unit) stoppedWith() []string {
	return u.names("RequiredBy", "RequisiteOf", "BoundBy", "ConsistsOf", "PropagatesStopTo")
}

// state is what systemd says of it. Between two tries to keep it up it is failing.
func (u unit) state() jobs.State {
	switch u.text("ActiveState") {
	case "active":
		return jobs.Running
	case "inactive":
		return jobs.Stopped
	case "failed":
		return jobs.Failing
	}
	if u.isRestarting() {
		return jobs.Failing
	}
	return jobs.Changing
}

// isRestarting says whether it has ended and waits to be started again.
func (u unit) isRestarting() bool { return strings.HasPrefix(u.text("SubState"), "auto-restart") }

// isDown says whether it neither runs nor is about to.
func (u unit) isDown() bool {
	return slices.Contains([]string{"inactive", "failed"}, u.text("ActiveState"))
}

// hasJob says whether systemd has a job for it.
func (u unit) hasJob() bool {
	job, _ := u["Job"].([]any)
	return len(job) > 0 && job[0] != uint32(0)
}

// tellsWhenReady says whether active means more than that a process was made.
func (u unit) tellsWhenReady() bool {
	return !slices.Contains([]string{"simple", "exec", "idle"}, u.text("Type"))
}

// hasRun says whether it did its work and needs no process any more.
func (u unit) hasRun() bool {
	return u.text("Type") == "oneshot" && u.state() == jobs.Stopped && u.text("Result") == "success" && !u.missesCondition()
}

// missesCondition says whether a condition in the unit kept it from starting.
func (u unit) missesCondition() bool {
	tried, _ := u["ConditionTimestamp"].(uint64)
	met, _ := u["ConditionResult"].(bool)
	return tried > 0 && !met
}

// detail is how systemd would put it: failed (failed), result exit-code, status 1.
func (u unit) detail() string {
	text := fmt.Sprintf("%s (%s)", u.text("ActiveState"), u.text("SubState"))
	if load := u.text("LoadState"); load != "loaded" {
		text = load + ", " + text
	}
	if result := u.text("Result"); result != "" && result != "success" {
		text += ", result " + result
	}
	if status, _ := u["ExecMainStatus"].(int32); status != 0 {
		word := "status"
		if code, _ := u["ExecMainCode"].(int32); code != exited {
			word = "signal"
		}
		text += fmt.Sprintf(", %s %d", word, status)
	}
	if u.isDown() && u.missesCondition() {
		text += ", a condition is not met"
	}
	return text
}

// exited is CLD_EXITED, what the kernel says of a process that was not killed.
const exited = 1
