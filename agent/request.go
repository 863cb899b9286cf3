package agent

import (
	"fmt"
	"maps"
	"regexp"
	"slices"
	"strconv"
	"strings"
	"time"

	"github.com/google/uuid"

	"github.com/quiesced/quiesced/cpi"
	"github.com/quiesced/quiesced/quiesce"
)

// Instance is who this VM is, in BOSH's words.
type Instance struct {
	Deployment string
	Job        string
	Index      int
	ID         string
	AgentID    string
}

func (i Instance) String() string {
	if i.ID == "" {
		return i.Job + "/" + strconv.Itoa(i.Index)
	}
	return i.Job + "/" + i.ID
}

// same says whether this is the instance that another time was meant by other. Its index
// changes; where it has no id, nothing else tells it from others of its job.
func (i Instance) same(other Instance) bool {
	return i.Deployment == other.Deployment && i.Job == other.Job && i.ID == other.ID && (i.ID != "" || i.Index == other.Index)
}

// Request asks for snapshots of this instance's persistent disks.
type Request struct {
	ID           string  // of the run to be; the same id never makes a second snapshot
	Trigger      Trigger // manual when empty
	Level        Level   // the configured one of the trigger when empty
	Job          string  // JOB[/INDEX-OR-ID]; empty for whichever instance this is
	Disks        []string
	Metadata     map[string]string // added to what the CPI is told
	AllowDegrade bool              // a lesser level is reported instead of failing the run
	Wait         bool              // for the work that holds the VM, instead of a BusyError
	By           string            // who asks, for the record

	Snapshot string // CID of the snapshot that is restored; "" for a run that takes snapshots
	Force    bool   // of a restore: though the snapshot is damaged

	// Lease makes the run a hold when it is not zero: somebody else takes the
	// snapshot, and the instance is at rest until he says so or the lease runs out.
	Lease time.Duration
}

// idPattern keeps ids usable as names of directories and tokens of subjects.
var idPattern = regexp.MustCompile(`^[A-Za-z0-9_][A-Za-z0-9_-]{0,63}$`)

// NewID makes a random id for a run or a task.
func NewID() string { return uuid.NewString() }

// same says whether another request with this one's id asks for the same.
func (r Request) same(o Request) bool {
	return r.Trigger == o.Trigger && r.Level == o.Level && r.Job == o.Job &&
		r.AllowDegrade == o.AllowDegrade && r.Snapshot == o.Snapshot && r.Force == o.Force &&
		slices.Equal(r.Disks, o.Disks) && maps.Equal(r.Metadata, o.Metadata)
}

// completed fills in what the configuration decides, and checks every field.
func (s *Settings) completed(r Request) (Request, error) {
	if r.ID == "" {
		r.ID = NewID()
	}
	if !idPattern.MatchString(r.ID) {
		return r, refuse("id", "%q is not usable: up to 64 letters, digits, '-' and '_'", r.ID)
	}
	if r.Trigger == "" {
		r.Trigger = TriggerManual
		if r.Lease != 0 {
			r.Trigger = TriggerDirector
		}
	}
	if _, err := ParseTrigger(string(r.Trigger)); err != nil {
		return r, &RefusedError{Field: "trigger", Err: err}
	}
	if err := checkHold(r); err != nil {
		return r, err
	}
	if r.Level == "" {
		r.Level = s.Levels[r.Trigger]
	}
	if _, err := ParseLevel(string(r.Level)); err != nil {
		return r, &RefusedError{Field: "level", Err: err}
	}
	r.AllowDegrade = r.AllowDegrade || s.AllowDegrade
	if err := s.checkJob(r.Job); err != nil {
		return r, err
	}
	if err := checkMetadata(r.Metadata); err != nil {
		return r, err
	}
	_, err := s.selected(r.Disks)
	return r, err
}

// checkJob compares JOB[/INDEX-OR-ID] with this instance.
func (s *Settings) checkJob(asked string) error {
	if asked == "" {
		return nil
	}
	job, which, has := strings.Cut(asked, "/")
	in := s.Instance
	if job != in.Job {
		return refuse("job", "unknown job %q: this instance is %s", asked, in)
	}
	if has && which != strconv.Itoa(in.Index) && (in.ID == "" || which != in.ID) {
		return refuse("job", "unknown instance %q: this instance is %s (index %d)", asked, in, in.Index)
	}
	return nil
}

// attached are the disks that this VM has now.
func (s *Settings) attached() ([]quiesce.Disk, error) {
	if s.Attached == nil {
		return s.Disks, nil
	}
	return s.Attached()
}

// selected are the attached disks with the CIDs asked for, all for none.
func (s *Settings) selected(cids []string) ([]quiesce.Disk, error) {
	all, err := s.attached()
	if err != nil || len(cids) == 0 {
		return all, err
	}
	var found []quiesce.Disk
	for i, cid := range cids {
		field := fmt.Sprintf("disks[%d]", i)
		at := slices.IndexFunc(all, func(d quiesce.Disk) bool { return d.CID == cid })
		if at < 0 {
			return nil, &RefusedError{Field: field, Err: &NotAttachedError{CID: cid, Attached: all}}
		}
		if slices.Contains(cids[:i], cid) {
			return nil, refuse(field, "disk %q is named twice", cid)
		}
		found = append(found, all[at])
	}
	return found, nil
}

// ownKeys are the metadata keys that say whose snapshot it is: nothing in a
// request may pass for them.
var ownKeys = []string{"deployment", "job", "index", "director_name", "director_uuid", "agent_id", "instance_id"}

func checkMetadata(m map[string]string) error {
	for _, key := range ownKeys {
		if _, ok := m[key]; ok {
			return refuse("metadata."+key, "the key is the instance's own")
		}
	}
	return nil
}

// metadata is what the CPI is told about a snapshot. Of its own VM a director knows no
// instance, and names it so.
func (s *Settings) metadata(r Request) cpi.SnapshotMetadata {
	i := s.Instance
	if r.Trigger == TriggerSelf {
		i = Instance{Deployment: "self", Job: "director", AgentID: "self"}
	}
	return cpi.SnapshotMetadata{
		Deployment: i.Deployment,
		Job:        i.Job,
		Index:      i.Index,
		AgentID:    i.AgentID,
		InstanceID: i.ID,
		Tags:       r.Metadata,
	}
}
