package monit

import "github.com/quiesced/quiesced/quiesce/jobs"

// States parses a status and has the state of each service of a group, none of which
// has a process that is known.
func States(b []byte, group string) (map[string]jobs.State, map[string]string, error) {
	s, err := parse(b)
	if err != nil {
		return nil, nil, err
	}
	states, words := map[string]jobs.State{}, map[string]string{}
	for name, e := range s.of(group) {
		states[name], words[name] = e.state(false), e.String()
	}
	return states, words, nil
}
