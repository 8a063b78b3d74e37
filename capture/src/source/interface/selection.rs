//! Which of the received packets are stored, and what of them: the same for all ways of receiving.

use protocol::linktype::LinkType;
use protocol::time::Timestamp;

use crate::filter::Filter;
use crate::own_transport::OwnPackets;
use crate::ring::{Append, Writer};
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
        let ReceivedPacket { time, original_len, is_cut, front, data } = packet;
        if is_cut {
            self.excluded += 1;
            return;
        }
        let Self { filter, own, joined, .. } = self;
        if filter.is_some() || own.as_ref().is_some_and(OwnPackets::is_needed) {
            let whole = joined_of(front, data, joined);
            if filter.as_ref().is_some_and(|filter| !filter.matches(original_len, whole)) {
                return;
            }
            let (ring, what) = (writer.ring().number(), (self.link_type, original_len));
            if own.as_mut().is_some_and(|own| own.has(ring, what, time, whole)) {
                self.excluded += 1;
                return;
            }
        }
        let snaplen = self.snaplen as usize;
        let front = front.get(..snaplen).unwrap_or(front);
        let data = data.get(..snaplen - front.len()).unwrap_or(data);
        let stored = if note.is_empty() || !front.is_empty() {
            writer.append_joined(time, original_len, [front, data])
        } else {
            writer.append_noted(time, original_len, data, note)
        };
        // The ring counts oversize packets.
        let (Append::Stored | Append::Oversize) = stored;
    }

    /// Makes the stored packets visible, and counts those that were left out.
    pub(in crate::source) fn publish(&mut self, writer: &mut Writer) {
        let excluded = std::mem::take(&mut self.excluded);
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
