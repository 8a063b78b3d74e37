//! Reads and polls that wait for packets of a capture.

use std::sync::Arc;

use parking_lot::Mutex;

use super::structures::ReadIn;
use crate::fs::open_file::OpenFile;

/// The reads and polls that wait for packets of one capture.
#[derive(Debug, Default)]
pub(super) struct ReadsAndPolls {
    pub(super) parked: Mutex<Vec<Parked>>,
    pub(super) polls: Mutex<Vec<Polled>>,
}

/// A read that waits.
#[derive(Debug)]
pub(super) struct Parked {
    pub(super) unique: u64,
    pub(super) file: Arc<OpenFile>,
    pub(super) read: ReadIn,
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

    /// Removes and returns the polls whose files are ready.
    pub(super) fn take_ready_polls(&self) -> Vec<Polled> {
        let mut polls = self.polls.lock();
        polls.extract_if(.., |polled| polled.file.is_ready()).collect()
    }
}
