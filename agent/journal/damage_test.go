package journal_test

import (
	"path/filepath"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
	"go.etcd.io/bbolt"

	"github.com/quiesced/quiesced/agent"
	"github.com/quiesced/quiesced/agent/journal"
)

// damage puts documents under keys of a bucket.
func damage(t testing.TB, dir, bucket string, docs map[string]string) {
	t.Helper()
	db, err := bbolt.Open(filepath.Join(dir, journal.File), 0o600, &bbolt.Options{Timeout: time.Second})
	must(t, err)
	must(t, db.Update(func(tx *bbolt.Tx) error {
		for id, doc := range docs {
			if err := tx.Bucket([]byte(bucket)).Put([]byte(id), []byte(doc)); err != nil {
				return err
			}
		}
		return nil
	}))
	must(t, db.Close())
}

func TestDamagedRecordsKeepNobodyFromTheOthers(t *testing.T) {
	dir := t.TempDir()
	j, err := journal.Open(dir)
	must(t, err)
	must(t, put(j, begun("a", 1)))
	must(t, put(j, ended("z", 2)))
	must(t, j.Close())
	damage(t, dir, "runs", map[string]string{
		"garbage": "\x00\xff", "cut": `{"request":{"id":"cut"`, "null": "null", "another": `{"request":{"id":"a"}}`, "empty": "",
	})
	names := []string{"another", "cut", "empty", "garbage", "null"}
	for _, name := range []string{"when they are found", "at every later start"} {
		t.Run(name, func(t *testing.T) {
			j, err := journal.Open(dir)
			must(t, err)
			defer func() { must(t, j.Close()) }()
			wantIDs(t, j, "a", "z")
			damaged, err := j.Damaged()
			must(t, err)
			if diff := cmp.Diff(journal.Damaged{Runs: names}, damaged); diff != "" {
				t.Errorf("damaged, -want +got:\n%s", diff)
			}
			for _, id := range names {
				want := "cannot read run " + id + " from the journal: its record is damaged"
				if _, ok, err := j.Get(id); ok || err == nil || err.Error() != want {
					t.Errorf("got %t, %v\nwant %s", ok, err, want)
				}
			}
			must(t, put(j, ended("a", 1)))
		})
	}
}

func TestDamagedRecordIsKeptAsItWas(t *testing.T) {
	dir := t.TempDir()
	j, err := journal.Open(dir)
	must(t, err)
	must(t, j.Close())
	damage(t, dir, "runs", map[string]string{"bad": "CID snap-7"})
	j, err = journal.Open(dir)
	must(t, err)
	must(t, j.Close())
	db, err := bbolt.Open(filepath.Join(dir, journal.File), 0o600, &bbolt.Options{ReadOnly: true})
	must(t, err)
	defer db.Close()
	must(t, db.View(func(tx *bbolt.Tx) error {
		if got := string(tx.Bucket([]byte("damaged")).Get([]byte("bad"))); got != "CID snap-7" {
			t.Errorf("got %q", got)
		}
		return nil
	}))
}

func TestJournalWithoutDamageNamesNone(t *testing.T) {
	j := open(t, t.TempDir())
	must(t, put(j, begun("a", 1)))
	must(t, j.Write(agent.Change{Snapshots: []agent.Snapshot{snapshot("a", 1)}}))
	wantUndamaged(t, j)
}

func wantUndamaged(t testing.TB, j *journal.Journal) {
	t.Helper()
	damaged, err := j.Damaged()
	must(t, err)
	if diff := cmp.Diff(journal.Damaged{}, damaged); diff != "" {
		t.Errorf("damaged, -want +got:\n%s", diff)
	}
}

func TestDamagedSnapshotsKeepNobodyFromTheOthers(t *testing.T) {
	dir := t.TempDir()
	j, err := journal.Open(dir)
	must(t, err)
	want := []agent.Snapshot{snapshot("a", 1), snapshot("b", 2)}
	must(t, j.Write(agent.Change{Snapshots: want}))
	must(t, j.Close())
	damage(t, dir, "snapshots", map[string]string{
		"run-9/disk-1": "\x00\xff", "run-9/disk-2": "null", "run-a/disk-2": `{"run_id":"run-a","disk_cid":"disk-1"}`,
	})
	for _, name := range []string{"when they are found", "at every later start"} {
		t.Run(name, func(t *testing.T) {
			j, err := journal.Open(dir)
			must(t, err)
			defer func() { must(t, j.Close()) }()
			wantSnapshots(t, j, want...)
			damaged, err := j.Damaged()
			must(t, err)
			if diff := cmp.Diff(journal.Damaged{Snapshots: []string{"run-9/disk-1", "run-9/disk-2", "run-a/disk-2"}}, damaged); diff != "" {
				t.Errorf("damaged, -want +got:\n%s", diff)
			}
		})
	}
}
