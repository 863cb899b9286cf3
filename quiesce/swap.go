package quiesce

import (
	"errors"
	"fmt"
	"io/fs"
	"os"
	"strings"
)

// swap is an active swap area.
type swap struct {
	Path string
	File bool // or else a block device
}

// swaps reads /proc/swaps. A kernel without swap has none.
func (s System) swaps() ([]swap, error) {
	table, err := os.ReadFile(s.proc("swaps"))
	if errors.Is(err, fs.ErrNotExist) {
		return nil, nil
	}
	if err != nil {
		return nil, fmt.Errorf("cannot read the table of swap areas: %w", err)
	}
	return parseSwaps(string(table))
}

// parseSwaps reads the text of /proc/swaps: a heading, then a line for each area
// with its path, type, size, use and priority. White space in a path is written
// as a backslash and three octal digits.
func parseSwaps(table string) ([]swap, error) {
	var all []swap
	for i, line := range strings.Split(strings.TrimSuffix(table, "\n"), "\n") {
		if i == 0 {
			continue
		}
		fields := strings.Fields(line)
		if len(fields) != 5 || fields[1] != "file" && fields[1] != "partition" {
			return nil, fmt.Errorf("cannot parse the table of swap areas: line %d is %q", i+1, line)
		}
		path := escaped.ReplaceAllStringFunc(fields[0], octal)
		all = append(all, swap{Path: path, File: fields[1] == "file"})
	}
	return all, nil
}
