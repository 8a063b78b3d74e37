//! Segments that a receiver would not accept: resets, data and FINs out of its window. One
//! situation per test.

#![allow(
    clippy::cast_possible_truncation,
    clippy::cast_possible_wrap,
    clippy::cast_sign_loss,
    reason = "the numbers of tests are small"
)]

mod tcp_exchange;

use std::time::Duration;

use protocol::tcp::{ConnectionState, SegmentVerdict};
use tcp_exchange::{A, B, World, world};

/// A connection after SYN and SYN-ACK with these window scales, a request and its answer.
fn scaled() -> World {
    let mut w = world();
    let _ = send!(w, a "S" -1, win 64_000, scale 7);
    let _ = send!(w, b "S" -1, ack 0, win 64_000, scale 3);
    let _ = send!(w, a "" 0, ack 0);
    let _ = send!(w, a "" 0, ack 0, "ask");
    let _ = send!(w, b "" 0, ack 3, "answer");
    let _ = send!(w, a "" 3, ack 6);
    w
}

#[test]
fn a_reset_is_judged_by_its_receivers_last_window() {
    let mut w = scaled();
    // 500 units of 8 bytes.
    let _ = send!(w, a "R" 3 + 4_001);
    assert_eq!((w.state(), w.counters(A).rejected), (ConnectionState::Open, 1));
    let _ = send!(w, a "R" 3 + 4_000);
    assert_eq!(w.state(), ConnectionState::Reset);
    let mut w = scaled();
    // And 500 units of 128 bytes.
    let _ = send!(w, b "R" 6 + 64_001);
    assert_eq!((w.state(), w.counters(B).rejected), (ConnectionState::Open, 1));
    let _ = send!(w, b "R" 6 + 64_000);
    assert_eq!(w.state(), ConnectionState::Reset);
    // The window in a SYN is not scaled.
    let mut w = world();
    let _ = send!(w, a "S" -1, scale 7);
    let _ = send!(w, b "S" -1, ack 0, scale 7);
    let _ = send!(w, a "R" 501);
    assert_eq!((w.state(), w.counters(A).rejected), (ConnectionState::Opening, 1));
}

#[test]
fn without_scaling_on_both_sides_there_is_none() {
    let mut w = world();
    let _ = send!(w, a "S" -1, scale 7);
    let _ = send!(w, b "S" -1, ack 0);
    let _ = send!(w, a "" 0, ack 0);
    let _ = send!(w, b "" 0, ack 0, "answer");
    let _ = send!(w, b "R" 507);
    assert_eq!((w.state(), w.counters(B).rejected), (ConnectionState::Open, 1));
    let _ = send!(w, b "R" 506);
    assert_eq!(w.state(), ConnectionState::Reset);
}

#[test]
fn a_window_of_zero_accepts_a_reset_only_at_its_edge() {
    let mut w = world();
    w.handshake();
    let _ = send!(w, a "" 0, ack 0, "abc");
    let _ = send!(w, b "" 0, ack 3, win 0);
    let _ = send!(w, a "R" 4);
    assert_eq!((w.state(), w.counters(A).rejected), (ConnectionState::Open, 1));
    let _ = send!(w, a "R" 3);
    assert_eq!(w.state(), ConnectionState::Reset);
}

/// If the scale of a window was not seen, nothing is known of the window.
#[test]
fn a_reset_of_a_connection_without_beginning_may_be_far_off() {
    let mut w = world();
    let _ = send!(w, b "S" -1, ack 0, scale 3);
    let _ = send!(w, a "" 0, ack 0, "ask");
    let _ = send!(w, b "R" 1_000_000, ack 3);
    assert_eq!(w.state(), ConnectionState::Reset);
    let mut w = world();
    let _ = send!(w, a "" 0, ack 0, "ask");
    let _ = send!(w, b "" 0, ack 3, "answer");
    let _ = send!(w, b "R" 1_000_000, ack 3);
    assert_eq!(w.state(), ConnectionState::Reset);
}

/// The real sender of the reset would no longer have known the connection.
#[test]
fn a_side_that_acknowledges_later_data_has_not_sent_the_reset() {
    let mut w = scaled();
    // In the window, but not at the stream's next byte.
    let _ = send!(w, a "R" 103);
    let _ = send!(w, b "" 6, ack 3);
    let _ = send!(w, a "" 3, ack 6, "more");
    // This may have been sent before the reset.
    assert_eq!(w.state(), ConnectionState::Reset);
    let _ = send!(w, b "" 6, ack 7, "again");
    assert_eq!(w.state(), ConnectionState::Reset);
    let _ = send!(w, a "" 7, ack 11);
    assert_eq!((w.state(), w.counters(A).rejected), (ConnectionState::Open, 1));
    let _ = send!(w, a "F" 7, ack 11);
    let _ = send!(w, b "F" 11, ack 8);
    let _ = send!(w, a "" 8, ack 12);
    assert_eq!((w.state(), w.connection.closed_by()), (ConnectionState::Closed, Some(A)));
    assert_eq!((w.stream(A), w.stream(B)), ("askmore".into(), "answeragain".into()));
}

#[test]
fn data_sent_before_a_reset_does_not_undo_it() {
    let mut w = scaled();
    let _ = send!(w, b "" 6, ack 3, "again");
    let _ = send!(w, a "R" 7, ack 6);
    // Captured in another order, or under way when the reset came.
    let _ = send!(w, a "" 3, ack 11, "more");
    let _ = send!(w, b "" 11, ack 3, "and on");
    let _ = send!(w, b "F" 17, ack 7);
    assert_eq!(w.state(), ConnectionState::Reset);
    w.close();
    assert_eq!((w.stream(A), w.counters(A).rejected), ("askmore".into(), 0));
}

#[test]
fn bytes_long_after_a_reset_and_before_its_place_undo_it() {
    let mut w = scaled();
    let _ = send!(w, a "R" 103);
    w.sleep(Duration::from_millis(1_100));
    let _ = send!(w, a "" 3, ack 6, "more");
    assert_eq!((w.state(), w.counters(A).rejected), (ConnectionState::Open, 1));
}

/// Someone else sent it, and the connection was silent for a while.
#[test]
fn segments_long_after_a_reset_are_another_connection() {
    for by_sender in [true, false] {
        for at in [3, 103] {
            let mut w = scaled();
            let _ = send!(w, a "R" at, ack 6);
            w.sleep(Duration::from_secs(3));
            assert!(w.connection.is_closed());
            // Stragglers.
            assert_eq!(send!(w, a "" 0, ack 6, "ask"), SegmentVerdict::Late);
            assert_eq!(send!(w, b "" 0, ack 3, "answer"), SegmentVerdict::Late);
            assert_eq!(send!(w, b "" 6, ack 3), SegmentVerdict::Late);
            let verdict = if by_sender {
                send!(w, a "" 3, ack 6, "more")
            } else {
                send!(w, b "" 6, ack 3, "more")
            };
            assert_eq!(verdict, SegmentVerdict::NewConnection);
            assert_eq!(send!(w, a "F" 3, ack 6), SegmentVerdict::NewConnection);
        }
    }
}

/// Someone else sent both FINs, and no acknowledgment confirmed them.
#[test]
fn segments_long_after_fins_are_another_connection() {
    let mut w = scaled();
    let _ = send!(w, a "F" 103, ack 6);
    let _ = send!(w, b "F" 106, ack 3);
    w.sleep(Duration::from_secs(61));
    assert_eq!(w.state(), ConnectionState::Closed);
    assert_eq!(send!(w, a "" 0, ack 6, "ask"), SegmentVerdict::Late);
    assert_eq!(send!(w, a "" 3, ack 6, "more"), SegmentVerdict::NewConnection);
}

/// Twice the largest window of B after everything known. That window was in its SYN-ACK.
const FAR: i64 = 2 * 65_535;

#[test]
fn data_far_out_of_the_window_is_not_of_the_stream() {
    for far in [FAR + 1, 40_000_000] {
        let mut w = scaled();
        let _ = send!(w, a "" 3 + far, ack 6, "EVIL");
        let _ = send!(w, a "" 3, ack 6, "more");
        let _ = send!(w, b "" 6, ack 7);
        let _ = send!(w, a "F" 7, ack 6);
        let _ = send!(w, b "F" 6, ack 8);
        let _ = send!(w, a "" 8, ack 7);
        assert_eq!((w.state(), w.counters(A).rejected), (ConnectionState::Closed, 1));
        w.close();
        assert_eq!(w.stream(A), "askmore");
    }
    // Captures lose packets, so this much may be ahead.
    let mut w = scaled();
    let _ = send!(w, a "" 3 + FAR, ack 6, "more");
    let _ = send!(w, b "" 6, ack 7 + FAR);
    w.close();
    assert_eq!(w.connection.assembler(A).missing_bytes() as i64, FAR);
    assert_eq!(w.counters(A).rejected, 0);
}

#[test]
fn a_fin_far_out_of_the_window_is_none() {
    let mut w = scaled();
    let _ = send!(w, a "F" 3 + FAR + 1, ack 6);
    assert_eq!((w.state(), w.counters(A).rejected), (ConnectionState::Open, 1));
    let _ = send!(w, a "F" 3, ack 6, "more");
    let _ = send!(w, b "F" 6, ack 8);
    let _ = send!(w, a "" 8, ack 7);
    assert_eq!((w.state(), w.stream(A)), (ConnectionState::Closed, "askmore".into()));
}

/// The capture had an outage in which more than a window was sent.
#[test]
fn after_an_outage_the_sender_is_followed_and_nothing_is_lost() {
    // Other segments follow it.
    for copies in [1, 2] {
        let mut w = scaled();
        for at in [0, 4, 8] {
            for _ in 0..copies {
                let _ = send!(w, a "" 1_000_000 + at, ack 6, "more");
            }
        }
        w.close();
        let stream = w.connection.assembler(A);
        assert_eq!((stream.end(), stream.missing_bytes()), (1_000_012, 999_997));
        assert_eq!(w.counters(A).rejected, 0);
    }
    // Its acknowledgment comes, and a FIN.
    let mut w = scaled();
    let _ = send!(w, a "" 1_000_000, ack 6, "more");
    let _ = send!(w, a "F" 1_000_004, ack 6);
    let _ = send!(w, a "" 0, ack 6, "ask");
    let _ = send!(w, b "F" 6, ack 1_000_005);
    let _ = send!(w, a "" 1_000_005, ack 7);
    assert_eq!((w.state(), w.counters(A).rejected), (ConnectionState::Closed, 0));
    w.close();
    let stream = w.connection.assembler(A);
    assert_eq!((stream.end(), stream.missing_bytes()), (1_000_004, 999_997));
}

/// Without packets of the receiver, or its scale, its window is unknown.
#[test]
fn where_no_window_is_known_nothing_is_out_of_it() {
    let mut only_one = world();
    let _ = send!(only_one, a "S" -1);
    let mut middle = world();
    let _ = send!(middle, a "" 0, ack 0, "ask");
    let _ = send!(middle, b "" 0, ack 3);
    let mut half = world();
    let _ = send!(half, b "S" -1, ack 0, scale 7);
    let _ = send!(half, a "" 0, ack 0);
    let _ = send!(half, b "" 0, ack 0);
    for mut w in [only_one, middle, half] {
        let _ = send!(w, a "" 40_000_000, ack 0, "more");
        w.close();
        assert_eq!((w.connection.assembler(A).end(), w.counters(A).rejected), (40_000_004, 0));
    }
}

#[test]
fn of_two_fins_the_one_that_is_acknowledged_holds() {
    // The FIN from someone else comes first.
    let mut w = scaled();
    let _ = send!(w, a "F" 60_003, ack 6);
    let _ = send!(w, a "" 3, ack 6, "more");
    let _ = send!(w, b "" 6, ack 7);
    let _ = send!(w, a "F" 7, ack 6);
    assert_eq!(w.state(), ConnectionState::Closing);
    let _ = send!(w, b "F" 6, ack 8);
    let _ = send!(w, a "" 8, ack 7);
    assert_eq!((w.state(), w.counters(A).rejected), (ConnectionState::Closed, 1));
    w.close();
    assert_eq!(w.stream(A), "askmore");
    // It comes second, and bytes before the other FIN were not captured.
    let mut w = scaled();
    let _ = send!(w, a "F" 7, ack 6);
    let _ = send!(w, a "F" 3, ack 6);
    let _ = send!(w, b "F" 6, ack 8);
    let _ = send!(w, a "" 8, ack 7);
    w.close();
    assert_eq!((w.state(), w.stream(A)), (ConnectionState::Closed, "ask....".into()));
}

/// Someone else's bytes lie in the window, and not where the stream goes on.
#[test]
fn an_acknowledged_fin_ends_a_stream_before_bytes_from_someone_else() {
    let mut w = scaled();
    let _ = send!(w, a "" 1_000, ack 6, "FORGED");
    let _ = send!(w, a "F" 3, ack 6);
    assert_eq!(w.state(), ConnectionState::Open, "not acknowledged");
    let _ = send!(w, b "F" 6, ack 4);
    let _ = send!(w, a "" 4, ack 7);
    assert_eq!(w.state(), ConnectionState::Closed);
    w.close();
    assert_eq!((w.stream(A), w.counters(A).rejected_bytes), ("ask".into(), 6));
    // They come after the FIN.
    let mut w = scaled();
    let _ = send!(w, a "F" 3, ack 6);
    let _ = send!(w, b "" 6, ack 4);
    let _ = send!(w, a "" 1_000, ack 6, "FORGED");
    let _ = send!(w, b "F" 6, ack 4);
    assert_eq!(w.state(), ConnectionState::Closed);
    w.close();
    assert_eq!((w.stream(A), w.counters(A).rejected_bytes), ("ask".into(), 6));
}

/// A receiver acknowledges the number of a forged FIN, and the bytes before were captured late.
#[test]
fn a_fin_does_not_end_a_stream_whose_receiver_acknowledges_bytes_after_it() {
    let mut w = scaled();
    let _ = send!(w, a "" 8, ack 6, "later");
    let _ = send!(w, a "F" 7, ack 6);
    let _ = send!(w, b "" 6, ack 8);
    let _ = send!(w, b "" 6, ack 13);
    let _ = send!(w, a "" 3, ack 6, "more ");
    assert_eq!(w.state(), ConnectionState::Open);
    w.close();
    assert_eq!((w.stream(A), w.counters(A).rejected_bytes), ("askmore later".into(), 0));
}

/// Neither FIN is acknowledged.
#[test]
fn of_two_unacknowledged_fins_the_one_after_the_seen_data_counts() {
    let mut w = scaled();
    let _ = send!(w, a "F" 10, ack 6);
    let _ = send!(w, a "F" 3, ack 6);
    w.close();
    assert_eq!(w.stream(A), "ask");
}

/// The second connection lacks only its SYN in the capture.
#[test]
fn a_syn_ack_that_is_acknowledged_begins_another_connection() {
    // The next segment is the client's acknowledgment, its data, or the server's data.
    for next in 0..3 {
        let mut w = scaled();
        assert_eq!(send!(w, b "S" 7_000_000, ack 900_000), SegmentVerdict::Taken);
        assert_eq!(w.counters(B).rejected, 1);
        let verdict = match next {
            0 => send!(w, a "" 900_000, ack 7_000_001),
            1 => send!(w, a "" 900_000, ack 7_000_001, "ask"),
            _ => send!(w, b "" 7_000_001, ack 900_000, "hello"),
        };
        assert_eq!(verdict, SegmentVerdict::NewConnection);
    }
    // The SYN comes late.
    let mut w = scaled();
    let _ = send!(w, b "S" 7_000_000, ack 900_000);
    assert_eq!(send!(w, a "S" 899_999), SegmentVerdict::NewConnection);
}

#[test]
fn a_syn_ack_after_the_end_begins_another_connection() {
    let mut closing = scaled();
    let _ = send!(closing, a "F" 3, ack 6);
    let _ = send!(closing, b "F" 6, ack 4);
    let _ = send!(closing, a "" 4, ack 7);
    let mut reset = scaled();
    let _ = send!(reset, a "R" 3, ack 6);
    for mut w in [closing, reset] {
        // The old SYN-ACK again.
        assert_eq!(send!(w, b "S" -1, ack 0), SegmentVerdict::Taken);
        // An answer to the same SYN with another number.
        assert_eq!(send!(w, b "S" 5_000_000, ack 0), SegmentVerdict::Taken);
        assert_eq!(send!(w, b "S" 7_000_000, ack 900_000), SegmentVerdict::NewConnection);
        w.sleep(Duration::from_secs(3));
        assert_eq!(send!(w, b "S" 7_000_000, ack 900_000), SegmentVerdict::NewConnection);
    }
}

/// The SYN-ACK is not one that a receiver answers with the number it expects, and not one at the
/// place of its alleged sender.
#[test]
fn a_foreign_syn_ack_begins_nothing() {
    for at in [7_000_000, 5, 100, -1_000_000] {
        for acknowledgment in [900_000, 3] {
            let mut w = scaled();
            assert_eq!(send!(w, b "S" at, ack acknowledgment), SegmentVerdict::Taken);
            assert_eq!(send!(w, a "" 3, ack 6), SegmentVerdict::Taken);
            assert_eq!(send!(w, b "" 6, ack 3, "again"), SegmentVerdict::Taken);
            assert_eq!(send!(w, a "" 3, ack 11, "more"), SegmentVerdict::Taken);
            assert_eq!((w.stream(A), w.stream(B)), ("askmore".into(), "answeragain".into()));
            assert_eq!((w.state(), w.counters(B).rejected), (ConnectionState::Open, 1));
        }
    }
}

/// Neither SYN of the second connection was captured.
#[test]
fn data_far_out_of_the_window_of_one_that_is_closed_is_of_another() {
    let mut w = scaled();
    let _ = send!(w, a "F" 3, ack 6);
    let _ = send!(w, b "F" 6, ack 4);
    let _ = send!(w, a "" 4, ack 7);
    w.sleep(Duration::from_secs(3));
    assert_eq!(send!(w, a "" 3, ack 7, "late"), SegmentVerdict::Late);
    assert_eq!(send!(w, a "" 900_000, ack 7_000_000, "ask"), SegmentVerdict::NewConnection);
}

#[test]
fn data_of_an_uncaptured_sender_is_the_same_after_time_and_at_the_end() {
    for is_late in [false, true] {
        let mut w = world();
        let _ = send!(w, a "S" -1);
        let _ = send!(w, a "" 0, ack 0);
        let _ = send!(w, a "" 0, ack 0, "GET /one");
        let _ = send!(w, a "" 8, ack 51);
        for _ in 0..if is_late { 4 } else { 0 } {
            w.sleep(Duration::from_secs(2));
        }
        // The FIN of the other side is one of these 52.
        let _ = send!(w, a "F" 8, ack 52);
        for _ in 0..4 {
            w.sleep(Duration::from_secs(2));
        }
        assert_eq!(w.stream(B), ".".repeat(51));
        w.close();
        assert_eq!(w.stream(B), ".".repeat(51));
    }
}

#[test]
fn a_fin_seen_first_keeps_its_sequence_number() {
    let mut w = world();
    // The capture is shuffled.
    let _ = send!(w, b "" 10, ack 9);
    let _ = send!(w, a "F" 8, ack 0);
    let _ = send!(w, a "S" -1);
    let _ = send!(w, a "" 0, ack 0, "GET /one");
    w.close();
    assert_eq!((w.stream(A), w.state()), ("GET /one".into(), ConnectionState::Closing));
}
