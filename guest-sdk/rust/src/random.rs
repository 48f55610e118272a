//! Random bytes, fit for keys: `[random]` in plugin.toml.
//!
//! ```no_run
//! use capwasm_guest::random;
//!
//! let token = random::bytes(32)?;
//! let dice = random::below(6) + 1;
//! # Ok::<(), capwasm_guest::Error>(())
//! ```

use crate::bindings::capwasm::random::random;
use crate::error::{Result, Trying};

const PIECE: usize = 64 * 1024;

/// `length` bytes, at most 64 KiB.
///
/// # Errors
/// `TooLarge`: more than that.  `Denied`: not granted.
pub fn bytes(length: usize) -> Result<Vec<u8>> {
    let asked = u32::try_from(length).unwrap_or(u32::MAX);
    random::bytes(asked).trying(|| format!("random.bytes {length}"))
}

/// Fills the slice, however long it is.
///
/// # Errors
/// `Denied`: not granted.
pub fn fill(slice: &mut [u8]) -> Result<()> {
    for piece in slice.chunks_mut(PIECE) {
        piece.copy_from_slice(&bytes(piece.len())?);
    }
    Ok(())
}

/// 64 random bits.  Without `[random]`, the call into the plugin ends here.
pub fn next_u64() -> u64 {
    random::next_u64()
}

/// A number from 0 to `limit` - 1, each as likely as the others.
///
/// # Panics
/// If `limit` is 0.
pub fn below(limit: u64) -> u64 {
    assert!(limit > 0, "random::below(0)");
    // What is left over at the top would make the small numbers more likely: draw again.
    let left_over = (u64::MAX % limit + 1) % limit;
    loop {
        let drawn = random::next_u64();
        if drawn <= u64::MAX - left_over {
            return drawn % limit;
        }
    }
}
