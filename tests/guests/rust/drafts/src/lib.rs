//! A library that uses the drafts of `wasi:keyvalue`, `wasi:config` and `wasi:logging`, and nothing of
//! capwasm.

wit_bindgen::generate!({ world: "drafts", path: "wit", generate_all });

use exports::others::drafts::trial::Guest;
use wasi::logging::logging::{log, Level};

struct Drafts;
export!(Drafts);

macro_rules! deeds {
    ($name:ident, $store:path, $atomics:path, $batch:path, $after:path, $more:expr) => {
        fn $name(deed: &str, words: &[String]) -> String {
            use $atomics as atomics;
            use $batch as batch;
            use $store as store;
            let word = |n: usize| words.get(n).cloned().unwrap_or_default();
            let bucket = match store::open(if deed == "open" { &words[0] } else { "default" }) {
                Ok(bucket) => bucket,
                Err(error) => return format!("{error:?}"),
            };
            match deed {
                "open" => "opened".into(),
                "get" => format!("{:?}", bucket.get(&word(0))),
                "set" => format!("{:?}", bucket.set(&word(0), word(1).as_bytes())),
                "delete" => format!("{:?}", bucket.delete(&word(0))),
                "exists" => format!("{:?}", bucket.exists(&word(0))),
                "count" => {
                    let (mut count, mut last) = (0, None);
                    loop {
                        let page = match bucket.list_keys($after(&last)) {
                            Ok(page) => page,
                            Err(error) => return format!("{error:?}"),
                        };
                        count += page.keys.len();
                        if page.cursor.is_none() {
                            return count.to_string();
                        }
                        last = page.cursor;
                    }
                }
                "increment" => {
                    format!("{:?}", atomics::increment(&bucket, &word(0), word(1).parse().unwrap()))
                }
                "get-many" => format!("{:?}", batch::get_many(&bucket, words)),
                "set-many" => {
                    let pairs: Vec<_> = words.iter().map(|w| (w.clone(), w.clone().into_bytes())).collect();
                    format!("{:?}", batch::set_many(&bucket, &pairs))
                }
                "delete-many" => format!("{:?}", batch::delete_many(&bucket, words)),
                _ => $more(&bucket, deed, words),
            }
        }
    };
}

use wasi::keyvalue0_2_0_draft as first;
use wasi::keyvalue0_2_0_draft2 as second;

deeds!(old, first::store, first::atomics, first::batch, number, |_: &first::store::Bucket, _: &str, _: &[String]| {
    "no such deed".into()
});
deeds!(new, second::store, second::atomics, second::batch, text, swap);

fn number(cursor: &Option<u64>) -> Option<u64> {
    *cursor
}

fn text(cursor: &Option<String>) -> Option<&str> {
    cursor.as_deref()
}

/// Look at a key, let another write to it if there are two words more, and replace what was seen.
fn swap(bucket: &second::store::Bucket, _deed: &str, words: &[String]) -> String {
    use second::atomics::{swap, Cas, CasError};
    let (cas, seen) = match Cas::new_with_read(bucket, &words[0]) {
        Ok(found) => found,
        Err(error) => return format!("{error:?}"),
    };
    if let Some(between) = words.get(2) {
        let _ = bucket.set(&words[0], between.as_bytes());
    }
    match swap(cas, words[1].as_bytes()) {
        Ok(()) => format!("swapped {seen:?}"),
        Err(CasError::StoreError(error)) => format!("{error:?}"),
        Err(CasError::CasFailed((again, now))) => {
            format!("failed, {now:?}, then {:?}", swap(again, words[1].as_bytes()).is_ok())
        }
    }
}

impl Guest for Drafts {
    fn old(deed: String, words: Vec<String>) -> String {
        old(&deed, &words)
    }

    fn new(deed: String, words: Vec<String>) -> String {
        new(&deed, &words)
    }

    fn setting(key: String) -> String {
        format!("{:?}", wasi::config::store::get(&key))
    }

    fn settings() -> String {
        format!("{:?}", wasi::config::store::get_all())
    }

    fn say(level: String, context: String, message: String) {
        let level = match level.as_str() {
            "trace" => Level::Trace,
            "critical" => Level::Critical,
            _ => Level::Warn,
        };
        log(level, &context, &message);
    }
}
