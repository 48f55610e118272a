//! Settings that the operator gave: `[config]` in plugin.toml.  Not for secrets.
//!
//! ```no_run
//! use capwasm_guest::config;
//!
//! let units = config::get("units").unwrap_or("metric".into());
//! for (key, value) in config::all() {
//!     println!("{key} = {value}, {units}");
//! }
//! ```

use crate::bindings::capwasm::config::config;

/// The value of a setting that was granted and set.
pub fn get(key: &str) -> Option<String> {
    config::get(key)
}

/// All the settings that were granted, sorted by key.
pub fn all() -> Vec<(String, String)> {
    config::all()
}
