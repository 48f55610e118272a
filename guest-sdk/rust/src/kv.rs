//! The plugin's own store: `[kv]` in plugin.toml.  Keys are text, values are bytes.
//!
//! ```no_run
//! use capwasm_guest::kv;
//! use std::time::Duration;
//!
//! kv::set("owner", "me")?;
//! kv::set_for("greeting", b"hello", Duration::from_secs(60))?;
//! assert_eq!(kv::get("owner")?.as_deref(), Some(&b"me"[..]));
//! let visits = kv::increment("visits", 1)?;
//! let taken = kv::compare_and_set("owner", Some(b"me"), "you")?;
//! for key in kv::keys("vis") {
//!     println!("{} {visits} {taken} {}", key?, kv::delete("owner")?);
//! }
//! # Ok::<(), capwasm_guest::Error>(())
//! ```

use std::time::Duration;

use crate::bindings::capwasm::kv::store;
use crate::error::{Result, Trying};

/// The value of `key`, if it has one.
///
/// # Errors
/// `Denied`: not granted.  `Invalid`: the key is empty, longer than 512 bytes, or holds a control
/// character.  `Closed`, `Unavailable`.  So does every function here.
pub fn get(key: &str) -> Result<Option<Vec<u8>>> {
    store::get(key).trying(|| format!("kv.get {key}"))
}

/// Stores `value`.
///
/// # Errors
/// As [`get`], and `TooLarge` or `Quota` where there is no room.
pub fn set(key: &str, value: impl AsRef<[u8]>) -> Result<()> {
    store::set(key, value.as_ref(), None).trying(|| format!("kv.set {key}"))
}

/// Stores `value` for that long, to the millisecond.
///
/// # Errors
/// As [`set`].
pub fn set_for(key: &str, value: impl AsRef<[u8]>, time: Duration) -> Result<()> {
    let ms = u64::try_from(time.as_millis()).unwrap_or(u64::MAX).max(1);
    store::set(key, value.as_ref(), Some(ms)).trying(|| format!("kv.set {key}"))
}

/// Stores `value` if the key's value is `expected` (`None`: it has none); whether it did.
///
/// # Errors
/// As [`set`].
pub fn compare_and_set(key: &str, expected: Option<&[u8]>, value: impl AsRef<[u8]>) -> Result<bool> {
    store::compare_and_set(key, expected, value.as_ref())
        .trying(|| format!("kv.compare-and-set {key}"))
}

/// Adds to the whole number at `key`, which begins at 0; the sum.  Nobody comes in between.
///
/// # Errors
/// As [`set`], and `Invalid` where the value is no whole number.
pub fn increment(key: &str, by: i64) -> Result<i64> {
    store::increment(key, by).trying(|| format!("kv.increment {key}"))
}

/// Removes `key`; whether it was there.
///
/// # Errors
/// As [`get`].
pub fn delete(key: &str) -> Result<bool> {
    store::delete(key).trying(|| format!("kv.delete {key}"))
}

/// All keys that begin with `prefix`, sorted.  They are asked for a page at a time, as they are
/// needed; after an error there are no more.
pub fn keys(prefix: &str) -> Keys {
    Keys { prefix: prefix.into(), after: None, page: Vec::new().into_iter(), ended: false }
}

/// See [`keys`].
#[derive(Debug)]
pub struct Keys {
    prefix: String,
    after: Option<String>,
    page: std::vec::IntoIter<String>,
    ended: bool,
}

impl Iterator for Keys {
    type Item = Result<String>;

    fn next(&mut self) -> Option<Self::Item> {
        if self.page.len() == 0 && !self.ended {
            match store::keys(&self.prefix, self.after.as_deref()).trying(|| "kv.keys".into()) {
                Ok(page) => {
                    self.ended = page.is_empty();
                    self.after = page.last().cloned();
                    self.page = page.into_iter();
                }
                Err(error) => {
                    self.ended = true;
                    return Some(Err(error));
                }
            }
        }
        self.page.next().map(Ok)
    }
}
