package local

import (
	"errors"
	"io/fs"
	"os"
	"path/filepath"
	"strings"

	"github.com/quiesced/quiesced/cpi"
)

// driver keeps the data of disks and snapshots in one form. What is the same for all of
// them, names and sidecars and how a CID comes to be and goes, is the folder's.
type driver interface {
	// name is what properties call it.
	name() string

	// suffix follows the CID in the name of its data.
	suffix() string

	// claims reports whether what lies under such a name is this driver's, or a link
	// that may lead to it.
	claims(path string, info fs.FileInfo) bool

	// open returns data for reading, through a link.
	open(path string) (*os.File, error)

	// snapshot makes a read-only clone of the source, fixed at one moment where the
	// method is not copied.
	snapshot(f folder, cid string, source *os.File) (*temporary, method, error)

	// disk makes the data of a disk of so many bytes: empty, or with what the source
	// holds if there is one, which it must not be smaller than.
	disk(f folder, cid string, size int64, source *os.File) (*temporary, error)

	// attach makes the data usable and returns where; it may be so already.
	attach(path string) (string, error)

	// detach undoes attach, and does nothing for data that is not attached. It
	// refuses what is in use.
	detach(path string) error

	// attached returns where the data is in use, or may be, and "" for nowhere.
	attached(path string) (string, error)

	// removable refuses data that cannot be removed.
	removable(path string) error

	// measure returns the bytes that the data takes and the size of the disk; zero for
	// what cannot be told.
	measure(data *os.File) (used, size int64, err error)
}

// method is how a clone was made.
type method string

const (
	reflink   method = "reflink"   // blocks are shared; fixed at one moment
	copied    method = "copy"      // the data was read and written, holes left out
	subvolume method = "subvolume" // of btrfs: fixed at one moment
)

// drivers are all of them, in the order in which they are asked whether a CID is theirs.
// The first has the disks for which no other is named.
func drivers() []driver { return []driver{images{}, subvolumes{}} }

// driverNamed returns the driver of a name, the first for none.
func driverNamed(name string) (driver, error) {
	for _, d := range drivers() {
		if name == "" || name == d.name() {
			return d, nil
		}
	}
	return nil, cpi.Errorf(cpi.CpiError, "there is no driver %q", name)
}

// entry is where the data of a CID lies, and whose it is.
type entry struct {
	driver
	cid  string
	path string // may be a symbolic link
}

// target is the path of the data itself.
func (e entry) target() (string, error) { return filepath.EvalSymlinks(e.path) }

// find returns the CID's entry; a symbolic link counts even when what it leads to is
// gone. The error is fs.ErrNotExist when there is no such CID.
func (f folder) find(cid string) (entry, error) {
	for _, d := range drivers() {
		e := f.entry(d, cid)
		info, err := os.Lstat(e.path)
		if err == nil && e.claims(e.path, info) {
			return e, nil
		}
		if err != nil && !errors.Is(err, fs.ErrNotExist) {
			return entry{}, err
		}
	}
	return entry{}, fs.ErrNotExist
}

func (f folder) entry(d driver, cid string) entry {
	return entry{d, cid, filepath.Join(f.dir, cid+d.suffix())}
}

// list returns what lies in the folder, each driver's in the order of names. Where two
// claim a CID it is the one that find returns.
func (f folder) list() ([]entry, error) {
	files, err := os.ReadDir(f.dir)
	if err != nil {
		return nil, err
	}
	var found []entry
	seen := map[string]bool{}
	for _, d := range drivers() {
		for _, file := range files {
			e, ok := f.listed(d, file)
			if ok && !seen[e.cid] {
				seen[e.cid] = true
				found = append(found, e)
			}
		}
	}
	return found, nil
}

func (f folder) listed(d driver, file fs.DirEntry) (entry, bool) {
	cid, ok := strings.CutSuffix(file.Name(), d.suffix())
	if !ok || checkCID(cid) != nil {
		return entry{}, false
	}
	e := f.entry(d, cid)
	info, err := file.Info()
	return e, err == nil && d.claims(e.path, info)
}
