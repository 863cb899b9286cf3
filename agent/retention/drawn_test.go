package retention_test

import (
	"fmt"
	"math/rand/v2"
	"slices"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"

	"github.com/quiesced/quiesced/agent/retention"
)

// source draws numbers: a generator's, or a fuzzer's bytes.
type source func(n int) int

func generator(seed uint64) source { return rand.New(rand.NewPCG(seed, 0)).IntN }

// bytes are spent one by one; there are zeros after them.
func bytes(b []byte) source {
	return func(n int) int {
		if len(b) == 0 || n < 2 {
			return 0
		}
		drawn := int(b[0]) % n
		b = b[1:]
		return drawn
	}
}

var triggers = []string{"manual", "scheduled", "self"}

// drawn is a case: policies, and what there is at some time, near the ends of periods
// often, and at equal times.
func drawn(n source) model {
	m := model{now: time.Date(2026, 1, 1+n(3)*n(200), n(24), n(60), 0, 0, time.UTC)}
	m.policies.General = drawnPolicy(n)
	for _, t := range triggers {
		if n(4) == 0 {
			if m.policies.Own == nil {
				m.policies.Own = map[string]retention.Policy{}
			}
			m.policies.Own[t] = drawnPolicy(n)
		}
	}
	step := []time.Duration{time.Minute, time.Hour, 6 * time.Hour, 24 * time.Hour, 9 * 24 * time.Hour}[n(5)]
	at := m.now.Add(step)
	for run := range n(10) {
		at = at.Add(-step * time.Duration(n(4)) / 2)
		m.entries = append(m.entries, drawnRun(n, fmt.Sprintf("run-%02d", run), at)...)
	}
	return m
}

func drawnPolicy(n source) retention.Policy {
	count := func() int { return max(0, n(6)-2) }
	p := retention.Policy{Last: count(), Hourly: count(), Daily: count(), Weekly: count(), Monthly: count(), Yearly: count()}
	if n(3) == 0 {
		p.MaxAge = time.Duration(1+n(100)) * time.Hour * time.Duration(1+n(40))
	}
	if n(5) == 0 {
		p = retention.Policy{MaxAge: p.MaxAge}
	}
	return p
}

func drawnRun(n source, run string, at time.Time) []retention.Entry {
	var all []retention.Entry
	trigger, clean := triggers[n(3)], n(3) > 0
	for disk := range 1 + n(3) {
		if n(5) == 0 {
			continue
		}
		e := retention.Entry{
			ID: fmt.Sprintf("%s-%d", run, disk), Disk: fmt.Sprintf("disk-%d", disk), Run: run, Trigger: trigger,
			Time: at.Add(time.Duration(n(3)) * time.Millisecond), Clean: clean && n(9) > 0,
		}
		if n(9) == 0 {
			e.Run = "" // nobody knows
		}
		if n(12) == 0 {
			e.Apart = "somebody else's"
		}
		all = append(all, e)
	}
	return all
}

// plan is what the package decides.
func (m model) plan() []retention.Decision {
	return retention.Plan(m.policies, m.entries, m.now)
}

// stay are the ids of what a plan keeps.
func stay(decisions []retention.Decision) []string {
	var ids []string
	for _, d := range decisions {
		if d.Keep {
			ids = append(ids, d.ID)
		}
	}
	return ids
}

// without are the case's entries after some of what goes has gone.
func (m model) without(gone func() bool) model {
	left := m
	left.entries = nil
	for i, d := range m.plan() {
		if d.Keep || !gone() {
			left.entries = append(left.entries, m.entries[i])
		}
	}
	return left
}

// check compares the package with the model, and holds it to what it promises.
func check(t *testing.T, m model, n source) {
	t.Helper()
	decisions := m.plan()
	kept := stay(decisions)
	if diff := cmp.Diff(m.kept(), kept); diff != "" {
		t.Errorf("what is kept differs from the model (-want +got):\n%s", diff)
	}
	for i, d := range decisions {
		if d.ID != m.entries[i].ID || d.Why == "" {
			t.Errorf("decision %d is %+v, of %+v", i, d, m.entries[i])
		}
	}
	if again := m.without(func() bool { return true }); !slices.Equal(stay(again.plan()), kept) || len(again.entries) != len(kept) {
		t.Errorf("a plan that was carried out asks for more: %q are kept of %q", stay(again.plan()), kept)
	}
	if part := m.without(func() bool { return n(2) == 0 }); !slices.Equal(stay(part.plan()), kept) {
		t.Errorf("one that was carried out in part keeps %q, not %q", stay(part.plan()), kept)
	}
	checkOrder(t, m, kept, n)
	checkGrown(t, m, kept, n)
}

// checkOrder gives the entries in another order.
func checkOrder(t *testing.T, m model, kept []string, n source) {
	t.Helper()
	m.entries = slices.Clone(m.entries)
	for i := range m.entries {
		j := n(i + 1)
		m.entries[i], m.entries[j] = m.entries[j], m.entries[i]
	}
	if got := stay(m.plan()); !slices.Equal(slices.Sorted(slices.Values(got)), slices.Sorted(slices.Values(kept))) {
		t.Errorf("in another order %q are kept, not %q", got, kept)
	}
}

// checkGrown raises what the policies have.
func checkGrown(t *testing.T, m model, kept []string, n source) {
	t.Helper()
	own := map[string]retention.Policy{}
	for trigger, p := range m.policies.Own {
		own[trigger] = grown(p, n)
	}
	m.policies = retention.Policies{General: grown(m.policies.General, n), Own: own}
	more := stay(m.plan())
	for _, id := range kept {
		if !slices.Contains(more, id) {
			t.Errorf("with %+v, which is more, %s goes", m.policies, id)
		}
	}
}

// grown is a policy that keeps more: one without a count keeps all as it is.
func grown(p retention.Policy, n source) retention.Policy {
	if counted := (p != retention.Policy{MaxAge: p.MaxAge}); counted {
		for _, count := range []*int{&p.Last, &p.Hourly, &p.Daily, &p.Weekly, &p.Monthly, &p.Yearly} {
			*count += n(3)
		}
	}
	if p.MaxAge > 0 {
		p.MaxAge += time.Duration(n(50)) * time.Hour
	}
	if n(4) == 0 {
		p.MaxAge = 0
	}
	return p
}

// TestPlanIsTheModels plays cases drawn at random; a seed that fails is named, and
// drawn again by itself.
func TestPlanIsTheModels(t *testing.T) {
	const cases = 2500
	goes := 0
	for seed := range uint64(cases) {
		m := drawn(generator(seed))
		check(t, m, generator(seed+cases))
		goes += len(m.entries) - len(m.kept())
		if t.Failed() {
			t.Fatalf("seed %d: at %s, %+v of\n%+v", seed, m.now, m.policies, m.entries)
		}
	}
	if goes < cases/2 {
		t.Errorf("of %d cases only %d snapshots go", cases, goes)
	}
}

// FuzzPlan draws a case from any bytes.
func FuzzPlan(f *testing.F) {
	for seed := range uint64(20) {
		n, b := generator(seed), make([]byte, 200)
		for i := range b {
			b[i] = byte(n(256))
		}
		f.Add(b)
	}
	f.Fuzz(func(t *testing.T, b []byte) {
		n := bytes(b)
		check(t, drawn(n), n)
	})
}
