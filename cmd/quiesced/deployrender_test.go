package main

import (
	"bytes"
	"encoding/json"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"testing"

	"go.yaml.in/yaml/v3"
)

// releaseDir is the BOSH release.
var releaseDir = filepath.Join("..", "..", "packaging", "bosh")

// property is one of a job's properties, as its spec tells of it.
type property struct {
	Description string `yaml:"description"`
	Default     any    `yaml:"default"`
	Example     any    `yaml:"example"`
}

// jobSpec is what a job's spec says.
type jobSpec struct {
	Name        string              `yaml:"name"`
	Description string              `yaml:"description"`
	Templates   map[string]string   `yaml:"templates"`
	Packages    []string            `yaml:"packages"`
	Properties  map[string]property `yaml:"properties"`
}

func readSpec(t testing.TB, job string) jobSpec {
	t.Helper()
	var s jobSpec
	readYAML(t, filepath.Join(releaseDir, "jobs", job, "spec"), &s)
	return s
}

// readYAML reads a file strictly.
func readYAML(t testing.TB, path string, into any) {
	t.Helper()
	text, err := os.ReadFile(path)
	if err != nil {
		t.Fatal(err)
	}
	d := yaml.NewDecoder(bytes.NewReader(text))
	d.KnownFields(true)
	if err := d.Decode(into); err != nil {
		t.Fatalf("%s: %v", path, err)
	}
}

// examples are a job's properties, each as the example of it says.
func examples(s jobSpec) map[string]any {
	all := map[string]any{}
	for name, p := range s.Properties {
		nest(all, name, p.Example)
	}
	return all
}

// rendered is a job as the agent unpacks it.
type rendered struct {
	dir   string
	asked []string // the properties that templates asked for
}

// tryRender renders a job with properties, as a director does.
func tryRender(t testing.TB, job string, properties map[string]any) (rendered, error) {
	t.Helper()
	r := rendered{dir: t.TempDir()}
	given, err := json.Marshal(map[string]any{
		"properties": properties,
		"spec":       map[string]any{"id": "inst-1", "index": 0, "name": "db", "deployment": "cf"},
	})
	if err != nil {
		t.Fatal(err)
	}
	cmd := exec.Command("ruby", filepath.Join("testdata", "render.rb"), filepath.Join(releaseDir, "jobs", job), r.dir)
	cmd.Stdin = bytes.NewReader(given)
	out, err := cmd.Output()
	var exit *exec.ExitError
	if errors.As(err, &exit) {
		return r, fmt.Errorf("%w: %s", err, exit.Stderr)
	}
	if err != nil {
		t.Fatal(err)
	}
	return r, json.Unmarshal(out, &r.asked)
}

func render(t testing.TB, job string, properties map[string]any) rendered {
	t.Helper()
	r, err := tryRender(t, job, properties)
	if err != nil {
		t.Fatal(err)
	}
	return r
}

// text is a rendered file.
func (r rendered) text(t testing.TB, name string) string {
	t.Helper()
	text, err := os.ReadFile(filepath.Join(r.dir, name))
	if err != nil {
		t.Fatal(err)
	}
	return string(text)
}
