package agent_test

import (
	"strings"
	"testing"
	"time"

	"github.com/quiesced/quiesced/agent"
)

func TestSelections(t *testing.T) {
	day := func(n int) time.Time { return time.Date(2026, 1, n, 0, 0, 0, 0, time.UTC) }
	good, bad := &agent.Verification{Time: day(9), OK: true}, &agent.Verification{Time: day(8)}
	all := []agent.Snapshot{
		{CID: "a", DiskCID: "d2", Created: day(1), Clean: true, Level: agent.LevelStop, Trigger: agent.TriggerScheduled, Size: 5, DiskSize: 100, State: agent.SnapshotKnown, Verified: good},
		{CID: "b", DiskCID: "d1", Created: day(2), Level: agent.LevelNone, Trigger: agent.TriggerManual, DiskSize: 20, State: agent.SnapshotDeleting, Verified: bad},
		{CID: "", DiskCID: "d1", Created: day(3), Level: agent.LevelSync, Trigger: agent.TriggerManual, State: agent.SnapshotUnresolved},
		{CID: "c", DiskCID: "d1", Created: day(4), Clean: true, Level: agent.LevelFreeze, Trigger: agent.TriggerDirector, Size: 30, State: agent.SnapshotKnown},
	}
	yes, no := true, false
	for name, c := range map[string]struct {
		which agent.Selection
		want  string // CIDs, the one without as ?
	}{
		"all":                            {agent.Selection{}, "a b ? c"},
		"the other way round":            {agent.Selection{Reverse: true}, "c ? b a"},
		"the newest two":                 {agent.Selection{Reverse: true, Limit: 2}, "c ?"},
		"more than there are":            {agent.Selection{Limit: 9}, "a b ? c"},
		"of a disk":                      {agent.Selection{DiskCID: "d1"}, "b ? c"},
		"of a disk that is not known":    {agent.Selection{DiskCID: "d"}, ""},
		"of a trigger":                   {agent.Selection{Trigger: agent.TriggerManual}, "b ?"},
		"of a level":                     {agent.Selection{Level: agent.LevelFreeze}, "c"},
		"in a state":                     {agent.Selection{State: agent.SnapshotDeleting}, "b"},
		"clean":                          {agent.Selection{Clean: &yes}, "a c"},
		"dirty":                          {agent.Selection{Clean: &no}, "b ?"},
		"verified":                       {agent.Selection{Verified: &yes}, "a"},
		"not verified, or not good":      {agent.Selection{Verified: &no}, "b ? c"},
		"since a day":                    {agent.Selection{Since: day(2)}, "b ? c"},
		"until a day":                    {agent.Selection{Until: day(2)}, "a"},
		"between days":                   {agent.Selection{Since: day(2), Until: day(4)}, "b ?"},
		"older than two days on the 4th": {agent.Selection{Older: 48 * time.Hour}, "a b"},
		"by name":                        {agent.Selection{CIDs: []string{"c", "a", "x"}}, "a c"},
		"by no name":                     {agent.Selection{CIDs: []string{}}, ""},
		"by size":                        {agent.Selection{Sort: agent.SortSize}, "? a b c"},
		"by disk":                        {agent.Selection{Sort: agent.SortDisk}, "b ? c a"},
		"by level":                       {agent.Selection{Sort: agent.SortLevel}, "b ? c a"},
		"by trigger":                     {agent.Selection{Sort: agent.SortTrigger}, "c b ? a"},
		"by verification, newest first":  {agent.Selection{Sort: agent.SortVerified, Reverse: true}, "a b c ?"},
		"several things at once":         {agent.Selection{DiskCID: "d1", Clean: &no, Sort: agent.SortSize, Limit: 1}, "?"},
	} {
		t.Run(name, func(t *testing.T) {
			var got []string
			for _, s := range c.which.From(append([]agent.Snapshot{}, all...), day(4)) {
				if s.CID == "" {
					s.CID = "?"
				}
				got = append(got, s.CID)
			}
			if text := strings.Join(got, " "); text != c.want {
				t.Errorf("got %q, want %q", text, c.want)
			}
		})
	}
}
