package apitest

import (
	"context"
	"crypto/x509"
	"log/slog"
	"net"
	"path/filepath"
	"testing"

	"github.com/quiesced/quiesced/agent/httpapi"
)

// ClientName is the name of the certificate of who may call over TCP.
const ClientName = "backup.example.org"

// Loopback makes a certificate one for this machine.
func Loopback(c *x509.Certificate) { c.IPAddresses = []net.IP{net.IPv4(127, 0, 0, 1)} }

// PeerFiles are the files of a side whose certificate the authority issues, in a
// directory of their own.
func (a *Authority) PeerFiles(t testing.TB, cn string, change ...func(*x509.Certificate)) httpapi.Files {
	t.Helper()
	ca, cert, key := a.Files(t, filepath.Join(t.TempDir(), "pki"), a.Issue(t, cn, change...))
	return httpapi.Files{CA: ca, Cert: cert, Key: key}
}

// ServeTCP serves the daemon over TCP, for ClientName, until the test ends.
func (d *Daemon) ServeTCP(t testing.TB, f httpapi.Files) (address string) {
	t.Helper()
	l, err := httpapi.ListenTCP(t.Context(), "127.0.0.1:0", f)
	must(t, err)
	Background(t, func(ctx context.Context) error {
		return httpapi.NewTCPServer(d.Handler, []string{"another", ClientName}, slog.New(slog.DiscardHandler)).Serve(ctx, l)
	})
	return l.Addr().String()
}

// OnTCP serves the daemon over TCP until the test ends.
func (d *Daemon) OnTCP(t testing.TB) *httpapi.Client {
	t.Helper()
	a := NewAuthority(t)
	client, err := httpapi.NewTCPClient(d.ServeTCP(t, a.PeerFiles(t, "quiesced", Loopback)), a.PeerFiles(t, ClientName))
	must(t, err)
	return client
}
