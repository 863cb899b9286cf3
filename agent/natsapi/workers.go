package natsapi

import "sync"

// maxIdle is how many workers wait for more to do.
const maxIdle = 8

// workers do what they are given at once, each in a goroutine of its own. A few of
// those wait for more when they have done it: their stacks have grown to what a call
// needs, which costs more than a short call does.
type workers struct {
	all    sync.WaitGroup
	next   chan func()   // to one that waits
	idle   chan struct{} // one token for each that waits
	ending chan struct{} // closed when there is no more to do
	end    func()        // closes ending
}

func newWorkers() *workers {
	ending := make(chan struct{})
	return &workers{
		next: make(chan func()), idle: make(chan struct{}, maxIdle),
		ending: ending, end: sync.OnceFunc(func() { close(ending) }),
	}
}

// do never waits.
func (w *workers) do(work func()) {
	select {
	case w.next <- work:
	default:
		w.all.Go(func() { w.goOn(work) })
	}
}

func (w *workers) goOn(work func()) {
	for {
		work()
		select {
		case w.idle <- struct{}{}:
		default:
			return
		}
		select {
		case work = <-w.next:
			<-w.idle
		case <-w.ending:
			return
		}
	}
}

// wait returns when all is done. Nothing may be done after it is called.
func (w *workers) wait() {
	w.end()
	w.all.Wait()
}
