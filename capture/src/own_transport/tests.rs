//! The table, packet by packet.

use std::net::SocketAddr;
use std::time::Duration;

use protocol::linktype::LinkType;
use protocol::time::Timestamp;

use super::ExclusionScope::AllCaptures;
use super::*;

fn transport() -> &'static OwnTransport {
    Box::leak(Box::new(OwnTransport::new()))
}

fn address(text: &str) -> SocketAddr {
    text.parse().unwrap()
}

const RING: fn() -> RingNumber = RingNumber::next;

/// Whether a packet between two ends is ours; `SYN` and time say how it begins.
fn owns(transport: &OwnTransport, source: &str, destination: &str) -> bool {
    let now = (clock::now(), false);
    transport.owns(RING(), [address(source), address(destination)], now)
}

fn opens(transport: &OwnTransport, source: &str, destination: &str, time: Timestamp) -> bool {
    transport.owns(RING(), [address(source), address(destination)], (time, true))
}

fn later() -> Timestamp {
    Timestamp::from_nanoseconds(clock::now().nanoseconds() + 1_000_000)
}

#[test]
fn a_connection_is_its_two_ends_in_both_directions() {
    let transport = transport();
    assert!(transport.is_empty());
    let (ours, far) = ("127.0.0.1:4000", "10.0.0.2:2020");
    let any = address("0.0.0.0:4000");
    let exclusion = transport.enter_connection(any, address(far), AllCaptures).unwrap();
    assert!(!transport.is_empty());
    for _ in 0..2 {
        assert!(owns(transport, ours, far) && owns(transport, far, ours));
        for other in ["127.0.0.1:4001", "10.0.0.9:4000"] {
            assert!(!owns(transport, other, far) && !owns(transport, far, other), "{other}");
        }
        assert!(!owns(transport, ours, "10.0.0.3:2020"));
        // The address is known once it is connected.
        exclusion.set_local(address("[::ffff:127.0.0.1]:4000"));
    }
    let [tuple] = &transport.tuples(None)[..] else { panic!() };
    let shown = serde_json::to_string(tuple).unwrap();
    let expected = r#"{"local":"127.0.0.1:4000","remote":"10.0.0.2:2020","state":"open"}"#;
    assert_eq!(shown, expected);
}

#[test]
fn a_closed_connection_lingers_until_its_ends_are_used_again() {
    let transport = transport();
    let (ours, far) = ("10.0.0.1:4000", "10.0.0.2:2020");
    let enter = || transport.enter_connection(address(ours), address(far), AllCaptures).unwrap();
    let before = clock::now();
    drop(enter());
    assert_eq!(transport.tuples(None)[0].state, OwnSocketState::Closed);
    assert!(owns(transport, ours, far), "a late packet");
    assert!(opens(transport, ours, far, before), "our own SYN, compared late");
    assert!(!opens(transport, ours, far, later()), "the SYN of another program");
    assert!(!owns(transport, far, ours), "the answer to it");
    let _open = enter();
    drop(enter());
    assert!(opens(transport, ours, far, later()), "the ends are ours again");
}

#[test]
fn a_listening_port_is_ours_at_our_addresses_only() {
    let transport = transport();
    let listening = address("0.0.0.0:2020");
    let exclusion = transport.enter_listening(listening, false, AllCaptures).unwrap();
    let (client, forwarded) = ("10.0.0.2:4000", "10.200.0.9:2020");
    assert!(opens(transport, client, "127.0.0.1:2020", later()));
    assert!(owns(transport, "127.3.2.1:2020", client));
    assert!(!owns(transport, client, forwarded), "to another machine");
    assert!(!owns(transport, "127.0.0.1:4000", forwarded), "from this one to another");
    assert!(!owns(transport, client, "[::1]:2020"), "the other family");
    drop(exclusion);
    assert!(owns(transport, client, "127.0.0.1:2020"), "a connection it had");
    assert!(!owns(transport, "10.0.0.3:4000", "127.0.0.1:2020"), "a new one");
    assert!(!opens(transport, client, "127.0.0.1:2020", later()));
}

#[test]
fn both_families_are_two_ways_to_one_socket() {
    let transport = transport();
    let exclusion = transport.enter_listening(address("[::]:2020"), true, AllCaptures).unwrap();
    assert!(owns(transport, "10.0.0.2:4000", "127.0.0.1:2020"));
    assert!(owns(transport, "[fd00::2]:4000", "[::1]:2020"));
    assert_eq!(transport.tuples(None).len(), 2);
    let before = (clock::now(), false);
    drop(exclusion);
    let late = [address("10.0.0.2:4001"), address("127.0.0.1:2020")];
    assert!(transport.owns(RING(), late, before), "compared late");
    assert!(owns(transport, "10.0.0.2:4001", "127.0.0.1:2020"), "and its connection is known");
    assert!(!owns(transport, "10.0.0.2:4002", "127.0.0.1:2020"));
}

#[test]
fn a_scope_names_the_captures() {
    let transport = transport();
    let [first, second] = [RING(), RING()];
    let scope = ExclusionScope::Rings([first].into());
    let ends = [address("10.0.0.1:4000"), address("10.0.0.2:80")];
    let exclusion = transport.enter_connection(ends[0], ends[1], scope).unwrap();
    let owns = |ring| transport.owns(ring, ends, (clock::now(), false));
    assert!(owns(first) && !owns(second));
    exclusion.set_scope(ExclusionScope::Rings([second].into()));
    assert!(!owns(first) && owns(second));
    assert_eq!((transport.tuples(Some(first)).len(), transport.tuples(Some(second)).len()), (0, 1));
}

#[test]
fn closed_sockets_make_room_and_open_ones_do_not() {
    let transport = transport();
    let far = address("10.0.0.2:2020");
    let enter = |port| {
        let local = SocketAddr::from(([10, 0, 0, 1], port));
        transport.enter_connection(local, far, AllCaptures)
    };
    let most = u16::try_from(MAX_SOCKETS).unwrap();
    let mut open: Vec<_> = (1..=most).map(|port| enter(port).unwrap()).collect();
    assert_eq!(enter(5000).map(drop), Err(TooManySockets));
    open.pop();
    assert!(owns(transport, "10.0.0.1:4096", "10.0.0.2:2020"));
    open.push(enter(5000).unwrap());
    assert!(!owns(transport, "10.0.0.1:4096", "10.0.0.2:2020"));
    assert_eq!(enter(5001).map(drop), Err(TooManySockets));
}

#[test]
fn connections_of_a_listener_are_bounded() {
    let transport = transport();
    let exclusion =
        transport.enter_listening(address("127.0.0.1:2020"), false, AllCaptures).unwrap();
    let client = |number: u32| SocketAddr::from((std::net::Ipv4Addr::from(number), 4000));
    let owns = |number| {
        let ends = [client(number), address("127.0.0.1:2020")];
        transport.owns(RING(), ends, (clock::now(), false))
    };
    let most = u32::try_from(MAX_LEARNED).unwrap() + 100;
    for number in 1..=most {
        assert!(owns(number));
    }
    assert!(transport.table.read().by_ends.len() <= MAX_LEARNED + 1);
    drop(exclusion);
    assert!(owns(most) && !owns(1), "the newest are kept");
}

#[test]
fn packets_are_compared_below_tags_and_in_fragments() {
    let transport = transport();
    let [ours, far] = [address("10.0.0.1:4000"), address("10.0.0.2:2020")];
    let _exclusion = transport.enter_connection(ours, far, AllCaptures).unwrap();
    let mut packets = OwnPackets::of(transport);
    let ring = RING();
    let mut has = |link_type, data: &[u8]| {
        let len = u32::try_from(data.len()).unwrap();
        packets.has(ring, (link_type, len), clock::now(), data)
    };
    for (from, to, expected) in [(ours, far, true), (far, ours, true), (far, far, false)] {
        let segment = frames::tcp(from, to, [1, 1], 0x10, &[7; 64]);
        let packet = frames::ip(from.ip(), to.ip(), frames::TCP, &segment);
        assert_eq!(has(LinkType::RAW, &packet), expected);
        for tags in [&[][..], &[(0x8100, 10)], &[(0x88a8, 7), (0x8100, 8)]] {
            let frame = frames::ethernet(tags, frames::IPV4, &packet);
            assert_eq!(has(LinkType::ETHERNET, &frame), expected, "{tags:?}");
        }
        // 802.3 has the length of UDP and ICMP packets at other places.
        let datagram = frames::ip(from.ip(), to.ip(), 17, &segment);
        assert!(!has(LinkType::RAW, &datagram));
    }
}

#[test]
fn old_entries_go() {
    let transport = transport();
    let far = address("10.0.0.2:2020");
    let _open = transport.enter_connection(address("10.0.0.1:1"), far, AllCaptures).unwrap();
    drop(transport.enter_connection(address("10.0.0.1:2"), far, AllCaptures).unwrap());
    transport.tidy();
    assert_eq!(transport.tuples(None).len(), 2);
    for entry in transport.table.write().entries.values_mut() {
        if let Some(closed) = &mut entry.closed {
            // A machine that has just been started has no such time.
            let Some(at) = closed.at.checked_sub(LINGER + Duration::from_secs(1)) else { return };
            closed.at = at;
        }
    }
    transport.tidy();
    assert_eq!(transport.tuples(None).len(), 1);
    assert!(!owns(transport, "10.0.0.1:2", "10.0.0.2:2020"));
}
