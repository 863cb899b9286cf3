package main

import "github.com/quiesced/quiesced/agent/httpapi"

// access is who may use the socket.
func (l ListenConfig) access() (httpapi.Access, error) {
	group, err := httpapi.GroupID(l.Group)
	if err != nil {
		return httpapi.Access{}, err
	}
	holder, err := httpapi.UserID(l.Holders)
	return httpapi.Access{Group: group, Holder: holder}, err
}
