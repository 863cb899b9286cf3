package main

import (
	"encoding/json"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"reflect"
	"slices"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"
	"go.yaml.in/yaml/v3"

	"github.com/quiesced/quiesced/agent"
)

// nest sets a value by its dotted name.
func nest(all map[string]any, name string, value any) {
	section, rest, deeper := strings.Cut(name, ".")
	if !deeper {
		all[name] = value
		return
	}
	inner, ok := all[section].(map[string]any)
	if !ok {
		inner = map[string]any{}
		all[section] = inner
	}
	nest(inner, rest, value)
}

// has says whether a document has a key by a dotted name.
func has(all map[string]any, name string) bool {
	section, rest, deeper := strings.Cut(name, ".")
	value, ok := all[section]
	if !deeper || !ok {
		return ok
	}
	inner, ok := value.(map[string]any)
	return ok && has(inner, rest)
}

// daemonKeys lists the keys of the daemon's configuration.
func daemonKeys(of reflect.Type, prefix string) []string {
	var keys []string
	for i := range of.NumField() {
		f := of.Field(i)
		name := prefix + f.Tag.Get("yaml")
		switch {
		case name == "levels":
			for _, trigger := range agent.Triggers() {
				keys = append(keys, "levels."+string(trigger))
			}
		case f.Type.Kind() == reflect.Struct:
			keys = append(keys, daemonKeys(f.Type, name+".")...)
		default:
			keys = append(keys, name)
		}
	}
	return keys
}

// jobsOwn are the properties of the job that are none of the daemon's.
var jobsOwn = []string{
	"start_timeout", "yield_timeout", "sync_timeout",
	"prom_scraper.enabled", "prom_scraper.scheme", "prom_scraper.server_name",
}

func TestReleaseHasAPropertyForEveryKeyOfTheDaemon(t *testing.T) {
	keys := daemonKeys(reflect.TypeFor[Config](), "")
	s := readSpec(t, "quiesced")
	for _, key := range keys {
		if _, ok := s.Properties[key]; !ok {
			t.Errorf("job quiesced has no property %s", key)
		}
	}
	for name := range s.Properties {
		if !slices.Contains(keys, name) && !slices.Contains(jobsOwn, name) {
			t.Errorf("job quiesced has a property %s, and the daemon no such key", name)
		}
	}
}

func TestReleaseGivesTheDaemonWhatIsConfigured(t *testing.T) {
	s := readSpec(t, "quiesced")
	properties := examples(s)
	nest(properties, "listen.holders", "nobody") // this machine has no vcap
	text := render(t, "quiesced", properties).text(t, "config/quiesced.yml")
	c, err := parseConfig("quiesced.yml", []byte(text))
	if err != nil {
		t.Fatalf("the daemon refuses what the examples render to: %v\n%s", err, text)
	}
	var document map[string]any
	if err := yaml.Unmarshal([]byte(text), &document); err != nil {
		t.Fatal(err)
	}
	for name := range s.Properties {
		if !slices.Contains(jobsOwn, name) && !has(document, name) {
			t.Errorf("%s is set and not in the file", name)
		}
	}
	if c.Levels["scheduled"] != "lock" || c.Disks[0].CID != "disk-5f0c2f52" || c.NATS.Cert != "/var/vcap/jobs/quiesced/config/nats-cert.pem" {
		t.Errorf("the configuration is not what the examples say: %+v", c)
	}
}

func TestReleasesDefaultsAreTheDaemons(t *testing.T) {
	c, err := parseConfig("quiesced.yml", []byte(render(t, "quiesced", nil).text(t, "config/quiesced.yml")))
	if err != nil {
		t.Fatal(err)
	}
	want := defaults()
	want.Processes.Supervisor = "monit"
	want.BOSH.Root = "/var/vcap"
	want.BOSH.JobDir = "/var/vcap/jobs/quiesced"
	if diff := cmp.Diff(&want, c); diff != "" {
		t.Errorf("the configuration of a job without properties (-want +got):\n%s", diff)
	}
}

// frontKeys are the keys of quiesce-cpi's configuration.
type frontKeys struct {
	DirectorConfig  string `yaml:"director_config"`
	Socket          string `yaml:"socket"`
	Level           string `yaml:"level"`
	Levels          []any  `yaml:"levels"`
	Policy          string `yaml:"policy"`
	Lease           string `yaml:"lease"`
	QuiesceTimeout  string `yaml:"quiesce_timeout"`
	NoDaemonTimeout string `yaml:"no_daemon_timeout"`
	ReleaseOnStderr string `yaml:"release_on_stderr"`
	AddMetadata     bool   `yaml:"add_metadata"`
}

func TestReleaseConfiguresQuiesceCPI(t *testing.T) {
	r := render(t, "quiesce_cpi", examples(readSpec(t, "quiesce_cpi")))
	var got frontKeys
	readYAML(t, r.dir+"/config/quiesce-cpi.yml", &got)
	want := frontKeys{
		DirectorConfig: "/var/vcap/jobs/director/config/director.yml", Socket: "/run/quiesced/quiesced.sock",
		Level: "lock", Policy: "skip", Lease: "1m", QuiesceTimeout: "20m", NoDaemonTimeout: "5s",
		ReleaseOnStderr: "aws", AddMetadata: true,
		Levels: []any{
			map[string]any{"deployment": "cf", "job": "database", "level": "lock"},
			map[string]any{"tags": map[string]any{"snapshots": "cold"}, "level": "stop"},
		},
	}
	if diff := cmp.Diff(want, got); diff != "" {
		t.Errorf("the examples render to (-want +got):\n%s", diff)
	}
	config := r.dir + "/config/quiesce-cpi.yml"
	if said := askQuiesceCPI(t, config); strings.Contains(said, refusesConfig) || !strings.Contains(said, "NotImplemented") {
		t.Errorf("with that configuration, which says what is done without a daemon, it says\n%s", said)
	}
	text := strings.Replace(r.text(t, "config/quiesce-cpi.yml"), `"level"`, `"lewel"`, 1)
	if err := os.WriteFile(config, []byte(text), 0o600); err != nil {
		t.Fatal(err)
	}
	if said := askQuiesceCPI(t, config); !strings.Contains(said, refusesConfig) {
		t.Errorf("with a wrong configuration it says\n%s", said)
	}
}

const refusesConfig = "cannot use the configuration"

// askQuiesceCPI asks for a snapshot on a machine without a daemon, and returns all
// that is said.
func askQuiesceCPI(t *testing.T, config string) string {
	t.Helper()
	cmd := exec.Command(filepath.Join(binaries, "quiesce-cpi"), "-cpi", "/bin/false", "-config", config)
	cmd.Stdin = strings.NewReader(fmt.Sprintf(selfSnapshot, "disk-1"))
	out, _ := cmd.CombinedOutput()
	return string(out)
}

func TestReleaseRefusesWhatCannotWork(t *testing.T) {
	for name, c := range map[string]struct {
		job        string
		properties string
		want       string
	}{
		"an API over TCP without certificates":    {"quiesced", `{"listen": {"tcp": {"address": "0.0.0.0:9734"}}}`, "needs listen.tcp.cert, key, ca and names"},
		"a timeout that is no number":             {"quiesced", `{"start_timeout": "1m"}`, "1m"},
		"no real CPI":                             {"quiesce_cpi", `{}`, "no value for cpi"},
		"quiesce_cpi before itself":               {"quiesce_cpi", `{"cpi": "quiesce_cpi"}`, "before itself"},
		"a CPI's path for its job's name":         {"quiesce_cpi", `{"cpi": "/var/vcap/jobs/aws_cpi/bin/cpi"}`, "no name of a job"},
		"a CPI by a name with white space":        {"quiesce_cpi", `{"cpi": "aws_cpi", "cpis": ["a cpi"]}`, "no name of a CPI's job"},
		"a CPI by the name of one of our scripts": {"quiesce_cpi", `{"cpi": "aws_cpi", "cpis": ["cpi"]}`, "cannot be the name"},
	} {
		t.Run(name, func(t *testing.T) {
			var properties map[string]any
			if err := json.Unmarshal([]byte(c.properties), &properties); err != nil {
				t.Fatal(err)
			}
			if _, err := tryRender(t, c.job, properties); err == nil || !strings.Contains(err.Error(), c.want) {
				t.Errorf("rendering ends with %v, want %q", err, c.want)
			}
		})
	}
}

func TestPromScraperIsToldWhereMetricsAre(t *testing.T) {
	for name, c := range map[string]struct{ properties, want string }{
		"by default":                {`{}`, `{"port":9733,"source_id":"quiesced","instance_id":"inst-1","scheme":"http","path":"/metrics"}`},
		"with TLS at another port":  {`{"listen":{"metrics":"0.0.0.0:91"},"prom_scraper":{"scheme":"https","server_name":"q"}}`, `{"port":91,"source_id":"quiesced","instance_id":"inst-1","scheme":"https","server_name":"q","path":"/metrics"}`},
		"when it is to leave it be": {`{"prom_scraper":{"enabled":false}}`, ``},
		"when there are none":       {`{"listen":{"metrics":""}}`, ``},
	} {
		t.Run(name, func(t *testing.T) {
			var properties map[string]any
			if err := json.Unmarshal([]byte(c.properties), &properties); err != nil {
				t.Fatal(err)
			}
			var got, want any
			text := render(t, "quiesced", properties).text(t, "config/prom_scraper_config.yml")
			if err := yaml.Unmarshal([]byte(text), &got); err != nil {
				t.Fatal(err)
			}
			if err := yaml.Unmarshal([]byte(c.want), &want); err != nil {
				t.Fatal(err)
			}
			if diff := cmp.Diff(want, got); diff != "" {
				t.Errorf("-want +got:\n%s", diff)
			}
		})
	}
}
