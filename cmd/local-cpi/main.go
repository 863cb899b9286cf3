// Local-cpi is a BOSH CPI for one machine. It reads a request from standard
// input and answers on standard output; package local says where it keeps its
// disks and snapshots.
package main

import (
	"fmt"
	"io"
	"os"

	"github.com/quiesced/quiesced/cpi"
	"github.com/quiesced/quiesced/cpi/local"
)

func main() {
	os.Exit(run(os.Stdin, os.Stdout, os.Stderr))
}

// run is 0 for errors too, as long as they could be answered: a director heeds
// the answer alone, and other CPIs do the same.
func run(stdin io.Reader, stdout, stderr io.Writer) int {
	if err := cpi.Serve(stdin, stdout, local.Handlers(stderr)); err != nil {
		fmt.Fprintln(stderr, err)
		return 1
	}
	return 0
}
