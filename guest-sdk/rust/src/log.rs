//! The plugin's log: `[log]` in plugin.toml.  Logging never fails; what is too much is dropped.
//!
//! `println!`, `eprintln!` and the message of a panic go to the same log.
//!
//! ```no_run
//! use capwasm_guest::log;
//!
//! log::info("cache filled", &[("city", &"Oslo"), ("entries", &3)]);
//! log::warn("look at this", &[]);
//! log::write(log::Level::Debug, "for the author", &[]);
//! ```

use std::fmt::Display;

use crate::bindings::capwasm::log::log;

pub use log::Level;

/// Values that belong to a record, each shown as text.  A name has letters, digits, `_`, `-`, `.`.
pub type Fields<'a> = &'a [(&'a str, &'a dyn Display)];

/// Writes a record.
pub fn write(level: Level, message: &str, fields: Fields) {
    let fields: Vec<log::Field> = fields
        .iter()
        .map(|(key, value)| log::Field { key: (*key).into(), value: value.to_string() })
        .collect();
    log::write(level, message, &fields);
}

/// For the author.
pub fn debug(message: &str, fields: Fields) {
    write(Level::Debug, message, fields);
}

/// Worth keeping.
pub fn info(message: &str, fields: Fields) {
    write(Level::Info, message, fields);
}

/// Something to look at.
pub fn warn(message: &str, fields: Fields) {
    write(Level::Warn, message, fields);
}

/// Something failed.
pub fn error(message: &str, fields: Fields) {
    write(Level::Error, message, fields);
}
