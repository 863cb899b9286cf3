package main

import (
	"encoding/json"
	"errors"
	"fmt"
	"path/filepath"
	"reflect"
	"strconv"
	"strings"
	"time"

	"go.yaml.in/yaml/v3"
)

// document is a strictly read YAML file: unknown and repeated keys and wrong
// types are errors, and each names the file, the line and the key.
type document struct {
	file  string
	lines map[string]int // of the keys that are there
	errs  []error
}

// fail notes an error about a key. A key that is not there has no line.
func (d *document) fail(key, format string, args ...any) {
	where := d.file
	if line, ok := d.lines[key]; ok {
		where += fmt.Sprintf(":%d", line)
	}
	d.errs = append(d.errs, fmt.Errorf("%s: %s: %s", where, key, fmt.Sprintf(format, args...)))
}

func (d *document) absolute(key, path string) {
	if !filepath.IsAbs(path) {
		d.fail(key, "%q is not an absolute path", path)
	}
}

func (d *document) err() error { return errors.Join(d.errs...) }

// decode reads text into the struct that into points to. Keys that are not in
// the text keep their values.
func (d *document) decode(text []byte, into any) {
	decoder := yaml.NewDecoder(strings.NewReader(string(text)))
	var root yaml.Node
	if err := decoder.Decode(&root); err != nil {
		if text := err.Error(); text != "EOF" { // an empty file is all defaults
			d.errs = append(d.errs, fmt.Errorf("%s: %s", d.file, text))
		}
		return
	}
	if decoder.Decode(new(yaml.Node)) == nil {
		d.errs = append(d.errs, fmt.Errorf("%s: more than one document", d.file))
		return
	}
	d.value(root.Content[0], reflect.ValueOf(into).Elem(), "")
}

func (d *document) value(n *yaml.Node, v reflect.Value, key string) {
	d.lines[key] = n.Line
	if n.Kind == yaml.AliasNode {
		n = n.Alias
	}
	if n.Tag == "!!null" {
		return // "key:" alone keeps the default
	}
	switch {
	case v.Type() == reflect.TypeFor[time.Duration]():
		d.duration(n, v, key)
	case v.Kind() == reflect.Struct:
		d.object(n, v, key)
	case v.Kind() == reflect.Map && v.Type().Elem().Kind() != reflect.Interface:
		d.table(n, v, key)
	case v.Kind() == reflect.Slice:
		d.list(n, v, key)
	case v.Kind() == reflect.Map:
		d.free(n, v, key)
	default:
		d.scalar(n, v, key)
	}
}

// pairs calls f for each key of a mapping, once.
func (d *document) pairs(n *yaml.Node, key string, f func(name, key string, value *yaml.Node)) {
	if n.Kind != yaml.MappingNode {
		d.fail(key, "wants keys and values, has %s", describe(n))
		return
	}
	seen := map[string]bool{}
	for i := 0; i+1 < len(n.Content); i += 2 {
		name := n.Content[i].Value
		full := strings.TrimPrefix(key+"."+name, ".")
		d.lines[full] = n.Content[i].Line
		if seen[name] {
			d.fail(full, "the key is there twice")
			continue
		}
		seen[name] = true
		f(name, full, n.Content[i+1])
	}
}

func (d *document) object(n *yaml.Node, v reflect.Value, key string) {
	fields := map[string]reflect.Value{}
	for i := range v.NumField() {
		fields[v.Type().Field(i).Tag.Get("yaml")] = v.Field(i)
	}
	d.pairs(n, key, func(name, full string, value *yaml.Node) {
		field, ok := fields[name]
		if !ok {
			d.fail(full, "unknown key")
			return
		}
		d.value(value, field, full)
	})
}

func (d *document) table(n *yaml.Node, v reflect.Value, key string) {
	if v.IsNil() {
		v.Set(reflect.MakeMap(v.Type()))
	}
	d.pairs(n, key, func(name, full string, value *yaml.Node) {
		element := reflect.New(v.Type().Elem()).Elem()
		d.value(value, element, full)
		v.SetMapIndex(reflect.ValueOf(name), element)
	})
}

func (d *document) list(n *yaml.Node, v reflect.Value, key string) {
	if n.Kind != yaml.SequenceNode {
		d.fail(key, "wants a list, has %s", describe(n))
		return
	}
	all := reflect.MakeSlice(v.Type(), len(n.Content), len(n.Content))
	for i, item := range n.Content {
		d.value(item, all.Index(i), fmt.Sprintf("%s[%d]", key, i))
	}
	v.Set(all)
}

// free takes a mapping as it is, for what is handed on to others.
func (d *document) free(n *yaml.Node, v reflect.Value, key string) {
	if n.Kind != yaml.MappingNode {
		d.fail(key, "wants keys and values, has %s", describe(n))
		return
	}
	if err := n.Decode(v.Addr().Interface()); err != nil {
		d.fail(key, "%v", err)
		return
	}
	for _, name := range v.MapKeys() {
		if _, err := json.Marshal(v.MapIndex(name).Interface()); err != nil {
			d.fail(key+"."+name.String(), "has no form in JSON: %v", err)
		}
	}
}

func (d *document) duration(n *yaml.Node, v reflect.Value, key string) {
	took, err := parseTime(n.Value)
	if n.Kind != yaml.ScalarNode || err != nil {
		d.fail(key, "wants a time such as 30s or 10m, has %s", describe(n))
		return
	}
	v.SetInt(int64(took))
}

// parseTime reads a time such as 10m, or a number of days of 24 hours: 90d.
func parseTime(text string) (time.Duration, error) {
	days, ok := strings.CutSuffix(text, "d")
	if !ok {
		return time.ParseDuration(text)
	}
	n, err := strconv.ParseUint(days, 10, 16)
	return time.Duration(n) * 24 * time.Hour, err
}

// wants names the types of scalars, by kind, and the YAML tag of each.
var wants = map[reflect.Kind]struct{ tag, name string }{
	reflect.String: {"!!str", "a string"},
	reflect.Int:    {"!!int", "a whole number"},
	reflect.Bool:   {"!!bool", "true or false"},
}

func (d *document) scalar(n *yaml.Node, v reflect.Value, key string) {
	want := wants[v.Kind()]
	if n.Kind != yaml.ScalarNode || n.Tag != want.tag || n.Decode(v.Addr().Interface()) != nil {
		d.fail(key, "wants %s, has %s", want.name, describe(n))
	}
}

func describe(n *yaml.Node) string {
	switch n.Kind {
	case yaml.MappingNode:
		return "keys and values"
	case yaml.SequenceNode:
		return "a list"
	}
	return fmt.Sprintf("%q (%s)", n.Value, strings.TrimPrefix(n.Tag, "!!"))
}
