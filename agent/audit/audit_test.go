package audit_test

import (
	"os"
	"regexp"
	"strings"
	"testing"
	"unicode"
	"unicode/utf8"

	"github.com/quiesced/quiesced/agent/audit"
)

func TestLines(t *testing.T) {
	host, err := os.Hostname()
	if err != nil {
		t.Fatal(err)
	}
	director := "director.80f6.1111.6f1c"
	for _, test := range []struct {
		name  string
		event audit.Event
		want  string
	}{
		{
			"a request on the bus has bosh-agent's line",
			audit.Event{Method: "quiesced_status", By: director, From: "10.0.0.6:4222"},
			"quiesced_status|1|duser=director.80f6.1111.6f1c src=10.0.0.6 spt=4222 shost=HOST",
		},
		{
			"a failure has its sort",
			audit.Event{Method: "take_snapshot", By: director, From: "10.0.0.6:4222", ID: "run-1", Failed: "busy"},
			"take_snapshot|7|duser=director.80f6.1111.6f1c src=10.0.0.6 spt=4222 shost=HOST cs1=busy cs1Label=statusReason cs2=run-1 cs2Label=requestId",
		},
		{
			"who comes from this machine has no address",
			audit.Event{Method: "info", By: "uid 0 (pid 1)"},
			"info|1|duser=uid 0 (pid 1) shost=HOST",
		},
		{
			"an address of IPv6 has no brackets",
			audit.Event{Method: "info", By: "x", From: "[fe80::1%eth0]:6868"},
			"info|1|duser=x src=fe80::1%eth0 spt=6868 shost=HOST",
		},
		{
			"a bar ends no header and is nothing to a value",
			audit.Event{Method: `a|10|duser=root`, By: `a|b`},
			`a\|10\|duser=root|1|duser=a|b shost=HOST`,
		},
		{
			"an equals sign begins no value",
			audit.Event{Method: "info", By: `x src=10.0.0.1 cs1=y`},
			`info|1|duser=x src\=10.0.0.1 cs1\=y shost=HOST`,
		},
		{
			"a backslash escapes nothing",
			audit.Event{Method: `a\`, By: `b\`},
			`a\\|1|duser=b\\ shost=HOST`,
		},
		{
			"there is one line",
			audit.Event{Method: "a\nCEF:0|b", By: "c\r\nd\u2028e\x1b[2J\u202ef\xff"},
			"a\ufffdCEF:0\\|b|1|duser=c\ufffd\ufffdd\ufffde\ufffd[2J\ufffdf\ufffd shost=HOST",
		},
		{
			"what is no id is not repeated",
			audit.Event{Method: "get_task", By: "x", ID: "password: hunter2"},
			"get_task|1|duser=x shost=HOST",
		},
		{
			"what is long is cut",
			audit.Event{Method: strings.Repeat("m", 5000), By: strings.Repeat("ü", 5000)},
			strings.Repeat("m", 256) + "…|1|duser=" + strings.Repeat("ü", 128) + "… shost=HOST",
		},
	} {
		t.Run(test.name, func(t *testing.T) {
			want := "CEF:0|CloudFoundry|BOSH|1|agent_api|" + strings.ReplaceAll(test.want, "HOST", host)
			if got := test.event.String(); got != want {
				t.Errorf("the line is\n%s, want\n%s", got, want)
			}
		})
	}
}

// line reads a line as a receiver of the format does.
var (
	line = regexp.MustCompile(`^CEF:0\|CloudFoundry\|BOSH\|1\|agent_api\|((?:[^|\\]|\\\\|\\\|)*)\|([17])\|(.*)$`)
	key  = regexp.MustCompile(`(?:^| )([A-Za-z0-9]+)=`)
)

func FuzzWhatACallerChoosesStaysInItsPlace(f *testing.F) {
	f.Add("info", "uid 0 (pid 1)", "127.0.0.1:1", "run-1", "")
	f.Add(`a|b\`, "x=y z=\\", "[::1]:2", "a b", "bu=sy")
	f.Add("\n\r\x00", "\u2028\u202e", ":", "-", "\x7f")
	f.Fuzz(func(t *testing.T, method, by, from, id, why string) {
		got := audit.Event{Method: method, By: by, From: from, ID: id, Failed: why}.String()
		if len(got) > 10*1024 || !utf8.ValidString(got) || strings.ContainsFunc(got, func(r rune) bool { return !unicode.IsPrint(r) }) {
			t.Fatalf("the line is %q", got)
		}
		parts := line.FindStringSubmatch(got)
		if parts == nil || (parts[2] == "7") != (why != "") {
			t.Fatalf("the line is %q", got)
		}
		at := 0
		order := []string{"duser", "src", "spt", "shost", "cs1", "cs1Label", "cs2", "cs2Label"}
		for _, k := range key.FindAllStringSubmatch(parts[3], -1) {
			for at < len(order) && order[at] != k[1] {
				at++
			}
			if at == len(order) {
				t.Fatalf("the key %q is where none should be: %q", k[1], got)
			}
			at++
		}
	})
}
