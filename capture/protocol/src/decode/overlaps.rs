//! The pieces of a datagram after a fragment has come, which may overlap earlier ones.
//!
//! Each byte is in one piece: the policy decides whether its earlier or its later copy is kept.

use std::ops::Range;

use super::Overlap;
use super::view::DatagramPiece;

/// The pieces in `range`, which is that of a fragment with the pieces `fresh`, and those that are
/// new among them. `old` are the pieces so far that overlap `range`; they stay whole at its edges.
pub(super) fn merge(
    policy: Overlap,
    old: &[DatagramPiece],
    fresh: &[DatagramPiece],
    range: Range<u32>,
) -> (Vec<DatagramPiece>, Vec<DatagramPiece>) {
    match policy {
        Overlap::First => keep_old(old, fresh, range.start, range.end),
        Overlap::Last => keep_new(old, fresh, range.start, range.end),
    }
}

/// See [`merge`], if the earlier bytes are kept.
fn keep_old(
    old: &[DatagramPiece],
    fresh: &[DatagramPiece],
    start: u32,
    end: u32,
) -> (Vec<DatagramPiece>, Vec<DatagramPiece>) {
    let (mut merged, mut added) = (Vec::with_capacity(fresh.len()), Vec::new());
    let mut next = start;
    // The new pieces are walked once, in step with the old ones.
    let mut rest = fresh;
    for piece in old.iter().map(Some).chain([None]) {
        let hole_end = piece.map_or(end, |piece| piece.start.min(end));
        while let Some((first, others)) = rest.split_first() {
            if let Some(part) = first.clip(next, hole_end) {
                merged.push(part);
                added.push(part);
            }
            if first.end() > hole_end {
                break;
            }
            rest = others;
        }
        if let Some(piece) = piece {
            merged.push(*piece);
            next = next.max(piece.end());
        }
    }
    (merged, added)
}

/// See [`merge`], if the later bytes are kept.
fn keep_new(
    old: &[DatagramPiece],
    fresh: &[DatagramPiece],
    start: u32,
    end: u32,
) -> (Vec<DatagramPiece>, Vec<DatagramPiece>) {
    let before = old.first().and_then(|piece| piece.clip(0, start));
    let after = old.last().and_then(|piece| piece.clip(end, u32::MAX));
    let merged = before.into_iter().chain(fresh.iter().copied()).chain(after).collect();
    (merged, fresh.to_vec())
}
