package cpi

import (
	"bytes"
	"encoding/json"
	"net/url"
	"slices"
	"strings"
)

const (
	blacked = "…"

	// leastSecret, in bytes, is the length from which a text is taken for a
	// secret or a part of one. Shorter ones would black out half of every
	// message.
	leastSecret = 4

	// leastNumber is the same for a number, which may be a port.
	leastNumber = 6

	// leastLine is the same for a line of a text of several, as a CPI may quote it.
	leastLine = 16
)

// secrets are the texts that may not appear in an error.
type secrets []string

// secretsOf collects every string and number in a context, as it is, as it looks
// inside a JSON string, since a CPI that repeats its request prints it so, and as it
// looks in a URL. What names the director and the request is no secret.
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
	d := json.NewDecoder(bytes.NewReader(text))
	d.UseNumber() // its digits are what is printed
	var values map[string]any
	if d.Decode(&values) != nil {
		return nil
	}
	return values
}

func collect(found secrets, value any) secrets {
	switch v := value.(type) {
	case string:
		found = collectText(found, v)
	case json.Number:
		if len(v) >= leastNumber {
			found = append(found, string(v))
		}
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
	found = append(found, text, url.QueryEscape(text), url.PathEscape(text))
	if lines := strings.Split(text, "\n"); len(lines) > 1 {
		for _, line := range lines {
			if line = strings.TrimSpace(line); len(line) >= leastLine {
				found = append(found, line)
			}
		}
	}
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
	return tail(s.hide(text[max(0, len(text)-window):]))
}

// hide is a text with the secrets blacked out.
func (s secrets) hide(text []byte) []byte {
	black := make([]bool, len(text))
	for _, secret := range s {
		mark(black, text, []byte(secret))
	}
	return blackOut(text, black)
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
