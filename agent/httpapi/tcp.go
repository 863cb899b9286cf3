package httpapi

import (
	"context"
	"crypto/tls"
	"crypto/x509"
	"fmt"
	"log/slog"
	"net"
	"net/http"
	"os"
	"slices"

	"github.com/quiesced/quiesced/agent/api"
)

// Files are one side's certificate and key, and the CA that signs the other side's,
// in PEM.
type Files struct{ Cert, Key, CA string }

// Check says whether the files can be used.
func (f Files) Check() error {
	_, _, err := f.load()
	return err
}

// load reads the files. They are read anew for each handshake, so that they can be
// replaced under a daemon that runs; while they are half written nobody gets in.
func (f Files) load() (tls.Certificate, *x509.CertPool, error) {
	pair, err := tls.LoadX509KeyPair(f.Cert, f.Key)
	if err != nil {
		return pair, nil, fmt.Errorf("cannot use the certificate %q with the key %q: %w", f.Cert, f.Key, err)
	}
	text, err := os.ReadFile(f.CA)
	if err != nil {
		return pair, nil, fmt.Errorf("cannot read the CA: %w", err)
	}
	pool := x509.NewCertPool()
	if !pool.AppendCertsFromPEM(text) {
		return pair, nil, fmt.Errorf("cannot use %q: it has no certificate of a CA", f.CA)
	}
	return pair, pool, nil
}

// server is how a handshake is made now. A session is never resumed: who had one
// could go on with a certificate of a CA that is gone.
func (f Files) server() (*tls.Config, error) {
	pair, pool, err := f.load()
	return &tls.Config{
		MinVersion:             tls.VersionTLS12,
		Certificates:           []tls.Certificate{pair},
		ClientAuth:             tls.RequireAndVerifyClientCert,
		ClientCAs:              pool,
		SessionTicketsDisabled: true,
	}, err
}

// client is how a client makes a handshake.
func (f Files) client() (*tls.Config, error) {
	pair, pool, err := f.load()
	return &tls.Config{MinVersion: tls.VersionTLS12, Certificates: []tls.Certificate{pair}, RootCAs: pool}, err
}

// maxConns bounds the connections over TCP, each of which takes a descriptor before
// anything is known of who makes it.
const maxConns = 64

// ListenTCP binds a TCP address for TLS with certificates on both sides. Files that
// cannot be used are an error.
func ListenTCP(ctx context.Context, address string, f Files) (net.Listener, error) {
	config, err := f.server()
	if err != nil {
		return nil, err
	}
	config.GetConfigForClient = func(*tls.ClientHelloInfo) (*tls.Config, error) { return f.server() }
	l, err := (&net.ListenConfig{}).Listen(ctx, "tcp", address)
	if err != nil {
		return nil, fmt.Errorf("cannot listen on %q: %w", address, err)
	}
	return tls.NewListener(atMost(maxConns, l), config), nil
}

// NewTCPServer makes a server, for a listener of ListenTCP, that serves certificates
// with one of the names as CN or as alternative name. Others are told that they may
// not, and so is the audit, which the end of a handshake would leave without a name.
func NewTCPServer(h *api.Handler, names []string, log *slog.Logger) *Server {
	return newServer(h, log, func(r *http.Request) caller {
		if r.TLS == nil || len(r.TLS.VerifiedChains) == 0 {
			return caller{by: "somebody without a certificate", from: r.RemoteAddr}
		}
		has := namesOf(r.TLS.PeerCertificates[0])
		for _, name := range has {
			if name != "" && slices.Contains(names, name) {
				return caller{by: "certificate of " + name, from: r.RemoteAddr, role: api.RoleOperator}
			}
		}
		return caller{by: fmt.Sprintf("certificate of %q", has), from: r.RemoteAddr}
	})
}

// namesOf are a certificate's CN and alternative names.
func namesOf(c *x509.Certificate) []string {
	names := append([]string{c.Subject.CommonName}, c.DNSNames...)
	names = append(names, c.EmailAddresses...)
	for _, ip := range c.IPAddresses {
		names = append(names, ip.String())
	}
	for _, uri := range c.URIs {
		names = append(names, uri.String())
	}
	return names
}
