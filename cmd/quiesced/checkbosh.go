package main

import (
	"crypto/x509"
	"encoding/pem"
	"errors"
	"fmt"
	"net/url"
	"strings"
	"time"

	"github.com/quiesced/quiesced/agent/api"
	"github.com/quiesced/quiesced/agent/boshvm"
)

// foundVM is what is used of the stemcell's files.
type foundVM struct {
	Root     string       `json:"root"`
	Instance api.Instance `json:"instance"` // what is configured included
	Bus      *foundBus    `json:"bus,omitempty"`
	Disks    []foundDisk  `json:"disks,omitempty"`
}

type foundBus struct {
	URLs        []string   `json:"urls"`                  // without passwords
	Certificate string     `json:"certificate,omitempty"` // its common name
	Until       *time.Time `json:"until,omitempty"`
	File        string     `json:"file"`
}

type foundDisk struct {
	CID      string   `json:"cid"`
	Name     string   `json:"name,omitempty"`
	Attached bool     `json:"attached"`
	Device   string   `json:"device,omitempty"`
	Mounts   []string `json:"mounts,omitempty"`
}

// found reads what of the stemcell's files is used, nil where there are none.
func (c *Config) found() (*foundVM, error) {
	vm := c.stemcell()
	if vm == nil {
		return nil, nil
	}
	f := &foundVM{Root: vm.Root, Instance: api.Instance(c.Instance.who())}
	var errs []error
	if c.busSource() != nil {
		bus, err := vm.Bus()
		if err == nil {
			f.Bus, err = foundBusOf(bus)
		}
		if !errors.Is(err, boshvm.ErrNoBus) {
			errs = append(errs, err)
		}
	}
	if c.attached() != nil {
		disks, err := vm.Disks()
		errs = append(errs, err)
		for _, d := range disks {
			f.Disks = append(f.Disks, foundDisk(d))
		}
	}
	if err := errors.Join(errs...); err != nil {
		return nil, fmt.Errorf("bosh.root: %w", err)
	}
	return f, nil
}

func foundBusOf(b boshvm.Bus) (*foundBus, error) {
	f := &foundBus{File: b.CertFrom}
	for _, one := range b.URLs {
		u, err := url.Parse(one)
		if err != nil {
			return nil, errors.New("a URL of the bus is none") // the error would quote a password
		}
		f.URLs = append(f.URLs, u.Redacted())
	}
	if b.Cert == "" {
		return f, nil
	}
	block, _ := pem.Decode([]byte(b.Cert))
	if block == nil {
		return nil, fmt.Errorf("the bus's certificate in %q is not in PEM", b.CertFrom)
	}
	certificate, err := x509.ParseCertificate(block.Bytes)
	if err != nil {
		return nil, fmt.Errorf("the bus's certificate in %q is none: %w", b.CertFrom, err)
	}
	f.Certificate, f.Until = certificate.Subject.CommonName, &certificate.NotAfter
	return f, nil
}

// show prints what was found.
func (f *foundVM) show(t *terminal) {
	in := f.Instance
	t.printf("Under BOSH, by %s: %s/%s (index %d) of deployment %q, agent %s\n", f.Root, in.Job, in.ID, in.Index, in.Deployment, in.AgentID)
	if b := f.Bus; b != nil {
		t.printf("Bus: %s", strings.Join(b.URLs, ", "))
		if b.Until != nil {
			t.printf(" as %s until %s, by %s", b.Certificate, b.Until.UTC().Format(time.RFC3339), b.File)
		}
		t.printf("\n")
	}
	for _, d := range f.Disks {
		t.printf("Disk %s: %s\n", d.CID, d.where())
	}
	t.printf("\n")
}

func (d *foundDisk) where() string {
	switch {
	case !d.Attached:
		return "known, not attached"
	case d.Name != "":
		return fmt.Sprintf("%q, %s", d.Name, d.Device)
	}
	return strings.Join(d.Mounts, ", ")
}
