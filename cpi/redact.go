package cpi

import (
	"bytes"
	"encoding/json"
	"slices"
)

const (
	blacked = "…"

	// leastSecret, in bytes, is the length from which a text is taken for a
	// secret or a part of one. Shorter ones would black out half of every
	// message.
	leastSecret = 4
)

// secrets are the texts that may not appear in an error.
type secrets []string

// secretsOf collects every string in a context, as it is and as it looks inside
// a JSON string: a key of several lines is printed the second way by a CPI that
// repeats its request. Words of under four bytes would black out half of every
// message. What names the director and the request is no secret.
func secretsOf(context map[string]any) secrets {
	var found secrets
	for key, value := range plain(context) {
		if key != keyDirector && key != keyRequest {
			found = collect(found, value)
		}
	}
	slices.Sort(found)
	return slices.Compact(found)
}

// plain is the context as a decoder would see it, whatever Go types it is made
// of.
func plain(context map[string]any) map[string]any {
	text, err := json.Marshal(context)
	if err != nil {
		return nil
	}
	var values map[string]any
	if json.Unmarshal(text, &values) != nil {
		return nil
	}
	return values
}

func collect(found secrets, value any) secrets {
	switch v := value.(type) {
	case string:
		found = collectText(found, v)
	case []any:
		for _, element := range v {
			found = collect(found, element)
		}
	case map[string]any:
		for _, element := range v {
			found = collect(found, element)
		}
	}
	return found
}

func collectText(found secrets, text string) secrets {
	if len(text) < leastSecret {
		return found
	}
	found = append(found, text)
	if escaped, err := json.Marshal(text); err == nil {
		found = append(found, string(escaped[1:len(escaped)-1]))
	}
	if escaped, err := encode(text); err == nil {
		found = append(found, string(escaped[1:len(escaped)-1]))
	}
	return found
}

// tail is the end of an output with the secrets blacked out. It redacts before
// it cuts, so that no part of a secret is left at the cut.
func (s secrets) tail(text []byte) string {
	const window = 64 << 10
	text = text[max(0, len(text)-window):]
	black := make([]bool, len(text))
	for _, secret := range s {
		mark(black, text, []byte(secret))
	}
	return tail(blackOut(text, black))
}

// mark marks every occurrence of the secret, overlapping ones too, and the
// parts of it with which the text may begin and end: it is a window, and its
// writer may have been killed.
func mark(black []bool, text, secret []byte) {
	for n := min(len(secret)-1, len(text)); n >= leastSecret; n-- {
		if bytes.HasPrefix(text, secret[len(secret)-n:]) {
			fill(black[:n])
			break
		}
	}
	for n := min(len(secret)-1, len(text)); n >= leastSecret; n-- {
		if bytes.HasSuffix(text, secret[:n]) {
			fill(black[len(text)-n:])
			break
		}
	}
	for at := 0; ; at++ {
		next := bytes.Index(text[at:], secret)
		if next < 0 {
			return
		}
		at += next
		fill(black[at : at+len(secret)])
	}
}

func fill(black []bool) {
	for i := range black {
		black[i] = true
	}
}

// blackOut puts one mark for each run.
func blackOut(text []byte, black []bool) []byte {
	var out []byte
	for i, b := range text {
		switch {
		case !black[i]:
			out = append(out, b)
		case i == 0 || !black[i-1]:
			out = append(out, blacked...)
		}
	}
	return out
}
