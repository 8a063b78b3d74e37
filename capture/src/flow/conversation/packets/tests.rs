//! Tests against a plain list.

use proptest::prelude::*;

use super::*;

#[test]
fn a_flow_of_one_packet_is_small() {
    assert!(size_of::<Packets>() <= 24 + 8);
    let mut packets = Packets::new();
    assert_eq!((packets.first(), packets.last(), packets.begin()), (None, None, (1, 0)));
    assert!(packets.push(7, 100));
    assert!(!packets.push(7, 100) && !packets.push(6, 100));
    assert_eq!((packets.memory(), packets.len(), packets.record_bytes()), (0, 1, 100));
    packets.expire(8);
    assert_eq!((packets.len(), packets.begin()), (0, (8, 100)));
    assert!(!packets.push(7, 1) && packets.push(8, 50));
    assert_eq!((packets.first(), packets.begin()), (Some(8), (8, 100)));
}

#[test]
fn a_packet_costs_four_bytes() {
    for (count, most) in [(2, 170), (64, 64 * 8), (1_000, 4_500), (1_000_000, 4_000_000)] {
        let mut packets = Packets::new();
        for number in 0..count {
            packets.push(1 + number * 3, 70 + if number % 2 == 0 { 0 } else { 1_460 });
        }
        packets.shrink();
        assert!(packets.memory() < most, "{count} packets: {} bytes", packets.memory());
        packets.expire(count * 3 - 3);
        assert!(packets.memory() < 1_000, "{} bytes", packets.memory());
    }
}

#[derive(Clone, Debug)]
enum Operation {
    Push { difference: u64, len: u32 },
    Expire { ahead: u64 },
    Shrink,
}

fn operation() -> impl Strategy<Value = Operation> {
    let len = prop_oneof![16..200_u32, Just(1_530), 16..=u32::MAX];
    let difference = prop_oneof![40 => 1..4_u64, 3 => 0..300_u64, 1 => 0..(1_u64 << 40)];
    prop_oneof![
        200 => (difference, len).prop_map(|(difference, len)| Operation::Push { difference, len }),
        4 => (0..500_u64).prop_map(|ahead| Operation::Expire { ahead }),
        1 => Just(Operation::Shrink),
    ]
}

/// Checks that every query has the same answer as the list.
fn check(packets: &Packets, model: &[PacketEntry], last: u64, end: u64) {
    let begin = model.first().map_or((last + 1, end), |entry| (entry.number, entry.offset));
    assert_eq!(packets.len(), model.len());
    assert_eq!(packets.is_empty(), model.is_empty());
    assert_eq!(packets.begin(), begin);
    assert_eq!(packets.record_bytes(), end);
    assert_eq!(packets.first(), model.first().map(|entry| entry.number));
    assert_eq!(packets.last(), model.last().map(|entry| entry.number));
    assert!(packets.iter_from(0).eq(model.iter().copied()));
    let sampled = model.iter().step_by(7).chain(model.last());
    for number in sampled.clone().flat_map(|entry| [entry.number, entry.number + 1]) {
        let behind = model.partition_point(|entry| entry.number < number);
        assert!(packets.iter_from(number).take(3).eq(model[behind..].iter().copied().take(3)));
    }
    for offset in sampled.flat_map(|entry| [entry.offset, entry.end().saturating_sub(1)]) {
        let found = model.iter().find(|entry| entry.end() > offset);
        assert_eq!(packets.find(offset), found.copied().filter(|_| offset >= begin.1));
    }
    assert_eq!(packets.find(end), None);
    assert_eq!(begin.1.checked_sub(1).and_then(|offset| packets.find(offset)), None);
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(60))]
    #[test]
    fn it_is_a_list(operations in prop::collection::vec(operation(), 1..700)) {
        let (mut packets, mut model) = (Packets::new(), Vec::<PacketEntry>::new());
        let (mut last, mut end, mut oldest) = (0, 0, 0);
        for (index, operation) in operations.into_iter().enumerate() {
            match operation {
                Operation::Push { difference, len } => {
                    let number = last + difference;
                    prop_assert_eq!(packets.push(number, len), difference > 0);
                    if difference > 0 {
                        model.push(PacketEntry { number, offset: end, len });
                        (last, end) = (number, end + u64::from(len));
                    }
                }
                Operation::Expire { ahead } => {
                    oldest = (oldest + ahead).min(last + 1);
                    packets.expire(oldest);
                    model.retain(|entry| entry.number >= oldest);
                    check(&packets, &model, last, end);
                }
                Operation::Shrink => packets.shrink(),
            }
            if index % 50 == 0 {
                check(&packets, &model, last, end);
            }
        }
        check(&packets, &model, last, end);
    }
}
