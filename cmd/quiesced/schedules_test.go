package main

import (
	"encoding/json"
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/quiesced/quiesced/agent/api"
)

// everySecond is a schedule whose next time has come when the daemon serves.
const everySecond = "* * * * * *"

func TestDaemonTakesSnapshotsBySchedule(t *testing.T) {
	for key, trigger := range map[string]string{"snapshot_schedule": "scheduled", "self_snapshot_schedule": "self"} {
		t.Run(key, func(t *testing.T) {
			w := newWorld(t, with(fmt.Sprintf("%s: %q\n", key, everySecond)))
			w.script(`echo "$request" >>` + w.dir + `/requests; echo '{"result":"snap-'$$'","error":null,"log":""}'`)
			w.start()
			w.eventually("two scheduled runs have ended", func() bool { return len(w.runs()) >= 2 })
			for _, r := range w.runs() {
				if r.Trigger != trigger || !r.Clean || !strings.HasPrefix(r.ID, trigger+"-20") || r.By != "schedule "+everySecond {
					t.Errorf("a run is %+v", r)
				}
			}
			var s api.Status
			w.must(json.Unmarshal([]byte(w.run("status", "--json").out), &s))
			if len(s.Scheduled) != 1 || s.Scheduled[0].Trigger != trigger || s.Scheduled[0].Next == nil || s.Scheduled[0].Last == nil {
				t.Errorf("the status is %+v", s)
			}
			if out := w.run("status").out; !strings.Contains(out, "Schedule   "+trigger+` "* * * * * *", next 20`) {
				t.Errorf("the status says\n%s", out)
			}
			told, err := os.ReadFile(filepath.Join(w.dir, "requests"))
			w.must(err)
			if is := strings.Contains(string(told), `"deployment":"self","job":"director","index":0`); is != (trigger == "self") {
				t.Errorf("the CPI is told %s", told)
			}
		})
	}
}

func TestInstancesPartOfTheSplayIsItsOwnAndStays(t *testing.T) {
	for name, be := range map[string]func(i *InstanceConfig, number int){
		"an instance with an id":  func(i *InstanceConfig, number int) { i.ID = fmt.Sprint("inst-", number) },
		"one that has none":       func(i *InstanceConfig, number int) { i.Index = number },
		"one of many deployments": func(i *InstanceConfig, number int) { i.Deployment = fmt.Sprint("db-", number) },
	} {
		t.Run(name, func(t *testing.T) {
			c := defaults()
			c.Schedule.Splay = time.Hour
			seen := map[time.Duration]bool{}
			for number := range 50 {
				be(&c.Instance, number)
				first, again := c.delay(), c.delay()
				if first != again || first < 0 || first >= time.Hour {
					t.Errorf("the delay is %s, then %s", first, again)
				}
				seen[first] = true
			}
			if len(seen) < 40 {
				t.Errorf("50 instances have %d delays", len(seen))
			}
		})
	}
}

func TestInstancesPartOfTheSplayStaysWhenItsIndexChanges(t *testing.T) {
	c := defaults()
	c.Schedule.Splay = time.Hour
	c.Instance.ID = "inst-1"
	before := c.delay()
	if c.Instance.Index = 7; c.delay() != before {
		t.Errorf("the delay was %s, and is %s", before, c.delay())
	}
}
