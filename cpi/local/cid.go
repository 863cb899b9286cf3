package local

import (
	"crypto/rand"
	"fmt"
	"strings"
	"unicode/utf8"

	"github.com/quiesced/quiesced/cpi"
)

const (
	// maxCID leaves room in a file name (255 bytes) for what stands around it.
	maxCID = 200

	diskPrefix     = "disk-"
	snapshotPrefix = "snap-"
)

// newCID is the prefix and a random UUID (version 4).
func newCID(prefix string) string {
	var b [16]byte
	rand.Read(b[:]) // never fails
	b[6] = b[6]&0x0f | 0x40
	b[8] = b[8]&0x3f | 0x80
	return fmt.Sprintf("%s%x-%x-%x-%x-%x", prefix, b[:4], b[4:6], b[6:8], b[8:10], b[10:])
}

// ours tells the CIDs that newCID makes from those that an operator gave.
func ours(cid string) bool {
	return strings.HasPrefix(cid, diskPrefix) || strings.HasPrefix(cid, snapshotPrefix)
}

// checkCID keeps a CID to one visible file name: it is part of a path.
func checkCID(cid string) error {
	var reason string
	switch {
	case cid == "":
		reason = "it is empty"
	case len(cid) > maxCID:
		reason = fmt.Sprintf("it is longer than %d bytes", maxCID)
	case !utf8.ValidString(cid):
		reason = "it is not UTF-8" // in JSON it would be another
	case strings.ContainsAny(cid, "/\x00"):
		reason = "it holds a slash or a NUL"
	case cid[0] == '.':
		reason = "it begins with a dot"
	default:
		return nil
	}
	return cpi.Errorf(cpi.CpiError, "cannot take %q for a CID: %s", cid, reason)
}
