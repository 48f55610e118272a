// Package config is settings that the operator gave: [config] in plugin.toml. Not for secrets.
package config

import (
	"go.example/capwasm/internal/host"
	"go.example/capwasm/internal/wit/capwasm_config_config"

	types "go.bytecodealliance.org/pkg/wit/types"
)

// Lookup is the value of a setting that was granted, and whether it has one.
func Lookup(key string) (string, bool) {
	found := host.Call(func() types.Option[string] { return capwasm_config_config.Get(key) })
	if found.IsNone() {
		return "", false
	}
	return found.Some(), true
}

// Get is the value of a setting that was granted, or otherwise.
func Get(key, otherwise string) string {
	if value, ok := Lookup(key); ok {
		return value
	}
	return otherwise
}

// All are the settings that were granted.
func All() map[string]string {
	found := map[string]string{}
	for _, pair := range host.Call(capwasm_config_config.All) {
		found[pair.F0] = pair.F1
	}
	return found
}
