package main

import (
	"fmt"
	"maps"
	"slices"
	"strings"
	"time"

	"github.com/prometheus/common/version"
	"github.com/spf13/cobra"

	"github.com/quiesced/quiesced/agent/api"
	"github.com/quiesced/quiesced/agent/wire"
)

func runsVerb(g *globals) *cobra.Command {
	return &cobra.Command{
		Use:   "runs",
		Short: "List the runs that ended, newest first",
		Args:  cobra.NoArgs,
		RunE: func(cmd *cobra.Command, _ []string) error {
			client, err := g.client()
			if err != nil {
				return err
			}
			list, err := client.Runs(cmd.Context())
			if err != nil {
				return err
			}
			if g.json {
				return g.document(list)
			}
			rows := [][]string{}
			for _, r := range list {
				if r.Restore != nil {
					r.Asked = "(restore)"
				}
				rows = append(rows, []string{
					r.ID, r.Trigger, r.Asked, r.Outcome, yesNo(r.Clean), timestamp(r.Started), span(r.Seconds["frozen"]), oneLine(r.Error),
				})
			}
			g.table([]string{"Run", "Trigger", "Level", "Outcome", "Clean", "Started", "Frozen", "Error"}, rows)
			g.count(len(list), "run")
			return nil
		},
	}
}

func oneLine(text string) string { return strings.ReplaceAll(text, "\n", "; ") }

func statusVerb(g *globals) *cobra.Command {
	return &cobra.Command{
		Use:   "status",
		Short: "Show what the daemon is doing",
		Args:  cobra.NoArgs,
		RunE: func(cmd *cobra.Command, _ []string) error {
			client, err := g.client()
			if err != nil {
				return err
			}
			s, err := client.Status(cmd.Context())
			if err != nil {
				return err
			}
			if g.json {
				return g.document(s)
			}
			g.printStatus(s)
			return nil
		},
	}
}

func (g *globals) printStatus(s api.Status) {
	g.printf("Instance   %s/%d %s\n", s.Instance.Job, s.Instance.Index, s.Instance.ID)
	g.printf("Snapshots  %d, %s\n", s.Snapshots, map[bool]string{true: "enabled", false: "disabled"}[s.Enabled])
	if s.Work == "" {
		g.printf("Now        idle\n")
	} else {
		g.printf("Now        %s %s, for %s\n", s.Work, s.Phase, time.Since(*s.Since).Round(time.Millisecond))
	}
	for _, name := range slices.Sorted(maps.Keys(s.Doing)) {
		g.printf("           %s: %s\n", name, s.Doing[name])
	}
	if s.Last != nil {
		g.printf("Last run   %s %s, %s%s\n", s.Last.ID, s.Last.Outcome, timestamp(s.Last.Ended), cleanWord(*s.Last))
	}
	if s.Restored != nil {
		g.printf("Restored   %s %s\n", timestamp(s.Restored.Ended), placeOf(*s.Restored.Restore))
	}
	if s.Yielded != nil {
		g.printf("Yielded    the director has the jobs to itself since %s\n", timestamp(*s.Yielded))
	}
	g.printUpkeep(s)
	for _, what := range s.NotGoing {
		g.printf("NOT GOING AGAIN: %s\n", what)
	}
	for _, id := range s.Unsaved {
		g.printf("NOT RECORDED yet: run %s\n", id)
	}
	for _, what := range s.Stuck {
		g.printf("NOT THAWED: %s\n", what)
	}
	g.printf("Version    %s\n", s.Version)
}

// printUpkeep prints what the daemon does by itself.
func (g *globals) printUpkeep(s api.Status) {
	for _, one := range s.Scheduled {
		g.printf("Schedule   %s\n", scheduleLine(one))
	}
	if s.Verified != nil {
		g.printf("Verified   %s\n", timestamp(*s.Verified))
	}
	if v := s.Verifying; v != nil {
		g.printf("Verifying  %s: %s, for %s\n", v.CID, v.Step, time.Since(v.Since).Round(time.Millisecond))
		if v.Left != "" {
			g.printf("NOT REMOVED: disk %s, made to verify %s: %s\n", v.Disk, v.CID, v.Left)
		}
	}
	if r := s.Retention; r != nil {
		g.printf("Retention  %s\n", retentionLine(*r))
	}
	for _, c := range s.Copies {
		if c.Error != "" {
			g.printf("Copy       of the catalogue on disk %s is not current: %s\n", c.DiskCID, c.Error)
		}
	}
}

func scheduleLine(s api.Scheduled) string {
	line := fmt.Sprintf("%s %q", s.Trigger, s.Cron)
	if s.Next != nil {
		line += ", next " + timestamp(*s.Next)
	}
	if s.Last != nil {
		line += ", last " + timestamp(*s.Last)
	}
	if s.Missed+s.Skipped > 0 {
		line += fmt.Sprintf(", %d missed and %d skipped", s.Missed, s.Skipped)
	}
	return line
}

func retentionLine(r api.Retention) string {
	line := fmt.Sprintf("%d deleted, %d failed", r.Deleted, r.Failed)
	if r.Last != nil {
		line += ", last applied " + timestamp(*r.Last)
	}
	return line
}

func cleanWord(r wire.Report) string {
	if r.Clean {
		return ", clean"
	}
	return ""
}

func yieldVerb(g *globals) *cobra.Command {
	return &cobra.Command{
		Use:   "yield",
		Short: "Leave the jobs to the director: end a run that holds them, and begin none",
		Args:  cobra.NoArgs,
		RunE: func(cmd *cobra.Command, _ []string) error {
			client, err := g.client()
			if err != nil {
				return err
			}
			deadline := time.Now().Add(yieldPatience)
			err = client.Yield(cmd.Context())
			for api.KindOf(err) == api.KindBusy && time.Now().Before(deadline) {
				err = client.Yield(cmd.Context())
			}
			if err != nil {
				return err
			}
			return g.success(map[string]bool{"yielded": true}, "The director has the jobs to itself\n")
		},
	}
}

// yieldPatience is how long a run may take to unlock what it locked.
const yieldPatience = 10 * time.Minute

func unyieldVerb(g *globals) *cobra.Command {
	return &cobra.Command{
		Use:   "unyield",
		Short: "Take the jobs back from the director",
		Args:  cobra.NoArgs,
		RunE: func(cmd *cobra.Command, _ []string) error {
			client, err := g.client()
			if err != nil {
				return err
			}
			if err := client.Unyield(cmd.Context()); err != nil {
				return err
			}
			return g.success(map[string]bool{"yielded": false}, "The director no longer has the jobs to itself\n")
		},
	}
}

func versionVerb(g *globals) *cobra.Command {
	return &cobra.Command{
		Use:   "version",
		Short: "Print the version",
		Args:  cobra.NoArgs,
		RunE: func(*cobra.Command, []string) error {
			return g.success(
				map[string]string{"version": version.Version, "revision": version.GetRevision(), "go": version.GoVersion},
				"%s\n", version.Print("quiesced"))
		},
	}
}
