//! Any bytes: no panic, and bounded work and output.

use proptest::prelude::*;

use super::*;
use crate::dns::{Framer, MAX_LINE, probe};

/// A response with answers of many types, some compressed.
fn rich() -> Vec<u8> {
    Builder::new(1, RESPONSE)
        .question("a", A, IN)
        .record_of(1, &[0xc0, 12], CNAME, IN, 60, &[1, b'b', 0xc0, 12])
        .record(1, "b.a", A, IN, 60, &[1, 2, 3, 4])
        .record(1, "b.a", TXT, IN, 60, b"\x05hello")
        .record(1, "b.a", 65, IN, 60, &[0, 1, 0, 0, 3, 0, 2, 1, 187])
        .soa(5)
        .record(3, "", OPT, 1232, 0, &[])
        .bytes
}

fn answers_of(bytes: &[u8], wire_len: usize) -> Vec<serde_json::Value> {
    let mut flow = Flow::new();
    flow.sent(Direction::Forward, 1, &Builder::query(1, "a"));
    flow.sent_bytes(Direction::Backward, 2, bytes, wire_len);
    let lines = flow.lines();
    let line = lines.iter().find(|line| line["state"] != "unanswered");
    line.map(|line| line["answers"].as_array().unwrap().clone()).unwrap_or_default()
}

#[test]
fn a_message_cut_at_any_length_gives_the_first_answers() {
    let whole = rich();
    let all = answers_of(&whole, whole.len());
    assert_eq!(all.len(), 5);
    for len in 0..whole.len() {
        for wire_len in [len, whole.len()] {
            let some = answers_of(&whole[..len], wire_len);
            assert!(all.starts_with(&some), "{len}: {some:?}");
        }
    }
}

/// Bytes in which messages are likely, and headers with small numbers.
fn message_like() -> impl Strategy<Value = Vec<u8>> {
    let changes = prop::collection::vec((any::<prop::sample::Index>(), any::<u8>()), 0..8);
    let changed = (changes, any::<prop::sample::Index>()).prop_map(|(changes, cut)| {
        let mut bytes = rich();
        for (at, byte) in changes {
            let at = at.index(bytes.len());
            bytes[at] = byte;
        }
        bytes.truncate(cut.index(bytes.len() + 1));
        bytes
    });
    prop_oneof![
        changed,
        prop::collection::vec(prop_oneof![0..4_u8, Just(0xc0), any::<u8>()], 0..300)
    ]
}

proptest! {
    #[test]
    fn no_bytes_cause_a_panic_or_a_long_line(
        messages in prop::collection::vec((message_like(), any::<bool>(), 0..100_u64), 1..8),
        port in prop::sample::select(vec![53, 5353, 9999]),
    ) {
        let mut flow = Flow::between(ends([40_000, port]));
        for (bytes, is_forward, seconds) in &messages {
            let direction = if *is_forward { Direction::Forward } else { Direction::Backward };
            flow.sent_bytes(direction, *seconds, bytes, bytes.len() + usize::from(*seconds == 7));
            let _ = probe::datagram(bytes, bytes.len(), [40_000, port]);
            let _ = probe::stream(bytes, [40_000, port]);
        }
        let lines = flow.lines();
        let counts = flow.pairing.counts();
        prop_assert_eq!(counts.messages + counts.malformed, messages.len() as u64);
        prop_assert_eq!(counts.transactions, lines.len() as u64);
        prop_assert_eq!(flow.pairing.waiting_bytes(), (0, 0));
        for line in lines {
            prop_assert!(line.to_string().len() < MAX_LINE);
        }
    }

    #[test]
    fn every_byte_of_a_stream_is_in_a_message_or_counted(
        pieces in prop::collection::vec((message_like(), prop::option::of(1..300_u64)), 1..8),
        is_joined in any::<bool>(),
    ) {
        let mut framer = if is_joined { Framer::joined() } else { Framer::new() };
        let (mut found, mut sent) = (0, 0);
        let mut each = |raw: RawMessage<'_>| found += 2 + raw.bytes.len() as u64;
        for (bytes, gap) in &pieces {
            let framed = [&(bytes.len() as u16).to_be_bytes(), &bytes[..]].concat();
            sent += framed.len() as u64;
            framer.data(second(1), &framed, &mut each);
            if let Some(gap) = gap {
                framer.gap(*gap, &mut each);
            }
        }
        framer.close(&mut each);
        prop_assert_eq!(found + framer.skipped(), sent);
    }
}
