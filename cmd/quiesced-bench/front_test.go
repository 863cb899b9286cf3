package main

import (
	"encoding/json"
	"testing"
)

func TestARequestIsADirectorsAndAboutAsLongAsAskedFor(t *testing.T) {
	for _, size := range []int{0, 8 << 10, 1 << 20} {
		text := requestOf("create_vm", size)
		var r struct {
			Method    string
			Arguments []string
		}
		if err := json.Unmarshal(text, &r); err != nil || r.Method != "create_vm" || len(r.Arguments) != 1 {
			t.Errorf("%d bytes: %v, %+v", size, err, r.Method)
		}
		if size > 0 && (len(text) < size-64 || len(text) > size) {
			t.Errorf("it has %d bytes, not about %d", len(text), size)
		}
	}
}
