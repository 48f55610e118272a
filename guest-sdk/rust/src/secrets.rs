//! Handles to secrets: `[[secret]]` in plugin.toml.  Holding one is not knowing the secret.
//!
//! ```no_run
//! use capwasm_guest::{fetch, secrets};
//!
//! let token = secrets::get("acme-token")?; // a handle; the value stays with the host
//! println!("{} {:?}", token.name(), token.lease());
//! let me = fetch::get("https://api.acme.com/v1/me").secret(&token).send()?;
//! # Ok::<(), capwasm_guest::Error>(())
//! ```

use std::time::Duration;

use crate::bindings::capwasm::secrets::{reveal, store};
use crate::error::{Result, Trying};

/// A secret that can be used.  Dropping it lets it go.
#[derive(Debug)]
pub struct Secret {
    pub(crate) handle: store::Secret,
}

impl Secret {
    /// The name it was granted under.
    pub fn name(&self) -> String {
        self.handle.name()
    }

    /// Time until the handle runs out; 0 when it has, or when the secret was revoked.
    pub fn lease(&self) -> Duration {
        Duration::from_millis(self.handle.lease_ms())
    }

    /// The secret itself: needs a `[[secret]]` table with `use = "reveal"`, and each use is recorded.
    ///
    /// # Errors
    /// `Denied`: not granted.  `Closed`: it was revoked, or its lease ran out.  `Unavailable`.
    pub fn reveal(&self) -> Result<Vec<u8>> {
        reveal::reveal(&self.handle).trying(|| format!("reveal {}", self.name()))
    }
}

/// A handle to the secret of that name.
///
/// # Errors
/// `Denied`: not granted, or not there.  `Unavailable`: the vault can't be reached.
pub fn get(name: &str) -> Result<Secret> {
    let handle = store::get(name).trying(|| format!("secret {name}"))?;
    Ok(Secret { handle })
}
