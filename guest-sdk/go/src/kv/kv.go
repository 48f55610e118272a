// Package kv is the plugin's own store: [kv] in plugin.toml. Keys are text, values are bytes.
package kv

import (
	"iter"
	"time"

	"go.example/capwasm"
	"go.example/capwasm/internal/host"
	store "go.example/capwasm/internal/wit/capwasm_kv_store"

	types "go.bytecodealliance.org/pkg/wit/types"
)

var words = host.Words{
	store.Error_Denied:      capwasm.ErrDenied,
	store.Error_Invalid:     capwasm.ErrInvalid,
	store.Error_Quota:       capwasm.ErrQuota,
	store.Error_TooLarge:    capwasm.ErrTooLarge,
	store.Error_Closed:      capwasm.ErrClosed,
	store.Error_Unavailable: capwasm.ErrUnavailable,
}

// Get is the value of key, and whether it has one.
func Get(key string) (value []byte, ok bool, err error) {
	found, err := host.Try("kv.Get "+key, words, func() types.Result[types.Option[[]byte], uint8] {
		return store.Get(key)
	})
	if err != nil || found.IsNone() {
		return nil, false, err
	}
	return found.Some(), true, nil
}

// Set stores value.
func Set(key string, value []byte) error {
	return set(key, value, types.None[uint64]())
}

// SetFor stores value for that long.
func SetFor(key string, value []byte, ttl time.Duration) error {
	return set(key, value, types.Some(uint64(max(1, ttl.Milliseconds()))))
}

func set(key string, value []byte, ttl types.Option[uint64]) error {
	return host.Do("kv.Set "+key, words, func() types.Result[types.Unit, uint8] {
		return store.Set(key, value, ttl)
	})
}

// CompareAndSet stores value if the key's value is expected (nil: it has none), and says whether it
// did.
func CompareAndSet(key string, expected, value []byte) (bool, error) {
	before := types.None[[]byte]()
	if expected != nil {
		before = types.Some(expected)
	}
	return host.Try("kv.CompareAndSet "+key, words, func() types.Result[bool, uint8] {
		return store.CompareAndSet(key, before, value)
	})
}

// Increment adds to the whole number at key, which begins at 0, and gives the sum. Nobody comes in
// between.
func Increment(key string, by int64) (int64, error) {
	return host.Try("kv.Increment "+key, words, func() types.Result[int64, uint8] {
		return store.Increment(key, by)
	})
}

// Delete removes key, and says whether it was there.
func Delete(key string) (bool, error) {
	return host.Try("kv.Delete "+key, words, func() types.Result[bool, uint8] {
		return store.Delete(key)
	})
}

// Keys are all keys that begin with prefix, sorted. An error is the last pair.
func Keys(prefix string) iter.Seq2[string, error] {
	return func(yield func(string, error) bool) {
		after := types.None[string]()
		for {
			page, err := host.Try("kv.Keys "+prefix, words, func() types.Result[[]string, uint8] {
				return store.Keys(prefix, after)
			})
			if err != nil {
				yield("", err)
				return
			}
			for _, key := range page {
				if !yield(key, nil) {
					return
				}
			}
			if len(page) == 0 {
				return
			}
			after = types.Some(page[len(page)-1])
		}
	}
}
