package faults_test

import (
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"time"

	"github.com/quiesced/quiesced/agent"
	"github.com/quiesced/quiesced/agent/wire"
)

// soon is how long a write may take that nothing should keep waiting, and more
// than enough for what is likely to be there already.
const soon = 3 * time.Second

// check asserts what must hold after a fault, from outside. unrecorded says that
// the run may have been cut off before its record was durable.
func (v *vm) check(unrecorded bool, h hardships) error {
	if !v.bed.writable(2 * soon) { // the budget of a freeze
		return errors.New("THE FILESYSTEM CANNOT BE WRITTEN TO")
	}
	limit := patience
	if unrecorded {
		limit = soon / 6
	}
	reports, err := v.reports(runID, limit)
	if err != nil {
		return err
	}
	if len(reports) > 1 || len(reports) == 0 && !unrecorded {
		return fmt.Errorf("there are %d reports of the run", len(reports))
	}
	errs := []error{v.checkJobs(h), v.checkCatalogue(), v.checkLeftovers()}
	if !v.bed.bystanderFrozen() {
		errs = append(errs, errors.New("THE BYSTANDER WAS THAWED"))
	}
	return errors.Join(append(errs, v.checkRepetition(reports), v.checkNextRun(len(reports) == 0))...)
}

// checkCatalogue compares the catalogue with what the CPI made.
func (v *vm) checkCatalogue() error {
	ctx, cancel := context.WithTimeout(context.Background(), patience)
	defer cancel()
	snapshots, err := v.client.Snapshots(ctx)
	if err != nil {
		return err
	}
	known, unresolved := map[string]wire.Snapshot{}, 0
	for _, s := range snapshots {
		if s.State == "unresolved" {
			unresolved++
			continue
		}
		known[s.CID] = s
	}
	answered := map[string]bool{}
	for _, words := range v.lines("answered") {
		answered[words[0]] = true
	}
	made := v.lines("made")
	var errs []error
	for _, words := range made {
		s, ok := known[words[0]]
		delete(known, words[0])
		switch {
		case ok && s.Clean:
			errs = append(errs, v.checkClean(words))
		case !ok && !v.lost && (answered[words[0]] || unresolved == 0):
			errs = append(errs, fmt.Errorf("SNAPSHOT %s IS LOST, catalogue: %+v", words[0], snapshots))
		}
	}
	for cid := range known {
		errs = append(errs, fmt.Errorf("snapshot %s was never made", cid))
	}
	return errors.Join(errs...)
}

// checkClean looks for a write that began after the CPI had and returned before
// the snapshot was there: what the snapshot holds was not at rest then.
func (v *vm) checkClean(made []string) error {
	if len(made) < 3 {
		return fmt.Errorf("SNAPSHOT %s IS CALLED CLEAN, and its CPI was killed before it was there", made[0])
	}
	from, _ := strconv.ParseInt(made[1], 10, 64)
	to, _ := strconv.ParseInt(made[2], 10, 64)
	text, err := io.ReadAll(io.NewSectionReader(v.bed.log, 0, 1<<30))
	if err != nil {
		return err
	}
	writes := 0
	for line := range strings.Lines(string(text)) {
		var began, returned int64
		if n, _ := fmt.Sscan(line, &began, &returned); n != 2 {
			continue
		}
		writes++
		if began > from && returned < to {
			return fmt.Errorf("SNAPSHOT %s IS CALLED CLEAN, and somebody wrote while it was taken", made[0])
		}
	}
	if writes == 0 {
		return errors.New("the writer does not write")
	}
	return nil
}

// checkLeftovers looks for processes of the case, other than the daemon, and for
// records of freezes.
func (v *vm) checkLeftovers() error {
	var left []string
	err := eventually("nothing is left", func() bool {
		left, _ = filepath.Glob(filepath.Join(v.dir, "run", "guard-*"))
		left = append(left, v.processes()...)
		return len(left) == 0
	})
	if err != nil {
		return fmt.Errorf("LEFT BEHIND: %q", left)
	}
	return nil
}

// processes are those that the case's daemons and CPIs started, and others of
// its own but the present daemon. A zombie has neither environment nor arguments.
func (v *vm) processes() (found []string) {
	for pid, arguments := range commands() {
		if pid == v.daemon.Process.Pid {
			continue
		}
		environment, _ := os.ReadFile(fmt.Sprintf("/proc/%d/environ", pid))
		if strings.Contains(string(environment), v.points+"\x00") || strings.Contains(arguments, v.dir+"/cpi\x00") || v.bed.site.isScript(arguments) {
			found = append(found, fmt.Sprint(pid, " ", strings.ReplaceAll(arguments, "\x00", " ")))
		}
	}
	return found
}

// commands are the arguments of every process, each ended by a NUL, by its pid.
func commands() map[int]string {
	found := map[int]string{}
	entries, _ := os.ReadDir("/proc")
	for _, e := range entries {
		if pid, err := strconv.Atoi(e.Name()); err == nil {
			arguments, _ := os.ReadFile("/proc/" + e.Name() + "/cmdline")
			found[pid] = string(arguments)
		}
	}
	return found
}

// checkRepetition asks for a reported run again: the answer is the report that
// there is, and no second snapshot.
func (v *vm) checkRepetition(reports []wire.Report) error {
	if len(reports) == 0 {
		return nil
	}
	before := len(v.lines("made"))
	if err := <-v.begin(runID); err != nil {
		return fmt.Errorf("cannot ask for the run again: %w", err)
	}
	again, err := v.reports(runID, patience)
	if err != nil || len(again) != 1 || again[0].Outcome != reports[0].Outcome || again[0].Clean != reports[0].Clean {
		return fmt.Errorf("asked again, the run is reported as %+v, %w", again, err)
	}
	if made := len(v.lines("made")); made != before {
		return fmt.Errorf("asked again, the run made %d more snapshots", made-before)
	}
	return nil
}

// checkNextPlan asserts that a run would be taken. It stands for the run where most of a case's
// time would be monit's, and the same run follows the same boundary in another case.
func (v *vm) checkNextPlan() error {
	ctx, cancel := context.WithTimeout(context.Background(), patience)
	defer cancel()
	plan, err := v.client.Plan(ctx, agent.Request{ID: "next", Level: v.bed.kind.level})
	if err == nil && plan.Level != string(v.bed.kind.level) {
		return fmt.Errorf("the next run would reach level %q", plan.Level)
	}
	return err
}

// checkNextRun takes a snapshot that nothing disturbs; under the same id, if that
// run is not known.
func (v *vm) checkNextRun(same bool) error {
	if err := v.bed.site.reset(); err != nil {
		return err
	}
	if v.lost && v.bed.kind.level == agent.LevelStop {
		return v.checkNextPlan()
	}
	ids := []string{"next", "second", "third"} // for a machine that stands still for seconds, which a run must not outlast
	if same {
		ids[0] = runID
	}
	var err error
	for _, id := range ids {
		if err = v.succeeds(id); err == nil {
			break
		}
	}
	return errors.Join(err, v.checkJobs(hardships{}), v.checkCatalogue(), v.checkLeftovers())
}

// succeeds has a run with an id come to a clean end.
func (v *vm) succeeds(id string) error {
	if err := <-v.begin(id); err != nil {
		return fmt.Errorf("cannot begin the next run: %w", err)
	}
	reports, err := v.reports(id, patience)
	if err != nil || len(reports) != 1 {
		return fmt.Errorf("the next run has %d reports: %w", len(reports), err)
	}
	if r := reports[0]; r.Outcome != "succeeded" || !r.Clean {
		return fmt.Errorf("the next run is %+v", r)
	}
	return nil
}
