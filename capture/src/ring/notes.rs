//! What a pcapng stream has beside packets, and its layout in a segment.
//!
//! ```text
//!   | record | record | record |   free   | entry | entry | entry |
//!   front of the body                      newest           oldest
//! ```
//!
//! An entry belongs to one record: it has the index of the record in the segment, its interface,
//! and the note. Its fixed part is at its end, so that a walk from the end of the body downwards
//! finds one entry after the other. A record without an entry has interface 0 and no note. So live
//! interfaces cost nothing, and notes disappear with their packets.
//!
//! Another process may have changed the bytes: a walk over any bytes ends.

use crate::store::{NoteRef, RecordInterface};

/// Bytes of the fixed part of an entry: five numbers of 32 bits.
pub(super) const FIXED_LEN: usize = 20;

/// The interface and the note of one record.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct NoteEntry<'a> {
    /// Index of the record in the segment.
    pub(crate) index: u32,
    pub(crate) interface: RecordInterface,
    pub(crate) note: NoteRef<'a>,
}

impl<'a> NoteEntry<'a> {
    /// Bytes of the entry in a segment.
    pub(super) const fn len(&self) -> usize {
        FIXED_LEN + self.note.blocks.len() + self.note.options.len()
    }

    /// The fixed part, which is at the end. The blocks and the options lie before it, in this
    /// order.
    pub(super) fn fixed(&self) -> [u8; FIXED_LEN] {
        let len = |bytes: &[u8]| u32::try_from(bytes.len()).unwrap_or(u32::MAX);
        let mut fixed = [0; FIXED_LEN];
        let (fields, _) = fixed.as_chunks_mut::<4>();
        for (field, value) in fields.iter_mut().zip([
            self.index,
            self.interface.id,
            self.interface.known,
            len(self.note.blocks),
            len(self.note.options),
        ]) {
            *field = value.to_ne_bytes();
        }
        fixed
    }

    /// The entry that ends at byte `end` of the notes of a segment, and its first byte; `None` if
    /// there is no valid entry.
    pub(super) fn before(notes: &'a [u8], end: usize) -> Option<(Self, usize)> {
        let (rest, fixed) = notes.get(..end)?.split_last_chunk::<FIXED_LEN>()?;
        let (fields, _) = fixed.as_chunks::<4>();
        let mut numbers = [0; 5];
        for (number, field) in numbers.iter_mut().zip(fields) {
            *number = u32::from_ne_bytes(*field);
        }
        let [index, id, known, blocks, options] = numbers;
        // The bytes come from a file of blocks, so their length is a multiple of 4.
        if !blocks.is_multiple_of(4) || !options.is_multiple_of(4) || id >= known {
            return None;
        }
        let split = rest.len().checked_sub(usize::try_from(options).ok()?)?;
        let start = split.checked_sub(usize::try_from(blocks).ok()?)?;
        let note = NoteRef { blocks: rest.get(start..split)?, options: rest.get(split..)? };
        Some((Self { index, interface: RecordInterface { id, known }, note }, start))
    }
}

/// A walk over the notes of a segment, for lookups of one record after the other.
#[derive(Clone, Copy, Debug)]
pub(super) struct NoteWalk {
    /// The entries after this byte are of records before `reached`.
    end: usize,
    reached: u32,
}

impl NoteWalk {
    /// A walk over `len` bytes of notes.
    pub(super) const fn new(len: usize) -> Self {
        Self { end: len, reached: 0 }
    }

    /// The entry of the record with this index. Costs O(1) if the previous lookup was for a record
    /// shortly before it, and otherwise a walk over all entries before it.
    pub(super) fn find<'a>(&mut self, notes: &'a [u8], index: u32) -> Option<NoteEntry<'a>> {
        if index < self.reached {
            *self = Self::new(notes.len());
        }
        // Each entry lies before the previous one in the bytes, so this ends.
        while let Some((entry, start)) = NoteEntry::before(notes, self.end) {
            if entry.index >= index {
                self.reached = index;
                return (entry.index == index).then_some(entry);
            }
            self.end = start;
        }
        self.reached = index;
        None
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn bytes() -> impl Strategy<Value = Vec<u8>> {
        (0..4_usize, any::<u8>()).prop_map(|(words, fill)| vec![fill; words * 4])
    }

    proptest! {
        #[test]
        fn every_note_is_found_in_any_order(
            entries in prop::collection::btree_map(0..60_u32, (0..5_u32, 1..5_u32, bytes(), bytes()), 0..20),
            asked in prop::collection::vec(0..64_u32, 0..60),
        ) {
            let mut area = Vec::new();
            let mut wanted = Vec::new();
            for (index, (id, more, blocks, options)) in &entries {
                let interface = RecordInterface { id: *id, known: id + more };
                let entry = NoteEntry { index: *index, interface, note: NoteRef { blocks, options } };
                let whole = [&blocks[..], options, &entry.fixed()].concat();
                prop_assert_eq!(whole.len(), entry.len());
                area.splice(..0, whole);
                wanted.push(entry);
            }
            let mut walk = NoteWalk::new(area.len());
            for index in asked.into_iter().chain(0..64) {
                let expected = wanted.iter().find(|entry| entry.index == index).copied();
                prop_assert_eq!(walk.find(&area, index), expected);
            }
        }

        #[test]
        fn a_walk_over_any_bytes_ends(
            area in prop::collection::vec(prop_oneof![3 => Just(0_u8), 1 => any::<u8>()], 0..400),
            asked in prop::collection::vec(any::<u32>(), 1..9),
        ) {
            let mut walk = NoteWalk::new(area.len());
            for index in asked {
                walk.find(&area, index);
            }
        }
    }
}
