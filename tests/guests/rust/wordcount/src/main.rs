//! A command line program as anybody writes one: the standard library, and nothing of capwasm.
//! Counts the lines, words and bytes of every file below /data, and leaves a report there.

use std::fs;
use std::io::{self, Write};
use std::time::Instant;

fn main() -> io::Result<()> {
    let started = Instant::now();
    let mut paths: Vec<_> = fs::read_dir("/data")?
        .map(|entry| entry.map(|e| e.path()))
        .collect::<io::Result<_>>()?;
    paths.sort();
    let mut report = Vec::new();
    for path in paths.iter().filter(|p| p.is_file()) {
        let text = fs::read_to_string(path)?;
        let (lines, words) = (text.lines().count(), text.split_whitespace().count());
        writeln!(report, "{lines} {words} {} {}", text.len(), path.display())?;
    }
    io::stdout().write_all(&report)?;
    eprintln!("took {} us", started.elapsed().as_micros());
    fs::write("/data/report.txt", report)
}
