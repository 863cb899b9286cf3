package cpi_test

import (
	"context"
	"errors"
	"os"
	"path/filepath"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"

	"github.com/quiesced/quiesced/cpi"
)

func TestCheckNamesWhatIsNoCPI(t *testing.T) {
	dir := t.TempDir()
	plain := filepath.Join(dir, "plain")
	if err := os.WriteFile(plain, []byte("#!/bin/sh\n"), 0o600); err != nil {
		t.Fatal(err)
	}
	for name, tt := range map[string]struct {
		path  string
		cause error
	}{
		"a missing one":                 {filepath.Join(dir, "missing"), os.ErrNotExist},
		"one that is not executable":    {plain, os.ErrPermission},
		"a directory":                   {dir, nil},
		"a path that is not absolute":   {"cpi", nil},
		"no path":                       {"", nil},
		"a path through a regular file": {plain + "/cpi", nil},
	} {
		t.Run(name, func(t *testing.T) {
			c := &cpi.Client{Path: tt.path}
			_, prepared := c.Prepare(filepath.Join(t.TempDir(), "call"), "info")
			for _, err := range []error{c.Check(), prepared} {
				if !errors.Is(err, cpi.ErrUnusable) || tt.cause != nil && !errors.Is(err, tt.cause) {
					t.Errorf("got %v", err)
				}
				wantText(t, err, `"`+tt.path+`"`)
			}
		})
	}
}

func TestAnExecutableOfNoKnownFormatIsUnusable(t *testing.T) {
	c, _ := newClient(t, "")
	if err := os.WriteFile(c.Path, []byte("\x00\x01 no program"), 0o700); err != nil {
		t.Fatal(err)
	}
	dir := filepath.Join(t.TempDir(), "call")
	if _, err := c.Prepare(dir, "info"); !errors.Is(err, cpi.ErrUnusable) || !errors.Is(err, syscall.ENOEXEC) {
		t.Errorf("got %v", err)
	}
	if err := os.WriteFile(c.Path, []byte("#!/bin/sh\ncat >/dev/null; printf '"+good+"'"), 0o700); err != nil {
		t.Fatal(err)
	}
	if _, err := c.Do(withPatience(t), dir, "info"); err != nil {
		t.Errorf("the directory cannot be used again: %v", err)
	}
}

func TestDoJudgesWhatTheCPIPrints(t *testing.T) {
	for _, tt := range []struct {
		name, script string
		check        func(*testing.T, error)
	}{
		{"a good answer and exit status 3", `cat >/dev/null; printf '` + good + `'; exit 3`, wantNone},
		{"a good answer to a request not read", `printf '` + good + `'`, wantNone},
		{"a good answer and then a signal", `cat >/dev/null; printf '` + good + `'; kill -9 $$`, wantNone},
		{"nothing", `cat >/dev/null`, func(t *testing.T, err error) {
			if !errors.Is(err, cpi.ErrNoAnswer) {
				t.Errorf("got %v", err)
			}
		}},
		{"garbage", `cat >/dev/null; echo oops; echo why >&2; exit 1`, func(t *testing.T, err error) {
			e := wantError[*cpi.InvalidResponseError](t, err)
			if e.Stdout != "oops\n" || e.Stderr != "why\n" {
				t.Errorf("got %q, %q", e.Stdout, e.Stderr)
			}
		}},
		{"two documents", `cat >/dev/null; echo '` + good + good + `'`, wantInvalid},
		{"leading text", `cat >/dev/null; echo loading; echo '` + good + `'`, wantInvalid},
		{"more than is read", `cat >/dev/null; head -c 2000000 /dev/zero | tr '\0' ' '; printf '` + good + `'`,
			func(t *testing.T, err error) {
				wantInvalid(t, err)
				wantText(t, err, "longer than 1048576 bytes")
			}},
		{"an error", `cat >/dev/null; printf '{"result":null,"error":{"type":"Bosh::Clouds::NotImplemented","message":"no","ok_to_retry":false},"log":""}'; exit 1`,
			func(t *testing.T, err error) {
				if !errors.Is(err, cpi.NotImplemented) {
					t.Errorf("got %v", err)
				}
			}},
		{"nothing, for a signal", `cat >/dev/null; kill -SEGV $$`, func(t *testing.T, err error) {
			if e := wantError[*cpi.SignalError](t, err); e.Signal != syscall.SIGSEGV {
				t.Errorf("got signal %v", e.Signal)
			}
		}},
	} {
		t.Run(tt.name, func(t *testing.T) {
			c, _ := newClient(t, tt.script)
			_, err := c.Do(withPatience(t), "", "snapshot_disk", "disk-1", metadata())
			tt.check(t, err)
			if err != nil {
				wantText(t, err, "snapshot_disk")
			}
		})
	}
}

func wantNone(t *testing.T, err error) {
	t.Helper()
	if err != nil {
		t.Error(err)
	}
}

func wantInvalid(t *testing.T, err error) {
	t.Helper()
	wantError[*cpi.InvalidResponseError](t, err)
}

func TestDoKillsACPIThatHangsPastTheDeadline(t *testing.T) {
	c, dir := newClient(t, `cat >/dev/null; echo waiting >&2; touch $D/hangs; exec sleep 1000`)
	ctx, cancel := context.WithCancelCause(t.Context())
	why := errors.New("enough")
	go func() {
		for ctx.Err() == nil {
			if _, err := os.Stat(filepath.Join(dir, "hangs")); err == nil {
				cancel(why)
			}
			time.Sleep(time.Millisecond)
		}
	}()
	_, err := c.Do(ctx, "", "snapshot_disk", "disk-1", metadata())
	e := wantError[*cpi.DeadlineError](t, err)
	if !errors.Is(err, why) || e.Stderr != "waiting\n" {
		t.Errorf("got %v", err)
	}
}

func TestDoTakesAnAnswerThatAKilledCPIGave(t *testing.T) {
	c, _ := newClient(t, `cat >/dev/null; printf '`+good+`'; exec sleep 1000`)
	ctx, cancel := context.WithTimeout(t.Context(), 300*time.Millisecond)
	defer cancel()
	if result, err := c.Do(ctx, "", "snapshot_disk", "disk-1", metadata()); string(result) != `"snap-1"` || err != nil {
		t.Errorf("got %s, %v", result, err)
	}
}

func TestNoErrorQuotesTheContext(t *testing.T) {
	c, _ := newClient(t, `cat >&2; head -c 70000 /dev/zero | tr '\0' x >&2; cat $D/request; echo 'hunter2 is "the key\n"'`)
	c.Context["password"] = "hunter2"
	c.Context["nested"] = map[string]any{"keys": []string{"-----BEGIN KEY-----\nabc<def\n"}}
	_, err := c.Do(withPatience(t), "", "snapshot_disk", "disk-1", metadata())
	checkNoSecret(t, err)

	c, _ = newClient(t, `cat | tee /dev/stderr`)
	c.Context["password"] = "hunter2"
	c.Context["nested"] = map[string]any{"keys": []string{"-----BEGIN KEY-----\nabc<def\n"}}
	call, _ := prepare(t, c)
	call.Abort()
	_, err = call.Wait(withPatience(t))
	checkNoSecret(t, err)
	wantText(t, err, "cpi-348175") // the rest is quoted
}

func checkNoSecret(t *testing.T, err error) {
	t.Helper()
	wantInvalid(t, err)
	for _, secret := range []string{"hunter2", "BEGIN KEY", "abc<def"} {
		if strings.Contains(err.Error(), secret) {
			t.Errorf("%q is in: %v", secret, err)
		}
	}
}

func TestASecretCutByTheWindowIsNotQuoted(t *testing.T) {
	// The output's last 64 KiB begin within a secret that, blacked out ever
	// after, leaves a text shorter than a tail.
	secret := strings.Repeat("s3cr3t", 100)
	c, _ := newClient(t, `cat >/dev/null; cat $D/text`)
	c.Context["key"] = secret
	text := strings.Repeat(secret, 200)
	if err := os.WriteFile(filepath.Join(filepath.Dir(c.Path), "text"), []byte(text), 0o600); err != nil {
		t.Fatal(err)
	}
	_, err := c.Do(withPatience(t), "", "info")
	if e := wantError[*cpi.InvalidResponseError](t, err); strings.Contains(e.Stdout, "s3cr3t") || e.Stdout == "" {
		t.Errorf("got %q", e.Stdout)
	}
}

func TestInfoIsAskedWithoutAVersionAndHasToReportTwo(t *testing.T) {
	answer := func(result string) string {
		return `cat >$D/stdin; printf '{"result":` + result + `,"error":null,"log":""}'`
	}
	c, dir := newClient(t, answer(`{"api_version":2,"stemcell_formats":["raw"]}`))
	c.Context["request_id"] = "cpi-958857"
	got, err := c.Info(withPatience(t))
	if err != nil {
		t.Fatal(err)
	}
	if diff := cmp.Diff(cpi.Info{APIVersion: 2, StemcellFormats: []string{"raw"}}, got); diff != "" {
		t.Errorf("-want +got\n%s", diff)
	}
	if diff := cmp.Diff(read(t, "testdata/info.json"), read(t, filepath.Join(dir, "stdin"))); diff != "" {
		t.Errorf("-want +got\n%s", diff)
	}
	for _, result := range []string{`{"api_version":1}`, `{"stemcell_formats":[]}`, `null`, `"2"`} {
		c, _ := newClient(t, answer(result))
		if _, err := c.Info(withPatience(t)); err == nil {
			t.Errorf("%s was taken", result)
		}
	}
}

func TestMethodsReadTheirResults(t *testing.T) {
	ctx := withPatience(t)
	answering := func(result string) *cpi.Client {
		c, _ := newClient(t, `cat >/dev/null; printf '{"result":`+result+`,"error":null,"log":""}'`)
		return c
	}
	if has, err := answering("true").HasDisk(ctx, "d"); !has || err != nil {
		t.Errorf("has_disk: got %v, %v", has, err)
	}
	if _, err := answering("null").HasDisk(ctx, "d"); err == nil {
		t.Error("has_disk: null was taken")
	}
	if disks, err := answering(`["a","b"]`).GetDisks(ctx, "vm"); len(disks) != 2 || err != nil {
		t.Errorf("get_disks: got %v, %v", disks, err)
	}
	if _, err := answering("{}").GetDisks(ctx, "vm"); err == nil {
		t.Error("get_disks: an object was taken")
	}
	if cid, err := answering(`"snap-1"`).SnapshotDisk(ctx, "d", metadata()); cid != "snap-1" || err != nil {
		t.Errorf("snapshot_disk: got %q, %v", cid, err)
	}
	if _, err := answering(`""`).SnapshotDisk(ctx, "disk-7", metadata()); !errors.Is(err, cpi.ErrNoCID) {
		t.Errorf("snapshot_disk: got %v for an empty CID", err)
	}
	if err := answering("null").DeleteSnapshot(ctx, "snap-1"); err != nil {
		t.Errorf("delete_snapshot: %v", err)
	}
}

func TestAContextWithoutNamesGetsThem(t *testing.T) {
	c, dir := newClient(t, `cat >$D/stdin; printf '`+good+`'`)
	c.Context = nil
	if _, err := c.Do(withPatience(t), "", "ping"); err != nil {
		t.Fatal(err)
	}
	r, err := cpi.DecodeRequest([]byte(read(t, filepath.Join(dir, "stdin"))))
	if err != nil {
		t.Fatal(err)
	}
	id, _ := r.Context["request_id"].(string)
	if r.Context["director_uuid"] != "quiesced" || !strings.HasPrefix(id, "cpi-") {
		t.Errorf("got %v", r.Context)
	}
}

func TestCallIsKnownBeforeTheCPIActs(t *testing.T) {
	c, dir := newClient(t, `cat >"$D/request"; [ "$(tail -c1 "$D/request")" = } ] && touch "$D/acted"; echo '`+good+`'`)
	acted := filepath.Join(dir, "acted")
	for _, refused := range []error{errors.New("no room for a record"), nil} {
		var process cpi.Process
		c.Starting = func(files string, p cpi.Process) error {
			process = p
			if _, err := os.Stat(filepath.Join(files, "stdout")); err != nil {
				t.Error(err)
			}
			if _, err := os.Stat(acted); err == nil {
				t.Error("it has acted already")
			}
			return refused
		}
		_, err := c.Do(withPatience(t), "", "delete_disk", "disk-1")
		if !errors.Is(err, refused) || process.PID == 0 {
			t.Errorf("got %v of %+v, want %v", err, process, refused)
		}
		if _, err := os.Stat(acted); (err == nil) != (refused == nil) {
			t.Errorf("refused by %v, it has acted: %v", refused, err)
		}
	}
}
