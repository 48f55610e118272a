//! The parts of `capwasm_plugin.h` that this plugin uses, as they are in C.
//!
//! A table may be declared only up to its last function in use; a struct must be whole.

use std::ffi::c_void;

pub const ABI: u32 = 1;

pub type Status = i32;
pub const OK: Status = 0;

pub const CALL_OK: i32 = 0;
pub const CALL_ERROR: i32 = 1;

#[repr(C)]
#[derive(Clone, Copy)]
pub struct Text {
    pub data: *const u8,
    pub size: usize,
}

/// Bytes have the layout of text.
pub type Bytes = Text;
pub type Handle = u32;

#[repr(C)]
pub struct Pair {
    pub first: Text,
    pub second: Text,
}

#[repr(C)]
pub struct Request {
    pub method: Text,
    pub url: Text,
    pub headers: *const Pair,
    pub header_count: usize,
    pub body: Bytes,
    pub timeout_ms: *const u32,
    pub redirects: i32,
}

#[repr(C)]
pub struct Fs {
    pub size: usize,
    pub mounts: *const c_void,
    pub open: unsafe extern "C" fn(*const u8, usize, i32, *mut Handle) -> Status,
    pub read: unsafe extern "C" fn(Handle, u64, u32, *mut Bytes) -> Status,
    pub write: *const c_void,
    pub get_size: *const c_void,
    pub set_size: *const c_void,
    pub sync: *const c_void,
    pub close: unsafe extern "C" fn(Handle) -> Status,
}

#[repr(C)]
pub struct Fetch {
    pub size: usize,
    pub send: unsafe extern "C" fn(*const Request, *const Handle, usize, *mut Handle) -> Status,
    pub status: unsafe extern "C" fn(Handle, *mut u16) -> Status,
    pub headers: *const c_void,
    pub url: *const c_void,
    pub read: unsafe extern "C" fn(Handle, u32, *mut Bytes) -> Status,
    pub read_all: *const c_void,
    pub close: unsafe extern "C" fn(Handle) -> Status,
}

#[repr(C)]
pub struct Secrets {
    pub size: usize,
    pub get: unsafe extern "C" fn(*const u8, usize, *mut Handle) -> Status,
    pub name: *const c_void,
    pub lease_ms: *const c_void,
    pub reveal: *const c_void,
    pub close: unsafe extern "C" fn(Handle) -> Status,
}

#[repr(C)]
pub struct Kv {
    pub size: usize,
    pub get: unsafe extern "C" fn(*const u8, usize, *mut Bytes) -> Status,
    pub set:
        unsafe extern "C" fn(*const u8, usize, *const u8, usize, *const u64) -> Status,
}

#[repr(C)]
pub struct Log {
    pub size: usize,
    pub write: unsafe extern "C" fn(i32, *const u8, usize, *const Pair, usize) -> Status,
}

#[repr(C)]
pub struct Host {
    pub abi: u32,
    pub size: u32,
    pub fs: *const Fs,
    pub fetch: *const Fetch,
    pub secrets: *const Secrets,
    pub kv: *const Kv,
    pub log: *const Log,
}

#[repr(C)]
pub struct Description {
    pub abi: u32,
    pub size: u32,
    pub name: Text,
    pub topics: *const Text,
    pub topic_count: usize,
}

// It points at static memory only.
unsafe impl Sync for Description {}
unsafe impl Sync for Text {}

#[repr(C)]
pub struct CallResult {
    pub data: *mut c_void,
    pub size: usize,
}

impl Text {
    pub const NONE: Text = Text { data: std::ptr::null(), size: 0 };

    pub const fn of(text: &'static str) -> Text {
        Text { data: text.as_ptr(), size: text.len() }
    }

    pub fn borrow(bytes: &[u8]) -> Text {
        Text { data: bytes.as_ptr(), size: bytes.len() }
    }

    /// The bytes in memory of our own; none if it points nowhere.
    ///
    /// # Safety
    /// It was given out by the function of the host that was called last.
    pub unsafe fn to_option(self) -> Option<Vec<u8>> {
        (!self.data.is_null()).then(|| std::slice::from_raw_parts(self.data, self.size).to_vec())
    }
}
