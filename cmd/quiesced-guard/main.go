// Command quiesced-guard freezes filesystems for quiesced and thaws them when
// asked, at their deadline, or when quiesced cannot ask any more; run as
// "quiesced-guard write-out" it writes out before that. Packages guard and
// writeout start it and describe how; it is of no use by hand.
package main

import (
	"os"

	"github.com/quiesced/quiesced/quiesce/guard"
	"github.com/quiesced/quiesced/quiesce/writeout"
)

func main() {
	if len(os.Args) > 1 && os.Args[1] == "write-out" {
		os.Exit(writeout.Main(os.Args[2:], os.Stdout))
	}
	os.Exit(guard.Main())
}
