package main

import (
	"path/filepath"
	"time"

	"github.com/quiesced/quiesced/agent/boshvm"
)

// BOSHConfig says what of BOSH is on this VM.
type BOSHConfig struct {
	// Root is where a stemcell has its files, from which comes what is not configured
	// of instance, disks and nats; "" for never.
	Root string `yaml:"root"`

	JobDir       string        `yaml:"job_dir"`       // the job that the daemon is deployed by, "" for none
	RemovedAfter time.Duration `yaml:"removed_after"` // for how long that is gone before the job counts as removed
}

func boshDefaults() BOSHConfig {
	return BOSHConfig{Root: boshvm.DefaultRoot, RemovedAfter: 2 * time.Minute}
}

func (b *BOSHConfig) check(d *document) {
	if b.Root != "" {
		d.absolute("bosh.root", b.Root)
	}
	if b.JobDir != "" {
		d.absolute("bosh.job_dir", b.JobDir)
		if filepath.Clean(b.JobDir) == "/" {
			d.fail("bosh.job_dir", "needs a job's directory")
		}
	}
	if b.RemovedAfter <= 0 {
		d.fail("bosh.removed_after", "%s is not a positive time", b.RemovedAfter)
	}
}
