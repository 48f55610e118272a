// Package clock is time: [clock] in plugin.toml. Package time works, too, with the same grant.
package clock

import (
	"time"

	"go.example/capwasm/internal/host"
	"go.example/capwasm/internal/wit/capwasm_clock_clock"
)

// Now is the date and time, in UTC.
func Now() time.Time {
	ns := host.Call(capwasm_clock_clock.Now)
	return time.Unix(int64(ns/1e9), int64(ns%1e9)).UTC()
}

// Monotonic is the time since some moment; it never goes back.
func Monotonic() time.Duration {
	return time.Duration(host.Call(capwasm_clock_clock.Monotonic))
}

// Sleep waits, at most as long as a host call may take (limits.host-call-ms). All goroutines wait.
func Sleep(d time.Duration) {
	host.Call(func() struct{} {
		capwasm_clock_clock.Sleep(uint64(max(0, d)))
		return struct{}{}
	})
}
