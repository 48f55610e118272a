//! The host's functions, safe to call: outputs are copied at once, handles close when they are dropped,
//! and an error is an `Err` with the number that the header names.

use crate::abi::{self, Bytes, Pair, Request, Status, Text};
use std::ptr;
use std::sync::atomic::{AtomicPtr, Ordering};

static HOST: AtomicPtr<abi::Host> = AtomicPtr::new(ptr::null_mut());

/// What went wrong: which function, and its status.
pub struct Refused {
    pub function: &'static str,
    pub status: Status,
}

pub type Result<T> = std::result::Result<T, Refused>;

/// Keeps the host's tables.
///
/// # Safety
/// `host` is what `capwasm_plugin_describe` was given.
pub unsafe fn keep(host: *const abi::Host) {
    HOST.store(host.cast_mut(), Ordering::Release);
}

fn host() -> &'static abi::Host {
    // The host calls no function before it has called `describe`.
    unsafe { &*HOST.load(Ordering::Acquire) }
}

fn check(function: &'static str, status: Status) -> Result<()> {
    if status == abi::OK {
        Ok(())
    } else {
        Err(Refused { function, status })
    }
}

/// An open file.
pub struct File(abi::Handle);

impl File {
    pub fn open(path: &str) -> Result<File> {
        let mut handle = 0;
        let status =
            unsafe { ((*host().fs).open)(path.as_ptr(), path.len(), 0, &mut handle) };
        check("fs.open", status).map(|()| File(handle))
    }

    pub fn read_all(&self) -> Result<Vec<u8>> {
        let mut all = Vec::new();
        loop {
            let mut part = Bytes::NONE;
            let status =
                unsafe { ((*host().fs).read)(self.0, all.len() as u64, 1 << 20, &mut part) };
            check("fs.read", status)?;
            match unsafe { part.to_option() } {
                Some(bytes) if !bytes.is_empty() => all.extend(bytes),
                _ => return Ok(all),
            }
        }
    }
}

impl Drop for File {
    fn drop(&mut self) {
        unsafe { ((*host().fs).close)(self.0) };
    }
}

/// A secret that can be used, and not seen.
pub struct Secret(abi::Handle);

impl Secret {
    pub fn get(name: &str) -> Result<Secret> {
        let mut handle = 0;
        let status =
            unsafe { ((*host().secrets).get)(name.as_ptr(), name.len(), &mut handle) };
        check("secrets.get", status).map(|()| Secret(handle))
    }
}

impl Drop for Secret {
    fn drop(&mut self) {
        unsafe { ((*host().secrets).close)(self.0) };
    }
}

/// A response, whose body is still to be read.
pub struct Response(abi::Handle);

impl Response {
    pub fn get(url: &str, credential: Option<&Secret>) -> Result<Response> {
        let request = Request {
            method: Text::of("GET"),
            url: Text::borrow(url.as_bytes()),
            headers: ptr::null(),
            header_count: 0,
            body: Bytes::NONE,
            timeout_ms: ptr::null(),
            redirects: 0,
        };
        let handles: Vec<abi::Handle> = credential.iter().map(|secret| secret.0).collect();
        let mut response = 0;
        let status = unsafe {
            ((*host().fetch).send)(&request, handles.as_ptr(), handles.len(), &mut response)
        };
        check("fetch.send", status).map(|()| Response(response))
    }

    pub fn status(&self) -> Result<u16> {
        let mut code = 0;
        check("fetch.status", unsafe { ((*host().fetch).status)(self.0, &mut code) })?;
        Ok(code)
    }

    /// The next part of the body; none at its end.
    pub fn part(&self) -> Result<Option<Vec<u8>>> {
        let mut part = Bytes::NONE;
        check("fetch.read", unsafe { ((*host().fetch).read)(self.0, 1 << 16, &mut part) })?;
        Ok(unsafe { part.to_option() }.filter(|bytes| !bytes.is_empty()))
    }
}

impl Drop for Response {
    fn drop(&mut self) {
        unsafe { ((*host().fetch).close)(self.0) };
    }
}

pub fn kv_get(key: &str) -> Result<Option<Vec<u8>>> {
    let mut value = Bytes::NONE;
    check("kv.get", unsafe { ((*host().kv).get)(key.as_ptr(), key.len(), &mut value) })?;
    Ok(unsafe { value.to_option() })
}

pub fn kv_set(key: &str, value: &[u8]) -> Result<()> {
    check("kv.set", unsafe {
        ((*host().kv).set)(key.as_ptr(), key.len(), value.as_ptr(), value.len(), ptr::null())
    })
}

/// Writes to the log; what is over its rate is dropped, so nobody needs to look at the status.
pub fn log_info(message: &str, key: &str, value: &str) {
    let field =
        Pair { first: Text::borrow(key.as_bytes()), second: Text::borrow(value.as_bytes()) };
    unsafe { ((*host().log).write)(1, message.as_ptr(), message.len(), &field, 1) };
}
