package agent

import "github.com/quiesced/quiesced/quiesce"

// For the tests of the package: its pure parts.

var (
	NewPlan       = newPlan
	CheckMetadata = checkMetadata
)

func (s *Settings) Completed(r Request) (Request, error) { return s.completed(r) }

func (s *Settings) CheckJob(asked string) error { return s.checkJob(asked) }

func (s *Settings) Selected(cids []string) ([]quiesce.Disk, error) { return s.selected(cids) }

func (r Request) Same(o Request) bool { return r.same(o) }
