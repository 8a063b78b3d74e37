//! A FIFO that a daemon captures from: no packet is lost on the way, at any speed.

use std::fs::{File, OpenOptions};
use std::io::{ErrorKind, Write};
use std::os::fd::AsFd;
use std::os::unix::fs::OpenOptionsExt;
use std::path::{Path, PathBuf};

use nix::poll::{PollFd, PollFlags, PollTimeout, poll};
use nix::sys::stat::Mode;
use nix::unistd::mkfifo;
use tempfile::TempDir;

use crate::savefile::{self, Format};
use crate::traffic::Emit;
use crate::wait::wait_for;

/// A FIFO for `stream:PATH`, removed on drop.
#[derive(Debug)]
pub struct Fifo {
    path: PathBuf,
    _folder: TempDir,
}

impl Fifo {
    /// Makes a FIFO.
    #[must_use]
    pub fn new() -> Self {
        let folder = tempfile::tempdir().expect("a folder for the test can be made");
        let path = folder.path().join("packets");
        mkfifo(&path, Mode::from_bits_truncate(0o600)).expect("a FIFO can be made");
        Self { path, _folder: folder }
    }

    /// Its path.
    #[must_use]
    pub fn path(&self) -> &Path {
        &self.path
    }

    /// The source, to write after `ALIAS=`.
    #[must_use]
    pub fn source(&self) -> String {
        format!("stream:{}", self.path.display())
    }

    /// Opens the writing end and writes a nanosecond Ethernet header; waits until the daemon has
    /// opened the reading end.
    #[must_use]
    pub fn connect(&self) -> Feed {
        self.connect_as(Format::default())
    }

    /// Like [`Fifo::connect`], in another format of savefile.
    #[must_use]
    pub fn connect_as(&self, format: Format) -> Feed {
        let pipe = wait_for("someone reads the FIFO", 10, || {
            OpenOptions::new().write(true).custom_flags(libc::O_NONBLOCK).open(&self.path).ok()
        });
        let mut feed = Feed { pipe, format, payload_length: 200, sent: 0 };
        feed.write(&format.header());
        feed
    }
}

impl Default for Fifo {
    fn default() -> Self {
        Self::new()
    }
}

/// The writing end of a [`Fifo`]: packets numbered from 1.
#[derive(Debug)]
pub struct Feed {
    pipe: File,
    format: Format,
    payload_length: usize,
    sent: u64,
}

impl Feed {
    /// Sets the payload length of the packets that [`Traffic`](crate::Traffic) sends; the default
    /// is 200.
    #[must_use]
    pub fn with_payload(mut self, length: usize) -> Self {
        self.payload_length = length;
        self
    }

    /// Continues numbering after packet `sent`, as a writer does that has come back.
    #[must_use]
    pub fn after(mut self, sent: u64) -> Self {
        self.sent = sent;
        self
    }

    /// Sends the next `count` packets with payloads of `payload_length` bytes.
    pub fn send(&mut self, count: u64, payload_length: usize) {
        self.payload_length = payload_length;
        let mut left = count;
        while left > 0 {
            let batch = left.min(256);
            let mut bytes = Vec::new();
            for _ in 0..batch {
                self.sent += 1;
                savefile::append_numbered(&mut bytes, self.format, self.sent, payload_length);
            }
            self.write(&bytes);
            left -= batch;
        }
    }

    /// Writes bytes as they are, such as half a record.
    ///
    /// # Panics
    /// If the daemon has closed its end, or has read nothing for 20 s.
    pub fn write(&mut self, mut bytes: &[u8]) {
        while !bytes.is_empty() {
            match self.pipe.write(bytes) {
                Ok(length) => bytes = &bytes[length..],
                Err(error) if error.kind() == ErrorKind::WouldBlock => {
                    let mut ready = [PollFd::new(self.pipe.as_fd(), PollFlags::POLLOUT)];
                    let limit = PollTimeout::try_from(20_000).expect("20 s");
                    let count = poll(&mut ready, limit).expect("a pipe can be polled");
                    assert!(count > 0, "the daemon has read nothing from the FIFO for 20 s");
                }
                Err(error) => panic!("the FIFO: {error}"),
            }
        }
    }
}

impl Emit for Feed {
    fn emit(&mut self, count: u64) {
        self.send(count, self.payload_length);
    }

    fn emitted(&self) -> u64 {
        self.sent
    }
}
