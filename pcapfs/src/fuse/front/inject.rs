//! Writes of savefiles that are injected. A write that finds no room is parked, as reads are.

use std::io::IoSlice;
use std::sync::Arc;

use nix::errno::Errno;

use super::SharedFront;
use crate::fs::open_file::OpenFile;
use crate::fuse::parked::{ParkedWrite, ReadsAndPolls};
use crate::fuse::structures::WriteIn;
use crate::fuse::wire;
use crate::waiters::WaitingReaders;

impl SharedFront {
    /// Takes the bytes of a savefile to inject, or has the program wait until there is room.
    pub(super) fn inject(&self, unique: u64, file: Arc<OpenFile>, write: WriteIn, bytes: &[u8]) {
        // The kernel sends no other number of bytes.
        let bytes = bytes.get(..write.size as usize).unwrap_or(bytes);
        if self.take_write(unique, &file, write, bytes) {
            return;
        }
        if write.flags & libc::O_NONBLOCK.unsigned_abs() != 0 {
            self.reply_error(unique, Errno::EAGAIN);
            return;
        }
        let Some(entry) = file.waits_for().map(Arc::clone) else {
            self.reply_error(unique, Errno::EIO);
            return;
        };
        let waiting = self.waiters.of(&entry);
        let bytes = bytes.into();
        let parked = ParkedWrite { unique, file: Arc::clone(&file), write, bytes };
        waiting.who.writes.lock().push(parked);
        waiting.arm();
        // Room that was made between the first look and the arming rang no bell.
        if file.is_ready()
            && let Some(parked) = waiting.who.take_write(unique)
        {
            self.take_parked_write(&waiting, parked);
        }
    }

    /// Answers a write if there is room for its bytes; returns whether it did.
    fn take_write(&self, unique: u64, file: &OpenFile, write: WriteIn, bytes: &[u8]) -> bool {
        // Programs that append do not choose an offset.
        let is_appended = write.flags & libc::O_APPEND.unsigned_abs() != 0;
        match file.inject((!is_appended).then_some(write.offset), bytes) {
            Ok(true) => {
                let reply = wire::write_reply(bytes.len());
                let header = wire::reply_header(unique, 0, reply.len());
                self.write(&[IoSlice::new(&header), IoSlice::new(&reply)]);
                true
            }
            Ok(false) => false,
            Err(error) => {
                file.log_injection(&error);
                self.reply_error(unique, error.errno());
                true
            }
        }
    }

    /// The same for a write that has waited; it waits on if there is no room.
    fn take_parked_write(&self, waiting: &WaitingReaders<ReadsAndPolls>, parked: ParkedWrite) {
        let ParkedWrite { unique, file, write, bytes } = &parked;
        if !self.take_write(*unique, file, *write, bytes) {
            waiting.who.writes.lock().insert(0, parked);
            waiting.arm();
        }
    }

    /// Answers the writes of a capture for which there is room now. Returns whether others wait on.
    pub(super) fn wake_writes(&self, waiting: &WaitingReaders<ReadsAndPolls>) -> bool {
        let writes = std::mem::take(&mut *waiting.who.writes.lock());
        let left = writes.into_iter().filter(|parked| {
            let ParkedWrite { unique, file, write, bytes } = parked;
            !self.take_write(*unique, file, *write, bytes)
        });
        let left: Vec<_> = left.collect();
        let mut writes = waiting.who.writes.lock();
        // They came before those that were parked in the meantime.
        writes.splice(0..0, left);
        !writes.is_empty()
    }
}
