package jobs

import (
	"crypto/sha256"
	"fmt"
	"net/url"
	"path/filepath"
	"strings"
)

// mark is what a script's control group and environment are known by: the root of
// its layout, its job and its name. Daemons for other roots have other marks.
type mark string

func (l Layout) mark(s Script) mark {
	return mark(l.prefix() + url.QueryEscape(s.Job) + ":" + url.QueryEscape(s.Name))
}

func (l Layout) prefix() string {
	return fmt.Sprintf("%.4x:", sha256.Sum256([]byte(filepath.Clean(l.Root))))
}

// marked is the script that a mark of this layout is of, with whatever is behind a
// further colon.
func (l Layout) marked(m mark) (s Script, rest string, ok bool) {
	text, ok := strings.CutPrefix(string(m), l.prefix())
	parts := strings.SplitN(text, ":", 3)
	if !ok || len(parts) != 3 {
		return Script{}, "", false
	}
	job, err := url.QueryUnescape(parts[0])
	name, nameErr := url.QueryUnescape(parts[1])
	return l.script(job, name), parts[2], err == nil && nameErr == nil
}

const (
	variable = "QUIESCED_SCRIPT="
	inGroup  = "process group" // what to go by in looking for what a script has started
	inCgroup = "cgroup"
)

func (m mark) variable(cgroup bool) string {
	if cgroup {
		return variable + string(m) + ":" + inCgroup
	}
	return variable + string(m) + ":" + inGroup
}
