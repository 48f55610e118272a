//! What can go wrong: one error for all capabilities.

use std::{borrow::Cow, fmt, io};

use crate::bindings::capwasm;

/// What a function of this crate gives.
pub type Result<T, E = Error> = std::result::Result<T, E>;

/// Why a capability said no.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
#[non_exhaustive]
pub enum ErrorKind {
    /// Not granted.  The operator sees which line would grant it; a plugin does not.
    Denied,
    /// No such thing, inside what was granted.
    NotFound,
    /// The file is there already.
    Exists,
    /// A part of the path is not a directory.
    NotDirectory,
    /// The path names a directory, and a file was asked for.
    IsDirectory,
    /// The directory is not empty.
    NotEmpty,
    /// An argument is malformed.
    Invalid,
    /// More than a limit allows.
    TooLarge,
    /// The room that was granted is used up.
    Quota,
    /// Out of time.
    Timeout,
    /// The handle was dropped, its lease ran out, or the grant was revoked.
    Closed,
    /// The origin's certificate or TLS is not acceptable.
    Insecure,
    /// The other side can't be reached, or went wrong.
    Unavailable,
}

impl ErrorKind {
    /// The word of the WIT interface, such as `too-large`.
    pub fn word(self) -> &'static str {
        match self {
            Self::Denied => "denied",
            Self::NotFound => "not-found",
            Self::Exists => "exists",
            Self::NotDirectory => "not-directory",
            Self::IsDirectory => "is-directory",
            Self::NotEmpty => "not-empty",
            Self::Invalid => "invalid",
            Self::TooLarge => "too-large",
            Self::Quota => "quota",
            Self::Timeout => "timeout",
            Self::Closed => "closed",
            Self::Insecure => "insecure",
            Self::Unavailable => "unavailable",
        }
    }
}

impl fmt::Display for ErrorKind {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.word())
    }
}

/// A capability said no: to what, and why.
///
/// It becomes a `String` by `?`, so that a function of the world that gives `result<_, string>` can
/// pass it on, and a [`std::io::Error`] where readers and writers want one.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Error {
    kind: ErrorKind,
    action: Cow<'static, str>,
}

impl Error {
    pub(crate) fn new(kind: ErrorKind, action: impl Into<Cow<'static, str>>) -> Self {
        Self { kind, action: action.into() }
    }

    /// Why.
    pub fn kind(&self) -> ErrorKind {
        self.kind
    }

    /// Why, as the word of the WIT interface: `too-large`.
    pub fn word(&self) -> &'static str {
        self.kind.word()
    }

    /// What was tried, such as `kv.set greeting`.
    pub fn action(&self) -> &str {
        &self.action
    }
}

impl fmt::Display for Error {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}: {}", self.action, self.kind)
    }
}

impl std::error::Error for Error {}

impl From<Error> for String {
    fn from(error: Error) -> Self {
        error.to_string()
    }
}

impl From<Error> for io::Error {
    fn from(error: Error) -> Self {
        let kind = match error.kind {
            ErrorKind::Denied => io::ErrorKind::PermissionDenied,
            ErrorKind::NotFound => io::ErrorKind::NotFound,
            ErrorKind::Exists => io::ErrorKind::AlreadyExists,
            ErrorKind::NotDirectory => io::ErrorKind::NotADirectory,
            ErrorKind::IsDirectory => io::ErrorKind::IsADirectory,
            ErrorKind::NotEmpty => io::ErrorKind::DirectoryNotEmpty,
            ErrorKind::Invalid => io::ErrorKind::InvalidInput,
            ErrorKind::TooLarge => io::ErrorKind::FileTooLarge,
            ErrorKind::Quota => io::ErrorKind::QuotaExceeded,
            ErrorKind::Timeout => io::ErrorKind::TimedOut,
            ErrorKind::Closed => io::ErrorKind::NotConnected,
            ErrorKind::Insecure | ErrorKind::Unavailable => io::ErrorKind::Other,
        };
        io::Error::new(kind, error)
    }
}

/// Each interface has an enum of its own with some of the words.
macro_rules! words {
    ($($interface:path { $($word:ident),* })*) => {$(
        impl From<$interface> for ErrorKind {
            fn from(error: $interface) -> Self {
                match error { $(<$interface>::$word => Self::$word,)* }
            }
        }
    )*};
}

words! {
    capwasm::fetch::client::Error { Denied, Invalid, TooLarge, Timeout, Closed, Unavailable, Insecure }
    capwasm::secrets::store::Error { Denied, Closed, Unavailable }
    capwasm::kv::store::Error { Denied, Invalid, Quota, TooLarge, Closed, Unavailable }
    capwasm::random::random::Error { Denied, TooLarge }
    capwasm::exec::commands::Error { Denied, Invalid, TooLarge, Timeout, Closed, Unavailable }
    capwasm::fs::files::Error {
        Denied, NotFound, Exists, NotDirectory, IsDirectory, NotEmpty, Invalid, Quota, TooLarge,
        Closed, Unavailable
    }
}

/// Names what was tried, where it failed.
pub(crate) trait Trying<T> {
    fn trying(self, action: impl FnOnce() -> String) -> Result<T>;
}

impl<T, E: Into<ErrorKind>> Trying<T> for std::result::Result<T, E> {
    fn trying(self, action: impl FnOnce() -> String) -> Result<T> {
        self.map_err(|error| Error::new(error.into(), action()))
    }
}
