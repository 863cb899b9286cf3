package main

import (
	"fmt"
	"net"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"syscall"
	"testing"

	"github.com/quiesced/quiesced/agent/api/apitest"
	"github.com/quiesced/quiesced/agent/httpapi"
)

// freePort is an address that nobody listens on.
func freePort(t *testing.T) string {
	t.Helper()
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	defer l.Close()
	return l.Addr().String()
}

// onTCP configures a daemon that serves the API over TCP for apitest.ClientName.
func onTCP(address string, f httpapi.Files) func(string) string {
	tcp := fmt.Sprintf("listen: {tcp: {address: %q, cert: %s, key: %s, ca: %s, names: [%s]}, ", address, f.Cert, f.Key, f.CA, apitest.ClientName)
	return func(text string) string { return strings.Replace(text, "listen: {", tcp, 1) }
}

func flags(address string, f httpapi.Files) []string {
	return []string{"--address", address, "--cert", f.Cert, "--key", f.Key, "--ca", f.CA}
}

func TestVerbsOverTCP(t *testing.T) {
	a, address := apitest.NewAuthority(t), freePort(t)
	w := newWorld(t, onTCP(address, a.PeerFiles(t, "quiesced", apitest.Loopback)))
	w.script(answered("snap-1"))
	w.start()
	client := flags(address, a.PeerFiles(t, apitest.ClientName))
	w.mustSay(w.run(append(client, "take-snapshot")...), exitOK, "snap-1")
	w.mustSay(w.run(append(client, "snapshots")...), exitOK, "snap-1")
	w.mustSay(w.run(append(flags(address, a.PeerFiles(t, "somebody")), "status")...), exitRefused, `certificate of ["somebody"] may not call status`)
	w.mustSay(w.run(append(flags(address, apitest.NewAuthority(t).PeerFiles(t, apitest.ClientName)), "status")...), exitUnreachable, "no daemon answers on "+address)

	w.mustSay(w.run(append(client, "thaw")...), exitUsage, "thaw is about this machine alone")
	w.mustSay(w.run(append(client, "status", "--socket", "/run/x")...), exitUsage, "--socket and --address name different daemons")
	w.mustSay(w.run("status", "--address", address), exitUsage, "--address, --cert, --key and --ca go together")
	client[3] = "/nowhere"
	w.mustSay(w.run(append(client, "status")...), exitUsage, `cannot use the certificate "/nowhere"`)
	w.end()
	for _, line := range []string{
		"|agent_api|snapshots|1|duser=certificate of backup.example.org src=127.0.0.1 spt=",
		`|agent_api|status|7|duser=certificate of ["somebody"] src=127.0.0.1 spt=`,
	} {
		if !strings.Contains(w.log.String(), line) {
			t.Errorf("the audit has no line with %q:\n%s", line, w.log)
		}
	}
}

func TestADaemonThatCannotListenOverTCPDoesNotStart(t *testing.T) {
	a := apitest.NewAuthority(t)
	files := a.PeerFiles(t, "quiesced", apitest.Loopback)
	taken, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	defer taken.Close()
	w := newWorld(t, onTCP(taken.Addr().String(), files))
	w.mustSay(w.run("check-config"), exitOK)
	w.mustSay(w.run("serve"), exitFailed, "listen.tcp: cannot listen on ")
	w.must(os.Remove(files.CA))
	w.mustSay(w.run("check-config"), exitUsage, "listen.tcp: cannot read the CA: ")
	w.mustSay(w.run("serve"), exitFailed, "listen.tcp: cannot read the CA: ")
}

// The director's workers on its own VM have a uid and no groups.
func TestAHolderIsServedNoVerb(t *testing.T) {
	const holder = 4322
	w := newWorld(t, func(text string) string {
		return strings.Replace(text, "listen: {", fmt.Sprintf("listen: {holders: '%d', ", holder), 1)
	})
	for _, dir := range []string{w.dir, filepath.Dir(w.dir)} {
		w.must(os.Chmod(dir, 0o711))
	}
	w.start()
	binary, err := os.Open(filepath.Join(binaries, "quiesced"))
	w.must(err)
	defer binary.Close()
	for uid, want := range map[uint32]string{
		holder: fmt.Sprintf("holder uid %d (pid ", holder),
		65534:  "permission denied",
	} {
		cmd := exec.Command("/proc/self/fd/3", "status", "--socket", filepath.Join(w.dir, "run", "q.sock"))
		cmd.ExtraFiles = []*os.File{binary} // its directory is closed to others
		cmd.Dir = "/"
		cmd.SysProcAttr = &syscall.SysProcAttr{Credential: &syscall.Credential{Uid: uid, Gid: 65534}}
		out, err := cmd.CombinedOutput()
		if err == nil || !strings.Contains(string(out), want) {
			t.Errorf("uid %d is told %q, %v; want %q", uid, out, err, want)
		}
	}
}
