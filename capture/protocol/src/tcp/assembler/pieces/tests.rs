//! Compares with a plain list of pieces.

#![allow(clippy::arithmetic_side_effects, reason = "the numbers of tests are small")]

use std::collections::VecDeque;

use proptest::prelude::*;

use super::*;

/// A change of the list.
#[derive(Clone, Copy, Debug)]
enum HoleStep {
    /// A piece of `len` bytes, `gap` bytes after the last one. Says whether it is in the same
    /// packet; if not, the values are added to packet number and offset.
    Push { gap: u64, len: u32, packet: i64, offset: u32 },
    /// Extends the last piece, or nearly does.
    Extend { gap: u64, len: u32, shift: u32 },
    /// Drops the first pieces, as many as this.
    Drop(usize),
    /// Drops the pieces of packets below this number.
    Expire(u64),
}

fn step() -> impl Strategy<Value = HoleStep> {
    let len = prop_oneof![4 => Just(1448), 1 => 1_u32..3, 1 => any::<u32>()];
    let gap = prop_oneof![9 => Just(0), 1 => 1_u64..200_000];
    let packet = prop_oneof![6 => 1_i64..40, 1 => -40_i64..40, 1 => any::<i64>()];
    let offset = prop_oneof![8 => Just(54), 1 => any::<u32>()];
    prop_oneof![
        40 => (gap, len, packet, offset)
            .prop_map(|(gap, len, packet, offset)| HoleStep::Push { gap, len, packet, offset }),
        3 => (0_u64..2, 1_u32..2000, 0_u32..2)
            .prop_map(|(gap, len, shift)| HoleStep::Extend { gap, len, shift }),
        1 => (0_usize..200).prop_map(HoleStep::Drop),
        1 => any::<u64>().prop_map(HoleStep::Expire),
    ]
}

fn drop_plainly(
    plain: &mut VecDeque<StreamPiece>,
    mut gone: impl FnMut(&StreamPiece) -> bool,
) -> usize {
    let before = plain.len();
    while plain.front().is_some_and(&mut gone) {
        plain.pop_front();
    }
    before - plain.len()
}

proptest! {
    #[test]
    fn pieces_are_returned_as_pushed(steps in prop::collection::vec(step(), 0..600), probes in any::<[u64; 8]>()) {
        let (mut pieces, mut plain) = (Pieces::default(), VecDeque::<StreamPiece>::new());
        let mut last = StreamPiece::default();
        for step in steps {
            match step {
                HoleStep::Push { gap, len, packet, offset } => {
                    let packet = last.extent.packet.wrapping_add_signed(packet);
                    let start = last.end() + gap;
                    last = StreamPiece { start, extent: Extent { packet, offset, len } };
                    pieces.push(last);
                    plain.push_back(last);
                }
                HoleStep::Extend { gap, len, shift } => {
                    let start = last.end() + gap;
                    let Some(offset) = last.extent.offset.checked_add(last.extent.len) else {
                        continue;
                    };
                    let Some(offset) = offset.checked_add(shift) else { continue };
                    let extent = Extent { packet: last.extent.packet, offset, len };
                    let next = StreamPiece { start, extent };
                    let total = last.extent.len.checked_add(len);
                    let expected = gap == 0 && shift == 0 && total.is_some() && !plain.is_empty();
                    prop_assert_eq!(pieces.extend(&next), expected);
                    if expected && let Some(back) = plain.back_mut() {
                        back.extent.len += len;
                        last = *back;
                    }
                }
                HoleStep::Drop(count) => {
                    let counted = |left: usize| {
                        let mut left = left;
                        move |_: &StreamPiece| left.checked_sub(1).map(|less| left = less).is_some()
                    };
                    let expected = drop_plainly(&mut plain, counted(count));
                    prop_assert_eq!(pieces.drop_front(counted(count)), expected);
                }
                HoleStep::Expire(number) => {
                    let gone = |piece: &StreamPiece| piece.extent.packet < number;
                    prop_assert_eq!(pieces.drop_front(gone), drop_plainly(&mut plain, gone));
                }
            }
            prop_assert_eq!(pieces.len(), plain.len());
            prop_assert_eq!(pieces.is_empty(), plain.is_empty());
            prop_assert_eq!(pieces.front(), plain.front().map(|piece| piece.start));
        }
        let all: Vec<StreamPiece> = pieces.behind(0).collect();
        let kept: Vec<StreamPiece> = plain.iter().copied().filter(|piece| piece.end() > 0).collect();
        prop_assert_eq!(&all, &kept);
        let end = last.end().saturating_add(2);
        let edges = plain.iter().flat_map(|piece| [piece.start, piece.end() - 1, piece.end()]);
        for offset in probes.into_iter().map(|probe| probe % end).chain(edges.step_by(13)) {
            let behind: Vec<StreamPiece> = pieces.behind(offset).collect();
            let index = plain.partition_point(|piece| piece.end() <= offset);
            let expected: Vec<StreamPiece> = plain.range(index..).copied().collect();
            prop_assert_eq!(behind, expected, "behind {}", offset);
        }
        pieces.shrink();
        prop_assert!(pieces.behind(0).eq(kept));
    }
}

#[test]
fn take_a_few_bytes_each() {
    let mut pieces = Pieces::default();
    for number in 0..10_000_u32 {
        let extent = Extent { packet: u64::from(number) * 64, offset: 54, len: 1448 };
        pieces.push(StreamPiece { start: u64::from(number) * 1448, extent });
    }
    let each = pieces.memory() / pieces.len();
    assert!(each <= 5, "{each} bytes for a full segment of one of 64 connections");
    assert_eq!(pieces.behind(5_000 * 1448).next().map(|piece| piece.start), Some(5_000 * 1448));
    // All pieces but one are gone, and their memory is freed.
    assert_eq!(pieces.drop_front(|piece| piece.extent.packet < 9_999 * 64), 9_999);
    assert_eq!(pieces.len(), 1);
    assert!(pieces.memory() < 300, "{} bytes for one", pieces.memory());
    assert_eq!(pieces.drop_front(|_| true), 1);
    assert_eq!((pieces.len(), pieces.memory(), pieces.front()), (0, 0, None));
}
