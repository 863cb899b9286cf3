package main

import (
	"os"
	"regexp"
	"strings"
	"testing"

	"go.yaml.in/yaml/v3"

	"github.com/quiesced/quiesced/agent"
	"github.com/quiesced/quiesced/metrics"
)

// rules is a file of alerting rules.
type rules struct {
	Groups []struct {
		Name  string `yaml:"name"`
		Rules []struct {
			Alert       string            `yaml:"alert"`
			Expr        string            `yaml:"expr"`
			For         string            `yaml:"for"`
			Labels      map[string]string `yaml:"labels"`
			Annotations map[string]string `yaml:"annotations"`
		} `yaml:"rules"`
	} `yaml:"groups"`
}

// idle is the state of a daemon that has done nothing yet, and has policies of retention.
type idle struct{}

func (idle) Status() (agent.Status, error) {
	return agent.Status{Retention: &agent.RetentionCounts{}}, nil
}
func (idle) Snapshots() ([]agent.Snapshot, error) { return nil, nil }
func (idle) Reports(int) ([]agent.Report, error)  { return nil, nil }

func TestAlertingRulesAreAboutMetricsThatExist(t *testing.T) {
	m := metrics.New()
	if err := m.Watch(idle{}); err != nil {
		t.Fatal(err)
	}
	exposed, err := m.Text()
	if err != nil {
		t.Fatal(err)
	}
	file, err := os.Open("../../packaging/prometheus/quiesced.rules.yml")
	if err != nil {
		t.Fatal(err)
	}
	defer func() { _ = file.Close() }()
	var doc rules
	d := yaml.NewDecoder(file)
	d.KnownFields(true)
	if err := d.Decode(&doc); err != nil {
		t.Fatal(err)
	}
	series := regexp.MustCompile(`quiesced_[a-z_]+(\{[^}]*\})?`)
	checked := 0
	for _, r := range doc.Groups[0].Rules {
		used := series.FindAllString(r.Expr, -1)
		if r.Alert == "" || r.Labels["severity"] == "" || r.Annotations["summary"] == "" || r.Annotations["description"] == "" || len(used) == 0 {
			t.Errorf("rule %q misses something: %+v", r.Alert, r)
		}
		for _, one := range used {
			name, label, _ := strings.Cut(strings.TrimSuffix(one, "}"), "{")
			if !hasSeries(exposed, name, label) {
				t.Errorf("%s: there is no %s", r.Alert, one)
			}
			checked++
		}
	}
	if checked < 7 {
		t.Errorf("only %d series were checked", checked)
	}
}

// hasSeries says whether an exposition has a series of a name, with a label.
func hasSeries(exposed, name, label string) bool {
	for line := range strings.Lines(exposed) {
		if rest, ok := strings.CutPrefix(line, name); ok && strings.ContainsAny(rest[:1], "{ ") && strings.Contains(rest, label) {
			return true
		}
	}
	return false
}
