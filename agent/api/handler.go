package api

import (
	"cmp"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"maps"
	"reflect"
	"slices"
	"sync"
	"time"

	"github.com/quiesced/quiesced/agent"
	"github.com/quiesced/quiesced/agent/audit"
	"github.com/quiesced/quiesced/agent/wire"
)

// Call is one call, whatever transport it came by.
type Call struct {
	Method    string          // without a transport's prefix
	FullName  string          // as it was called, for messages; Method when empty
	Arguments json.RawMessage // an array, null or nothing
	By        string          // who calls, for the record
	From      string          // his host:port, for the audit; "" where he has none
	Role      Role            // what he may do: nothing unless it is given

	list []json.RawMessage // Arguments, read
}

func (c Call) name() string {
	if c.FullName != "" {
		return c.FullName
	}
	return c.Method
}

// Handler answers calls. It is safe for concurrent use.
type Handler struct {
	Agent   *agent.Agent
	Version string
	Samples func(agent.Report) []wire.Sample // a run's metrics
	Metrics func() (string, error)           // the exposition text
	Wait    time.Duration                    // of get_task for a task's end; TaskWait when zero
	Audit   func(audit.Event)                // is told of every call once it is answered; may be nil
	tasks   tasks

	reading sync.Once // sets table
	table   map[string]method
}

// method is one row of the table.
type method struct {
	arguments int  // that it needs; more are passed over, as bosh-agent does
	waits     bool // for up to TaskWait, where the others answer within seconds
	least     Role // that its caller must have
	answer    func(*Handler, context.Context, Call) (any, error)
}

// methods is the table: what each needs, and who may call it.
func methods() map[string]method {
	return map[string]method{
		"info":             {0, false, RoleHolder, (*Handler).info},
		"status":           {0, false, RoleOperator, (*Handler).status},
		"metrics":          {0, false, RoleOperator, (*Handler).metrics},
		"take_snapshot":    {0, false, RoleOperator, (*Handler).takeSnapshot},
		"plan_snapshot":    {0, false, RoleOperator, (*Handler).planSnapshot},
		"snapshots":        {0, false, RoleOperator, (*Handler).snapshots},
		"runs":             {0, false, RoleOperator, (*Handler).runs},
		"delete_snapshot":  {1, false, RoleOperator, (*Handler).deleteSnapshot},
		"delete_snapshots": {0, false, RoleOperator, (*Handler).deleteSnapshots},
		"reconcile":        {0, false, RoleOperator, (*Handler).reconcile},
		"verify_snapshot":  {0, false, RoleOperator, (*Handler).verifySnapshot},
		"plan_restore":     {1, false, RoleOperator, (*Handler).planRestore},
		"restore_snapshot": {1, false, RoleOperator, (*Handler).restoreSnapshot},
		"apply_retention":  {0, false, RoleOperator, (*Handler).applyRetention},
		"get_task":         {1, true, RoleHolder, (*Handler).getTask},
		"cancel_task":      {1, true, RoleHolder, (*Handler).cancelTask},
		"quiesce":          {1, true, RoleHolder, (*Handler).quiesce},
		"renew":            {2, false, RoleHolder, (*Handler).renew},
		"resume":           {1, true, RoleHolder, (*Handler).resume},
		"yield":            {0, true, RoleOperator, (*Handler).yield},
		"unyield":          {0, false, RoleOperator, (*Handler).unyield},
	}
}

// Methods lists the names of the methods.
func Methods() []string { return slices.Sorted(maps.Keys(methods())) }

// Waits says whether a method may take up to TaskWait to answer.
func Waits(name string) bool { return methods()[name].waits }

func (h *Handler) call(ctx context.Context, c Call) (any, error) {
	h.reading.Do(func() { h.table = methods() })
	m, ok := h.table[c.Method]
	if err := c.may(m.least); err != nil {
		return nil, err
	}
	if !ok {
		return nil, &Error{Kind: KindUnknownMethod, Message: "unknown message " + c.name()}
	}
	var err error
	if c.list, err = arguments(c); err != nil {
		return nil, err
	}
	if len(c.list) < m.arguments {
		return nil, invalid(c, "Extracting method arguments from payload: Not enough arguments, expected %d, got %d", m.arguments, len(c.list))
	}
	value, err := m.answer(h, ctx, c)
	if err != nil {
		return nil, actionFailed(c, err)
	}
	return value, nil
}

// arguments reads a call's arguments. Where they are no array the error has
// bosh-agent's bytes, which show the types that bosh-agent reads them into.
func arguments(c Call) ([]json.RawMessage, error) {
	if len(c.Arguments) == 0 {
		return nil, nil
	}
	var list []json.RawMessage
	err := json.Unmarshal(c.Arguments, &list)
	if err == nil {
		return list, nil
	}
	if wrong, ok := errors.AsType[*json.UnmarshalTypeError](err); ok {
		wrong.Struct, wrong.Field, wrong.Type = "payloadType", "arguments", reflect.TypeFor[[]any]()
	}
	return nil, invalid(c, "Extracting json arguments: Unmarshalling payload arguments to interface{} types: %v", err)
}

// invalid is an exception that bosh-agent knows too.
func invalid(c Call, format string, args ...any) *Error {
	return &Error{Message: "Action Failed " + c.name() + ": " + fmt.Sprintf(format, args...)}
}

// actionFailed puts an error into the words in which bosh-agent reports one.
func actionFailed(c Call, err error) error {
	if own, ok := err.(*Error); ok { //nolint:errorlint // made by a method for this very call
		return own
	}
	return &Error{Kind: KindOf(err), Message: "Action Failed " + c.name() + ": " + err.Error(), Cause: err.Error()}
}

// text reads a call's first argument, a string.
func text(c Call) (string, error) {
	var s string
	if err := json.Unmarshal(c.list[0], &s); err != nil {
		return "", invalid(c, "Extracting method arguments from payload: Unmarshalling action argument: %v", err)
	}
	return s, nil
}

// Info is the answer to info.
type Info struct {
	Version  string   `json:"version"`
	Methods  []string `json:"methods"`
	Levels   []string `json:"levels"`
	Enabled  bool     `json:"enable_snapshots"`
	Instance Instance `json:"instance"`
}

// Instance is who the VM is.
type Instance struct {
	Deployment string `json:"deployment"`
	Job        string `json:"job"`
	Index      int    `json:"index"`
	ID         string `json:"id"`
	AgentID    string `json:"agent_id"`
}

func (h *Handler) info(context.Context, Call) (any, error) {
	s := &h.Agent.Settings
	info := Info{Version: h.Version, Methods: Methods(), Enabled: s.Enabled, Instance: Instance(s.Instance)}
	for _, l := range agent.Levels() {
		info.Levels = append(info.Levels, string(l))
	}
	return info, nil
}

// Status is the answer to status.
type Status struct {
	Version   string            `json:"version"`
	Enabled   bool              `json:"enable_snapshots"`
	Instance  Instance          `json:"instance"`
	Work      string            `json:"work,omitempty"`
	Phase     string            `json:"phase,omitempty"`
	Since     *time.Time        `json:"since,omitempty"`
	Last      *wire.Report      `json:"last_run,omitempty"`
	Restored  *wire.Report      `json:"last_restore,omitempty"`
	Snapshots int               `json:"snapshots"`
	Copies    []Copy            `json:"catalogue_copies,omitempty"`
	Unsaved   []string          `json:"unsaved_runs,omitempty"`
	Stuck     []string          `json:"stuck,omitempty"`
	Doing     map[string]string `json:"jobs,omitempty"`
	NotGoing  []string          `json:"not_going,omitempty"`
	Yielded   *time.Time        `json:"yielded_since,omitempty"`
	Scheduled []Scheduled       `json:"schedules,omitempty"`
	Verifying *Verifying        `json:"verification,omitempty"`
	Verified  *time.Time        `json:"last_verified,omitempty"` // and found good
	Retention *Retention        `json:"retention,omitempty"`     // none where nothing is configured
}

// Retention is what retention did since the daemon began.
type Retention struct {
	Deleted int        `json:"deleted"`
	Failed  int        `json:"failed"`
	Last    *time.Time `json:"last,omitempty"` // when all was deleted that went
}

// Copy is how the copy of the catalogue on a disk stands.
type Copy struct {
	DiskCID string     `json:"disk_cid"`
	Mount   string     `json:"mount"`
	Current bool       `json:"current"` // it has what the catalogue has
	Written *time.Time `json:"written_at,omitempty"`
	Error   string     `json:"error,omitempty"`
}

func fromCopies(all []agent.CopyStatus) []Copy {
	var w []Copy
	for _, one := range all {
		c := Copy{DiskCID: one.DiskCID, Mount: one.Mount, Current: one.Current, Written: instant(one.Written)}
		if one.Err != nil {
			c.Error = one.Err.Error()
		}
		w = append(w, c)
	}
	return w
}

// Scheduled is how a schedule of runs stands.
type Scheduled struct {
	Trigger string     `json:"trigger"`
	Cron    string     `json:"cron"`
	Next    *time.Time `json:"next,omitempty"`
	Last    *time.Time `json:"last,omitempty"`
	Missed  int        `json:"missed"`  // since the daemon began
	Skipped int        `json:"skipped"` // since the daemon began
}

// instant is a time in UTC, nil for none.
func instant(t time.Time) *time.Time {
	if t.IsZero() {
		return nil
	}
	t = t.UTC()
	return &t
}

func (h *Handler) status(context.Context, Call) (any, error) {
	s, err := h.Agent.Status()
	if err != nil {
		return nil, err
	}
	w := Status{
		Version: h.Version, Enabled: s.Enabled, Instance: Instance(s.Instance), Work: s.Work,
		Phase: string(s.Phase), Snapshots: s.Snapshots, Copies: fromCopies(s.Copies), Unsaved: s.Unsaved, Stuck: s.Stuck,
		Doing: s.Doing, NotGoing: s.NotGoing,
	}
	w.Yielded, w.Since = instant(s.Yielded), instant(s.Since)
	w.Verifying, w.Verified = verifying(s.Verification), instant(s.LastVerified)
	for _, one := range s.Scheduled {
		w.Scheduled = append(w.Scheduled, Scheduled{
			Trigger: string(one.Trigger), Cron: one.Cron, Next: instant(one.Next), Last: instant(one.Last),
			Missed: one.Missed, Skipped: one.Skipped,
		})
	}
	if r := s.Retention; r != nil {
		w.Retention = &Retention{Deleted: r.Deleted, Failed: r.Failed, Last: instant(r.Last)}
	}
	if s.Last != nil {
		last := wire.FromReport(*s.Last)
		w.Last = &last
	}
	if s.Restored != nil {
		restored := wire.FromReport(*s.Restored)
		w.Restored = &restored
	}
	return w, nil
}

// yield answers when the run that held jobs has let go.
func (h *Handler) yield(ctx context.Context, _ Call) (any, error) {
	ctx, cancel := context.WithTimeout(ctx, cmp.Or(h.Wait, TaskWait))
	defer cancel()
	return "yielded", h.Agent.Yield(ctx)
}

func (h *Handler) unyield(context.Context, Call) (any, error) {
	return "unyielded", h.Agent.Unyield()
}

func (h *Handler) metrics(context.Context, Call) (any, error) { return h.Metrics() }
