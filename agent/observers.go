package agent

// Observers tells each of several.
type Observers []Observer

// RunEnded implements Observer.
func (o Observers) RunEnded(r Report) {
	for _, one := range o {
		one.RunEnded(r)
	}
}

// VerificationEnded implements Observer.
func (o Observers) VerificationEnded(v Verified, err error) {
	for _, one := range o {
		one.VerificationEnded(v, err)
	}
}

// JournalFailed implements Observer.
func (o Observers) JournalFailed() {
	for _, one := range o {
		one.JournalFailed()
	}
}
