package natsapi_test

import (
	"strings"
	"testing"

	"github.com/quiesced/quiesced/agent/api/apitest"
	"github.com/quiesced/quiesced/agent/natsapi"
)

const replyTo = "director.probe-uuid." + apitest.AgentID + ".req-1"

func TestAnswersGoToCleanReplySubjectsOfThisAgent(t *testing.T) {
	for _, test := range []struct {
		name, replyTo string
		want          bool
	}{
		{"the director's own", replyTo, true},
		{"a request id of any characters", replyTo + "_é#", true},
		{"another agent's", "director.probe-uuid.11111111-aaaa-4bbb-8ccc-000000000002.req-1", false},
		{"another's subject", "hm.agent." + apitest.AgentID + ".req-1", false},
		{"nothing", "", false},
		{"three tokens", "director.probe-uuid." + apitest.AgentID, false},
		{"five tokens", replyTo + ".more", false},
		{"an empty token", "director.." + apitest.AgentID + ".req-1", false},
		{"an empty last token", "director.probe-uuid." + apitest.AgentID + ".", false},
		{"a wildcard", "director.*." + apitest.AgentID + ".req-1", false},
		{"a full wildcard", "director.probe-uuid." + apitest.AgentID + ".>", false},
		{"a space", replyTo + " x", false},
		{"a second line of the bus's protocol", replyTo + " 0\r\n\r\nPUB hm.agent.alert.x 2\r\n{}", false},
		{"the longest", replyTo + strings.Repeat("x", natsapi.MaxReplyTo-len(replyTo)), true},
		{"too long for the bus", replyTo + strings.Repeat("x", natsapi.MaxReplyTo-len(replyTo)+1), false},
	} {
		t.Run(test.name, func(t *testing.T) {
			if _, got := natsapi.Admitted(request("info", test.replyTo), apitest.AgentID); got != test.want {
				t.Errorf("%q is answered: %t", test.replyTo, got)
			}
		})
	}
}

func FuzzParse(f *testing.F) {
	for _, g := range golden(f) {
		f.Add([]byte(g.Request))
	}
	f.Fuzz(func(t *testing.T, data []byte) {
		replyTo, ok := natsapi.Admitted(data, apitest.AgentID)
		if !ok {
			return
		}
		tokens := strings.Split(replyTo, ".")
		if len(tokens) != 4 || tokens[0] != "director" || tokens[2] != apitest.AgentID || tokens[1] == "" || tokens[3] == "" {
			t.Errorf("an answer goes to %q", replyTo)
		}
		if strings.ContainsAny(replyTo, "*> \t\r\n") || len(replyTo) > natsapi.MaxReplyTo {
			t.Errorf("an answer goes to %q", replyTo)
		}
	})
}
