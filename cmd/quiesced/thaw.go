package main

import (
	"context"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"sync"

	"github.com/spf13/cobra"

	"github.com/quiesced/quiesced/agent/api"
	"github.com/quiesced/quiesced/quiesce/guard"
)

// thawing is one call of the verb.
type thawing struct {
	*globals
	abandoned bool // leave a living daemon's freeze alone
	binary    *guard.Binary
	rows      [][]string
}

func thawVerb(g *globals) *cobra.Command {
	t := &thawing{globals: g}
	cmd := &cobra.Command{
		Use:   "thaw [MOUNT...]",
		Short: "Thaw what a daemon on this machine froze, and the mount points that are named",
		Long: `Thaw what a daemon on this machine froze, be it alive, hung or dead, as the
records of its freezes say. What anybody else froze stays frozen, unless its mount
point is named: that is thawed whoever froze it.

It needs no daemon and no journal, and can be repeated.`,
		RunE: func(cmd *cobra.Command, mounts []string) error { return t.do(cmd.Context(), mounts) },
		Args: cobra.ArbitraryArgs,
	}
	cmd.Flags().BoolVar(&t.abandoned, "abandoned", false, "leave alone what a living daemon holds frozen")
	return cmd
}

// do thaws by the records first: a freeze of ours that was thawed by name alone
// would be owed another thaw by its record, and that might be somebody else's.
func (t *thawing) do(ctx context.Context, mounts []string) error {
	if os.Geteuid() != 0 {
		return &api.Error{Kind: api.KindForbidden, Message: "thaw needs root"}
	}
	var err error
	if t.binary, err = openGuard(); err != nil {
		return err
	}
	dir, astray := t.recordsDir()
	errs := t.byRecord(ctx, dir, len(mounts) > 0)
	missing, failed := t.byName(ctx, mounts)
	if !t.json {
		t.table([]string{"Run", "Mount", "State", "Cause"}, t.rows)
	}
	if err := worst(append(errs, failed...), missing, astray, len(mounts) > 0); err != nil {
		return err
	}
	if t.json {
		return t.document(thawed(t.rows))
	}
	t.count(len(t.rows), "filesystem")
	return nil
}

// worst is all that went wrong, as the kind that is worst. That the records may lie
// elsewhere is nothing to whoever named what to thaw.
func worst(failed, missing []error, astray error, named bool) error {
	all := append(append(failed, missing...), astray)
	switch {
	case len(failed) > 0:
		return &api.Error{Kind: api.KindNotResumed, Message: errors.Join(all...).Error()}
	case len(missing) > 0:
		return &api.Error{Kind: api.KindRefused, Message: errors.Join(all...).Error()}
	case named:
		return nil
	}
	return astray
}

// byRecord thaws what the records say is ours. A record that cannot be read is
// an error, unless mount points were named: then somebody knows what it was about.
func (t *thawing) byRecord(ctx context.Context, dir string, named bool) []error {
	left, err := guard.Recover(ctx, t.binary, dir, guard.RecoverOptions{Force: !t.abandoned})
	errs, unreadable := sorted(err)
	for _, r := range left {
		if r.Err != nil {
			errs = append(errs, r.Err)
		}
		for _, f := range r.Result.Filesystems {
			t.rows = append(t.rows, []string{r.RunID, f.Path, f.State.String(), r.Result.Cause.String()})
		}
	}
	for _, one := range unreadable {
		if named {
			t.warn("%v; when nothing is frozen any more, remove it: rm %s", one, one.Path)
			continue
		}
		errs = append(errs, fmt.Errorf("%w\nwhat it was about may be frozen; thaw that by name: quiesced thaw %s\nand then remove the record: rm %s",
			one, t.likelyMounts(), one.Path))
	}
	return errs
}

// sorted takes the errors of records that cannot be read out of Recover's.
func sorted(err error) (others []error, unreadable []*guard.UnreadableError) {
	all := []error{err}
	var joined interface{ Unwrap() []error }
	if errors.As(err, &joined) {
		all = joined.Unwrap()
	}
	for _, one := range all {
		var u *guard.UnreadableError
		switch {
		case errors.As(one, &u):
			unreadable = append(unreadable, u)
		case one != nil:
			others = append(others, one)
		}
	}
	return others, unreadable
}

// likelyMounts is what to type for the mount points of this instance's disks.
func (t *thawing) likelyMounts() string {
	c, err := loadConfig(t.config)
	if err != nil || len(c.Disks) == 0 {
		return "MOUNT..."
	}
	var mounts []string
	for _, d := range c.Disks {
		mounts = append(mounts, d.Mounts...)
	}
	return strings.Join(mounts, " ")
}

// recordsDir is where the records of freezes lie: beside the socket. A
// configuration that is wrong keeps nobody from thawing, but the default place is
// then a guess, and the error says so.
func (t *thawing) recordsDir() (string, error) {
	socket, err := t.socketPath()
	if err == nil {
		return filepath.Dir(socket), nil
	}
	dir := filepath.Dir(defaultSocket)
	return dir, usageError{fmt.Errorf("%w\nlooked for records of freezes in %s alone; --socket names another place", err, dir)}
}

func (t *thawing) warn(format string, args ...any) {
	_, _ = fmt.Fprintf(t.err, "quiesced: "+format+"\n", args...)
}

// byName thaws the filesystems at mount points, all at once: one of them may
// wait for another. It tells those that are no mount points from failures.
func (t *thawing) byName(ctx context.Context, mounts []string) (missing, failed []error) {
	errs := make([]error, len(mounts))
	var all sync.WaitGroup
	for i, mount := range mounts {
		all.Go(func() { errs[i] = t.path(ctx, mount) })
	}
	all.Wait()
	for i, err := range errs {
		state := "thawed"
		switch {
		case err == nil:
		case errors.Is(err, guard.ErrNotFrozen):
			state = "not frozen"
		case errors.Is(err, guard.ErrNotMount):
			state = "not a mount point"
			missing = append(missing, err)
		case errors.Is(err, guard.ErrStuck):
			state = "stuck"
			failed = append(failed, err)
		default:
			state = "failed"
			failed = append(failed, err)
		}
		t.rows = append(t.rows, []string{"", mounts[i], state, "named"})
	}
	return missing, failed
}

func (t *thawing) path(ctx context.Context, mount string) error {
	absolute, err := filepath.Abs(mount)
	if err != nil {
		return fmt.Errorf("cannot thaw %q: %w", mount, err)
	}
	return guard.ThawPath(ctx, t.binary, absolute)
}

func thawed(rows [][]string) []map[string]string {
	list := []map[string]string{}
	for _, r := range rows {
		list = append(list, map[string]string{"run_id": r[0], "mount": r[1], "state": r[2], "cause": r[3]})
	}
	return list
}
