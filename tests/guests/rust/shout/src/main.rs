//! A filter as anybody writes one: the standard library, and nothing of capwasm.
//!
//!     shout [--status N] [--var NAME] [FILE]...
//!
//! Copies the files, or standard input, in capitals; ends with that status.

use std::env;
use std::fs;
use std::io::{self, Read, Write};
use std::process::ExitCode;

fn main() -> ExitCode {
    match shout() {
        Ok(status) => ExitCode::from(status),
        Err(error) => {
            eprintln!("shout: {error}");
            ExitCode::from(66)
        }
    }
}

fn shout() -> io::Result<u8> {
    let (mut status, mut files) = (0, Vec::new());
    let mut words = env::args().skip(1);
    let mut out = io::stdout();
    while let Some(word) = words.next() {
        match word.as_str() {
            "--status" => status = words.next().and_then(|n| n.parse().ok()).unwrap_or(64),
            "--var" => {
                let name = words.next().unwrap_or_default();
                writeln!(out, "{name}={:?}", env::var(&name).ok())?;
            }
            _ => files.push(word),
        }
    }
    if files.is_empty() {
        copy(&mut io::stdin(), &mut out)?;
    }
    for file in files {
        copy(&mut fs::File::open(file)?, &mut out)?;
    }
    out.flush()?;
    Ok(status)
}

fn copy(from: &mut dyn Read, to: &mut dyn Write) -> io::Result<()> {
    let mut chunk = [0; 16384];
    loop {
        let size = from.read(&mut chunk)?;
        if size == 0 {
            return Ok(());
        }
        chunk[..size].make_ascii_uppercase();
        to.write_all(&chunk[..size])?;
    }
}
