package main

import (
	"fmt"
	"strings"

	"github.com/spf13/cobra"

	"github.com/quiesced/quiesced/agent/api"
	"github.com/quiesced/quiesced/agent/wire"
)

func snapshotsVerb(g *globals) *cobra.Command {
	var which selectionFlags
	cmd := &cobra.Command{
		Use:   "snapshots",
		Short: "List the snapshots that this VM's daemon took",
		Args:  cobra.NoArgs,
		RunE: func(cmd *cobra.Command, _ []string) error {
			list, _, err := g.selected(cmd, &which)
			if err != nil {
				return err
			}
			if g.json {
				return g.document(list)
			}
			g.snapshotTable(list)
			g.count(len(list), "snapshot")
			return nil
		},
	}
	which.add(cmd)
	return cmd
}

// snapshotTable prints snapshots, and of their sizes and verifications what is known.
func (g *globals) snapshotTable(list []wire.Snapshot) {
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
		rows = append(rows, []string{
			instance, cid, timestamp(s.Created), yesNo(s.Clean), s.DiskCID, s.Level, s.Trigger, s.By, verdict(s.Verified), size(s.Size), size(s.DiskSize),
		})
	}
	g.table([]string{
		"Instance", "Snapshot CID", "Created At", "Clean", "Disk CID", "Level", "Trigger", "By", "Verified", "Size", "Disk Size",
	}, rows)
}

// verdict is what the newest verification found.
func verdict(v *wire.Verification) string {
	switch {
	case v == nil:
		return ""
	case v.OK:
		return timestamp(v.Time)
	}
	return "NOT GOOD " + timestamp(v.Time)
}

// size prints bytes in the unit that suits them, "" for none known.
func size(bytes int64) string {
	const step = 1024
	n, unit := float64(bytes), 0
	units := []string{"B", "KiB", "MiB", "GiB", "TiB", "PiB"}
	for n >= step && unit+1 < len(units) {
		n, unit = n/step, unit+1
	}
	switch {
	case bytes == 0:
		return ""
	case unit == 0 || n == float64(int64(n)):
		return fmt.Sprintf("%.0f %s", n, units[unit])
	}
	return fmt.Sprintf("%.1f %s", n, units[unit])
}

func deleteSnapshotVerb(g *globals) *cobra.Command {
	var yes bool
	cmd := &cobra.Command{
		Use:               "delete-snapshot CID",
		Short:             "Delete a snapshot",
		Args:              cobra.ExactArgs(1),
		ValidArgsFunction: g.completeCIDs,
		RunE: func(cmd *cobra.Command, args []string) error {
			client, err := g.client()
			if err != nil {
				return err
			}
			if err := g.confirmHeld(cmd, client, args[0], yes); err != nil {
				return err
			}
			deleted, err := client.Delete(cmd.Context(), args[0])
			if err != nil {
				return err
			}
			if g.json {
				return g.document(deleted)
			}
			g.printDeleted(deleted)
			g.printf("\nSucceeded\n")
			return nil
		},
	}
	cmd.Flags().BoolVarP(&yes, "yes", "y", false, "do not ask, though the director's database owns it")
	return cmd
}

// confirmHeld asks before a snapshot is deleted that was taken for the director: its
// database goes on listing it, and its own attempts to delete it may fail then.
func (g *globals) confirmHeld(cmd *cobra.Command, client api.Client, cid string, yes bool) error {
	if yes {
		return nil
	}
	list, err := client.Select(cmd.Context(), onlyCIDs(cid))
	if err != nil || len(list) == 0 || !list[0].Held {
		return err
	}
	question := fmt.Sprintf("The director's database owns snapshot %s and will go on listing it (bosh delete-snapshot deletes it there, too). Delete it all the same?", cid)
	return g.confirm(question)
}

func deleteSnapshotsVerb(g *globals) *cobra.Command {
	var which selectionFlags
	var yes bool
	cmd := &cobra.Command{
		Use:   "delete-snapshots",
		Short: "Delete snapshots that this VM's daemon took, but those that the director's database owns",
		Args:  cobra.NoArgs,
		RunE: func(cmd *cobra.Command, _ []string) error {
			if yes {
				return g.deleteSelected(cmd, &which)
			}
			return g.deleteShown(cmd, &which)
		},
	}
	which.add(cmd)
	cmd.Flags().BoolVarP(&yes, "yes", "y", false, "do not show what would be deleted, and do not ask")
	return cmd
}

// deleteSelected deletes what the flags say, without a question.
func (g *globals) deleteSelected(cmd *cobra.Command, which *selectionFlags) error {
	selection, err := which.selection(cmd)
	if err != nil {
		return err
	}
	client, err := g.client()
	if err != nil {
		return err
	}
	deleted, err := client.DeleteAll(cmd.Context(), selection)
	return g.tellDeleted(deleted, err)
}

// batch is how many CIDs go into one request.
const batch = 100

// deleteShown shows what the flags say, asks, and deletes that and nothing else.
func (g *globals) deleteShown(cmd *cobra.Command, which *selectionFlags) error {
	list, client, err := g.selected(cmd, which)
	if err != nil {
		return err
	}
	going, held := deletable(list)
	if len(going) > 0 {
		g.aside().snapshotTable(going)
		if err := g.confirm(fmt.Sprintf("Delete these %d snapshots?", len(going))); err != nil {
			return err
		}
	}
	all := api.Deleted{CIDs: []string{}, Held: held}
	for len(going) > 0 && err == nil {
		n := min(batch, len(going))
		var some api.Deleted
		some, err = client.DeleteAll(cmd.Context(), onlyCIDs(cidsOf(going[:n])...))
		all.CIDs, all.Gone = append(all.CIDs, some.CIDs...), append(all.Gone, some.Gone...)
		going = going[n:]
	}
	return g.tellDeleted(all, err)
}

// deletable parts what delete-snapshots deletes from what it leaves to the director. What
// has no CID cannot be deleted.
func deletable(list []wire.Snapshot) (going []wire.Snapshot, held []string) {
	for _, s := range list {
		switch {
		case s.CID == "":
		case s.Held:
			held = append(held, s.CID)
		default:
			going = append(going, s)
		}
	}
	return going, held
}

func cidsOf(list []wire.Snapshot) []string {
	var cids []string
	for _, s := range list {
		cids = append(cids, s.CID)
	}
	return cids
}

// tellDeleted prints what was deleted, even where not all could be.
func (g *globals) tellDeleted(d api.Deleted, err error) error {
	if g.json {
		if err != nil {
			return err
		}
		return g.document(d)
	}
	g.printDeleted(d)
	if err != nil {
		return err
	}
	g.count(len(d.CIDs), "snapshot")
	return nil
}

func (g *globals) printDeleted(d api.Deleted) {
	gone := map[string]bool{}
	for _, cid := range d.Gone {
		gone[cid] = true
	}
	for _, cid := range d.CIDs {
		if gone[cid] {
			g.printf("Dropped snapshot %s: it was not there any more\n", cid)
			continue
		}
		g.printf("Deleted snapshot %s\n", cid)
	}
	if len(d.Held) > 0 {
		g.printf("Left %d that the director's database owns (bosh delete-snapshots deletes them)\n", len(d.Held))
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
