package natsapi

import (
	"errors"
	"fmt"
	"sort"
	"strings"

	"github.com/quiesced/quiesced/agent/api"
)

// cut stands for what is left out of an exception's message, as bosh-agent has it.
const cut = "\n...[truncated]...\n"

// shortened is an answer that the bus takes, in place of one that has too many bytes.
// Of an exception's message the beginning and the end are kept, as bosh-agent does.
// A value of which a part is missing would be none: it becomes an exception.
func shortened(method string, doc []byte, err error, limit int) []byte {
	if err == nil {
		return api.Encode(nil, &api.Error{
			Kind:    api.KindFailed,
			Message: fmt.Sprintf("the answer to %.64s has %d bytes, and the bus takes %d", method, len(doc), limit),
		})
	}
	short := api.Error{Kind: api.KindOf(err), Message: err.Error()}
	if own := (*api.Error)(nil); errors.As(err, &own) {
		short.Message, short.Deleted = own.Message, own.Deleted
	}
	message := short.Message
	encoded := func(kept int) []byte {
		short.Message = message
		if kept < len(message) {
			short.Message = strings.ToValidUTF8(message[:kept/2], "") + cut + strings.ToValidUTF8(message[len(message)-kept/2:], "")
		}
		return api.Encode(nil, &short)
	}
	// JSON writes some characters as six: how much may be kept is found out.
	if whole := encoded(len(message)); len(whole) <= limit {
		return whole
	}
	tooMuch := sort.Search(len(message), func(kept int) bool { return len(encoded(kept)) > limit })
	return encoded(max(tooMuch-1, 0))
}
