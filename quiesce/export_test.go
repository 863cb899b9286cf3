package quiesce

// For the tests of the package: how it reads the kernel's tables.

var ParseMounts = parseMounts

var Option = option

func (s System) BackingFile(device string) (string, error) {
	return (&Survey{system: s}).backingFile(device)
}

func (s System) LowerDevices(device string) []string {
	return (&Survey{system: s}).lowerDevices(device)
}

func (s System) BtrfsMembers(source string) []string {
	return (&Survey{system: s}).btrfsMembers(source)
}

// Under lists the block devices under one, its own first, top down.
func (s System) Under(device string) ([]string, error) {
	w := &walk{survey: &Survey{system: s}, seen: map[string]bool{}}
	err := w.device(device)
	found := make([]string, 0, len(w.seen))
	for name := range w.seen {
		found = append(found, name)
	}
	return found, err
}
