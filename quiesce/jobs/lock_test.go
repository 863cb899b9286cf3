package jobs_test

import (
	"context"
	"errors"
	"fmt"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"

	"github.com/quiesced/quiesced/quiesce/jobs"
)

// before is the metadata of a job that is to be locked before others.
func before(others ...string) string {
	text := "cat <<END\nbackup_name: unused\nbackup_should_be_locked_before:\n"
	for _, other := range others {
		text += fmt.Sprintf("- job_name: %s\n  release: whatever\n", other)
	}
	return text + "END\n"
}

const skip = "echo skip_bbr_scripts: true"

func TestLocksAreOrderedByMetadata(t *testing.T) {
	for name, c := range map[string]struct {
		locks    string // jobs with a lock script
		metadata map[string]string
		want     string // layers
	}{
		"none":                              {"", nil, ""},
		"without metadata":                  {"b a quiesced", nil, "a b"},
		"one before another":                {"a b", map[string]string{"b": before("a")}, "b | a"},
		"as early as can be":                {"a b c d", map[string]string{"c": before("b"), "b": before("a")}, "c d | b | a"},
		"a diamond":                         {"a b c d", map[string]string{"d": before("b", "c"), "b": before("a"), "c": before("a")}, "d | b c | a"},
		"twice before the same":             {"a b", map[string]string{"b": before("a", "a")}, "b | a"},
		"of a job on another VM":            {"a b", map[string]string{"b": before("elsewhere"), "a": before("elsewhere")}, "a b"},
		"through a job without a lock":      {"a b", map[string]string{"b": before("x"), "x": before("y"), "y": before("a")}, "b | a"},
		"first a job without a lock":        {"a b", map[string]string{"x": before("a")}, "a b"},
		"skipped":                           {"a b c", map[string]string{"b": skip}, "a c"},
		"skipped, in between":               {"a b c", map[string]string{"b": skip + "; " + before("a"), "c": before("b")}, "c | a"},
		"nothing said":                      {"a b", map[string]string{"a": "", "b": "echo '---'"}, "a b"},
		"our own metadata":                  {"a b", map[string]string{"quiesced": before("a")}, "a b"},
		"whatever is printed beside it":     {"a b", map[string]string{"b": "echo note >&2; " + before("a")}, "b | a"},
		"with variables of the environment": {"a b", map[string]string{"b": "[ $# = 0 ] && " + before("a")}, "b | a"},
	} {
		t.Run(name, func(t *testing.T) {
			s := newSite(t)
			for _, job := range strings.Fields(c.locks) {
				s.script(job, jobs.Lock, "")
			}
			for job, text := range c.metadata {
				s.script(job, jobs.Metadata, text)
			}
			layers, err := s.LockLayers(context.Background())
			must(t, err)
			var got []string
			for _, layer := range layers {
				var names []string
				for _, script := range layer {
					names = append(names, script.Job)
				}
				got = append(got, strings.Join(names, " "))
			}
			if diff := cmp.Diff(c.want, strings.Join(got, " | ")); diff != "" {
				t.Errorf("-want +got:\n%s", diff)
			}
		})
	}
}

func TestLocksThatAreToBeBeforeOneAnotherAreRefused(t *testing.T) {
	for name, c := range map[string]struct {
		metadata map[string]string
		want     []string
	}{
		"itself":                     {map[string]string{"a": before("a")}, []string{"a"}},
		"two":                        {map[string]string{"a": before("b"), "b": before("a")}, []string{"b", "a"}},
		"three":                      {map[string]string{"a": before("b"), "b": before("c"), "c": before("a")}, []string{"b", "c", "a"}},
		"others that are not locked": {map[string]string{"x": before("y"), "y": before("x")}, []string{"y", "x"}},
		"and what leads there":       {map[string]string{"a": before("b"), "b": before("c"), "c": before("b")}, []string{"c", "b"}},
	} {
		t.Run(name, func(t *testing.T) {
			s := newSite(t)
			for _, job := range []string{"a", "b", "c"} {
				s.script(job, jobs.Lock, "")
			}
			for job, text := range c.metadata {
				s.script(job, jobs.Metadata, text)
			}
			_, err := s.LockLayers(context.Background())
			cycle, ok := errors.AsType[*jobs.CycleError](err)
			if !ok {
				t.Fatalf("got %v", err)
			}
			if diff := cmp.Diff(c.want, cycle.Jobs); diff != "" {
				t.Errorf("-want +got:\n%s", diff)
			}
			s.wantError(err, "cannot order the locks: each of these is to be locked before the next: "+strings.Join(append(c.want, c.want[0]), " → "))
		})
	}
}

func TestMetadataThatCannotBeReadIsAnError(t *testing.T) {
	for name, c := range map[string]struct{ text, want string }{
		"an exit status":       {before("a") + "echo why >&2; exit 3", "exit status 3: why"},
		"no YAML":              {"printf 'fine: 1\n\tnot: 2\n'", "prints what cannot be read: yaml: line 2: found a tab character that violates indentation"},
		"another type":         {"printf 'x: 1\nskip_bbr_scripts: [1]\n'", "prints what cannot be read: yaml: unmarshal errors:\n  line 2: cannot unmarshal !!seq into bool"},
		"a job without name":   {"printf 'backup_should_be_locked_before:\n- job_name: a\n- release: r\n'", "prints what cannot be read: backup_should_be_locked_before[1] has no job_name"},
		"far too much":         {"head -c 70000 /dev/zero | tr '\\0' '#'", "prints more than 64 KiB"},
		"aliases upon aliases": {"printf 'a: &a [x,x,x,x,x,x,x,x,x]\nb: &b [*a,*a,*a,*a,*a,*a,*a,*a,*a]\nc: &c [*b,*b,*b,*b,*b,*b,*b,*b,*b]\nd: &d [*c,*c,*c,*c,*c,*c,*c,*c,*c]\ne: &e [*d,*d,*d,*d,*d,*d,*d,*d,*d]\nf: &f [*e,*e,*e,*e,*e,*e,*e,*e,*e]\nskip_bbr_scripts: *f\n'", "prints what cannot be read: yaml: unmarshal errors:\n  line 6: cannot unmarshal !!seq into bool"},
	} {
		t.Run(name, func(t *testing.T) {
			s := newSite(t)
			s.script("a", jobs.Lock, "")
			s.script("db", jobs.Metadata, c.text)
			_, err := s.LockLayers(context.Background())
			s.wantError(err, `bbr/metadata of job "db" failed: `+c.want)
		})
	}
}

func FuzzParseMetadata(f *testing.F) {
	for _, text := range []string{"", "---\n", "skip_bbr_scripts: true\n", "backup_should_be_locked_before:\n- job_name: a\n  release: b\n", "a: &a [*a]", "\x00", "- 1\n-"} {
		f.Add(text)
	}
	f.Fuzz(func(t *testing.T, text string) {
		jobs, _, err := jobs.ParseMetadata(text)
		for _, job := range jobs {
			if err == nil && job == "" {
				t.Errorf("%q: a job without a name", text)
			}
		}
	})
}
