package main

import (
	"os"

	"github.com/spf13/cobra"

	"github.com/quiesced/quiesced/agent"
	"github.com/quiesced/quiesced/agent/diskcopy"
)

const diskCopy = "disk-copy"

// copies has the catalogue copied to the persistent disks, nil where that is not wanted.
func (c *Config) copies() agent.Copies {
	if !c.Catalogue.Copy {
		return nil
	}
	// Through this link the program is found when its file has been removed.
	return &diskcopy.Copies{Command: []string{"/proc/self/exe", diskCopy}}
}

// diskCopyVerb is what the daemon runs of itself to touch a disk that may be frozen.
func diskCopyVerb(g *globals) *cobra.Command {
	return &cobra.Command{
		Use:                diskCopy + " read|write MOUNT …",
		Short:              "Read or write the catalogue's copy on a disk",
		Hidden:             true,
		DisableFlagParsing: true,
		Args:               cobra.ArbitraryArgs,
		RunE: func(_ *cobra.Command, args []string) error {
			if code := diskcopy.Main(args, g.in, g.out, g.err); code != 0 {
				os.Exit(code) // which the daemon reads
			}
			return nil
		},
	}
}
