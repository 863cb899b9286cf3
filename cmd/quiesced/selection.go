package main

import (
	"errors"
	"fmt"
	"strconv"
	"strings"
	"time"

	"github.com/spf13/cobra"

	"github.com/quiesced/quiesced/agent"
	"github.com/quiesced/quiesced/agent/api"
	"github.com/quiesced/quiesced/agent/wire"
)

// selectionFlags say which snapshots are meant.
type selectionFlags struct {
	disk, trigger, level, state, sort       string
	clean, dirty, verified, unverified, rev bool
	older, since, until                     string
	limit                                   int
}

func (f *selectionFlags) add(cmd *cobra.Command) {
	flags := cmd.Flags()
	flags.StringVar(&f.disk, "disk", "", "those of the disk with this `CID`")
	flags.StringVar(&f.trigger, "trigger", "", "those of a `trigger`: "+words(agent.Triggers()))
	flags.StringVar(&f.level, "level", "", "those that reached a `level`: "+words(agent.Levels()))
	flags.StringVar(&f.state, "state", "", "those in a `state`: "+words(agent.SnapshotStates()))
	flags.BoolVar(&f.clean, "clean", false, "those that are clean")
	flags.BoolVar(&f.dirty, "dirty", false, "those that are not")
	flags.BoolVar(&f.verified, "verified", false, "those that the newest verification found good")
	flags.BoolVar(&f.unverified, "unverified", false, "those that it did not, or that never had one")
	flags.StringVar(&f.older, "older-than", "", "those created so long ago at least: a `time` such as 36h or 30d")
	flags.StringVar(&f.since, "since", "", "those created at a `time` such as 2026-10-31T00:00:00Z or later")
	flags.StringVar(&f.until, "until", "", "those created before a `time`")
	flags.StringVar(&f.sort, "sort", "", "by what they are sorted, a `key`: "+words(agent.SortKeys())+" (default created)")
	flags.BoolVar(&f.rev, "reverse", false, "the other way round")
	flags.IntVar(&f.limit, "limit", 0, "the first `number` of them alone")
	for flag, known := range map[string][]string{
		"trigger": texts(agent.Triggers()), "level": texts(agent.Levels()), "state": texts(agent.SnapshotStates()), "sort": texts(agent.SortKeys()),
	} {
		_ = cmd.RegisterFlagCompletionFunc(flag, cobra.FixedCompletions(known, cobra.ShellCompDirectiveNoFileComp))
	}
}

func texts[S ~string](all []S) []string {
	found := make([]string, 0, len(all))
	for _, one := range all {
		found = append(found, string(one))
	}
	return found
}

func words[S ~string](all []S) string { return strings.Join(texts(all), ", ") }

// selection reads the flags. What is wrong with them is a usage error.
func (f *selectionFlags) selection(cmd *cobra.Command) (agent.Selection, error) {
	s := agent.Selection{
		DiskCID: f.disk, Trigger: agent.Trigger(f.trigger), Level: agent.Level(f.level), State: agent.SnapshotState(f.state),
		Sort: agent.SortKey(f.sort), Reverse: f.rev, Limit: f.limit,
	}
	var errs [5]error
	s.Clean, errs[0] = either(cmd, "clean", "dirty")
	s.Verified, errs[1] = either(cmd, "verified", "unverified")
	s.Older, errs[2] = age(f.older)
	s.Since, errs[3] = moment("since", f.since)
	s.Until, errs[4] = moment("until", f.until)
	if err := errors.Join(errs[:]...); err != nil {
		return s, usageError{err}
	}
	if err := s.Check(); err != nil {
		return s, usageError{fmt.Errorf("--%w", err)}
	}
	return s, nil
}

// either is true for one flag, false for its opposite, nil for none.
func either(cmd *cobra.Command, yes, no string) (*bool, error) {
	is, _ := cmd.Flags().GetBool(yes)
	not, _ := cmd.Flags().GetBool(no)
	switch {
	case is && not:
		return nil, fmt.Errorf("--%s and --%s exclude each other", yes, no)
	case is || not:
		return &is, nil
	}
	return nil, nil
}

// age reads a time span, with days, too.
func age(text string) (time.Duration, error) {
	if text == "" {
		return 0, nil
	}
	const day = 24 * time.Hour
	if days, has := strings.CutSuffix(text, "d"); has {
		if n, err := strconv.ParseUint(days, 10, 16); err == nil {
			return time.Duration(n) * day, nil
		}
	}
	span, err := time.ParseDuration(text)
	if err != nil || span < 0 {
		return 0, fmt.Errorf("--older-than wants a time such as 36h or 30d, has %q", text)
	}
	return span, nil
}

func moment(flag, text string) (time.Time, error) {
	if text == "" {
		return time.Time{}, nil
	}
	at, err := time.Parse(time.RFC3339, text)
	if err != nil {
		return at, fmt.Errorf("--%s wants a time such as 2026-10-31T00:00:00Z, has %q", flag, text)
	}
	return at, nil
}

// onlyCIDs selects snapshots by name.
func onlyCIDs(cids ...string) agent.Selection { return agent.Selection{CIDs: cids} }

// selected is what the flags select, and the client that told.
func (g *globals) selected(cmd *cobra.Command, which *selectionFlags) ([]wire.Snapshot, api.Client, error) {
	selection, err := which.selection(cmd)
	if err != nil {
		return nil, api.Client{}, err
	}
	client, err := g.client()
	if err != nil {
		return nil, client, err
	}
	list, err := client.Select(cmd.Context(), selection)
	return list, client, err
}
