// Package random is bytes from the system's generator, fit for keys: [random] in plugin.toml.
// Packages crypto/rand and math/rand work, too, with the same grant.
package random

import (
	"io"

	"go.example/capwasm"
	"go.example/capwasm/internal/host"
	"go.example/capwasm/internal/wit/capwasm_random_random"

	types "go.bytecodealliance.org/pkg/wit/types"
)

// What one call may ask for.
const piece = 64 << 10

var words = host.Words{
	capwasm_random_random.Error_Denied:   capwasm.ErrDenied,
	capwasm_random_random.Error_TooLarge: capwasm.ErrTooLarge,
}

// Reader never ends.
var Reader io.Reader = reader{}

type reader struct{}

func (reader) Read(p []byte) (int, error) {
	data, err := Bytes(min(len(p), piece))
	return copy(p, data), err
}

// Bytes are n of them, at most 64 KiB.
func Bytes(n int) ([]byte, error) {
	if n < 0 || n > piece {
		return nil, &capwasm.Error{Word: capwasm.ErrTooLarge, Action: "random.Bytes"}
	}
	return host.Try("random.Bytes", words, func() types.Result[[]byte, uint8] {
		return capwasm_random_random.Bytes(uint32(n))
	})
}

// Uint64 is 64 random bits.
func Uint64() uint64 { return host.Call(capwasm_random_random.NextU64) }
