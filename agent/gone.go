package agent

import (
	"errors"
	"regexp"
	"strings"

	"github.com/quiesced/quiesced/cpi"
)

// GoneMessage is the pattern of a CPI's error that says that a snapshot is not there, where
// the configuration has no other. CPIs have no type of error for that, but their words are
// alike: "The snapshot 'CID' does not exist." (AWS), "Google Snapshot 'CID' does not exists",
// "The Resource 'Microsoft.Compute/snapshots/CID' under resource group 'G' was not found."
// (Azure), "snapshot "CID" is not there" (local-cpi). OpenStack's answers with success. The
// CID must be next to the words: that a region, a project or a directory is not there says
// nothing of a snapshot.
const GoneMessage = "(?:^|[^[:alnum:]_-]){snapshot_cid}['\"`]?(?: under resource group '[^']*')? " +
	"(?i:does not exist|doesn't exist|is not there|(?:was |is |could )?not (?:be )?found)"

// GonePattern is the pattern for one snapshot, nil for none.
func GonePattern(pattern, cid string) (*regexp.Regexp, error) {
	if pattern == "" {
		return nil, nil
	}
	return regexp.Compile(strings.ReplaceAll(pattern, "{snapshot_cid}", regexp.QuoteMeta(cid)))
}

// saysGone reports whether a CPI's error says that a snapshot is not there. One that ended
// without an answer says nothing.
func (s *Settings) saysGone(err error, cid string) bool {
	answer, ok := errors.AsType[*cpi.Error](err)
	if !ok || cpi.CannotDo(err) {
		return false
	}
	pattern, err := GonePattern(s.GoneMessage, cid)
	return err == nil && pattern != nil && pattern.MatchString(answer.Message)
}
