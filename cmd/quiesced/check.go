package main

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"strings"
	"time"

	"github.com/spf13/cobra"

	"github.com/quiesced/quiesced/agent"
	"github.com/quiesced/quiesced/agent/wire"
	"github.com/quiesced/quiesced/quiesce"
)

func checkConfigVerb(g *globals) *cobra.Command {
	var static bool
	cmd := &cobra.Command{
		Use:   "check-config",
		Short: "Check the configuration, and whether this machine is as it says",
		Args:  cobra.NoArgs,
		RunE: func(cmd *cobra.Command, _ []string) error {
			c, err := loadConfig(g.config)
			if err != nil {
				return err
			}
			if static {
				return g.success(map[string]any{"config": g.config, "ok": true}, "%s is good\n", g.config)
			}
			if err := c.identify(cmd.Context(), 0); err != nil {
				return usageError{err}
			}
			vm, err := c.found()
			if err := errors.Join(append(checkMachine(c), err, c.checkSelf(), c.Listen.TCP.checkFiles())...); err != nil {
				return usageError{err}
			}
			return g.checked(c, vm)
		},
	}
	cmd.Flags().BoolVar(&static, "static", false, "do not look at mounts and the CPI of this machine")
	return cmd
}

// machine is what a freeze of every disk would be about.
type machine struct {
	Config      string            `json:"config"`
	OK          bool              `json:"ok"`
	BOSH        *foundVM          `json:"bosh,omitempty"`
	Filesystems []wire.Filesystem `json:"filesystems"`
	Notes       []string          `json:"notes"`
}

// checked prints that a configuration is good, what was found of the VM, and what a
// freeze of its disks would be about.
func (g *globals) checked(c *Config, vm *foundVM) error {
	m, err := c.machine()
	if err != nil {
		return err
	}
	m.Config, m.BOSH = g.config, vm
	if g.json {
		return g.document(m)
	}
	if vm != nil {
		vm.show(g.terminal)
	}
	rows := [][]string{}
	for _, f := range m.Filesystems {
		rows = append(rows, []string{f.Mount, f.Type, strings.Join(f.Devices, ", "), strings.Join(f.Disks, ", ")})
	}
	g.table([]string{"Frozen", "Type", "Devices", "Disks"}, rows)
	for _, note := range m.Notes {
		g.printf("\n%s\n", note)
	}
	g.printf("\n%s is good\n", g.config)
	return nil
}

// machine looks at what a freeze of every disk would be about.
func (c *Config) machine() (machine, error) {
	m := machine{OK: true, Filesystems: []wire.Filesystem{}, Notes: []string{}}
	disks, err := c.disks()
	if err != nil {
		return m, err
	}
	survey, err := quiesce.System{}.Survey()
	if err != nil {
		return m, err
	}
	on, err := survey.Filesystems(disks)
	if err != nil {
		return m, err
	}
	for _, f := range on.Filesystems {
		if why := f.PassedOver(); why != "" {
			m.Notes = append(m.Notes, why)
			continue
		}
		m.Filesystems = append(m.Filesystems, wire.FromFilesystem(f))
	}
	m.Notes = append(m.Notes, on.Notes...)
	if note := c.retentionNote(); note != "" {
		m.Notes = append(m.Notes, note)
	}
	return m, nil
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
	if err := checkSupervisor(c); err != nil {
		errs = append(errs, fmt.Errorf("processes: %w", err))
	}
	survey, err := quiesce.System{}.Survey()
	if err != nil {
		return append(errs, err)
	}
	settings := c.settings()
	disks, err := c.disks()
	if err != nil {
		return append(errs, fmt.Errorf("bosh.root: %w", err))
	}
	for i, disk := range disks {
		if err := checkDisk(survey, &settings, disk); err != nil {
			errs = append(errs, fmt.Errorf("disks[%d]: %w", i, err))
		}
	}
	return errs
}

// disks are those that there are now, configured or found.
func (c *Config) disks() ([]quiesce.Disk, error) {
	if attached := c.attached(); attached != nil {
		return attached()
	}
	return c.settings().Disks, nil
}

// checkSupervisor says why the supervisor, if one is configured, does not answer.
func checkSupervisor(c *Config) error {
	s := c.supervised(slog.New(slog.DiscardHandler)).Supervisor
	if s == nil {
		return nil
	}
	ctx, cancel := context.WithTimeout(context.Background(), supervisorPatience)
	defer cancel()
	_, err := s.Services(ctx)
	return err
}

// supervisorPatience is how long a supervisor may take to answer.
const supervisorPatience = 5 * time.Second

// checkDisk says what is in the way of freezing a disk.
func checkDisk(survey *quiesce.Survey, settings *agent.Settings, disk quiesce.Disk) error {
	found, err := survey.Filesystems([]quiesce.Disk{disk})
	if err != nil {
		return err
	}
	var frozen []quiesce.Filesystem
	for _, f := range found.Filesystems {
		if f.PassedOver() == "" {
			frozen = append(frozen, f)
			err = errors.Join(err, f.Freezable())
		}
	}
	if err != nil {
		return err
	}
	return survey.Independent(frozen, settings.Depends)
}
