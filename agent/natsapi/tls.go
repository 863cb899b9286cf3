package natsapi

import (
	"crypto/tls"
	"crypto/x509"
	"errors"
	"fmt"
	"net"
	"regexp"
)

// serverName is the common name of a bus's certificate under BOSH. The certificate
// names no host that a VM could compare it with.
var serverName = regexp.MustCompile(`^[a-zA-Z0-9*\-]*\.nats\.bosh-internal$`)

// tls is how to speak TLS, nil where nothing asks for it. Peer is the address that is
// spoken to. No error quotes a key.
func (a Access) tls(peer func() string) (*tls.Config, error) {
	if len(a.CA) == 0 && len(a.Cert) == 0 {
		if a.BOSH {
			return nil, errors.New("there is no certificate for the bus")
		}
		return nil, nil
	}
	c := &tls.Config{MinVersion: tls.VersionTLS12}
	if len(a.Cert) > 0 {
		pair, err := tls.X509KeyPair(a.Cert, a.Key)
		if err != nil {
			return nil, fmt.Errorf("cannot use certificate and key: %w", err)
		}
		c.Certificates = []tls.Certificate{pair}
	}
	if len(a.CA) == 0 {
		return c, nil // the system's authorities, and the host's name
	}
	roots := x509.NewCertPool()
	if !roots.AppendCertsFromPEM(a.CA) {
		return nil, errors.New("cannot use the CA: it holds no certificate in PEM")
	}
	c.InsecureSkipVerify = true // VerifyConnection verifies, by another rule for names
	c.VerifyConnection = func(s tls.ConnectionState) error { return a.verify(s, roots, peer()) }
	return c, nil
}

// verify checks the server's chain as TLS does, and then its name: under BOSH the
// common name; else the host that was dialled, where a certificate names it, or that
// common name, for the bus of a director whose CA was configured.
func (a Access) verify(s tls.ConnectionState, roots *x509.CertPool, peer string) error {
	leaf := s.PeerCertificates[0] // a client is always shown one
	chain := x509.VerifyOptions{Roots: roots, Intermediates: x509.NewCertPool()}
	for _, c := range s.PeerCertificates[1:] {
		chain.Intermediates.AddCert(c)
	}
	if _, err := leaf.Verify(chain); err != nil {
		return fmt.Errorf("cannot trust the bus: %w", err)
	}
	if serverName.MatchString(leaf.Subject.CommonName) {
		return nil
	}
	if a.BOSH {
		return fmt.Errorf("cannot trust the bus: its certificate is of %q, which is no NATS server of a director", leaf.Subject.CommonName)
	}
	host := s.ServerName // empty where an address was dialled
	if host == "" {
		host, _, _ = net.SplitHostPort(peer)
	}
	if err := leaf.VerifyHostname(host); err != nil {
		return fmt.Errorf("cannot trust the bus: %w", err)
	}
	return nil
}
