//! Connections made by attackers: impaired, senseless, and with many holes.

#![allow(
    clippy::cast_possible_truncation,
    clippy::cast_possible_wrap,
    clippy::cast_sign_loss,
    reason = "the numbers of tests are small"
)]

#[path = "../fuzz/bodies.rs"]
mod bodies;
#[path = "../protocol/tests/tcp_exchange/mod.rs"]
mod tcp_exchange;

use std::ops::Range;

use proptest::prelude::*;
use protocol::tcp::{
    Absence, Connection, ConnectionEvent, ConnectionSettings, ConnectionState, Direction, NoBytes,
    Policy, Scale, StreamCounters,
};
use tcp_exchange::{A, B, Sent, after, with};

/// The fate of one data segment of a conversation on its way to the capture.
#[derive(Clone, Copy, Debug)]
struct Fate {
    len: usize,
    drop: bool,
    double: bool,
    /// Number of places by which it arrives later.
    delay: usize,
    /// Whether the segment before is sent again, together with this one.
    overlap: bool,
    ack: bool,
}

fn fate() -> impl Strategy<Value = Fate> {
    let some = prop::bool::weighted;
    (
        1..9_usize,
        some(0.08),
        some(0.08),
        prop_oneof![6 => Just(0_usize), 1 => 1..9_usize],
        some(0.1),
        some(0.4),
    )
        .prop_map(|(len, drop, double, delay, overlap, ack)| Fate {
            len,
            drop,
            double,
            delay,
            overlap,
            ack,
        })
}

#[derive(Clone, Copy, Debug)]
enum End {
    Fin,
    Reset,
    Nothing,
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 1_500, failure_persistence: None, ..ProptestConfig::default() })]

    /// A conversation with losses in the capture, not on the wire. Every byte that is in any packet
    /// is in the stream, and exactly the other bytes are gaps.
    #[test]
    fn impaired_conversations_lose_only_bytes_that_no_packet_has(
        fates in prop::collection::vec(fate(), 1..60),
        initial in prop_oneof![Just([u32::MAX - 20, u32::MAX - 3]), any::<[u32; 2]>()],
        last in any::<bool>(),
        end in prop::sample::select(vec![End::Fin, End::Reset, End::Nothing]),
        syn_delay in 0..9_usize,
    ) {
        let policy = if last { Policy::Last } else { Policy::First };
        let mut w = with(ConnectionSettings { policy, ..ConnectionSettings::default() });
        w.initial = initial;
        let stream: Vec<u8> = (0..1_000_u32).map(|at| b'a' + (at * 7 % 26) as u8).collect();
        let plain = |direction, flags, sequence, acknowledgment| Sent {
            direction, flags, sequence, acknowledgment, data: b"", wire_len: None, window: 500, scale: Scale::Absent,
        };
        let mut sent = vec![
            (syn_delay, plain(A, "S", -1, None)),
            (1, plain(B, "S", -1, Some(0))),
            (2, plain(A, "", 0, Some(0))),
        ];
        let (mut at, mut before) = (0, 0);
        let mut seen = vec![false; 1_000];
        for fate in &fates {
            let start = if fate.overlap { before } else { at };
            let range = start..at + fate.len;
            let one = Sent { data: &stream[range.clone()], ..plain(A, "", start as i64, Some(0)) };
            let place = sent.len();
            if !fate.drop {
                seen[range].fill(true);
                sent.push((place + fate.delay, one));
                if fate.double {
                    sent.push((place + fate.delay, one));
                }
            }
            (before, at) = (at, at + fate.len);
            if fate.ack {
                sent.push((sent.len(), plain(B, "", 0, Some(at as i64))));
            }
        }
        let end_of_stream = at as i64;
        let place = sent.len();
        match end {
            End::Fin => sent.extend([
                (place, plain(A, "F", end_of_stream, Some(0))),
                (place, plain(B, "F", 0, Some(end_of_stream + 1))),
                (place + 9, plain(A, "", end_of_stream + 1, Some(1))),
            ]),
            End::Reset => sent.push((place + 20, plain(A, "R", end_of_stream, Some(0)))),
            End::Nothing => sent.push((place + 20, plain(B, "", 0, Some(end_of_stream)))),
        }
        sent.sort_by_key(|(place, _)| *place);
        for (_, one) in sent {
            let _ = w.send(one);
        }
        // An acknowledgment of one byte after the last one seen could be for a FIN.
        let is_hidden = matches!(end, End::Nothing) && !seen[at - 1] && seen[..at - 1].ends_with(&[true]);
        w.close();
        let mut expected: String = (0..at)
            .map(|at| if seen[at] { char::from(stream[at]) } else { '.' })
            .collect();
        if is_hidden || (matches!(end, End::Nothing) && at == 1 && !seen[0]) {
            expected.pop();
        }
        prop_assert_eq!(w.stream(A), expected);
        prop_assert_eq!(w.counters(A).conflicting_bytes, 0);
        prop_assert_eq!(w.counters(A).late_bytes, 0);
        prop_assert_eq!(w.counters(A).rejected, 0);
        check_events(&w.events, &w.connection);
    }

    #[test]
    fn senseless_segments_stay_in_bounds(bytes in prop::collection::vec(any::<u8>(), 0..600)) {
        bodies::tcp(&bytes);
    }

    /// The same, with numbers so close that the segments touch and overlap.
    #[test]
    fn senseless_segments_that_meet_stay_in_bounds(bytes in prop::collection::vec(0..24_u8, 0..600)) {
        bodies::tcp(&bytes);
    }
}

/// Checks that events follow each other and agree with the streams.
fn check_events(events: &[ConnectionEvent], connection: &Connection) {
    let mut ends = [0, 0];
    let mut missing = [Vec::<Range<u64>>::new(), Vec::new()];
    for event in events {
        let (ConnectionEvent::Data { direction, range }
        | ConnectionEvent::Gap { direction, range }) = event
        else {
            continue;
        };
        let side = usize::from(*direction == Direction::Backward);
        assert_eq!(range.start, ends[side]);
        assert!(!range.is_empty());
        ends[side] = range.end;
        if matches!(event, ConnectionEvent::Gap { .. }) {
            match missing[side].last_mut() {
                Some(last) if last.end == range.start => last.end = range.end,
                _ => missing[side].push(range.clone()),
            }
        }
    }
    for (side, direction) in [A, B].into_iter().enumerate() {
        let assembler = connection.assembler(direction);
        assert_eq!(assembler.end(), ends[side]);
        let holes: Vec<_> = assembler
            .holes()
            .into_iter()
            .map(|(range, kind)| {
                assert_eq!(kind, Absence::Missing);
                range
            })
            .collect();
        assert_eq!(holes, missing[side]);
    }
}

/// 65,535 holes: limited by default, and exact without the limit.
#[test]
fn sixty_five_thousand_holes_are_bounded_or_exact() {
    let hole = |index: u64| if index == 0 { (0, 0) } else { (index as u32 * 2 + 1, 1) };
    let mut settings = ConnectionSettings::default();
    let connection = after(65_536, &settings, hole);
    let stream = connection.assembler(A);
    assert_eq!(stream.holes_waiting(), settings.limits.holes);
    assert_eq!(stream.bites().holes, 65_535 - settings.limits.holes as u64);
    assert!(connection.memory() < 8 << 20, "{}", connection.memory());

    settings.limits.holes = 65_535;
    settings.limits.pending = 65_535;
    let mut connection = after(65_536, &settings, hole);
    assert_eq!(connection.assembler(A).holes_waiting(), 65_535);
    let mut events = Vec::new();
    connection.close(&settings, &NoBytes, &mut events);
    assert_eq!(connection.state(), ConnectionState::Open);
    assert_eq!(connection.assembler(A).gaps(), 65_535);
    assert_eq!(connection.assembler(A).missing_bytes(), 65_536);
    check_events(&events, &connection);
}

#[test]
fn a_flood_of_syns_uses_no_heap() {
    let connection = after(1, &ConnectionSettings::default(), |_| (7, 0));
    assert_eq!(connection.memory(), 0);
    assert_eq!(*connection.counters(A), StreamCounters { packets: 1, ..StreamCounters::default() });
}
