package natsapi_test

import (
	"fmt"
	"strings"
	"testing"

	"github.com/quiesced/quiesced/agent/api/apitest"
)

// What is for bosh-agent, or for nobody, is nothing to the audit.
func TestWhatIsNotAnsweredIsNotTold(t *testing.T) {
	t.Parallel()
	d, bus := apitest.Start(t), apitest.StartBus(t)
	client := d.OnBus(t, bus)
	before := len(d.Audited())
	conn := apitest.Connect(t, bus, "director")
	for _, data := range [][]byte{
		request("get_task", replyTo, "task-1"),
		request("run_errand", replyTo, "secret"),
		request("quiesced_info", replyTo+".five"),
		[]byte(`{"method":"quiesced_info"`),
	} {
		no(t, conn.Publish("agent."+apitest.AgentID, data))
	}
	ask(t, conn, request("quiesced_nothing", replyTo, "secret"), 1)
	_, err := client.Call(t.Context(), "status")
	no(t, err)

	var lines []string
	for _, e := range d.Audited()[before:] {
		lines = append(lines, e.String())
		if want := fmt.Sprintf("director.%s.%s.", apitest.DirectorUUID, apitest.AgentID); !strings.HasPrefix(e.By, want) {
			t.Errorf("who called is %q, want %q", e.By, want)
		}
		if !strings.HasPrefix(e.From, "127.0.0.1:") {
			t.Errorf("the bus is at %q", e.From)
		}
	}
	all := strings.Join(lines, "\n")
	if len(lines) != 2 || strings.Contains(all, "secret") || !strings.Contains(lines[0], "|quiesced_nothing|7|") || !strings.Contains(lines[1], "|quiesced_status|1|") {
		t.Errorf("the audit has\n%s", all)
	}
}
