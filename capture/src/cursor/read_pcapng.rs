//! One reply of a pcapng reader: records are encoded as blocks into a buffer, and bytes that do not
//! fit the reader's buffer are kept as the carry.

use std::io::{self, IoSlice};

use super::{
    Cursor, CursorReadError, CursorStep, Encoder, Holding, ReadOutcome, cut_record, next_chunk,
    storage,
};
use crate::record;
use crate::store::Store;

impl Cursor {
    pub(super) fn read_pcapng(
        &mut self,
        store: &dyn Store,
        want: usize,
        ended: bool,
        send: &mut dyn FnMut(&[IoSlice<'_>]) -> io::Result<()>,
    ) -> Result<ReadOutcome, CursorReadError> {
        let from_carry = self.carry_len().min(want);
        let left = want.saturating_sub(from_carry);
        let mut step = self.step();
        let mut blocks = std::mem::take(&mut self.encoder.scratch);
        blocks.clear();
        let mut encoder = self.encoder.clone();
        if left > 0 {
            let made = self.encode(store, &mut step, &mut encoder, left, ended, &mut blocks);
            if let Err(error) = made {
                self.encoder.scratch = blocks;
                return Err(error);
            }
        }
        let from_blocks = blocks.len().min(left);
        let sent = from_carry.saturating_add(from_blocks);
        let carry = self.carry().get(..from_carry).unwrap_or_default();
        let fresh = blocks.get(..from_blocks).unwrap_or_default();
        let result = if sent == 0 {
            Ok(ReadOutcome::Empty)
        } else {
            send(&[IoSlice::new(carry), IoSlice::new(fresh)])
                .map(|()| ReadOutcome::Sent(sent))
                .map_err(CursorReadError::Send)
        };
        if result.is_ok() {
            self.consume_carry(from_carry);
            self.carry.extend_from_slice(blocks.get(from_blocks..).unwrap_or_default());
            self.delivered_bytes = self.delivered_bytes.saturating_add(sent as u64);
            self.encoder = encoder;
            self.apply(&step);
        }
        self.encoder.scratch = blocks;
        result
    }

    /// Encodes records until there are `want` bytes or no more records.
    fn encode(
        &self,
        store: &dyn Store,
        step: &mut CursorStep,
        encoder: &mut Encoder,
        want: usize,
        ended: bool,
        blocks: &mut Vec<u8>,
    ) -> Result<(), CursorReadError> {
        let Some(header) = store.header() else { return Ok(()) };
        let delivered = |step: &CursorStep| {
            let passed = self.origin.saturating_add(self.lost).saturating_add(step.lost);
            step.place.position.number.saturating_sub(passed)
        };
        while blocks.len() < want {
            let lost_before = step.lost;
            let may_lap = blocks.is_empty() && self.carry_len() == 0;
            let found = next_chunk(store, self.format, step, may_lap, Holding::Nothing)?;
            // Also if no packet follows the loss yet: the loss is before the next packet.
            encoder.note_loss(step.lost.saturating_sub(lost_before));
            // After the search for packets: the holes before the packets it found are known now.
            let number = step.place.position.number;
            let mut hole = encoder.holes_before(store, number, delivered(step), blocks);
            let Some((chunk, offset)) = found else {
                let trailing = encoder.trailing(store, &header, number, blocks);
                let position = &mut step.place.position;
                position.pcapng = position.pcapng.saturating_add(trailing);
                if ended && blocks.is_empty() && self.carry_len() == 0 {
                    encoder.finish(store, delivered(step), blocks);
                }
                break;
            };
            encoder.statistics_if_due(store, delivered(step), blocks);
            let bytes = chunk.bytes().get(offset..).unwrap_or_default();
            let (before, made) = (step.place.position.number, blocks.len());
            for record in record::PacketRecords::new(bytes) {
                let index = step.place.position.number.saturating_sub(chunk.first.number);
                let index = usize::try_from(index).unwrap_or(usize::MAX);
                let interface = chunk.interface(index);
                if step.place.position.number >= hole {
                    let number = step.place.position.number;
                    hole = encoder.holes_before(store, number, delivered(step), blocks);
                }
                let has_comment = encoder.has_comment();
                if has_comment {
                    encoder.describe_missed(store, &header, step.place.position.number, blocks);
                }
                let beside = (interface, chunk.note(index));
                let measured = encoder.packet(store, &header, beside, &record, blocks);
                step.place.position.number = step.place.position.number.saturating_add(1);
                if chunk.is_in_pcap(index) {
                    step.place.position.pcap =
                        step.place.position.pcap.saturating_add(record.len() as u64);
                }
                step.place.position.pcapng = step.place.position.pcapng.saturating_add(measured);
                if has_comment {
                    step.plain = step.place.position.pcapng;
                }
                if blocks.len() >= want {
                    break;
                }
            }
            step.place.chunk = chunk.id;
            if step.place.position.number == before {
                // First send the blocks made so far, then report the error.
                if made > 0 {
                    break;
                }
                return Err(cut_record());
            }
        }
        store.intact().map_err(storage)
    }
}
