package main

import (
	"bytes"
	"errors"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"time"

	"go.yaml.in/yaml/v3"

	"github.com/quiesced/quiesced/agent"
	"github.com/quiesced/quiesced/agent/httpapi"
	"github.com/quiesced/quiesced/cpi/front"
)

// Config is the configuration file.
type Config struct {
	DirectorConfig  string        `yaml:"director_config"`
	Socket          string        `yaml:"socket"`
	Level           string        `yaml:"level"`
	Levels          []LevelConfig `yaml:"levels"`
	Policy          string        `yaml:"policy"`
	Lease           time.Duration `yaml:"lease"`
	QuiesceTimeout  time.Duration `yaml:"quiesce_timeout"`
	NoDaemonTimeout time.Duration `yaml:"no_daemon_timeout"`
	ReleaseOnStderr string        `yaml:"release_on_stderr"`
	AddMetadata     bool          `yaml:"add_metadata"`
}

// LevelConfig gives some snapshots their level.
type LevelConfig struct {
	Deployment string            `yaml:"deployment"`
	Job        string            `yaml:"job"`
	Tags       map[string]string `yaml:"tags"`
	Level      string            `yaml:"level"`
}

// leastLease leaves time for three renewals over a bus that is slow.
const leastLease = time.Second

func defaults() Config {
	return Config{
		DirectorConfig:  "/var/vcap/jobs/director/config/director.yml",
		Socket:          "/run/quiesced/quiesced.sock",
		Level:           string(agent.LevelFreeze),
		Policy:          string(front.Degrade),
		Lease:           30 * time.Second,
		QuiesceTimeout:  5 * time.Minute,
		NoDaemonTimeout: 3 * time.Second,
	}
}

// load reads a configuration file strictly. With an error it returns what holds of
// an empty file, and the policy where that alone can be told.
func load(path string) (Config, error) {
	text, err := os.ReadFile(path)
	if err != nil {
		return defaults(), fmt.Errorf("cannot read the configuration: %w", err)
	}
	c := defaults()
	d := yaml.NewDecoder(bytes.NewReader(text))
	d.KnownFields(true)
	if err = d.Decode(&c); errors.Is(err, io.EOF) {
		err = nil // an empty file is all defaults
	}
	if err == nil && d.Decode(new(yaml.Node)) == nil {
		err = errors.New("more than one document")
	}
	if err == nil {
		err = c.check()
	}
	if err == nil {
		return c, nil
	}
	safe := defaults()
	if _, wrong := front.ParsePolicy(c.Policy); wrong == nil {
		safe.Policy = c.Policy
	}
	return safe, fmt.Errorf("cannot use the configuration %s: %w", path, err)
}

// check finds everything that is wrong, each by its key.
func (c *Config) check() error {
	var errs []error
	fail := func(key string, err error) {
		if err != nil {
			errs = append(errs, fmt.Errorf("%s: %w", key, err))
		}
	}
	if !filepath.IsAbs(c.DirectorConfig) {
		fail("director_config", fmt.Errorf("%q is not an absolute path", c.DirectorConfig))
	}
	fail("socket", httpapi.CheckSocketPath(c.Socket))
	_, err := agent.ParseLevel(c.Level)
	fail("level", err)
	for i, rule := range c.Levels {
		_, err = agent.ParseLevel(rule.Level)
		fail(fmt.Sprintf("levels[%d].level", i), err)
	}
	_, err = front.ParsePolicy(c.Policy)
	fail("policy", err)
	if c.Lease < leastLease || c.Lease > time.Hour {
		fail("lease", fmt.Errorf("%s is not between %s and 1h", c.Lease, leastLease))
	}
	for key, value := range map[string]time.Duration{"quiesce_timeout": c.QuiesceTimeout, "no_daemon_timeout": c.NoDaemonTimeout} {
		if value <= 0 {
			fail(key, fmt.Errorf("%s is not a positive time", value))
		}
	}
	_, err = front.ParseRelease(c.ReleaseOnStderr)
	fail("release_on_stderr", err)
	return errors.Join(errs...)
}

// front is the configuration as package front takes it.
func (c *Config) front() front.Config {
	release, _ := front.ParseRelease(c.ReleaseOnStderr)
	f := front.Config{
		Level: agent.Level(c.Level), Policy: front.Policy(c.Policy),
		Lease: c.Lease, QuiesceTimeout: c.QuiesceTimeout, NoDaemonTimeout: c.NoDaemonTimeout,
		Release: release, AddMetadata: c.AddMetadata,
	}
	for _, rule := range c.Levels {
		f.Levels = append(f.Levels, front.Rule{
			Deployment: rule.Deployment, Job: rule.Job, Tags: rule.Tags, Level: agent.Level(rule.Level),
		})
	}
	return f
}
