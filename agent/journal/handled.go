package journal

import (
	"encoding/json"
	"time"

	"github.com/quiesced/quiesced/agent"
)

// HandledFile keeps which scheduled runs are dealt with, in the state directory.
type HandledFile struct{ Path string }

func (f HandledFile) file() file { return file{f.Path, "which scheduled runs are dealt with"} }

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
	return f.file().put(json.Marshal(w))
}

// Get reads the file. One that is not there, or makes no sense, tells of nothing.
func (f HandledFile) Get() (map[agent.Trigger]agent.Handled, error) {
	doc, ok, err := f.file().get()
	if !ok || err != nil {
		return nil, err
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
