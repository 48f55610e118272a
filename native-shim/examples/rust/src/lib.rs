//! A native plugin in Rust that tells which pages have changed since it looked last.
//!
//! Topic `check`: the message is the path of a file with one URL a line.  Each is fetched, with the
//! secret `watch-token` if there is one; the answer is the URLs whose content is another than before,
//! one a line.  Lines that are empty or begin with `#` are passed over.

mod abi;
mod host;

use abi::{CallResult, Description, Text};
use host::{File, Refused, Response, Secret};
use std::panic::{catch_unwind, AssertUnwindSafe};

const MISSING_SECRET: abi::Status = 1;

fn check(path: &str) -> Result<Vec<u8>, String> {
    let list = File::open(path).and_then(|file| file.read_all()).map_err(words)?;
    let list = String::from_utf8(list).map_err(|_| "the list is not UTF-8".to_string())?;
    let token = match Secret::get("watch-token") {
        Ok(secret) => Some(secret),
        Err(refused) if refused.status == MISSING_SECRET => None,
        Err(refused) => return Err(words(refused)),
    };
    let mut changed = String::new();
    for url in list.lines().map(str::trim).filter(|line| !line.is_empty() && !line.starts_with('#'))
    {
        if has_changed(url, token.as_ref()).map_err(words)? {
            host::log_info("a page has changed", "url", url);
            changed.push_str(url);
            changed.push('\n');
        }
    }
    Ok(changed.into_bytes())
}

/// Whether the page is another than before; it is the one to compare with from now on.
fn has_changed(url: &str, token: Option<&Secret>) -> host::Result<bool> {
    let response = Response::get(url, token)?;
    let mut mark = Fnv::new();
    mark.add(&response.status()?.to_le_bytes());
    while let Some(part) = response.part()? {
        mark.add(&part);
    }
    let (key, mark) = (format!("page/{url}"), mark.0.to_le_bytes());
    let before = host::kv_get(&key)?;
    host::kv_set(&key, &mark)?;
    Ok(before.is_some_and(|old| old != mark))
}

/// FNV-1a, 64 bits: tells pages apart; nobody gains by making two alike.
struct Fnv(u64);

impl Fnv {
    fn new() -> Fnv {
        Fnv(0xcbf2_9ce4_8422_2325)
    }

    fn add(&mut self, bytes: &[u8]) {
        for byte in bytes {
            self.0 = (self.0 ^ u64::from(*byte)).wrapping_mul(0x100_0000_01b3);
        }
    }
}

fn words(refused: Refused) -> String {
    format!("{} was refused ({})", refused.function, refused.status)
}

// -- what the library exports ---------------------------------------------------------------------

static TOPICS: [Text; 1] = [Text::of("check")];
static DESCRIPTION: Description = Description {
    abi: abi::ABI,
    size: std::mem::size_of::<Description>() as u32,
    name: Text::of("watch"),
    topics: TOPICS.as_ptr(),
    topic_count: TOPICS.len(),
};

/// # Safety
/// Called by the host alone, once, with its own tables.
#[no_mangle]
pub unsafe extern "C" fn capwasm_plugin_describe(
    version: u32,
    tables: *const abi::Host,
) -> *const Description {
    if version != abi::ABI {
        return std::ptr::null();
    }
    host::keep(tables);
    &DESCRIPTION
}

/// # Safety
/// Called by the host alone, with memory that is valid until it returns.
#[no_mangle]
pub unsafe extern "C" fn capwasm_plugin_call(
    topic: *const u8,
    topic_size: usize,
    message: *const u8,
    message_size: usize,
    result: *mut CallResult,
) -> i32 {
    let topic = Text { data: topic, size: topic_size }.to_option().unwrap_or_default();
    let message = Text { data: message, size: message_size }.to_option().unwrap_or_default();
    // A panic may not leave through C.
    let handled = catch_unwind(AssertUnwindSafe(|| match (&*topic, String::from_utf8(message)) {
        (b"check", Ok(path)) => check(&path),
        (b"check", Err(_)) => Err("the path is not UTF-8".into()),
        _ => Err("no such topic".into()),
    }));
    let (status, data) = match handled {
        Ok(Ok(data)) => (abi::CALL_OK, data),
        Ok(Err(text)) => (abi::CALL_ERROR, text.into_bytes()),
        Err(_) => (abi::CALL_ERROR, b"the plugin panicked".to_vec()),
    };
    let data = data.into_boxed_slice();
    (*result).size = data.len();
    (*result).data = Box::into_raw(data).cast();
    status
}

/// # Safety
/// Called by the host alone, once for each result of `capwasm_plugin_call`.
#[no_mangle]
pub unsafe extern "C" fn capwasm_plugin_free(data: *mut std::ffi::c_void, size: usize) {
    drop(Box::from_raw(std::ptr::slice_from_raw_parts_mut(data.cast::<u8>(), size)));
}
