package quiesce

// For the tests of the package: how it reads the kernel's tables.

var ParseMounts = parseMounts

var Option = option

func (s System) must() *Survey {
	survey, err := s.Survey()
	if err != nil {
		panic(err)
	}
	return survey
}

// ParseSwaps lists paths, those of files before those of devices.
func ParseSwaps(table string) (files, devices []string, err error) {
	all, err := parseSwaps(table)
	for _, one := range all {
		if one.File {
			files = append(files, one.Path)
		} else {
			devices = append(devices, one.Path)
		}
	}
	return files, devices, err
}

// MountAt is the id of the mount that is seen at a path without links.
func (s *Survey) MountAt(path string) uint64 { return uint64(s.mountAt(path).ID) }

func (s System) BackingFile(device string) (string, error) {
	return s.must().backingFile(device)
}

func (s System) LowerDevices(device string) []string {
	return s.must().lowerDevices(device)
}

func (s System) BtrfsMembers(source string) []string {
	return s.must().btrfsMembers(source)
}

// Under lists the block devices under one, its own first, top down.
func (s System) Under(device string) ([]string, error) {
	w := &walk{survey: s.must(), seen: map[string]bool{}}
	err := w.device(device)
	found := make([]string, 0, len(w.seen))
	for name := range w.seen {
		found = append(found, name)
	}
	return found, err
}
