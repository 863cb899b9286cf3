package main

import (
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"
	"go.yaml.in/yaml/v3"
)

// operation is one of an ops-file.
type operation struct {
	Type  string `yaml:"type"`
	Path  string `yaml:"path"`
	Value any    `yaml:"value"`
}

func TestOperationsSetPropertiesThatExist(t *testing.T) {
	files, err := filepath.Glob(filepath.Join(releaseDir, "operations", "*.yml"))
	if err != nil || len(files) < 8 {
		t.Fatalf("there are %q (%v)", files, err)
	}
	for _, file := range files {
		text, err := os.ReadFile(file)
		if err != nil {
			t.Fatal(err)
		}
		var root any
		if err := yaml.Unmarshal(text, &root); err != nil {
			t.Fatalf("%s: %v", file, err)
		}
		checkJobs(t, file, root)
	}
}

// checkJobs finds jobs of the release anywhere in a document, and checks the names of
// their properties.
func checkJobs(t *testing.T, file string, at any) {
	switch v := at.(type) {
	case []any:
		for _, one := range v {
			checkJobs(t, file, one)
		}
	case map[string]any:
		if v["release"] == "quiesced" {
			checkProperties(t, file, v)
		}
		for _, one := range v {
			checkJobs(t, file, one)
		}
	}
}

func checkProperties(t *testing.T, file string, job map[string]any) {
	t.Helper()
	name, _ := job["name"].(string)
	s := readSpec(t, name)
	properties, _ := job["properties"].(map[string]any)
	known := map[string]any{}
	for p := range s.Properties {
		nest(known, p, true)
	}
	for _, p := range leaves(properties, "") {
		if !has(known, p) {
			t.Errorf("%s: job %s has no property %s", file, name, p)
		}
	}
}

func leaves(all map[string]any, prefix string) []string {
	var names []string
	for name, value := range all {
		if inner, ok := value.(map[string]any); ok {
			names = append(names, leaves(inner, prefix+name+".")...)
			continue
		}
		names = append(names, prefix+name)
	}
	return names
}

// A director's manifest, and a cpi-config, as far as the ops-files are about them.
const directorManifest = `
releases: [{name: bosh}]
instance_groups:
- name: bosh
  jobs: [{name: director, release: bosh}, {name: aws_cpi, release: bosh-aws-cpi}]
  properties: {director: {name: lab, cpi_job: aws_cpi}}
cloud_provider: {template: {name: aws_cpi}}
`

const directorWithAll = `
releases: [{name: bosh}, {name: quiesced, url: file:///q.tgz}]
instance_groups:
- name: bosh
  jobs:
  - {name: director, release: bosh}
  - {name: aws_cpi, release: bosh-aws-cpi}
  - {name: quiesce_cpi, release: quiesced, properties: {cpi: aws_cpi, release_on_stderr: aws, cpis: [aws_cpi, lab_cpi]}}
  - {name: quiesced, release: quiesced, properties: {enable_snapshots: true, listen: {holders: vcap}}}
  properties:
    director:
      name: lab
      cpi_job: quiesce_cpi
      cpi_additional_volumes:
      - {path: /var/vcap/jobs/aws_cpi, allow_executions: true}
      - {path: /run/quiesced, mount_only: true}
      - {path: /var/vcap/jobs/lab_cpi, allow_executions: true}
cloud_provider: {template: {name: aws_cpi}}
`

func TestOperationsPutQuiesceCPIBeforeADirectorsCPI(t *testing.T) {
	for name, c := range map[string]struct {
		files        []string
		before, want string
	}{
		"a director":   {[]string{"director", "director-aws", "director-self", "director-bpm", "director-bpm-self", "director-multi-cpi"}, directorManifest, directorWithAll},
		"a cpi-config": {[]string{"cpi-config"}, "cpis: [{name: lab-1, type: aws}]", "cpis: [{name: lab-1, type: aws, exec_path: /var/vcap/jobs/quiesce_cpi/bin/aws_cpi}]"},
	} {
		t.Run(name, func(t *testing.T) {
			got := parsed(t, c.before)
			for _, file := range c.files {
				for _, o := range operations(t, file) {
					if o.Type != "replace" {
						t.Fatalf("%s: there is an operation %s", file, o.Type)
					}
					got = replace(t, got, strings.Split(strings.TrimPrefix(o.Path, "/"), "/"), false, o.Value)
				}
			}
			if diff := cmp.Diff(parsed(t, c.want), got); diff != "" {
				t.Errorf("-want +got:\n%s", diff)
			}
		})
	}
}

func parsed(t *testing.T, text string) any {
	t.Helper()
	var v any
	if err := yaml.Unmarshal([]byte(text), &v); err != nil {
		t.Fatal(err)
	}
	return v
}

// operations are an ops-file's, with variables.
func operations(t *testing.T, file string) []operation {
	t.Helper()
	text, err := os.ReadFile(filepath.Join(releaseDir, "operations", file+".yml"))
	if err != nil {
		t.Fatal(err)
	}
	filled := strings.NewReplacer("((director_cpi))", "aws_cpi", "((second_cpi))", "lab_cpi",
		"((quiesced_release_url))", "file:///q.tgz", "((cpi_name))", "lab-1", "((cpi_type))", "aws").Replace(string(text))
	var all []operation
	if err := yaml.Unmarshal([]byte(filled), &all); err != nil {
		t.Fatal(err)
	}
	return all
}

// replace does what the BOSH CLI does for an operation "replace", as far as is needed
// here, and returns what has taken the place of at. After a "?" in the path what is
// missing is made.
func replace(t *testing.T, at any, path []string, maybe bool, value any) any {
	t.Helper()
	if len(path) == 0 {
		return value
	}
	token := strings.TrimSuffix(path[0], "?")
	maybe = maybe || token != path[0]
	if token == "-" {
		list, _ := at.([]any)
		return append(list, value)
	}
	if key, name, ok := strings.Cut(token, "="); ok {
		list, _ := at.([]any)
		for i, one := range list {
			if m, ok := one.(map[string]any); ok && m[key] == name {
				list[i] = replace(t, one, path[1:], maybe, value)
				return list
			}
		}
		if !maybe {
			t.Fatalf("there is no %s", token)
		}
		return append(list, replace(t, map[string]any{key: name}, path[1:], maybe, value))
	}
	m, _ := at.(map[string]any)
	if _, ok := m[token]; !ok && !maybe {
		t.Fatalf("there is no %s", token)
	}
	if m == nil {
		m = map[string]any{}
	}
	m[token] = replace(t, m[token], path[1:], maybe, value)
	return m
}
