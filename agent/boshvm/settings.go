package boshvm

import "encoding/json"

// settings is what is read of settings.json, which a CPI makes with the VM.
type settings struct {
	AgentID string `json:"agent_id"`
	Mbus    string `json:"mbus"`
	Env     struct {
		Bosh struct {
			Mbus mbus `json:"mbus"`
		} `json:"bosh"`
	} `json:"env"`
	Disks struct {
		Persistent map[string]json.RawMessage `json:"persistent"`
	} `json:"disks"`
}

// updates is what is read of update_settings.json, which the director sends later.
type updates struct {
	Mbus         mbus          `json:"mbus"`
	Associations []association `json:"disk_associations"`
}

type mbus struct {
	URLs []string `json:"urls"`
	Cert struct {
		CA          string `json:"ca"`
		Certificate string `json:"certificate"`
		PrivateKey  string `json:"private_key"`
	} `json:"cert"`
}

// association says under which name a job knows a disk.
type association struct {
	Name string `json:"name"`
	CID  string `json:"cid"`
}

func (v VM) settings() (settings, error) {
	return readJSON[settings](v.find("settings.json"), false)
}

func (v VM) updates() (updates, error) {
	return readJSON[updates](v.find("update_settings.json"), true)
}
