package faults_test

import (
	"errors"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	"github.com/quiesced/quiesced/agent"
)

// boundary is a failpoint, and which processes there are when somebody is held
// there.
type boundary struct {
	point string
	there victims
}

// boundaries are in the order of a run.
var boundaries = []boundary{
	{"unrecorded", daemon},
	{"recorded", daemon},
	{"armed", daemon | cpi},
	{"guard-ready", daemon | guardian | cpi},
	{"guard-started", daemon | guardian | cpi},
	{"written-out", daemon | guardian | cpi},
	{"calls-unrecorded", daemon | guardian | cpi},
	{"calls-recorded", daemon | guardian | cpi},
	{"before-freeze", daemon | guardian | cpi},
	{"intended", daemon | guardian | cpi},
	{"froze", daemon | guardian | cpi},
	{"froze-recorded", daemon | guardian | cpi},
	{"frozen", daemon | guardian | cpi},
	{"told", daemon | guardian | cpi},
	{"cpi-told", daemon | guardian | cpi},
	{"cpi-made", daemon | guardian | cpi},
	{"cpi-midway", daemon | guardian | cpi},
	{"cpi-answered", daemon | cpi}, // the guard is thawing meanwhile
	{"point-in-time", daemon | guardian | cpi},
	{"before-thaw", daemon | guardian | cpi},
	{"thawing", daemon | guardian | cpi},
	{"thawed", daemon | guardian | cpi},
	{"thaw-recorded", daemon | guardian | cpi},
	{"after-thaw", daemon | cpi},
	{"unreported", daemon},
	{"reported", daemon},
}

// cases are all faults at a boundary.
func (b boundary) cases() (all []step) {
	for _, who := range []victims{daemon, guardian, cpi, daemon | guardian} {
		if who&^b.there != 0 {
			continue
		}
		for _, f := range everyFault {
			all = append(all, step{at: b.point, fault: f, who: who})
		}
	}
	return all
}

// held is where the CPI is kept while another process is at the boundary, so
// that it is still there to be hit.
func (s step) held() []string {
	if s.who == cpi && s.at != "" && !strings.HasPrefix(s.at, "cpi-") {
		return []string{"cpi-answered"}
	}
	return nil
}

// Each fault at each boundary is played on every filesystem, or, thinned, on one or
// another, and of those that are no kill each at every other boundary.
func TestMatrix(t *testing.T) {
	pool := newBeds(t)
	for i, s := range everyCase() {
		if *thin > 1 && s.fault != killed && (i+i/len(everyFault))%2 > 0 { // at the next boundary the others
			continue
		}
		for _, fstype := range thinned(i, fstypes) {
			t.Run(fstype+": "+s.String(), func(t *testing.T) {
				t.Parallel()
				pool.play(t, kind{fstype: fstype, level: agent.LevelFreeze}, []step{s}, s.held()...)
			})
		}
	}
}

func everyCase() (all []step) {
	for _, b := range boundaries {
		all = append(all, b.cases()...)
	}
	return all
}

// play plays steps on a bed and checks what must hold after.
func (p *beds) play(t *testing.T, k kind, steps []step, held ...string) {
	p.use(t, k, func(v *vm) error {
		if err := v.play(steps, held...); err != nil {
			return err
		}
		return v.check(slices.ContainsFunc(steps, step.early), hardshipsOf(steps))
	})
}

// use runs a daemon on a bed for a case.
func (p *beds) use(t *testing.T, k kind, play func(*vm) error) {
	b := p.borrow(t, k)
	v, err := newVM(b)
	if err != nil {
		t.Fatal(err)
	}
	defer func() { _ = os.RemoveAll(v.dir) }()
	err = play(v)
	if ended := v.close(); err != nil || ended != nil {
		t.Error(errors.Join(err, ended))
		v.tell(t)
		return
	}
	p.giveBack(b)
}

// early says that the step may cut a run off before it is recorded.
func (s step) early() bool { return s.mortal() && (s.at == "unrecorded" || s.at == "") }

// tell shows what is known of a case that failed.
func (v *vm) tell(t *testing.T) {
	for _, name := range []string{"log", "made", "answered"} {
		text, _ := os.ReadFile(filepath.Join(v.dir, name))
		t.Logf("%s:\n%s", name, text)
	}
	if v.bed.site != nil {
		text, _ := os.ReadFile(filepath.Join(v.bed.site.dir, "did"))
		t.Logf("what scripts did:\n%s", text)
	}
}
