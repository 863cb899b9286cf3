package main

import (
	"encoding/json"
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"

	"github.com/quiesced/quiesced/agent"
	"github.com/quiesced/quiesced/agent/api"
	"github.com/quiesced/quiesced/agent/api/apitest"
	"github.com/quiesced/quiesced/agent/natsapi"
)

// boshConfig leaves to the stemcell's files what they can tell.
const boshConfig = `enable_snapshots: true
bosh: {root: %[1]s}
state_dir: %[1]s/state
listen: {socket: %[1]s/run/q.sock, metrics: ""}
cpi: {path: %[2]s, context: {root: %[3]s}}
`

// onStemcell makes the world one of a stemcell's VMs, under its director.
func (w *world) onStemcell(bus *apitest.DirectorBus, cn string) {
	w.t.Helper()
	w.configure(func(string) string { return fmt.Sprintf(boshConfig, w.dir, w.cpi, w.root) })
	w.stemcellFile("bosh/settings/settings.json", map[string]any{
		"agent_id": apitest.AgentID,
		"mbus":     "nats://127.0.0.1:1",
		"env":      map[string]any{"bosh": map[string]any{"mbus": mbus(bus, bus.Authority.Issue(w.t, cn), bus.URL)}},
		"disks":    map[string]any{"persistent": map[string]any{w.cid: "/dev/sdf", "disk-old": "/dev/sdg"}},
	})
	w.stemcellFile("bosh/spec.json", map[string]any{"deployment": "cf", "name": "db", "index": 3, "id": "inst-1", "az": "z1"})
	w.must(os.WriteFile(filepath.Join(w.dir, "bosh/managed_disk_settings.json"), []byte(w.cid), 0o600))
}

func mbus(bus *apitest.DirectorBus, p apitest.Pair, urls ...string) map[string]any {
	return map[string]any{"urls": urls, "cert": map[string]any{
		"ca": string(bus.Authority.CA), "certificate": string(p.Cert), "private_key": string(p.Key),
	}}
}

func (w *world) stemcellFile(name string, value any) {
	w.t.Helper()
	doc, err := json.Marshal(value)
	w.must(err)
	path := filepath.Join(w.dir, name)
	w.must(os.MkdirAll(filepath.Dir(path), 0o700))
	w.must(os.WriteFile(path, doc, 0o600))
}

func TestUnderADirectorNothingNeedsToBeConfigured(t *testing.T) {
	w, bus := newWorld(t), apitest.StartDirectorBus(t, false)
	w.onStemcell(bus, apitest.AgentCN)
	w.start()
	c := api.Client{Caller: bus.Client(t)}
	apitest.AwaitAnswer(t, c.Caller)

	info, err := c.Info(t.Context())
	w.must(err)
	want := api.Instance{Deployment: "cf", Job: "db", Index: 3, ID: "inst-1", AgentID: apitest.AgentID}
	if diff := cmp.Diff(want, info.Instance); diff != "" {
		t.Errorf("-want +got:\n%s", diff)
	}
	id, err := c.Take(t.Context(), agent.Request{})
	w.must(err)
	report, err := c.Report(t.Context(), id)
	w.must(err)
	if !report.Clean || len(report.Disks) != 1 || report.Disks[0].CID != w.cid {
		t.Errorf("the report is %+v", report)
	}
	_, err = c.Take(t.Context(), agent.Request{Disks: []string{"disk-old"}})
	if api.KindOf(err) != api.KindRefused || !strings.Contains(err.Error(), `"disk-old"`) {
		t.Errorf("a disk that is known and not attached: %v", err)
	}

	// The disk goes away under the daemon.
	w.must(os.Remove(filepath.Join(w.dir, "bosh/managed_disk_settings.json")))
	_, err = c.Take(t.Context(), agent.Request{Disks: []string{w.cid}})
	if api.KindOf(err) != api.KindRefused {
		t.Errorf("a disk that is attached no more: %v", err)
	}
}

func TestTheHealthMonitorHearsOfAFailure(t *testing.T) {
	w, bus := newWorld(t), apitest.StartDirectorBus(t, false)
	w.onStemcell(bus, apitest.AgentCN)
	w.script("exit 1\n")
	alerts, err := bus.Connect(t, apitest.MonitorCN).SubscribeSync("hm.agent.alert.*")
	w.must(err)
	w.start()
	c := api.Client{Caller: bus.Client(t)}
	apitest.AwaitAnswer(t, c.Caller)
	id, err := c.Take(t.Context(), agent.Request{})
	w.must(err)
	m, err := alerts.NextMsg(20 * time.Second)
	w.must(err)
	var got natsapi.Alert
	w.must(json.Unmarshal(m.Data, &got))
	if m.Subject != "hm.agent.alert."+apitest.AgentID || got.ID != id || got.Severity != natsapi.SeverityError ||
		!strings.Contains(got.Summary, w.cid) || time.Since(time.Unix(got.CreatedAt, 0)) > time.Minute {
		t.Errorf("on %s comes %s", m.Subject, m.Data)
	}
}

// The bootstrap certificate is good until the director knows the permanent one.
func TestThePermanentCertificateTakesTheBootstrapOnesPlace(t *testing.T) {
	w, bus := newWorld(t), apitest.StartDirectorBus(t, false)
	bus.Stop()
	bus.Configure(t, bus.Authority.Issue(t, apitest.ServerCN), apitest.BootstrapCN)
	bus.Start(t)
	w.onStemcell(bus, apitest.BootstrapCN)
	log, err := os.Create(filepath.Join(w.dir, "log"))
	w.must(err)
	defer log.Close()
	w.logTo = log
	w.start()
	c := api.Client{Caller: bus.Client(t)}
	apitest.AwaitAnswer(t, c.Caller)

	bus.Stop()
	bus.Configure(t, bus.Authority.Issue(t, apitest.ServerCN), apitest.AgentCN)
	bus.Start(t)
	w.eventually("the daemon is turned away", func() bool { return strings.Contains(mustRead(t, log.Name()), "the bus is away") })
	if _, err := (api.Client{Caller: bus.Client(t)}).Info(t.Context()); api.KindOf(err) != api.KindUnreachable {
		t.Errorf("with the bootstrap certificate: %v", err)
	}
	w.stemcellFile("bosh/update_settings.json", map[string]any{"mbus": mbus(bus, bus.Authority.Issue(t, apitest.AgentCN))})
	apitest.AwaitAnswer(t, bus.Client(t))
}

func TestCheckConfigShowsWhatTheStemcellSays(t *testing.T) {
	w, bus := newWorld(t), apitest.StartDirectorBus(t, false)
	w.onStemcell(bus, apitest.AgentCN)
	r := w.run("check-config")
	for _, want := range []string{
		"db/inst-1 (index 3) of deployment \"cf\", agent " + apitest.AgentID,
		"Bus: " + bus.URL + " as " + apitest.AgentCN + " until ", "by " + w.dir + "/bosh/settings/settings.json",
		"Disk disk-1: " + w.store, "Disk disk-old: known, not attached",
	} {
		if r.code != exitOK || !strings.Contains(r.out, want) {
			t.Errorf("it ends with %d, without %q:\n%s%s", r.code, want, r.out, r.err)
		}
	}
	var doc machine
	w.must(json.Unmarshal([]byte(w.run("check-config", "--json").out), &doc))
	if doc.BOSH == nil || doc.BOSH.Bus.Certificate != apitest.AgentCN || len(doc.BOSH.Disks) != 2 || len(doc.Filesystems) != 1 {
		t.Errorf("in JSON: %+v", doc)
	}

	w.must(os.WriteFile(filepath.Join(w.dir, "bosh/settings/settings.json"), []byte(`{"agent_id":"x","mbus":`), 0o600))
	r = w.run("check-config")
	if r.code != exitUsage || !strings.Contains(r.err, "settings.json") || !strings.Contains(r.err, "it is no JSON at byte") {
		t.Errorf("settings that are cut short: %d %s", r.code, r.err)
	}
	w.must(os.RemoveAll(filepath.Join(w.dir, "bosh")))
	r = w.run("check-config")
	if r.code != exitUsage || !strings.Contains(r.err, "instance.job: needed when enable_snapshots is true, and bosh.root") {
		t.Errorf("no stemcell: %d %s", r.code, r.err)
	}
	if r := w.run("check-config", "--static"); r.code != exitOK {
		t.Errorf("without a look at the machine: %s", r.err)
	}
}

func TestOnlyADirectorsVMTakesSnapshotsAsOne(t *testing.T) {
	w, bus := newWorld(t), apitest.StartDirectorBus(t, false)
	w.onStemcell(bus, apitest.AgentCN)
	w.appendConfig(fmt.Sprintf("self_snapshot_schedule: %q\n", everySecond))
	scheduled := func() []api.Scheduled {
		w.start()
		defer w.end()
		var s api.Status
		w.must(json.Unmarshal([]byte(w.run("status", "--json").out), &s))
		return s.Scheduled
	}
	const why = "has no job \"director\", so this is no director's VM"
	if all := scheduled(); len(all) != 0 || !strings.Contains(w.log.String(), "self_snapshot_schedule: ") {
		t.Errorf("scheduled are %+v, the log says\n%s", all, w.log)
	}
	w.mustSay(w.run("check-config"), exitUsage, why)
	w.must(os.MkdirAll(filepath.Join(w.dir, "jobs/director"), 0o700))
	if all := scheduled(); len(all) != 1 || all[0].Trigger != "self" {
		t.Errorf("on a director's VM scheduled are %+v", all)
	}
	w.mustSay(w.run("check-config"), exitOK)
}
