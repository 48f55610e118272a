// Package plugin is what __NAME__ does: each function is one that wit/world.wit exports.
package plugin

import (
	"errors"

	"__NAME__/bindings/api"

	"go.example/capwasm/kv"
	"go.example/capwasm/log"
)

// Greet greets; an error says why not.
func Greet(name string) (api.Greeting, error) {
	if name == "" {
		return api.Greeting{}, errors.New("a name, please")
	}
	count, err := kv.Increment("seen/"+name, 1)
	if err != nil {
		return api.Greeting{}, err
	}
	log.Info("greeted", "name", name)
	return api.Greeting{Text: "Hello, " + name + "!", Before: uint32(count - 1)}, nil
}
