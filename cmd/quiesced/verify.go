package main

import (
	"context"
	"errors"
	"log/slog"

	"github.com/spf13/cobra"

	"github.com/quiesced/quiesced/agent"
	"github.com/quiesced/quiesced/agent/api"
	"github.com/quiesced/quiesced/agent/schedule"
)

// VerifyConfig is when the daemon verifies snapshots by itself.
type VerifyConfig struct {
	Schedule string `yaml:"schedule"` // of the newest clean one, "" for never
}

func (c *Config) checkVerify(d *document) {
	if c.Verify.Schedule == "" {
		return
	}
	if _, err := schedule.Parse(c.Verify.Schedule); err != nil {
		d.fail("verify.schedule", "%v", err)
	}
	if c.CPI.Path == "" {
		d.fail("verify.schedule", "needs cpi.path")
	}
}

// keepVerifying verifies the newest clean snapshot by the schedule until ctx ends. Times that
// are missed need no making up for: the next finds the same snapshot, or a newer one.
func (c *Config) keepVerifying(ctx context.Context, a *agent.Agent, log *slog.Logger) error {
	return c.atTimes(ctx, c.Verify.Schedule, func() {
		_, err := a.Verify(ctx, "")
		if errors.As(err, new(*agent.BusyError)) || errors.As(err, new(*agent.RefusedError)) {
			log.Warn("a scheduled verification did not begin", "error", err)
		}
	})
}

func verifyVerb(g *globals) *cobra.Command {
	var latest bool
	cmd := &cobra.Command{
		Use:               "verify CID|--latest",
		Short:             "Check a snapshot on a disk that is made from it and removed again",
		Args:              cobra.MaximumNArgs(1),
		ValidArgsFunction: g.completeCIDs,
		RunE: func(cmd *cobra.Command, args []string) error {
			if latest == (len(args) == 1) {
				return usageError{errors.New("which snapshot? either its CID or --latest")}
			}
			client, err := g.client()
			if err != nil {
				return err
			}
			v, err := client.Verify(cmd.Context(), append(args, "")[0])
			if err != nil {
				return err
			}
			return g.verified(v)
		},
	}
	cmd.Flags().BoolVar(&latest, "latest", false, "the newest clean snapshot, or where none is clean the newest")
	return cmd
}

// verified prints what was found. A snapshot that is not good ends the verb as a failure.
func (g *globals) verified(v api.Verified) error {
	if g.json {
		if err := g.document(v); err != nil {
			return err
		}
	} else {
		g.table([]string{"Snapshot CID", "Verified At", "Good", "How"}, [][]string{{v.CID, timestamp(v.Time), yesNo(v.OK), v.How}})
		g.printf("\n%s\n", v.Result)
		if v.Left != "" {
			g.printf("\nNOT REMOVED: the disk that was made for it: %s\n", v.Left)
		}
	}
	if !v.OK {
		return outcomeError{agent.OutcomeFailed}
	}
	return nil
}
