package systemd

import (
	"errors"
	"sync"

	"github.com/quiesced/quiesced/quiesce/jobs"
)

// task is what is done about one unit in one call.
type task struct {
	name   string
	listed []jobs.Process // that must have ended, by the caller's word
	before unit           // as it was before
	state  jobs.State     // as it was or was last told
	quiet  bool           // nothing is told, since nothing is to change
	err    error          // what went wrong, which ends the task
}

func tasksFor(names []string) []*task {
	var tasks []*task
	for _, name := range names {
		tasks = append(tasks, &task{name: name})
	}
	return tasks
}

// each takes a step of all tasks at once that have not failed, and returns when
// all steps have been taken.
func each(tasks []*task, step func(*task) error) {
	var steps sync.WaitGroup
	for _, t := range tasks {
		if t.err == nil {
			steps.Go(func() { t.err = step(t) })
		}
	}
	steps.Wait()
}

// failures joins what went wrong.
func failures(op string, tasks []*task) error {
	var errs []error
	for _, t := range tasks {
		if t.err != nil {
			errs = append(errs, &jobs.ServiceError{Op: op, Service: t.name, Err: t.err})
		}
	}
	return errors.Join(errs...)
}
