package journal_test

import (
	"bytes"
	"fmt"
	"os"
	"path/filepath"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
	"github.com/google/go-cmp/cmp/cmpopts"

	"github.com/quiesced/quiesced/agent"
	"github.com/quiesced/quiesced/agent/journal"
)

// writerEnv names the directory of the journal to which this test binary, run

// again, writes until it is killed.

const writerEnv = "JOURNAL_TEST_WRITER"

func TestMain(m *testing.M) {
	if dir := os.Getenv(writerEnv); dir != "" {
		os.Exit(write(dir))
	}
	if os.Geteuid() != 0 {
		fmt.Println("these tests need root: they fill filesystems of their own")
		os.Exit(1)
	}
	os.Exit(m.Run())
}

// write puts one record after the other and prints the id of each that is

// durable.

func write(dir string) int {
	j, err := journal.Open(dir)
	if err != nil {
		fmt.Fprintln(os.Stderr, err)
		return 1
	}
	for i := 0; ; i++ {
		id := fmt.Sprintf("run-%d-%d", os.Getpid(), i)
		if err := put(j, ended(id, i)); err != nil {
			fmt.Fprintln(os.Stderr, err)
			return 1
		}
		fmt.Println(id)
	}
}

func must(t testing.TB, err error) {
	t.Helper()
	if err != nil {
		t.Fatal(err)
	}
}

func open(t testing.TB, dir string) *journal.Journal {
	t.Helper()
	j, err := journal.Open(dir)
	must(t, err)
	t.Cleanup(func() { must(t, j.Close()) })
	return j
}

// begun is a record of a run that started at a second and is under way.

func begun(id string, second int) agent.Record {
	return agent.Record{
		Request: agent.Request{ID: id, Trigger: agent.TriggerManual, Level: agent.LevelFreeze},
		Started: time.Unix(int64(second), 0).UTC(),
		Phase:   agent.PhaseFreeze,
	}
}

// ended is one of a run that is over.

func ended(id string, second int) agent.Record {
	r := begun(id, second)
	r.Phase = ""
	r.Report = &agent.Report{ID: id, Outcome: agent.OutcomeSucceeded}
	return r
}

// put writes a record alone.
func put(j *journal.Journal, r agent.Record) error {
	return j.Write(agent.Change{Records: []agent.Record{r}})
}

// ids are those of all records, in the journal's order.

func ids(t testing.TB, j *journal.Journal) []string {
	t.Helper()
	all, err := j.All()
	must(t, err)
	found := []string{}
	for _, r := range all {
		found = append(found, r.Request.ID)
	}
	return found
}

func wantIDs(t testing.TB, j *journal.Journal, want ...string) {
	t.Helper()
	if diff := cmp.Diff(want, ids(t, j), cmpopts.EquateEmpty()); diff != "" {
		t.Errorf("-want +got:\n%s", diff)
	}
}

func TestRecordIsThereAfterPutAndAfterReopening(t *testing.T) {
	dir := t.TempDir()
	want := ended("a", 1)
	j, err := journal.Open(dir)
	must(t, err)
	must(t, put(j, want))
	check := func(j *journal.Journal) {
		t.Helper()
		got, ok, err := j.Get("a")
		if err != nil || !ok {
			t.Fatalf("got %t, %v", ok, err)
		}
		if diff := cmp.Diff(want, got, cmpopts.EquateEmpty()); diff != "" {
			t.Errorf("-want +got:\n%s", diff)
		}
	}
	check(j)
	must(t, j.Close())
	check(open(t, dir))
}

func TestRecordThatIsNotThereIsNoError(t *testing.T) {
	j := open(t, t.TempDir())
	for _, id := range []string{"a", ""} {
		if got, ok, err := j.Get(id); ok || err != nil {
			t.Errorf("run %q: got %v, %t, %v", id, got, ok, err)
		}
	}
	wantIDs(t, j)
}

func TestRecordsAreListedOldestFirstAndByIDWithinAMoment(t *testing.T) {
	j := open(t, t.TempDir())
	for _, r := range []agent.Record{begun("a", 3), ended("b", 1), begun("z", 2), ended("c", 2)} {
		must(t, put(j, r))
	}
	wantIDs(t, j, "b", "c", "z", "a")
}

func TestRecordReplacesTheOneWithItsID(t *testing.T) {
	j := open(t, t.TempDir())
	must(t, put(j, begun("a", 1)))
	must(t, put(j, begun("b", 2)))
	want := ended("a", 1)
	must(t, put(j, want))
	wantIDs(t, j, "a", "b")
	got, _, err := j.Get("a")
	must(t, err)
	if diff := cmp.Diff(want, got, cmpopts.EquateEmpty()); diff != "" {
		t.Errorf("-want +got:\n%s", diff)
	}
}

func TestRecordWithoutAnIDIsNotTaken(t *testing.T) {
	if err := put(open(t, t.TempDir()), begun("", 1)); err == nil {
		t.Error("it is")
	}
}

func TestOldRunsAreForgottenOnceTheyHaveEnded(t *testing.T) {
	j := open(t, t.TempDir())
	j.NoSync()
	must(t, put(j, begun("under-way", 1)))
	for i := range journal.Keep + 1 {
		must(t, put(j, ended(fmt.Sprintf("ended-%04d", i), 10+i)))
	}
	got := ids(t, j)
	want := []string{"under-way", "ended-0001", "ended-0002"}
	if diff := cmp.Diff(want, got[:3]); diff != "" || len(got) != journal.Keep+1 {
		t.Errorf("%d are left, -want +got:\n%s", len(got), diff)
	}
	t.Run("a run that has just begun forgets none", func(t *testing.T) {
		must(t, put(j, begun("new", 1<<20)))
		if len(ids(t, j)) != journal.Keep+2 {
			t.Errorf("%d are left", len(ids(t, j)))
		}
	})
	t.Run("one that has ended at last is forgotten with the next", func(t *testing.T) {
		must(t, put(j, ended("under-way", 1)))
		if _, there, err := j.Get("under-way"); there || err != nil {
			t.Errorf("it is there: %t, %v", there, err)
		}
	})
}

func TestJournalIsOpenedOnce(t *testing.T) {
	dir := filepath.Join(t.TempDir(), "state")
	j, err := journal.Open(dir)
	must(t, err)
	began := time.Now()
	_, err = journal.Open(dir)
	want := fmt.Sprintf("cannot open the journal %q: another daemon has it open", filepath.Join(dir, journal.File))
	if err == nil || err.Error() != want {
		t.Errorf("got %v\nwant %s", err, want)
	}
	if took := time.Since(began); took > 3*time.Second {
		t.Errorf("it took %s to say so", took)
	}
	must(t, put(j, begun("a", 1)))
	must(t, j.Close())
	wantIDs(t, open(t, dir), "a")
}

func TestOnlyRootReadsTheJournal(t *testing.T) {
	dir := filepath.Join(t.TempDir(), "a", "state")
	open(t, dir)
	for path, want := range map[string]os.FileMode{dir: os.ModeDir | 0o700, filepath.Join(dir, journal.File): 0o600} {
		st, err := os.Stat(path)
		must(t, err)
		if st.Mode() != want {
			t.Errorf("%s has mode %s, want %s", path, st.Mode(), want)
		}
	}
}

func TestJournalThatCannotBeOpenedIsNamed(t *testing.T) {
	dir := t.TempDir()
	must(t, os.WriteFile(dir+"/file", nil, 0o600))
	must(t, os.Mkdir(dir+"/text", 0o700))
	must(t, os.WriteFile(dir+"/text/"+journal.File, bytes.Repeat([]byte("text"), 4096), 0o600))
	for name, c := range map[string]struct{ dir, want string }{
		"the directory is a file":     {dir + "/file", "cannot make the state directory: mkdir " + dir + "/file: not a directory"},
		"the file is not a database":  {dir + "/text", fmt.Sprintf("cannot open the journal %q: invalid database", dir+"/text/"+journal.File)},
		"a path that cannot be there": {"/proc/state", "cannot make the state directory: mkdir /proc/state: no such file or directory"},
	} {
		t.Run(name, func(t *testing.T) {
			if _, err := journal.Open(c.dir); err == nil || err.Error() != c.want {
				t.Errorf("got %v\nwant %s", err, c.want)
			}
		})
	}
}

// writeAndKill has another process write records, kills it after some and

// returns all that it said were durable.

// putUntilFull puts large records, and says how many were taken before the

// error.

// fill fills a filesystem up with one file.

// damage writes records as bytes, past the journal.
