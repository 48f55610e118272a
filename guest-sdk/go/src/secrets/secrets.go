// Package secrets gives handles to secrets: [[secret]] in plugin.toml. Holding one is not knowing the
// secret.
package secrets

import (
	"time"

	"go.example/capwasm"
	"go.example/capwasm/internal/host"
	"go.example/capwasm/internal/wit/capwasm_secrets_reveal"
	store "go.example/capwasm/internal/wit/capwasm_secrets_store"

	types "go.bytecodealliance.org/pkg/wit/types"
)

var words = host.Words{
	store.Error_Denied:      capwasm.ErrDenied,
	store.Error_Closed:      capwasm.ErrClosed,
	store.Error_Unavailable: capwasm.ErrUnavailable,
}

// Secret is a secret that can be used, not seen. Close it when it is no longer needed.
type Secret struct {
	name   string
	handle *store.Secret
}

// Get is a handle to the secret of that name.
func Get(name string) (*Secret, error) {
	handle, err := host.Try("secrets.Get "+name, words, func() types.Result[*store.Secret, uint8] {
		return store.Get(name)
	})
	if err != nil {
		return nil, err
	}
	return &Secret{host.Call(handle.Name), handle}, nil
}

// Name is the name that it was granted under.
func (s *Secret) Name() string { return s.name }

// Lease is how long the handle can still be used; 0 when its time is over, or the secret was revoked.
func (s *Secret) Lease() time.Duration {
	if s.handle == nil {
		return 0
	}
	left := host.Call(s.handle.LeaseMs)
	return time.Duration(min(left, uint64(1<<63-1)/uint64(time.Millisecond))) * time.Millisecond
}

// Reveal is the secret itself. It needs a [[secret]] table with use = "reveal", and is recorded.
func (s *Secret) Reveal() ([]byte, error) {
	if s.handle == nil {
		return nil, host.Closed("secrets.Reveal " + s.name)
	}
	return host.Try("secrets.Reveal "+s.name, words, func() types.Result[[]byte, uint8] {
		return capwasm_secrets_reveal.Reveal(s.handle)
	})
}

// Close lets it go. Called again, it does nothing.
func (s *Secret) Close() error {
	if s.handle != nil {
		s.handle.Drop()
		s.handle = nil
	}
	return nil
}

// Handle is what the bindings of package fetch take; nil once it is closed.
func (s *Secret) Handle() *store.Secret { return s.handle }
