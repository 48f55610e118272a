// Package host calls the host, and lets go of what it gave.
package host

import (
	"sync"

	"go.example/capwasm"

	"go.bytecodealliance.org/pkg/wit/runtime"
	types "go.bytecodealliance.org/pkg/wit/types"
)

// Goroutines share one list of pinned memory, which may be emptied only between two calls.
var one sync.Mutex

// Call makes one call of the bindings. They pin all that the host writes until the next call *of* the
// plugin; unpinned here, a long read takes the memory of one piece and not of all.
func Call[T any](call func() T) T {
	one.Lock()
	defer one.Unlock()
	defer runtime.Unpin()
	return call()
}

// Words are the words of an interface's error, in the order of its WIT.
type Words []capwasm.Word

// Try makes one call that can fail; its error tells action and word.
func Try[T any](action string, words Words, call func() types.Result[T, uint8]) (T, error) {
	result := Call(call)
	if result.IsErr() {
		var none T
		return none, &capwasm.Error{Word: words[result.Err()], Action: action}
	}
	return result.Ok(), nil
}

// Do is Try for a call that gives nothing.
func Do(action string, words Words, call func() types.Result[types.Unit, uint8]) error {
	_, err := Try(action, words, call)
	return err
}

// Closed is the error of using what was closed.
func Closed(action string) error { return &capwasm.Error{Word: capwasm.ErrClosed, Action: action} }
