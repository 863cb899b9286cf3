package main

import (
	"errors"
	"fmt"
	"os"
	"slices"

	"github.com/spf13/cobra"

	"github.com/quiesced/quiesced/agent/api"
	"github.com/quiesced/quiesced/agent/httpapi"
)

// defaultConfig is where the configuration lies unless --config says otherwise.
const defaultConfig = "/etc/quiesced/quiesced.yml"

// globals are the flags that every verb has.
type globals struct {
	*terminal
	config string
	socket string
	tcp    tcpFlags
	json   bool
}

// localVerbs talk to no daemon.
var localVerbs = []string{"serve", "thaw", "check-config", "next-runs", "version"}

// tcpFlags say where a daemon is on another machine, and who asks.
type tcpFlags struct {
	address string
	files   httpapi.Files
}

// root builds the command tree.
func root(t *terminal) *cobra.Command {
	g := &globals{terminal: t}
	cmd := &cobra.Command{
		Use:           "quiesced",
		Short:         "Clean snapshots of a VM's persistent disks",
		SilenceUsage:  true,
		SilenceErrors: true,
		Args:          cobra.NoArgs,
		RunE:          func(cmd *cobra.Command, _ []string) error { return cmd.Help() },
		PersistentPreRunE: func(cmd *cobra.Command, _ []string) error {
			if g.tcp != (tcpFlags{}) && slices.Contains(localVerbs, cmd.Name()) {
				return usageError{fmt.Errorf("%s is about this machine alone: it takes no --address", cmd.Name())}
			}
			return nil
		},
	}
	cmd.PersistentFlags().StringVar(&g.config, "config", defaultConfig, "configuration `file`")
	cmd.PersistentFlags().StringVar(&g.socket, "socket", "", "the daemon's unix `socket` (default: the configuration's)")
	cmd.PersistentFlags().StringVar(&g.tcp.address, "address", "", "the daemon's `HOST:PORT`, in place of its socket; needs --cert, --key and --ca")
	cmd.PersistentFlags().StringVar(&g.tcp.files.Cert, "cert", "", "certificate `file` for --address")
	cmd.PersistentFlags().StringVar(&g.tcp.files.Key, "key", "", "key `file` for --address")
	cmd.PersistentFlags().StringVar(&g.tcp.files.CA, "ca", "", "`file` with the CA of the daemon's certificate, for --address")
	cmd.PersistentFlags().BoolVar(&g.json, "json", false, "print JSON")
	cmd.SetFlagErrorFunc(func(_ *cobra.Command, err error) error { return usageError{err} })
	for _, verb := range []func(*globals) *cobra.Command{
		serveVerb, takeSnapshotVerb, snapshotsVerb, deleteSnapshotVerb, deleteSnapshotsVerb, reconcileVerb, verifyVerb, restoreVerb, applyRetentionVerb,
		runsVerb, statusVerb, yieldVerb, unyieldVerb, thawVerb, checkConfigVerb, nextRunsVerb, versionVerb, relayVerb, diskCopyVerb,
	} {
		cmd.AddCommand(strict(verb(g)))
	}
	return strict(cmd)
}

// strict makes wrong arguments a usage error.
func strict(cmd *cobra.Command) *cobra.Command {
	check := cmd.Args
	cmd.Args = func(cmd *cobra.Command, args []string) error {
		if err := check(cmd, args); err != nil {
			return usageError{err}
		}
		return nil
	}
	return cmd
}

// socketPath is the flag, or else what the configuration says. Only where no
// configuration is named and none lies at its default place is it the default:
// a verb must not talk to another daemon than the one that is meant.
func (g *globals) socketPath() (string, error) {
	if g.socket != "" {
		return g.socket, nil
	}
	c, err := loadConfig(g.config)
	if errors.Is(err, os.ErrNotExist) && g.config == defaultConfig {
		return defaultSocket, nil
	}
	if err != nil {
		return "", err
	}
	return c.Listen.Socket, nil
}

func (g *globals) client() (api.Client, error) {
	if g.tcp != (tcpFlags{}) {
		return g.tcpClient()
	}
	path, err := g.socketPath()
	return api.Client{Caller: httpapi.NewClient(path)}, err
}

func (g *globals) tcpClient() (api.Client, error) {
	f := g.tcp.files
	switch {
	case g.socket != "":
		return api.Client{}, usageError{errors.New("--socket and --address name different daemons")}
	case g.tcp.address == "" || f.Cert == "" || f.Key == "" || f.CA == "":
		return api.Client{}, usageError{errors.New("--address, --cert, --key and --ca go together")}
	}
	client, err := httpapi.NewTCPClient(g.tcp.address, f)
	if err != nil {
		return api.Client{}, usageError{err}
	}
	return api.Client{Caller: client}, nil
}
