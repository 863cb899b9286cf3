// Package journal keeps what the agent must not forget in a bbolt database: a record for
// each run, under the run's id, and an entry for each snapshot, under its key, as JSON.
// What Write was given is durable, in one transaction, when it returns nil. Runs are
// forgotten, the oldest first; snapshots never.
//
// What cannot be read must not keep the daemon from the rest. Open moves it aside, as it
// is, and Damaged names it.
package journal

import (
	"cmp"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"time"

	"go.etcd.io/bbolt"
	bolterrors "go.etcd.io/bbolt/errors"

	"github.com/quiesced/quiesced/agent"
	"github.com/quiesced/quiesced/agent/wire"
)

// File is the database's name in the state directory.
const File = "journal.db"

// keep is how many runs are remembered, and those beside that have not ended.
const keep = 1000

// openTimeout bounds the wait for another daemon that has the database open.
const openTimeout = time.Second

// kind is one kind of what is kept: its bucket, and the one to which what cannot be read
// is moved.
type kind struct {
	bucket, aside []byte
	check         func(key, doc []byte) error
}

var (
	runs      = kind{[]byte("runs"), []byte("damaged"), checkRecord}
	snapshots = kind{[]byte("snapshots"), []byte("damaged snapshots"), checkSnapshot}
)

// Journal implements agent.Journal.
type Journal struct {
	db *bbolt.DB
	id string
}

// Where the journal's id is.
var about, idKey = []byte("about"), []byte("id")

// Open opens the database in dir, which it makes (mode 0700) if it is not
// there. The error says so if another daemon has it open.
func Open(dir string) (*Journal, error) {
	if err := os.MkdirAll(dir, 0o700); err != nil {
		return nil, fmt.Errorf("cannot make the state directory: %w", err)
	}
	path := filepath.Join(dir, File)
	db, err := bbolt.Open(path, 0o600, &bbolt.Options{Timeout: openTimeout})
	if errors.Is(err, bolterrors.ErrTimeout) {
		return nil, fmt.Errorf("cannot open the journal %q: another daemon has it open", path)
	}
	if err != nil {
		return nil, fmt.Errorf("cannot open the journal %q: %w", path, err)
	}
	j := &Journal{db: db}
	if err := j.prepare(); err != nil {
		_ = db.Close()
		return nil, fmt.Errorf("cannot write the journal %q: %w", path, err)
	}
	return j, nil
}

// ID is the journal's own, made with the database.
func (j *Journal) ID() string { return j.id }

// prepare makes the buckets and moves aside what cannot be read. It writes only
// where there is something to do: a full disk must not keep a daemon from
// starting, which has to make good what the one before it left.
func (j *Journal) prepare() error {
	inOrder := false
	err := j.db.View(func(tx *bbolt.Tx) error {
		if own := tx.Bucket(about); own != nil {
			j.id = string(own.Get(idKey))
		}
		inOrder = j.id != "" && runs.inOrder(tx) && snapshots.inOrder(tx)
		return nil
	})
	if err != nil || inOrder {
		return err
	}
	j.id = cmp.Or(j.id, agent.NewID())
	return j.db.Update(func(tx *bbolt.Tx) error {
		own, err := tx.CreateBucketIfNotExists(about)
		if err != nil {
			return err
		}
		return errors.Join(own.Put(idKey, []byte(j.id)), runs.putInOrder(tx), snapshots.putInOrder(tx))
	})
}

func (k kind) inOrder(tx *bbolt.Tx) bool {
	bucket := tx.Bucket(k.bucket)
	return bucket != nil && tx.Bucket(k.aside) != nil && len(k.unreadable(bucket)) == 0
}

func (k kind) putInOrder(tx *bbolt.Tx) error {
	bucket, err := tx.CreateBucketIfNotExists(k.bucket)
	if err != nil {
		return err
	}
	damaged, err := tx.CreateBucketIfNotExists(k.aside)
	if err != nil {
		return err
	}
	for _, key := range k.unreadable(bucket) {
		err = errors.Join(err, damaged.Put(key, slices.Clone(bucket.Get(key))), bucket.Delete(key))
	}
	return err
}

// unreadable are the keys under which there is nothing that makes sense.
func (k kind) unreadable(bucket *bbolt.Bucket) [][]byte {
	var bad [][]byte
	c := bucket.Cursor()
	for key, doc := c.First(); key != nil; key, doc = c.Next() {
		if k.check(key, doc) != nil {
			bad = append(bad, slices.Clone(key))
		}
	}
	return bad
}

// decode reads a record, which has the id it is stored under.
func decode(id, doc []byte) (agent.Record, error) {
	r, err := wire.UnmarshalRecord(doc)
	if err == nil && r.Request.ID != string(id) {
		err = fmt.Errorf("cannot read a stored record: its id is %q", r.Request.ID)
	}
	return r, err
}

func checkRecord(id, doc []byte) error {
	_, err := decode(id, doc)
	return err
}

// Damaged is what was moved aside. What such runs did is not known but for their
// snapshots, and such snapshots are in no list.
type Damaged struct {
	Runs      []string // ids
	Snapshots []string // keys: the run's id, a slash, the disk's CID
}

// Damaged lists what was moved aside.
func (j *Journal) Damaged() (Damaged, error) {
	var d Damaged
	err := j.db.View(func(tx *bbolt.Tx) error {
		d = Damaged{keys(tx.Bucket(runs.aside)), keys(tx.Bucket(snapshots.aside))}
		return nil
	})
	if err != nil {
		return d, fmt.Errorf("cannot read the journal: %w", err)
	}
	return d, nil
}

func keys(bucket *bbolt.Bucket) []string {
	var all []string
	_ = bucket.ForEach(func(key, _ []byte) error {
		all = append(all, string(key))
		return nil
	})
	return all
}

// Close closes the database.
func (j *Journal) Close() error { return j.db.Close() }

// Write makes a change durable. Where it ends a run it also forgets the oldest runs.
func (j *Journal) Write(c agent.Change) error {
	err := j.db.Update(func(tx *bbolt.Tx) error {
		return errors.Join(putRecords(tx.Bucket(runs.bucket), c.Records), putSnapshots(tx.Bucket(snapshots.bucket), c))
	})
	if err != nil {
		return fmt.Errorf("cannot write %s to the journal: %w", subject(c), err)
	}
	return nil
}

// subject names what a change is about.
func subject(c agent.Change) string {
	switch {
	case len(c.Records) > 0:
		return "run " + c.Records[len(c.Records)-1].Request.ID
	case len(c.Snapshots) > 0:
		return fmt.Sprintf("snapshot %q", c.Snapshots[len(c.Snapshots)-1].CID)
	}
	return "the catalogue"
}

func putRecords(bucket *bbolt.Bucket, all []agent.Record) error {
	ended := false
	for _, r := range all {
		doc, err := wire.MarshalRecord(r)
		if err != nil {
			return fmt.Errorf("cannot encode the record of run %s: %w", r.Request.ID, err)
		}
		if err := bucket.Put([]byte(r.Request.ID), doc); err != nil {
			return err
		}
		ended = ended || r.Report != nil
	}
	if !ended {
		return nil
	}
	return prune(bucket)
}

// prune keeps the newest runs, and all that have not ended.
func prune(bucket *bbolt.Bucket) error {
	if bucket.Inspect().KeyN <= keep {
		return nil
	}
	all, err := read(bucket)
	if err != nil {
		return err
	}
	for _, r := range all[:max(0, len(all)-keep)] {
		if r.Report == nil {
			continue
		}
		if err := bucket.Delete([]byte(r.Request.ID)); err != nil {
			return err
		}
	}
	return nil
}

// Get is the record of one run, and whether there is one. One that was moved
// aside is an error: the run was, and must not be taken for a new one.
func (j *Journal) Get(id string) (agent.Record, bool, error) {
	var found agent.Record
	ok := false
	err := j.db.View(func(tx *bbolt.Tx) error {
		doc := tx.Bucket(runs.bucket).Get([]byte(id))
		if doc == nil {
			if tx.Bucket(runs.aside).Get([]byte(id)) != nil {
				return errors.New("its record is damaged")
			}
			return nil
		}
		var err error
		found, err = decode([]byte(id), doc)
		ok = err == nil
		return err
	})
	if err != nil {
		return agent.Record{}, false, fmt.Errorf("cannot read run %s from the journal: %w", id, err)
	}
	return found, ok, nil
}

// All is every record, oldest first.
func (j *Journal) All() ([]agent.Record, error) {
	var all []agent.Record
	err := j.db.View(func(tx *bbolt.Tx) error {
		var err error
		all, err = read(tx.Bucket(runs.bucket))
		return err
	})
	if err != nil {
		return nil, fmt.Errorf("cannot read the journal: %w", err)
	}
	return all, nil
}

func read(bucket *bbolt.Bucket) ([]agent.Record, error) {
	var all []agent.Record
	err := bucket.ForEach(func(id, doc []byte) error {
		r, err := decode(id, doc)
		if err != nil {
			return fmt.Errorf("run %s: %w", id, err)
		}
		all = append(all, r)
		return nil
	})
	slices.SortStableFunc(all, func(a, b agent.Record) int { return a.Started.Compare(b.Started) })
	return all, err
}
