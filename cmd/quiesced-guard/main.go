// Command quiesced-guard freezes filesystems for quiesced and thaws them when
// asked, at their deadline, or when quiesced cannot ask any more. Package
// guard starts it and describes its protocol; it is of no use by hand.
package main

import (
	"os"

	"github.com/quiesced/quiesced/quiesce/guard"
)

func main() {
	os.Exit(guard.Main())
}
