package boshvm

import (
	"encoding/json"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"slices"
	"strings"

	"github.com/moby/sys/mountinfo"
)

// ErrMigrating is returned while bosh-agent copies one persistent disk to another:
// which of them is where cannot be told.
var ErrMigrating = errors.New("a persistent disk is being migrated to another")

// Disk is a persistent disk that the VM knows.
type Disk struct {
	CID      string
	Name     string   // of a disk that a job asked for by name
	Attached bool     // else it is known, and nothing more
	Device   string   // a link to the block device of a disk that a job mounts
	Mounts   []string // where bosh-agent has mounted it
}

// Disks reads which persistent disks there are now, by their CIDs: those that are
// attached, and those that are merely known. A VM may have none.
func (v VM) Disks() ([]Disk, error) {
	settings, err := v.settings()
	if err != nil {
		return nil, err
	}
	updates, err := v.updates()
	if err != nil {
		return nil, err
	}
	hints, err := readJSON[map[string]json.RawMessage](v.find("persistent_disk_hints.json"), true)
	if err != nil {
		return nil, err
	}
	managed, err := v.managed()
	if err != nil {
		return nil, err
	}
	found := map[string]Disk{}
	for _, known := range []map[string]json.RawMessage{settings.Disks.Persistent, hints} {
		for cid := range known {
			found[cid] = Disk{CID: cid}
		}
	}
	for i, a := range updates.Associations {
		if a.CID == "" || !plain(a.Name) {
			return nil, fmt.Errorf("cannot tell the disks: %q: disk_associations[%d] needs a cid and a name without slashes", v.find("update_settings.json"), i)
		}
		found[a.CID] = v.named(a)
	}
	if managed.CID != "" {
		found[managed.CID] = managed
	}
	return sorted(found), nil
}

// managed is the one disk that bosh-agent mounts itself, zero for none.
func (v VM) managed() (Disk, error) {
	var d Disk
	err := read(v.find("managed_disk_settings.json"), func(text []byte) (err error) {
		d.CID, err = parseCID(text)
		return err
	})
	if errors.Is(err, fs.ErrNotExist) {
		return Disk{}, nil
	}
	if err != nil {
		return Disk{}, err
	}
	mounted, err := v.mounted()
	if err != nil {
		return Disk{}, err
	}
	if mounted[v.path("store_migration_target")] {
		return Disk{}, ErrMigrating
	}
	if store := v.path("store"); mounted[store] {
		d.Attached, d.Mounts = true, []string{store}
	}
	return d, nil
}

// parseCID reads a file that holds a CID and nothing else, not even quotes.
func parseCID(text []byte) (string, error) {
	cid := strings.TrimSpace(string(text))
	if cid == "" || strings.ContainsFunc(cid, func(r rune) bool { return r < ' ' }) {
		return "", errors.New("it holds no CID")
	}
	return cid, nil
}

// mounted says which of the agent's mount points are mounted.
func (v VM) mounted() (map[string]bool, error) {
	path := v.Mounts
	if path == "" {
		path = "/proc/self/mountinfo"
	}
	table, err := os.Open(path)
	if err != nil {
		return nil, fmt.Errorf("cannot tell which disks are mounted: %w", err)
	}
	defer func() { _ = table.Close() }()
	found, err := mountinfo.GetMountsFromReader(table, mountinfo.PrefixFilter(v.Root))
	if err != nil {
		return nil, fmt.Errorf("cannot tell which disks are mounted: %w", err)
	}
	at := map[string]bool{}
	for _, m := range found {
		at[m.Mountpoint] = true
	}
	return at, nil
}

// named is a disk that a job mounts; bosh-agent makes the link while it is attached.
func (v VM) named(a association) Disk {
	d := Disk{CID: a.CID, Name: a.Name}
	link := v.path("instance", "disks", a.Name)
	if _, err := os.Stat(link); err == nil {
		d.Attached, d.Device = true, link
	}
	return d
}

// plain says whether a name is one element of a path.
func plain(name string) bool {
	return name != "" && name != "." && name != ".." && !strings.ContainsAny(name, "/\x00")
}

func sorted(found map[string]Disk) []Disk {
	all := make([]Disk, 0, len(found))
	for _, d := range found {
		all = append(all, d)
	}
	slices.SortFunc(all, func(a, b Disk) int { return strings.Compare(a.CID, b.CID) })
	return all
}
