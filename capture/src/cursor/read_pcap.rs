//! One reply of a pcap reader: slices of the store, cut where the reader's buffer ends.
//!
//! Delivery is counted in whole records. The records are walked, header by header, up to the first
//! one that begins after the cut. The rest of the last record becomes the carry.

use std::hint::black_box;
use std::io::{self, IoSlice};

use super::{
    CHUNKS_PER_REPLY, Cursor, CursorReadError, Holding, ReadOutcome, cut_record, next_chunk,
    storage,
};
use crate::record;
use crate::store::{Chunk, Store};

impl Cursor {
    pub(super) fn read_pcap(
        &mut self,
        store: &dyn Store,
        want: usize,
        send: &mut dyn FnMut(&[IoSlice<'_>]) -> io::Result<()>,
    ) -> Result<ReadOutcome, CursorReadError> {
        let from_carry = self.carry_len().min(want);
        let mut left = want.saturating_sub(from_carry);
        let mut step = self.step();
        let mut parts: [Option<(Chunk<'_>, usize, usize)>; CHUNKS_PER_REPLY] =
            [const { None }; CHUNKS_PER_REPLY];
        // The rest of the last record, in the chunk of the last part.
        let mut rest = 0;
        for (held, part) in parts.iter_mut().enumerate() {
            if left == 0 {
                break;
            }
            let holding = if held == 0 { Holding::Nothing } else { Holding::Chunks };
            let found = next_chunk(store, self.format, &mut step, from_carry == 0, holding)?;
            let Some((chunk, offset)) = found else { break };
            let bytes = chunk.pcap_bytes().get(offset..).unwrap_or_default();
            let take = left.min(bytes.len());
            let (walked, count) = walk(bytes, take);
            if walked < take {
                return Err(cut_record());
            }
            step.place.chunk = chunk.id;
            let number = chunk.pcap_number(step.place.position.number, count);
            let behind = step.place.position.number.saturating_add(count);
            step.foreign = step.foreign.saturating_add(number.saturating_sub(behind));
            step.place.position.number = number;
            step.place.position.pcap = step.place.position.pcap.saturating_add(walked as u64);
            rest = walked.saturating_sub(take);
            left = left.saturating_sub(take);
            *part = Some((chunk, offset, take));
        }
        let mut slices = [IoSlice::new(&[]); CHUNKS_PER_REPLY + 1];
        let carry = self.carry().get(..from_carry).unwrap_or_default();
        let mut used = 0_usize;
        let bodies = parts.iter().flatten().map(|(chunk, offset, take)| {
            chunk.pcap_bytes().get(*offset..offset.saturating_add(*take)).unwrap_or_default()
        });
        for (slice, bytes) in slices
            .iter_mut()
            .zip(std::iter::once(carry).chain(bodies).filter(|bytes| !bytes.is_empty()))
        {
            *slice = IoSlice::new(bytes);
            used = used.saturating_add(1);
        }
        let sent = want.saturating_sub(left);
        if sent == 0 {
            self.apply(&step);
            return Ok(ReadOutcome::Empty);
        }
        store.intact().map_err(storage)?;
        send(slices.get(..used).unwrap_or_default()).map_err(CursorReadError::Send)?;
        // The bytes have been sent. Now the cursor moves, while the chunks are still pinned.
        self.consume_carry(from_carry);
        if let Some((chunk, offset, take)) = parts.iter().flatten().last() {
            let end = offset.saturating_add(*take);
            if let Some(bytes) = chunk.pcap_bytes().get(end..end.saturating_add(rest)) {
                self.carry.extend_from_slice(bytes);
            }
        }
        self.delivered_bytes = self.delivered_bytes.saturating_add(sent as u64);
        self.apply(&step);
        Ok(ReadOutcome::Sent(sent))
    }
}

/// Records to look ahead in a walk: the number of cache lines that a processor fetches at a time.
const AHEAD: usize = 8;

/// Walks whole records until at least `take` bytes are covered. Returns the bytes and records
/// walked.
fn walk(bytes: &[u8], take: usize) -> (usize, u64) {
    let (mut walked, mut count) = (0_usize, 0_u64);
    while walked < take {
        let Some(len) = bytes.get(walked..).and_then(record::len_at) else { break };
        // A guess at the place of a header further on, so that the processor fetches it now. The
        // place of each record is known only from the length of the one before, so a walk over
        // uncached memory would wait for one cache line at a time.
        black_box(bytes.get(walked.saturating_add(AHEAD.saturating_mul(len))).copied());
        walked = walked.saturating_add(len);
        count = count.saturating_add(1);
    }
    (walked, count)
}
