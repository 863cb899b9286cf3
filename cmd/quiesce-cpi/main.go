// Quiesce-cpi is what a director calls as its CPI. It has the VM brought to rest
// while a snapshot of one of its disks is taken, and hands everything else to the
// real CPI; package front says how.
//
// Usage: quiesce-cpi -cpi PATH [-config FILE]
package main

import (
	"context"
	"flag"
	"fmt"
	"io"
	"os"
	"os/signal"
	"syscall"

	"github.com/quiesced/quiesced/cpi"
	"github.com/quiesced/quiesced/cpi/front"
)

// defaultConfig is where the job's configuration lies.
const defaultConfig = "/var/vcap/jobs/quiesce_cpi/config/quiesce-cpi.yml"

func main() {
	os.Exit(run(os.Args[1:], os.Stdin, os.Stdout, os.Stderr))
}

// run reads the request, and looks at nothing else before it knows that the request
// asks for a snapshot: most do not, and a director makes many.
func run(args []string, stdin io.Reader, stdout, stderr io.Writer) int {
	path, config, err := parse(args, stderr)
	if err != nil {
		return refuse(stdout, 2, err)
	}
	request, err := front.ReadRequest(stdin)
	if err != nil {
		return refuse(stdout, 1, err)
	}
	if request.Method() == front.MethodSnapshotDisk {
		f := &front.Front{CPI: path, Stdout: stdout, Stderr: stderr}
		if ending := take(f, config, request); !ending.PassOn {
			return exit(ending.Status)
		}
	}
	return refuse(stdout, 1, front.PassOn(path, request))
}

func parse(args []string, stderr io.Writer) (path, config string, err error) {
	f := flag.NewFlagSet("quiesce-cpi", flag.ContinueOnError)
	f.SetOutput(stderr)
	f.StringVar(&path, "cpi", "", "the real CPI's `path`")
	f.StringVar(&config, "config", defaultConfig, "configuration `file`")
	err = f.Parse(args)
	if err == nil && (path == "" || f.NArg() > 0) {
		err = fmt.Errorf("usage: quiesce-cpi -cpi PATH [-config FILE]")
	}
	return path, config, err
}

// refuse answers in a form that a director can show.
func refuse(stdout io.Writer, code int, err error) int {
	_ = cpi.WriteError(stdout, cpi.Errorf(cpi.CpiError, "quiesce-cpi: %v", err))
	return code
}

// take takes a snapshot. What is no director's request for one of a disk that a VM may
// have is the real CPI's to answer. A signal that would end the program ends first what it
// began. A reader who is gone (SIGPIPE) is an error of the write, since a hold may
// have to be ended.
func take(f *front.Front, config string, request *front.Request) front.Ending {
	document, err := request.Document()
	if err != nil {
		return front.Ending{PassOn: true}
	}
	s, err := front.ParseSnapshot(document)
	if err != nil || s.AgentID == "" {
		return front.Ending{PassOn: true}
	}
	ctx, stop := signal.NotifyContext(context.Background(), syscall.SIGTERM, syscall.SIGINT, syscall.SIGHUP)
	defer stop()
	signal.Notify(make(chan os.Signal, 1), syscall.SIGPIPE)
	defer signal.Reset(syscall.SIGPIPE)
	c, err := load(config)
	d := director{config: c.DirectorConfig, socket: c.Socket}
	f.Config, f.Dial, f.Alert = c.front(), d.dial, d.alert
	if err != nil {
		return f.Without(ctx, s, err)
	}
	return f.Snapshot(ctx, document, s)
}

// exit is the exit code of a status, after a signal as a shell tells it. It does not
// return where the signal can be had for ourselves.
func exit(status syscall.WaitStatus) int {
	if !status.Signaled() {
		return status.ExitStatus()
	}
	switch s := status.Signal(); s {
	case syscall.SIGTERM, syscall.SIGINT, syscall.SIGHUP, syscall.SIGKILL, syscall.SIGPIPE:
		signal.Reset()
		_ = syscall.Kill(os.Getpid(), s)
		select {} // until it arrives
	default: // the Go runtime prints for some of these
		return 128 + int(s)
	}
}
