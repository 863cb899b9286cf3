package main

import (
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"

	"github.com/quiesced/quiesced/agent/retention"
)

func TestEmptyConfigurationIsAllDefaults(t *testing.T) {
	for name, text := range map[string]string{"nothing": "", "a comment": "# nothing yet\n", "null": "~\n"} {
		t.Run(name, func(t *testing.T) {
			got, err := parseConfig("q.yml", []byte(text))
			if err != nil {
				t.Fatal(err)
			}
			want := defaults()
			if diff := cmp.Diff(&want, got); diff != "" {
				t.Errorf("-want +got:\n%s", diff)
			}
			if got.EnableSnapshots {
				t.Error("snapshots are enabled by default")
			}
		})
	}
}

func TestGivenKeysReplaceDefaultsAndLeaveTheOthers(t *testing.T) {
	got, err := parseConfig("q.yml", []byte("levels: {manual: sync}\nbudgets:\n  frozen: 5s\n"))
	if err != nil {
		t.Fatal(err)
	}
	if got.Levels["manual"] != "sync" || got.Levels["scheduled"] != "freeze" {
		t.Errorf("levels are %v", got.Levels)
	}
	if got.Budgets.Frozen != 5*time.Second || got.Budgets.Snapshot != 30*time.Minute {
		t.Errorf("budgets are %v", got.Budgets)
	}
}

func TestPoliciesAreThoseForAllAndThoseOfTriggers(t *testing.T) {
	got, err := parseConfig("q.yml", []byte(`keep: {last: 3, yearly: 1, max_age: 90d, triggers: {manual: {}, scheduled: {hourly: 24, max_age: 36h}}}`))
	if err != nil {
		t.Fatal(err)
	}
	want := retention.Policies{
		General: retention.Policy{Last: 3, Yearly: 1, MaxAge: 90 * 24 * time.Hour},
		Own:     map[string]retention.Policy{"manual": {}, "scheduled": {Hourly: 24, MaxAge: 36 * time.Hour}},
	}
	if diff := cmp.Diff(want, got.settings().Keep); diff != "" {
		t.Errorf("-want +got:\n%s", diff)
	}
}

// Every example that is shipped must be one that the daemon takes.
func TestShippedExampleIsAccepted(t *testing.T) {
	path := filepath.Join("..", "..", "packaging", "quiesced.yml")
	if _, err := loadConfig(path); err != nil {
		t.Error(err)
	}
}

func TestWrongConfigurationNamesFileLineAndKey(t *testing.T) {
	long := "/run/" + strings.Repeat("x", 110)
	tests := []struct{ name, text, want string }{
		{"unknown key", "enable_snapshots: true\nsnapshot_scedule: x\n", `q.yml:2: snapshot_scedule: unknown key`},
		{"unknown key deep down", "disks:\n- cid: d\n  mount: /x\n", `q.yml:3: disks[0].mount: unknown key`},
		{"key given twice", "state_dir: /a\nstate_dir: /b\n", `q.yml:2: state_dir: the key is there twice`},
		{"string for bool", "enable_snapshots: often\n", `q.yml:1: enable_snapshots: wants true or false, has "often" (str)`},
		{"number for string", "state_dir: 7\n", `q.yml:1: state_dir: wants a string, has "7" (int)`},
		{"fraction for whole number", "instance:\n  index: 1.5\n", `q.yml:2: instance.index: wants a whole number, has "1.5" (float)`},
		{"scalar for list", "disks: none\n", `q.yml:1: disks: wants a list, has "none" (str)`},
		{"list for object", "listen: []\n", `q.yml:1: listen: wants keys and values, has a list`},
		{"list for context", "cpi:\n  context: [a]\n", `q.yml:2: cpi.context: wants keys and values, has a list`},
		{"context that is no JSON", "cpi:\n  context: {a: {1: 2}}\n", `q.yml: cpi.context.a: has no form in JSON`},
		{"bare number for time", "budgets:\n  frozen: 30\n", `q.yml:2: budgets.frozen: wants a time such as 30s or 10m, has "30" (int)`},
		{"time that is not positive", "budgets: {resume: 0s}\n", `q.yml:1: budgets.resume: 0s is not a positive time`},
		{"no YAML", "a: [\n", `q.yml: yaml: line 1:`},
		{"two documents", "{}\n---\n{}\n", `q.yml: more than one document`},
		{"relative state directory", "state_dir: state\n", `q.yml:1: state_dir: "state" is not an absolute path`},
		{"socket path too long", "listen:\n  socket: " + long + "\n", `q.yml:2: listen.socket: socket path "` + long + `" has 115 bytes, and the kernel takes 107`},
		{"relative socket path", "listen: {socket: q.sock}\n", `q.yml:1: listen.socket: socket path "q.sock" is not absolute`},
		{"unknown group", "listen: {group: nobody-is-in-it}\n", `q.yml:1: listen.group: unknown group "nobody-is-in-it"`},
		{"unknown holder", "listen:\n  holders: no-such-user\n", `q.yml:2: listen.holders: unknown user "no-such-user"`},
		{"TCP without an address", "listen:\n  tcp: {names: [x]}\n", `q.yml: listen.tcp.address: needed with the other keys of listen.tcp`},
		{"TCP address without port", "listen:\n  tcp:\n    address: 10.0.0.1\n", `q.yml:3: listen.tcp.address: address 10.0.0.1: missing port in address`},
		{"TCP without a certificate", "listen:\n  tcp: {address: ':6868'}\n", `q.yml: listen.tcp.cert: "" is not an absolute path`},
		{"relative TCP key", "listen:\n  tcp: {address: ':6868', key: k.pem}\n", `q.yml:2: listen.tcp.key: "k.pem" is not an absolute path`},
		{"TCP without a CA", "listen:\n  tcp: {address: ':6868'}\n", `q.yml: listen.tcp.ca: "" is not an absolute path`},
		{"TCP for nobody", "listen:\n  tcp: {address: ':6868'}\n", `q.yml: listen.tcp.names: needs a name, that of a client's certificate`},
		{"TCP for a certificate without a name", "listen:\n  tcp: {address: ':6868', names: [x, '']}\n", `q.yml:2: listen.tcp.names[1]: is empty`},
		{"metrics address without port", "listen: {metrics: localhost}\n", `q.yml:1: listen.metrics: address localhost: missing port in address`},
		{"metrics port that is none", "listen: {metrics: 'localhost:65536'}\n", `q.yml:1: listen.metrics: address 65536: invalid port`},
		{"root as state directory", "state_dir: /\n", `q.yml:1: state_dir: needs a directory of its own`},
		{"bus address that is none", "instance: {agent_id: a}\nnats: {urls: ['10.0.0.6:4222']}\n", `q.yml:2: nats.urls[0]: is no address such as`},
		{"unknown trigger", "levels: {hourly: freeze}\n", `q.yml:1: levels.hourly: unknown trigger "hourly" (one of manual, scheduled, self, director)`},
		{"unknown level", "levels:\n  manual: frozen\n", `q.yml:2: levels.manual: unknown level "frozen" (one of none, sync, freeze, lock, stop)`},
		{"release pattern that is none", "cpi: {release_on_stderr: '{disk_cid} ('}\n", `q.yml:1: cpi.release_on_stderr: error parsing regexp`},
		{"release pattern for any disk", "cpi:\n  release_on_stderr: created\n", `q.yml:2: cpi.release_on_stderr: needs {disk_cid} in it`},
		{"disk without CID", "disks: [{mounts: [/x]}]\n", `q.yml: disks[0].cid: needed`},
		{"disk without mounts", "disks: [{cid: d}]\n", `q.yml: disks[0].mounts: needs a mount point, or disks[].device in its place`},
		{"relative device", "disks:\n- cid: d\n  device: vdb\n", `q.yml:3: disks[0].device: "vdb" is not an absolute path`},
		{"disk given twice", "disks:\n- {cid: d, mounts: [/x]}\n- {cid: d, mounts: [/y]}\n", `q.yml:3: disks[1].cid: "d" is also disks[0].cid`},
		{"relative mount", "disks: [{cid: d, mounts: [x]}]\n", `q.yml:1: disks[0].mounts[0]: "x" is not an absolute path`},
		{"no job", "enable_snapshots: true\nbosh: {root: ''}\n", `q.yml: instance.job: needed when enable_snapshots is true and bosh.root is empty`},
		{"relative root of BOSH", "bosh: {root: vcap}\n", `q.yml:1: bosh.root: "vcap" is not an absolute path`},
		{"no prefix where bosh-agent is", "nats: {prefix: ''}\n", `q.yml:1: nats.prefix: needed on "agent.{agent_id}", where bosh-agent answers methods without one`},
		{"certificates of a bus that is nowhere", "nats: {ca: /c}\n", `q.yml: nats.urls: needed beside nats.ca, nats.cert and nats.key`},
		{"bus without agent id", "bosh: {root: ''}\nnats: {urls: [nats://127.0.0.1:4222]}\n", `q.yml: instance.agent_id: needed when nats.urls are given and bosh.root is empty`},
		{"agent id that is no token", "instance: {agent_id: a.b}\nnats: {urls: [nats://127.0.0.1:4222]}\n", `q.yml:1: instance.agent_id: "a.b" is not one token of a subject`},
		{"certificate without key", "instance: {agent_id: a}\nnats: {urls: [nats://127.0.0.1:4222], cert: /c}\n", `q.yml:2: nats.cert: certificate and key (nats.key) go together`},
		{"schedule that is none", "snapshot_schedule: 0 0 7 * *  * * UTC\n", `q.yml:1: snapshot_schedule: `},
		{"schedule of an hour that is none", "enable_snapshots: false\nself_snapshot_schedule: 0 25 * * *\n", `q.yml:2: self_snapshot_schedule: `},
		{"schedule of verifications that is none", "cpi: {path: /cpi}\nverify: {schedule: 0 25 * * *}\n", `q.yml:2: verify.schedule: `},
		{"schedule of verifications without a CPI", "verify: {schedule: 0 5 * * *}\n", `q.yml:1: verify.schedule: needs cpi.path`},
		{"splay that is negative", "schedule: {splay: -1m}\n", `q.yml:1: schedule.splay: -1m0s is negative`},
		{"count that is negative", "keep: {daily: -1}\n", `q.yml:1: keep.daily: -1 is negative`},
		{"age that is no time", "keep: {max_age: 90}\n", `q.yml:1: keep.max_age: wants a time such as 30s or 10m, has "90" (int)`},
		{"age that is negative", "keep: {last: 1, max_age: -1h}\n", `q.yml:1: keep.max_age: -1h0m0s is negative`},
		{"unknown count", "keep: {dayly: 1}\n", `q.yml:1: keep.dayly: unknown key`},
		{"unknown count of a trigger", "keep:\n  triggers:\n    manual: {schedule: x}\n", `q.yml:3: keep.triggers.manual.schedule: unknown key`},
		{"age of a trigger that is negative", "keep: {triggers: {self: {max_age: -1h}}}\n", `q.yml:1: keep.triggers.self.max_age: -1h0m0s is negative`},
		{"policy of an unknown trigger", "keep: {triggers: {hourly: {last: 1}}}\n", `q.yml:1: keep.triggers.hourly: unknown trigger "hourly" (one of`},
		{"policy of holds", "keep: {triggers: {director: {last: 1}}}\n", `q.yml:1: keep.triggers.director: what is taken in holds is never deleted`},
		{"retention by a schedule that is none", "keep: {last: 1, schedule: 0 25 * * *}\n", `q.yml:1: keep.schedule: `},
		{"retention by a schedule, of nothing", "keep: {triggers: {manual: {}}, schedule: 0 3 * * *}\n", `q.yml:1: keep.schedule: needs a count or an age beside it`},
		{"unknown log level", "log: {level: loud}\n", `q.yml:1: log.level: unknown level "loud" (one of debug, info, warn, error)`},
	}
	for _, test := range tests {
		t.Run(test.name, func(t *testing.T) {
			_, err := parseConfig("q.yml", []byte(test.text))
			if err == nil || !strings.Contains(err.Error(), test.want) {
				t.Errorf("error is %v, want %q in it", err, test.want)
			}
		})
	}
}

func TestEveryMistakeIsReportedAtOnce(t *testing.T) {
	_, err := parseConfig("q.yml", []byte("state_dir: 1\nnope: 2\nlisten: {sokcet: x}\n"))
	for _, want := range []string{"q.yml:1: state_dir:", "q.yml:2: nope:", "q.yml:3: listen.sokcet:"} {
		if !strings.Contains(fmt.Sprint(err), want) {
			t.Errorf("%q is missing from %v", want, err)
		}
	}
}

func FuzzParseConfig(f *testing.F) {
	example, err := os.ReadFile(filepath.Join("..", "..", "packaging", "quiesced.yml"))
	if err != nil {
		f.Fatal(err)
	}
	for _, seed := range []string{string(example), "", "a: &a [*a]", "disks: [{cid: d, mounts: [/x]}]", "levels: {manual: *x}", "cpi: {context: &c {a: *c}}", "? [a]\n: b"} {
		f.Add([]byte(seed))
	}
	f.Fuzz(func(t *testing.T, text []byte) {
		c, err := parseConfig("q.yml", text)
		if (c == nil) == (err == nil) {
			t.Fatalf("configuration %v with error %v", c, err)
		}
		if err == nil && len(c.settings().Disks) != len(c.Disks) {
			t.Fatal("disks were lost")
		}
	})
}
