//! The lines of a log of a capture, such as `flows.jsonl`, one block after the other.
//!
//! The daemon numbers lines from 1: it reports the number of lines that have left the log, and the
//! first line of the file has the next number. So the number of a line is the same for every reader,
//! also after this process was started again, and a reader knows exactly how many lines it missed.

use std::fs::File;
use std::io;
use std::os::unix::fs::FileExt;
use std::sync::Arc;

use nix::errno::Errno;

use super::tree::CaptureDirectory;

/// Bytes of a block: that of the daemon, which unpacks one to read a line.
pub(in crate::cli) const BLOCK: usize = 64 << 10;

/// Maximum number of bytes of a line: no daemon writes a longer one.
pub(in crate::cli) const MAX_LINE: usize = 4 << 20;

/// Attempts to open a log while it drops lines.
const ATTEMPTS: usize = 20;

/// Whole lines, each with its newline.
#[derive(Clone, Debug)]
pub(in crate::cli) struct LineBlock {
    /// Number of the first line.
    first: u64,
    text: Arc<[u8]>,
    /// Offsets after the newlines.
    ends: Arc<[u32]>,
}

impl LineBlock {
    fn new(first: u64, text: Vec<u8>) -> Self {
        let newlines = text.iter().enumerate().filter(|(_, byte)| **byte == b'\n');
        // A block has at most `MAX_LINE` and a few bytes.
        let ends = newlines.map(|(offset, _)| u32::try_from(offset + 1).unwrap_or(u32::MAX));
        Self { first, ends: ends.collect(), text: text.into() }
    }

    /// Number of the first line.
    pub(in crate::cli) const fn first(&self) -> u64 {
        self.first
    }

    /// All lines, each with its newline.
    pub(in crate::cli) fn bytes(&self) -> &[u8] {
        &self.text
    }

    /// The number of lines.
    pub(in crate::cli) fn count(&self) -> usize {
        self.ends.len()
    }

    /// The line of this number, without its newline.
    pub(in crate::cli) fn line(&self, number: u64) -> Option<&[u8]> {
        let index = usize::try_from(number.checked_sub(self.first)?).ok()?;
        let begin = match index.checked_sub(1) {
            Some(before) => *self.ends.get(before)? as usize,
            None => 0,
        };
        let end = (*self.ends.get(index)? as usize).saturating_sub(1);
        self.text.get(begin..end)
    }

    /// The lines from this number on, with their numbers and without their newlines.
    pub(in crate::cli) fn from(&self, number: u64) -> impl Iterator<Item = (u64, &[u8])> {
        (self.first.max(number)..self.end()).filter_map(|number| Some((number, self.line(number)?)))
    }

    /// Number of the line after the last one.
    pub(in crate::cli) fn end(&self) -> u64 {
        self.first.saturating_add(self.ends.len() as u64)
    }
}

/// Reads a log from its first line on.
#[derive(Debug)]
pub(in crate::cli) struct LogReader {
    name: &'static str,
    file: File,
    /// Number of the next line to come.
    next_line: u64,
    /// Offset in the file where it begins.
    offset: u64,
}

impl LogReader {
    /// The log of this name.
    ///
    /// # Errors
    /// It cannot be opened.
    pub(in crate::cli) fn open(
        directory: &CaptureDirectory,
        name: &'static str,
    ) -> io::Result<Self> {
        for _ in 0..ATTEMPTS {
            let before = directory.dropped_lines(name)?;
            let file = File::open(directory.path(name))?;
            // The file begins after the lines that were dropped when it was opened.
            if directory.dropped_lines(name)? == before {
                return Ok(Self { name, file, next_line: before.saturating_add(1), offset: 0 });
            }
        }
        Err(io::Error::other("its oldest lines leave it faster than it can be opened"))
    }

    /// Number of the next line to come.
    pub(in crate::cli) const fn next_line(&self) -> u64 {
        self.next_line
    }

    /// Offset in the file where the next line begins.
    pub(in crate::cli) const fn offset(&self) -> u64 {
        self.offset
    }

    /// The next lines, if any have come. If lines to come have left the log, the first number of the
    /// block is greater than [`Self::next_line`] was before.
    ///
    /// # Errors
    /// Those of reading.
    pub(in crate::cli) fn next_block(
        &mut self,
        directory: &CaptureDirectory,
    ) -> io::Result<Option<LineBlock>> {
        let mut attempts = ATTEMPTS;
        loop {
            let text = match self.read_next() {
                Ok(text) if text.is_empty() => return Ok(None),
                Ok(text) => text,
                Err(error) if is_dropped(&error) && attempts > 0 => {
                    attempts -= 1;
                    *self = Self::open(directory, self.name)?;
                    continue;
                }
                Err(error) => return Err(error),
            };
            let block = LineBlock::new(self.next_line, text);
            self.offset = self.offset.saturating_add(block.bytes().len() as u64);
            self.next_line = block.end();
            return Ok(Some(block));
        }
    }

    /// Whole lines from the next one on; none if none have come.
    fn read_next(&self) -> io::Result<Vec<u8>> {
        let mut text = Vec::new();
        loop {
            let begin = text.len();
            text.resize(begin + BLOCK, 0);
            let rest = text.get_mut(begin..).unwrap_or_default();
            let length = self.file.read_at(rest, self.offset.saturating_add(begin as u64))?;
            text.truncate(begin + length);
            if let Some(last) = text.iter().rposition(|byte| *byte == b'\n') {
                text.truncate(last + 1);
                return Ok(text);
            }
            if length == 0 {
                return Ok(Vec::new());
            }
            if text.len() > MAX_LINE {
                return Err(io::Error::other("a line without an end"));
            }
        }
    }

    /// A block that was read before.
    ///
    /// # Errors
    /// Those of reading.
    pub(in crate::cli) fn block_at(
        &self,
        first: u64,
        offset: u64,
        length: u32,
    ) -> io::Result<LineBlock> {
        let mut text = vec![0; length as usize];
        self.file.read_exact_at(&mut text, offset)?;
        Ok(LineBlock::new(first, text))
    }
}

/// True if the bytes have left the log.
pub(in crate::cli) fn is_dropped(error: &io::Error) -> bool {
    error.raw_os_error() == Some(Errno::EIO as i32)
}
