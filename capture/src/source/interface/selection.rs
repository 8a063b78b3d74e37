//! Which of the received packets are stored, and what of them: the same for all ways of receiving.

use protocol::linktype::LinkType;
use protocol::time::Timestamp;

use super::FilterPlan;
use crate::filter::Filter;
use crate::own_transport::OwnPackets;
use crate::ring::{Append, RingNumber, Writer};
use crate::store::NoteRef;

/// A packet as it was received.
#[derive(Clone, Copy, Debug)]
pub(in crate::source) struct ReceivedPacket<'a> {
    pub(in crate::source) time: Timestamp,
    /// Length on the wire in bytes.
    pub(in crate::source) original_len: u32,
    /// The kernel has handed over only its first byte, because it has the mark of this process.
    pub(in crate::source) is_cut: bool,
    /// The captured bytes: `front`, and then `data`. One packet may be in two places.
    pub(in crate::source) front: &'a [u8],
    pub(in crate::source) data: &'a [u8],
}

/// The choice of the packets of one capture.
#[derive(Debug)]
pub(in crate::source) struct PacketSelection {
    link_type: LinkType,
    /// Bytes kept of a packet.
    snaplen: u32,
    /// A filter that the kernel does not apply as a whole: its own filter accepts more packets.
    filter: Option<Filter>,
    /// Packets of our own connections; `None` in another namespace, where they are not ours.
    own: Option<OwnPackets>,
    /// Room for a packet in two parts that is to be looked at as a whole.
    joined: Vec<u8>,
    /// Packets of our own connections since the last [`publish`](Self::publish).
    excluded: u64,
}

impl PacketSelection {
    pub(in crate::source) const fn new(
        link_type: LinkType,
        snaplen: u32,
        filter: Option<Filter>,
        own: Option<OwnPackets>,
    ) -> Self {
        Self { link_type, snaplen, filter, own, joined: Vec::new(), excluded: 0 }
    }

    /// The choice for a capture with this filter, which keeps `snaplen` bytes of a packet. The kernel
    /// accepts more packets than the filter if `is_coarse`; only packets of this network namespace
    /// can be our own.
    pub(super) fn for_plan(
        plan: &FilterPlan,
        link_type: LinkType,
        snaplen: u32,
        (is_coarse, is_here): (bool, bool),
    ) -> Self {
        let filter = is_coarse.then(|| plan.filter().clone());
        Self::new(link_type, snaplen, filter, is_here.then(OwnPackets::new))
    }

    /// The link type of the packets.
    pub(in crate::source) const fn link_type(&self) -> LinkType {
        self.link_type
    }

    /// Puts a packet into the ring, unless it is not for this capture.
    #[inline]
    pub(in crate::source) fn store(&mut self, writer: &mut Writer, packet: ReceivedPacket<'_>) {
        self.store_noted(writer, packet, NoteRef::default());
    }

    /// Like [`store`](Self::store); a packet in one part may have a note.
    #[inline]
    pub(in crate::source) fn store_noted(
        &mut self,
        writer: &mut Writer,
        packet: ReceivedPacket<'_>,
        note: NoteRef<'_>,
    ) {
        if !self.takes(writer.ring().number(), packet) {
            return;
        }
        let [front, data] = self.kept(packet);
        let ReceivedPacket { time, original_len, .. } = packet;
        let stored = if note.is_empty() || !front.is_empty() {
            writer.append_joined(time, original_len, [front, data])
        } else {
            writer.append_noted(time, original_len, data, note)
        };
        // The ring counts oversize packets.
        let (Append::Stored | Append::Oversize) = stored;
    }

    /// Returns true if a packet is for this capture. Counts it if it is one of our own connections.
    #[inline]
    pub(in crate::source) fn takes(
        &mut self,
        ring: RingNumber,
        packet: ReceivedPacket<'_>,
    ) -> bool {
        let ReceivedPacket { time, original_len, is_cut, front, data } = packet;
        if is_cut {
            self.excluded += 1;
            return false;
        }
        let Self { filter, own, joined, .. } = self;
        if filter.is_none() && !own.as_ref().is_some_and(OwnPackets::is_needed) {
            return true;
        }
        let whole = joined_of(front, data, joined);
        if filter.as_ref().is_some_and(|filter| !filter.matches(original_len, whole)) {
            return false;
        }
        let what = (self.link_type, original_len);
        let is_own = own.as_mut().is_some_and(|own| own.has(ring, what, time, whole));
        self.excluded += u64::from(is_own);
        !is_own
    }

    /// The bytes of a packet that are stored, in two parts.
    #[inline]
    pub(in crate::source) fn kept<'a>(&self, packet: ReceivedPacket<'a>) -> [&'a [u8]; 2] {
        let ReceivedPacket { front, data, .. } = packet;
        let snaplen = self.snaplen as usize;
        let front = front.get(..snaplen).unwrap_or(front);
        [front, data.get(..snaplen - front.len()).unwrap_or(data)]
    }

    /// Packets of our own connections since the last call.
    pub(in crate::source) const fn take_excluded(&mut self) -> u64 {
        std::mem::replace(&mut self.excluded, 0)
    }

    /// Makes the stored packets visible, and counts those that were left out.
    pub(in crate::source) fn publish(&mut self, writer: &mut Writer) {
        let excluded = self.take_excluded();
        if excluded > 0 {
            writer.add_excluded(excluded);
        }
        writer.publish();
    }

    /// Forgets what is no longer needed of connections. To be called now and then.
    pub(in crate::source) fn tidy(&mut self) {
        if let Some(own) = &mut self.own {
            own.tidy();
        }
    }
}

/// The bytes of a packet as a whole; `room` is for those of two parts.
fn joined_of<'a>(front: &[u8], data: &'a [u8], room: &'a mut Vec<u8>) -> &'a [u8] {
    if front.is_empty() {
        return data;
    }
    room.clear();
    room.extend_from_slice(front);
    room.extend_from_slice(data);
    room
}
