package apitest

import (
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/x509"
	"crypto/x509/pkix"
	"encoding/pem"
	"math/big"
	"os"
	"path/filepath"
	"testing"
	"time"
)

// Common names of certificates that a director issues.
const (
	DirectorCN  = "default.director.bosh-internal"
	MonitorCN   = "default.hm.bosh-internal"
	ServerCN    = "default.nats.bosh-internal"
	AgentCN     = AgentID + ".agent.bosh-internal"
	BootstrapCN = AgentID + ".bootstrap.agent.bosh-internal"
)

// OtherAgentID is that of another VM of the same director.
const OtherAgentID = "22222222-aaaa-4bbb-8ccc-000000000002"

// OtherAgentCN is that VM's.
const OtherAgentCN = OtherAgentID + ".agent.bosh-internal"

// Authority issues certificates as a director does.
type Authority struct {
	CA   []byte // in PEM
	root *x509.Certificate
	key  *ecdsa.PrivateKey
}

// Pair is a certificate with its key, in PEM.
type Pair struct{ Cert, Key []byte }

// NewAuthority makes an authority whose certificate is its own.
func NewAuthority(t testing.TB) *Authority {
	t.Helper()
	key := newKey(t)
	root := certificate("default.nats-ca.bosh-internal")
	root.IsCA, root.BasicConstraintsValid = true, true
	root.KeyUsage = x509.KeyUsageCertSign
	der, err := x509.CreateCertificate(rand.Reader, root, root, key.Public(), key)
	must(t, err)
	return &Authority{CA: encode("CERTIFICATE", der), root: root, key: key}
}

// Issue makes a certificate for client and server, which names no host.
func (a *Authority) Issue(t testing.TB, cn string, change ...func(*x509.Certificate)) Pair {
	t.Helper()
	key := newKey(t)
	leaf := certificate(cn)
	leaf.ExtKeyUsage = []x509.ExtKeyUsage{x509.ExtKeyUsageClientAuth, x509.ExtKeyUsageServerAuth}
	for _, c := range change {
		c(leaf)
	}
	der, err := x509.CreateCertificate(rand.Reader, leaf, a.root, key.Public(), a.key)
	must(t, err)
	private, err := x509.MarshalPKCS8PrivateKey(key)
	must(t, err)
	return Pair{encode("CERTIFICATE", der), encode("PRIVATE KEY", private)}
}

// Expired has a certificate end yesterday.
func Expired(c *x509.Certificate) { c.NotAfter = time.Now().AddDate(0, 0, -1) }

// Files writes authority and certificate into a directory, and returns their names.
func (a *Authority) Files(t testing.TB, dir string, p Pair) (ca, cert, key string) {
	t.Helper()
	must(t, os.MkdirAll(dir, 0o700))
	ca, cert, key = filepath.Join(dir, "ca.pem"), filepath.Join(dir, "cert.pem"), filepath.Join(dir, "key.pem")
	for path, text := range map[string][]byte{ca: a.CA, cert: p.Cert, key: p.Key} {
		must(t, os.WriteFile(path, text, 0o600))
	}
	return ca, cert, key
}

func certificate(cn string) *x509.Certificate {
	serial, _ := rand.Int(rand.Reader, new(big.Int).Lsh(big.NewInt(1), 120))
	return &x509.Certificate{
		SerialNumber: serial,
		Subject:      pkix.Name{Country: []string{"USA"}, Organization: []string{"Cloud Foundry"}, CommonName: cn},
		NotBefore:    time.Now().AddDate(0, 0, -2),
		NotAfter:     time.Now().AddDate(0, 0, 2),
	}
}

func newKey(t testing.TB) *ecdsa.PrivateKey {
	t.Helper()
	key, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	must(t, err)
	return key
}

func encode(kind string, der []byte) []byte {
	return pem.EncodeToMemory(&pem.Block{Type: kind, Bytes: der})
}
