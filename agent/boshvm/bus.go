package boshvm

import (
	"errors"
	"fmt"
	"strings"
)

// ErrNoBus is returned for a VM whose agent is on no message bus, as that of a
// director which was made with create-env.
var ErrNoBus = errors.New("the VM's agent is on no message bus")

// Bus is how the VM reaches its director's message bus. CA, certificate and key are in
// PEM, and empty where the director has none.
type Bus struct {
	URLs          []string
	CA, Cert, Key string
	CertFrom      string // the file that the certificate is from, for people
}

// Bus reads where the bus is and with which certificate it is entered. At first this
// is a bootstrap certificate; later the director sends another, often without URLs.
func (v VM) Bus() (Bus, error) {
	settings, err := v.settings()
	if err != nil {
		return Bus{}, err
	}
	updates, err := v.updates()
	if err != nil {
		return Bus{}, err
	}
	return busOf(settings, updates, v.find("settings.json"), v.find("update_settings.json"))
}

func busOf(s settings, u updates, settingsPath, updatesPath string) (Bus, error) {
	from, path, key := s.Env.Bosh.Mbus, settingsPath, "env.bosh.mbus"
	if u.Mbus.Cert.CA != "" {
		from, path, key = u.Mbus, updatesPath, "mbus"
	}
	b := Bus{
		URLs: u.Mbus.URLs,
		CA:   from.Cert.CA, Cert: from.Cert.Certificate, Key: from.Cert.PrivateKey, CertFrom: path,
	}
	if len(b.URLs) == 0 {
		b.URLs = s.Env.Bosh.Mbus.URLs
	}
	if len(b.URLs) == 0 && s.Mbus != "" {
		b.URLs = []string{s.Mbus}
	}
	if len(b.URLs) == 0 {
		return Bus{}, fmt.Errorf("cannot find the bus: %q has neither mbus nor env.bosh.mbus.urls", settingsPath)
	}
	for _, u := range b.URLs {
		if strings.HasPrefix(u, "https://") {
			return Bus{}, ErrNoBus
		}
	}
	if b.CA != "" && (b.Cert == "" || b.Key == "") {
		return Bus{}, fmt.Errorf("cannot enter the bus: %q has %s.cert.ca, but no certificate or no private_key beside it", path, key)
	}
	return b, nil
}
