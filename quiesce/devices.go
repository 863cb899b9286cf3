package quiesce

import (
	"fmt"
	"os"
	"path/filepath"
	"strings"
)

// Devices are the block devices that hold something, by their names, each with what tells
// its disk from another that has the name at another time: the kernel's number of the disk
// or, before Linux 5.15, no more than its size.
func (s System) Devices() (map[string]string, error) {
	dir := s.sys("class", "block")
	entries, err := os.ReadDir(dir)
	if err != nil {
		return nil, fmt.Errorf("cannot list the block devices: %w", err)
	}
	all := map[string]string{}
	for _, e := range entries {
		size, err := os.ReadFile(filepath.Join(dir, e.Name(), "size"))
		if err != nil || strings.TrimSpace(string(size)) == "0" { // it went meanwhile, or is a loop device without an image
			continue
		}
		all[e.Name()] = "size " + strings.TrimSpace(string(size))
		if number, err := os.ReadFile(filepath.Join(dir, e.Name(), "diskseq")); err == nil {
			all[e.Name()] = strings.TrimSpace(string(number))
		}
	}
	return all, nil
}
