package main

import (
	"cmp"
	"context"
	"fmt"
	"strings"
	"time"

	"github.com/spf13/cobra"

	"github.com/quiesced/quiesced/agent"
	"github.com/quiesced/quiesced/agent/retention"
	"github.com/quiesced/quiesced/agent/schedule"
	"github.com/quiesced/quiesced/agent/wire"
)

// KeepConfig says which snapshots stay, and when that is looked after beside after each
// run.
type KeepConfig struct {
	Last     int                   `yaml:"last"`
	Hourly   int                   `yaml:"hourly"`
	Daily    int                   `yaml:"daily"`
	Weekly   int                   `yaml:"weekly"`
	Monthly  int                   `yaml:"monthly"`
	Yearly   int                   `yaml:"yearly"`
	MaxAge   time.Duration         `yaml:"max_age"`
	Schedule string                `yaml:"schedule"` // "" for never
	Triggers map[string]KeepPolicy `yaml:"triggers"` // in place of the others
}

// KeepPolicy is how many snapshots of one trigger stay.
type KeepPolicy struct {
	Last    int           `yaml:"last"`
	Hourly  int           `yaml:"hourly"`
	Daily   int           `yaml:"daily"`
	Weekly  int           `yaml:"weekly"`
	Monthly int           `yaml:"monthly"`
	Yearly  int           `yaml:"yearly"`
	MaxAge  time.Duration `yaml:"max_age"`
}

func (k KeepConfig) general() KeepPolicy {
	return KeepPolicy{k.Last, k.Hourly, k.Daily, k.Weekly, k.Monthly, k.Yearly, k.MaxAge}
}

func (k KeepConfig) policies() retention.Policies {
	p := retention.Policies{General: retention.Policy(k.general())}
	if len(k.Triggers) > 0 {
		p.Own = map[string]retention.Policy{}
	}
	for trigger, own := range k.Triggers {
		p.Own[trigger] = retention.Policy(own)
	}
	return p
}

func (k KeepConfig) check(d *document) {
	k.general().check(d, "keep")
	for trigger, own := range k.Triggers {
		key := "keep.triggers." + trigger
		own.check(d, key)
		switch _, err := agent.ParseTrigger(trigger); {
		case err != nil:
			d.fail(key, "%v", err)
		case trigger == string(agent.TriggerDirector):
			d.fail(key, "what is taken in holds is never deleted: the director's database has it")
		}
	}
	if k.Schedule == "" {
		return
	}
	if _, err := schedule.Parse(k.Schedule); err != nil {
		d.fail("keep.schedule", "%v", err)
	}
	if k.policies().Empty() {
		d.fail("keep.schedule", "needs a count or an age beside it: without any all snapshots stay")
	}
}

func (p KeepPolicy) check(d *document, key string) {
	for _, count := range []struct {
		name  string
		value int
	}{
		{"last", p.Last}, {"hourly", p.Hourly}, {"daily", p.Daily}, {"weekly", p.Weekly}, {"monthly", p.Monthly}, {"yearly", p.Yearly},
	} {
		if count.value < 0 {
			d.fail(key+"."+count.name, "%d is negative", count.value)
		}
	}
	if p.MaxAge < 0 {
		d.fail(key+".max_age", "%s is negative", p.MaxAge)
	}
}

// retentionNote says why what is configured deletes nothing, "" if it does.
func (c *Config) retentionNote() string {
	switch {
	case c.Keep.policies().Empty():
		return ""
	case c.CPI.Path == "":
		return "keep deletes nothing without a CPI (cpi.path): snapshots of holds are the director's to delete"
	case !c.EnableSnapshots:
		return "keep deletes nothing while enable_snapshots is false"
	}
	return ""
}

// keepRetaining has retention applied by its schedule until ctx ends. A time that is
// missed is not made up for: the next does what it would have done.
func (c *Config) keepRetaining(ctx context.Context, a *agent.Agent) error {
	return c.atTimes(ctx, c.Keep.Schedule, a.RetainSoon)
}

func applyRetentionVerb(g *globals) *cobra.Command {
	var dryRun bool
	cmd := &cobra.Command{
		Use:   "apply-retention",
		Short: "Delete the snapshots that the configuration's keep does not keep",
		Args:  cobra.NoArgs,
		RunE: func(cmd *cobra.Command, _ []string) error {
			client, err := g.client()
			if err != nil {
				return err
			}
			apply := client.ApplyRetention
			if dryRun {
				apply = client.PlanRetention
			}
			r, err := apply(cmd.Context())
			if err != nil {
				return err
			}
			return g.showRetention(r)
		},
	}
	cmd.Flags().BoolVar(&dryRun, "dry-run", false, "show what would go, and why the others stay; delete nothing")
	return cmd
}

// showRetention prints what was decided and done. Deletions that failed are tried again,
// and a failure.
func (g *globals) showRetention(r wire.Retention) error {
	number := map[string]int{}
	for _, s := range r.Snapshots {
		number[s.Verdict]++
	}
	if g.json {
		if err := g.document(r); err != nil {
			return err
		}
	} else {
		g.printRetention(r, number)
	}
	if number[string(agent.VerdictFailed)] > 0 {
		return outcomeError{agent.OutcomeFailed}
	}
	return nil
}

func (g *globals) printRetention(r wire.Retention, number map[string]int) {
	rows := [][]string{}
	for _, s := range r.Snapshots {
		why := s.Why
		if s.Error != "" {
			why = oneLine(s.Error)
		}
		rows = append(rows, []string{s.CID, timestamp(s.Created), yesNo(s.Clean), s.DiskCID, s.Trigger, s.Verdict, why})
	}
	g.table([]string{"Snapshot CID", "Created At", "Clean", "Disk CID", "Trigger", "Verdict", "Why"}, rows)
	var counts []string
	for _, verdict := range agent.Verdicts() {
		if n := number[string(verdict)]; n > 0 {
			counts = append(counts, fmt.Sprintf("%d %s", n, verdict))
		}
	}
	g.printf("\n%s\n", cmp.Or(strings.Join(counts, ", "), "nothing goes"))
	if r.Note != "" {
		g.printf("%s\n", r.Note)
	}
	if number[string(agent.VerdictFailed)] == 0 {
		g.printf("\nSucceeded\n")
	}
}
