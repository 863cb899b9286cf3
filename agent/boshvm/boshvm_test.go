package boshvm_test

import (
	"errors"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"

	"github.com/quiesced/quiesced/agent/boshvm"
)

// stemcell makes the files of a VM. A link is written "-> TARGET".
func stemcell(t *testing.T, files map[string]string) boshvm.VM {
	t.Helper()
	v := boshvm.VM{Root: t.TempDir()}
	v.Mounts = filepath.Join(v.Root, "mountinfo")
	put(t, v, map[string]string{"mountinfo": mounts(v)})
	put(t, v, files)
	return v
}

func put(t *testing.T, v boshvm.VM, files map[string]string) {
	t.Helper()
	for name, text := range files {
		path := filepath.Join(v.Root, name)
		no(t, os.MkdirAll(filepath.Dir(path), 0o700))
		if target, link := strings.CutPrefix(text, "-> "); link {
			no(t, os.Symlink(target, path))
			continue
		}
		no(t, os.WriteFile(path, []byte(text), 0o600))
	}
}

// mounts is a mount table with something at these places below the root.
func mounts(v boshvm.VM, places ...string) string {
	table := "21 1 8:1 / / rw,relatime - ext4 /dev/sda1 rw\n"
	for _, place := range places {
		table += "30 21 8:17 / " + filepath.Join(v.Root, place) + " rw,relatime - ext4 /dev/sdb1 rw\n"
	}
	return table
}

func no(t *testing.T, err error) {
	t.Helper()
	if err != nil {
		t.Fatal(err)
	}
}

const agentID = `"agent_id":"agent-1"`

func TestWhoTheVMIs(t *testing.T) {
	t.Parallel()
	spec := `{"deployment":"cf","name":"db","job":{"name":"old-db"},"index":2,"id":"inst-1","az":"z1"}`
	for _, test := range []struct {
		name  string
		files map[string]string
		want  boshvm.Instance
	}{
		{"what was applied", map[string]string{"bosh/settings.json": `{` + agentID + `}`, "bosh/spec.json": spec},
			boshvm.Instance{Deployment: "cf", Job: "db", Index: 2, ID: "inst-1", AZ: "z1", AgentID: "agent-1"}},
		{"the files of one value each, before what was applied", map[string]string{
			"bosh/settings/settings.json": `{` + agentID + `}`, "bosh/spec.json": spec,
			"instance/deployment": "cf2\n", "instance/name": "db2", "instance/id": "inst-2", "instance/az": "",
		}, boshvm.Instance{Deployment: "cf2", Job: "db2", Index: 2, ID: "inst-2", AZ: "z1", AgentID: "agent-1"}},
		{"a spec of an old director", map[string]string{
			"bosh/settings.json": `{` + agentID + `}`, "bosh/spec.json": `{"job":{"name":"db"},"index":null}`,
		}, boshvm.Instance{Job: "db", AgentID: "agent-1"}},
		{"a VM that no deployment has yet", map[string]string{"bosh/settings.json": `{` + agentID + `}`},
			boshvm.Instance{AgentID: "agent-1"}},
	} {
		t.Run(test.name, func(t *testing.T) {
			t.Parallel()
			got, err := stemcell(t, test.files).Instance()
			no(t, err)
			if diff := cmp.Diff(test.want, got); diff != "" {
				t.Errorf("-want +got:\n%s", diff)
			}
		})
	}
}

// cert is a certificate of mbus, whose CA, certificate and key begin with a word.
func cert(word string) string {
	return `"cert":{"ca":"` + word + ` CA","certificate":"` + word + ` certificate","private_key":"` + word + ` key"}`
}

func TestHowTheBusIsReached(t *testing.T) {
	t.Parallel()
	bootstrap := `{` + agentID + `,"mbus":"nats://oldest:4222","env":{"bosh":{"mbus":{"urls":["nats://first:4222"],` + cert("bootstrap") + `}}}}`
	for _, test := range []struct {
		name  string
		files map[string]string
		urls  []string
		word  string // that the certificate begins with
		from  string
	}{
		{"the bootstrap certificate", map[string]string{"bosh/settings.json": bootstrap},
			[]string{"nats://first:4222"}, "bootstrap", "bosh/settings.json"},
		{"then the permanent one", map[string]string{
			"bosh/settings.json":        bootstrap,
			"bosh/update_settings.json": `{"mbus":{"urls":["nats://a:4222","nats://b:4222"],` + cert("permanent") + `}}`,
		}, []string{"nats://a:4222", "nats://b:4222"}, "permanent", "bosh/update_settings.json"},
		{"an update with certificates and without URLs", map[string]string{
			"bosh/settings/settings.json":        bootstrap,
			"bosh/settings/update_settings.json": `{"mbus":{"urls":null,` + cert("permanent") + `}}`,
		}, []string{"nats://first:4222"}, "permanent", "bosh/settings/update_settings.json"},
		{"an update with URLs and without certificates", map[string]string{
			"bosh/settings.json":        bootstrap,
			"bosh/update_settings.json": `{"mbus":{"urls":["nats://a:4222"],"cert":{"ca":"","certificate":"x","private_key":"y"}}}`,
		}, []string{"nats://a:4222"}, "bootstrap", "bosh/settings.json"},
		{"an update of something else", map[string]string{
			"bosh/settings.json":        bootstrap,
			"bosh/update_settings.json": `{"trusted_certs":"x","disk_associations":[]}`,
		}, []string{"nats://first:4222"}, "bootstrap", "bosh/settings.json"},
		{"a URL where older CPIs have it", map[string]string{
			"bosh/settings.json": `{` + agentID + `,"mbus":"nats://oldest:4222","env":{"bosh":{"mbus":{` + cert("bootstrap") + `}}}}`,
		}, []string{"nats://oldest:4222"}, "bootstrap", "bosh/settings.json"},
		{"the tmpfs before the disk", map[string]string{
			"bosh/settings.json":          `{"mbus":"nats://stale:4222"}`,
			"bosh/settings/settings.json": bootstrap,
		}, []string{"nats://first:4222"}, "bootstrap", "bosh/settings/settings.json"},
	} {
		t.Run(test.name, func(t *testing.T) {
			t.Parallel()
			v := stemcell(t, test.files)
			got, err := v.Bus()
			no(t, err)
			want := boshvm.Bus{
				URLs: test.urls, CA: test.word + " CA", Cert: test.word + " certificate", Key: test.word + " key",
				CertFrom: filepath.Join(v.Root, test.from),
			}
			if diff := cmp.Diff(want, got); diff != "" {
				t.Errorf("-want +got:\n%s", diff)
			}
		})
	}
	_, err := stemcell(t, map[string]string{"bosh/settings.json": `{"mbus":"https://mbus:secret@0.0.0.0:6868"}`}).Bus()
	if !errors.Is(err, boshvm.ErrNoBus) {
		t.Errorf("the agent of a director's own VM: %v", err)
	}
}

func TestWhichDisksThereAre(t *testing.T) {
	t.Parallel()
	const persistent = `{` + agentID + `,"disks":{"persistent":{"vol-1":"/dev/sdf","vol-0":{"path":"/dev/sdg"}}}}`
	for _, test := range []struct {
		name    string
		files   map[string]string
		mounted []string
		want    func(v boshvm.VM) []boshvm.Disk
	}{
		{"none", map[string]string{"bosh/settings.json": `{` + agentID + `,"disks":{"persistent":null}}`}, nil,
			func(boshvm.VM) []boshvm.Disk { return []boshvm.Disk{} }},
		{"the managed one, and one that is no longer attached", map[string]string{
			"bosh/settings.json": persistent, "bosh/managed_disk_settings.json": "vol-1",
		}, []string{"store"}, func(v boshvm.VM) []boshvm.Disk {
			return []boshvm.Disk{{CID: "vol-0"}, {CID: "vol-1", Attached: true, Mounts: []string{v.Root + "/store"}}}
		}},
		{"the managed one, detached", map[string]string{
			"bosh/settings.json": persistent, "bosh/managed_disk_settings.json": "vol-1\n",
		}, nil, func(boshvm.VM) []boshvm.Disk { return []boshvm.Disk{{CID: "vol-0"}, {CID: "vol-1"}} }},
		{"one that came with a hint", map[string]string{
			"bosh/settings.json":                        `{` + agentID + `}`,
			"bosh/settings/persistent_disk_hints.json":  `{"vol-2":{"ID":"vol-2","Path":"/dev/sdh","Lun":""}}`,
			"bosh/settings/managed_disk_settings.json":  "vol-2",
			"bosh/settings/unrelated_disk_settings.txt": "vol-9",
		}, []string{"store"}, func(v boshvm.VM) []boshvm.Disk {
			return []boshvm.Disk{{CID: "vol-2", Attached: true, Mounts: []string{v.Root + "/store"}}}
		}},
		{"named ones, of which one is attached", map[string]string{
			"bosh/settings.json":        persistent,
			"bosh/update_settings.json": `{"disk_associations":[{"name":"data","cid":"vol-1"},{"name":"log","cid":"vol-0"}]}`,
			"instance/disks/data":       "-> /dev/null", "instance/disks/log": "-> /dev/gone",
		}, nil, func(v boshvm.VM) []boshvm.Disk {
			return []boshvm.Disk{{CID: "vol-0", Name: "log"}, {CID: "vol-1", Name: "data", Attached: true, Device: v.Root + "/instance/disks/data"}}
		}},
	} {
		t.Run(test.name, func(t *testing.T) {
			t.Parallel()
			v := stemcell(t, test.files)
			put(t, v, map[string]string{"mountinfo": mounts(v, test.mounted...)})
			got, err := v.Disks()
			no(t, err)
			if diff := cmp.Diff(test.want(v), got); diff != "" {
				t.Errorf("-want +got:\n%s", diff)
			}
		})
	}
	v := stemcell(t, map[string]string{"bosh/settings.json": persistent, "bosh/managed_disk_settings.json": "vol-1"})
	put(t, v, map[string]string{"mountinfo": mounts(v, "store", "store_migration_target")})
	if _, err := v.Disks(); !errors.Is(err, boshvm.ErrMigrating) {
		t.Errorf("while a disk is migrated: %v", err)
	}
}

func TestAFileThatIsBeingWrittenIsReadAgain(t *testing.T) {
	t.Parallel()
	whole := `{` + agentID + `,"mbus":"nats://a:4222"}`
	v := stemcell(t, map[string]string{"bosh/settings.json": "", "bosh/managed_disk_settings.json": ""})
	var writing sync.WaitGroup
	writing.Go(func() {
		for _, text := range []string{whole[:5], whole[:20], whole} {
			time.Sleep(20 * time.Millisecond)
			put(t, v, map[string]string{"bosh/settings.json": text})
		}
		put(t, v, map[string]string{"bosh/managed_disk_settings.json": "vol-1"})
	})
	defer writing.Wait()
	bus, err := v.Bus()
	no(t, err)
	if diff := cmp.Diff([]string{"nats://a:4222"}, bus.URLs); diff != "" {
		t.Errorf("-want +got:\n%s", diff)
	}
	disks, err := v.Disks()
	no(t, err)
	if diff := cmp.Diff([]boshvm.Disk{{CID: "vol-1"}}, disks); diff != "" {
		t.Errorf("-want +got:\n%s", diff)
	}
}

func TestErrorsNameFileAndKeyAndNoSecret(t *testing.T) {
	t.Parallel()
	const secret = "s3cr3t"
	for _, test := range []struct {
		name  string
		files map[string]string
		want  []string
	}{
		{"no settings", nil, []string{"/bosh/settings.json: no such file or directory"}},
		{"no agent id", map[string]string{"bosh/settings.json": `{"x":"` + secret + `"}`}, []string{"/bosh/settings.json", "has no agent_id"}},
		{"no JSON", map[string]string{"bosh/settings.json": `{` + agentID + `,"mbus":` + secret + `}`}, []string{"/bosh/settings.json", "it is no JSON at byte 30 of 36"}},
		{"a number for a key", map[string]string{
			"bosh/settings.json": `{` + agentID + `,"env":{"bosh":{"mbus":{"cert":{"private_key":737373}}}}}`,
		}, []string{"/bosh/settings.json", "env.bosh.mbus.cert.private_key: it is a JSON number"}},
		{"a list for the whole", map[string]string{"bosh/settings.json": `["` + secret + `"]`}, []string{"the whole: it is a JSON array"}},
		{"no URL", map[string]string{"bosh/settings.json": `{` + agentID + `}`}, []string{"has neither mbus nor env.bosh.mbus.urls"}},
		{"half a certificate", map[string]string{
			"bosh/settings.json":        `{` + agentID + `,"mbus":"nats://a:1"}`,
			"bosh/update_settings.json": `{"mbus":{"cert":{"ca":"x","certificate":"` + secret + `"}}}`,
		}, []string{"/bosh/update_settings.json", "mbus.cert.ca, but no certificate or no private_key"}},
		{"a disk's name that leads elsewhere", map[string]string{
			"bosh/settings.json":        `{` + agentID + `,"mbus":"nats://a:1"}`,
			"bosh/update_settings.json": `{"disk_associations":[{"name":"../x","cid":"vol-1"}]}`,
		}, []string{"/bosh/update_settings.json", "disk_associations[0]"}},
		{"an empty file for a CID", map[string]string{
			"bosh/settings.json": `{` + agentID + `,"mbus":"nats://a:1"}`, "bosh/managed_disk_settings.json": "",
		}, []string{"/bosh/managed_disk_settings.json", "it holds no CID"}},
	} {
		t.Run(test.name, func(t *testing.T) {
			t.Parallel()
			v := stemcell(t, test.files)
			_, inErr := v.Instance()
			_, busErr := v.Bus()
			_, disksErr := v.Disks()
			got := errors.Join(inErr, busErr, disksErr)
			for _, want := range test.want {
				if got == nil || !strings.Contains(got.Error(), want) {
					t.Errorf("the error is %v, without %q", got, want)
				}
			}
			for _, one := range []string{secret, "737373"} {
				if got != nil && strings.Contains(got.Error(), one) {
					t.Errorf("the error quotes what the file holds: %v", got)
				}
			}
		})
	}
}

func TestWhetherThereIsAStemcell(t *testing.T) {
	t.Parallel()
	if (boshvm.VM{Root: t.TempDir()}).Exists() {
		t.Error("an empty directory is a VM of BOSH")
	}
	if !stemcell(t, map[string]string{"bosh/agent.json": "{}"}).Exists() {
		t.Error("a stemcell that has not booted yet is none")
	}
}

func FuzzParsers(f *testing.F) {
	for _, seed := range []string{
		`{` + agentID + `,"mbus":"nats://a:1","env":{"bosh":{"mbus":{"urls":["nats://a:1"],` + cert("x") + `}}},"disks":{"persistent":{"v":{"path":"p"}}}}`,
		`{"disk_associations":[{"name":"data","cid":"vol-1"}],"mbus":{"urls":null}}`,
		`{"deployment":"cf","job":{"name":"db"},"index":1}`, "vol-1\n", "", "[", "null", "1e9",
	} {
		f.Add([]byte(seed))
	}
	f.Fuzz(func(t *testing.T, text []byte) {
		for name, parse := range map[string]func([]byte) error{
			"settings": boshvm.ParseSettings, "updates": boshvm.ParseUpdates, "spec": boshvm.ParseSpec, "CID": boshvm.ParseCID,
		} {
			if err := parse(text); err != nil && (len(err.Error()) > 200 || strings.Contains(err.Error(), "\n")) {
				t.Errorf("%s: the error is %q", name, err)
			}
		}
	})
}
