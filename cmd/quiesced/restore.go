package main

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"strings"

	"github.com/spf13/cobra"

	"github.com/quiesced/quiesced/agent"
	"github.com/quiesced/quiesced/agent/api"
	"github.com/quiesced/quiesced/agent/wire"
)

func restoreVerb(g *globals) *cobra.Command {
	r := agent.RestoreRequest{ID: agent.NewID()} // asked again, it joins the restore
	var yes, dryRun bool
	cmd := &cobra.Command{
		Use:               "restore CID",
		Short:             "Put a disk made from a snapshot in the place of the persistent disk, which is kept",
		Args:              cobra.ExactArgs(1),
		ValidArgsFunction: g.completeCIDs,
		RunE: func(cmd *cobra.Command, args []string) error {
			r.CID = args[0]
			client, err := g.client()
			if err != nil {
				return err
			}
			plan, err := client.PlanRestore(cmd.Context(), r)
			if err != nil {
				return err
			}
			if dryRun && g.json {
				return g.document(plan)
			}
			if dryRun {
				g.printRestorePlan(plan)
				g.printf("\nnothing was done\n")
				return nil
			}
			return g.restore(cmd.Context(), client, r, plan, yes)
		},
	}
	cmd.Flags().BoolVarP(&yes, "yes", "y", false, "do not ask")
	cmd.Flags().BoolVar(&dryRun, "dry-run", false, "show the plan and do nothing")
	cmd.Flags().BoolVar(&r.Force, "force", false, "though the snapshot is known, or found, to be damaged")
	return cmd
}

// restore shows the plan, asks, and follows the restore to its report.
func (g *globals) restore(ctx context.Context, client api.Client, r agent.RestoreRequest, plan wire.RestorePlan, yes bool) error {
	g.aside().printRestorePlan(plan)
	if plan.CannotMake == "" && !yes && g.confirm("\n"+restoreQuestion(plan)) != nil {
		return usageError{errors.New("nothing was restored: not confirmed (--yes)")}
	}
	id, err := client.Restore(ctx, r)
	if ctx.Err() != nil { // the daemon may have begun all the same
		return g.report(g.cancel(client, r.ID))
	}
	if err != nil {
		return err
	}
	stop := g.follow(ctx, client, "restore "+r.CID)
	report, err := client.Report(ctx, id)
	if ctx.Err() != nil {
		report, err = g.cancel(client, id)
	}
	stop()
	return g.report(report, err)
}

func restoreQuestion(p wire.RestorePlan) string {
	if len(p.Steps) > 0 {
		return fmt.Sprintf("Make a disk from snapshot %s?", p.Snapshot)
	}
	return fmt.Sprintf("Stop the jobs and put snapshot %s in the place of disk %s?", p.Snapshot, p.Disk)
}

// printRestorePlan prints what a restore does.
func (g *globals) printRestorePlan(p wire.RestorePlan) {
	rows := [][]string{}
	for i, a := range p.Actions {
		rows = append(rows, []string{fmt.Sprint(i + 1), a.Kind, a.Target, a.Undo, span(a.Budget)})
	}
	g.table([]string{"#", "Action", "Target", "Undone by", "Budget"}, rows)
	for _, warning := range p.Warnings {
		g.printf("\nWARNING: %s\n", strings.ToUpper(warning))
	}
	for _, note := range p.Notes {
		g.printf("\nNote: %s\n", note)
	}
	if p.CannotMake != "" {
		g.printf("\n%s\n", p.CannotMake)
	}
	g.printSteps(p.Steps)
}

// printSteps prints what the operator of a director has to do.
func (g *globals) printSteps(steps []string) {
	if len(steps) == 0 {
		return
	}
	g.printf("\nThe director has the disk. It is told to take the other one by:\n\n")
	for _, step := range steps {
		g.printf("  %s\n", step)
	}
}

// printRestore prints the report of a restore.
func (g *globals) printRestore(r wire.Report) {
	g.printf("\nrestore %s of snapshot %s\n", r.ID, r.Restore.Snapshot)
	g.printCourse(r, agent.RestorePhases())
	if r.Error != "" {
		g.printf("\n%s\n", r.Error)
	}
	g.printf("\n%s\n", placeOf(*r.Restore))
	g.printSteps(r.Restore.Steps)
	g.printf("\n%s\n", lastWords(r))
}

// placeOf says which disk is in the place of the persistent one, and where the other is.
func placeOf(r wire.Restored) string {
	switch agent.DiskSide(r.Side) {
	case agent.SideRestored:
		kept := "is kept as " + r.Other
		if r.Other == "" {
			kept = "is not there any more"
		}
		return fmt.Sprintf("Disk %s has the data of snapshot %s. The disk before %s.", r.Disk, r.Snapshot, kept)
	case agent.SideApart:
		return fmt.Sprintf("Disk %s has the data of snapshot %s, and is not attached. Disk %s is as it was.", r.Other, r.Snapshot, r.Disk)
	case agent.SideBefore:
		return fmt.Sprintf("Disk %s is as it was.", r.Disk)
	}
	return fmt.Sprintf("DISK %s IS NOT IN ITS PLACE: the daemon tries again every minute. The other disk is %s.", r.Disk, cmp.Or(r.Other, "not known"))
}
