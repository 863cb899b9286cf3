package main

import (
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"

	"github.com/quiesced/quiesced/cpi/front"
)

func loadText(t *testing.T, text string) (Config, error) {
	t.Helper()
	path := filepath.Join(t.TempDir(), "quiesce-cpi.yml")
	if err := os.WriteFile(path, []byte(text), 0o600); err != nil {
		t.Fatal(err)
	}
	return load(path)
}

func TestAnEmptyConfigurationIsAllDefaults(t *testing.T) {
	for _, text := range []string{"", "# nothing\n", "---\n"} {
		c, err := loadText(t, text)
		if err != nil {
			t.Fatal(err)
		}
		if diff := cmp.Diff(defaults(), c); diff != "" {
			t.Errorf("%q: -want +got\n%s", text, diff)
		}
	}
}

func TestEveryKeyIsRead(t *testing.T) {
	c, err := loadText(t, `
director_config: /d.yml
socket: /s.sock
level: lock
levels: [{deployment: cf, job: db, tags: {owner: me}, level: stop}]
policy: skip
lease: 10s
quiesce_timeout: 1m
no_daemon_timeout: 500ms
release_on_stderr: aws
add_metadata: true
`)
	if err != nil {
		t.Fatal(err)
	}
	want := front.Config{
		Level: "lock", Policy: "skip", Lease: 10 * time.Second, QuiesceTimeout: time.Minute, NoDaemonTimeout: 500 * time.Millisecond,
		Levels:  []front.Rule{{Deployment: "cf", Job: "db", Tags: map[string]string{"owner": "me"}, Level: "stop"}},
		Release: `snapshot '[^']+' of volume '{disk_cid}' created`, AddMetadata: true,
	}
	if diff := cmp.Diff(want, c.front()); diff != "" || c.DirectorConfig != "/d.yml" || c.Socket != "/s.sock" {
		t.Errorf("got %+v; -want +got\n%s", c, diff)
	}
}

// What is wrong is said, and the policy is kept all the same where it can be told.
func TestAWrongConfigurationIsAnErrorThatNamesTheKey(t *testing.T) {
	for _, tt := range []struct{ text, says, policy string }{
		{"policy: fail\nlease: 100ms", "lease: 100ms is not between 1s and 1h", "fail"},
		{"policy: fail\nleas: 3s", "leas", "fail"},
		{"policy: none", `policy: unknown policy "none"`, "degrade"},
		{"level: deep", `level: unknown level "deep"`, "degrade"},
		{"levels: [{job: db}]", `levels[0].level: unknown level ""`, "degrade"},
		{"director_config: d.yml", "director_config: \"d.yml\" is not an absolute path", "degrade"},
		{"socket: s", "socket: socket path \"s\" is not absolute", "degrade"},
		{"quiesce_timeout: 0s", "quiesce_timeout: 0s is not a positive time", "degrade"},
		{"release_on_stderr: created", "release_on_stderr: needs {disk_cid} in it", "degrade"},
		{"lease: soon", "line 1", "degrade"},
		{"lease: 3s\nlease: 4s", "already defined", "degrade"},
		{"{}\n---\n{}", "more than one document", "degrade"},
		{"- a", "line 1", "degrade"},
	} {
		c, err := loadText(t, tt.text)
		if err == nil || !strings.Contains(err.Error(), tt.says) || !strings.Contains(err.Error(), "quiesce-cpi.yml") {
			t.Errorf("%q: got %v, want %q in it", tt.text, err, tt.says)
		}
		if c.Policy != tt.policy || c.Lease != defaults().Lease {
			t.Errorf("%q: what is gone by is %+v", tt.text, c)
		}
	}
	if c, err := load("/nowhere/q.yml"); err == nil || c.Policy != "degrade" {
		t.Errorf("got %+v, %v", c, err)
	}
}
