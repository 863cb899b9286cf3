package main

import (
	"fmt"
	"os"
	"path/filepath"
	"strings"
)

// leftovers looks for what still has to do with the demonstration's directory:
// the directory itself, mounts, loop devices and processes.
func leftovers(dir string) error {
	if dir == "" {
		return nil
	}
	var left []string
	if _, err := os.Lstat(dir); err == nil {
		left = append(left, "directory "+dir)
	}
	left = append(left, containing(dir, "mount in", "/proc/self/mountinfo")...)
	left = append(left, containing(dir, "loop device", "/sys/block/loop*/loop/backing_file")...)
	left = append(left, containing(dir, "process", "/proc/[0-9]*/cmdline")...)
	if len(left) > 0 {
		return fmt.Errorf("left behind: %s", strings.Join(left, ", "))
	}
	return nil
}

// containing lists the files of a pattern in which the text is.
func containing(text, what, pattern string) []string {
	files, _ := filepath.Glob(pattern)
	var found []string
	for _, file := range files {
		if content, err := os.ReadFile(file); err == nil && strings.Contains(string(content), text) {
			found = append(found, what+" "+file)
		}
	}
	return found
}
