//! Reads and polls that wait for packets of a capture, and writes that wait for room.

use std::sync::Arc;

use parking_lot::Mutex;

use super::structures::{ReadIn, WriteIn};
use crate::fs::open_file::OpenFile;

/// The reads, polls and writes that wait for one capture.
#[derive(Debug, Default)]
pub(super) struct ReadsAndPolls {
    pub(super) parked: Mutex<Vec<Parked>>,
    /// Oldest first.
    pub(super) writes: Mutex<Vec<ParkedWrite>>,
    pub(super) polls: Mutex<Vec<Polled>>,
}

/// A read that waits.
#[derive(Debug)]
pub(super) struct Parked {
    pub(super) unique: u64,
    pub(super) file: Arc<OpenFile>,
    pub(super) read: ReadIn,
}

/// A write that waits for room. As many programs can have one as can inject at the same time, and the
/// kernel sends one write of an inode at a time.
#[derive(Debug)]
pub(super) struct ParkedWrite {
    pub(super) unique: u64,
    pub(super) file: Arc<OpenFile>,
    pub(super) write: WriteIn,
    pub(super) bytes: Box<[u8]>,
}

/// A process that waits in poll(2).
#[derive(Debug)]
pub(super) struct Polled {
    pub(super) kernel_handle: u64,
    pub(super) file: Arc<OpenFile>,
}

impl ReadsAndPolls {
    /// Takes a read out.
    pub(super) fn take(&self, unique: u64) -> Option<Parked> {
        let mut parked = self.parked.lock();
        let index = parked.iter().position(|parked| parked.unique == unique)?;
        Some(parked.swap_remove(index))
    }

    /// Takes a write out.
    pub(super) fn take_write(&self, unique: u64) -> Option<ParkedWrite> {
        let mut writes = self.writes.lock();
        let index = writes.iter().position(|parked| parked.unique == unique)?;
        Some(writes.remove(index))
    }

    /// Returns true if a write that waits need not wait any more.
    pub(super) fn has_ready_write(&self) -> bool {
        self.writes.lock().iter().any(|parked| parked.file.is_ready())
    }

    /// Removes and returns the polls whose files are ready.
    pub(super) fn take_ready_polls(&self) -> Vec<Polled> {
        let mut polls = self.polls.lock();
        polls.extract_if(.., |polled| polled.file.is_ready()).collect()
    }
}
