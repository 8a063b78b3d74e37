//! One packet for each fact about a layer that the decoder must know.

use std::net::{Ipv6Addr, SocketAddr};

use protocol::decode::{
    DecodeOptions, DecodeOutcome, Decoder, PacketTunnel, PayloadPart, Reason, TcpFlags, TcpHeader,
    Transport, TunnelKind,
};
use protocol::extent::Extent;
use protocol::linktype::LinkType;
use protocol::time::Timestamp;

const CLIENT: [u8; 4] = [10, 0, 0, 1];
const SERVER: [u8; 4] = [10, 0, 0, 2];

/// IPv4 from 10.0.0.1 to 10.0.0.2.
fn ipv4(protocol: u8, payload: &[u8]) -> Vec<u8> {
    frames::ipv4_fragment((CLIENT, SERVER), protocol, 0, 1, payload)
}

/// IPv6 from ::1 to ::2.
fn ipv6(next: u8, payload: &[u8]) -> Vec<u8> {
    let addresses = [1, 2].map(|last| Ipv6Addr::from_bits(last).octets());
    frames::ipv6(addresses.into(), next, payload)
}

fn udp(port: u16, payload: &[u8]) -> Vec<u8> {
    frames::udp_without_checksum(12_345, port, payload)
}

/// UDP from port 12345 to port 53 with "hello".
fn hello() -> Vec<u8> {
    udp(53, b"hello")
}

fn tcp(flags: u8, options: &[u8], payload: &[u8]) -> Vec<u8> {
    let [from, to] = [(CLIENT, 80), (SERVER, 40_000)].map(SocketAddr::from);
    frames::tcp_with_options(from, to, [1, 2], flags, options, payload)
}

fn ethernet(ether_type: u16, payload: &[u8]) -> Vec<u8> {
    frames::ethernet(&[], ether_type, payload)
}

/// The part of a result that tests compare.
#[derive(Debug)]
struct Found {
    transport: Transport,
    protocol: u8,
    vlans: Vec<u16>,
    tunnel: Option<PacketTunnel>,
    is_ipv6: bool,
    payload: Vec<u8>,
    missing: u32,
}

fn decode(link_type: u16, data: &[u8]) -> Result<Found, Option<Reason>> {
    let mut decoder = Decoder::new(DecodeOptions::default());
    decode_with(&mut decoder, link_type, data)
}

fn decode_with(
    decoder: &mut Decoder,
    link_type: u16,
    data: &[u8],
) -> Result<Found, Option<Reason>> {
    let len = u32::try_from(data.len()).unwrap();
    match decoder.packet(LinkType(link_type), 1, Timestamp::default(), len, data) {
        DecodeOutcome::Decoded(decoded) => Ok(Found {
            transport: decoded.transport,
            protocol: decoded.protocol,
            vlans: decoded.vlans.as_slice().to_vec(),
            tunnel: decoded.tunnel,
            is_ipv6: decoded.source.is_ipv6(),
            payload: decoded
                .payload
                .parts()
                .flat_map(|part| data[part.extent.range()].to_vec())
                .collect(),
            missing: decoded.payload.missing(),
        }),
        DecodeOutcome::Fragment => Err(None),
        DecodeOutcome::Undecoded(reason) => Err(Some(reason)),
    }
}

/// Checks that the frame contains [`hello`].
#[track_caller]
fn assert_hello(link_type: u16, data: &[u8]) -> Found {
    let found = decode(link_type, data).unwrap();
    assert_eq!(found.transport, Transport::Udp { source_port: 12345, destination_port: 53 });
    assert_eq!((found.payload.as_slice(), found.missing), (&b"hello"[..], 0));
    found
}

const ETHERNET: u16 = 1;
const RAW: u16 = 101;

#[test]
fn padding_is_not_payload() {
    let mut frame = ethernet(0x0800, &ipv4(17, &hello()));
    frame.resize(60, 0xaa);
    assert_hello(ETHERNET, &frame);
    // An empty IPv6 packet has length 0 too, and is no jumbogram.
    let mut frame = ethernet(0x86dd, &ipv6(59, b""));
    frame.resize(60, 0xaa);
    assert!(decode(ETHERNET, &frame).unwrap().payload.is_empty());
}

#[test]
fn priority_tags_have_no_id_and_other_tags_have_twelve_bits() {
    for (tags, ids) in [
        (&[0x8100, 0xe000][..], &[][..]),
        (&[0x8100, 0xe005], &[5]),
        (&[0x88a8, 0x1064, 0x8100, 0x00c8], &[100, 200]),
        (&[0x9100, 0x0064, 0x8100, 0x0000], &[100]),
    ] {
        let mut frame = vec![2; 12];
        for field in tags {
            frame.extend(u16::to_be_bytes(*field));
        }
        frame.extend([8, 0]);
        frame.extend(ipv4(17, &hello()));
        assert_eq!(assert_hello(ETHERNET, &frame).vlans, ids);
    }
}

#[test]
fn port_tags_are_not_vlans() {
    let packet = ipv4(17, &hello());
    for (ether_type, tag) in
        [(0x893f, &[0, 1, 0, 2, 0, 0, 8, 0][..]), (0x8926, &[0, 1, 0, 2, 8, 0])]
    {
        let found = assert_hello(ETHERNET, &ethernet(ether_type, &[tag, &packet].concat()));
        assert!(found.vlans.is_empty());
    }
}

#[test]
fn llc_with_and_without_snap() {
    let packet = ipv4(17, &hello());
    let snap = [&[0xaa, 0xaa, 3, 0, 0, 0, 8, 0], &packet[..]].concat();
    let len = u16::try_from(snap.len()).unwrap();
    let mut frame = ethernet(len, &snap);
    frame.extend([0xaa; 9]);
    assert_hello(ETHERNET, &frame);
    let plain = [&[6, 6, 3], &packet[..]].concat();
    assert_hello(ETHERNET, &ethernet(u16::try_from(plain.len()).unwrap(), &plain));
    // Spanning tree.
    let frame = ethernet(38, &[0x42, 0x42, 3, 0, 0, 0]);
    assert_eq!(decode(ETHERNET, &frame).unwrap_err(), Some(Reason::NotIp));
}

#[test]
fn tso_and_big_tcp_take_the_length_of_the_frame() {
    let mut packet = ipv4(17, &hello());
    packet[2..4].fill(0);
    packet[24..26].fill(0);
    assert_hello(ETHERNET, &ethernet(0x0800, &packet));

    let segment = tcp(0x10, &[], &[7; 80_000]);
    let mut header = ipv4(6, b"");
    header[2..4].fill(0);
    let found = decode(RAW, &[&header, &segment[..]].concat()).unwrap();
    assert_eq!(found.payload, [7; 80_000]);
    // IPv6 without the jumbo option, then with it after another option and padding.
    let mut header = ipv6(6, b"");
    header[4..6].fill(0);
    let found = decode(RAW, &[&header, &segment[..]].concat()).unwrap();
    assert_eq!(found.payload, [7; 80_000]);
    header[6] = 0;
    let mut options = vec![6, 1, 1, 2, 0, 0, 0, 0xc2, 4];
    options.extend(u32::try_from(16 + segment.len()).unwrap().to_be_bytes());
    options.extend([0, 0, 0]);
    let packet = [&header, &options[..], &segment, &[0xaa; 30]].concat();
    assert_eq!(decode(RAW, &packet).unwrap().payload, [7; 80_000]);
}

#[test]
fn tcp_headers_and_their_options() {
    // Fast open, window scale 255, MSS 1460; then the end, and an MSS that does not count.
    let options = [34, 4, 1, 2, 3, 3, 255, 1, 2, 4, 5, 0xb4, 0, 2, 4, 0, 1, 0, 0, 0];
    let found = decode(RAW, &ipv4(6, &tcp(0xd2, &options, b"early"))).unwrap();
    assert_eq!(found.payload, b"early");
    let expected = TcpHeader {
        source_port: 80,
        destination_port: 40_000,
        sequence: 1,
        acknowledgment: 2,
        flags: TcpFlags(0xd2),
        window: 0xffff,
        urgent: 0,
        maximum_segment_size: Some(1460),
        window_scale: Some(14),
        has_all_options: true,
        is_padded: false,
    };
    assert_eq!(found.transport, Transport::Tcp(expected));
    assert!(expected.flags.contains(TcpFlags::SYN) && !expected.flags.contains(TcpFlags::FIN));

    // The options are cut in the middle of the last one, and the whole payload is missing.
    let packet = ipv4(6, &tcp(0x02, &[2, 4, 5, 0xb4, 3, 3, 7, 1], b"payload"));
    let mut decoder = Decoder::new(DecodeOptions::default());
    let len = u32::try_from(packet.len()).unwrap();
    let outcome = decoder.packet(LinkType::RAW, 1, Timestamp::default(), len, &packet[..46]);
    let DecodeOutcome::Decoded(decoded) = outcome else { panic!("{outcome:?}") };
    let Transport::Tcp(tcp) = decoded.transport else { panic!("{decoded:?}") };
    assert_eq!((tcp.maximum_segment_size, tcp.window_scale), (Some(1460), None));
    assert!(!tcp.has_all_options);
    assert_eq!((decoded.payload.len(), decoded.payload.missing()), (7, 7));
    assert_eq!(decoded.payload.parts().next(), None);
}

#[test]
fn lengths_that_cannot_be_are_malformed() {
    let mut short = ipv4(17, &hello());
    short[3] = 19;
    let mut udp = ipv4(17, &hello());
    udp[25] = 7;
    let mut offset = ipv4(6, &tcp(0, &[], b"x"));
    offset[32] = 4 << 4;
    let mut beyond = ipv4(6, &tcp(0, &[], b"x"));
    beyond[32] = 15 << 4;
    let mut version = ipv4(17, &hello());
    version[0] = 0x75;
    for packet in [short, udp, offset, beyond, version] {
        assert_eq!(decode(RAW, &packet).unwrap_err(), Some(Reason::Malformed), "{packet:x?}");
    }
    // More than the packet contains: the real length counts.
    let mut long = ipv4(17, &hello());
    (long[3], long[25]) = (200, 100);
    assert_hello(RAW, &long);
}

#[test]
fn link_types() {
    let (v4, v6) = (ipv4(17, &hello()), ipv6(17, &hello()));
    for (link_type, header, packet) in [
        (12, &[][..], &v4),
        (228, &[], &v4),
        (229, &[], &v6),
        (0, &[2, 0, 0, 0], &v4),
        (0, &[0, 0, 0, 2], &v4),
        (0, &[24, 0, 0, 0], &v6),
        (0, &[0, 0, 0, 28], &v6),
        (108, &[0, 0, 0, 30], &v6),
        (0, &[0x0f, 0, 8, 0], &v4),
        (9, &[0xff, 3, 0, 0x21], &v4),
        (9, &[0x21], &v4),
        (9, &[0, 0x57], &v6),
        (50, &[0xff, 3, 0, 0x57], &v6),
        (50, &[0x0f, 0, 8, 0], &v4),
        (51, &[0x11, 0, 0, 7, 0, 35, 0, 0x21], &v4),
        (104, &[0x0f, 0, 0x86, 0xdd], &v6),
        (166, &[1, 3, 0, 0x21], &v4),
        (204, &[0, 0xff, 3, 0, 0x21], &v4),
        (113, &[0, 0, 0, 1, 0, 6, 1, 2, 3, 4, 5, 6, 0, 0, 8, 0], &v4),
        (
            276,
            &[0x81, 0, 0, 0, 0, 0, 0, 2, 0, 1, 0, 6, 1, 2, 3, 4, 5, 6, 0, 0, 0, 9, 0x86, 0xdd],
            &v6,
        ),
        (239, &[10, 0, 0, 0, 5, 0, 10, 0, 0, 0, 0, 0, 57, 0, 9, 0], &v6),
    ] {
        let found = assert_hello(link_type, &[header, packet].concat());
        assert_eq!(found.is_ipv6, packet[0] == 0x60, "{link_type}");
    }
    assert_eq!(decode(147, &v4).unwrap_err(), Some(Reason::LinkType));
    let netlink = [&[0, 4, 3, 0x38, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 8, 0], &v4[..]].concat();
    assert_eq!(decode(113, &netlink).unwrap_err(), Some(Reason::NotIp));
    assert_eq!(decode(ETHERNET, &ethernet(0x0806, &v4)).unwrap_err(), Some(Reason::NotIp));
}

#[test]
fn the_first_bits_after_labels_select_the_protocol() {
    let (v4, v6) = (ipv4(17, &hello()), ipv6(17, &hello()));
    let frame = ethernet(0x0800, &v4);
    let mut like_ip = frame.clone();
    like_ip[..4].copy_from_slice(&[0x45, 0, 0xff, 0xff]);
    let mut zero = frame.clone();
    zero[0] = 0;
    let stack = [0, 1, 0, 0x40, 0, 2, 0x31, 0x40];
    for inner in
        [v4.clone(), v6, frame.clone(), like_ip, zero, [&[0, 0, 0, 9], &frame[..]].concat()]
    {
        let found = assert_hello(ETHERNET, &ethernet(0x8847, &[&stack, &inner[..]].concat()));
        let tunnel = found.tunnel.unwrap();
        assert_eq!((tunnel.kind, tunnel.id), (TunnelKind::Mpls, Some(0x23)));
        assert_eq!(tunnel.endpoints, None);
    }
}

#[test]
fn extension_headers() {
    let inner = hello();
    // Hop-by-hop, destination options of 16 bytes, routing, AH of 24 bytes, mobility.
    let mut chain = vec![60, 0, 1, 4, 0, 0, 0, 0];
    chain.extend([43, 1, 1, 12, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0]);
    chain.extend([51, 0, 0, 0, 0, 0, 0, 0]);
    chain.extend([17, 4]);
    chain.extend([9; 22]);
    assert_hello(RAW, &ipv6(0, &[&chain, &inner[..]].concat()));
    // AH in IPv4, and an atomic fragment.
    let authenticated = [&[17, 4], &[9; 22][..], &inner].concat();
    assert_hello(RAW, &ipv4(51, &authenticated));
    assert_hello(RAW, &ipv6(44, &[&[17, 0, 0, 0, 0, 0, 0, 5], &inner[..]].concat()));
    // The extension headers of IPv6 mean nothing in IPv4.
    assert_eq!(decode(RAW, &ipv4(60, &chain)).unwrap().protocol, 60);
    let endless = [60, 0, 1, 4, 0, 0, 0, 0].repeat(40);
    assert_eq!(decode(RAW, &ipv6(60, &endless)).unwrap_err(), Some(Reason::TooDeep));
}

#[test]
fn tunnels() {
    let v4 = ipv4(17, &hello());
    let frame = ethernet(0x0800, &v4);
    let gre = |header: &[u8], inner: &[u8]| ipv4(47, &[header, inner].concat());
    let in_udp =
        |port, header: &[u8], inner: &[u8]| ipv6(17, &udp(port, &[header, inner].concat()));
    let pptp = [0x30, 0x81, 0x88, 0x0b, 0, 37, 0, 3, 0, 0, 0, 1, 0, 0, 0, 2, 0xff, 3, 0, 0x21];
    let routed = [
        0x40, 0, 8, 0, 0, 0, 0, 0, // checksum and offset
        0, 1, 0, 4, 10, 0, 0, 9, // an entry of four bytes
        0, 0, 0, 0,
    ];
    let erspan2 = [0x10, 0, 0x88, 0xbe, 0, 0, 0, 7, 0x10, 1, 0xfc, 5, 0, 0, 0, 0];
    let erspan3 = [0x10, 0, 0x22, 0xeb, 0, 0, 0, 7, 0x20, 1, 0, 5, 0, 0, 0, 0, 0, 0, 8, 0];
    let packets = [
        (TunnelKind::Gre, None, gre(&[0, 0, 8, 0], &v4)),
        (TunnelKind::Gre, Some(7), gre(&[0xb0, 0, 8, 0, 0, 0, 0, 0, 0, 0, 0, 7, 0, 0, 0, 1], &v4)),
        (TunnelKind::Gre, Some(0x1_0203), gre(&[0x20, 0, 0x65, 0x58, 1, 2, 3, 9], &frame)),
        (TunnelKind::Gre, None, gre(&routed, &v4)),
        (TunnelKind::Gre, None, gre(&[0, 0, 0x88, 0x3e], &v4)),
        (TunnelKind::Gre, None, gre(&[0, 0, 0x88, 0x3e, 0, 1, 2, 3], &v4)),
        (TunnelKind::Gre, None, in_udp(4754, &[0, 0, 8, 0], &v4)),
        (TunnelKind::Pptp, Some(3), gre(&pptp, &v4)),
        (TunnelKind::Erspan1, None, gre(&[0, 0, 0x88, 0xbe], &frame)),
        (TunnelKind::Erspan2, Some(5), gre(&erspan2, &frame)),
        (TunnelKind::Erspan3, Some(5), gre(&erspan3, &v4)),
        (TunnelKind::Vxlan, Some(9), in_udp(4789, &[8, 0, 0, 0, 0, 0, 9, 0], &frame)),
        (TunnelKind::Vxlan, Some(9), in_udp(8472, &[8, 0, 0, 0, 0, 0, 9, 0], &frame)),
        (TunnelKind::Vxlan, Some(9), in_udp(4790, &[12, 0, 0, 1, 0, 0, 9, 0], &v4)),
        (TunnelKind::Geneve, Some(9), in_udp(6081, &[1, 0, 8, 0, 0, 0, 9, 0, 1, 2, 3, 4], &v4)),
        (TunnelKind::Ipip, None, ipv6(4, &v4)),
        (TunnelKind::Mpls, Some(0x20), ipv4(137, &[&[0, 2, 1, 9], &v4[..]].concat())),
    ];
    for (kind, id, packet) in packets {
        let tunnel = assert_hello(RAW, &packet).tunnel.unwrap();
        assert_eq!((tunnel.kind, tunnel.id), (kind, id));
        assert_eq!(tunnel.endpoints.is_some(), kind != TunnelKind::Mpls);

        let mut decoder =
            Decoder::new(DecodeOptions { tunnels: false, ..DecodeOptions::default() });
        let outer = decode_with(&mut decoder, RAW, &packet).unwrap();
        assert_eq!(outer.tunnel, None);
        assert_eq!(outer.is_ipv6, packet[0] == 0x60);
    }
}

#[test]
fn a_tunnel_without_an_ip_packet_is_the_outer_packet() {
    let arp = ethernet(0x0806, &[0; 28]);
    let vxlan = [&[8, 0, 0, 0, 0, 0, 9, 0], &arp[..]].concat();
    let found = decode(RAW, &ipv4(17, &udp(4789, &vxlan))).unwrap();
    assert_eq!(found.transport, Transport::Udp { source_port: 12345, destination_port: 4789 });
    assert_eq!((found.payload, found.tunnel), (vxlan, None));
    // A reply that happens to be sent to that port.
    let found = decode(RAW, &ipv4(17, &udp(4789, b"not what it seems"))).unwrap();
    assert_eq!(found.payload, b"not what it seems");
    let found = decode(RAW, &ipv4(47, &[0, 0, 0, 0])).unwrap();
    assert_eq!((found.protocol, found.transport), (47, Transport::Other));
    // An ICMP error is not the packet that it is about.
    let error = [&[3, 3, 0, 0, 0, 0, 0, 0], &ipv4(17, &hello())[..]].concat();
    let found = decode(RAW, &ipv4(1, &error)).unwrap();
    assert_eq!((found.protocol, found.payload), (1, error));
}

/// A fragment of an IPv4 packet. `at` counts units of 8 bytes.
fn fragment(at: u16, more: bool, payload: &[u8]) -> Vec<u8> {
    let mut packet = ipv4(17, payload);
    packet[6..8].copy_from_slice(&(at | u16::from(more) << 13).to_be_bytes());
    packet
}

#[test]
fn fragments_come_in_any_order_and_belong_to_one_network() {
    let whole = udp(53, b"0123456789abcdef-end");
    let parts = [
        fragment(0, true, &whole[..16]),
        fragment(2, true, &whole[16..24]),
        fragment(3, false, &whole[24..]),
    ];
    for order in [[0, 1, 2], [0, 2, 1], [1, 0, 2], [1, 2, 0], [2, 0, 1], [2, 1, 0]] {
        let mut decoder = Decoder::new(DecodeOptions::default());
        for (count, index) in order.into_iter().enumerate() {
            let mut frame = ethernet(0x0800, &parts[index]);
            frame.resize(60, 0xaa);
            // The same fragments with a tag belong to another datagram.
            let mut tagged = frame.clone();
            tagged.splice(12..12, [0x81, 0, 0, 5]);
            let number = index as u64;
            let mut packet = |data: &[u8]| {
                let time = Timestamp::default();
                let outcome = decoder.packet(LinkType::ETHERNET, number, time, 60, data);
                match outcome {
                    DecodeOutcome::Decoded(decoded) => Some((
                        decoded.vlans.as_slice().to_vec(),
                        decoded.payload.parts().collect::<Vec<_>>(),
                    )),
                    DecodeOutcome::Fragment => None,
                    DecodeOutcome::Undecoded(reason) => panic!("{reason:?}"),
                }
            };
            let plain = packet(&frame);
            if count < 2 {
                assert_eq!((plain, packet(&tagged)), (None, None));
            } else {
                let part = |at, packet, offset, len| PayloadPart {
                    at,
                    extent: Extent { packet, offset, len },
                };
                let extents = vec![part(0, 0, 42, 8), part(8, 1, 34, 8), part(16, 2, 34, 4)];
                assert_eq!(plain, Some((vec![], extents)));
                assert_eq!(packet(&tagged).unwrap().0, [5]);
            }
        }
        let counters = decoder.counters();
        assert_eq!((counters.packets, counters.decoded, counters.fragments), (6, 2, 4));
        assert_eq!(counters.reassembly.reassembled, 2);
    }
}

#[test]
fn fragments_that_fit_nowhere_are_refused() {
    let mut decoder = Decoder::new(DecodeOptions::default());
    for (packet, expected) in [
        // Beyond 64 KiB, and an empty one.
        (fragment(0x1fff, false, &[0; 100]), Some(Reason::BadFragment)),
        (fragment(1, true, &[0; 7]), Some(Reason::BadFragment)),
        // The end is at 32, so it is not at 24, and no bytes come after it.
        (fragment(2, false, &[0; 16]), None),
        (fragment(2, false, &[0; 8]), Some(Reason::BadFragment)),
        (fragment(3, true, &[0; 16]), Some(Reason::BadFragment)),
    ] {
        assert_eq!(decode_with(&mut decoder, RAW, &packet).unwrap_err(), expected);
    }
    assert_eq!(decoder.counters().undecoded(Reason::BadFragment), 4);
    assert_eq!(decoder.counters().reassembly.pending, 1);
}

#[test]
fn a_datagram_has_a_minute() {
    let mut decoder = Decoder::new(DecodeOptions::default());
    let second = 1_000_000_000;
    let whole = udp(53, b"01234567");
    let mut packet = |time: u64, data: &[u8]| {
        let time = Timestamp::from_nanoseconds(time * second);
        let len = u32::try_from(data.len()).unwrap();
        matches!(decoder.packet(LinkType::RAW, 1, time, len, data), DecodeOutcome::Decoded(_))
    };
    let (first, last) = (fragment(0, true, &whole[..8]), fragment(1, false, &whole[8..]));
    assert!(!packet(100, &first));
    // Time may go back.
    assert!(packet(40, &last));
    assert!(!packet(100, &first));
    assert!(packet(160, &last));
    assert!(!packet(200, &first));
    assert!(!packet(261, &last));
    assert_eq!(decoder.counters().reassembly.expired, 1);
}

#[test]
fn options_of_ipv4_lie_within_their_header() {
    let header = |options: &[u8]| {
        assert!(options.len().is_multiple_of(4));
        let mut packet = ipv4(17, &[0, 1, 0, 2, 0, 9, 0, 0, 7]);
        packet[0] += u8::try_from(options.len() / 4).unwrap();
        packet[3] += u8::try_from(options.len()).unwrap();
        packet.splice(20..20, options.iter().copied());
        decode(RAW, &packet).map(|found| found.payload)
    };
    // Router alert, timestamps, an unknown option, no-operations, and the end, after which any byte
    // is allowed.
    for good in [[148, 4, 0, 0], [68, 4, 5, 0], [200, 3, 0, 1], [1, 1, 1, 1], [0, 9, 9, 9]] {
        assert_eq!(header(&good), Ok(vec![7]), "{good:?}");
    }
    assert_eq!(header(&[1, 130, 7, 0, 0, 0, 0, 0]), Ok(vec![7]));
    // Too long, too short, and without a length.
    for bad in [[148, 5, 0, 0], [68, 0, 0, 0], [200, 1, 0, 1], [1, 1, 1, 7], [1, 1, 7, 3]] {
        assert_eq!(header(&bad), Err(Some(Reason::Malformed)), "{bad:?}");
    }
}
