//! Packets and savefiles byte by byte, for the tests and benchmarks of all crates.
//!
//! Nothing here uses the product's crates: the bytes come from the formats' own specifications, so
//! a mistake in the product cannot hide in its tests. A packet is made from the inside out:
//!
//! ```ignore
//! let datagram = frames::udp(client, server, b"question");
//! let packet = frames::ip(client.ip(), server.ip(), frames::UDP, &datagram);
//! let frame = frames::ethernet(&[], frames::IPV4, &packet);
//! let mut savefile = Format::default().header();
//! Format::default().append(&mut savefile, time, &frame, frame.len());
//! ```

#![allow(clippy::missing_panics_doc, reason = "panicking is how a test helper reports misuse")]

mod layers;
mod pcap;
pub mod pcapng;

pub use layers::{
    HARDWARE, IPV4, IPV6, TCP, UDP, checksum, ethernet, ethernet_header, ip, ipv4, ipv4_fragment,
    ipv4_header, ipv6, tcp, tcp_with_options, udp, udp_without_checksum,
};
pub use pcap::{ETHERNET, Format};

/// Flags of a TCP segment, RFC 9293 section 3.1.
pub mod flags {
    /// The sender has no more data.
    pub const FIN: u8 = 1;
    /// The sequence number is the first one.
    pub const SYN: u8 = 2;
    /// The connection is reset.
    pub const RST: u8 = 4;
    /// The data should be delivered at once.
    pub const PSH: u8 = 8;
    /// The acknowledgment number counts.
    pub const ACK: u8 = 16;
}
