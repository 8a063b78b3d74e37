//! Recognizes packets of our own transport, for one capture.
//!
//! The decoder of the flows finds addresses and ports, so that all link types, VLAN tags, extension
//! headers and fragments are understood alike here and there. It runs only while the table has
//! entries.

use std::net::SocketAddr;
use std::time::Duration;

use protocol::decode::{DecodeOptions, DecodeOutcome, Decoder, TcpFlags, Transport};
use protocol::linktype::LinkType;
use protocol::time::Timestamp;

use super::OwnTransport;
use crate::ring::RingNumber;

/// Bytes of a packet in which the addresses and the ports are: the headers of Ethernet, two tags,
/// IPv6 with some extension headers, and TCP.
pub(crate) const HEADERS_LEN: u32 = 256;

/// Compares the packets of one capture with the table.
#[derive(Debug)]
pub(crate) struct OwnPackets {
    transport: &'static OwnTransport,
    /// Made with the first entry.
    decoder: Option<Box<Decoder>>,
    number: u64,
}

impl OwnPackets {
    /// For a capture in the network namespace of this process.
    pub(crate) fn new() -> Self {
        Self::of(OwnTransport::of_process())
    }

    pub(super) fn of(transport: &'static OwnTransport) -> Self {
        Self { transport, decoder: None, number: 0 }
    }

    /// Returns true if packets must be compared at all. A connection that is made later sends its
    /// first packet later.
    #[inline]
    pub(crate) fn is_needed(&self) -> bool {
        !self.transport.is_empty()
    }

    /// Returns true if a packet is of our own transport.
    ///
    /// Of a datagram in fragments, the first decides; a fragment that comes before the first one is
    /// not recognized.
    #[inline]
    pub(crate) fn has(
        &mut self,
        ring: RingNumber,
        (link_type, original_len): (LinkType, u32),
        time: Timestamp,
        data: &[u8],
    ) -> bool {
        !self.transport.is_empty() && self.compare(ring, (link_type, original_len), time, data)
    }

    fn compare(
        &mut self,
        ring: RingNumber,
        (link_type, original_len): (LinkType, u32),
        time: Timestamp,
        data: &[u8],
    ) -> bool {
        let decoder = self.decoder.get_or_insert_with(|| Box::new(Decoder::new(options())));
        self.number += 1;
        let DecodeOutcome::Decoded(packet) =
            decoder.packet(link_type, self.number, time, original_len, data)
        else {
            return false;
        };
        let Transport::Tcp(tcp) = packet.transport else { return false };
        let ends = [
            SocketAddr::new(packet.source, tcp.source_port),
            SocketAddr::new(packet.destination, tcp.destination_port),
        ];
        let opens = tcp.flags.contains(TcpFlags::SYN) && !tcp.flags.contains(TcpFlags::ACK);
        self.transport.owns(ring, ends, (time, opens))
    }

    /// Forgets sockets that were closed long ago.
    pub(crate) fn tidy(&self) {
        self.transport.tidy();
    }
}

/// No tunnels: what they carry are copies in another network. Fragments as they come, and few of
/// them at a time, since TCP avoids them.
fn options() -> DecodeOptions {
    DecodeOptions {
        tunnels: false,
        early: true,
        max_datagrams: 64,
        max_fragment_bytes: 64 << 10,
        fragment_timeout: Duration::from_secs(30),
        ..DecodeOptions::default()
    }
}
