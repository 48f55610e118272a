//! Commands that the operator named: `[[exec]]` in plugin.toml.  A high risk: a person decides.
//!
//! What a command is, the operator's policy says: the program, its fixed words, and what may stand in
//! their open places.  The arguments fill those, in order.
//!
//! ```no_run
//! use capwasm_guest::exec::Command;
//!
//! let photo = b"...";
//! let small = Command::new("thumbnail").arg("100x100").input(photo).run()?.check()?.stdout;
//! # Ok::<(), capwasm_guest::Error>(())
//! ```

use crate::bindings::capwasm::exec::commands;
use crate::error::{Error, ErrorKind, Result, Trying};

/// A command to be run.
#[derive(Debug, Clone)]
#[must_use = "a command does nothing until run()"]
pub struct Command {
    name: String,
    arguments: Vec<String>,
    input: Vec<u8>,
}

impl Command {
    /// The command of that name, as in plugin.toml.
    pub fn new(name: impl Into<String>) -> Self {
        Self { name: name.into(), arguments: Vec::new(), input: Vec::new() }
    }

    /// What stands in the next open place.
    pub fn arg(mut self, argument: impl Into<String>) -> Self {
        self.arguments.push(argument.into());
        self
    }

    /// What stands in the next open places.
    pub fn args<S: Into<String>>(mut self, arguments: impl IntoIterator<Item = S>) -> Self {
        self.arguments.extend(arguments.into_iter().map(Into::into));
        self
    }

    /// Its standard input.
    pub fn input(mut self, bytes: impl Into<Vec<u8>>) -> Self {
        self.input = bytes.into();
        self
    }

    /// Runs it to its end.
    ///
    /// # Errors
    /// `Denied`: the command or these arguments were not granted, or it ran too often in this call.
    /// `Invalid`: an argument holds a control character.  `TooLarge`, `Timeout`, `Closed`,
    /// `Unavailable`.
    pub fn run(&self) -> Result<Output> {
        let out = commands::run(&self.name, &self.arguments, &self.input)
            .trying(|| format!("exec.run {}", self.name))?;
        Ok(Output {
            command: self.name.clone(),
            code: out.code,
            stdout: out.stdout,
            stderr: out.stderr,
            truncated: out.stdout_truncated || out.stderr_truncated,
        })
    }
}

/// What a command left.
#[derive(Debug, Clone)]
#[non_exhaustive]
pub struct Output {
    /// Its name.
    pub command: String,
    /// Its exit code; none if a signal ended it: a crash, or one of its limits.
    pub code: Option<i32>,
    /// What it wrote to its standard output, as far as that was granted.
    pub stdout: Vec<u8>,
    /// What it wrote to its standard error, as far as that was granted.
    pub stderr: Vec<u8>,
    /// Whether it would have written more.
    pub truncated: bool,
}

impl Output {
    /// Whether it ended with 0, and all that it wrote is here.
    pub fn ok(&self) -> bool {
        self.code == Some(0) && !self.truncated
    }

    /// Itself, if all went well.
    ///
    /// # Errors
    /// `Unavailable`: another exit code, a signal, or more output than granted.
    pub fn check(self) -> Result<Self> {
        if self.ok() {
            return Ok(self);
        }
        let what = match self.code {
            _ if self.truncated => "wrote more than it may".to_string(),
            None => "was ended by a signal".to_string(),
            Some(code) => format!("ended with {code}"),
        };
        Err(Error::new(ErrorKind::Unavailable, format!("exec.run {}: it {what}", self.command)))
    }

    /// Its standard output as text, with � for what is no UTF-8.
    pub fn text(&self) -> String {
        String::from_utf8_lossy(&self.stdout).into_owned()
    }
}
