package main

import (
	"encoding/json"
	"fmt"
	"os"
	"testing"
	"time"

	"github.com/quiesced/quiesced/agent/api/apitest"
)

// onDirectorBus moves a world onto a bus with TLS and certificates. The director's can be
// read by its workers' group alone.
func (w *world) onDirectorBus(b *apitest.DirectorBus, settings string) {
	w.t.Helper()
	w.end()
	agent := b.Config(w.t, b.Authority.Issue(w.t, apitest.AgentCN))
	ca, cert, key := b.Authority.Files(w.t, w.dir+"/director", b.Authority.Issue(w.t, apitest.DirectorCN))
	w.must(os.Chmod(w.dir+"/director", 0o755))
	for _, path := range []string{ca, cert, key} {
		w.must(os.Chown(path, 0, vcap))
		w.must(os.Chmod(path, 0o640))
	}
	text, err := json.Marshal(map[string]string{"server_ca_path": ca, "client_certificate_path": cert, "client_private_key_path": key})
	w.must(err)
	w.certificates = string(text)
	w.configure(b.URL, settings)
	w.start(b.URL, fmt.Sprintf(", ca: %s, cert: %s, key: %s", agent.CA, agent.Cert, agent.Key))
}

func TestOnADirectorsBusItsOwnCertificateIsEnough(t *testing.T) {
	t.Parallel()
	w := newWorld(t, answered("snap-1"), "")
	b := apitest.StartDirectorBus(t, true)
	w.onDirectorBus(b, "")
	w.eventually("the daemon is on the bus", w.onBus)
	heard, err := b.Connect(t, apitest.MonitorCN).SubscribeSync("hm.director.alert")
	w.must(err)
	w.mustAnswer(w.call(w.request("disk-1")), "snap-1")
	w.mustThaw()
	w.mustCatalogue("snap-1", true)

	w.end()
	w.mustAnswer(w.call(w.request("disk-1")), "snap-1")
	m, err := heard.NextMsg(patience)
	w.must(err)
	w.contains("the alert", string(m.Data), "cannot bring cf/db", `"severity":3`)
}

func TestABusThatIsNotTheDirectorsIsNotTrusted(t *testing.T) {
	t.Parallel()
	w := newWorld(t, answered("snap-1"), "")
	b := apitest.StartDirectorBus(t, false)
	b.Stop()
	b.Configure(t, b.Authority.Issue(t, "default.other.bosh-internal"), apitest.AgentCN)
	b.Start(t)
	w.onDirectorBus(b, "policy: fail")
	a := w.call(w.request("disk-1"))
	w.contains("stdout", a.stdout, "Bosh::Clouds::CloudError", "cannot trust the bus")
	if w.exists("request") || a.took > 10*time.Second {
		t.Errorf("the CPI was called, or it took %v", a.took)
	}
}
