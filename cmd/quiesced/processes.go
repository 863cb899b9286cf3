package main

import (
	"log/slog"
	"net/url"
	"path/filepath"
	"slices"
	"strings"

	"github.com/quiesced/quiesced/agent"
	"github.com/quiesced/quiesced/agent/journal"
	"github.com/quiesced/quiesced/quiesce/jobs"
	"github.com/quiesced/quiesced/quiesce/monit"
	"github.com/quiesced/quiesced/quiesce/systemd"
)

// ProcessesConfig says who runs the jobs' processes, and where the jobs lie.
type ProcessesConfig struct {
	Supervisor  string        `yaml:"supervisor"` // monit, systemd, none
	Root        string        `yaml:"root"`       // has jobs/JOB/bin
	OwnJob      string        `yaml:"own_job"`    // whose scripts are never run
	Hooks       string        `yaml:"hooks"`      // a directory with pre-snapshot and post-snapshot
	WritersLeft string        `yaml:"writers_left"`
	Monit       MonitConfig   `yaml:"monit"`
	Systemd     SystemdConfig `yaml:"systemd"`
}

// MonitConfig says where monit is and which of its services the jobs have.
type MonitConfig struct {
	URL         string `yaml:"url"`
	UserFile    string `yaml:"user_file"` // user:password
	Group       string `yaml:"group"`
	StoppedFile string `yaml:"stopped_file"` // says who stopped them
}

// SystemdConfig says which units the jobs have.
type SystemdConfig struct {
	Units  []string `yaml:"units"`
	Target string   `yaml:"target"`
	Slice  string   `yaml:"slice"`
}

func processesDefaults() ProcessesConfig {
	return ProcessesConfig{
		Supervisor: "none", Root: "/var/vcap", OwnJob: "quiesced", WritersLeft: "report",
		Monit: MonitConfig{
			URL: "http://127.0.0.1:2822", UserFile: "/var/vcap/monit/monit.user", Group: "vcap",
			StoppedFile: "/var/vcap/monit/stopped",
		},
	}
}

func (p *ProcessesConfig) check(d *document) {
	oneOf := func(key, value string, known ...string) {
		if !slices.Contains(known, value) {
			d.fail("processes."+key, "unknown value %q (one of %s)", value, strings.Join(known, ", "))
		}
	}
	oneOf("supervisor", p.Supervisor, "monit", "systemd", "none")
	oneOf("writers_left", p.WritersLeft, "report", "fail")
	d.absolute("processes.root", p.Root)
	if p.Hooks != "" {
		d.absolute("processes.hooks", p.Hooks)
	}
	switch p.Supervisor {
	case "monit":
		p.Monit.check(d)
	case "systemd":
		if len(p.Systemd.Units) == 0 && p.Systemd.Target == "" && p.Systemd.Slice == "" {
			d.fail("processes.systemd", "needs units, a target or a slice")
		}
	}
}

func (m *MonitConfig) check(d *document) {
	if u, err := url.Parse(m.URL); err != nil || u.Host == "" || u.Scheme != "http" {
		d.fail("processes.monit.url", "%q is no address such as http://127.0.0.1:2822", m.URL)
	}
	d.absolute("processes.monit.user_file", m.UserFile)
	d.absolute("processes.monit.stopped_file", m.StoppedFile)
	if m.Group == "" {
		d.fail("processes.monit.group", "needed: every service of monit, the daemon's own among them, would be stopped")
	}
}

func (p *ProcessesConfig) settings() agent.Processes {
	s := agent.Processes{
		Layout:        jobs.Layout{Root: p.Root, Own: p.OwnJob, Hooks: p.Hooks},
		FailOnWriters: p.WritersLeft == "fail",
	}
	if p.Supervisor == "monit" {
		s.Stopped = p.Monit.StoppedFile
	}
	return s
}

// supervised is what brings the jobs to rest and sets them going.
func (c *Config) supervised(log *slog.Logger) agent.Supervised {
	s := agent.Supervised{
		Scripts:   &jobs.Runner{Layout: c.Processes.settings().Layout, Log: log},
		Held:      journal.HeldFile{Path: filepath.Join(c.runtimeDir(), "jobs-held.json")},
		YieldFile: filepath.Join(c.runtimeDir(), "yielded"),
	}
	switch c.Processes.Supervisor {
	case "monit":
		m := c.Processes.Monit
		s.Supervisor = monit.New(monit.Config{URL: m.URL, UserFile: m.UserFile, Group: m.Group})
	case "systemd":
		u := c.Processes.Systemd
		s.Supervisor = systemd.New(systemd.Config{Units: u.Units, Target: u.Target, Slice: u.Slice})
	}
	return s
}
