package agent

import (
	"context"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"strconv"

	"github.com/quiesced/quiesced/quiesce/failpoint"
	"github.com/quiesced/quiesced/quiesce/fscheck"
	"github.com/quiesced/quiesced/quiesce/jobs"
)

// askJobs has the verify scripts of the jobs look at a filesystem that is whole.
func (v *verification) askJobs(ctx context.Context, r fscheck.Result, found Verification) (Verification, error) {
	scripts, err := v.agent.Settings.Processes.Layout.Scripts(jobs.Verify)
	if err != nil || len(scripts) == 0 {
		return found, err
	}
	in, err := v.enclosure(ctx, r)
	if err != nil {
		return found, err
	}
	v.enter("asking the jobs")
	err = v.agent.Scripts.RunEnclosed(ctx, scripts, in, v.agent.Settings.Budgets.Verify, nil)
	failpoint.Hit("scratch-asked")
	for _, s := range scripts {
		found.How += ", " + jobOf(s)
	}
	bad, err := verdicts(err)
	if err != nil {
		return found, err
	}
	found.Result += ", and the jobs' scripts agree"
	if bad != nil {
		found.OK, found.Result = false, bounded(bad.Error())
	}
	return found, nil
}

func jobOf(s jobs.Script) string {
	if s.Job == "" {
		return "processes.hooks"
	}
	return "job " + s.Job
}

// enclosure is where the scripts run: they alone see the copy, and do not see what it is a
// copy of.
func (v *verification) enclosure(ctx context.Context, r fscheck.Result) (jobs.Enclosure, error) {
	dir, hidden := filepath.Join(v.agent.Freezer.Dir, "verified"), v.agent.mounts()
	for _, at := range hidden {
		if within(dir, at) {
			return jobs.Enclosure{}, refuse("", "the copy would be mounted at %q, which lies on %q", dir, at)
		}
	}
	if err := os.MkdirAll(dir, 0o700); err != nil {
		return jobs.Enclosure{}, fmt.Errorf("cannot make the directory at which the copy is mounted: %w", err)
	}
	if err := r.Mountable(ctx); err != nil {
		return jobs.Enclosure{}, err
	}
	return jobs.Enclosure{Command: r.Beside(dir, hidden), Env: []string{
		"QUIESCED_MOUNT=" + dir,
		"QUIESCED_SNAPSHOT_CID=" + v.snapshot.CID,
		"QUIESCED_DISK_CID=" + v.snapshot.DiskCID,
		"QUIESCED_LEVEL=" + string(v.snapshot.Level),
		"QUIESCED_CLEAN=" + strconv.FormatBool(v.snapshot.Clean),
	}}, nil
}

// verdicts takes what scripts said apart from what kept them from saying anything.
func verdicts(err error) (bad, unable error) {
	all := []error{err}
	if several, ok := err.(interface{ Unwrap() []error }); ok { // as Run joins them
		all = several.Unwrap()
	}
	for _, one := range all {
		failed, ok := errors.AsType[*jobs.ScriptError](one)
		if ok && failed.Refused() {
			bad = errors.Join(bad, one)
			continue
		}
		unable = errors.Join(unable, one)
	}
	return bad, unable
}
