package main

import (
	"io/fs"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/quiesced/quiesced/agent/api"
	"github.com/quiesced/quiesced/agent/httpapi"
)

// secretContext is a CPI's context with secrets of several kinds. The first is in every
// world's.
const secretContext = `password: c1oudcow, pin: 27182818, nested: [{url_password: "p@ss w/rd", key: "-----BEGIN KEY-----\nMIIEpAIBAAKCAQEA0\n-----END KEY-----\n"}]`

// secretTexts are what must be found nowhere, in whatever form it was printed.
var secretTexts = []string{"c1oudcow", "27182818", "p@ss w/rd", "p%40ss", "MIIEpAIBAAKCAQEA0"}

// leak is a CPI that prints what it knows: all of the request, and then parts of it.
const leak = `echo "$request" >&2
echo "login c1oudcow, 27182818 and p%40ss+w%2Frd; MIIEpAIBAAKCAQEA0" >&2
`

// told is an error with the secrets in it.
const told = `{"result":null,"error":{"type":"Bosh::Clouds::CloudError","message":"c1oudcow is wrong, and so are 27182818, p@ss w/rd, https://p%40ss+w%2Frd@x and -----BEGIN KEY-----\\nMIIEpAIBAAKCAQEA0\\n-----END KEY-----\\n","ok_to_retry":false},"log":"c1oudcow"}`

func TestSecretsOfTheContextAreWrittenNowhere(t *testing.T) {
	w := newWorld(t, with("log: {level: debug}\n"), func(text string) string {
		return strings.Replace(text, "password: c1oudcow", secretContext, 1)
	})
	w.script(leak + `case "$(cat $dir/mode)" in
error) echo '` + told + `' ;;
garbage) echo "$request" ;;
nothing) ;;
killed) kill -9 $$ ;;
fine) ` + answered("snap-1") + `esac
`)
	w.start()
	var shown strings.Builder
	show := func(code int, args ...string) string {
		r := w.run(args...)
		w.mustSay(r, code)
		shown.WriteString(r.out + r.err)
		return r.out + r.err
	}
	for _, mode := range []string{"error", "garbage", "nothing", "killed"} {
		w.must(os.WriteFile(filepath.Join(w.dir, "mode"), []byte(mode), 0o600))
		if told := show(exitFailed, "take-snapshot", "--id", mode); mode == "error" && !strings.Contains(told, " is wrong, and so are ") {
			t.Errorf("the error is gone with its secrets: %s", told)
		}
		show(exitFailed, "take-snapshot", "--id", mode, "--json")
	}
	w.must(os.WriteFile(filepath.Join(w.dir, "mode"), []byte("fine"), 0o600))
	show(exitOK, "take-snapshot")
	for _, verb := range []string{"runs", "status", "snapshots"} {
		show(exitOK, verb, "--json")
		show(exitOK, verb)
	}
	metrics, err := api.Client{Caller: httpapi.NewClient(filepath.Join(w.dir, "run", "q.sock"))}.Metrics(t.Context())
	w.must(err)
	w.end()

	found := map[string]string{"what verbs print": shown.String(), "metrics": metrics, "the log": w.log.String()}
	for _, dir := range []string{"state", "run"} {
		w.must(filepath.WalkDir(filepath.Join(w.dir, dir), func(path string, e fs.DirEntry, err error) error {
			if err == nil && e.Type().IsRegular() && !w.isOutput(path) {
				found[path] = mustRead(t, path)
			}
			return err
		}))
	}
	for where, text := range found {
		for _, secret := range secretTexts {
			if strings.Contains(text, secret) {
				t.Errorf("%q is in %s", secret, where)
			}
		}
	}
	if _, ok := found[filepath.Join(w.dir, "state", "journal.db")]; !ok || !strings.Contains(w.log.String(), "CEF:0|CloudFoundry|BOSH|1|agent_api|take_snapshot|1|duser=uid 0 (pid ") {
		t.Errorf("the journal or the audit was not looked at: %s", w.log)
	}
}

// isOutput says whether a file is what the CPI printed where nobody knows what became
// of the snapshot. It is kept as it is, for root alone.
func (w *world) isOutput(path string) bool {
	name := filepath.Base(path)
	return strings.HasPrefix(path, filepath.Join(w.dir, "state", "runs")+"/") && (name == "stdout" || name == "stderr")
}

func TestWhatTheStateDirectoryHasIsRootsAlone(t *testing.T) {
	w := newWorld(t)
	w.script(leak) // no answer: what it printed is kept
	w.start()
	w.mustSay(w.run("take-snapshot"), exitFailed)
	w.end()
	kept := 0
	w.must(filepath.WalkDir(filepath.Join(w.dir, "state"), func(path string, e fs.DirEntry, err error) error {
		if err != nil {
			return err
		}
		info, err := e.Info()
		if err == nil && info.Mode().Perm()&0o077 != 0 {
			t.Errorf("%s has mode %s", path, info.Mode())
		}
		if w.isOutput(path) {
			kept++
		}
		return err
	}))
	if kept != 2 {
		t.Errorf("%d files of the CPI's output are kept", kept)
	}
}
