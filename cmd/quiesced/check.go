package main

import (
	"errors"
	"fmt"

	"github.com/spf13/cobra"

	"github.com/quiesced/quiesced/quiesce"
)

func checkConfigVerb(g *globals) *cobra.Command {
	var static bool
	cmd := &cobra.Command{
		Use:   "check-config",
		Short: "Check the configuration, and whether this machine is as it says",
		Args:  cobra.NoArgs,
		RunE: func(*cobra.Command, []string) error {
			c, err := loadConfig(g.config)
			if err != nil {
				return err
			}
			if !static {
				if err := errors.Join(checkMachine(c)...); err != nil {
					return usageError{err}
				}
			}
			return g.success(map[string]any{"config": g.config, "ok": true}, "%s is good\n", g.config)
		},
	}
	cmd.Flags().BoolVar(&static, "static", false, "do not look at mounts and the CPI of this machine")
	return cmd
}

// checkMachine compares the configuration with the machine: what it finds would
// have every request refused.
func checkMachine(c *Config) []error {
	var errs []error
	if client := c.cpiClient(); client != nil {
		if err := client.Check(); err != nil {
			errs = append(errs, fmt.Errorf("cpi.path: %w", err))
		}
	}
	survey, err := quiesce.System{}.Survey()
	if err != nil {
		return append(errs, err)
	}
	settings := c.settings()
	for i, disk := range settings.Disks {
		fs, err := survey.Filesystems([]quiesce.Disk{disk})
		for _, f := range fs {
			err = errors.Join(err, f.Freezable())
		}
		if err == nil {
			err = survey.Independent(fs, settings.Depends)
		}
		if err != nil {
			errs = append(errs, fmt.Errorf("disks[%d]: %w", i, err))
		}
	}
	return errs
}
