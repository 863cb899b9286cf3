package main

import (
	"fmt"
	"time"

	"github.com/spf13/cobra"

	"github.com/quiesced/quiesced/agent/schedule"
)

// nextRuns is when a schedule runs, in UTC.
type nextRuns struct {
	Cron string      `json:"cron"`
	Next []time.Time `json:"next"`
}

func nextRunsVerb(g *globals) *cobra.Command {
	var from string
	var count int
	cmd := &cobra.Command{
		Use:   "next-runs CRON",
		Short: "Show when a schedule runs next",
		Example: `  quiesced next-runs '0 0 7 * * * UTC'
  quiesced next-runs --from 2026-10-31T00:00:00Z --count 3 '30 1 * * * America/New_York'`,
		Args: cobra.ExactArgs(1),
		RunE: func(_ *cobra.Command, args []string) error {
			after, err := parseFrom(from)
			if err != nil {
				return err
			}
			if count < 1 {
				return usageError{fmt.Errorf("--count wants a number of runs, has %d", count)}
			}
			s, err := schedule.Parse(args[0])
			if err != nil {
				return quietError{usageError{err}}
			}
			return g.printNextRuns(s, following(s, after, count))
		},
	}
	cmd.Flags().StringVar(&from, "from", "", "`time` after which they are, such as 2026-10-31T00:00:00Z (default: now)")
	cmd.Flags().IntVar(&count, "count", 5, "`number` of them")
	return cmd
}

func parseFrom(from string) (time.Time, error) {
	if from == "" {
		return time.Now(), nil
	}
	after, err := time.Parse(time.RFC3339, from)
	if err != nil {
		return after, usageError{fmt.Errorf("--from wants a time such as 2026-10-31T00:00:00Z, has %q", from)}
	}
	return after, nil
}

// following is the runs after a time: as many as are wanted, if there are.
func following(s *schedule.Schedule, after time.Time, count int) []time.Time {
	next := []time.Time{}
	for at := s.Next(after.UTC()); !at.IsZero() && len(next) < count; at = s.Next(at) {
		next = append(next, at)
	}
	return next
}

func (g *globals) printNextRuns(s *schedule.Schedule, next []time.Time) error {
	if g.json {
		return g.document(nextRuns{Cron: s.String(), Next: next})
	}
	rows := [][]string{}
	for _, at := range next {
		rows = append(rows, []string{timestamp(at), at.In(s.Zone()).Format("Mon 2006-01-02 15:04:05 -07:00")})
	}
	g.table([]string{"Next Run", "In " + s.Zone().String()}, rows)
	g.count(len(next), "run")
	return nil
}
