//! Lines that a capture appends, in memory and compressed. The newest lines are kept, within a
//! limit.
//!
//! ```text
//!   | dropped | packed block | packed block | ... | plain block | open block |
//!             begin                                (being packed)            end
//! ```
//!
//! One [`LogWriter`] adds whole lines to the open block. A full block is packed while no reader
//! waits for it: until then readers have its plain bytes. Blocks hold whole lines, and are dropped
//! whole. So both ends of the log are beginnings of lines at any moment, and neither goes back.

pub(super) mod set;

use std::collections::VecDeque;
use std::ops::Range;
use std::sync::Arc;

use parking_lot::Mutex;
use zstd::bulk::{Compressor, decompress};

/// Bytes of lines in a block. Twice as many would pack 2 per cent better, but a reader that wants
/// one line would wait twice as long for unpacking.
const BLOCK: usize = 64 << 10;

/// Level of compression: a packed line has a seventh to a ninth of its size. Higher levels are no
/// smaller at this size of blocks, and lower ones are no faster.
const LEVEL: i32 = 1;

/// Bytes that a block takes besides its content.
const OVERHEAD: usize = size_of::<LogBlock>() + 32;

/// A log, for its readers. Offsets count bytes since the first line ever.
#[derive(Debug)]
pub(super) struct LineLog {
    limit: usize,
    kept: Mutex<KeptBlocks>,
}

/// The writer of a log; each log has one.
pub(super) struct LogWriter {
    log: Arc<LineLog>,
    block: usize,
    /// `None` if there was no memory for one; then blocks stay plain.
    compressor: Option<Compressor<'static>>,
}

/// The block that a reader used last, so that a reader that continues does not unpack it again: up
/// to 64 KiB, or one longer line.
#[derive(Debug, Default)]
pub(super) struct LogCache {
    start: u64,
    bytes: Arc<Vec<u8>>,
}

#[derive(Debug, Default)]
struct KeptBlocks {
    /// Contiguous, and followed by the open block.
    blocks: VecDeque<LogBlock>,
    open: Vec<u8>,
    open_start: u64,
    /// Bytes of memory in `blocks`.
    held: usize,
    dropped_lines: u64,
}

#[derive(Clone, Debug)]
struct LogBlock {
    start: u64,
    /// Bytes of the plain block.
    len: usize,
    lines: u64,
    content: LogContent,
}

#[derive(Clone, Debug)]
enum LogContent {
    Plain(Arc<Vec<u8>>),
    Packed(Arc<[u8]>),
}

/// The place of an offset.
enum LogPlace {
    Dropped,
    End,
    /// In a block.
    Block(LogBlock),
    /// In the open block; these are its bytes there, as many as wanted.
    Open(Vec<u8>),
}

impl LineLog {
    /// Offset of the first retained byte, which equals the number of bytes dropped.
    #[must_use]
    pub(super) fn begin(&self) -> u64 {
        self.range().start
    }

    /// Offset after the last byte.
    #[must_use]
    pub(super) fn end(&self) -> u64 {
        self.range().end
    }

    /// [`LineLog::begin`] and [`LineLog::end`] at one moment.
    #[must_use]
    pub(super) fn range(&self) -> Range<u64> {
        self.kept.lock().range()
    }

    /// Lines that were dropped to stay within the limit.
    #[must_use]
    pub(super) fn dropped_lines(&self) -> u64 {
        self.kept.lock().dropped_lines
    }

    /// Bytes of memory, without the [`LogCache`]s of readers.
    #[must_use]
    pub(super) fn memory(&self) -> usize {
        self.kept.lock().memory()
    }

    /// The `want` bytes at `offset`; fewer where the log ends, none after its end. `None` if the
    /// byte at `offset` was dropped, unless `cache` still has it. Fewer also if bytes are dropped
    /// during the read; the next call finds that out.
    ///
    /// If a reader continues with the same cache, each block is unpacked once.
    #[must_use]
    pub(super) fn read(&self, offset: u64, want: usize, cache: &mut LogCache) -> Option<Vec<u8>> {
        let mut bytes = Vec::new();
        while bytes.len() < want {
            let (at, want) = (offset.saturating_add(bytes.len() as u64), want - bytes.len());
            if let Some(cached) = cache.get(at, want) {
                bytes.extend(cached);
                continue;
            }
            let place = self.kept.lock().place(at, want);
            let is_there = match place {
                LogPlace::Block(block) => cache.fill(&block),
                LogPlace::Open(open) => {
                    bytes.extend(open);
                    true
                }
                LogPlace::End => break,
                LogPlace::Dropped => false,
            };
            if !is_there {
                // The bytes read before the drop are still a good answer.
                return (!bytes.is_empty()).then_some(bytes);
            }
        }
        Some(bytes)
    }
}

impl LogWriter {
    /// An empty log with a limit of `limit` bytes of memory. A log always keeps its open block, of
    /// 64 KiB or one longer line.
    #[must_use]
    pub(super) fn new(limit: usize) -> Self {
        Self::with_block(limit, BLOCK)
    }

    fn with_block(limit: usize, block: usize) -> Self {
        let log = Arc::new(LineLog { limit, kept: Mutex::default() });
        Self { log, block, compressor: Compressor::new(LEVEL).ok() }
    }

    /// The log, for its readers.
    #[must_use]
    pub(super) fn log(&self) -> &Arc<LineLog> {
        &self.log
    }

    /// Adds whole lines: the last byte of `lines` is a newline. They become visible all at once.
    ///
    /// Once in 64 KiB this packs a block, which takes a tenth of a millisecond; readers do not
    /// wait for it.
    pub(super) fn append(&mut self, lines: &[u8]) {
        debug_assert!(lines.is_empty() || lines.ends_with(b"\n"), "whole lines");
        let full = {
            let mut kept = self.log.kept.lock();
            let is_full = kept.open.len().saturating_add(lines.len()) > self.block;
            let full = if is_full { kept.close() } else { None };
            kept.extend(lines, self.block);
            kept.trim(self.log.limit);
            full
        };
        let Some((start, plain)) = full else {
            return;
        };
        let packed = self.compressor.as_mut().and_then(|one| one.compress(&plain).ok());
        if let Some(packed) = packed.filter(|packed| packed.len() < plain.len()) {
            self.log.kept.lock().replace(start, packed.into());
        }
    }
}

impl KeptBlocks {
    fn range(&self) -> Range<u64> {
        let start = self.blocks.front().map_or(self.open_start, |block| block.start);
        start..self.open_start.saturating_add(self.open.len() as u64)
    }

    fn memory(&self) -> usize {
        self.held + self.open.capacity()
    }

    /// Adds lines to the open block. The capacity is reserved here, because a vector that grows by
    /// itself would take up to twice the size of a block.
    fn extend(&mut self, lines: &[u8], block: usize) {
        let len = self.open.len().saturating_add(lines.len());
        if len > self.open.capacity() {
            let capacity = len.checked_next_power_of_two().unwrap_or(len).min(block.max(len));
            self.open.reserve_exact(capacity.saturating_sub(self.open.len()));
        }
        self.open.extend_from_slice(lines);
    }

    fn place(&self, offset: u64, want: usize) -> LogPlace {
        let range = self.range();
        if offset < range.start {
            return LogPlace::Dropped;
        }
        let Some(inside) = offset.checked_sub(self.open_start) else {
            let behind = self.blocks.partition_point(|block| block.start <= offset);
            let block = behind.checked_sub(1).and_then(|index| self.blocks.get(index));
            return block.cloned().map_or(LogPlace::Dropped, LogPlace::Block);
        };
        match part(&self.open, inside, want) {
            [] => LogPlace::End,
            bytes => LogPlace::Open(bytes.to_vec()),
        }
    }

    /// Turns the open block into a plain one, unless it is empty. Returns its place and its bytes.
    fn close(&mut self) -> Option<(u64, Arc<Vec<u8>>)> {
        if self.open.is_empty() {
            return None;
        }
        let plain = Arc::new(std::mem::take(&mut self.open));
        let (start, len) = (self.open_start, plain.len());
        let lines = plain.iter().filter(|byte| **byte == b'\n').count() as u64;
        let content = LogContent::Plain(Arc::clone(&plain));
        self.open_start = self.open_start.saturating_add(len as u64);
        self.held += content.memory();
        self.blocks.push_back(LogBlock { start, len, lines, content });
        Some((start, plain))
    }

    /// Replaces the newest block by its packed form, unless it was dropped in the meantime.
    fn replace(&mut self, start: u64, packed: Arc<[u8]>) {
        if let Some(block) = self.blocks.back_mut().filter(|block| block.start == start) {
            self.held -= block.content.memory();
            block.content = LogContent::Packed(packed);
            self.held += block.content.memory();
        }
    }

    fn trim(&mut self, limit: usize) {
        while self.memory() > limit
            && let Some(block) = self.blocks.pop_front()
        {
            self.held -= block.content.memory();
            self.dropped_lines = self.dropped_lines.saturating_add(block.lines);
        }
    }
}

impl LogContent {
    fn memory(&self) -> usize {
        OVERHEAD
            + match self {
                Self::Plain(bytes) => bytes.capacity(),
                Self::Packed(bytes) => bytes.len(),
            }
    }
}

impl LogCache {
    fn get(&self, offset: u64, want: usize) -> Option<&[u8]> {
        let cached = part(&self.bytes, offset.checked_sub(self.start)?, want);
        (!cached.is_empty()).then_some(cached)
    }

    /// Loads a block. Returns whether it could be unpacked, which fails only for want of memory.
    fn fill(&mut self, block: &LogBlock) -> bool {
        let bytes = match &block.content {
            LogContent::Plain(bytes) => Arc::clone(bytes),
            LogContent::Packed(bytes) => match decompress(bytes, block.len) {
                Ok(bytes) => Arc::new(bytes),
                Err(_) => return false,
            },
        };
        *self = Self { start: block.start, bytes };
        self.bytes.len() == block.len
    }
}

/// At most `want` bytes of `bytes`, after the first `skip`.
fn part(bytes: &[u8], skip: u64, want: usize) -> &[u8] {
    let rest = usize::try_from(skip).ok().and_then(|skip| bytes.get(skip..)).unwrap_or_default();
    rest.get(..want).unwrap_or(rest)
}

impl std::fmt::Debug for LogWriter {
    fn fmt(&self, formatter: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        formatter.debug_struct("LogWriter").field("log", &self.log).finish_non_exhaustive()
    }
}

#[cfg(test)]
mod tests;
