package httpapi_test

import (
	"context"
	"crypto/tls"
	"crypto/x509"
	"fmt"
	"io"
	"net"
	"net/url"
	"os"
	"strings"
	"testing"
	"time"

	"github.com/quiesced/quiesced/agent/api"
	"github.com/quiesced/quiesced/agent/api/apitest"
	"github.com/quiesced/quiesced/agent/httpapi"
)

// callTCP calls info and says what became of it.
func callTCP(t *testing.T, address string, f httpapi.Files) string {
	t.Helper()
	client, err := httpapi.NewTCPClient(address, f)
	no(t, err)
	if _, err := client.Call(t.Context(), "info"); err != nil {
		return fmt.Sprint(api.KindOf(err), " ", err)
	}
	return "served"
}

func TestWhoIsServedOverTCP(t *testing.T) {
	ours, theirs := apitest.NewAuthority(t), apitest.NewAuthority(t)
	d := apitest.Start(t)
	address := d.ServeTCP(t, ours.PeerFiles(t, "quiesced", apitest.Loopback))
	named := func(change func(*x509.Certificate)) httpapi.Files { return ours.PeerFiles(t, "somebody", change) }
	signed := func(a *apitest.Authority, change ...func(*x509.Certificate)) httpapi.Files {
		f := a.PeerFiles(t, apitest.ClientName, change...)
		f.CA = ours.PeerFiles(t, "x").CA // the daemon is the right one
		return f
	}
	for _, test := range []struct {
		name  string
		files httpapi.Files
		want  string
	}{
		{"the right CN", signed(ours), "served"},
		{"the right DNS name", named(func(c *x509.Certificate) { c.DNSNames = []string{"x", apitest.ClientName} }), "served"},
		{"the right name of mail", named(func(c *x509.Certificate) { c.EmailAddresses = []string{apitest.ClientName} }), "served"},
		{"the right URI", named(func(c *x509.Certificate) { c.URIs = []*url.URL{{Path: apitest.ClientName}} }), "served"},
		{"another name", ours.PeerFiles(t, "db.example.org"), `forbidden certificate of ["db.example.org"] may not call info`},
		{"a name that begins so", ours.PeerFiles(t, apitest.ClientName+".evil"), "forbidden "},
		{"a wildcard", ours.PeerFiles(t, "*.example.org"), "forbidden "},
		{"no name", ours.PeerFiles(t, ""), "forbidden "},
		{"another CA", signed(theirs), "unreachable "},
		{"expired", signed(ours, apitest.Expired), "unreachable "},
		{"not valid yet", signed(ours, func(c *x509.Certificate) { c.NotBefore = time.Now().AddDate(0, 0, 1) }), "unreachable "},
		{"for servers alone", signed(ours, func(c *x509.Certificate) { c.ExtKeyUsage = []x509.ExtKeyUsage{x509.ExtKeyUsageServerAuth} }), "unreachable "},
	} {
		t.Run(test.name, func(t *testing.T) {
			if got := callTCP(t, address, test.files); !strings.HasPrefix(got, test.want) {
				t.Errorf("the caller is told %q, want %q", got, test.want)
			}
		})
	}
	var audited []string
	for _, e := range d.Audited() {
		audited = append(audited, e.Failed+" "+e.By+" "+e.From)
	}
	all := strings.Join(audited, "\n")
	if !strings.Contains(all, "forbidden certificate of [\"db.example.org\"] 127.0.0.1:") || !strings.Contains(all, " certificate of "+apitest.ClientName+" 127.0.0.1:") {
		t.Errorf("the audit has\n%s", all)
	}
}

func TestWhoSpeaksNoTLSOfTodayIsNotServed(t *testing.T) {
	a := apitest.NewAuthority(t)
	address := apitest.Start(t).ServeTCP(t, a.PeerFiles(t, "quiesced", apitest.Loopback))
	client := a.PeerFiles(t, apitest.ClientName)
	pair, err := tls.LoadX509KeyPair(client.Cert, client.Key)
	no(t, err)
	for _, test := range []struct {
		name   string
		config *tls.Config
	}{
		{"no certificate", &tls.Config{InsecureSkipVerify: true}},
		{"TLS 1.1", &tls.Config{InsecureSkipVerify: true, Certificates: []tls.Certificate{pair}, MinVersion: tls.VersionTLS11, MaxVersion: tls.VersionTLS11}},
	} {
		t.Run(test.name, func(t *testing.T) {
			c, err := tls.Dial("tcp", address, test.config)
			if err == nil { // in TLS 1.3 a client is done before the server has looked
				defer c.Close()
				_, _ = io.WriteString(c, "POST /v1/info HTTP/1.1\r\nHost: x\r\n\r\n")
				_, err = c.Read(make([]byte, 1))
			}
			says(t, err, "remote error: tls: ")
		})
	}
	t.Run("no TLS", func(t *testing.T) {
		c, err := net.Dial("tcp", address)
		no(t, err)
		defer c.Close()
		_, err = io.WriteString(c, "POST /v1/info HTTP/1.1\r\nHost: x\r\n\r\n")
		no(t, err)
		answer, _ := io.ReadAll(c) // may end with a reset
		if !strings.HasPrefix(string(answer), "HTTP/1.0 400 ") {
			t.Errorf("the answer is %q", answer)
		}
	})
}

func TestAClientWantsTheRightDaemon(t *testing.T) {
	ours, theirs := apitest.NewAuthority(t), apitest.NewAuthority(t)
	d := apitest.Start(t)
	client := ours.PeerFiles(t, apitest.ClientName)
	for name, server := range map[string]httpapi.Files{
		"another CA":   theirs.PeerFiles(t, "quiesced", apitest.Loopback),
		"another host": ours.PeerFiles(t, "quiesced"),
	} {
		t.Run(name, func(t *testing.T) {
			address := d.ServeTCP(t, server)
			want := "unreachable no daemon answers on " + address + ": "
			if got := callTCP(t, address, client); !strings.HasPrefix(got, want) || !strings.Contains(got, "x509: ") {
				t.Errorf("the client says %q, want %q", got, want)
			}
		})
	}
}

func TestCertificatesAreReplacedUnderARunningDaemon(t *testing.T) {
	before, after := apitest.NewAuthority(t), apitest.NewAuthority(t)
	files := before.PeerFiles(t, "quiesced", apitest.Loopback)
	address := apitest.Start(t).ServeTCP(t, files)
	old, young := before.PeerFiles(t, apitest.ClientName), after.PeerFiles(t, apitest.ClientName)
	if got := callTCP(t, address, old); got != "served" {
		t.Fatalf("before: %s", got)
	}
	no(t, os.Truncate(files.Key, 10))
	if got := callTCP(t, address, old); !strings.HasPrefix(got, "unreachable ") {
		t.Errorf("with half a key: %s", got)
	}
	next := after.PeerFiles(t, "quiesced", apitest.Loopback)
	for from, to := range map[string]string{next.CA: files.CA, next.Cert: files.Cert, next.Key: files.Key} {
		text, err := os.ReadFile(from)
		no(t, err)
		no(t, os.WriteFile(to, text, 0o600))
	}
	if got := callTCP(t, address, young); got != "served" {
		t.Errorf("after: %s", got)
	}
	old.CA = young.CA
	if got := callTCP(t, address, old); !strings.HasPrefix(got, "unreachable ") {
		t.Errorf("with a certificate of before: %s", got)
	}
}

func TestFilesThatCannotBeUsed(t *testing.T) {
	good := apitest.NewAuthority(t).PeerFiles(t, "quiesced")
	for name, test := range map[string]struct {
		files httpapi.Files
		want  string
	}{
		"no certificate":             {httpapi.Files{CA: good.CA, Cert: "/nowhere", Key: good.Key}, `cannot use the certificate "/nowhere"`},
		"no key":                     {httpapi.Files{CA: good.CA, Cert: good.Cert, Key: good.Cert}, "cannot use the certificate "},
		"no CA":                      {httpapi.Files{CA: "/nowhere", Cert: good.Cert, Key: good.Key}, "cannot read the CA: "},
		"a CA without a certificate": {httpapi.Files{CA: good.Key, Cert: good.Cert, Key: good.Key}, "it has no certificate of a CA"},
	} {
		t.Run(name, func(t *testing.T) {
			_, err := httpapi.ListenTCP(t.Context(), "127.0.0.1:0", test.files)
			says(t, err, test.want)
			_, err = httpapi.NewTCPClient("127.0.0.1:1", test.files)
			says(t, err, test.want)
			says(t, test.files.Check(), test.want)
		})
	}
	_, err := httpapi.ListenTCP(t.Context(), "127.0.0.1:65536", good)
	says(t, err, `cannot listen on "127.0.0.1:65536": `)
}

// Whoever reaches the port can open a connection, and each takes a descriptor.
func TestConnectionsOverTCPAreBounded(t *testing.T) {
	a := apitest.NewAuthority(t)
	address := apitest.Start(t).ServeTCP(t, a.PeerFiles(t, "quiesced", apitest.Loopback))
	before := descriptors(t)
	var silent []net.Conn
	for range 3 * httpapi.MaxConns {
		c, err := net.Dial("tcp", address)
		no(t, err)
		defer c.Close()
		silent = append(silent, c)
	}
	client, err := httpapi.NewTCPClient(address, a.PeerFiles(t, apitest.ClientName))
	no(t, err)
	waiting, cancel := context.WithTimeout(t.Context(), 300*time.Millisecond)
	defer cancel()
	if _, err := client.Call(waiting, "info"); err == nil {
		t.Error("one more is served")
	}
	if opened := descriptors(t) - before - len(silent); opened > httpapi.MaxConns+10 {
		t.Errorf("the daemon has %d descriptors more", opened)
	}
	for _, c := range silent {
		no(t, c.Close())
	}
	_, err = client.Call(t.Context(), "info")
	no(t, err)
}

// descriptors are how many this process has open.
func descriptors(t *testing.T) int {
	t.Helper()
	all, err := os.ReadDir("/proc/self/fd")
	no(t, err)
	return len(all)
}
