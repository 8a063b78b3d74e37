//! Datagrams in fragments, some of which may never come.

#![allow(clippy::cast_possible_truncation, reason = "the numbers of tests are small")]

use capture::flow::{File, FlowOptions};
use capture::store::Store;
use proptest::prelude::*;
use serde_json::json;

use crate::scene::*;

/// The fragments of a payload of IPv6, between fixed addresses.
fn cut6(payload: &[u8], next: u8, cuts: &[usize]) -> Vec<Vec<u8>> {
    let edges: Vec<usize> = [0].iter().chain(cuts).copied().chain([payload.len()]).collect();
    let fragment = |edge: &[usize]| {
        let part = &payload[edge[0]..edge[1]];
        let more = u16::from(edge[1] < payload.len());
        // The fragment header of RFC 8200 section 4.5.
        let mut content = vec![next, 0];
        content.extend((edge[0] as u16 | more).to_be_bytes());
        content.extend([0, 0, 0, 7]);
        content.extend(part);
        let packet = frames::ipv6(([0x20; 16], [0x30; 16]), 44, &content);
        frames::ethernet(&[], frames::IPV6, &packet)
    };
    edges.windows(2).map(fragment).collect()
}

/// Checks that every packet is in a flow or counted, and every captured byte in its stream or
/// counted.
#[track_caller]
fn all_is_there(scene: &Scene) {
    let counters = scene.counters();
    let mut packets = counters.undecodable;
    for id in scene.ids() {
        let meta = scene.meta(id);
        for (name, file) in [("client", File::Client), ("server", File::Server)] {
            let side = &meta[name];
            let of = |field: &str| side[field].as_u64().unwrap();
            packets += of("packets");
            let gaps = side["gaps"].as_array().unwrap().iter();
            let gaps: u64 =
                gaps.map(|gap| gap[1].as_u64().unwrap() - gap[0].as_u64().unwrap()).sum();
            let counted = of("repeated_bytes") + of("late_bytes") + of("rejected_bytes");
            let len = scene.file(id, file).len() as u64;
            assert_eq!(len, of("stream_bytes"), "{meta}");
            assert_eq!(len - gaps + counted, of("captured_bytes"), "{meta}");
        }
    }
    assert_eq!(packets, scene.ring.bounds().next.number - 1, "{counters:#?}");
}

#[test]
fn a_first_fragment_is_in_its_flow_at_once_and_the_rest_is_a_gap() {
    let mut scene = Scene::new(free());
    scene.send(&udp(1, 2_000, true, b"one query"));
    for identification in 0..3 {
        let answer = udp(1, 2_000, false, &[b'0' + identification as u8; 100]);
        scene.send(&fragments(&answer, identification, &[48])[0]);
    }
    scene.settle();
    let [id] = scene.ids()[..] else { panic!("{:?}", scene.ids()) };
    assert_eq!(scene.meta(id)["server"]["packets"], 3);
    // The others may still come, so the bytes after the first fragment wait.
    assert_eq!(scene.file(id, File::Server), [b'0'; 40]);
    scene.now += 2 * SECOND;
    scene.send(&udp(1, 2_000, true, b"another"));
    scene.settle();
    let half = |letter: u8| [[letter; 40].as_slice(), &[0; 60]].concat();
    assert_eq!(scene.file(id, File::Server), [half(b'0'), half(b'1'), half(b'2')].concat());
    let meta = scene.meta(id);
    let gaps = json!([[40, 100, "missing"], [140, 200, "missing"], [240, 300, "missing"]]);
    assert_eq!(meta["server"]["gaps"], gaps, "{meta}");
    assert_eq!(scene.counters().gaps, 3);
    scene.end();
    all_is_there(&scene);
    assert_eq!(scene.counters().undecodable, 0);
}

#[test]
fn the_rest_of_a_datagram_is_not_waited_for_on_an_idle_link() {
    let mut scene = Scene::new(free());
    scene.send(&fragments(&udp(1, 2_000, true, &[7; 100]), 1, &[48])[0]);
    scene.settle();
    wait_until("the gap is there", || scene.meta(1)["client"]["stream_bytes"] == 100);
    all_is_there(&scene);
}

#[test]
fn fragments_with_different_tags_form_one_datagram_if_vlans_are_joined() {
    for any_vlan in [false, true] {
        let mut scene = Scene::new(FlowOptions { any_vlan, ..free() });
        for (tag, part) in
            fragments(&udp(1, 2_000, true, &[b'a'; 100]), 1, &[48]).iter().enumerate()
        {
            let tag = [0x81, 0, 0, tag as u8];
            scene.send(&[&part[..12], &tag, &part[12..]].concat());
        }
        scene.settle();
        scene.end();
        let rest = if any_vlan { b'a' } else { 0 };
        assert_eq!(scene.file(1, File::Client), [[b'a'; 40].as_slice(), &[rest; 60]].concat());
        all_is_there(&scene);
    }
}

#[test]
fn packets_between_fragments_stay_in_order() {
    let mut scene = Scene::new(free());
    let parts = fragments(&udp(1, 2_000, true, &[b'a'; 100]), 1, &[48, 64]);
    scene.send(&parts[0]);
    scene.send(&udp(1, 2_000, true, b"bb"));
    scene.send(&parts[2]);
    scene.settle();
    assert_eq!(scene.file(1, File::Client), [b'a'; 40]);
    scene.send(&parts[1]);
    scene.settle();
    assert_eq!(scene.file(1, File::Client), [&[b'a'; 100][..], b"bb"].concat());
    assert_eq!(scene.meta(1)["client"]["packets"], 4);
    scene.end();
    all_is_there(&scene);
    assert_eq!((scene.counters().undecodable, scene.counters().gaps), (0, 0));
}

#[test]
fn copies_of_fragments_belong_to_the_flow() {
    let mut scene = Scene::new(free());
    for data in [b'a', b'b'] {
        // Captured on two interfaces, and with the same identification as the previous datagram.
        for part in fragments(&udp(1, 2_000, true, &[data; 100]), 1, &[48]) {
            scene.send(&part);
            scene.send(&part);
        }
    }
    scene.settle();
    scene.end();
    let meta = scene.meta(1);
    assert_eq!(scene.file(1, File::Client), [[b'a'; 100], [b'b'; 100]].concat(), "{meta}");
    let client = &meta["client"];
    assert_eq!((&client["packets"], &client["repeated_bytes"]), (&json!(8), &json!(200)));
    all_is_there(&scene);
    assert_eq!(scene.counters().undecodable, 0);
}

#[test]
fn fragments_that_come_before_the_first_join_it() {
    let mut scene = Scene::new(free());
    let mut parts = fragments(&udp(1, 2_000, true, &[b'a'; 100]), 1, &[48, 64]);
    parts.reverse();
    let [last, middle, first] = &parts[..] else { unreachable!() };
    scene.send(last);
    scene.send(middle);
    scene.settle();
    assert_eq!(scene.counters().undecodable_by.fragment, 2);
    all_is_there(&scene);
    scene.send(first);
    scene.settle();
    assert_eq!(scene.file(1, File::Client), [b'a'; 100]);
    assert_eq!(scene.meta(1)["client"]["packets"], 3);
    scene.end();
    all_is_there(&scene);
    assert_eq!(scene.counters().undecodable, 0);
}

#[test]
fn a_fragment_that_comes_when_its_datagram_was_given_up_is_counted() {
    let mut scene = Scene::new(free());
    let parts = fragments(&udp(1, 2_000, true, &[b'a'; 100]), 1, &[48]);
    scene.send(&parts[0]);
    scene.now += 2 * SECOND;
    scene.send(&udp(1, 2_000, true, b"bb"));
    scene.send(&parts[1]);
    scene.settle();
    let meta = scene.meta(1);
    assert_eq!(
        (&meta["client"]["packets"], &meta["client"]["late_bytes"]),
        (&json!(3), &json!(60))
    );
    scene.end();
    all_is_there(&scene);
}

#[test]
fn segments_in_fragments_are_in_order_with_and_without_their_end() {
    for missing in [None, Some(1), Some(2)] {
        let mut scene = Scene::new(free());
        let mut talk = Talk::new(1, 2_000);
        scene.send_all(talk.open());
        // The FIN is at the end of the last fragment.
        let flags = if missing == Some(2) { ACK } else { ACK | FIN };
        let whole = talk.segment(CLIENT, flags, &[b'a'; 400]);
        for (index, part) in fragments(&whole, 5, &[24, 120]).iter().enumerate() {
            if Some(index) != missing {
                scene.send(part);
            }
        }
        scene.settle();
        let id = scene.ids()[0];
        assert!(scene.file(id, File::Client).starts_with(b"aaaa"));
        scene.send(&talk.segment(SERVER, ACK, b"answer"));
        scene.send(&talk.segment(SERVER, ACK | FIN, b""));
        scene.now += 10 * SECOND;
        scene.send(&udp(9, 1, true, b"time passes"));
        scene.settle();
        scene.end();
        let client = scene.file(id, File::Client);
        assert_eq!(client.len(), 400, "without {missing:?}: {}", scene.meta(id));
        let gap = match missing {
            None => 0..0,
            Some(1) => 4..100,
            _ => 100..400,
        };
        for (at, byte) in client.iter().enumerate() {
            assert_eq!(*byte, if gap.contains(&at) { 0 } else { b'a' }, "{at}");
        }
        let closed_by = if missing == Some(2) { "server" } else { "client" };
        assert_eq!(scene.meta(id)["closed_by"], closed_by);
        all_is_there(&scene);
        assert_eq!(scene.counters().undecodable, 0);
    }
}

#[test]
fn ipv6_has_first_fragments_too() {
    let mut scene = Scene::new(free());
    let datagram = udp(1, 2_000, true, &[b'6'; 300])[34..].to_vec();
    scene.send(&cut6(&datagram, 17, &[64, 128])[0]);
    scene.settle();
    assert_eq!(scene.file(1, File::Client), [b'6'; 56]);
    scene.end();
    assert_eq!(scene.file(1, File::Client).len(), 300);
    all_is_there(&scene);
}

#[test]
fn captured_fragments_of_a_tunnel_are_in_a_flow_once_it_is_given_up() {
    let mut scene = Scene::new(free());
    // IPv4 in IPv4.
    let inner = udp(1, 2_000, true, &[b'a'; 300]);
    let mut outer = udp(2, 1, true, b"")[..34].to_vec();
    outer[23] = 4;
    outer.extend(&inner[14..]);
    let parts = fragments(&outer, 1, &[104, 208]);
    scene.send(&parts[0]);
    scene.send(&parts[2]);
    scene.settle();
    assert_eq!((scene.ids().len(), scene.counters().undecodable_by.fragment), (0, 2));
    scene.end();
    let client = scene.file(1, File::Client);
    assert_eq!(client, [&[b'a'; 76][..], &[0; 104], &[b'a'; 120]].concat());
    all_is_there(&scene);
    assert_eq!(scene.counters().undecodable, 0);
}

#[test]
fn packets_without_a_flow_are_counted_by_kind() {
    let mut scene = Scene::new(free());
    let datagram = udp(1, 2_000, true, &[b'a'; 300]);
    let mut arp = datagram.clone();
    arp[13] = 6;
    let mut icmp = datagram.clone();
    icmp[23] = 1;
    let mut malformed = datagram.clone();
    malformed[14] = 0x42;
    scene.send_all([arp, icmp.clone(), malformed]);
    scene.now += 1_000;
    scene.send_cut(&datagram, 36);
    scene.send_all(fragments(&icmp, 1, &[96]));
    scene.send(&fragments(&datagram, 2, &[96])[1]);
    scene.settle();
    let by = scene.counters().undecodable_by;
    assert_eq!((by.not_ip, by.malformed, by.truncated), (1, 1, 1), "{by:?}");
    assert_eq!((by.protocol, by.fragment, by.total()), (3, 1, 7), "{by:?}");
    all_is_there(&scene);
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 200, ..ProptestConfig::default() })]

    /// Datagrams of two conversations, cut anywhere. Some fragments are lost, repeated, cut short
    /// when captured, or out of order.
    #[test]
    fn every_fragment_is_in_a_flow_or_counted(
        datagrams in prop::collection::vec(
            (0..2_u32, any::<bool>(), 1..400_usize, prop::collection::btree_set(1..50_usize, 0..5)),
            1..20,
        ),
        fates in prop::collection::vec((0..10_u8, 0..6_usize, 30..500_usize), 1..100),
    ) {
        let mut scene = Scene::new(free());
        let mut talk = Talk::new(7, 2_000);
        let mut frames = Vec::new();
        for (index, (client, is_tcp, len, cuts)) in datagrams.iter().enumerate() {
            let data = vec![index as u8 + 1; *len];
            let frame = if *is_tcp {
                talk.segment(CLIENT, ACK, &data)
            } else {
                udp(*client + 1, 2_000, true, &data)
            };
            let cuts: Vec<usize> =
                cuts.iter().map(|cut| cut * 8).filter(|cut| 34 + cut < frame.len()).collect();
            frames.extend(fragments(&frame, index as u16, &cuts));
        }
        for (index, (fate, further, _)) in fates.iter().enumerate() {
            let (at, to) = (index % frames.len(), (index + further) % frames.len());
            match fate {
                0 => { frames.remove(at); }
                1 => frames.insert(to, frames[at].clone()),
                2..=4 => frames.swap(at, to),
                _ => {}
            }
            if frames.is_empty() {
                break;
            }
        }
        for (index, frame) in frames.iter().enumerate() {
            let (fate, _, captured) = fates[index % fates.len()];
            scene.now += if fate == 9 { SECOND } else { 1_000 };
            scene.send_cut(frame, if fate > 7 { captured.min(frame.len()) } else { frame.len() });
        }
        scene.settle();
        scene.end();
        all_is_there(&scene);
    }
}
