package natsapi_test

import (
	"context"
	"crypto/x509"
	"net"
	"os"
	"strings"
	"testing"
	"time"

	"github.com/quiesced/quiesced/agent/api/apitest"
	"github.com/quiesced/quiesced/agent/natsapi"
)

// naming has a certificate name hosts.
func naming(ip string) func(*x509.Certificate) {
	return func(c *x509.Certificate) { c.IPAddresses = []net.IP{net.ParseIP(ip)} }
}

func TestWhichServersAreTrusted(t *testing.T) {
	t.Parallel()
	for _, test := range []struct {
		name   string
		cn     string
		change func(*x509.Certificate)
		files  string // what is wrong for who has a CA's file, "" for nothing
		bosh   string // and for who goes by the stemcell's
	}{
		{"a director's", apitest.ServerCN, nil, "", ""},
		{"one of several of a director", "*.nats.bosh-internal", nil, "", ""},
		{"one that has the address and another common name", "nats.example.org", naming("127.0.0.1"), "", `its certificate is of "nats.example.org"`},
		{"one that has another address", "nats.example.org", naming("127.0.0.2"), "not 127.0.0.1", `its certificate is of "nats.example.org"`},
		{"another VM", apitest.OtherAgentCN, nil, "doesn't contain any IP SANs", "which is no NATS server of a director"},
		{"a name that only ends alike", "x.nats.bosh-internal.example.org", nil, "doesn't contain any IP SANs", "which is no NATS server"},
		{"a name with a prefix of its own", "a.b.nats.bosh-internal", nil, "doesn't contain any IP SANs", "which is no NATS server"},
		{"one whose certificate has expired", apitest.ServerCN, apitest.Expired, "certificate has expired", "certificate has expired"},
		{"one that may only be a client", apitest.ServerCN, func(c *x509.Certificate) {
			c.ExtKeyUsage = []x509.ExtKeyUsage{x509.ExtKeyUsageClientAuth}
		}, "incompatible key usage", "incompatible key usage"},
	} {
		t.Run(test.name, func(t *testing.T) {
			t.Parallel()
			if test.change == nil {
				test.change = func(*x509.Certificate) {}
			}
			bus := apitest.StartDirectorBus(t, false)
			bus.Stop()
			bus.Configure(t, bus.Authority.Issue(t, test.cn, test.change), apitest.AgentCN)
			bus.Start(t)
			mine := bus.Authority.Issue(t, apitest.AgentCN)
			dial(t, bus.Config(t, mine), test.files)
			dial(t, natsapi.Config{Source: func() (natsapi.Access, error) {
				return natsapi.Access{URLs: []string{bus.URL}, CA: bus.Authority.CA, Cert: mine.Cert, Key: mine.Key, BOSH: true}, nil
			}}, test.bosh)
		})
	}
}

// dial connects, and fails the test unless what is wrong is what was wanted.
func dial(t *testing.T, c natsapi.Config, wrong string) {
	t.Helper()
	conn, err := c.Dial(t.Context(), "test")
	if err == nil {
		conn.Close()
	}
	if (err == nil) != (wrong == "") || err != nil && !strings.Contains(err.Error(), wrong) {
		t.Errorf("the error is %v, want %q", err, wrong)
	}
}

func TestWhoIsTurnedAway(t *testing.T) {
	t.Parallel()
	for name, debian := range both {
		t.Run(name, func(t *testing.T) { turnedAway(t, apitest.StartDirectorBus(t, debian)) })
	}
}

func turnedAway(t *testing.T, bus *apitest.DirectorBus) {
	another := apitest.NewAuthority(t)
	dial(t, bus.Config(t, bus.Authority.Issue(t, apitest.AgentCN)), "")
	for name, pair := range map[string]apitest.Pair{
		"an expired certificate":                               bus.Authority.Issue(t, apitest.AgentCN, apitest.Expired),
		"another authority's certificate":                      another.Issue(t, apitest.AgentCN),
		"a VM that the director does not know":                 bus.Authority.Issue(t, "x.agent.bosh-internal"),
		"the bootstrap certificate once there is a better one": bus.Authority.Issue(t, apitest.BootstrapCN),
	} {
		t.Run(name, func(t *testing.T) { dial(t, bus.Config(t, pair), "cannot connect to the bus: ") })
	}
	c := bus.Config(t, bus.Authority.Issue(t, apitest.AgentCN))
	c.CA = ""
	dial(t, c, "failed to verify certificate")
	c.Cert, c.Key = "", ""
	dial(t, c, "cannot connect to the bus: ")
}

func TestDialFailsQuickly(t *testing.T) {
	t.Parallel()
	mute, err := net.Listen("tcp", "127.0.0.1:0")
	no(t, err)
	defer mute.Close()
	ctx, cancel := context.WithTimeout(t.Context(), 300*time.Millisecond)
	defer cancel()
	began := time.Now()
	_, err = natsapi.Config{URLs: []string{"nats://" + mute.Addr().String()}}.Dial(ctx, "test")
	if err == nil || !strings.Contains(err.Error(), "i/o timeout") && !strings.Contains(err.Error(), "deadline exceeded") {
		t.Errorf("a bus that says nothing: %v", err)
	}
	dial(t, natsapi.Config{URLs: []string{"nats://127.0.0.1:1", "nats://127.0.0.1:2"}}, "127.0.0.1:2: connect: connection refused")
	if took := time.Since(began); took > 4*time.Second {
		t.Errorf("it takes %s", took)
	}
}

func TestAnAddressThatIsNoneIsNotQuoted(t *testing.T) {
	for _, address := range []string{"nats://me:s3cr3t%zz@127.0.0.1:4222", "nats://me:s3cr3t/@127.0.0.1:4222", "nats://me:s3cr3t@127.0.0.1:x"} {
		_, err := natsapi.Config{URLs: []string{"nats://127.0.0.1:1", address}}.Dial(t.Context(), "test")
		if err == nil || strings.Contains(err.Error(), "s3cr3t") || !strings.Contains(err.Error(), "no address") {
			t.Errorf("the error is %v", err)
		}
	}
}

func TestAnAddressThatDoesNotAnswerNamesTheFirewall(t *testing.T) {
	t.Parallel()
	silent := func(_ context.Context, network, _ string) (net.Conn, error) {
		return nil, &net.OpError{Op: "dial", Net: network, Err: os.ErrDeadlineExceeded}
	}
	dial(t, natsapi.Config{URLs: []string{"nats://127.0.0.1:1"}, Dialer: silent}, "i/o timeout: a stemcell's firewall drops")
}
