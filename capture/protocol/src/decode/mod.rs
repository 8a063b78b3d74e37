//! From the bytes of a packet to addresses, ports and where its payload lies.
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
//! A [`Decoder`] takes packets one by one, with the moment each was captured; it does no I/O and
//! knows no clock. No payload is copied: what it finds is a list of [`Part`]s, places in captured
//! packets, also for a datagram that came in fragments. Only the first bytes of a datagram under
//! reassembly are kept, for the headers that may be in them.
//!
//! Lengths are those of the wire, so that bytes beyond the snapshot length are known to be missing.
//! A header that says how long its packet is ends it there: Ethernet padding is no payload. One
//! that says 0, because the packet had no length yet (TSO) or is longer than the field can say
//! (BIG TCP), or more than there is around it, does not; then the frame's length holds.
//!
//! Everything comes from strangers: nothing panics, work per packet is linear in its headers, and
//! what fragments may occupy is bounded in number, memory and time ([`Options`]).
//!
//! The fixed layouts are read by etherparse. What it does not know (SLL2, NFLOG, PPP, MPLS, all of
//! the tunnels) or refuses as a whole (a TCP header whose options are cut, options it does not
//! know) is read here.

#![warn(
    clippy::indexing_slicing,
    clippy::arithmetic_side_effects,
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::panic
)]

mod fragments;
mod ip;
mod link;
mod transport;
mod tunnel;
mod view;

use std::net::IpAddr;
use std::time::Duration;

pub use fragments::FragmentCounters;
pub use transport::{Tcp, TcpFlags, Transport};
pub use tunnel::{Tunnel, TunnelKind};
pub use view::{Part, Parts, Payload};

use crate::linktype::LinkType;
use crate::time::Timestamp;
use fragments::{Datagram, Fragments};
use view::{At, View};

/// Most headers that may contain another packet (IP, MPLS stack, PPPoE, tunnels), one in the other.
///
/// IPv4 in VXLAN in GRE in IPv4 behind MPLS has seven; what has more than 24 was built to have them.
const MAX_NESTING: u8 = 24;

/// Most VLAN ids kept of one packet. QinQ has two, behind a tunnel another two.
const MAX_VLANS: usize = 8;

/// How a [`Decoder`] decodes, and what it may use.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Options {
    /// Whether to look into tunnels. If not, the outer packet is the packet. MPLS and PPPoE have no
    /// outer packet and are always looked into.
    pub tunnels: bool,
    /// Whether fragments with other VLAN ids are of another datagram. If not, the same addresses in
    /// two networks are the same.
    pub vlans: bool,
    /// Whether to give the payload of TCP and UDP that comes in fragments as it comes, from the first
    /// fragment on ([`Decoded::portion`]), since the others may never come. If not, it is given once
    /// all of its datagram is there. What is in a tunnel is always given then.
    pub early: bool,
    /// Which bytes hold where fragments overlap.
    pub overlap: Overlap,
    /// Most datagrams under reassembly; the oldest gives way to a new one.
    pub max_datagrams: usize,
    /// Most pieces one datagram may lie in; a fragment that would make more is refused.
    pub max_fragments: usize,
    /// Most bytes of memory datagrams under reassembly may occupy; the oldest give way.
    pub max_fragment_bytes: usize,
    /// How long after its first fragment a datagram must be complete.
    pub fragment_timeout: Duration,
}

impl Default for Options {
    /// Tunnels are looked into, the first bytes hold. Memory is Linux's (`ipfrag_high_thresh`), of
    /// which 4096 small datagrams use about as much; a minute is what RFC 8200 gives a datagram.
    /// 2048 pieces are more than 64 KiB at IPv4's least MTU of 68 bytes make: 1366.
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

/// Which bytes hold where fragments overlap.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Overlap {
    /// Those that came first.
    #[default]
    First,
    /// Those that came last, up to the moment the datagram is complete.
    Last,
}

/// Decodes packets, and keeps the fragments of those that are not complete.
#[derive(Debug)]
pub struct Decoder {
    options: Options,
    fragments: Fragments,
    counters: Counters,
    /// The reassembled datagram the last [`Decoded`] borrows from.
    whole: Option<Box<Datagram>>,
    /// And what it is a portion of.
    portion: Option<Box<Portion>>,
}

/// What became of a packet.
#[derive(Clone, Debug)]
pub enum Outcome<'d> {
    /// It is, or it completes, an IP packet; or it has a [`Portion`] of one.
    Decoded(Decoded<'d>),
    /// It is a fragment of a datagram. More of it has to come before anything is given.
    Fragment,
    /// It is neither.
    Undecoded(Reason),
}

/// An IP packet: the innermost one, if tunnels are looked into.
///
/// If what a tunnel contains is no IP packet, the outer packet is the one.
#[derive(Clone, Debug)]
pub struct Decoded<'d> {
    /// VLAN ids, outermost first; those inside a tunnel follow those outside.
    pub vlans: Vlans,
    /// The innermost tunnel it came through.
    pub tunnel: Option<Tunnel>,
    /// Source address.
    pub source: IpAddr,
    /// Destination address.
    pub destination: IpAddr,
    /// The IP protocol number behind the IPv6 extension headers and AH: 6 for TCP, 17 for UDP.
    pub protocol: u8,
    /// The transport header.
    pub transport: Transport,
    /// What follows the transport header, or the IP headers if that is [`Transport::Other`].
    pub payload: Payload<'d>,
    /// Numbers of all packets it came in, rising, those of fragments that came twice among them;
    /// empty if it came in one.
    pub fragments: &'d [u64],
    /// Which part of a datagram `payload` is, if others come or came apart from it.
    pub portion: Option<&'d Portion>,
}

/// A part of the payload of a datagram that comes in fragments, see [`Options::early`].
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Portion {
    /// Tells the datagrams of a decoder apart.
    pub datagram: u64,
    /// It is the first that is given of its datagram.
    pub begins: bool,
    /// Where in the payload of the whole datagram this part begins.
    pub at: u32,
    /// Length of the whole payload, as UDP's header says; of TCP, the longest it may have.
    pub len: u32,
    /// The last byte of the datagram is in it.
    pub ends: bool,
    /// All of the datagram is here: nothing more will be given of it.
    pub completes: bool,
    /// It was there before: this is a copy of a part of it.
    pub is_copy: bool,
}

/// Why a packet was not decoded.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Reason {
    /// The link type is none of those known here.
    LinkType,
    /// It is no IP packet: ARP, LLDP, a routing protocol, ...
    NotIp,
    /// The capture of the packet ends inside a header that went on, on the wire.
    Truncated,
    /// A header contradicts itself or the length of the packet.
    Malformed,
    /// More packets are nested in each other than is reasonable.
    TooDeep,
    /// A fragment that fits no datagram: it ends beyond 64 KiB or beyond the datagram's end, it is
    /// empty, or it is one piece too many.
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

    /// A name for counters: `link_type`, `not_ip`, ...
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

/// What a decoder has done: `packets = decoded + fragments + the sum of undecoded`.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Counters {
    /// Packets seen.
    pub packets: u64,
    /// Packets that were [`Outcome::Decoded`].
    pub decoded: u64,
    /// Packets that were [`Outcome::Fragment`].
    pub fragments: u64,
    /// What became of the fragments.
    pub reassembly: FragmentCounters,
    undecoded: [u64; Reason::ALL.len()],
}

impl Counters {
    /// Packets not decoded for `reason`.
    #[must_use]
    pub fn undecoded(&self, reason: Reason) -> u64 {
        self.undecoded.get(reason as usize).copied().unwrap_or_default()
    }

    fn count(&mut self, result: &Result<Found, Stop>) {
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
    /// A decoder that has seen nothing yet.
    #[must_use]
    pub fn new(options: Options) -> Self {
        Self {
            options,
            fragments: Fragments::default(),
            counters: Counters::default(),
            whole: None,
            portion: None,
        }
    }

    /// Decodes one packet, of whose `original_len` bytes on the wire `data` was captured.
    ///
    /// `number` is what extents call the packet. `time` is only used to give up on datagrams whose
    /// fragments do not all come; it need not be monotonic.
    pub fn packet(
        &mut self,
        link_type: LinkType,
        number: u64,
        time: Timestamp,
        original_len: u32,
        data: &[u8],
    ) -> Outcome<'_> {
        if self.fragments.has_any() {
            self.fragments.expire(time, &self.options);
        }
        let view = View::packet(number, data);
        let end = data.len().max(usize::try_from(original_len).unwrap_or(usize::MAX));
        let at = At::new(&view, end);
        // In its place from the beginning: it is more than is moved for every packet.
        let mut layers = Layers::default();
        let fragments = &mut self.fragments;
        let mut walk = Walk::new(&self.options, fragments, time, link_type, &mut layers);
        let result = walk.link(link_type, at);
        self.counters.count(&result);
        match result {
            Ok(found) => {
                Outcome::Decoded(self.decoded(found, layers, View::located(number, data.len())))
            }
            Err(Stop::Fragment) => Outcome::Fragment,
            Err(Stop::Reason(reason)) => Outcome::Undecoded(reason),
        }
    }

    fn decoded<'d>(&'d mut self, found: Found, layers: Layers, packet: View<'d>) -> Decoded<'d> {
        (self.whole, self.portion) = (found.whole, found.portion);
        let (view, fragments) = match &self.whole {
            Some(datagram) => (datagram.view(), datagram.packets()),
            None => (packet, &[][..]),
        };
        Decoded {
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

    /// Gives up on datagrams that are too old at `now`, as [`Decoder::packet`] does.
    pub fn pass_time(&mut self, now: Timestamp) {
        self.fragments.expire(now, &self.options);
    }

    /// Gives up on the oldest datagram; `false` if there is none.
    pub fn give_up_oldest(&mut self) -> bool {
        self.fragments.evict(&self.options)
    }

    /// Whether [`Decoder::given_up`] has anything to look at.
    #[inline]
    #[must_use]
    pub fn has_given_up(&self) -> bool {
        self.fragments.has_given_up()
    }

    /// What can be said of a datagram that was given up: that of a tunnel, with [`Options::early`].
    /// Its packets are in [`Decoded::fragments`], all of them were [`Outcome::Fragment`]; the link type
    /// is that of the first. To be fetched after each packet: few are kept.
    pub fn given_up(&mut self) -> Option<(LinkType, Decoded<'_>)> {
        loop {
            let (key, datagram) = self.fragments.given_up()?;
            let (time, link_type) = datagram.origin();
            let mut layers = Layers { vlans: key.vlans, tunnel: key.tunnel };
            let fragments = &mut self.fragments;
            let mut walk = Walk::new(&self.options, fragments, time, link_type, &mut layers);
            let ip = Ip { source: key.source, destination: key.destination };
            if let Ok(mut found) = walk.given_up(&datagram, ip) {
                found.whole.get_or_insert_with(|| Box::new(datagram));
                return Some((link_type, self.decoded(found, layers, View::located(0, 0))));
            }
        }
    }

    /// What has been decoded so far.
    #[must_use]
    pub fn counters(&self) -> Counters {
        Counters { reassembly: self.fragments.counters(), ..self.counters }
    }

    /// Bytes of memory that datagrams under reassembly occupy, at most
    /// [`Options::max_fragment_bytes`].
    #[must_use]
    pub const fn fragment_bytes(&self) -> usize {
        self.fragments.bytes()
    }
}

/// VLAN ids, 12 bits each, never 0: the id of a tag that only carries a priority is not kept.
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

    /// `false` if there is no room for it.
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

/// One packet's way down its headers.
#[derive(Debug)]
struct Walk<'w> {
    options: &'w Options,
    fragments: &'w mut Fragments,
    time: Timestamp,
    link_type: LinkType,
    layers: &'w mut Layers,
    /// Packets around the one the walk has come to.
    nesting: u8,
    /// It goes over the beginning of a datagram that is not whole.
    is_beginning: bool,
}

/// What the headers passed so far say about those that follow.
#[derive(Clone, Copy, Debug, Default)]
struct Layers {
    vlans: Vlans,
    tunnel: Option<Tunnel>,
}

impl<'w> Walk<'w> {
    const fn new(
        options: &'w Options,
        fragments: &'w mut Fragments,
        time: Timestamp,
        link_type: LinkType,
        layers: &'w mut Layers,
    ) -> Self {
        Self { options, fragments, time, link_type, layers, nesting: 0, is_beginning: false }
    }

    /// One level further in.
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

/// The end of a successful way.
#[derive(Debug)]
struct Found {
    ip: Ip,
    protocol: u8,
    transport: Transport,
    /// Where the payload begins, in the packet or in `whole`.
    offset: usize,
    /// Bytes it had on the wire.
    len: usize,
    /// The datagram it is part of, if that came in fragments.
    whole: Option<Box<Datagram>>,
    portion: Option<Box<Portion>>,
}

/// The end of any other way.
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
