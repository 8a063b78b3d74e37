//! Finds the addresses, the ports and the place of the payload in a packet's bytes.
//!
//! ```text
//!   link      Ethernet, VLAN tags, LLC/SNAP, MPLS, PPPoE, PPP, SLL, SLL2, NULL, LOOP, RAW, NFLOG
//!    │  ▲
//!    ▼  │     Ethernet again
//!   ip  │     IPv4, IPv6 and its extension headers ◀──▶ fragments
//!    │  │
//!    ▼  │
//!   transport ──▶ tunnel    GRE, ERSPAN, VXLAN, Geneve, IP in IP, MPLS in IP
//! ```
//!
//! A [`Decoder`] takes packets one by one, each with its capture time. It does no I/O and has no
//! clock. It copies no payload: the result is a list of [`PayloadPart`]s, places in captured
//! packets, also for a datagram that came in fragments. Only the first bytes of a datagram under
//! reassembly are kept, because they may contain headers.
//!
//! All lengths are lengths on the wire, so bytes beyond the snapshot length are known to be
//! missing. If a header states the length of its packet, the packet ends there: Ethernet padding is
//! no payload. A stated length of 0 does not end the packet. Senders write 0 if the packet had no
//! length yet (TSO) or is too long for the field (BIG TCP). Neither does a length larger than the
//! enclosing packet. In both cases the enclosing length applies.
//!
//! All input comes from strangers. Nothing panics, and the work for a packet is linear in its
//! headers. The number, the memory and the age of fragments have limits ([`DecodeOptions`]).
//!
//! etherparse reads the fixed layouts. This module reads those that etherparse does not know (SLL2,
//! NFLOG, PPP, MPLS, all of the tunnels), and those that it refuses as a whole: a TCP header whose
//! options are cut, and options it does not know.

mod fragments;
mod ip;
mod link;
mod overlaps;
mod transport;
mod tunnel;
mod view;

use std::net::IpAddr;
use std::time::Duration;

pub use fragments::FragmentCounters;
pub use transport::{TcpFlags, TcpHeader, Transport};
pub use tunnel::{PacketTunnel, TunnelKind};
pub use view::{Payload, PayloadExtents, PayloadPart, PayloadParts};

use crate::linktype::LinkType;
use crate::time::Timestamp;
use fragments::{FragmentedDatagram, Fragments};
use view::{At, HeaderView};

/// Maximum number of nested headers that may contain another packet (IP, MPLS stack, PPPoE,
/// tunnels).
///
/// IPv4 in VXLAN in GRE in IPv4 after MPLS has seven. A packet with more than 24 was built to have
/// them.
const MAX_NESTING: u8 = 24;

/// Maximum number of VLAN ids of one packet. QinQ has two, and two more inside a tunnel.
const MAX_VLANS: usize = 8;

/// How a [`Decoder`] decodes, and its limits.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct DecodeOptions {
    /// Whether to decode the contents of tunnels. If not, the result is the outer packet. MPLS and
    /// PPPoE have no outer packet, so their contents are always decoded.
    pub tunnels: bool,
    /// Whether fragments with different VLAN ids belong to different datagrams. If not, equal
    /// addresses in two networks count as the same.
    pub vlans: bool,
    /// Whether to return TCP and UDP payload of fragmented datagrams fragment by fragment, starting
    /// with the first fragment ([`DecodedPacket::portion`]), because the others may never come. If
    /// not, the payload is returned when its datagram is complete. The contents of tunnels always
    /// wait for the complete datagram.
    pub early: bool,
    /// The bytes to keep where fragments overlap.
    pub overlap: Overlap,
    /// Maximum number of datagrams under reassembly. A new one evicts the oldest.
    pub max_datagrams: usize,
    /// Maximum number of pieces of one datagram. A fragment that would exceed it is refused.
    pub max_fragments: usize,
    /// Maximum memory of datagrams under reassembly, in bytes. When it is exceeded, the oldest are
    /// evicted.
    pub max_fragment_bytes: usize,
    /// Time after its first fragment in which a datagram must be complete.
    pub fragment_timeout: Duration,
}

impl Default for DecodeOptions {
    /// Tunnels are decoded, and the first bytes are kept. The memory limit is that of Linux
    /// (`ipfrag_high_thresh`); 4096 small datagrams need about as much. RFC 8200 gives a datagram
    /// one minute. 64 KiB at IPv4's minimum MTU of 68 bytes make 1366 pieces, so 2048 are enough.
    fn default() -> Self {
        Self {
            tunnels: true,
            vlans: true,
            early: false,
            overlap: Overlap::First,
            max_datagrams: 4096,
            max_fragments: 2048,
            max_fragment_bytes: 4 << 20,
            fragment_timeout: Duration::from_secs(60),
        }
    }
}

/// The bytes to keep where fragments overlap.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Overlap {
    /// The bytes that came first.
    #[default]
    First,
    /// The bytes that came last, until the datagram is complete.
    Last,
}

/// Decodes packets, and keeps the fragments of incomplete datagrams.
#[derive(Debug)]
pub struct Decoder {
    options: DecodeOptions,
    fragments: Fragments,
    counters: DecodeCounters,
    /// The reassembled datagram that the last [`DecodedPacket`] borrows from.
    whole: Option<Box<FragmentedDatagram>>,
    /// The portion that the last [`DecodedPacket`] borrows.
    portion: Option<Box<Portion>>,
}

/// The result for one packet.
#[derive(Clone, Debug)]
pub enum DecodeOutcome<'d> {
    /// It is an IP packet, completes one, or contains a [`Portion`] of one.
    Decoded(DecodedPacket<'d>),
    /// It is a fragment of a datagram. More fragments must come before anything is returned.
    Fragment,
    /// It is none of these.
    Undecoded(Reason),
}

/// An IP packet: the innermost one, if the contents of tunnels are decoded.
///
/// If a tunnel does not contain an IP packet, this is the outer packet.
#[derive(Clone, Debug)]
pub struct DecodedPacket<'d> {
    /// VLAN ids, outermost first. Those inside a tunnel follow those outside.
    pub vlans: Vlans,
    /// The innermost tunnel it came through.
    pub tunnel: Option<PacketTunnel>,
    /// Source address.
    pub source: IpAddr,
    /// Destination address.
    pub destination: IpAddr,
    /// The IP protocol number after the IPv6 extension headers and AH: 6 for TCP, 17 for UDP.
    pub protocol: u8,
    /// The transport header.
    pub transport: Transport,
    /// The bytes after the transport header, or after the IP headers for [`Transport::Other`].
    pub payload: Payload<'d>,
    /// Numbers of all packets it came in, ascending, including those of repeated fragments. Empty
    /// if it came in one packet.
    pub fragments: &'d [u64],
    /// The place of `payload` in its datagram, if the datagram is returned in several portions.
    pub portion: Option<&'d Portion>,
}

/// A part of the payload of a datagram that comes in fragments, see [`DecodeOptions::early`].
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Portion {
    /// Identifies the datagram within its decoder.
    pub datagram: u64,
    /// It is the first portion of its datagram.
    pub begins: bool,
    /// Offset of this portion in the payload of the whole datagram, in bytes.
    pub at: u32,
    /// Length of the whole payload in bytes, from the UDP header. For TCP, the maximum it can have.
    pub len: u32,
    /// It contains the last byte of the datagram.
    pub ends: bool,
    /// The datagram is complete: no more portions follow.
    pub completes: bool,
    /// It is a copy of bytes that came before.
    pub is_copy: bool,
}

/// The reason for which a packet was not decoded.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Reason {
    /// The link type is unknown to this module.
    LinkType,
    /// It is no IP packet: ARP, LLDP, a routing protocol, ...
    NotIp,
    /// The captured bytes end inside a header that was longer on the wire.
    Truncated,
    /// A header contradicts itself or the length of the packet.
    Malformed,
    /// Too many packets are nested in each other.
    TooDeep,
    /// A fragment that fits no datagram: it ends beyond 64 KiB or beyond the datagram's end, it is
    /// empty, or its datagram has too many pieces.
    BadFragment,
}

impl Reason {
    /// All of them.
    pub const ALL: [Self; 6] = [
        Self::LinkType,
        Self::NotIp,
        Self::Truncated,
        Self::Malformed,
        Self::TooDeep,
        Self::BadFragment,
    ];

    /// Its name in counters: `link_type`, `not_ip`, ...
    #[must_use]
    pub const fn name(self) -> &'static str {
        match self {
            Self::LinkType => "link_type",
            Self::NotIp => "not_ip",
            Self::Truncated => "truncated",
            Self::Malformed => "malformed",
            Self::TooDeep => "too_deep",
            Self::BadFragment => "bad_fragment",
        }
    }
}

/// Results of a decoder: `packets = decoded + fragments + the sum of undecoded`.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct DecodeCounters {
    /// Packets seen.
    pub packets: u64,
    /// Packets that were [`DecodeOutcome::Decoded`].
    pub decoded: u64,
    /// Packets that were [`DecodeOutcome::Fragment`].
    pub fragments: u64,
    /// Results of reassembly.
    pub reassembly: FragmentCounters,
    undecoded: [u64; Reason::ALL.len()],
}

impl DecodeCounters {
    /// Packets not decoded for `reason`.
    #[must_use]
    pub fn undecoded(&self, reason: Reason) -> u64 {
        self.undecoded.get(reason as usize).copied().unwrap_or_default()
    }

    fn count(&mut self, result: &Result<DecodeResult, Stop>) {
        let counter = match result {
            Ok(_) => Some(&mut self.decoded),
            Err(Stop::Fragment) => Some(&mut self.fragments),
            Err(Stop::Reason(reason)) => self.undecoded.get_mut(*reason as usize),
        };
        if let Some(counter) = counter {
            *counter = counter.wrapping_add(1);
        }
        self.packets = self.packets.wrapping_add(1);
    }
}

impl Decoder {
    /// A decoder that has seen no packet yet.
    #[must_use]
    pub fn new(options: DecodeOptions) -> Self {
        Self {
            options,
            fragments: Fragments::default(),
            counters: DecodeCounters::default(),
            whole: None,
            portion: None,
        }
    }

    /// Decodes one packet. It had `original_len` bytes on the wire, of these `data` was captured.
    ///
    /// Extents refer to the packet by `number`. `time` only decides when to give up incomplete
    /// datagrams, and how long copies of fragments are recognized. It need not be monotonic.
    pub fn packet(
        &mut self,
        link_type: LinkType,
        number: u64,
        time: Timestamp,
        original_len: u32,
        data: &[u8],
    ) -> DecodeOutcome<'_> {
        if self.fragments.has_any() {
            self.fragments.expire(time, &self.options);
        }
        let view = HeaderView::packet(number, data);
        let end = data.len().max(usize::try_from(original_len).unwrap_or(usize::MAX));
        let at = At::new(&view, end);
        // Kept in place from here on: it is too large to move for every packet.
        let mut layers = Layers::default();
        let fragments = &mut self.fragments;
        let mut walk = HeaderWalk::new(&self.options, fragments, time, link_type, &mut layers);
        let result = walk.link(link_type, at);
        self.counters.count(&result);
        match result {
            Ok(found) => DecodeOutcome::Decoded(self.decoded(
                found,
                layers,
                HeaderView::located(number, data.len()),
            )),
            Err(Stop::Fragment) => DecodeOutcome::Fragment,
            Err(Stop::Reason(reason)) => DecodeOutcome::Undecoded(reason),
        }
    }

    fn decoded<'d>(
        &'d mut self,
        found: DecodeResult,
        layers: Layers,
        packet: HeaderView<'d>,
    ) -> DecodedPacket<'d> {
        (self.whole, self.portion) = (found.whole, found.portion);
        let (view, fragments) = match &self.whole {
            Some(datagram) => (datagram.view(), datagram.packets()),
            None => (packet, &[][..]),
        };
        DecodedPacket {
            vlans: layers.vlans,
            tunnel: layers.tunnel,
            source: found.ip.source,
            destination: found.ip.destination,
            protocol: found.protocol,
            transport: found.transport,
            payload: Payload::new(view, found.offset, found.len),
            fragments,
            portion: self.portion.as_deref(),
        }
    }

    /// Gives up datagrams that are too old at `now`, as [`Decoder::packet`] does.
    pub fn pass_time(&mut self, now: Timestamp) {
        self.fragments.expire(now, &self.options);
    }

    /// Gives up the oldest datagram; `false` if no datagram is under reassembly.
    pub fn give_up_oldest(&mut self) -> bool {
        self.fragments.evict(&self.options)
    }

    /// Returns `true` if [`Decoder::given_up`] has a datagram to return.
    #[inline]
    #[must_use]
    pub fn has_given_up(&self) -> bool {
        self.fragments.has_given_up()
    }

    /// The decodable beginning of a datagram that was given up. Only datagrams without an early
    /// portion are returned, such as those of tunnels, and only with [`DecodeOptions::early`].
    /// [`DecodedPacket::fragments`] names its packets, which were all [`DecodeOutcome::Fragment`].
    /// The link type is that of the first packet. Call it after each packet, because only a few
    /// datagrams are kept.
    pub fn given_up(&mut self) -> Option<(LinkType, DecodedPacket<'_>)> {
        loop {
            let (key, datagram) = self.fragments.given_up()?;
            let (time, link_type) = datagram.origin();
            let mut layers = Layers { vlans: key.vlans, tunnel: key.tunnel };
            let fragments = &mut self.fragments;
            let mut walk = HeaderWalk::new(&self.options, fragments, time, link_type, &mut layers);
            let ip = Ip { source: key.source, destination: key.destination };
            if let Ok(mut found) = walk.given_up(&datagram, ip) {
                found.whole.get_or_insert_with(|| Box::new(datagram));
                return Some((link_type, self.decoded(found, layers, HeaderView::located(0, 0))));
            }
        }
    }

    /// Counters of everything decoded so far.
    #[must_use]
    pub fn counters(&self) -> DecodeCounters {
        DecodeCounters { reassembly: self.fragments.counters(), ..self.counters }
    }

    /// Memory of datagrams under reassembly in bytes, at most
    /// [`DecodeOptions::max_fragment_bytes`].
    #[must_use]
    pub const fn fragment_bytes(&self) -> usize {
        self.fragments.bytes()
    }
}

/// VLAN ids, 12 bits each, never 0: a tag with id 0 only carries a priority and is not kept.
#[derive(Clone, Copy, Default, PartialEq, Eq, Hash)]
pub struct Vlans {
    ids: [u16; MAX_VLANS],
    len: u8,
}

impl Vlans {
    /// The ids, outermost first.
    #[must_use]
    pub fn as_slice(&self) -> &[u16] {
        self.ids.get(..usize::from(self.len)).unwrap_or_default()
    }

    /// Adds an id; `false` if there is no room for it.
    fn push(&mut self, id: u16) -> bool {
        match self.ids.get_mut(usize::from(self.len)) {
            Some(slot) => {
                *slot = id;
                self.len = self.len.saturating_add(1);
                true
            }
            None => false,
        }
    }
}

impl std::fmt::Debug for Vlans {
    fn fmt(&self, formatter: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        self.as_slice().fmt(formatter)
    }
}

/// Follows the headers of one packet.
#[derive(Debug)]
struct HeaderWalk<'w> {
    options: &'w DecodeOptions,
    fragments: &'w mut Fragments,
    time: Timestamp,
    link_type: LinkType,
    layers: &'w mut Layers,
    /// Number of packets around the current one.
    nesting: u8,
    /// The bytes are the beginning of an incomplete datagram.
    is_beginning: bool,
}

/// Facts from outer headers that apply to the inner ones.
#[derive(Clone, Copy, Debug, Default)]
struct Layers {
    vlans: Vlans,
    tunnel: Option<PacketTunnel>,
}

impl<'w> HeaderWalk<'w> {
    const fn new(
        options: &'w DecodeOptions,
        fragments: &'w mut Fragments,
        time: Timestamp,
        link_type: LinkType,
        layers: &'w mut Layers,
    ) -> Self {
        Self { options, fragments, time, link_type, layers, nesting: 0, is_beginning: false }
    }

    /// Enters one more level of nesting.
    const fn deeper(&mut self) -> Result<(), Stop> {
        if self.nesting >= MAX_NESTING {
            return Err(Stop::Reason(Reason::TooDeep));
        }
        self.nesting = self.nesting.saturating_add(1);
        Ok(())
    }
}

/// The addresses of an IP packet.
#[derive(Clone, Copy, Debug)]
struct Ip {
    source: IpAddr,
    destination: IpAddr,
}

/// The result of a packet that could be decoded.
#[derive(Debug)]
struct DecodeResult {
    ip: Ip,
    protocol: u8,
    transport: Transport,
    /// Offset of the payload in the packet or in `whole`, in bytes.
    offset: usize,
    /// Length of the payload on the wire in bytes.
    len: usize,
    /// The datagram that contains the payload, if it came in fragments.
    whole: Option<Box<FragmentedDatagram>>,
    portion: Option<Box<Portion>>,
}

/// The result of any other packet.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Stop {
    Fragment,
    Reason(Reason),
}

impl From<Reason> for Stop {
    fn from(reason: Reason) -> Self {
        Self::Reason(reason)
    }
}
