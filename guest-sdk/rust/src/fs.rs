//! Files beneath the granted directories: `[[fs]]` in plugin.toml.
//!
//! `std::fs` reaches the same files.  This module says which directories there are and how full, and
//! why not, as a word.
//!
//! ```no_run
//! use capwasm_guest::fs::{self, File};
//! use std::io::{Read, Write};
//!
//! let mut report = File::create("/data/report.txt")?;
//! report.write_all(b"done\n")?;
//! let mut text = String::new();
//! File::open("/data/report.txt")?.read_to_string(&mut text)?;
//! for entry in fs::read_dir("/data") {
//!     println!("{}", entry?.name);
//! }
//! # Ok::<(), Box<dyn std::error::Error>>(())
//! ```

use std::io::{self, SeekFrom};
use std::time::{Duration, SystemTime};

use crate::bindings::capwasm::fs::files;
use crate::error::{Result, Trying};

pub use files::{Access, Kind, Mode, Mount};

const PIECE: usize = 1024 * 1024;

/// An open file.  Dropping it closes it.
///
/// It is not buffered: each read and each write is a call of the host.  For many small ones take
/// [`std::io::BufReader`] or [`std::io::BufWriter`].
#[derive(Debug)]
pub struct File {
    handle: files::File,
    path: String,
    at: u64,
}

impl File {
    /// Opens a file; its path is absolute within the plugin.
    ///
    /// # Errors
    /// `Denied`: outside the mounts, or more than the mount allows.  `NotFound`, `Exists`,
    /// `IsDirectory`, `NotDirectory`, `Invalid`, `Quota`, `Closed`, `Unavailable`.  So does every
    /// function here.
    pub fn open_as(path: &str, mode: Mode) -> Result<Self> {
        let handle = files::open(path, mode).trying(|| format!("fs.open {path}"))?;
        Ok(Self { handle, path: path.into(), at: 0 })
    }

    /// Opens a file that is there, to read.
    ///
    /// # Errors
    /// As [`open_as`](Self::open_as).
    pub fn open(path: &str) -> Result<Self> {
        Self::open_as(path, Mode::Read)
    }

    /// Opens a file to write; made if it isn't there, emptied if it is.
    ///
    /// # Errors
    /// As [`open_as`](Self::open_as).
    pub fn create(path: &str) -> Result<Self> {
        Self::open_as(path, Mode::Write)
    }

    /// Opens a file to write, which must not be there.
    ///
    /// # Errors
    /// `Exists`: it is.  As [`open_as`](Self::open_as).
    pub fn create_new(path: &str) -> Result<Self> {
        Self::open_as(path, Mode::Create)
    }

    /// Opens a file to write at its end; made if it isn't there.
    ///
    /// # Errors
    /// As [`open_as`](Self::open_as).
    pub fn append(path: &str) -> Result<Self> {
        Self::open_as(path, Mode::Append)
    }

    /// Opens a file that is there, to read and to write.
    ///
    /// # Errors
    /// As [`open_as`](Self::open_as).
    pub fn update(path: &str) -> Result<Self> {
        Self::open_as(path, Mode::Update)
    }

    /// Up to `length` bytes (at most 1 MiB) at `offset`; none at the end.
    ///
    /// # Errors
    /// `Closed`: the grant was revoked.  `Unavailable`: the device failed.
    pub fn read_at(&self, offset: u64, length: usize) -> Result<Vec<u8>> {
        self.handle
            .read(offset, length.min(PIECE) as u32)
            .trying(|| format!("fs.read {}", self.path))
    }

    /// Writes all the bytes at `offset`, 1 MiB after the other.
    ///
    /// # Errors
    /// `Quota`: they don't fit; the pieces before are written.  As [`read_at`](Self::read_at).
    pub fn write_at(&self, mut offset: u64, bytes: &[u8]) -> Result<()> {
        for piece in bytes.chunks(PIECE) {
            self.handle.write(offset, piece).trying(|| format!("fs.write {}", self.path))?;
            offset += piece.len() as u64;
        }
        Ok(())
    }

    /// Its size in bytes.
    ///
    /// # Errors
    /// As [`read_at`](Self::read_at).
    pub fn size(&self) -> Result<u64> {
        self.handle.size().trying(|| format!("fs.size {}", self.path))
    }

    /// Cuts or extends it.
    ///
    /// # Errors
    /// As [`write_at`](Self::write_at).
    pub fn set_size(&self, size: u64) -> Result<()> {
        self.handle.set_size(size).trying(|| format!("fs.set-size {}", self.path))
    }

    /// Returns once the bytes are on the device.
    ///
    /// # Errors
    /// As [`read_at`](Self::read_at).
    pub fn sync(&self) -> Result<()> {
        self.handle.sync().trying(|| format!("fs.sync {}", self.path))
    }
}

impl io::Read for File {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        if buffer.is_empty() {
            return Ok(0);
        }
        let piece = self.read_at(self.at, buffer.len())?;
        buffer[..piece.len()].copy_from_slice(&piece);
        self.at += piece.len() as u64;
        Ok(piece.len())
    }
}

impl io::Write for File {
    fn write(&mut self, buffer: &[u8]) -> io::Result<usize> {
        let piece = &buffer[..buffer.len().min(PIECE)];
        self.write_at(self.at, piece)?;
        self.at += piece.len() as u64;
        Ok(piece.len())
    }

    /// Does nothing: every write is with the host when it returns.
    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

impl io::Seek for File {
    fn seek(&mut self, to: SeekFrom) -> io::Result<u64> {
        let (base, by) = match to {
            SeekFrom::Start(at) => (at, 0),
            SeekFrom::Current(by) => (self.at, by),
            SeekFrom::End(by) => (self.size()?, by),
        };
        self.at = base
            .checked_add_signed(by)
            .ok_or_else(|| io::Error::new(io::ErrorKind::InvalidInput, "before the start"))?;
        Ok(self.at)
    }
}

/// What is known of a file or directory.
#[derive(Debug, Clone)]
#[non_exhaustive]
pub struct Metadata {
    /// The name within its directory.
    pub name: String,
    /// What it is.
    pub kind: Kind,
    /// Size in bytes; 0 for all but regular files.
    pub size: u64,
    /// When it was last changed.
    pub modified: SystemTime,
}

impl From<files::Info> for Metadata {
    fn from(info: files::Info) -> Self {
        let modified = SystemTime::UNIX_EPOCH + Duration::from_nanos(info.modified_ns);
        Self { name: info.name, kind: info.kind, size: info.size, modified }
    }
}

/// The granted directories, in the order of the manifest.
pub fn mounts() -> Vec<Mount> {
    files::mounts()
}

/// The whole of a file.
///
/// # Errors
/// As [`File::open_as`] and [`File::read_at`].
pub fn read(path: &str) -> Result<Vec<u8>> {
    let file = File::open(path)?;
    let mut all = Vec::new();
    loop {
        let piece = file.read_at(all.len() as u64, PIECE)?;
        if piece.is_empty() {
            return Ok(all);
        }
        all.extend(piece);
    }
}

/// The whole of a file as text, with � for what is no UTF-8.
///
/// # Errors
/// As [`read`].
pub fn read_to_string(path: &str) -> Result<String> {
    Ok(String::from_utf8_lossy(&read(path)?).into_owned())
}

/// Makes or empties the file, and writes all the bytes.
///
/// # Errors
/// As [`File::open_as`] and [`File::write_at`].
pub fn write(path: &str, bytes: impl AsRef<[u8]>) -> Result<()> {
    File::create(path)?.write_at(0, bytes.as_ref())
}

/// What is known of `path`; a last symbolic link is not followed.
///
/// # Errors
/// As [`File::open_as`].
pub fn metadata(path: &str) -> Result<Metadata> {
    files::stat(path).map(Into::into).trying(|| format!("fs.stat {path}"))
}

/// Makes a directory, in one that is there.
///
/// # Errors
/// As [`File::open_as`].
pub fn create_dir(path: &str) -> Result<()> {
    files::make_directory(path).trying(|| format!("fs.make-directory {path}"))
}

/// Removes a file, a link or an empty directory.
///
/// # Errors
/// `NotEmpty`.  As [`File::open_as`].
pub fn remove(path: &str) -> Result<()> {
    files::remove(path).trying(|| format!("fs.remove {path}"))
}

/// Renames within one mount, replacing a file that is there.
///
/// # Errors
/// As [`File::open_as`].
pub fn rename(from: &str, to: &str) -> Result<()> {
    files::rename(from, to).trying(|| format!("fs.rename {from}"))
}

/// The entries of a directory, sorted by name.  They are asked for a page at a time, as they are
/// needed; after an error there are no more.
pub fn read_dir(path: &str) -> ReadDir {
    ReadDir { path: path.into(), after: None, page: Vec::new().into_iter(), ended: false }
}

/// See [`read_dir`].
#[derive(Debug)]
pub struct ReadDir {
    path: String,
    after: Option<String>,
    page: std::vec::IntoIter<files::Info>,
    ended: bool,
}

impl Iterator for ReadDir {
    type Item = Result<Metadata>;

    fn next(&mut self) -> Option<Self::Item> {
        if self.page.len() == 0 && !self.ended {
            let asked = files::list(&self.path, self.after.as_deref());
            match asked.trying(|| format!("fs.list {}", self.path)) {
                Ok(page) => {
                    self.ended = page.is_empty();
                    self.after = page.last().map(|info| info.name.clone());
                    self.page = page.into_iter();
                }
                Err(error) => {
                    self.ended = true;
                    return Some(Err(error));
                }
            }
        }
        self.page.next().map(|info| Ok(info.into()))
    }
}
