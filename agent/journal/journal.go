// Package journal keeps the agent's records in a bbolt database: one per run,
// as JSON, under the run's id. A record is durable when Put returns nil.
//
// A record that cannot be read must not keep the daemon from the others. Open
// moves it aside, as it is, and Damaged names it.
package journal

import (
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

// keep is how many ended runs without a snapshot are remembered.
const keep = 1000

// openTimeout bounds the wait for another daemon that has the database open.
const openTimeout = time.Second

// The buckets: the runs by id, and what was found among them that is no record.
var bucket, aside = []byte("runs"), []byte("damaged")

// Journal implements agent.Journal.
type Journal struct{ db *bbolt.DB }

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
	if err := prepare(db); err != nil {
		_ = db.Close()
		return nil, fmt.Errorf("cannot write the journal %q: %w", path, err)
	}
	return &Journal{db: db}, nil
}

// prepare makes the buckets and moves aside what cannot be read. It writes only
// where there is something to do: a full disk must not keep a daemon from
// starting, which has to make good what the one before it left.
func prepare(db *bbolt.DB) error {
	inOrder := false
	err := db.View(func(tx *bbolt.Tx) error {
		runs := tx.Bucket(bucket)
		inOrder = runs != nil && tx.Bucket(aside) != nil && len(unreadable(runs)) == 0
		return nil
	})
	if err != nil || inOrder {
		return err
	}
	return db.Update(func(tx *bbolt.Tx) error {
		runs, err := tx.CreateBucketIfNotExists(bucket)
		if err != nil {
			return err
		}
		damaged, err := tx.CreateBucketIfNotExists(aside)
		if err != nil {
			return err
		}
		for _, id := range unreadable(runs) {
			err = errors.Join(err, damaged.Put(id, slices.Clone(runs.Get(id))), runs.Delete(id))
		}
		return err
	})
}

// unreadable are the ids under which there is no record.
func unreadable(runs *bbolt.Bucket) [][]byte {
	var bad [][]byte
	c := runs.Cursor()
	for id, doc := c.First(); id != nil; id, doc = c.Next() {
		if _, err := decode(id, doc); err != nil {
			bad = append(bad, slices.Clone(id))
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

// Damaged lists the ids of records that were moved aside. What their runs did is
// not known: snapshots of theirs are in no list.
func (j *Journal) Damaged() ([]string, error) {
	var ids []string
	err := j.db.View(func(tx *bbolt.Tx) error {
		return tx.Bucket(aside).ForEach(func(id, _ []byte) error {
			ids = append(ids, string(id))
			return nil
		})
	})
	if err != nil {
		return nil, fmt.Errorf("cannot read the journal: %w", err)
	}
	return ids, nil
}

// Close closes the database.
func (j *Journal) Close() error { return j.db.Close() }

// Put makes a record durable, in place of the one with its id. When it ends a
// run it also forgets the oldest ended runs that no snapshot depends on.
func (j *Journal) Put(r agent.Record) error {
	doc, err := wire.MarshalRecord(r)
	if err != nil {
		return fmt.Errorf("cannot encode the record of run %s: %w", r.Request.ID, err)
	}
	err = j.db.Update(func(tx *bbolt.Tx) error {
		runs := tx.Bucket(bucket)
		if err := runs.Put([]byte(r.Request.ID), doc); err != nil {
			return err
		}
		if r.Report == nil {
			return nil
		}
		return prune(runs)
	})
	if err != nil {
		return fmt.Errorf("cannot write run %s to the journal: %w", r.Request.ID, err)
	}
	return nil
}

// prune keeps the newest ended runs and all on which something depends.
func prune(runs *bbolt.Bucket) error {
	if runs.Inspect().KeyN <= keep {
		return nil
	}
	all, err := read(runs)
	if err != nil {
		return err
	}
	for _, r := range all[:max(0, len(all)-keep)] {
		if r.Report == nil || len(r.Snapshots) > 0 {
			continue
		}
		if err := runs.Delete([]byte(r.Request.ID)); err != nil {
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
		doc := tx.Bucket(bucket).Get([]byte(id))
		if doc == nil {
			if tx.Bucket(aside).Get([]byte(id)) != nil {
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
		all, err = read(tx.Bucket(bucket))
		return err
	})
	if err != nil {
		return nil, fmt.Errorf("cannot read the journal: %w", err)
	}
	return all, nil
}

func read(runs *bbolt.Bucket) ([]agent.Record, error) {
	var all []agent.Record
	err := runs.ForEach(func(id, doc []byte) error {
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
