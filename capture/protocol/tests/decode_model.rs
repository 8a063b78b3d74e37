//! Compares the decoder with packets built layer by layer, and with simple models.
//!
//! The builder shares no code with the decoder. It knows what it has built, and where.

#![expect(clippy::cast_possible_truncation, reason = "numbers of tests are small")]

use std::net::IpAddr;
use std::time::Duration;

use frames::ethernet;
use proptest::prelude::*;
use protocol::decode::{
    DecodeOptions, DecodeOutcome, DecodedPacket, Decoder, Overlap, PayloadPart, Reason, Transport,
    TunnelKind,
};
use protocol::extent::Extent;
use protocol::linktype::LinkType;
use protocol::time::Timestamp;

/// The contents of the innermost IP packet.
#[derive(Clone, Debug)]
enum Inner {
    Tcp { ports: (u16, u16), sequence: u32, flags: u8, options: Vec<u8>, payload: Vec<u8> },
    Udp { ports: (u16, u16), payload: Vec<u8> },
    Other { payload: Vec<u8> },
}

/// An IP header.
#[derive(Clone, Debug)]
enum Ip {
    V4 { addresses: ([u8; 4], [u8; 4]), options: u8 },
    V6 { addresses: ([u8; 16], [u8; 16]), extensions: Vec<(u8, u8)> },
}

/// Tags of a frame: EtherType and TCI.
type Tags = Vec<(u16, u16)>;

/// A tunnel, and the IP packet that carries it.
#[derive(Clone, Debug)]
struct Tunnel {
    kind: TunnelKind,
    id: u32,
    flags: u8,
    options: u8,
    tags: Tags,
    around: Ip,
}

#[derive(Clone, Debug)]
enum Link {
    Ethernet { tags: Tags, labels: Vec<u32>, padding: u8 },
    Pppoe { tags: Tags, session: u16, compressed: bool, padding: u8 },
    Cooked,
    Cooked2,
    Raw,
    Null { big: bool },
    Loop,
    Ppp { address: bool },
    Nflog { big: bool },
}

#[derive(Clone, Debug)]
struct Stack {
    inner: Inner,
    ip: Ip,
    tunnels: Vec<Tunnel>,
    link: Link,
}

/// A frame, and the expected results of decoding it.
struct Built {
    link_type: LinkType,
    bytes: Vec<u8>,
    vlans: Vec<u16>,
    tunnel: Option<(TunnelKind, Option<u32>)>,
    /// Number of bytes before the payload, and length of the payload.
    payload: (usize, usize),
}

impl Ip {
    fn addresses(&self) -> (IpAddr, IpAddr) {
        match self {
            Self::V4 { addresses: (source, destination), .. } => {
                (IpAddr::from(*source), IpAddr::from(*destination))
            }
            Self::V6 { addresses: (source, destination), .. } => {
                (IpAddr::from(*source), IpAddr::from(*destination))
            }
        }
    }

    fn ether_type(&self) -> u16 {
        if matches!(self, Self::V4 { .. }) { 0x0800 } else { 0x86dd }
    }

    fn protocol(&self) -> u8 {
        if matches!(self, Self::V4 { .. }) { 4 } else { 41 }
    }

    /// Adds the header before `payload`. `fragment` is identification, offset, and whether more
    /// follow.
    fn around(&self, protocol: u8, payload: &[u8], fragment: Option<(u16, u16, bool)>) -> Vec<u8> {
        match self {
            Self::V4 { addresses, options } => {
                let header_len = 20 + usize::from(*options) * 4;
                let total = u16::try_from(header_len + payload.len()).unwrap();
                let (id, offset, more) = fragment.unwrap_or((7, 0, false));
                let mut bytes = vec![0x45 + options, 0];
                bytes.extend(total.to_be_bytes());
                bytes.extend(id.to_be_bytes());
                bytes.extend(((offset / 8) | (u16::from(more) << 13)).to_be_bytes());
                bytes.extend([64, protocol, 0, 0]);
                bytes.extend(addresses.0);
                bytes.extend(addresses.1);
                bytes.resize(header_len, 1);
                bytes.extend(payload);
                bytes
            }
            Self::V6 { addresses, extensions } => {
                let mut headers = Vec::new();
                let mut next = protocol;
                if let Some((id, offset, more)) = fragment {
                    headers = vec![next, 0];
                    headers.extend((offset | u16::from(more)).to_be_bytes());
                    headers.extend(u32::from(id).to_be_bytes());
                    next = 44;
                }
                for (kind, units) in extensions {
                    let len = if *kind == 51 { 4 * (usize::from(*units) + 2) } else { 8 };
                    let mut header = vec![next, if *kind == 51 { *units } else { 0 }];
                    header.resize(len, 1);
                    header.extend(&headers);
                    headers = header;
                    next = *kind;
                }
                headers.extend(payload);
                let mut bytes = vec![0x60, 0, 0, 0];
                bytes.extend(u16::try_from(headers.len()).unwrap().to_be_bytes());
                bytes.extend([next, 64]);
                bytes.extend(addresses.0);
                bytes.extend(addresses.1);
                bytes.extend(headers);
                bytes
            }
        }
    }
}

fn ids(tags: &Tags) -> impl Iterator<Item = u16> {
    tags.iter().map(|(_, tci)| tci & 0xfff).filter(|id| *id != 0)
}

fn udp(ports: (u16, u16), payload: &[u8]) -> Vec<u8> {
    frames::udp_without_checksum(ports.0, ports.1, payload)
}

impl Inner {
    fn build(&self) -> (u8, Vec<u8>) {
        match self {
            Self::Tcp { ports, sequence, flags, options, payload } => {
                let mut bytes = Vec::new();
                bytes.extend(ports.0.to_be_bytes());
                bytes.extend(ports.1.to_be_bytes());
                bytes.extend(sequence.to_be_bytes());
                bytes.extend((!sequence).to_be_bytes());
                let words = u8::try_from(5 + options.len() / 4).unwrap();
                bytes.extend([words << 4, *flags, 0x12, 0x34, 0, 0, 0x56, 0x78]);
                bytes.extend(options);
                bytes.extend(payload);
                (6, bytes)
            }
            Self::Udp { ports, payload } => (17, udp(*ports, payload)),
            Self::Other { payload } => (253, payload.clone()),
        }
    }

    fn payload(&self) -> &[u8] {
        let (Self::Tcp { payload, .. } | Self::Udp { payload, .. } | Self::Other { payload }) =
            self;
        payload
    }

    fn is_found(&self, transport: &Transport) -> bool {
        match (self, transport) {
            (Self::Tcp { ports, sequence, flags, .. }, Transport::Tcp(tcp)) => {
                (tcp.source_port, tcp.destination_port) == *ports
                    && (tcp.sequence, tcp.acknowledgment) == (*sequence, !sequence)
                    && (tcp.flags.0, tcp.window, tcp.urgent) == (*flags, 0x1234, 0x5678)
            }
            (Self::Udp { ports, .. }, Transport::Udp { source_port, destination_port }) => {
                (*source_port, *destination_port) == *ports
            }
            (Self::Other { .. }, Transport::Other) => true,
            _ => false,
        }
    }
}

impl Tunnel {
    /// The outer IP packet's protocol and contents.
    fn around(&self, inner: &Ip, packet: &[u8]) -> (u8, Vec<u8>) {
        let frame = ethernet(&self.tags, inner.ether_type(), packet);
        let network = [&self.id.to_be_bytes()[1..], &[0]].concat();
        match self.kind {
            TunnelKind::Ipip | TunnelKind::Ip6in => (inner.protocol(), packet.to_vec()),
            TunnelKind::Gre => {
                let mut bytes = vec![self.flags & 0xb0, 0];
                let bridged = self.flags & 1 != 0;
                let protocol = if bridged { 0x6558 } else { inner.ether_type() };
                bytes.extend(protocol.to_be_bytes());
                for (bit, word) in [(0x80, 1), (0x20, self.id), (0x10, 2)] {
                    if self.flags & bit != 0 {
                        bytes.extend(word.to_be_bytes());
                    }
                }
                bytes.extend(if bridged { &frame } else { packet });
                (47, bytes)
            }
            TunnelKind::Erspan1 => (47, [&[0, 0, 0x88, 0xbe], &frame[..]].concat()),
            TunnelKind::Erspan2 => {
                let mut bytes = vec![0x10, 0, 0x88, 0xbe, 0, 0, 0, 1, 0x10, 0x11];
                bytes.extend(((self.id & 0x3ff) as u16 | 0xfc00).to_be_bytes());
                bytes.extend([0, 0, 0, 9]);
                bytes.extend(frame);
                (47, bytes)
            }
            TunnelKind::Erspan3 => {
                let mut bytes = vec![0x10, 0, 0x22, 0xeb, 0, 0, 0, 1, 0x20, 0x11];
                bytes.extend(((self.id & 0x3ff) as u16 | 0xfc00).to_be_bytes());
                bytes.extend([1, 2, 3, 4, 5, 6, 0x80, self.flags & 1]);
                bytes.resize(bytes.len() + usize::from(self.flags & 1) * 8, 0xee);
                bytes.extend(frame);
                (47, bytes)
            }
            TunnelKind::Vxlan => {
                let bytes = [&[8, 0, 0, 0], &network[..], &frame[..]].concat();
                (17, udp((50_000, 4789), &bytes))
            }
            TunnelKind::Geneve => {
                let mut bytes = vec![self.options, 0, 0x65, 0x58];
                bytes.extend(network);
                bytes.resize(8 + usize::from(self.options) * 4, 0x55);
                bytes.extend(frame);
                (17, udp((50_000, 6081), &bytes))
            }
            _ => unreachable!("the link's"),
        }
    }

    fn has_frame(&self) -> bool {
        match self.kind {
            TunnelKind::Gre => self.flags & 1 != 0,
            TunnelKind::Ipip | TunnelKind::Ip6in => false,
            _ => true,
        }
    }

    fn expected(&self, inner: &Ip) -> (TunnelKind, Option<u32>) {
        match self.kind {
            TunnelKind::Ipip | TunnelKind::Ip6in => {
                let is_v4 = matches!(inner, Ip::V4 { .. });
                (if is_v4 { TunnelKind::Ipip } else { TunnelKind::Ip6in }, None)
            }
            TunnelKind::Gre if self.flags & 0x20 == 0 => (self.kind, None),
            TunnelKind::Gre if self.flags & 0xb1 == 0x21 => (self.kind, Some(self.id >> 8)),
            TunnelKind::Erspan1 => (self.kind, None),
            TunnelKind::Erspan2 | TunnelKind::Erspan3 => (self.kind, Some(self.id & 0x3ff)),
            TunnelKind::Vxlan | TunnelKind::Geneve => (self.kind, Some(self.id & 0xff_ffff)),
            _ => (self.kind, Some(self.id)),
        }
    }
}

impl Stack {
    fn outermost(&self) -> &Ip {
        self.tunnels.last().map_or(&self.ip, |tunnel| &tunnel.around)
    }

    /// The outermost IP packet's protocol and contents.
    fn contents(&self) -> (u8, Vec<u8>) {
        let (mut ip, (mut protocol, mut contents)) = (&self.ip, self.inner.build());
        for tunnel in &self.tunnels {
            let packet = ip.around(protocol, &contents, None);
            (protocol, contents) = tunnel.around(ip, &packet);
            ip = &tunnel.around;
        }
        (protocol, contents)
    }

    fn build(&self) -> Built {
        let (protocol, contents) = self.contents();
        self.link(&self.outermost().around(protocol, &contents, None))
    }

    /// The frame around an outermost IP packet, possibly a fragment.
    fn link(&self, packet: &[u8]) -> Built {
        let outermost = self.outermost();
        let mut ip = &self.ip;
        let mut tunnel = None;
        let mut inner_vlans = Vec::new();
        for (index, one) in self.tunnels.iter().enumerate() {
            if index == 0 {
                tunnel = Some(one.expected(ip));
            }
            if one.has_frame() {
                inner_vlans.splice(0..0, ids(&one.tags));
            }
            ip = &one.around;
        }
        let (mut vlans, mut padding) = (Vec::new(), 0);
        let (link_type, mut bytes) = match &self.link {
            Link::Ethernet { tags, labels, padding: behind } => {
                (padding, vlans) = (usize::from(*behind), ids(tags).collect());
                if let Some((last, others)) = labels.split_last() {
                    let mut stack = Vec::new();
                    for label in others {
                        stack.extend((label << 12 | 0x40).to_be_bytes());
                    }
                    stack.extend((last << 12 | 0x140).to_be_bytes());
                    stack.extend(packet);
                    tunnel.get_or_insert((TunnelKind::Mpls, Some(*last)));
                    (1, ethernet(tags, 0x8847, &stack))
                } else {
                    (1, ethernet(tags, outermost.ether_type(), packet))
                }
            }
            Link::Pppoe { tags, session, compressed, padding: behind } => {
                (padding, vlans) = (usize::from(*behind), ids(tags).collect());
                let protocol = if outermost.protocol() == 4 { 0x21_u8 } else { 0x57 };
                let mut ppp = if *compressed { vec![protocol] } else { vec![0, protocol] };
                ppp.extend(packet);
                let mut bytes = vec![0x11, 0];
                bytes.extend(session.to_be_bytes());
                bytes.extend(u16::try_from(ppp.len()).unwrap().to_be_bytes());
                bytes.extend(ppp);
                let id = u32::from(*session);
                tunnel.get_or_insert((TunnelKind::Pppoe, Some(id)));
                (1, ethernet(tags, 0x8864, &bytes))
            }
            Link::Cooked => {
                let mut bytes = vec![0, 4, 0, 1, 0, 6, 1, 2, 3, 4, 5, 6, 0, 0];
                bytes.extend(outermost.ether_type().to_be_bytes());
                (113, [&bytes, packet].concat())
            }
            Link::Cooked2 => {
                let mut bytes = outermost.ether_type().to_be_bytes().to_vec();
                bytes.extend([0, 0, 0, 0, 0, 3, 0, 1, 4, 6, 1, 2, 3, 4, 5, 6, 0, 0]);
                (276, [&bytes, packet].concat())
            }
            Link::Raw => (101, packet.to_vec()),
            Link::Null { big } => {
                let family = if outermost.protocol() == 4 { 2_u32 } else { 30 };
                let family = if *big { family.to_be_bytes() } else { family.to_le_bytes() };
                (0, [&family, packet].concat())
            }
            Link::Loop => {
                let family = if outermost.protocol() == 4 { 2_u32 } else { 24 };
                (108, [&family.to_be_bytes(), packet].concat())
            }
            Link::Ppp { address } => {
                let start: &[u8] = if *address { &[0xff, 3, 0] } else { &[0] };
                let protocol = if outermost.protocol() == 4 { 0x21 } else { 0x57 };
                (9, [start, &[protocol], packet].concat())
            }
            Link::Nflog { big } => {
                let mut bytes = vec![2, 0, 0, 5];
                for (kind, value) in [(1_u16, &[8, 0, 1, 0][..]), (10, b"abc\0\0"), (9, packet)] {
                    for field in [u16::try_from(value.len() + 4).unwrap(), kind] {
                        let field = if *big { field.to_be_bytes() } else { field.to_le_bytes() };
                        bytes.extend(field);
                    }
                    bytes.extend(value);
                    bytes.resize(bytes.len().next_multiple_of(4), 0);
                }
                (239, bytes)
            }
        };
        vlans.extend(inner_vlans);
        // Only padding follows the payload, here and in NFLOG.
        let end = match self.link {
            Link::Nflog { .. } => bytes.len() - (4 - packet.len() % 4) % 4,
            _ => bytes.len(),
        };
        let len = self.inner.payload().len();
        bytes.resize(bytes.len() + padding, 0xaa);
        Built {
            link_type: LinkType(link_type),
            bytes,
            vlans,
            tunnel,
            payload: (end.saturating_sub(len), len),
        }
    }
}

fn any_ip() -> impl Strategy<Value = Ip> {
    let extension = prop_oneof![Just(0_u8), Just(43), Just(60), Just(51), Just(135)];
    prop_oneof![
        (any::<([u8; 4], [u8; 4])>(), prop_oneof![3 => Just(0), 1 => 0..=10_u8])
            .prop_map(|(addresses, options)| Ip::V4 { addresses, options }),
        (any::<([u8; 16], [u8; 16])>(), prop::collection::vec((extension, 0..4_u8), 0..3))
            .prop_map(|(addresses, extensions)| Ip::V6 { addresses, extensions }),
    ]
}

fn any_tags() -> impl Strategy<Value = Tags> {
    let kind = prop_oneof![Just(0x8100), Just(0x88a8), Just(0x9100)];
    let tci = prop_oneof![4 => any::<u16>(), 1 => Just(0xe000)];
    prop::collection::vec((kind, tci), 0..3)
}

fn any_inner() -> impl Strategy<Value = Inner> {
    let payload = || prop::collection::vec(any::<u8>(), 0..80);
    // Excluding the ports of tunnels.
    let ports = || (any::<u16>(), 1..1024_u16);
    prop_oneof![
        (ports(), any::<u32>(), any::<u8>(), 0..=10_usize, payload()).prop_map(
            |(ports, sequence, flags, words, payload)| {
                Inner::Tcp { ports, sequence, flags, options: vec![1; words * 4], payload }
            }
        ),
        (ports(), payload()).prop_map(|(ports, payload)| Inner::Udp { ports, payload }),
        payload().prop_map(|payload| Inner::Other { payload }),
    ]
}

fn any_tunnel() -> impl Strategy<Value = Tunnel> {
    let kinds = vec![
        TunnelKind::Gre,
        TunnelKind::Gre,
        TunnelKind::Erspan1,
        TunnelKind::Erspan2,
        TunnelKind::Erspan3,
        TunnelKind::Vxlan,
        TunnelKind::Geneve,
        TunnelKind::Ipip,
    ];
    let kind = prop::sample::select(kinds);
    (kind, any::<u32>(), any::<u8>(), 0..64_u8, any_tags(), any_ip()).prop_map(
        |(kind, id, flags, options, tags, around)| Tunnel {
            kind,
            id,
            flags,
            options,
            tags,
            around,
        },
    )
}

fn any_link() -> impl Strategy<Value = Link> {
    // Labels that are allowed at the bottom of a stack.
    let labels = prop::collection::vec(16..1_u32 << 20, 0..3);
    prop_oneof![
        4 => (any_tags(), labels, 0..20_u8)
            .prop_map(|(tags, labels, padding)| Link::Ethernet { tags, labels, padding }),
        1 => (any_tags(), any::<u16>(), any::<bool>(), 0..20_u8).prop_map(
            |(tags, session, compressed, padding)| Link::Pppoe {
                tags, session, compressed, padding
            }
        ),
        1 => Just(Link::Cooked),
        1 => Just(Link::Cooked2),
        1 => Just(Link::Raw),
        1 => any::<bool>().prop_map(|big| Link::Null { big }),
        1 => Just(Link::Loop),
        1 => any::<bool>().prop_map(|address| Link::Ppp { address }),
        1 => any::<bool>().prop_map(|big| Link::Nflog { big }),
    ]
}

fn any_stack() -> impl Strategy<Value = Stack> {
    (any_inner(), any_ip(), prop::collection::vec(any_tunnel(), 0..3), any_link())
        .prop_map(|(inner, ip, tunnels, link)| Stack { inner, ip, tunnels, link })
}

fn decode<'d>(
    decoder: &'d mut Decoder,
    link_type: LinkType,
    number: u64,
    original_len: usize,
    data: &[u8],
) -> DecodeOutcome<'d> {
    let original_len = u32::try_from(original_len).unwrap();
    decoder.packet(link_type, number, Timestamp::from_nanoseconds(number), original_len, data)
}

/// Checks that the headers are those that were built.
fn check(stack: &Stack, built: &Built, decoded: &DecodedPacket<'_>) {
    assert_eq!((decoded.source, decoded.destination), stack.ip.addresses());
    assert!(stack.inner.is_found(&decoded.transport), "{:?}", decoded.transport);
    assert_eq!(decoded.vlans.as_slice(), built.vlans);
    assert_eq!(decoded.tunnel.map(|tunnel| (tunnel.kind, tunnel.id)), built.tunnel);
    let endpoints = stack.tunnels.first().map(|tunnel| tunnel.around.addresses());
    assert_eq!(decoded.tunnel.and_then(|tunnel| tunnel.endpoints), endpoints);
    assert_eq!(decoded.payload.len() as usize, built.payload.1);
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 512, failure_persistence: None, ..Default::default() })]

    #[test]
    fn built_packets_are_decoded_and_a_cut_removes_only_payload(stack in any_stack()) {
        let built = stack.build();
        let (start, len) = built.payload;
        let mut decoder = Decoder::new(DecodeOptions::default());
        for cut in 0..=built.bytes.len() {
            let data = &built.bytes[..cut];
            match decode(&mut decoder, built.link_type, 9, built.bytes.len(), data) {
                DecodeOutcome::Decoded(decoded) => {
                    check(&stack, &built, &decoded);
                    let captured = cut.saturating_sub(start).min(len);
                    prop_assert_eq!(decoded.payload.captured() as usize, captured);
                    prop_assert_eq!(decoded.payload.missing() as usize, len - captured);
                    let parts: Vec<PayloadPart> = decoded.payload.parts().collect();
                    let offset = u32::try_from(start).unwrap();
                    let len = u32::try_from(captured).unwrap();
                    let extent = Extent { packet: 9, offset, len };
                    let whole = (captured > 0).then_some(PayloadPart { at: 0, extent });
                    prop_assert_eq!(parts, whole.into_iter().collect::<Vec<_>>());
                }
                DecodeOutcome::Undecoded(Reason::Truncated) => prop_assert!(cut < start),
                other => prop_assert!(false, "{cut} of {}: {other:?}", built.bytes.len()),
            }
        }
    }

    #[test]
    fn without_tunnels_the_outer_packet_is_the_packet(stack in any_stack()) {
        let built = stack.build();
        let mut decoder = Decoder::new(DecodeOptions { tunnels: false, ..DecodeOptions::default() });
        let outcome = decode(&mut decoder, built.link_type, 9, built.bytes.len(), &built.bytes);
        let DecodeOutcome::Decoded(decoded) = outcome else { panic!("{outcome:?}") };
        prop_assert_eq!((decoded.source, decoded.destination), stack.outermost().addresses());
        prop_assert_eq!(decoded.protocol, stack.contents().0);
    }

    #[test]
    fn fragments_in_any_order_make_the_packet(
        stack in any_stack(),
        cuts in prop::collection::vec(any::<prop::sample::Index>(), 1..6),
        order in Just((0..16_usize).collect::<Vec<_>>()).prop_shuffle(),
        twice in any::<bool>(),
        snaplen in prop_oneof![Just(usize::MAX), 180..400_usize],
    ) {
        let (protocol, contents) = stack.contents();
        let mut edges = vec![0];
        prop_assume!(contents.len() > 8);
        edges.extend(cuts.iter().map(|cut| (cut.index((contents.len() - 1) / 8) + 1) * 8));
        edges.push(contents.len());
        edges.sort_unstable();
        edges.dedup();
        let whole = stack.build();
        let frames: Vec<_> = edges
            .windows(2)
            .map(|edge| {
                let more = edge[1] < contents.len();
                let fragment = (77, u16::try_from(edge[0]).unwrap(), more);
                let part = &contents[edge[0]..edge[1]];
                stack.link(&stack.outermost().around(protocol, part, Some(fragment))).bytes
            })
            .collect();
        let mut sequence: Vec<usize> =
            order.into_iter().filter(|index| *index < frames.len()).collect();
        if twice {
            sequence = sequence.iter().flat_map(|index| [*index, *index]).collect();
            sequence.pop();
        }
        let options = DecodeOptions { overlap: Overlap::First, ..DecodeOptions::default() };
        let mut decoder = Decoder::new(options);
        let (last, others) = sequence.split_last().unwrap();
        for index in others {
            let frame = &frames[*index];
            let data = &frame[..frame.len().min(snaplen)];
            let number = *index as u64;
            let outcome = decode(&mut decoder, whole.link_type, number, frame.len(), data);
            prop_assert!(matches!(outcome, DecodeOutcome::Fragment), "{outcome:?}");
        }
        let frame = &frames[*last];
        let data = &frame[..frame.len().min(snaplen)];
        match decode(&mut decoder, whole.link_type, *last as u64, frame.len(), data) {
            DecodeOutcome::Decoded(decoded) => {
                check(&stack, &whole, &decoded);
                let mut payload = vec![None; decoded.payload.len() as usize];
                for part in decoded.payload.parts() {
                    let frame = &frames[usize::try_from(part.extent.packet).unwrap()];
                    let range = part.extent.range();
                    prop_assert!(range.end <= snaplen);
                    let at = part.at as usize;
                    for (slot, byte) in payload[at..].iter_mut().zip(&frame[range]) {
                        prop_assert_eq!(slot.replace(*byte), None);
                    }
                }
                let missing = payload.iter().filter(|byte| byte.is_none()).count();
                prop_assert_eq!(missing, decoded.payload.missing() as usize);
                for (found, expected) in payload.iter().zip(stack.inner.payload()) {
                    prop_assert!(found.is_none_or(|found| found == *expected));
                }
                prop_assert!(snaplen != usize::MAX || missing == 0);
            }
            DecodeOutcome::Undecoded(Reason::Truncated) => {
                // Headers beyond the kept bytes of a datagram count as cut too.
                let headers_len = contents.len() - stack.inner.payload().len();
                prop_assert!(snaplen != usize::MAX || headers_len > 512);
            }
            other => prop_assert!(false, "{other:?}"),
        }
        prop_assert_eq!(decoder.counters().reassembly.pending, 0);
        prop_assert_eq!(decoder.fragment_bytes(), 0);
    }

    #[test]
    fn overlapping_fragments_follow_the_policy(
        fragments in prop::collection::vec((0..12_u16, 1..40_u16, any::<bool>()), 1..40),
        is_first in any::<bool>(),
    ) {
        let overlap = if is_first { Overlap::First } else { Overlap::Last };
        let mut decoder = Decoder::new(DecodeOptions { overlap, ..DecodeOptions::default() });
        let ip = Ip::V4 { addresses: ([1; 4], [2; 4]), options: 0 };
        // The owner of each byte: packet, and offset in the packet.
        let mut model: Vec<Option<(u64, u32)>> = Vec::new();
        let mut total = None;
        for (number, (unit, len, more)) in (1_u64..).zip(fragments) {
            let (start, len) = (usize::from(unit) * 8, usize::from(len));
            let frame = ip.around(253, &vec![0; len], Some((1, unit * 8, more)));
            let outcome = decode(&mut decoder, LinkType::RAW, number, frame.len(), &frame);
            if start == 0 && !more {
                // It is not a fragment.
                prop_assert!(matches!(outcome, DecodeOutcome::Decoded(_)));
                continue;
            }
            let end = start + if more { len & !7 } else { len };
            let new_total = if more { total } else { Some(end) };
            let is_bad = end == start
                || total.is_some() && new_total != total
                || new_total.is_some_and(|total| end.max(model.len()) > total);
            if is_bad {
                prop_assert!(matches!(outcome, DecodeOutcome::Undecoded(Reason::BadFragment)));
                continue;
            }
            total = new_total;
            model.resize(model.len().max(end), None);
            for (offset, slot) in (20_u32..).zip(&mut model[start..end]) {
                if slot.is_none() || !is_first {
                    *slot = Some((number, offset));
                }
            }
            let is_complete = total == Some(model.len()) && model.iter().all(Option::is_some);
            match outcome {
                DecodeOutcome::Decoded(decoded) => {
                    prop_assert!(is_complete);
                    let found: Vec<_> = decoded
                        .payload
                        .parts()
                        .flat_map(|PayloadPart { extent, .. }| {
                            extent.range().map(move |at| Some((extent.packet, at as u32)))
                        })
                        .collect();
                    prop_assert_eq!(&found, &model);
                    model.clear();
                    total = None;
                }
                DecodeOutcome::Fragment => prop_assert!(!is_complete),
                other => prop_assert!(false, "{other:?}"),
            }
        }
    }

    #[test]
    fn changed_bytes_cause_no_panic_and_extents_stay_inside(
        stack in any_stack(),
        changes in prop::collection::vec((any::<prop::sample::Index>(), any::<u8>()), 1..8),
        cut in any::<prop::sample::Index>(),
        original_len in any::<u32>(),
    ) {
        let built = stack.build();
        let mut bytes = built.bytes;
        for (at, value) in changes {
            let at = at.index(bytes.len());
            bytes[at] = value;
        }
        let mut decoder = Decoder::new(DecodeOptions::default());
        let time = Timestamp::default();
        for data in [&bytes[..], &bytes[..cut.index(bytes.len())]] {
            let outcome = decoder.packet(built.link_type, 1, time, original_len, data);
            if let DecodeOutcome::Decoded(decoded) = outcome {
                for part in decoded.payload.parts() {
                    prop_assert!(part.extent.range().end <= bytes.len());
                }
            }
        }
    }
}

/// An endless stream of first fragments, fragments with holes, and late fragments.
#[test]
fn reassembly_stays_within_its_bounds() {
    let options = DecodeOptions {
        max_datagrams: 100,
        max_fragments: 50,
        max_fragment_bytes: 64 << 10,
        fragment_timeout: Duration::from_nanos(50),
        ..DecodeOptions::default()
    };
    let ip = Ip::V4 { addresses: ([1; 4], [2; 4]), options: 0 };
    let mut decoder = Decoder::new(options.clone());
    for number in 0..20_000_u64 {
        let id = u16::try_from(number / 10 % 3000).unwrap();
        let frame = ip.around(253, &[0; 600], Some((id, (number % 10) as u16 * 1200, true)));
        decode(&mut decoder, LinkType::RAW, number, frame.len(), &frame);
        let counters = decoder.counters();
        assert!(counters.reassembly.pending <= 100);
        assert!(decoder.fragment_bytes() <= 64 << 10);
    }
    let counters = decoder.counters().reassembly;
    assert!(counters.expired > 0, "{counters:?}");

    // Without a timeout, the limits of memory and number apply.
    let patient = DecodeOptions { fragment_timeout: Duration::MAX, ..options };
    for max_fragment_bytes in [64 << 10, usize::MAX] {
        let mut decoder = Decoder::new(DecodeOptions { max_fragment_bytes, ..patient.clone() });
        for number in 0..1000_u64 {
            let frame = ip.around(253, &[0; 600], Some((number as u16, 0, true)));
            decode(&mut decoder, LinkType::RAW, number, frame.len(), &frame);
        }
        let counters = decoder.counters().reassembly;
        assert_eq!(counters.evicted + counters.pending, 1000);
        assert!(counters.pending > 30, "{counters:?}");
    }

    // Pieces of one unit with holes between them: up to the limit and no more.
    let mut decoder = Decoder::new(patient);
    for number in 0..200_u16 {
        let frame = ip.around(253, &[0; 8], Some((1, number * 16, true)));
        decode(&mut decoder, LinkType::RAW, u64::from(number), frame.len(), &frame);
    }
    assert_eq!(decoder.counters().reassembly.too_many, 150);
}

#[test]
fn endless_nesting_is_given_up() {
    let ip = Ip::V4 { addresses: ([1; 4], [2; 4]), options: 0 };
    let mut packet = ip.around(17, &udp((1, 2), b""), None);
    let mut decoder = Decoder::new(DecodeOptions::default());
    for depth in 0..60 {
        let outcome = decode(&mut decoder, LinkType::RAW, 1, packet.len(), &packet);
        if depth < 10 {
            assert!(matches!(outcome, DecodeOutcome::Decoded(_)), "{outcome:?}");
        } else if depth > 25 {
            assert!(matches!(outcome, DecodeOutcome::Undecoded(Reason::TooDeep)), "{outcome:?}");
        }
        packet = ip.around(4, &packet, None);
    }
    let tags: Tags = vec![(0x8100, 5); 40];
    let frame = ethernet(&tags, 0x0800, &packet);
    let outcome = decode(&mut decoder, LinkType::ETHERNET, 1, frame.len(), &frame);
    assert!(matches!(outcome, DecodeOutcome::Undecoded(Reason::TooDeep)), "{outcome:?}");
}

/// Writes the seeds of the fuzz target. Run by hand, with
/// `cargo test -p protocol --test decode_model -- --ignored write_seeds`.
#[test]
#[ignore = "writes into the source folder"]
fn write_seeds() {
    use proptest::strategy::ValueTree;
    use proptest::test_runner::{Config, RngAlgorithm, TestRng, TestRunner};

    let rng = TestRng::from_seed(RngAlgorithm::ChaCha, &[7; 32]);
    let mut runner = TestRunner::new_with_rng(Config::default(), rng);
    let folder = concat!(env!("CARGO_MANIFEST_DIR"), "/../fuzz/corpus/decode");
    let types = [1_u16, 101, 113, 276, 0, 108, 239, 9];
    for number in 0..24_u8 {
        let mut bytes = vec![number & 2];
        let mut add = |built: &Built| {
            let kind = types.iter().position(|one| *one == built.link_type.0).unwrap();
            bytes.extend([u8::try_from(kind).unwrap(), 0]);
            bytes.extend(u16::try_from(built.bytes.len()).unwrap().to_be_bytes());
            bytes.extend(&built.bytes);
        };
        let stack = any_stack().new_tree(&mut runner).unwrap().current();
        let (protocol, contents) = stack.contents();
        if contents.len() < 32 || number % 3 == 0 {
            add(&stack.build());
        } else {
            // Three fragments, out of order. The second overlaps the first.
            for (start, end) in [(8, 24), (24, contents.len()), (0, 16)] {
                let more = end < contents.len();
                let fragment = Some((77, u16::try_from(start).unwrap(), more));
                let packet = stack.outermost().around(protocol, &contents[start..end], fragment);
                add(&stack.link(&packet));
            }
        }
        std::fs::write(format!("{folder}/seed-{number:02}"), bytes).unwrap();
    }
}
