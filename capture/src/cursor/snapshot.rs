//! A store as a file with offsets: the packets retained now, then end of file, then newer packets.
//!
//! [`SnapshotExtent`] is the file itself. It has a beginning in the store, and so a size at any
//! moment. It never shrinks: when the store drops its oldest packets, a new file with a new
//! beginning takes its place in the tree. The old file continues for the readers that have it open.
//!
//! [`Snapshot`] is one opener of it. A reader that reads straight on is a cursor like any other. If
//! the writer laps it, it continues at the oldest packet retained, so that the bytes it has read
//! stay a valid beginning of a savefile; later offsets then stand for other packets than before.
//! Going back to an offset that is no longer retained is an error.

use std::io::{self, IoSlice};

use super::{Begin, Cursor, CursorProgress, CursorReadError, ReadOutcome, SavefileFormat};
use crate::savefile::{pcap, pcapng_writer};
use crate::store::{Bounds, Position, Store};

/// A file made of a store: everything from one position on.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct SnapshotExtent {
    format: SavefileFormat,
    begin: Position,
}

impl SnapshotExtent {
    /// All packets retained now, and all later ones.
    pub fn new(store: &dyn Store, format: SavefileFormat) -> Self {
        Self { format, begin: store.bounds().oldest }
    }

    /// The current size in bytes; 0 while the store has no header.
    #[must_use]
    pub fn size(&self, store: &dyn Store) -> u64 {
        let bounds = store.bounds();
        match store.header() {
            None => 0,
            Some(_) => {
                let header_len = self.header_len(store);
                header_len
                    .saturating_add(self.end(&bounds).saturating_sub(self.coordinate(self.begin)))
            }
        }
    }

    /// Bytes before the first packet's record or block.
    fn header_len(&self, store: &dyn Store) -> u64 {
        match self.format {
            SavefileFormat::Pcap => pcap::FILE_HEADER_LEN as u64,
            SavefileFormat::Pcapng => {
                let interfaces = (0..store.interfaces_before(self.begin.number))
                    .map_while(|id| store.interface(id))
                    .map(|interface| pcapng_writer::interface_description_len(&interface));
                let section = pcapng_writer::section_header_len(store.section_options().len());
                interfaces.fold(section, u64::saturating_add)
            }
        }
    }

    /// The coordinate of the end.
    const fn end(&self, bounds: &Bounds) -> u64 {
        match self.format {
            SavefileFormat::Pcap => bounds.next.pcap,
            SavefileFormat::Pcapng => bounds.next.pcapng.saturating_add(bounds.trailing),
        }
    }

    const fn coordinate(&self, position: Position) -> u64 {
        match self.format {
            SavefileFormat::Pcap => position.pcap,
            SavefileFormat::Pcapng => position.pcapng,
        }
    }
}

/// One opener of a [`SnapshotExtent`].
#[derive(Debug)]
pub struct Snapshot {
    extent: SnapshotExtent,
    cursor: Cursor,
    /// File offset of the next byte that the cursor will give.
    offset: u64,
    /// The coordinate at which reads end. It is set to the end of the stored packets at open, by
    /// [`extend_visible`](Self::extend_visible), and by the first read after an end of file. If the
    /// reader is overtaken, it moves on to a record boundary.
    visible_end: u64,
    /// Whether an end of file was reported: the next read extends the visible size.
    at_end: bool,
    /// Whether it has no end before the store has.
    is_awaited: bool,
}

impl Snapshot {
    /// An opener whose end is the newest packet stored now.
    pub fn new(store: &dyn Store, extent: SnapshotExtent) -> Self {
        let mut cursor = Cursor::new(store, extent.format, Begin::Oldest, false);
        cursor.rewind(store, extent.begin);
        cursor.origin = extent.begin.number;
        let mut snapshot =
            Self { extent, cursor, offset: 0, visible_end: 0, at_end: false, is_awaited: false };
        snapshot.extend_visible(store);
        snapshot
    }

    /// For a store that is being filled from a source with an end: until the whole source is in the
    /// store, a read at the end returns [`ReadOutcome::Empty`].
    #[must_use]
    pub const fn awaited(mut self) -> Self {
        self.is_awaited = true;
        self
    }

    /// Returns `true` if a read at the end waits for more.
    #[must_use]
    pub const fn is_awaited(&self) -> bool {
        self.is_awaited
    }

    /// Returns `true` if a read would not wait.
    pub fn is_ready(&self, store: &dyn Store) -> bool {
        let bounds = store.bounds();
        let behind = self.extent.coordinate(self.cursor.position());
        !self.is_awaited
            || bounds.ended
            || self.cursor.carry_len() > 0
            || store.header().is_some() && self.extent.end(&bounds) > behind
    }

    /// Extends the visible size to the newest packet and the blocks after it: the opener has seen
    /// the current size.
    pub fn extend_visible(&mut self, store: &dyn Store) {
        self.visible_end = self.extent.end(&store.bounds());
    }

    /// The current counters, see [`Cursor::progress`].
    pub fn progress(&self, store: &dyn Store) -> CursorProgress {
        self.cursor.progress(store)
    }

    /// Reads at `offset`, as pread(2) does. At the end it returns [`ReadOutcome::End`], and the
    /// next read extends the visible size to the newest packet. An [`awaited`](Self::awaited)
    /// snapshot returns [`ReadOutcome::Empty`] at the end until the store has ended.
    ///
    /// # Errors
    /// [`CursorReadError`]; [`CursorReadError::Expired`] only if `offset` is not where the last
    /// read ended.
    pub fn read(
        &mut self,
        store: &dyn Store,
        offset: u64,
        want: usize,
        send: &mut dyn FnMut(&[IoSlice<'_>]) -> io::Result<()>,
    ) -> Result<ReadOutcome, CursorReadError> {
        // Before looking for packets: a reader that sees the end sees all packets before it.
        let is_awaited = self.is_awaited && !store.bounds().ended;
        // The header is sent next, if no byte was sent yet.
        if !self.cursor.begin(store) {
            return Ok(if is_awaited { ReadOutcome::Empty } else { ReadOutcome::End });
        }
        if std::mem::take(&mut self.at_end) || self.is_awaited {
            self.extend_visible(store);
        }
        if offset >= self.offset.saturating_add(self.remaining()) {
            if is_awaited {
                return Ok(ReadOutcome::Empty);
            }
            self.at_end = true;
            self.cursor.pass_over_foreign(store);
            return Ok(ReadOutcome::End);
        }
        if offset != self.offset {
            self.seek(store, offset)?;
        }
        let want = usize::try_from(self.remaining()).map_or(want, |remaining| remaining.min(want));
        let outcome = self.cursor.read(store, want, send)?;
        if let ReadOutcome::Sent(sent) = outcome {
            self.offset = self.offset.saturating_add(sent as u64);
            // A reader that was lapped may have moved past its end, but never into a record.
            self.visible_end = self.visible_end.max(self.extent.coordinate(self.cursor.position()));
            return Ok(outcome);
        }
        // The bytes before the end are no longer retained.
        self.at_end = true;
        Ok(ReadOutcome::End)
    }

    /// Bytes from the cursor to the visible end.
    fn remaining(&self) -> u64 {
        let behind = self.extent.coordinate(self.cursor.position());
        (self.cursor.carry_len() as u64).saturating_add(self.visible_end.saturating_sub(behind))
    }

    fn seek(&mut self, store: &dyn Store, offset: u64) -> Result<(), CursorReadError> {
        let header_len = self.extent.header_len(store);
        if offset < header_len {
            self.cursor.rewind(store, self.extent.begin);
            // The whole header becomes the carry; the part before `offset` is skipped.
            if self.cursor.begin(store) {
                self.cursor.carried = usize::try_from(offset).unwrap_or(0);
            }
        } else {
            // The file offset of `cursor.position()`. Between it and the last lap, offsets and
            // coordinates advance together; earlier bytes are no longer retained. An offset before
            // coordinate 0 wraps to a coordinate far after the end, which is not found either.
            let reached = self.offset.saturating_add(self.cursor.carry_len() as u64);
            let position = self.extent.coordinate(self.cursor.position());
            self.cursor.seek(store, position.wrapping_sub(reached).wrapping_add(offset))?;
        }
        self.offset = offset;
        Ok(())
    }
}
