package main

import (
	"context"
	"errors"
	"fmt"
	"time"

	"github.com/spf13/cobra"

	"github.com/quiesced/quiesced/agent"
	"github.com/quiesced/quiesced/agent/api"
	"github.com/quiesced/quiesced/agent/wire"
)

func takeSnapshotVerb(g *globals) *cobra.Command {
	var r agent.Request
	var dryRun bool
	cmd := &cobra.Command{
		Use:   "take-snapshot [JOB[/INDEX-OR-ID]]",
		Short: "Bring the persistent disks to rest and snapshot them",
		Args:  cobra.MaximumNArgs(1),
		RunE: func(cmd *cobra.Command, args []string) error {
			if len(args) > 0 {
				r.Job = args[0]
			}
			if dryRun {
				return g.dryRun(cmd.Context(), r)
			}
			return g.take(cmd.Context(), r)
		},
	}
	f := cmd.Flags()
	f.StringVar((*string)(&r.Level), "level", "", "none, sync, freeze, lock or stop (default: the configuration's for manual)")
	f.StringSliceVar(&r.Disks, "disk", nil, "`CID` of a disk, again for more (default: all)")
	f.StringVar(&r.ID, "id", "", "id of the run: asked again it joins the run or shows its report")
	f.BoolVar(&r.AllowDegrade, "allow-degrade", false, "report a lesser level than asked instead of failing")
	f.BoolVar(&r.Wait, "wait", false, "wait for other work to end instead of being told that it is busy")
	f.BoolVar(&dryRun, "dry-run", false, "show the plan and do nothing")
	_ = cmd.RegisterFlagCompletionFunc("level", cobra.FixedCompletions([]string{"none", "sync", "freeze", "lock", "stop"}, cobra.ShellCompDirectiveNoFileComp))
	return cmd
}

// dryRun prints what a run would do.
func (g *globals) dryRun(ctx context.Context, r agent.Request) error {
	client, err := g.client()
	if err != nil {
		return err
	}
	plan, err := client.Plan(ctx, r)
	if err != nil {
		return err
	}
	if g.json {
		return g.document(plan)
	}
	rows := [][]string{}
	for i, a := range plan.Actions {
		rows = append(rows, []string{fmt.Sprint(i + 1), a.Kind, a.Target, a.Undo, span(a.Budget)})
	}
	g.table([]string{"#", "Action", "Target", "Undone by", "Budget"}, rows)
	for _, note := range plan.Notes {
		g.printf("\n%s\n", note)
	}
	if plan.LevelNote != "" {
		g.printf("\nlevel %s instead of %s: %s\n", plan.Level, plan.Asked, plan.LevelNote)
	}
	if plan.Degraded != "" {
		g.printf("\nlevel %s instead of %s: %s\n", plan.Level, plan.Asked, plan.Degraded)
	}
	g.printf("\nlevel %s, nothing was done\n", plan.Level)
	return nil
}

// take begins a run, follows it, and prints its report. An interrupt cancels the
// run and waits for its report all the same.
func (g *globals) take(ctx context.Context, r agent.Request) error {
	client, err := g.client()
	if err != nil {
		return err
	}
	id, err := client.Take(ctx, r)
	if err != nil {
		return err
	}
	stop := g.follow(ctx, client, "run "+id)
	report, err := client.Report(ctx, id)
	if ctx.Err() != nil {
		report, err = g.cancel(client, id)
	}
	stop()
	return g.report(report, err)
}

// cancelWait bounds the wait for a cancelled run's report. The run itself needs
// no client.
const cancelWait = 30 * time.Minute

func (g *globals) cancel(client api.Client, id string) (wire.Report, error) {
	_, _ = fmt.Fprintf(g.err, "interrupted: cancelling run %s\n", id)
	ctx, cancel := context.WithTimeout(context.Background(), cancelWait)
	defer cancel()
	// Setting jobs going may take longer than the answer may: the report tells.
	if err := client.Cancel(ctx, id); api.KindOf(err) == api.KindUnreachable {
		return wire.Report{}, err
	}
	return client.Report(ctx, id)
}

// followEvery is how often a terminal is told of the run's phase.
const followEvery = 25 * time.Millisecond

// follow prints each phase of a piece of work as it begins, for a person. The function that it
// returns ends that.
func (g *globals) follow(ctx context.Context, client api.Client, work string) func() {
	if g.json || !g.interactive() {
		return func() {}
	}
	ctx, cancel := context.WithCancel(ctx)
	ended := make(chan struct{})
	go func() {
		defer close(ended)
		last := ""
		for ctx.Err() == nil {
			if s, err := client.Status(ctx); err == nil && s.Work == work && s.Phase != last {
				last = s.Phase
				_, _ = fmt.Fprintf(g.err, "%s  %s\n", time.Now().Format("15:04:05.000"), last)
			}
			select {
			case <-ctx.Done():
			case <-time.After(followEvery):
			}
		}
	}()
	return func() { cancel(); <-ended }
}

// report prints a run's report, which an exception may carry.
func (g *globals) report(r wire.Report, err error) error {
	var x *api.Error
	if errors.As(err, &x) && x.Report != nil {
		r = *x.Report
	} else if err != nil {
		return err
	}
	if g.json {
		if err := g.document(r); err != nil {
			return err
		}
	} else if r.Restore != nil {
		g.printRestore(r)
	} else {
		g.printReport(r)
	}
	if _, failed := outcomeCodes[agent.Outcome(r.Outcome)]; failed {
		return outcomeError{agent.Outcome(r.Outcome)}
	}
	return nil
}

func (g *globals) printReport(r wire.Report) {
	if r.Outcome == string(agent.OutcomeDisabled) {
		g.printf("Snapshots are disabled (enable_snapshots: false); nothing was touched\n")
		return
	}
	rows := [][]string{}
	for _, d := range r.Disks {
		cid := d.SnapshotCID
		if d.Unresolved {
			cid = "(unresolved)"
		}
		rows = append(rows, []string{d.CID, cid, yesNo(d.Clean), span(d.Seconds)})
	}
	g.table([]string{"Disk CID", "Snapshot CID", "Clean", "Took"}, rows)
	g.printf("\nrun %s: asked for level %s, reached %s\n", r.ID, r.Asked, r.Reached)
	g.printCourse(r, agent.ReportedPhases())
	if r.Reason != "" {
		g.printf("not clean: %s\n", r.Reason)
	}
	if r.Error != "" {
		g.printf("\n%s\n", r.Error)
	}
	g.printf("\n%s\n", lastWords(r))
}

// printCourse prints how long the phases of a run took, and what there is to know of it.
func (g *globals) printCourse(r wire.Report, phases []agent.Phase) {
	for _, phase := range phases {
		if took := span(r.Seconds[string(phase)]); took != "" {
			g.printf("  %-12s %s\n", phase, took)
		}
	}
	for _, note := range r.Notes {
		g.printf("Note: %s\n", note)
	}
}

// lastWords are those about a run that has ended.
func lastWords(r wire.Report) string {
	outcome := agent.Outcome(r.Outcome)
	if r.Yielded && outcome != agent.OutcomeSucceeded {
		return "Failed; jobs are left to the director as they are"
	}
	return verdicts[outcome]
}

// verdicts are what the outcomes mean.
var verdicts = map[agent.Outcome]string{
	agent.OutcomeSucceeded:  "Succeeded",
	agent.OutcomeFailed:     "Failed; everything was set going again",
	agent.OutcomeCancelled:  "Cancelled; everything was set going again",
	agent.OutcomeRefused:    "Refused; nothing was touched",
	agent.OutcomeNotResumed: "Failed AND NOT RESUMED: something may still be frozen or down; see \"quiesced status\" and \"quiesced thaw\"",
}
