//! One thing with one capability, by name: see the README two directories up.

use std::io::{Read, Write};
use std::time::{Duration, SystemTime};

use capwasm_guest::fs::{self, Access, File, Kind};
use capwasm_guest::{clock, config, exec, fetch, kv, log, random, secrets, Error};

const NONE: &str = "(none)";

/// What an operation fails with.
enum Failed {
    Capability(Error),
    Told(String),
}

impl From<Error> for Failed {
    fn from(error: Error) -> Self {
        Self::Capability(error)
    }
}

impl From<std::io::Error> for Failed {
    /// Readers and writers carry our error inside of theirs.
    fn from(error: std::io::Error) -> Self {
        match error.get_ref().and_then(|inner| inner.downcast_ref::<Error>()) {
            Some(inner) => Self::Capability(inner.clone()),
            None => Self::Told(error.to_string()),
        }
    }
}

pub fn run(operation: &str, arguments: &[String]) -> Result<String, String> {
    perform(operation, arguments).map_err(|failed| match failed {
        Failed::Capability(error) => error.word().into(),
        Failed::Told(text) => text,
    })
}

fn perform(operation: &str, arguments: &[String]) -> Result<String, Failed> {
    let at = |i: usize| arguments.get(i).map_or("", String::as_str);
    let number = |i: usize| at(i).parse::<u64>().unwrap_or(0);
    let rest = |i: usize| &arguments[i.min(arguments.len())..];
    let (first, second) = (at(0), at(1));
    Ok(match operation {
        "fs.mounts" => lines(fs::mounts().into_iter().map(|mount| {
            let access = match mount.access {
                Access::Read => "read",
                Access::ReadWrite => "read-write",
            };
            let quota = mount.quota_bytes.map_or("-".into(), |bytes| bytes.to_string());
            format!("{} {access} {quota} {}", mount.path, mount.used_bytes)
        })),
        "fs.read" => {
            let mut file = File::open(first)?;
            let (mut all, mut piece) = (Vec::new(), vec![0; 65536]);
            loop {
                match file.read(&mut piece)? {
                    0 => break text(all),
                    n => all.extend(&piece[..n]),
                }
            }
        }
        "fs.write" => done(File::create(first)?.write_all(second.as_bytes())?),
        "fs.append" => done(File::append(first)?.write_all(second.as_bytes())?),
        "fs.create" => done(File::create_new(first)?.write_all(second.as_bytes())?),
        "fs.hold" => {
            let held: Result<Vec<_>, _> = (0..number(1)).map(|_| File::open(first)).collect();
            held?.len().to_string()
        }
        "fs.size" => File::open(first)?.size()?.to_string(),
        "fs.truncate" => done(File::update(first)?.set_size(number(1))?),
        "fs.list" => {
            let entries: Result<Vec<_>, _> = fs::read_dir(first).collect();
            lines(entries?.into_iter().map(|entry| entry.name))
        }
        "fs.stat" => {
            let known = fs::metadata(first)?;
            let kind = match known.kind {
                Kind::File => "file",
                Kind::Directory => "directory",
                Kind::Link => "link",
                Kind::Other => "other",
            };
            format!("{kind} {}", known.size)
        }
        "fs.mkdir" => done(fs::create_dir(first)?),
        "fs.remove" => done(fs::remove(first)?),
        "fs.rename" => done(fs::rename(first, second)?),
        "fetch" => {
            let answer = send(first, second, rest(2))?;
            format!("{} {}", answer.status(), answer.text()?)
        }
        "fetch.header" => send(first, second, &[])?.header(at(2)).unwrap_or(NONE.into()),
        "fetch.stream" => {
            let mut answer = send(first, second, &[])?;
            let (mut total, mut piece) = (0, [0; 1000]);
            loop {
                match answer.read(&mut piece)? {
                    0 => break total.to_string(),
                    n => total += n,
                }
            }
        }
        "secret.get" => secrets::get(first)?.name(),
        "secret.lease" => yes(!secrets::get(first)?.lease().is_zero()),
        "secret.reveal" => text(secrets::get(first)?.reveal()?),
        "kv.get" => kv::get(first)?.map_or(NONE.into(), text),
        "kv.set" if arguments.len() > 2 => {
            done(kv::set_for(first, second, Duration::from_millis(number(2)))?)
        }
        "kv.set" => done(kv::set(first, second)?),
        "kv.cas" => {
            let expected = (second != NONE).then_some(second.as_bytes());
            yes(kv::compare_and_set(first, expected, at(2))?)
        }
        "kv.increment" => kv::increment(first, second.parse().unwrap_or(0))?.to_string(),
        "kv.delete" => yes(kv::delete(first)?),
        "kv.keys" => {
            let keys: Result<Vec<_>, _> = kv::keys(first).collect();
            lines(keys?.into_iter())
        }
        "log" => {
            let level = match first {
                "debug" => log::Level::Debug,
                "warn" => log::Level::Warn,
                "error" => log::Level::Error,
                _ => log::Level::Info,
            };
            done(log::write(level, second, &[("from", &"guest")]))
        }
        "log.flood" => done((0..number(0)).for_each(|_| log::info(&"x".repeat(1000), &[]))),
        "clock.now" => match clock::now().duration_since(SystemTime::UNIX_EPOCH) {
            Ok(since) => since.as_nanos().to_string(),
            Err(error) => return Err(Failed::Told(error.to_string())),
        },
        "clock.monotonic" => {
            let before = clock::monotonic();
            yes(clock::monotonic() >= before)
        }
        "clock.sleep" => done(clock::sleep(Duration::from_nanos(number(0)))),
        "clock.loop" => done((0..number(0)).for_each(|_| {
            clock::now();
        })),
        "random" => random::bytes(number(0) as usize)?.len().to_string(),
        "random.differ" => yes(random::bytes(16)? != random::bytes(16)?),
        "config.get" => config::get(first).unwrap_or(NONE.into()),
        "config.all" => lines(config::all().into_iter().map(|(key, value)| format!("{key}={value}"))),
        "exec" => {
            let out = exec::Command::new(first).args(rest(2)).input(second).run()?;
            let code = out.code.map_or("-".into(), |code| code.to_string());
            format!("{code}\n{}", out.text())
        }
        "std.print" => done(println!("{first}")),
        "alloc" => {
            let held: Vec<_> = (0..number(0)).map(|_| vec![1u8; 1 << 20]).collect();
            std::hint::black_box(held).len().to_string()
        }
        "spin" => loop {
            std::hint::spin_loop();
        },
        "recurse" => recurse(number(0)).to_string(),
        "panic" => panic!("{first}"),
        other => return Err(Failed::Told(format!("no operation {other}"))),
    })
}

fn send(method: &str, url: &str, parts: &[String]) -> Result<fetch::Response, Error> {
    let mut request = fetch::request(method, url);
    for part in parts {
        request = if let Some(name) = part.strip_prefix("secret:") {
            request.secret_named(name)
        } else if let Some(body) = part.strip_prefix("body:") {
            request.body(body)
        } else {
            let (name, value) = part.split_once('=').unwrap_or((part, ""));
            request.header(name, value)
        };
    }
    request.send()
}

/// Calls itself without end, and not as a loop: each call needs its own number afterwards.
#[allow(unconditional_recursion)]
fn recurse(number: u64) -> u64 {
    recurse(number.wrapping_mul(3)).rotate_left(7) ^ number
}

fn done((): ()) -> String {
    String::new()
}

fn yes(holds: bool) -> String {
    if holds { "yes" } else { "no" }.into()
}

fn text(bytes: Vec<u8>) -> String {
    String::from_utf8_lossy(&bytes).into_owned()
}

fn lines(all: impl Iterator<Item = String>) -> String {
    all.collect::<Vec<_>>().join("\n")
}
