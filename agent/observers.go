package agent

// Observers tells each of several.
type Observers []Observer

// RunEnded implements Observer.
func (o Observers) RunEnded(r Report) {
	for _, one := range o {
		one.RunEnded(r)
	}
}

// JournalFailed implements Observer.
func (o Observers) JournalFailed() {
	for _, one := range o {
		one.JournalFailed()
	}
}
