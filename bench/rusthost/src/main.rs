//! The benchmark's floor: the same work, by a host in Rust on the engine that all subjects use.
//!
//! `serve DIR` answers requests on stdin with times on stdout, so that the harness can give this
//! process its turn among the others.  The other commands measure what needs a process of its own.

mod alone;
mod echo;
mod guests;
mod host;
mod jobs;
mod threads;
mod timed;
mod values;

use std::io::{BufRead, BufReader, Read, Write};
use std::path::Path;

use serde_json::{Value, json};
use wasmtime::{Result, error::Context, format_err};

use guests::Guests;
use timed::Job;

fn main() -> Result<()> {
    let words: Vec<String> = std::env::args().skip(1).collect();
    let words: Vec<&str> = words.iter().map(String::as_str).collect();
    match words[..] {
        ["serve", guests] => serve(Path::new(guests)),
        ["start", spec] => alone::start(&serde_json::from_str(spec).context("start")?),
        ["idle", guests, count] => alone::idle(Path::new(guests), count.parse()?),
        ["calls", guests, count] => alone::calls(Path::new(guests), count.parse()?),
        _ => Err(format_err!("serve, start, idle or calls")),
    }
}

/// One line of JSON a request, with `bytes` raw bytes after it; answered in the same form.
fn serve(guests: &Path) -> Result<()> {
    let mut input = BufReader::new(std::io::stdin().lock());
    let mut output = std::io::stdout().lock();
    let guests = Guests::new(guests);
    let mut made: Vec<Box<dyn Job>> = Vec::new();
    loop {
        let mut line = String::new();
        if input.read_line(&mut line)? == 0 {
            return Ok(());
        }
        let request: Value = serde_json::from_str(&line).context("a request")?;
        let mut payload = vec![0; request["bytes"].as_u64().unwrap_or(0) as usize];
        input.read_exact(&mut payload)?;
        let answer = answer(&guests, &mut made, &request, payload);
        let (head, payload) =
            answer.unwrap_or_else(|e| (json!({"error": format!("{e:?}")}), vec![]));
        writeln!(output, "{head}")?;
        output.write_all(&payload)?;
        output.flush()?;
    }
}

fn answer(
    guests: &Guests,
    made: &mut Vec<Box<dyn Job>>,
    request: &Value,
    payload: Vec<u8>,
) -> Result<(Value, Vec<u8>)> {
    if let Some(id) = request["run"].as_u64() {
        let runs = request["runs"].as_u64().unwrap_or(1);
        let sample = made[id as usize].sample(runs)?;
        let head = json!({"wall": sample.wall, "cpu": sample.cpu, "value": sample.value,
                          "bytes": sample.payload.len()});
        return Ok((head, sample.payload));
    }
    made.push(jobs::make(guests, request, payload)?);
    Ok((json!({"job": made.len() - 1}), vec![]))
}
