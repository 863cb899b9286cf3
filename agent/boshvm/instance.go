package boshvm

import (
	"errors"
	"fmt"
	"io/fs"
	"os"
	"strings"
)

// Instance is who the VM is. What is not known of a VM that no deployment has yet is
// empty.
type Instance struct {
	Deployment string
	Job        string // the instance group
	Index      int
	ID         string
	AZ         string
	AgentID    string
}

// spec is what is read of spec.json, the last that a director applied.
type spec struct {
	Deployment string `json:"deployment"`
	Name       string `json:"name"`
	Job        struct {
		Name string `json:"name"`
	} `json:"job"`
	Index *int   `json:"index"`
	ID    string `json:"id"`
	AZ    string `json:"az"`
}

// Instance reads who the VM is.
func (v VM) Instance() (Instance, error) {
	settings, err := v.settings()
	if err != nil {
		return Instance{}, err
	}
	if settings.AgentID == "" {
		return Instance{}, fmt.Errorf("cannot tell who the VM is: %q has no agent_id", v.find("settings.json"))
	}
	spec, err := readJSON[spec](v.find("spec.json"), true)
	if err != nil {
		return Instance{}, err
	}
	in := Instance{
		Deployment: spec.Deployment, Job: spec.Name, ID: spec.ID, AZ: spec.AZ, AgentID: settings.AgentID,
	}
	if in.Job == "" {
		in.Job = spec.Job.Name
	}
	if spec.Index != nil {
		in.Index = *spec.Index
	}
	return in, v.single(&in)
}

// single prefers the files that hold one value each to the document.
func (v VM) single(in *Instance) error {
	for name, value := range map[string]*string{"deployment": &in.Deployment, "name": &in.Job, "id": &in.ID, "az": &in.AZ} {
		text, err := os.ReadFile(v.path("instance", name))
		if errors.Is(err, fs.ErrNotExist) {
			continue
		}
		if err != nil {
			return fmt.Errorf("cannot tell who the VM is: %w", err)
		}
		if one := strings.TrimSpace(string(text)); one != "" {
			*value = one
		}
	}
	return nil
}
