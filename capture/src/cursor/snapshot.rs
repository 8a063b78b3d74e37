//! A store as a file with offsets: what is retained now, then end of file, then what came since.
//!
//! [`Extent`] is the file itself: where it begins in the store, and so what its size is at any
//! moment. It never shrinks; when the store drops its oldest packets, a new file with a new
//! beginning takes its place in the tree, and the old one goes on for those who have it open.
//!
//! [`Snapshot`] is one opener of it. A reader that goes straight on is a cursor like any other: if
//! it is lapped it continues at the oldest packet retained, so that what it has read stays a valid
//! beginning of a savefile, and the offsets behind that place mean other packets than before.
//! Going back to an offset that is no longer retained is an error instead.

use std::io::{self, IoSlice};

use super::{Begin, Cursor, Format, Outcome, Progress, ReadError};
use crate::savefile::{pcap, pcapng_writer};
use crate::store::{Position, Store};

/// A file made of a store: everything from a place on.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Extent {
    format: Format,
    begin: Position,
}

impl Extent {
    /// Everything retained now, and what will come.
    pub fn new(store: &dyn Store, format: Format) -> Self {
        Self { format, begin: store.bounds().oldest }
    }

    /// Bytes of the file now; 0 while the store has no header.
    #[must_use]
    pub fn size(&self, store: &dyn Store) -> u64 {
        self.size_at(store, store.bounds().next)
    }

    fn size_at(&self, store: &dyn Store, next: Position) -> u64 {
        match store.header() {
            None => 0,
            Some(_) => {
                let header_len = self.header_len(store);
                header_len.saturating_add(
                    self.coordinate(next).saturating_sub(self.coordinate(self.begin)),
                )
            }
        }
    }

    /// Bytes before the first packet's record or block.
    fn header_len(&self, store: &dyn Store) -> u64 {
        match self.format {
            Format::Pcap => pcap::FILE_HEADER_LEN as u64,
            Format::Pcapng => {
                let interfaces = (0..store.interfaces_before(self.begin.number))
                    .map_while(|id| store.interface(id))
                    .map(|interface| pcapng_writer::interface_description_len(&interface));
                let section = pcapng_writer::section_header_len(store.section_options().len());
                interfaces.fold(section, u64::saturating_add)
            }
        }
    }

    const fn coordinate(&self, position: Position) -> u64 {
        match self.format {
            Format::Pcap => position.pcap,
            Format::Pcapng => position.pcapng,
        }
    }
}

/// One opener of an [`Extent`].
#[derive(Debug)]
pub struct Snapshot {
    extent: Extent,
    cursor: Cursor,
    /// File offset of the next byte the cursor will give.
    offset: u64,
    /// Reads end here: the coordinate up to which packets were stored at open, or at the first
    /// read after an end of file was handed out, or the first record boundary a lapped reader came
    /// to behind it.
    end: u64,
    /// An end of file was handed out: the next read moves the end.
    at_end: bool,
    /// It has no end before the store has.
    is_awaited: bool,
}

impl Snapshot {
    /// An opener whose end is what is stored now.
    pub fn new(store: &dyn Store, extent: Extent) -> Self {
        let mut cursor = Cursor::new(store, extent.format, Begin::Oldest, false);
        cursor.rewind(store, extent.begin);
        cursor.origin = extent.begin.number;
        let mut snapshot =
            Self { extent, cursor, offset: 0, end: 0, at_end: false, is_awaited: false };
        snapshot.rearm(store);
        snapshot
    }

    /// The same of a store that is being filled from something that has an end: until all of that is
    /// in the store, a read at the end is [`Outcome::Empty`].
    #[must_use]
    pub const fn awaited(mut self) -> Self {
        self.is_awaited = true;
        self
    }

    /// Whether a read at the end waits for more.
    #[must_use]
    pub const fn is_awaited(&self) -> bool {
        self.is_awaited
    }

    /// Whether a read would not wait.
    pub fn is_ready(&self, store: &dyn Store) -> bool {
        let bounds = store.bounds();
        let behind = self.extent.coordinate(self.cursor.position());
        !self.is_awaited
            || bounds.ended
            || self.cursor.carry_len() > 0
            || store.header().is_some() && self.extent.coordinate(bounds.next) > behind
    }

    /// Moves the end to the newest packet.
    pub fn rearm(&mut self, store: &dyn Store) {
        self.end = self.extent.coordinate(store.bounds().next);
    }

    /// Counters as of now, see [`Cursor::progress`].
    pub fn progress(&self, store: &dyn Store) -> Progress {
        self.cursor.progress(store)
    }

    /// Reads at `offset`, as pread(2) does: [`Outcome::End`] at the end, which the next read moves
    /// to the newest packet. One that is [`awaited`](Self::awaited) gives [`Outcome::Empty`] there
    /// until the store has ended.
    ///
    /// # Errors
    /// [`ReadError`]; [`ReadError::Expired`] only if `offset` is not where the last read ended.
    pub fn read(
        &mut self,
        store: &dyn Store,
        offset: u64,
        want: usize,
        send: &mut dyn FnMut(&[IoSlice<'_>]) -> io::Result<()>,
    ) -> Result<Outcome, ReadError> {
        // Before looking for packets: a reader that sees the end sees all that came before it.
        let is_awaited = self.is_awaited && !store.bounds().ended;
        // The header becomes what is to be sent next, if nothing was sent yet.
        if !self.cursor.begin(store) {
            return Ok(if is_awaited { Outcome::Empty } else { Outcome::End });
        }
        if std::mem::take(&mut self.at_end) || self.is_awaited {
            self.rearm(store);
        }
        if offset >= self.offset.saturating_add(self.left()) {
            if is_awaited {
                return Ok(Outcome::Empty);
            }
            self.at_end = true;
            self.cursor.pass_over_foreign(store);
            return Ok(Outcome::End);
        }
        if offset != self.offset {
            self.seek(store, offset)?;
        }
        let want = usize::try_from(self.left()).map_or(want, |left| left.min(want));
        let outcome = self.cursor.read(store, want, send)?;
        if let Outcome::Sent(sent) = outcome {
            self.offset = self.offset.saturating_add(sent as u64);
            // A reader that was lapped may have come out behind its end: never in a record.
            self.end = self.end.max(self.extent.coordinate(self.cursor.position()));
            return Ok(outcome);
        }
        // What was to be read before the end is no longer there.
        self.at_end = true;
        Ok(Outcome::End)
    }

    /// Bytes from the cursor to the end.
    fn left(&self) -> u64 {
        let behind = self.extent.coordinate(self.cursor.position());
        (self.cursor.carry_len() as u64).saturating_add(self.end.saturating_sub(behind))
    }

    fn seek(&mut self, store: &dyn Store, offset: u64) -> Result<(), ReadError> {
        let header_len = self.extent.header_len(store);
        if offset < header_len {
            self.cursor.rewind(store, self.extent.begin);
            // The whole header becomes the carry, of which the part before `offset` is skipped.
            if self.cursor.begin(store) {
                self.cursor.carried = usize::try_from(offset).unwrap_or(0);
            }
        } else {
            // The file offset of `cursor.position()`. Between it and the last lap, offsets and
            // coordinates go side by side; what lies before is no longer retained. An offset
            // before coordinate 0 wraps to one far behind the end, and is not found either.
            let reached = self.offset.saturating_add(self.cursor.carry_len() as u64);
            let position = self.extent.coordinate(self.cursor.position());
            self.cursor.seek(store, position.wrapping_sub(reached).wrapping_add(offset))?;
        }
        self.offset = offset;
        Ok(())
    }
}
