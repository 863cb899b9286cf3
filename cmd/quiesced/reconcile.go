package main

import (
	"fmt"

	"github.com/spf13/cobra"

	"github.com/quiesced/quiesced/agent/api"
	"github.com/quiesced/quiesced/agent/wire"
)

func reconcileVerb(g *globals) *cobra.Command {
	var options api.ReconcileOptions
	var yes bool
	cmd := &cobra.Command{
		Use:   "reconcile",
		Short: "Compare the list of snapshots with what the CPI has",
		Args:  cobra.NoArgs,
		RunE: func(cmd *cobra.Command, _ []string) error {
			client, err := g.client()
			if err != nil {
				return err
			}
			if options.Drop && !yes {
				if err := g.confirmDrop(cmd, client); err != nil {
					return err
				}
			}
			found, err := client.Reconcile(cmd.Context(), options)
			if err != nil {
				return err
			}
			if g.json {
				return g.document(found)
			}
			g.printReconciled(found)
			return nil
		},
	}
	cmd.Flags().BoolVar(&options.Adopt, "adopt", false, "take into the list what only the CPI has of this instance's disks")
	cmd.Flags().BoolVar(&options.Drop, "drop", false, "forget what the CPI does not have")
	cmd.Flags().BoolVarP(&yes, "yes", "y", false, "do not ask")
	return cmd
}

// confirmDrop shows what would be forgotten, and asks.
func (g *globals) confirmDrop(cmd *cobra.Command, client api.Client) error {
	found, err := client.Reconcile(cmd.Context(), api.ReconcileOptions{})
	if err != nil || len(found.Missing) == 0 {
		return err
	}
	g.aside().snapshotTable(found.Missing)
	return g.confirm(fmt.Sprintf("Forget these %d snapshots, which the CPI does not have?", len(found.Missing)))
}

func (g *globals) printReconciled(r api.Reconciled) {
	g.printf("Known        %d to both; the sizes of %d were not known before\n", r.Known, r.Sized)
	g.printList("Resolved", r.Resolved)
	g.printList("Not there", r.Missing)
	g.printList("Dropped", r.Dropped)
	g.printList("Adopted", r.Adopted)
	for _, u := range r.Unknown {
		created := ""
		if u.Created != nil {
			created = ", " + timestamp(*u.Created)
		}
		g.printf("Not in list  %s of disk %s%s\n", u.CID, u.DiskCID, created)
	}
	if len(r.Missing)+len(r.Unknown) > 0 {
		g.printf("\n--drop forgets what is not there, --adopt takes in what is not in the list\n")
	}
	g.printf("\nSucceeded\n")
}

func (g *globals) printList(what string, all []wire.Snapshot) {
	for _, s := range all {
		name := s.CID
		if name == "" {
			name = fmt.Sprintf("an unresolved one of run %s", s.RunID)
		}
		g.printf("%-12s %s of disk %s, %s\n", what, name, s.DiskCID, timestamp(s.Created))
	}
}
