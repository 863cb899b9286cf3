package main

import (
	"fmt"
	"maps"
	"net/url"
	"os"
	"path/filepath"
	"regexp"
	"slices"
	"strings"
	"time"

	"github.com/quiesced/quiesced/agent"
	"github.com/quiesced/quiesced/agent/natsapi"
	"github.com/quiesced/quiesced/cpi"
	"github.com/quiesced/quiesced/quiesce"
)

const (
	defaultSocket   = "/run/quiesced/quiesced.sock"
	defaultStateDir = "/var/vcap/data/quiesced-state"
	defaultMetrics  = "127.0.0.1:9733"
	defaultPrefix   = "quiesced_"
)

// Config is the configuration file.
type Config struct {
	EnableSnapshots bool              `yaml:"enable_snapshots"`
	StateDir        string            `yaml:"state_dir"`
	BOSH            BOSHConfig        `yaml:"bosh"`
	Listen          ListenConfig      `yaml:"listen"`
	Instance        InstanceConfig    `yaml:"instance"`
	Disks           []DiskConfig      `yaml:"disks"`
	CPI             CPIConfig         `yaml:"cpi"`
	Catalogue       CatalogueConfig   `yaml:"catalogue"`
	Levels          map[string]string `yaml:"levels"`
	AllowDegrade    bool              `yaml:"allow_degrade"`
	Processes       ProcessesConfig   `yaml:"processes"`
	Budgets         BudgetsConfig     `yaml:"budgets"`
	NATS            NATSConfig        `yaml:"nats"`
	Log             LogConfig         `yaml:"log"`

	SnapshotSchedule     string         `yaml:"snapshot_schedule"`      // of this instance, "" for none
	SelfSnapshotSchedule string         `yaml:"self_snapshot_schedule"` // of the director's own VM, "" for none
	Schedule             ScheduleConfig `yaml:"schedule"`
	Verify               VerifyConfig   `yaml:"verify"`
	Keep                 KeepConfig     `yaml:"keep"`
}

// InstanceConfig says who this VM is.
type InstanceConfig struct {
	Deployment string `yaml:"deployment"`
	Job        string `yaml:"job"`
	Index      int    `yaml:"index"`
	ID         string `yaml:"id"`
	AgentID    string `yaml:"agent_id"`
	VM         string `yaml:"vm_cid"` // the CPI's name of the VM
}

// who is the VM in the agent's form.
func (i InstanceConfig) who() agent.Instance {
	return agent.Instance{Deployment: i.Deployment, Job: i.Job, Index: i.Index, ID: i.ID, AgentID: i.AgentID}
}

// DiskConfig is a persistent disk.
type DiskConfig struct {
	CID    string   `yaml:"cid"`
	Device string   `yaml:"device"`
	Mounts []string `yaml:"mounts"`
}

// CatalogueConfig says what is done with the list of snapshots.
type CatalogueConfig struct {
	Copy bool `yaml:"copy"` // it is copied to the persistent disks
}

// CPIConfig says which CPI takes the snapshots.
type CPIConfig struct {
	Path            string         `yaml:"path"`
	ReleaseOnStderr string         `yaml:"release_on_stderr"` // what a line says once the point in time is fixed
	FreezesItself   bool           `yaml:"freezes_itself"`
	Gone            string         `yaml:"gone"` // what an error says of a snapshot that is not there
	Context         map[string]any `yaml:"context"`
}

// BudgetsConfig bounds the steps of a run.
type BudgetsConfig struct {
	PreStop  time.Duration `yaml:"pre_stop"`
	Drain    time.Duration `yaml:"drain"`
	Stop     time.Duration `yaml:"stop"`
	Lock     time.Duration `yaml:"lock"`
	PreSync  time.Duration `yaml:"pre_sync"`
	Frozen   time.Duration `yaml:"frozen"`
	Snapshot time.Duration `yaml:"snapshot"`
	Linger   time.Duration `yaml:"linger"`
	Verify   time.Duration `yaml:"verify"`
	Resume   time.Duration `yaml:"resume"`
}

// NATSConfig says where the bus is.
type NATSConfig struct {
	URLs    []string `yaml:"urls"`
	CA      string   `yaml:"ca"`
	Cert    string   `yaml:"cert"`
	Key     string   `yaml:"key"`
	Subject string   `yaml:"subject"`
	Prefix  string   `yaml:"prefix"`
}

// LogConfig says what is logged, and how.
type LogConfig struct {
	Level  string `yaml:"level"`  // debug, info, warn, error
	Format string `yaml:"format"` // text, json
}

// defaults is the configuration of an empty file.
func defaults() Config {
	levels := map[string]string{}
	for _, t := range agent.Triggers() {
		levels[string(t)] = string(agent.LevelFreeze)
	}
	return Config{
		StateDir:  defaultStateDir,
		BOSH:      boshDefaults(),
		CPI:       CPIConfig{Gone: agent.GoneMessage},
		Catalogue: CatalogueConfig{Copy: true},
		Listen:    ListenConfig{Socket: defaultSocket, Metrics: defaultMetrics},
		Levels:    levels,
		Processes: processesDefaults(),
		Budgets: BudgetsConfig{
			PreStop: 5 * time.Minute, Drain: 10 * time.Minute, Stop: 5 * time.Minute, Lock: time.Minute,
			PreSync: 30 * time.Second, Frozen: 30 * time.Second,
			Snapshot: 30 * time.Minute, Linger: 10 * time.Second, Verify: time.Hour, Resume: 10 * time.Minute,
		},
		NATS: NATSConfig{Subject: "agent.{agent_id}", Prefix: defaultPrefix},
		Log:  LogConfig{Level: "info", Format: "text"},
	}
}

// loadConfig reads and checks a configuration file. The error names the file,
// the line and the key of everything that is wrong.
func loadConfig(path string) (*Config, error) {
	text, err := os.ReadFile(path)
	if err != nil {
		return nil, usageError{fmt.Errorf("cannot read the configuration: %w", err)}
	}
	return parseConfig(path, text)
}

func parseConfig(path string, text []byte) (*Config, error) {
	c := defaults()
	doc := &document{file: path, lines: map[string]int{}}
	doc.decode(text, &c)
	if len(doc.errs) == 0 {
		c.check(doc)
	}
	if err := doc.err(); err != nil {
		return nil, usageError{err}
	}
	return &c, nil
}

// check finds what is wrong in the configuration by itself, without a look at
// the machine.
func (c *Config) check(d *document) {
	d.absolute("state_dir", c.StateDir)
	if filepath.Clean(c.StateDir) == "/" {
		d.fail("state_dir", "needs a directory of its own")
	}
	c.Listen.check(d)
	if c.BOSH.Root == "" && c.EnableSnapshots && c.Instance.Job == "" {
		d.fail("instance.job", "needed when enable_snapshots is true and bosh.root is empty")
	}
	if c.Instance.Index < 0 {
		d.fail("instance.index", "%d is negative", c.Instance.Index)
	}
	if c.CPI.Path != "" {
		d.absolute("cpi.path", c.CPI.Path)
	}
	c.checkSchedules(d)
	c.checkVerify(d)
	c.Keep.check(d)
	c.checkRelease(d)
	if _, err := agent.GonePattern(c.CPI.Gone, "x"); err != nil {
		d.fail("cpi.gone", "%v", err)
	}
	c.checkDisks(d)
	c.checkLevels(d)
	c.Processes.check(d)
	c.checkBudgets(d)
	c.checkNATS(d)
	c.BOSH.check(d)
	c.checkLog(d)
}

// checkRelease wants the pattern bound to the disk: a CPI that prints its request
// must not be able to end the freeze by a tag in it.
func (c *Config) checkRelease(d *document) {
	pattern := c.CPI.ReleaseOnStderr
	if pattern == "" {
		return
	}
	if _, err := regexp.Compile(strings.ReplaceAll(pattern, "{disk_cid}", "x")); err != nil {
		d.fail("cpi.release_on_stderr", "%v", err)
	}
	if !strings.Contains(pattern, "{disk_cid}") {
		d.fail("cpi.release_on_stderr", "needs {disk_cid} in it, which stands for the disk's CID")
	}
}

func (c *Config) checkDisks(d *document) {
	seen := map[string]int{}
	for i, disk := range c.Disks {
		key := fmt.Sprintf("disks[%d]", i)
		if other, twice := seen[disk.CID]; twice {
			d.fail(key+".cid", "%q is also disks[%d].cid", disk.CID, other)
		}
		seen[disk.CID] = i
		if disk.CID == "" {
			d.fail(key+".cid", "needed")
		}
		switch {
		case disk.Device != "":
			d.absolute(key+".device", disk.Device)
		case len(disk.Mounts) == 0:
			d.fail(key+".mounts", "needs a mount point, or disks[].device in its place")
		}
		for j, mount := range disk.Mounts {
			d.absolute(fmt.Sprintf("%s.mounts[%d]", key, j), mount)
		}
	}
}

func (c *Config) checkLevels(d *document) {
	for _, name := range slices.Sorted(maps.Keys(c.Levels)) {
		if _, err := agent.ParseTrigger(name); err != nil {
			d.fail("levels."+name, "%v", err)
			continue
		}
		if _, err := agent.ParseLevel(c.Levels[name]); err != nil {
			d.fail("levels."+name, "%v", err)
		}
	}
}

func (c *Config) checkBudgets(d *document) {
	b := c.Budgets
	for _, one := range []struct {
		key   string
		value time.Duration
	}{
		{"pre_stop", b.PreStop}, {"drain", b.Drain}, {"stop", b.Stop}, {"lock", b.Lock},
		{"pre_sync", b.PreSync}, {"frozen", b.Frozen}, {"snapshot", b.Snapshot}, {"linger", b.Linger}, {"verify", b.Verify}, {"resume", b.Resume},
	} {
		if one.value <= 0 {
			d.fail("budgets."+one.key, "%s is not a positive time", one.value)
		}
	}
}

func (c *Config) checkNATS(d *document) {
	n := c.NATS
	if n.Prefix == "" && strings.HasPrefix(n.Subject, "agent.") {
		d.fail("nats.prefix", "needed on %q, where bosh-agent answers methods without one", n.Subject)
	}
	if strings.ContainsAny(n.Prefix, " \t") {
		d.fail("nats.prefix", "%q contains white space", n.Prefix)
	}
	if !n.configured() {
		if n.CA != "" || n.Cert != "" || n.Key != "" {
			d.fail("nats.urls", "needed beside nats.ca, nats.cert and nats.key")
		}
		return
	}
	if c.Instance.AgentID == "" && c.BOSH.Root == "" {
		d.fail("instance.agent_id", "needed when nats.urls are given and bosh.root is empty")
	}
	if strings.ContainsAny(c.Instance.AgentID, notInToken) {
		d.fail("instance.agent_id", "%q is not one token of a subject", c.Instance.AgentID)
	}
	for i, one := range n.URLs {
		u, err := url.Parse(one)
		if err != nil || u.Host == "" || !slices.Contains([]string{"nats", "tls"}, u.Scheme) {
			d.fail(fmt.Sprintf("nats.urls[%d]", i), "is no address such as nats://10.0.0.6:4222") // it may hold a password
		}
	}
	if (n.Cert == "") != (n.Key == "") {
		d.fail("nats.cert", "certificate and key (nats.key) go together")
	}
}

func (c *Config) checkLog(d *document) {
	if !slices.Contains([]string{"debug", "info", "warn", "error"}, c.Log.Level) {
		d.fail("log.level", "unknown level %q (one of debug, info, warn, error)", c.Log.Level)
	}
	if !slices.Contains([]string{"text", "json"}, c.Log.Format) {
		d.fail("log.format", "unknown format %q (one of text, json)", c.Log.Format)
	}
}

// settings is the configuration as the agent takes it.
func (c *Config) settings() agent.Settings {
	s := agent.Settings{
		Enabled:      c.EnableSnapshots,
		Instance:     c.Instance.who(),
		VM:           c.Instance.VM,
		Levels:       map[agent.Trigger]agent.Level{},
		AllowDegrade: c.AllowDegrade,
		Budgets:      agent.Budgets(c.Budgets),
		StateDir:     c.StateDir,
		Keep:         c.Keep.policies(),

		ReleaseOnStderr: c.CPI.ReleaseOnStderr,
		GoneMessage:     c.CPI.Gone,
		CPIFreezes:      c.CPI.FreezesItself,
		Processes:       c.Processes.settings(),

		Attached: c.attached(),

		Depends: c.depends(),
	}
	for _, d := range c.Disks {
		s.Disks = append(s.Disks, quiesce.Disk(d))
	}
	for trigger, level := range c.Levels {
		s.Levels[agent.Trigger(trigger)] = agent.Level(level)
	}
	return s
}

// depends lists what the daemon, its CPI and its guard need while a filesystem
// is frozen.
func (c *Config) depends() []quiesce.Dependency {
	all := []quiesce.Dependency{
		{Name: "state_dir", Path: c.StateDir},
		{Name: "listen.socket", Path: c.runtimeDir()},
		{Name: "the directory for temporary files", Path: os.TempDir()},
	}
	if stopped := c.Processes.settings().Stopped; stopped != "" {
		all = append(all, quiesce.Dependency{Name: "processes.monit.stopped_file", Path: filepath.Dir(stopped)})
	}
	if c.CPI.Path != "" {
		all = append(all, quiesce.Dependency{Name: "cpi.path", Path: c.CPI.Path})
	}
	if self, err := os.Executable(); err == nil {
		all = append(all, quiesce.Dependency{Name: "the daemon's executable", Path: self})
	}
	for _, file := range []*os.File{os.Stdout, os.Stderr} {
		if path, err := os.Readlink(fmt.Sprintf("/proc/self/fd/%d", file.Fd())); err == nil && filepath.IsAbs(path) {
			all = append(all, quiesce.Dependency{Name: "the target of " + file.Name(), Path: path})
		}
	}
	return all
}

// runtimeDir holds the socket and the state files of freezes.
func (c *Config) runtimeDir() string { return filepath.Dir(c.Listen.Socket) }

// callsDir holds what the CPI prints in calls that no run depends on.
func (c *Config) callsDir() string { return filepath.Join(c.StateDir, "calls") }

func (c *Config) cpiClient() *cpi.Client {
	if c.CPI.Path == "" {
		return nil
	}
	return &cpi.Client{Path: c.CPI.Path, Context: c.CPI.Context, TempDir: c.callsDir()}
}

func (c *Config) bus(dial natsapi.Dialer) natsapi.Config {
	return natsapi.Config{
		URLs: c.NATS.URLs, CA: c.NATS.CA, Cert: c.NATS.Cert, Key: c.NATS.Key, Prefix: c.NATS.Prefix,
		Subject: strings.ReplaceAll(c.NATS.Subject, "{agent_id}", c.Instance.AgentID),
		AgentID: c.Instance.AgentID,
		Source:  c.busSource(),
		Dialer:  dial,
	}
}
