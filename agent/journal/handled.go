package journal

import (
	"encoding/json"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"time"

	"github.com/quiesced/quiesced/agent"
)

// HandledFile keeps which scheduled runs are dealt with, in the state directory.
type HandledFile struct{ Path string }

type handled struct {
	Cron string    `json:"cron"`
	Time time.Time `json:"handled_until"`
}

// Put replaces the file whole, and durably.
func (f HandledFile) Put(all map[agent.Trigger]agent.Handled) error {
	w := map[agent.Trigger]handled{}
	for trigger, h := range all {
		w[trigger] = handled{h.Cron, h.Time.UTC()}
	}
	doc, err := json.Marshal(w)
	if err == nil {
		err = writeDurably(f.Path, doc)
	}
	if err != nil {
		return fmt.Errorf("cannot write which scheduled runs are dealt with: %w", err)
	}
	return nil
}

func writeDurably(path string, doc []byte) error {
	file, err := os.OpenFile(path+".new", os.O_CREATE|os.O_TRUNC|os.O_WRONLY, 0o600)
	if err != nil {
		return err
	}
	_, err = file.Write(doc)
	if err = errors.Join(err, file.Sync(), file.Close()); err != nil {
		return err
	}
	if err := os.Rename(path+".new", path); err != nil {
		return err
	}
	dir, err := os.Open(filepath.Dir(path))
	if err != nil {
		return err
	}
	return errors.Join(dir.Sync(), dir.Close())
}

// Get reads the file. One that is not there, or makes no sense, tells of nothing.
func (f HandledFile) Get() (map[agent.Trigger]agent.Handled, error) {
	doc, err := os.ReadFile(f.Path)
	if errors.Is(err, fs.ErrNotExist) {
		return nil, nil
	}
	if err != nil {
		return nil, fmt.Errorf("cannot read which scheduled runs are dealt with: %w", err)
	}
	var w map[agent.Trigger]handled
	if json.Unmarshal(doc, &w) != nil {
		return nil, nil //nolint:nilerr // schedules begin anew, and runs are known by their ids
	}
	all := map[agent.Trigger]agent.Handled{}
	for trigger, h := range w {
		all[trigger] = agent.Handled{Cron: h.Cron, Time: h.Time}
	}
	return all, nil
}
