//! A packet as the engine hands it to its flow.

use protocol::tcp::Direction;
use protocol::time::Timestamp;

use crate::record::PacketRecord;

/// A UDP datagram, or the properties of a packet that both protocols share.
#[derive(Clone, Copy, Debug)]
pub(super) struct Arrival {
    pub(super) number: u64,
    pub(super) time: Timestamp,
    pub(super) direction: Direction,
    /// Bytes on the wire, of the whole packet.
    pub(super) wire_len: u32,
    /// Bytes of its record in the store.
    pub(super) record_len: u32,
}

impl Arrival {
    /// The packet of a record.
    pub(super) fn new(
        number: u64,
        time: Timestamp,
        direction: Direction,
        record: &PacketRecord<'_>,
    ) -> Self {
        let record_len = u32::try_from(record.len()).unwrap_or(u32::MAX);
        Self { number, time, direction, wire_len: record.original_len, record_len }
    }
}
