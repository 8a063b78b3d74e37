//! A log of a capture, such as `flows.jsonl`, read by line numbers.
//!
//! The daemon numbers lines from 1: it reports the number of lines that have left the log, and the
//! first line of the file has the next number. So the number of a line is the same for every reader, also after
//! this process was started again. Kept here are the places of blocks of lines, and the texts of a
//! few blocks that were read last; all other texts are only in the daemon, which has them
//! compressed.

use std::collections::VecDeque;
use std::fs::File;
use std::io;
use std::os::unix::fs::FileExt;
use std::sync::Arc;

use nix::errno::Errno;

use super::tree::CaptureDirectory;

/// Bytes of a block: that of the daemon, which unpacks one to read a line.
const BLOCK: usize = 64 << 10;

/// Maximum number of bytes of a line: no daemon writes a longer one.
const MAX_LINE: usize = 4 << 20;

/// Maximum number of blocks of a log, of 24 bytes each: at least 2 GiB of lines.
const MAX_BLOCKS: usize = 1 << 16;

/// Blocks whose texts are kept: a page of flows is in few, and readers of events are close together.
const CACHED: usize = 8;

/// Attempts to open a log while it drops lines.
const ATTEMPTS: usize = 20;

/// A log.
#[derive(Debug)]
pub(super) struct FollowedLog {
    name: &'static str,
    file: File,
    /// In the order of the lines, and contiguous.
    blocks: VecDeque<BlockPlace>,
    /// Number of the next line to come.
    next_line: u64,
    /// Offset in the file where it begins.
    end: u64,
    /// The ones read last come last.
    cache: Vec<LineBlock>,
}

/// The place of a block of lines.
#[derive(Clone, Copy, Debug)]
struct BlockPlace {
    /// In the file that is open.
    offset: u64,
    /// Number of its first line.
    first: u64,
    /// Bytes.
    length: u32,
    lines: u32,
}

impl BlockPlace {
    /// Number of the line after the last one.
    fn end(&self) -> u64 {
        self.first.saturating_add(self.lines.into())
    }
}

/// Whole lines, each with its newline.
#[derive(Clone, Debug)]
pub(super) struct LineBlock {
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

    /// The line of this number, without its newline.
    pub(super) fn line(&self, number: u64) -> Option<&[u8]> {
        let index = usize::try_from(number.checked_sub(self.first)?).ok()?;
        let begin = match index.checked_sub(1) {
            Some(before) => *self.ends.get(before)? as usize,
            None => 0,
        };
        let end = (*self.ends.get(index)? as usize).saturating_sub(1);
        self.text.get(begin..end)
    }

    /// The lines from this number on, with their numbers and without their newlines.
    pub(super) fn from(&self, number: u64) -> impl Iterator<Item = (u64, &[u8])> {
        (self.first.max(number)..self.end()).filter_map(|number| Some((number, self.line(number)?)))
    }

    /// Number of the line after the last one.
    pub(super) fn end(&self) -> u64 {
        self.first.saturating_add(self.ends.len() as u64)
    }
}

/// The lines at a place of a log.
#[derive(Debug)]
pub(super) enum LinesAt {
    /// A block with the line in it.
    Lines(LineBlock),
    /// There is no such line yet.
    End,
    /// It has left the log; the first line that has not has this number.
    Dropped(u64),
}

impl FollowedLog {
    /// The log of this name.
    ///
    /// # Errors
    /// It cannot be opened.
    pub(super) fn open(directory: &CaptureDirectory, name: &'static str) -> io::Result<Self> {
        for _ in 0..ATTEMPTS {
            let before = directory.dropped_lines(name)?;
            let file = File::open(directory.path(name))?;
            // The file begins after the lines that were dropped when it was opened.
            if directory.dropped_lines(name)? == before {
                let next_line = before.saturating_add(1);
                let (blocks, cache) = (VecDeque::new(), Vec::new());
                return Ok(Self { name, file, blocks, next_line, end: 0, cache });
            }
        }
        Err(io::Error::other("its oldest lines leave it faster than it can be opened"))
    }

    /// Number of the first line that is known and kept; that of the next one to come without any.
    pub(super) fn first_line(&self) -> u64 {
        self.blocks.front().map_or(self.next_line, |block| block.first)
    }

    /// Number of the next line to come.
    pub(super) const fn next_line(&self) -> u64 {
        self.next_line
    }

    /// Forgets the first lines: the daemon reports that this many have left the log.
    pub(super) fn trim(&mut self, dropped: u64) {
        while self.blocks.front().is_some_and(|block| block.end() <= dropped.saturating_add(1)) {
            self.blocks.pop_front();
        }
    }

    /// Finds the lines that have come since the last call. `visit` gets each block of them.
    ///
    /// # Errors
    /// Those of reading. If the lines to come were dropped in the meantime, the log begins anew.
    pub(super) fn catch_up(
        &mut self,
        directory: &CaptureDirectory,
        mut visit: impl FnMut(&LineBlock),
    ) -> io::Result<()> {
        let mut attempts = ATTEMPTS;
        loop {
            let text = match self.read_next() {
                Ok(text) if text.is_empty() => return Ok(()),
                Ok(text) => text,
                Err(error) if is_dropped(&error) && attempts > 0 => {
                    attempts -= 1;
                    *self = Self::open(directory, self.name)?;
                    continue;
                }
                Err(error) => return Err(error),
            };
            let block = LineBlock::new(self.next_line, text);
            self.add(&block);
            visit(&block);
        }
    }

    /// Whole lines after the last one that is known; none if none have come.
    fn read_next(&self) -> io::Result<Vec<u8>> {
        let mut text = Vec::new();
        loop {
            let begin = text.len();
            text.resize(begin + BLOCK, 0);
            let rest = text.get_mut(begin..).unwrap_or_default();
            let length = self.file.read_at(rest, self.end.saturating_add(begin as u64))?;
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

    fn add(&mut self, block: &LineBlock) {
        let length = block.text.len() as u64;
        let (offset, first) = (self.end, block.first);
        self.end = self.end.saturating_add(length);
        self.next_line = block.end();
        // Lines come one by one, and a place for each would take more room than blocks.
        let joined =
            self.blocks.back_mut().filter(|last| u64::from(last.length) + length <= BLOCK as u64);
        let (length, lines) = (u32::try_from(length), u32::try_from(block.ends.len()));
        // A block has at most `MAX_LINE` and a few bytes.
        let (length, lines) = (length.unwrap_or(u32::MAX), lines.unwrap_or(u32::MAX));
        if let Some(last) = joined {
            last.length += length;
            last.lines += lines;
            let first = last.first;
            self.cache.retain(|cached| cached.first != first);
            return;
        }
        self.blocks.push_back(BlockPlace { offset, first, length, lines });
        if self.blocks.len() > MAX_BLOCKS {
            self.blocks.pop_front();
        }
        self.keep(block.clone());
    }

    fn keep(&mut self, block: LineBlock) {
        if self.cache.len() == CACHED {
            self.cache.remove(0);
        }
        self.cache.push(block);
    }

    /// The block with the line of this number.
    ///
    /// # Errors
    /// Those of reading.
    pub(super) fn at(&mut self, number: u64) -> io::Result<LinesAt> {
        if number >= self.next_line {
            return Ok(LinesAt::End);
        }
        let after = self.blocks.partition_point(|block| block.first <= number);
        let Some((index, place)) =
            after.checked_sub(1).and_then(|index| Some((index, *self.blocks.get(index)?)))
        else {
            return Ok(LinesAt::Dropped(self.first_line()));
        };
        if let Some(index) = self.cache.iter().position(|block| block.first == place.first) {
            let block = self.cache.remove(index);
            self.cache.push(block.clone());
            return Ok(LinesAt::Lines(block));
        }
        let mut text = vec![0; place.length as usize];
        match self.file.read_exact_at(&mut text, place.offset) {
            Ok(()) => {
                let block = LineBlock::new(place.first, text);
                self.keep(block.clone());
                Ok(LinesAt::Lines(block))
            }
            Err(error) if is_dropped(&error) => {
                self.blocks.drain(..=index);
                Ok(LinesAt::Dropped(self.first_line()))
            }
            Err(error) => Err(error),
        }
    }
}

/// True if the bytes have left the log.
fn is_dropped(error: &io::Error) -> bool {
    error.raw_os_error() == Some(Errno::EIO as i32)
}

#[cfg(test)]
mod tests {
    use std::fs;
    use std::io::Write;

    use super::*;
    use crate::cli::web::tree::tests::directory_at;

    #[test]
    fn lines_have_numbers_and_are_found_again() {
        let folder = tempfile::tempdir().unwrap();
        let status = r#"{"flows": {"log_lines_dropped_by": {"http.jsonl": 10}}}"#;
        fs::write(folder.path().join("status.json"), status).unwrap();
        let mut file = File::create(folder.path().join("http.jsonl")).unwrap();
        let directory = directory_at(folder.path());
        let mut log = FollowedLog::open(&directory, "http.jsonl").unwrap();
        assert_eq!((log.first_line(), log.next_line()), (11, 11));
        let mut written = 11;
        let mut seen = Vec::new();
        for count in [0, 1, 3, 500, 20_000, 1] {
            for _ in 0..count {
                writeln!(file, "line {written}").unwrap();
                written += 1;
            }
            // A line that is not complete waits.
            log.catch_up(&directory, |block| {
                seen.extend(block.from(0).map(|(number, line)| (number, line.to_vec())));
            })
            .unwrap();
            assert_eq!(log.next_line(), written);
        }
        assert_eq!(seen.len(), 20_505);
        for (number, line) in seen {
            assert_eq!(line, format!("line {number}").into_bytes());
        }
        assert!(log.blocks.len() <= 6, "{}", log.blocks.len());
        for number in (11..written).step_by(97) {
            let LinesAt::Lines(block) = log.at(number).unwrap() else { panic!("{number}") };
            let (first, line) = block.from(number).next().unwrap();
            assert_eq!((first, line), (number, format!("line {number}").as_bytes()));
        }
        assert!(matches!(log.at(written).unwrap(), LinesAt::End));
        assert!(matches!(log.at(10).unwrap(), LinesAt::Dropped(11)));
        assert!(log.cache.len() <= CACHED);
    }

    #[test]
    fn a_line_waits_for_its_end() {
        let folder = tempfile::tempdir().unwrap();
        let status = r#"{"flows": {"log_lines_dropped_by": {"http.jsonl": 0}}}"#;
        fs::write(folder.path().join("status.json"), status).unwrap();
        let mut file = File::create(folder.path().join("http.jsonl")).unwrap();
        let directory = directory_at(folder.path());
        let mut log = FollowedLog::open(&directory, "http.jsonl").unwrap();
        file.write_all(b"one\ntwo").unwrap();
        log.catch_up(&directory, |_| {}).unwrap();
        assert_eq!(log.next_line(), 2);
        let long = vec![b'x'; 3 * BLOCK];
        file.write_all(&long).unwrap();
        log.catch_up(&directory, |_| {}).unwrap();
        assert_eq!(log.next_line(), 2);
        file.write_all(b"\n").unwrap();
        log.catch_up(&directory, |_| {}).unwrap();
        assert_eq!(log.next_line(), 3);
    }
}
