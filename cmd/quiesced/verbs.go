package main

import (
	"errors"
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

func snapshotsVerb(g *globals) *cobra.Command {
	return &cobra.Command{
		Use:   "snapshots",
		Short: "List the snapshots that this VM's daemon took",
		Args:  cobra.NoArgs,
		RunE: func(cmd *cobra.Command, _ []string) error {
			client, err := g.client()
			if err != nil {
				return err
			}
			list, err := client.Snapshots(cmd.Context())
			if err != nil {
				return err
			}
			if g.json {
				return g.document(list)
			}
			rows := [][]string{}
			for _, s := range list {
				instance := s.Job + "/" + s.UUID
				if s.UUID == "" {
					instance = fmt.Sprintf("%s/%d", s.Job, s.Index)
				}
				cid := s.CID
				if s.State != "known" {
					cid = strings.TrimSpace(fmt.Sprintf("%s (%s)", cid, s.State))
				}
				rows = append(rows, []string{instance, cid, timestamp(s.Created), yesNo(s.Clean), s.DiskCID, s.Level, s.Trigger})
			}
			g.table([]string{"Instance", "Snapshot CID", "Created At", "Clean", "Disk CID", "Level", "Trigger"}, rows)
			g.count(len(list), "snapshot")
			return nil
		},
	}
}

func deleteSnapshotVerb(g *globals) *cobra.Command {
	return &cobra.Command{
		Use:               "delete-snapshot CID",
		Short:             "Delete a snapshot",
		Args:              cobra.ExactArgs(1),
		ValidArgsFunction: g.completeCIDs,
		RunE: func(cmd *cobra.Command, args []string) error {
			client, err := g.client()
			if err != nil {
				return err
			}
			if err := client.Delete(cmd.Context(), args[0]); err != nil {
				return err
			}
			return g.success(api.Deleted{CIDs: args}, "Deleted snapshot %s\n\nSucceeded\n", args[0])
		},
	}
}

// completeCIDs offers the catalogue to the shell.
func (g *globals) completeCIDs(cmd *cobra.Command, _ []string, _ string) ([]string, cobra.ShellCompDirective) {
	client, err := g.client()
	if err != nil {
		return nil, cobra.ShellCompDirectiveError
	}
	list, err := client.Snapshots(cmd.Context())
	if err != nil {
		return nil, cobra.ShellCompDirectiveError
	}
	var cids []string
	for _, s := range list {
		if s.CID != "" {
			cids = append(cids, s.CID)
		}
	}
	return cids, cobra.ShellCompDirectiveNoFileComp
}

func deleteSnapshotsVerb(g *globals) *cobra.Command {
	var yes bool
	cmd := &cobra.Command{
		Use:   "delete-snapshots",
		Short: "Delete every snapshot that this VM's daemon took",
		Args:  cobra.NoArgs,
		RunE: func(cmd *cobra.Command, _ []string) error {
			if !yes && !g.confirmed("Delete every snapshot of this instance?") {
				return usageError{errors.New("nothing was deleted: not confirmed (--yes)")}
			}
			client, err := g.client()
			if err != nil {
				return err
			}
			deleted, err := client.DeleteAll(cmd.Context())
			if g.json && err == nil {
				return g.document(api.Deleted{CIDs: deleted})
			}
			if !g.json {
				for _, cid := range deleted {
					g.printf("Deleted snapshot %s\n", cid)
				}
			}
			if err != nil {
				return err
			}
			g.count(len(deleted), "snapshot")
			return nil
		},
	}
	cmd.Flags().BoolVarP(&yes, "yes", "y", false, "do not ask")
	return cmd
}

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
	if s.Last != nil {
		g.printf("Last run   %s %s, %s%s\n", s.Last.ID, s.Last.Outcome, timestamp(s.Last.Ended), cleanWord(*s.Last))
	}
	for _, name := range slices.Sorted(maps.Keys(s.Doing)) {
		g.printf("           %s: %s\n", name, s.Doing[name])
	}
	if s.Yielded != nil {
		g.printf("Yielded    the director has the jobs to itself since %s\n", timestamp(*s.Yielded))
	}
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
