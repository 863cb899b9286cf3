package guard

import (
	"bufio"
	"io"
	"strings"
)

// answerKind is the first word of the guard's answer.
type answerKind string

const (
	saysWarning  answerKind = "warning"
	saysReady    answerKind = "ready"
	saysSynced   answerKind = "synced"
	saysUnsynced answerKind = "unsynced"
	saysFrozen   answerKind = "frozen"
	saysThawed   answerKind = "thawed"
	saysFailed   answerKind = "failed"
	saysOther    answerKind = "" // no answer: a crash's last words
)

// reply is one line of the guard's.
type reply struct {
	kind answerKind
	text string
}

const maxAnswer = 512

// parseAnswer parses a line without its end.
func parseAnswer(line string) reply {
	word, text, _ := strings.Cut(line, " ")
	switch kind := answerKind(word); kind {
	case saysWarning, saysFailed:
		return reply{kind, text}
	case saysReady, saysSynced, saysUnsynced, saysFrozen, saysThawed, saysNotFrozen, saysNotMount:
		if line == word {
			return reply{kind: kind}
		}
	}
	return reply{saysOther, line}
}

// readAnswers calls got with every line of r until its end. A line past
// maxAnswer is cut.
func readAnswers(r io.Reader, got func(reply)) {
	b := bufio.NewReaderSize(r, maxAnswer)
	for {
		line, more, err := b.ReadLine()
		if err != nil {
			return
		}
		got(parseAnswer(string(line)))
		for more && err == nil {
			_, more, err = b.ReadLine()
		}
	}
}
