//! HTTP to the origins that the plugin was granted: `[[net]]` in plugin.toml.
//!
//! ```no_run
//! use capwasm_guest::fetch;
//!
//! let answer = fetch::get("https://api.acme.com/v1/weather")
//!     .header("Accept", "application/json")
//!     .secret_named("acme-token") // the host puts the secret in
//!     .send()?
//!     .error_for_status()?;
//! let text = answer.text()?;
//! # Ok::<(), capwasm_guest::Error>(())
//! ```

use std::io;
use std::time::Duration;

use crate::bindings::capwasm::fetch::client;
use crate::error::{Error, ErrorKind, Result, Trying};
use crate::secrets::{self, Secret};

pub use client::Redirects;

/// How large a body [`Response::bytes`] takes, if nothing else is said.
pub const MAX_BODY: u32 = 16 * 1024 * 1024;
const PIECE: usize = 1024 * 1024;

/// A request that is being made.  [`send`](Self::send) sends it.
#[derive(Debug)]
#[must_use = "a request does nothing until send()"]
pub struct Request<'a> {
    inner: client::Request,
    secrets: Vec<Credential<'a>>,
}

#[derive(Debug)]
enum Credential<'a> {
    Held(&'a Secret),
    Named(String),
}

/// A request with any method: `GET`, `POST`, …
pub fn request<'a>(method: &str, url: &str) -> Request<'a> {
    let inner = client::Request {
        method: method.into(),
        url: url.into(),
        headers: Vec::new(),
        body: None,
        timeout_ms: None,
        redirects: Redirects::Follow,
    };
    Request { inner, secrets: Vec::new() }
}

/// A request with the method `GET`.
pub fn get<'a>(url: &str) -> Request<'a> {
    request("GET", url)
}

/// A request with the method `HEAD`.
pub fn head<'a>(url: &str) -> Request<'a> {
    request("HEAD", url)
}

/// A request with the method `POST`.
pub fn post<'a>(url: &str) -> Request<'a> {
    request("POST", url)
}

/// A request with the method `PUT`.
pub fn put<'a>(url: &str) -> Request<'a> {
    request("PUT", url)
}

/// A request with the method `PATCH`.
pub fn patch<'a>(url: &str) -> Request<'a> {
    request("PATCH", url)
}

/// A request with the method `DELETE`.
pub fn delete<'a>(url: &str) -> Request<'a> {
    request("DELETE", url)
}

impl<'a> Request<'a> {
    /// One more header.  Those that frame the message are the host's own.
    pub fn header(mut self, name: &str, value: &str) -> Self {
        self.inner.headers.push(client::Header { name: name.into(), value: value.into() });
        self
    }

    /// What is sent: bytes, or text as UTF-8.
    pub fn body(mut self, body: impl Into<Vec<u8>>) -> Self {
        self.inner.body = Some(body.into());
        self
    }

    /// Has the host put in a secret that the plugin holds.
    pub fn secret(mut self, secret: &'a Secret) -> Self {
        self.secrets.push(Credential::Held(secret));
        self
    }

    /// Has the host put in the secret of that name.
    pub fn secret_named(mut self, name: &str) -> Self {
        self.secrets.push(Credential::Named(name.into()));
        self
    }

    /// Time for the whole exchange; if not given, what the limits allow.
    pub fn timeout(mut self, time: Duration) -> Self {
        self.inner.timeout_ms = Some(u32::try_from(time.as_millis()).unwrap_or(u32::MAX).max(1));
        self
    }

    /// What to do with a redirect; if not given, it is followed as far as the grant goes.
    pub fn redirects(mut self, redirects: Redirects) -> Self {
        self.inner.redirects = redirects;
        self
    }

    /// Sends it; returns when the headers of the answer are here.
    ///
    /// # Errors
    /// `Denied`: the origin, the path, the method, a redirect's target or a secret is not granted.
    /// `Invalid`, `TooLarge`, `Timeout`, `Closed`, `Insecure`, `Unavailable`.
    pub fn send(self) -> Result<Response> {
        let named: Vec<Secret> = self
            .secrets
            .iter()
            .filter_map(|c| match c {
                Credential::Held(_) => None,
                Credential::Named(name) => Some(secrets::get(name)),
            })
            .collect::<Result<_>>()?;
        let held = self.secrets.iter().filter_map(|c| match c {
            Credential::Held(secret) => Some(*secret),
            Credential::Named(_) => None,
        });
        let handles: Vec<_> = held.chain(&named).map(|secret| &secret.handle).collect();
        let handle = client::send(&self.inner, &handles)
            .trying(|| format!("fetch {} {}", self.inner.method, self.inner.url))?;
        Ok(Response { handle })
    }
}

/// An answer, whose body is read when it is asked for.  Dropping it closes the connection.
#[derive(Debug)]
pub struct Response {
    handle: client::Response,
}

impl Response {
    /// The status, such as 200.
    pub fn status(&self) -> u16 {
        self.handle.status()
    }

    /// Whether the status is from 200 to 299.
    pub fn ok(&self) -> bool {
        (200..300).contains(&self.status())
    }

    /// Where it came from, after redirects.
    pub fn url(&self) -> String {
        self.handle.url()
    }

    /// All headers, in their order.
    pub fn headers(&self) -> Vec<(String, String)> {
        self.handle.headers().into_iter().map(|h| (h.name, h.value)).collect()
    }

    /// The first header of that name, in any case.
    pub fn header(&self, name: &str) -> Option<String> {
        let mut all = self.handle.headers().into_iter();
        all.find(|h| h.name.eq_ignore_ascii_case(name)).map(|h| h.value)
    }

    /// Itself, if the status is from 200 to 299.
    ///
    /// # Errors
    /// `Unavailable`: it is not.
    pub fn error_for_status(self) -> Result<Self> {
        if self.ok() {
            return Ok(self);
        }
        let action = format!("fetch {}: answered {}", self.url(), self.status());
        Err(Error::new(ErrorKind::Unavailable, action))
    }

    /// The next bytes of the body, at most `length` (and at most 1 MiB); none at its end.
    ///
    /// # Errors
    /// `Timeout`, `Closed`, `TooLarge`, `Unavailable`: the connection broke off.
    pub fn chunk(&mut self, length: usize) -> Result<Vec<u8>> {
        self.handle.read(length.min(PIECE) as u32).trying(|| "fetch.read".into())
    }

    /// The rest of the body.
    ///
    /// # Errors
    /// `TooLarge`: it has more than [`MAX_BODY`] bytes.  As [`chunk`](Self::chunk).
    pub fn bytes(self) -> Result<Vec<u8>> {
        self.bytes_up_to(MAX_BODY)
    }

    /// The rest of the body, if it has at most `limit` bytes.
    ///
    /// # Errors
    /// As [`bytes`](Self::bytes).
    pub fn bytes_up_to(self, limit: u32) -> Result<Vec<u8>> {
        self.handle.read_all(limit).trying(|| "fetch.read-all".into())
    }

    /// The rest of the body as text, with � for what is no UTF-8.
    ///
    /// # Errors
    /// As [`bytes`](Self::bytes).
    pub fn text(self) -> Result<String> {
        let bytes = self.bytes()?;
        Ok(String::from_utf8(bytes)
            .unwrap_or_else(|e| String::from_utf8_lossy(e.as_bytes()).into_owned()))
    }
}

impl io::Read for Response {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        if buffer.is_empty() {
            return Ok(0);
        }
        let piece = self.chunk(buffer.len())?;
        buffer[..piece.len()].copy_from_slice(&piece);
        Ok(piece.len())
    }
}
