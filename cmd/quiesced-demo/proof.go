package main

import (
	"errors"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"strings"

	"github.com/quiesced/quiesced/quiesce/loopfs"
)

// prove looks at the snapshot itself: what its superblock says, and what the
// writer's file holds.
func (s *stage) prove(taken *snapshot) error {
	image := s.image("snapshots", taken.cid)
	s.say("7. The proof, from the snapshot itself: %s", taken.cid)
	if !taken.report.Clean {
		return fmt.Errorf("the report says that it is not clean: %s", taken.report.Reason)
	}
	if err := noRecoveryNeeded(image); err != nil {
		return err
	}
	s.show("the journal needs no recovery: dumpe2fs shows no needs_recovery")
	at := filepath.Join(s.dir, "snapshot")
	if err := loopfs.Mount(image, at, "ro", "noload"); err != nil {
		return err
	}
	n, err := countRecords(filepath.Join(at, recordsFile))
	if err := errors.Join(err, loopfs.Unmount(at)); err != nil {
		return err
	}
	if n < taken.before {
		return fmt.Errorf("%d records were acknowledged before the request, and the snapshot has %d", taken.before, n)
	}
	s.show("mounted read-only without its journal: %d whole records without a gap", n)
	s.show("acknowledged before the request: %d, so none of them is missing", taken.before)
	return nil
}

// noRecoveryNeeded checks the flag that e2fsck -n does not judge by.
func noRecoveryNeeded(image string) error {
	out, err := exec.Command("dumpe2fs", "-h", image).CombinedOutput()
	if err != nil {
		return fmt.Errorf("dumpe2fs: %w: %s", err, out)
	}
	if !strings.Contains(string(out), "Filesystem features:") {
		return errors.New("dumpe2fs shows no features")
	}
	if strings.Contains(string(out), "needs_recovery") {
		return errors.New("the snapshot's journal needs recovery")
	}
	return nil
}

// countRecords reads the writer's file and checks each record: the file ends
// with a whole one, and their numbers rise by one from 1.
func countRecords(path string) (int, error) {
	text, err := os.ReadFile(path)
	if err != nil {
		return 0, err
	}
	if len(text)%recordSize != 0 {
		return 0, fmt.Errorf("the last record is not whole: %d bytes", len(text))
	}
	n := len(text) / recordSize
	for i := range n {
		if got := string(text[i*recordSize : (i+1)*recordSize]); got != record(i+1) {
			return 0, fmt.Errorf("record %d is %q", i+1, got)
		}
	}
	return n, nil
}
