//! Time, at the resolution that was granted: `[clock]` in plugin.toml.
//!
//! ```no_run
//! use capwasm_guest::clock;
//! use std::time::Duration;
//!
//! let started = clock::monotonic();
//! clock::sleep(Duration::from_millis(10));
//! println!("{:?} {:?}", clock::now(), clock::monotonic() - started);
//! ```

use std::time::{Duration, SystemTime};

use crate::bindings::capwasm::clock::clock;

/// The date and time.
pub fn now() -> SystemTime {
    SystemTime::UNIX_EPOCH + Duration::from_nanos(clock::now())
}

/// Time since some moment before this instance began; never goes back.
pub fn monotonic() -> Duration {
    Duration::from_nanos(clock::monotonic())
}

/// Waits, at most as long as a host call may take (`limits.host-call-ms`).
pub fn sleep(time: Duration) {
    clock::sleep(u64::try_from(time.as_nanos()).unwrap_or(u64::MAX));
}
