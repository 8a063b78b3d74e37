//! A log of a capture, such as `flows.jsonl`, in which any line is found by its number.
//!
//! Kept here are the places of blocks of lines, and the texts of a few blocks that were read last; all
//! other texts are only in the daemon, which has them compressed.

use std::collections::VecDeque;
use std::io;

use crate::cli::outlet::lines::{BLOCK, LineBlock, LogReader, is_dropped};
use crate::cli::outlet::tree::CaptureDirectory;

/// Maximum number of blocks of a log, of 24 bytes each: at least 2 GiB of lines.
const MAX_BLOCKS: usize = 1 << 16;

/// Blocks whose texts are kept: a page of flows is in few, and readers of events are close together.
const CACHED: usize = 8;

/// A log.
#[derive(Debug)]
pub(super) struct FollowedLog {
    reader: LogReader,
    /// In the order of the lines, and contiguous.
    blocks: VecDeque<BlockPlace>,
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
        let (blocks, cache) = (VecDeque::new(), Vec::new());
        Ok(Self { reader: LogReader::open(directory, name)?, blocks, cache })
    }

    /// Number of the first line that is known and kept; that of the next one to come without any.
    pub(super) fn first_line(&self) -> u64 {
        self.blocks.front().map_or_else(|| self.next_line(), |block| block.first)
    }

    /// Number of the next line to come.
    pub(super) const fn next_line(&self) -> u64 {
        self.reader.next_line()
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
        loop {
            let offset = self.reader.offset();
            let block = self.reader.next_block(directory)?;
            let length = block.as_ref().map_or(0, |block| block.bytes().len() as u64);
            // Lines to come had left the log, and the file that is open now begins elsewhere.
            if self.reader.offset() != offset.saturating_add(length) {
                self.blocks.clear();
                self.cache.clear();
            }
            let Some(block) = block else { return Ok(()) };
            self.add(&block);
            visit(&block);
        }
    }

    /// Adds the block that was read last.
    fn add(&mut self, block: &LineBlock) {
        let length = block.bytes().len() as u64;
        let (offset, first) = (self.reader.offset().saturating_sub(length), block.first());
        // Lines come one by one, and a place for each would take more room than blocks.
        let joined =
            self.blocks.back_mut().filter(|last| u64::from(last.length) + length <= BLOCK as u64);
        let (length, lines) = (u32::try_from(length), u32::try_from(block.count()));
        // A block has at most `MAX_LINE` and a few bytes.
        let (length, lines) = (length.unwrap_or(u32::MAX), lines.unwrap_or(u32::MAX));
        if let Some(last) = joined {
            last.length += length;
            last.lines += lines;
            let first = last.first;
            self.cache.retain(|cached| cached.first() != first);
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
        if number >= self.next_line() {
            return Ok(LinesAt::End);
        }
        let after = self.blocks.partition_point(|block| block.first <= number);
        let Some((index, place)) =
            after.checked_sub(1).and_then(|index| Some((index, *self.blocks.get(index)?)))
        else {
            return Ok(LinesAt::Dropped(self.first_line()));
        };
        if let Some(index) = self.cache.iter().position(|block| block.first() == place.first) {
            let block = self.cache.remove(index);
            self.cache.push(block.clone());
            return Ok(LinesAt::Lines(block));
        }
        match self.reader.block_at(place.first, place.offset, place.length) {
            Ok(block) => {
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

#[cfg(test)]
mod tests {
    use std::fs::{self, File};
    use std::io::Write;

    use super::*;
    use crate::cli::outlet::tree::tests::directory_at;

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
