//! A guest that tries what it is told: every capability of the ABI, and the same powers through
//! the standard library.  The host's tests decide what it should have been able to do.

use std::io::{Read, Write};

wit_bindgen::generate!({ world: "prober", path: "wit", generate_all });

use capwasm::{
    clock::clock, config::config, exec::commands, fetch::client, fs::files, kv::store as kv, log::log,
    random::random, secrets::reveal, secrets::store as secrets,
};

struct Prober;
export!(Prober);

fn word(error: impl std::fmt::Debug) -> String {
    // `ErrorCode::NotFound` prints as `Error::NotFound` or `NotFound`; keep the last word.
    let text = format!("{error:?}");
    let name = text.rsplit("::").next().unwrap_or("").to_string();
    let mut out = String::new();
    for (at, c) in name.chars().enumerate() {
        if c.is_uppercase() && at > 0 {
            out.push('-');
        }
        out.extend(c.to_lowercase());
    }
    out
}

fn text(bytes: Vec<u8>) -> String {
    String::from_utf8_lossy(&bytes).into_owned()
}

fn io(error: std::io::Error) -> String {
    format!("{:?}", error.kind())
}

impl exports::test::prober::probe::Guest for Prober {
    fn run(operation: String, arguments: Vec<String>) -> Result<String, String> {
        let arg = |i: usize| arguments.get(i).cloned().unwrap_or_default();
        let num = |i: usize| arg(i).parse::<u64>().unwrap_or(0);
        match operation.as_str() {
            "fs.mounts" => Ok(files::mounts()
                .into_iter()
                .map(|m| format!("{} {:?} {:?} {}", m.path, m.access, m.quota_bytes, m.used_bytes))
                .collect::<Vec<_>>()
                .join("\n")),
            "fs.read" => {
                let file = files::open(&arg(0), files::Mode::Read).map_err(|e| word(e.name()))?;
                let mut out = Vec::new();
                loop {
                    let part = file.read(out.len() as u64, 65536).map_err(|e| word(e.name()))?;
                    if part.is_empty() {
                        return Ok(text(out));
                    }
                    out.extend(part);
                }
            }
            "fs.read-at" => {
                let file = files::open(&arg(0), files::Mode::Read).map_err(|e| word(e.name()))?;
                file.read(num(1), num(2) as u32).map(text).map_err(|e| word(e.name()))
            }
            "fs.write" | "fs.append" | "fs.update" | "fs.create" => {
                let mode = match operation.as_str() {
                    "fs.write" => files::Mode::Write,
                    "fs.append" => files::Mode::Append,
                    "fs.update" => files::Mode::Update,
                    _ => files::Mode::Create,
                };
                let file = files::open(&arg(0), mode).map_err(|e| word(e.name()))?;
                file.write(0, arg(1).as_bytes()).map_err(|e| word(e.name()))?;
                Ok(String::new())
            }
            "fs.size" => files::open(&arg(0), files::Mode::Read)
                .and_then(|file| file.size())
                .map(|size| size.to_string())
                .map_err(|e| word(e.name())),
            "fs.set-size" => files::open(&arg(0), files::Mode::Update)
                .and_then(|file| file.set_size(num(1)))
                .map(|_| String::new())
                .map_err(|e| word(e.name())),
            "fs.sync" => files::open(&arg(0), files::Mode::Read)
                .and_then(|file| file.sync())
                .map(|_| String::new())
                .map_err(|e| word(e.name())),
            "fs.open" => files::open(&arg(0), files::Mode::Read)
                .map(|_| String::new())
                .map_err(|e| word(e.name())),
            "fs.hold" => {
                // Opens the file n times and keeps every handle.
                let mut held = Vec::new();
                for _ in 0..num(1) {
                    held.push(
                        files::open(&arg(0), files::Mode::Read).map_err(|e| word(e.name()))?,
                    );
                }
                Ok(held.len().to_string())
            }
            "fs.read-sleep-read" => {
                // Reads, waits, reads again with the same handle: for revocation in between.
                let file = files::open(&arg(0), files::Mode::Read).map_err(|e| word(e.name()))?;
                file.read(0, 10).map_err(|e| word(e.name()))?;
                for _ in 0..num(1) {
                    clock::sleep(10_000_000);
                    file.read(0, 10).map_err(|e| word(e.name()))?;
                }
                Ok("read to the end".into())
            }
            "fs.list" => files::list(&arg(0), arguments.get(1).map(String::as_str))
                .map(|l| l.into_iter().map(|i| i.name).collect::<Vec<_>>().join("\n"))
                .map_err(|e| word(e.name())),
            "fs.stat" => files::stat(&arg(0))
                .map(|i| format!("{:?} {}", i.kind, i.size))
                .map_err(|e| word(e.name())),
            "fs.mkdir" => files::make_directory(&arg(0))
                .map(|_| String::new())
                .map_err(|e| word(e.name())),
            "fs.remove" => files::remove(&arg(0)).map(|_| String::new()).map_err(|e| word(e.name())),
            "fs.rename" => files::rename(&arg(0), &arg(1))
                .map(|_| String::new())
                .map_err(|e| word(e.name())),
            "fetch" => fetch(&arg(0), &arg(1), &arguments[2.min(arguments.len())..]),
            "fetch.loop" => {
                let mut last = String::new();
                for _ in 0..num(0) {
                    last = fetch(&arg(1), &arg(2), &[])?;
                }
                Ok(last)
            }
            "fetch.stream" => {
                let response = send(&arg(0), &arg(1), &arguments[2.min(arguments.len())..])?;
                let mut out = Vec::new();
                loop {
                    let part = response.read(1000).map_err(|e| word(e.name()))?;
                    if part.is_empty() {
                        return Ok(text(out));
                    }
                    out.extend(part);
                }
            }
            "fetch.headers" => {
                let response = send(&arg(0), &arg(1), &arguments[2.min(arguments.len())..])?;
                let headers = response.headers().into_iter();
                Ok(std::iter::once(response.url())
                    .chain(headers.map(|h| format!("{}={}", h.name, h.value)))
                    .collect::<Vec<_>>()
                    .join("\n"))
            }
            "secret.get" => secrets::get(&arg(0))
                .map(|s| format!("{} {}", s.name(), s.lease_ms()))
                .map_err(|e| word(e.name())),
            "secret.reveal" => {
                let secret = secrets::get(&arg(0)).map_err(|e| word(e.name()))?;
                reveal::reveal(&secret).map(text).map_err(|e| word(e.name()))
            }
            "kv.get" => kv::get(&arg(0))
                .map(|v| v.map(text).unwrap_or("(none)".into()))
                .map_err(|e| word(e.name())),
            "kv.set" => kv::set(&arg(0), arg(1).as_bytes(), arguments.get(2).map(|_| num(2)))
                .map(|_| String::new())
                .map_err(|e| word(e.name())),
            "kv.increment" => kv::increment(&arg(0), num(1) as i64)
                .map(|n| n.to_string())
                .map_err(|e| word(e.name())),
            "kv.compare-and-set" => {
                let expected = arguments.get(2).map(|e| e.as_bytes());
                kv::compare_and_set(&arg(0), expected, arg(1).as_bytes())
                    .map(|stored| stored.to_string())
                    .map_err(|e| word(e.name()))
            }
            "kv.delete" => {
                kv::delete(&arg(0)).map(|there| there.to_string()).map_err(|e| word(e.name()))
            }
            "kv.keys" => kv::keys(&arg(0), arguments.get(1).map(String::as_str)).map(|k| k.join("\n")).map_err(|e| word(e.name())),
            "log" => {
                let level = match arg(0).as_str() {
                    "debug" => log::Level::Debug,
                    "warn" => log::Level::Warn,
                    "error" => log::Level::Error,
                    _ => log::Level::Info,
                };
                log::write(level, &arg(1), &[log::Field { key: "from".into(), value: "guest".into() }]);
                Ok(String::new())
            }
            "log.flood" => {
                for _ in 0..num(0) {
                    log::write(log::Level::Info, &"x".repeat(1000), &[]);
                }
                Ok(String::new())
            }
            "clock.now" => Ok(clock::now().to_string()),
            "clock.monotonic" => Ok(clock::monotonic().to_string()),
            "clock.sleep" => {
                clock::sleep(num(0));
                Ok(String::new())
            }
            "clock.loop" => {
                for _ in 0..num(0) {
                    clock::monotonic();
                }
                Ok(String::new())
            }
            "random" => random::bytes(num(0) as u32)
                .map(|b| b.len().to_string())
                .map_err(|e| word(e.name())),
            "random.next" => Ok(random::next_u64().to_string()),
            "config.all" => Ok(config::all()
                .into_iter()
                .map(|(key, value)| format!("{key}={value}"))
                .collect::<Vec<_>>()
                .join("\n")),
            "config" => Ok(config::get(&arg(0)).unwrap_or("(none)".into())),
            "exec" => {
                // exec COMMAND INPUT ARGUMENT…: exit code, what was cut off, both outputs.
                let words = &arguments[2.min(arguments.len())..];
                commands::run(&arg(0), words, arg(1).as_bytes())
                    .map(|o| {
                        let code = o.code.map(|c| c.to_string()).unwrap_or("-".into());
                        let cut = (o.stdout_truncated, o.stderr_truncated);
                        format!("{code} {cut:?}\n{}\n{}", text(o.stdout), text(o.stderr))
                    })
                    .map_err(|e| word(e.name()))
            }
            "exec.loop" => {
                for _ in 0..num(0) {
                    commands::run(&arg(1), &[], &[]).map_err(|e| word(e.name()))?;
                }
                Ok(String::new())
            }
            "exec.flood" => commands::run(&arg(1), &[], &vec![b'x'; num(0) as usize])
                .map(|o| format!("{} {}", o.stdout.len(), o.stdout_truncated))
                .map_err(|e| word(e.name())),
            "alloc" => {
                let mut held: Vec<Vec<u8>> = Vec::new();
                for _ in 0..num(0) {
                    held.push(vec![1u8; 1 << 20]);
                }
                Ok(held.len().to_string())
            }
            "panic" => panic!("{}", arg(0)),
            "std.read" => std::fs::read_to_string(arg(0)).map_err(io),
            "std.write" => std::fs::write(arg(0), arg(1)).map(|_| String::new()).map_err(io),
            "std.append" => std::fs::OpenOptions::new()
                .append(true)
                .create(true)
                .open(arg(0))
                .and_then(|mut f| f.write_all(arg(1).as_bytes()))
                .map(|_| String::new())
                .map_err(io),
            "std.list" => {
                let mut names = Vec::new();
                for entry in std::fs::read_dir(arg(0)).map_err(io)? {
                    names.push(entry.map_err(io)?.file_name().to_string_lossy().into_owned());
                }
                names.sort();
                Ok(names.join("\n"))
            }
            "std.mkdir" => std::fs::create_dir(arg(0)).map(|_| String::new()).map_err(io),
            "std.remove" => std::fs::remove_file(arg(0)).map(|_| String::new()).map_err(io),
            "std.rmdir" => std::fs::remove_dir(arg(0)).map(|_| String::new()).map_err(io),
            "std.rename" => std::fs::rename(arg(0), arg(1)).map(|_| String::new()).map_err(io),
            "std.hard-link" => std::fs::hard_link(arg(0), arg(1)).map(|_| String::new()).map_err(io),
            "std.len" => std::fs::metadata(arg(0)).map(|m| m.len().to_string()).map_err(io),
            "std.set-len" => std::fs::OpenOptions::new()
                .write(true)
                .open(arg(0))
                .and_then(|f| f.set_len(num(1)))
                .map(|_| String::new())
                .map_err(io),
            "std.truncate" => std::fs::OpenOptions::new()
                .write(true)
                .truncate(true)
                .open(arg(0))
                .map(|_| String::new())
                .map_err(io),
            "std.env" => Ok(std::env::vars().map(|(k, v)| format!("{k}={v}")).collect::<Vec<_>>().join("\n")),
            "std.args" => Ok(std::env::args().collect::<Vec<_>>().join("\n")),
            "std.print" => {
                println!("{}", arg(0));
                eprintln!("{}", arg(1));
                Ok(String::new())
            }
            "std.print-flood" => {
                let line = "y".repeat(1000);
                for _ in 0..num(0) {
                    println!("{line}");
                }
                Ok(String::new())
            }
            "std.stdin" => {
                let mut got = String::new();
                std::io::stdin().read_to_string(&mut got).map_err(io)?;
                Ok(got)
            }
            "std.time" => Ok(std::time::SystemTime::now()
                .duration_since(std::time::UNIX_EPOCH)
                .map(|d| d.as_secs().to_string())
                .unwrap_or_default()),
            "std.sleep" => {
                std::thread::sleep(std::time::Duration::from_millis(num(0)));
                Ok(String::new())
            }
            "std.exit" => std::process::exit(num(0) as i32),
            other => Err(format!("no operation {other}")),
        }
    }
}

fn fetch(method: &str, url: &str, names: &[String]) -> Result<String, String> {
    let response = send(method, url, names)?;
    let body = response.read_all(1 << 20).map_err(|e| word(e.name()))?;
    Ok(format!("{} {}", response.status(), text(body)))
}

fn send(method: &str, url: &str, names: &[String]) -> Result<client::Response, String> {
    let mut held = Vec::new();
    let mut headers = Vec::new();
    let mut body = None;
    for name in names {
        if let Some(secret) = name.strip_prefix("secret:") {
            held.push(secrets::get(secret).map_err(|e| word(e.name()))?);
        } else if let Some((key, value)) = name.split_once('=') {
            headers.push(client::Header { name: key.into(), value: value.into() });
        } else if let Some(bytes) = name.strip_prefix("body:") {
            body = Some(bytes.as_bytes().to_vec());
        }
    }
    let request = client::Request {
        method: method.into(),
        url: url.into(),
        headers,
        body,
        timeout_ms: None,
        redirects: client::Redirects::Follow,
    };
    let borrowed: Vec<&secrets::Secret> = held.iter().collect();
    client::send(&request, &borrowed).map_err(|e| word(e.name()))
}
