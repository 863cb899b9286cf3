package quiesce

import (
	"fmt"
	"os"
	"path/filepath"
	"strconv"
	"strings"
)

// Devices are the sizes, in bytes, of all block devices, by their names. A loop device
// without an image is there, and has none.
func (s System) Devices() (map[string]int64, error) {
	entries, err := os.ReadDir(s.sys("class", "block"))
	if err != nil {
		return nil, fmt.Errorf("cannot list the block devices: %w", err)
	}
	all := map[string]int64{}
	for _, e := range entries {
		text, err := os.ReadFile(filepath.Join(s.sys("class", "block"), e.Name(), "size"))
		if err != nil {
			continue // it went meanwhile
		}
		sectors, _ := strconv.ParseInt(strings.TrimSpace(string(text)), 10, 64)
		all[e.Name()] = sectors * sector
	}
	return all, nil
}
