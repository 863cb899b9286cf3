package cpi_test

import (
	"strings"
	"testing"

	"github.com/quiesced/quiesced/cpi"
)

func TestAnErrorThatTheCPIReportsHasNoSecrets(t *testing.T) {
	const key = "-----BEGIN KEY-----\nMIIEpAIBAAKCAQEA0\nshort\n-----END KEY-----\n"
	for _, test := range []struct {
		name, kind, message string
		want                string
	}{
		{"a password", "Bosh::Clouds::CloudError", "401 for admin:hunter2@host", "401 for …:…@host"},
		{"a password in a URL", "Bosh::Clouds::CloudError", "GET https://p%40ss+w%2Frd@host and p@ss%20w%2Frd", "GET https://…@host and …"},
		{"a password of digits", "Bosh::Clouds::CloudError", "PIN 31415926 is wrong at port 8443", "PIN … is wrong at port 8443"},
		{"a key, line by line", "Bosh::Clouds::CloudError", "bad: -----BEGIN KEY-----; bad: MIIEpAIBAAKCAQEA0; short", "bad: …; bad: …; short"},
		{"a type that is none", "hunter2::Error", "x", `"…::Error"`},
		{"the director's name", "Bosh::Clouds::CloudError", "for dir-uuid-1", "for dir-uuid-1"},
	} {
		t.Run(test.name, func(t *testing.T) {
			c, _ := newClient(t, `cat >/dev/null; printf '%s' '{"result":null,"error":{"type":"`+test.kind+`","message":"`+
				test.message+`","ok_to_retry":false},"log":"hunter2"}'`)
			c.Context = map[string]any{
				"director_uuid": "dir-uuid-1", "user": "admin", "password": "hunter2", "other": "p@ss w/rd", "pin": 31415926, "port": 8443,
				"nested": []any{map[string]any{"key": key}},
			}
			_, err := c.Do(withPatience(t), "", "snapshot_disk", "disk-1", metadata())
			if e := wantError[*cpi.Error](t, err); !strings.Contains(e.Error(), test.want) {
				t.Errorf("the error is %q, want %q", e, test.want)
			}
		})
	}
}
