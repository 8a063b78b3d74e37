//! The events and states of a connection for packet exchanges. One situation per test.

#![allow(
    clippy::cast_possible_truncation,
    clippy::cast_possible_wrap,
    clippy::cast_sign_loss,
    clippy::print_stdout,
    reason = "the numbers of tests are small, and some are worth a look"
)]

mod tcp_exchange;

use std::time::Duration;

use protocol::tcp::{
    Connection, ConnectionEvent, ConnectionSettings, ConnectionState, Direction, Policy, Ports,
    SegmentVerdict,
};
use tcp_exchange::{A, B, with, world};

fn data(direction: Direction, start: u64, end: u64) -> ConnectionEvent {
    ConnectionEvent::Data { direction, range: start..end }
}

fn gap(direction: Direction, start: u64, end: u64) -> ConnectionEvent {
    ConnectionEvent::Gap { direction, range: start..end }
}

#[test]
fn a_connection_from_syn_to_last_ack() {
    let mut w = world();
    let _ = send!(w, a "S" -1);
    assert_eq!(w.state(), ConnectionState::Opening);
    let _ = send!(w, b "S" -1, ack 0);
    assert_eq!(w.state(), ConnectionState::Opening);
    let _ = send!(w, a "" 0, ack 0);
    assert_eq!(w.state(), ConnectionState::Open);
    assert_eq!(w.connection.handshake_us(), Some(2));
    let _ = send!(w, a "" 0, ack 0, "GET");
    let _ = send!(w, b "" 0, ack 3, "200 ok");
    let _ = send!(w, b "F" 6, ack 3);
    assert_eq!(w.state(), ConnectionState::Closing);
    let _ = send!(w, a "F" 3, ack 7);
    let _ = send!(w, b "" 7, ack 4);
    assert_eq!(w.state(), ConnectionState::Closed);
    assert_eq!(w.connection.closed_by(), Some(B));
    w.sleep(Duration::from_secs(3));
    assert_eq!((w.stream(A), w.stream(B)), ("GET".into(), "200 ok".into()));
    assert_eq!(
        w.events(),
        [
            ConnectionEvent::Opened { client: A },
            data(A, 0, 3),
            data(B, 0, 6),
            ConnectionEvent::Ended { direction: B },
            ConnectionEvent::Ended { direction: A },
            ConnectionEvent::Closed { state: ConnectionState::Closed }
        ]
    );
    assert_eq!(w.counters(A).packets, 4);
    assert_eq!(w.counters(B).captured_bytes, 6);
    assert_eq!(send!(w, b "" 7, ack 4), SegmentVerdict::Late);
    assert_eq!(w.connection.deadline(&w.settings), None);
}

#[test]
fn data_waits_for_the_hole_before_it() {
    let mut w = world();
    w.handshake();
    w.events();
    let _ = send!(w, a "" 3, ack 0, "def");
    let _ = send!(w, a "" 6, ack 0, "ghi");
    assert_eq!(w.events(), []);
    let _ = send!(w, a "" 0, ack 0, "abc");
    assert_eq!(w.events(), [data(A, 0, 9)]);
    assert_eq!(w.stream(A), "abcdefghi");
    assert_eq!(w.counters(A).out_of_order, 1);
    assert_eq!(w.counters(A).retransmitted, 0);
}

#[test]
fn retransmissions_overlaps_and_conflicts_are_distinguished() {
    let mut w = world();
    w.handshake();
    let _ = send!(w, a "" 0, ack 0, "abcdef");
    let _ = send!(w, a "" 0, ack 0, "abcdef");
    let _ = send!(w, a "" 2, ack 0, "cd");
    assert_eq!(w.counters(A).retransmitted, 2);
    let _ = send!(w, a "" 3, ack 0, "defg");
    assert_eq!((w.counters(A).overlapping, w.counters(A).conflicting_bytes), (1, 0));
    let _ = send!(w, a "" 0, ack 0, "aXXd");
    assert_eq!((w.counters(A).overlapping, w.counters(A).conflicting_bytes), (2, 2));
    assert_eq!(w.counters(A).retransmitted, 2);
    assert_eq!(w.stream(A), "abcdefg");
}

#[test]
fn the_last_copy_counts_until_it_is_acknowledged() {
    let mut w = with(ConnectionSettings { policy: Policy::Last, ..ConnectionSettings::default() });
    w.handshake();
    let _ = send!(w, a "" 0, ack 0, "GOOD");
    let _ = send!(w, a "" 0, ack 0, "EVIL");
    assert_eq!(w.stream(A), "");
    let _ = send!(w, b "" 0, ack 4);
    let _ = send!(w, a "" 0, ack 0, "LATE");
    assert_eq!(w.stream(A), "EVIL");
    let _ = send!(w, a "" 4, ack 0, "tail");
    w.close();
    assert_eq!(w.stream(A), "EVILtail");
    assert_eq!(w.counters(A).conflicting_bytes, 8);
}

#[test]
fn numbers_wrap() {
    let mut w = world();
    w.initial = [u32::MAX - 4, u32::MAX];
    w.handshake();
    for at in (0..40).step_by(4) {
        let _ = send!(w, a "" at, ack 0, "abcd");
    }
    let _ = send!(w, b "" 0, ack 40, "x");
    assert_eq!(w.stream(A), "abcd".repeat(10));
    assert_eq!(w.stream(B), "x");
}

#[test]
fn a_stream_of_more_than_four_gigabytes() {
    let mut w = world();
    w.handshake();
    let mut at = 0_i64;
    // Packets that the capture cut: 32 MiB each on the wire.
    for _ in 0..200 {
        let _ = send!(w, a "" at, ack 0, wire 33_554_432, "head");
        at += 33_554_432;
        let _ = send!(w, b "" 0, ack at);
    }
    let _ = send!(w, a "F" at, ack 0, "end");
    let _ = send!(w, b "" 0, ack at + 4);
    let end = 200 * 33_554_432 + 3;
    assert_eq!(w.connection.assembler(A).end(), end);
    assert_eq!(w.connection.assembler(A).gaps(), 200);
    assert_eq!(w.connection.assembler(A).missing_bytes(), end - 200 * 4 - 3);
    assert_eq!(w.events().last(), Some(&ConnectionEvent::Ended { direction: A }));
}

#[test]
fn data_in_the_syn() {
    let mut w = world();
    let _ = send!(w, a "S" -1, "early");
    assert_eq!(w.stream(A), "early");
    let _ = send!(w, b "S" -1, ack 5, "hi");
    let _ = send!(w, a "" 5, ack 2, "later");
    assert_eq!((w.stream(A), w.stream(B)), ("earlylater".into(), "hi".into()));
    assert_eq!(w.state(), ConnectionState::Open);
}

/// The server has not accepted the data of the SYN, so the client sends it again.
#[test]
fn data_in_the_syn_refused() {
    let mut w = world();
    let _ = send!(w, a "S" -1, "early");
    let _ = send!(w, b "S" -1, ack 0);
    let _ = send!(w, a "" 0, ack 0, "earlylater");
    assert_eq!(w.stream(A), "earlylater");
    assert_eq!(w.counters(A).overlapping, 1);
}

#[test]
fn a_syn_sent_again_is_a_retransmission() {
    let mut w = world();
    let _ = send!(w, a "S" -1);
    w.sleep(Duration::from_secs(1));
    assert_eq!(send!(w, a "S" -1), SegmentVerdict::Taken);
    let _ = send!(w, b "S" -1, ack 0);
    let _ = send!(w, b "S" -1, ack 0);
    let _ = send!(w, a "" 0, ack 0);
    assert_eq!((w.counters(A).retransmitted, w.counters(B).retransmitted), (1, 1));
    assert_eq!(w.connection.handshake_us(), Some(3));
}

#[test]
fn simultaneous_open() {
    let mut w = world();
    let _ = send!(w, a "S" -1);
    let _ = send!(w, b "S" -1);
    assert_eq!(w.state(), ConnectionState::Opening);
    let _ = send!(w, a "S" -1, ack 0);
    let _ = send!(w, b "S" -1, ack 0);
    assert_eq!(w.state(), ConnectionState::Open);
    let _ = send!(w, b "" 0, ack 0, "b");
    let _ = send!(w, a "" 0, ack 1, "a");
    assert_eq!((w.stream(A), w.stream(B)), ("a".into(), "b".into()));
    assert_eq!(w.connection.client(), A);
}

#[test]
fn syn_and_syn_ack_after_the_data() {
    let mut w = world();
    let _ = send!(w, a "" 3, ack 0, "def");
    let _ = send!(w, a "" 0, ack 0, "abc");
    assert_eq!(w.state(), ConnectionState::Midstream);
    let _ = send!(w, b "" 0, ack 6, "xyz");
    let _ = send!(w, a "S" -1);
    assert_eq!(w.state(), ConnectionState::Open);
    assert_eq!(w.stream(A), "abcdef");
    let _ = send!(w, b "S" -1, ack 0);
    assert_eq!(w.stream(B), "xyz");
    assert_eq!(w.connection.handshake_us(), None);
    assert_eq!(w.counters(A).rejected + w.counters(B).rejected, 0);
}

/// All data is announced before the SYN comes. The SYN still belongs to the connection.
#[test]
fn a_syn_last_of_all() {
    let mut w = world();
    for at in 0..30 {
        let _ = send!(w, a "" at, ack 0, "x");
    }
    assert_eq!(w.stream(A), "x".repeat(30));
    assert_eq!(send!(w, a "S" -1), SegmentVerdict::Taken);
    assert_eq!(w.state(), ConnectionState::Open);
    assert_eq!(w.stream(A), "x".repeat(30));
}

#[test]
fn a_late_syn_turns_the_connection_round() {
    let mut w = world();
    w.connection = Connection::new(Ports { forward: 5_000, backward: 6_000 });
    let _ = send!(w, a "" 0, ack 0, "a");
    let _ = send!(w, b "S" -1);
    assert_eq!(
        w.events(),
        [
            ConnectionEvent::Opened { client: A },
            ConnectionEvent::Turned { client: B },
            data(B, 0, 0)
        ][..2]
    );
    assert_eq!(w.connection.client(), B);
}

#[test]
fn who_is_the_client_without_a_syn() {
    for (forward, backward, client) in [
        (80, 40_000, B),
        (40_000, 80, A),
        (5_000, 50_000, B),
        (50_000, 5_000, A),
        (5_000, 6_000, A),
        (50_000, 50_001, A),
        (80, 443, A),
    ] {
        let mut w = world();
        w.connection = Connection::new(Ports { forward, backward });
        let _ = send!(w, a "" 0, ack 0, "x");
        assert_eq!(w.events(), [ConnectionEvent::Opened { client }]);
        // The receiver of a SYN-ACK is the client, for any ports.
        let mut w = world();
        w.connection = Connection::new(Ports { forward, backward });
        let _ = send!(w, a "S" -1, ack 0);
        assert_eq!(w.events(), [ConnectionEvent::Opened { client: B }]);
    }
}

#[test]
fn picked_up_in_the_middle() {
    let mut w = world();
    let _ = send!(w, b "" 1_003, ack 500, "def");
    let _ = send!(w, b "" 1_000, ack 500, "abc");
    let _ = send!(w, a "" 500, ack 1_006, "q");
    assert_eq!(w.events(), [ConnectionEvent::Opened { client: A }]);
    w.sleep(Duration::from_millis(300));
    assert_eq!(w.events(), [data(A, 0, 1), data(B, 0, 6)]);
    assert_eq!((w.stream(A), w.stream(B)), ("q".into(), "abcdef".into()));
    assert_eq!(w.state(), ConnectionState::Midstream);
    let _ = send!(w, b "" 998, ack 501, "XX");
    assert_eq!(w.stream(B), "abcdef");
    let _ = send!(w, b "F" 1_006, ack 501);
    let _ = send!(w, a "F" 501, ack 1_007);
    let _ = send!(w, b "" 1_007, ack 502);
    assert_eq!(w.state(), ConnectionState::Closed);
}

/// The first byte seen is offset 0, even if an acknowledgment came before it.
#[test]
fn an_acknowledgment_in_the_middle_adds_no_byte() {
    let mut w = world();
    let _ = send!(w, a "" 500, ack 1_000);
    let _ = send!(w, b "" 1_100, ack 500, "abc");
    w.close();
    assert_eq!(w.stream(B), "abc");
    assert_eq!(w.stream(A), "");
}

#[test]
fn half_open_times_out() {
    let mut w = world();
    let _ = send!(w, a "S" -1);
    let _ = send!(w, b "S" -1, ack 0);
    w.sleep(Duration::from_secs(129));
    assert_eq!(w.state(), ConnectionState::Opening);
    w.sleep(Duration::from_secs(2));
    assert_eq!(w.state(), ConnectionState::TimedOut);
    assert_eq!(
        w.events().last(),
        Some(&ConnectionEvent::Closed { state: ConnectionState::TimedOut })
    );
    assert_eq!(send!(w, a "S" 70_000), SegmentVerdict::NewConnection);
}

#[test]
fn half_closed_the_other_side_goes_on() {
    let mut w = world();
    w.handshake();
    let _ = send!(w, a "F" 0, ack 0, "bye");
    for at in 0..50 {
        let _ = send!(w, b "" at, ack 4, "z");
    }
    assert_eq!(w.state(), ConnectionState::Closing);
    assert_eq!(w.stream(B), "z".repeat(50));
    let _ = send!(w, b "F" 50, ack 4);
    let _ = send!(w, a "" 4, ack 51);
    assert_eq!((w.state(), w.connection.closed_by()), (ConnectionState::Closed, Some(A)));
}

#[test]
fn a_fin_before_its_data_and_repeated() {
    let mut w = world();
    w.handshake();
    w.events();
    let _ = send!(w, a "F" 6, ack 0);
    let _ = send!(w, a "" 3, ack 0, "def");
    assert_eq!(w.events(), []);
    let _ = send!(w, a "" 0, ack 0, "abc");
    let _ = send!(w, a "F" 6, ack 0);
    assert_eq!(w.counters(A).retransmitted, 1);
    let _ = send!(w, b "" 0, ack 7);
    assert_eq!(w.events(), [data(A, 0, 6), ConnectionEvent::Ended { direction: A }]);
    let _ = send!(w, a "" 7, ack 0, "more");
    assert_eq!((w.stream(A), w.counters(A).rejected), ("abcdef".into(), 1));
}

#[test]
fn a_fin_that_its_sender_ignores_is_not_its_own() {
    let mut w = world();
    w.handshake();
    let _ = send!(w, a "F" 3, ack 0);
    let _ = send!(w, a "" 0, ack 0, "abcdef");
    assert_eq!(w.stream(A), "abcdef");
    assert_eq!(w.state(), ConnectionState::Open);
    let _ = send!(w, a "F" 6, ack 0);
    let _ = send!(w, a "" 6, ack 0, "ghi");
    let _ = send!(w, b "" 0, ack 9);
    assert_eq!(w.stream(A), "abcdefghi");
    assert_eq!((w.state(), w.counters(A).rejected), (ConnectionState::Open, 2));
}

#[test]
fn reset_of_a_syn() {
    let mut w = world();
    let _ = send!(w, a "S" -1);
    w.initial[1] = u32::MAX;
    let _ = send!(w, b "R" 0, ack 0);
    assert_eq!((w.state(), w.connection.closed_by()), (ConnectionState::Reset, Some(B)));
    w.sleep(Duration::from_secs(3));
    assert_eq!(w.events().last(), Some(&ConnectionEvent::Closed { state: ConnectionState::Reset }));
    let mut w = world();
    let _ = send!(w, a "S" -1);
    let _ = send!(w, b "R" 0, ack 77);
    assert_eq!((w.state(), w.counters(B).rejected), (ConnectionState::Opening, 1));
}

#[test]
fn a_reset_out_of_the_window_is_nothing() {
    let mut w = world();
    w.handshake();
    let _ = send!(w, a "" 0, ack 0, "abcdef");
    let _ = send!(w, b "" 0, ack 6);
    let _ = send!(w, a "R" 5);
    let _ = send!(w, a "R" 1_000_000_000);
    assert_eq!((w.state(), w.counters(A).rejected), (ConnectionState::Open, 2));
    let _ = send!(w, a "R" 6);
    assert_eq!(w.state(), ConnectionState::Reset);
}

#[test]
fn a_reset_shows_how_much_was_sent_before_it() {
    let mut w = world();
    w.handshake();
    let _ = send!(w, b "" 0, ack 0, "abc");
    let _ = send!(w, b "R" 9, ack 0);
    w.close();
    assert_eq!(w.stream(B), "abc......");
    assert_eq!(w.state(), ConnectionState::Reset);
    // The received bytes too.
    let mut w = world();
    w.handshake();
    let _ = send!(w, b "R" 0, ack 4);
    w.close();
    assert_eq!((w.stream(A), w.stream(B)), ("....".into(), "".into()));
}

#[test]
fn an_injected_reset_does_not_end_the_connection() {
    let mut w = world();
    w.handshake();
    let _ = send!(w, b "" 0, ack 0, "abc");
    let _ = send!(w, b "R" 3, ack 0);
    assert_eq!(w.state(), ConnectionState::Reset);
    let _ = send!(w, b "" 3, ack 0, "def");
    assert_eq!(w.state(), ConnectionState::Open);
    assert_eq!((w.stream(B), w.counters(B).rejected), ("abcdef".into(), 1));
    assert_eq!(w.connection.closed_by(), None);
}

#[test]
fn ports_are_reused() {
    let mut w = world();
    w.handshake();
    let _ = send!(w, a "F" 0, ack 0);
    let _ = send!(w, b "F" 0, ack 1);
    let _ = send!(w, a "" 1, ack 1);
    // In time-wait, and before that was over.
    assert_eq!(send!(w, a "S" 70_000), SegmentVerdict::NewConnection);
    w.close();
    assert_eq!(send!(w, a "S" 70_000), SegmentVerdict::NewConnection);
    let mut w = world();
    w.handshake();
    let _ = send!(w, a "R" 0, ack 0);
    assert_eq!(send!(w, a "S" 70_000), SegmentVerdict::NewConnection);
    // The first attempt had no answer.
    let mut w = world();
    let _ = send!(w, a "S" -1);
    assert_eq!(send!(w, a "S" 70_000), SegmentVerdict::NewConnection);
}

/// A SYN in the middle is only believed if a segment goes on from it.
#[test]
fn ports_are_reused_without_an_end() {
    let mut w = world();
    w.handshake();
    let _ = send!(w, a "" 0, ack 0, "abc");
    assert_eq!(send!(w, a "S" 9_999), SegmentVerdict::Taken);
    let _ = send!(w, a "" 3, ack 0, "def");
    assert_eq!((w.stream(A), w.counters(A).rejected), ("abcdef".into(), 1));
    assert_eq!(send!(w, b "S" 5_555, ack 10_000), SegmentVerdict::NewConnection);
    let mut w = world();
    w.handshake();
    w.sleep(Duration::from_secs(31));
    assert_eq!(send!(w, a "S" 9_999), SegmentVerdict::NewConnection);
}

#[test]
fn acknowledged_bytes_that_were_not_seen_are_missing() {
    let mut w = world();
    w.handshake();
    w.events();
    let _ = send!(w, a "" 0, ack 0, "abc");
    let _ = send!(w, a "" 6, ack 0, "ghi");
    let _ = send!(w, b "" 0, ack 9);
    assert_eq!(w.events(), [data(A, 0, 3)]);
    w.sleep(Duration::from_secs(1));
    assert_eq!(w.events(), [gap(A, 3, 6), data(A, 6, 9)]);
    let _ = send!(w, a "" 3, ack 0, "def");
    assert_eq!(w.stream(A), "abc...ghi");
    assert_eq!(w.counters(A).late_bytes, 3);
}

#[test]
fn enough_later_data_replaces_the_wait() {
    let mut w = world();
    w.handshake();
    let _ = send!(w, a "" 1, ack 0, "b");
    let _ = send!(w, b "" 0, ack 2);
    for at in 2..33 {
        let _ = send!(w, a "" at, ack 0, "c");
    }
    assert_eq!(w.stream(A), "");
    let _ = send!(w, a "" 33, ack 0, "c");
    assert_eq!(w.stream(A), format!(".b{}", "c".repeat(32)));
}

/// These bytes are not acknowledged, so they may still come.
#[test]
fn bytes_that_are_not_acknowledged_are_waited_for() {
    let mut w = world();
    w.handshake();
    let _ = send!(w, a "" 3, ack 0, "def");
    for _ in 0..100 {
        let _ = send!(w, b "" 0, ack 0);
        w.sleep(Duration::from_secs(1));
    }
    assert_eq!(w.stream(A), "");
    let _ = send!(w, a "" 0, ack 0, "abc");
    assert_eq!(w.stream(A), "abcdef");
}

#[test]
fn only_the_data_is_captured() {
    let mut w = world();
    let _ = send!(w, a "S" -1);
    let _ = send!(w, a "" 0, ack 0, "abc");
    let _ = send!(w, a "" 6, ack 0, "ghi");
    assert_eq!((w.state(), w.stream(A)), (ConnectionState::Open, "abc".into()));
    w.sleep(Duration::from_secs(6));
    assert_eq!(w.stream(A), "abc...ghi");
    let _ = send!(w, a "F" 9, ack 0);
    w.sleep(Duration::from_secs(61));
    assert_eq!(w.state(), ConnectionState::Closed);
    assert_eq!(w.connection.assembler(B).end(), 0);
}

#[test]
fn only_the_acknowledgments_are_captured() {
    let mut w = world();
    let _ = send!(w, a "S" -1);
    let _ = send!(w, a "" 0, ack 0, "get");
    let _ = send!(w, a "" 3, ack 1_000);
    let _ = send!(w, a "" 3, ack 3_000);
    w.sleep(Duration::from_secs(2));
    let _ = send!(w, a "F" 3, ack 5_001);
    w.sleep(Duration::from_secs(61));
    assert_eq!(w.connection.assembler(B).end(), 5_000);
    assert_eq!(w.connection.assembler(B).missing_bytes(), 5_000);
    assert_eq!((w.state(), w.stream(A)), (ConnectionState::Closed, "get".into()));
}

/// The other side's FIN was not captured, only its acknowledgment.
#[test]
fn a_fin_that_was_not_captured_adds_no_byte() {
    let mut w = world();
    w.handshake();
    let _ = send!(w, b "" 0, ack 0, "abc");
    let _ = send!(w, a "F" 0, ack 4);
    w.sleep(Duration::from_secs(61));
    assert_eq!(w.stream(B), "abc");
}

#[test]
fn keep_alives_are_not_overlaps() {
    let mut w = world();
    w.handshake();
    let _ = send!(w, a "" -1, ack 0);
    let _ = send!(w, a "" 0, ack 0, "abc");
    let _ = send!(w, b "" 0, ack 3);
    let _ = send!(w, a "" 2, ack 0);
    let _ = send!(w, a "" 2, ack 0, "X");
    let counters = w.counters(A);
    assert_eq!(counters.keep_alives, 3);
    assert_eq!(
        (counters.retransmitted, counters.overlapping, counters.conflicting_bytes),
        (0, 0, 0)
    );
    let _ = send!(w, a "" 3, ack 0, "def");
    assert_eq!(w.stream(A), "abcdef");
}

#[test]
fn window_probes_are_not_overlaps() {
    let mut w = world();
    w.handshake();
    let _ = send!(w, a "" 0, ack 0, "abc");
    let _ = send!(w, b "" 0, ack 3, win 0);
    let _ = send!(w, a "" 3, ack 0, "?");
    let _ = send!(w, b "" 0, ack 3, win 0);
    let _ = send!(w, a "" 3, ack 0, "d");
    assert_eq!(w.stream(A), "abc");
    let _ = send!(w, b "" 0, ack 3);
    let _ = send!(w, a "" 3, ack 0, "def");
    let counters = w.counters(A);
    assert_eq!((w.stream(A), counters.window_probes), ("abcdef".into(), 2));
    assert_eq!((counters.overlapping, counters.conflicting_bytes), (0, 0));
    // This time the receiver accepts the byte.
    let _ = send!(w, b "" 0, ack 6, win 0);
    let _ = send!(w, a "" 6, ack 0, "g");
    let _ = send!(w, b "" 0, ack 7);
    let _ = send!(w, a "" 7, ack 0, "h");
    assert_eq!(w.stream(A), "abcdefgh");
}

#[test]
fn far_off_numbers_are_ignored_unless_they_go_on() {
    let mut w = world();
    w.handshake();
    let _ = send!(w, a "" 0, ack 0, "abc");
    let _ = send!(w, a "" 900_000_000, ack 0, "evil");
    let _ = send!(w, a "" -900_000_000, ack 0, "evil");
    let _ = send!(w, b "" 0, ack 1_500_000_000);
    let _ = send!(w, a "" 3, ack 0, "def");
    assert_eq!((w.stream(A), w.counters(A).rejected), ("abcdef".into(), 2));
    // After an outage of the capture the sender is at another place.
    for at in [0, 3, 6, 9] {
        let _ = send!(w, a "" 3_000_000_000 + at, ack 0, "ghi");
    }
    assert_eq!(w.connection.assembler(A).end(), 3_000_000_012);
    // Including the first of them, which anybody could have sent.
    assert_eq!(w.connection.assembler(A).missing_bytes(), 3_000_000_000 - 6);
    assert_eq!((w.counters(A).rejected, w.counters(A).rejected_bytes), (2, 8));
}

/// After an outage of the capture, the receiver shows where its sender is.
#[test]
fn far_off_numbers_count_at_once_if_the_other_side_acknowledges_them() {
    let far = 100_000_000;
    for is_acked_first in [true, false] {
        let mut w = world();
        w.handshake();
        let _ = send!(w, a "" 0, ack 0, "abc");
        if is_acked_first {
            let _ = send!(w, b "" 0, ack far);
            let _ = send!(w, a "" far, ack 0, "def");
        } else {
            let _ = send!(w, a "" far, ack 0, "def");
            let _ = send!(w, b "" 0, ack far + 3);
        }
        // Another outage, and a segment without another one after it.
        let _ = send!(w, a "" 2 * far, ack 0, "ghi");
        let _ = send!(w, b "" 0, ack 2 * far + 3);
        let _ = send!(w, a "" 3 * far, ack 0, "jkl");
        w.close();
        let stream = w.connection.assembler(A);
        assert_eq!((stream.end(), stream.missing_bytes()), (200_000_003, 200_000_003 - 9));
        let counters = w.counters(A);
        assert_eq!((counters.captured_bytes, counters.rejected_bytes), (12, 3));
    }
}

/// Segments that are far apart after an outage, as in a capture that still loses most of them.
#[test]
fn far_off_numbers_may_lie_megabytes_apart() {
    let mut w = world();
    w.handshake();
    let _ = send!(w, a "" 0, ack 0, "abc");
    for index in 0..3 {
        let _ = send!(w, a "" 400_000_000 + index * 10_000_000, ack 0, "def");
    }
    w.close();
    assert_eq!(w.connection.assembler(A).missing_bytes(), 420_000_003 - 12);
    assert_eq!((w.counters(A).rejected, w.counters(A).rejected_bytes), (0, 0));
}

#[test]
fn packets_that_were_cut_have_a_gap() {
    let mut w = world();
    w.handshake();
    w.events();
    let _ = send!(w, a "" 0, ack 0, wire 10, "abc");
    let _ = send!(w, a "" 10, ack 0, "next");
    assert_eq!(w.events(), [data(A, 0, 3), gap(A, 3, 10), data(A, 10, 14)]);
}

#[test]
fn packets_that_are_gone_expire() {
    let mut w = world();
    w.handshake();
    for at in 0..6 {
        let _ = send!(w, a "" at * 2, ack 0, "ab");
    }
    w.connection.expire(7);
    assert_eq!(w.stream(A), "~~~~~~ababab");
    let _ = send!(w, a "" 0, ack 0, "zz");
    assert_eq!(w.counters(A).unverified_bytes, 2);
}

#[test]
fn holes_are_given_up_at_the_end() {
    let mut w = world();
    w.handshake();
    let _ = send!(w, a "" 3, ack 0, "def");
    let _ = send!(w, a "F" 9, ack 0);
    let _ = send!(w, b "F" 0, ack 10);
    let _ = send!(w, a "" 10, ack 1);
    w.events();
    w.sleep(Duration::from_secs(2));
    assert_eq!(
        w.events(),
        [
            gap(A, 0, 3),
            data(A, 3, 6),
            gap(A, 6, 9),
            ConnectionEvent::Ended { direction: A },
            ConnectionEvent::Closed { state: ConnectionState::Closed }
        ]
    );
}

/// Two FINs and the end of the capture: closed, although bytes were still missing.
#[test]
fn two_fins_are_an_end() {
    let mut w = world();
    w.handshake();
    let _ = send!(w, a "F" 3, ack 0);
    let _ = send!(w, b "F" 0, ack 0);
    assert_eq!(w.state(), ConnectionState::Closing);
    w.close();
    assert_eq!((w.state(), w.stream(A)), (ConnectionState::Closed, "...".into()));
}

#[test]
fn an_answer_with_another_number_replaces_the_first() {
    let mut w = world();
    let _ = send!(w, a "S" -1);
    let _ = send!(w, b "S" -1, ack 0);
    let _ = send!(w, b "S" 499_999, ack 0);
    let _ = send!(w, a "" 0, ack 500_000);
    let _ = send!(w, b "" 500_000, ack 0, "hi");
    assert_eq!((w.stream(B), w.state()), ("hi".into(), ConnectionState::Open));
}

/// A million flows must fit into memory, including the places of their data.
#[test]
fn a_connection_is_small() {
    let mut w = world();
    let _ = send!(w, a "S" -1);
    let _ = send!(w, b "S" -1, ack 0);
    for number in 0..10 {
        let _ = send!(w, a "" number * 3, ack number * 3, "GET");
        let _ = send!(w, b "" number * 3, ack number * 3 + 3, "200");
    }
    let (itself, heap) = (size_of::<Connection>(), w.connection.memory());
    println!("Connection: {itself} bytes and {heap} for ten segments each way");
    assert!(itself + heap <= 840, "{itself} + {heap}");
}

#[test]
fn data_without_an_acknowledgment_is_not_counted() {
    let mut w = world();
    w.handshake();
    let _ = send!(w, b "" 0, "FORGED");
    let _ = send!(w, b "F" 0, "");
    let _ = send!(w, b "" 0, ack 0, "served");
    w.close();
    assert_eq!(w.stream(B), "served");
    assert_eq!((w.counters(B).rejected, w.counters(B).rejected_bytes), (2, 6));
    assert_eq!(w.counters(B).overlapping, 0);
}

/// Some generators of traffic set no flags at all.
#[test]
fn data_without_an_acknowledgment_counts_where_nothing_is_acknowledged() {
    let mut w = world();
    let _ = send!(w, a "" 0, "plain");
    let _ = send!(w, b "" 0, "answer");
    let _ = send!(w, a "" 5, " text");
    w.close();
    assert_eq!((w.stream(A), w.stream(B)), ("plain text".into(), "answer".into()));
    assert_eq!((w.counters(A).rejected, w.counters(A).rejected_bytes), (0, 0));
    // Real endpoints have acknowledged something.
    let mut w = world();
    let _ = send!(w, a "" 0, ack 0, "asked");
    let _ = send!(w, b "" 0, "FORGED");
    let _ = send!(w, b "" 0, ack 5, "served");
    w.close();
    assert_eq!((w.stream(B), w.counters(B).rejected_bytes), ("served".into(), 6));
}

#[test]
fn the_server_shows_which_of_two_syns_it_received() {
    // The last SYN seen has another number than the client's own.
    let mut w = world();
    let _ = send!(w, a "S" 70_000);
    let _ = send!(w, b "S" -1, ack 0);
    let _ = send!(w, a "" 0, ack 0);
    let _ = send!(w, a "" 0, ack 0, "asked");
    let _ = send!(w, b "" 0, ack 5, "served");
    w.close();
    assert_eq!((w.stream(A), w.stream(B)), ("asked".into(), "served".into()));
    assert_eq!(w.counters(A).rejected, 0);
}

#[test]
fn a_syn_ack_to_another_syn_removes_no_client_data() {
    // Before the server's own SYN-ACK, and without it.
    for is_answered in [true, false] {
        let mut w = world();
        let _ = send!(w, a "S" -1);
        let _ = send!(w, b "S" 5_000, ack 90_000);
        if is_answered {
            let _ = send!(w, b "S" -1, ack 0);
        }
        let _ = send!(w, a "" 0, ack 0);
        let _ = send!(w, a "" 0, ack 0, "asked");
        w.close();
        assert_eq!(w.stream(A), "asked", "{is_answered}");
    }
    // Nor after it.
    let mut w = world();
    let _ = send!(w, a "S" -1);
    let _ = send!(w, b "S" -1, ack 0);
    let _ = send!(w, b "S" 5_000, ack 90_000);
    let _ = send!(w, a "" 0, ack 0, "asked");
    let _ = send!(w, b "" 0, ack 5, "served");
    w.close();
    assert_eq!((w.stream(A), w.stream(B)), ("asked".into(), "served".into()));
}
