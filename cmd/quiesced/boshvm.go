package main

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"log/slog"
	"strings"
	"time"

	"github.com/quiesced/quiesced/agent"
	"github.com/quiesced/quiesced/agent/boshvm"
	"github.com/quiesced/quiesced/agent/natsapi"
	"github.com/quiesced/quiesced/quiesce"
)

// stemcell is the VM that the daemon runs on, nil where it is none of BOSH's or is not
// to be looked at.
func (c *Config) stemcell() *boshvm.VM {
	vm := boshvm.VM{Root: c.BOSH.Root}
	if vm.Root == "" || !vm.Exists() {
		return nil
	}
	return &vm
}

const (
	// settingsPatience is how long the daemon waits for bosh-agent, which after a
	// reboot may have its settings later than the daemon is started.
	settingsPatience = 30 * time.Second
	settingsPause    = 500 * time.Millisecond
)

// identify completes who the VM is from the stemcell's files, and says what is missing.
func (c *Config) identify(ctx context.Context, patience time.Duration) error {
	if vm := c.stemcell(); vm != nil && (c.Instance.Job == "" || c.Instance.AgentID == "") {
		in, err := awaitInstance(ctx, vm, patience)
		if err != nil {
			return fmt.Errorf("bosh.root: %w", err)
		}
		c.Instance.complete(in)
	}
	if c.EnableSnapshots && c.Instance.Job == "" {
		return usageError{fmt.Errorf("instance.job: needed when enable_snapshots is true, and bosh.root (%q) does not tell it", c.BOSH.Root)}
	}
	if c.NATS.configured() && c.Instance.AgentID == "" {
		return usageError{fmt.Errorf("instance.agent_id: needed when nats.urls are given, and bosh.root (%q) does not tell it", c.BOSH.Root)}
	}
	if strings.ContainsAny(c.Instance.AgentID, notInToken) {
		return usageError{fmt.Errorf("instance.agent_id: %q is not one token of a subject", c.Instance.AgentID)}
	}
	return nil
}

// notInToken are the characters that no token of a subject has.
const notInToken = ".*> \t\r\n"

func awaitInstance(ctx context.Context, vm *boshvm.VM, patience time.Duration) (boshvm.Instance, error) {
	for end := time.Now().Add(patience); ; {
		in, err := vm.Instance()
		if !errors.Is(err, fs.ErrNotExist) || ctx.Err() != nil || time.Now().After(end) {
			return in, err
		}
		select {
		case <-ctx.Done():
		case <-time.After(settingsPause):
		}
	}
}

// complete takes what is not configured. The index goes with the job.
func (c *InstanceConfig) complete(in boshvm.Instance) {
	if c.Job == "" && c.Index == 0 {
		c.Index = in.Index
	}
	for _, one := range []struct {
		value *string
		found string
	}{{&c.Deployment, in.Deployment}, {&c.Job, in.Job}, {&c.ID, in.ID}, {&c.AgentID, in.AgentID}} {
		if *one.value == "" {
			*one.value = one.found
		}
	}
}

// attached says which disks there are now, in place of configured ones; nil where they
// are configured or the machine is none of BOSH's.
func (c *Config) attached() func() ([]quiesce.Disk, error) {
	vm := c.stemcell()
	if vm == nil || len(c.Disks) > 0 {
		return nil
	}
	return func() ([]quiesce.Disk, error) {
		all, err := vm.Disks()
		if err != nil {
			return nil, &agent.RefusedError{Err: err}
		}
		var disks []quiesce.Disk
		for _, d := range all {
			if d.Attached {
				disks = append(disks, quiesce.Disk{CID: d.CID, Device: d.Device, Mounts: d.Mounts})
			}
		}
		return disks, nil
	}
}

// busSource says anew where the bus is, in place of a configured one; nil where it is
// configured or the machine is none of BOSH's.
func (c *Config) busSource() func() (natsapi.Access, error) {
	vm := c.stemcell()
	if vm == nil || c.NATS.configured() {
		return nil
	}
	return func() (natsapi.Access, error) {
		b, err := vm.Bus()
		if err != nil {
			return natsapi.Access{}, err
		}
		return natsapi.Access{URLs: b.URLs, CA: []byte(b.CA), Cert: []byte(b.Cert), Key: []byte(b.Key), BOSH: true}, nil
	}
}

// configured says whether the configuration names a bus.
func (n *NATSConfig) configured() bool { return len(n.URLs) > 0 }

// joinsBus says whether the daemon is to be on a bus. What is wrong with the stemcell's
// files for now is looked at again with each attempt.
func (c *Config) joinsBus(log *slog.Logger) bool {
	if c.NATS.configured() {
		return true
	}
	source := c.busSource()
	if source == nil {
		return false
	}
	_, err := source()
	if errors.Is(err, boshvm.ErrNoBus) {
		log.Info("there is no bus", "reason", err)
		return false
	}
	return true
}
