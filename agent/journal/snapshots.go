package journal

import (
	"fmt"

	"go.etcd.io/bbolt"

	"github.com/quiesced/quiesced/agent"
	"github.com/quiesced/quiesced/agent/wire"
)

// putSnapshots makes a change to the catalogue.
func putSnapshots(bucket *bbolt.Bucket, c agent.Change) error {
	for _, key := range c.Gone {
		if err := bucket.Delete([]byte(key)); err != nil {
			return err
		}
	}
	for _, s := range c.Snapshots {
		doc, err := wire.MarshalSnapshot(s)
		if err != nil {
			return fmt.Errorf("cannot encode snapshot %q: %w", s.CID, err)
		}
		if err := bucket.Put([]byte(s.Key()), doc); err != nil {
			return err
		}
	}
	return nil
}

// Snapshots is the catalogue, in no order that means anything.
func (j *Journal) Snapshots() ([]agent.Snapshot, error) {
	var all []agent.Snapshot
	err := j.db.View(func(tx *bbolt.Tx) error {
		return tx.Bucket(snapshots.bucket).ForEach(func(key, doc []byte) error {
			s, err := decodeSnapshot(key, doc)
			if err != nil {
				return fmt.Errorf("snapshot %s: %w", key, err)
			}
			all = append(all, s)
			return nil
		})
	})
	if err != nil {
		return nil, fmt.Errorf("cannot read the journal: %w", err)
	}
	return all, nil
}

// decodeSnapshot reads a snapshot, which has the key it is stored under.
func decodeSnapshot(key, doc []byte) (agent.Snapshot, error) {
	s, err := wire.UnmarshalSnapshot(doc)
	if err == nil && s.Key() != agent.SnapshotKey(key) {
		err = fmt.Errorf("cannot read a stored snapshot: its key is %q", s.Key())
	}
	return s, err
}

func checkSnapshot(key, doc []byte) error {
	_, err := decodeSnapshot(key, doc)
	return err
}
