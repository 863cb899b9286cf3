package jobs

import (
	"context"
	"fmt"
	"time"

	"go.yaml.in/yaml/v3"
)

const (
	// metadataBudget is what a metadata script has: it prints a constant.
	metadataBudget = 10 * time.Second

	// maxMetadata is what one may print, in bytes.
	maxMetadata = 64 << 10
)

// metadata is what a job says to BBR of its locks.
type metadata struct {
	Before []struct {
		Job string `yaml:"job_name"`
	} `yaml:"backup_should_be_locked_before"`
	Skip bool `yaml:"skip_bbr_scripts"`
}

// metadata runs a metadata script. The error is a *ScriptError.
func (r *Runner) metadata(ctx context.Context, s Script) (metadata, error) {
	ctx, cancel := within(ctx, metadataBudget)
	defer cancel()
	c := call{script: s, stdout: &output{limit: maxMetadata}, stderr: &output{limit: tailSize}}
	var m metadata
	err := r.run(ctx, c)
	if err == nil {
		m, err = parseMetadata(c.stdout.text())
	}
	return m, failed(s, err, c.stderr)
}

// parseMetadata reads what a metadata script printed, cut if it was more.
func parseMetadata(text string, cut bool) (metadata, error) {
	var m metadata
	if cut {
		return m, fmt.Errorf("prints more than %d KiB", maxMetadata>>10)
	}
	if err := yaml.Unmarshal([]byte(text), &m); err != nil {
		return m, fmt.Errorf("prints what cannot be read: %w", err)
	}
	for i, before := range m.Before {
		if before.Job == "" {
			return m, fmt.Errorf("prints what cannot be read: backup_should_be_locked_before[%d] has no job_name", i)
		}
	}
	return m, nil
}
