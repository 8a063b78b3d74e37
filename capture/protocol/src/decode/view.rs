//! Bytes to read headers from, and where in captured packets each of them lies.
//!
//! A packet is one run of bytes; a reassembled datagram is a list of [`Piece`]s, of whose bytes only
//! the first are at hand. Offsets into either count the bytes of the wire, so that they are right
//! behind a hole too.

use super::Reason;
use crate::extent::Extent;

/// A run of bytes of a payload that was captured.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct Part {
    /// Where in the payload it is: bytes of the wire before it.
    pub at: u32,
    /// Where its bytes are; never empty.
    pub extent: Extent,
}

/// The payload of a packet: where those bytes of it lie that were captured.
#[derive(Clone, Copy, Debug)]
pub struct Payload<'d> {
    len: u32,
    captured: u32,
    offset: u32,
    map: Map<'d>,
}

impl<'d> Payload<'d> {
    pub(super) fn new(view: View<'d>, offset: usize, len: usize) -> Self {
        let (offset, len) = (narrow(offset), narrow(len));
        let mut payload = Self { len, captured: 0, offset, map: view.map };
        payload.captured = match view.map {
            Map::Packet { captured, .. } => captured.saturating_sub(offset).min(len),
            // Parts of the payload, so their sum is at most its length.
            Map::Pieces(_) => payload.parts().map(|part| part.extent.len).sum(),
        };
        payload
    }

    /// Bytes it had on the wire: `captured() + missing()`.
    #[must_use]
    #[expect(clippy::len_without_is_empty, reason = "a length on the wire, of no container")]
    pub const fn len(&self) -> u32 {
        self.len
    }

    /// Bytes of it that were captured: the sum of the lengths of [`Payload::parts`].
    #[must_use]
    pub const fn captured(&self) -> u32 {
        self.captured
    }

    /// Bytes of it that were on the wire and not captured.
    #[must_use]
    pub const fn missing(&self) -> u32 {
        self.len.saturating_sub(self.captured)
    }

    /// Where it lies, in order: one part, or several if it came in fragments, or none.
    ///
    /// Parts do not overlap; what none of them covers of `0..len()` is missing.
    #[must_use]
    pub fn parts(&self) -> Parts<'d> {
        let end = self.offset.saturating_add(self.len);
        match self.map {
            Map::Packet { number, captured } => {
                let piece = Piece {
                    packet: number,
                    offset: 0,
                    start: 0,
                    len: captured,
                    state: State::Captured,
                };
                Parts { single: Some(piece), pieces: &[], start: self.offset, end }
            }
            Map::Pieces(pieces) => {
                let first = pieces.partition_point(|piece| piece.end() <= self.offset);
                let pieces = pieces.get(first..).unwrap_or_default();
                Parts { single: None, pieces, start: self.offset, end }
            }
        }
    }
}

/// The parts of a [`Payload`].
#[derive(Clone, Debug)]
pub struct Parts<'d> {
    single: Option<Piece>,
    pieces: &'d [Piece],
    start: u32,
    end: u32,
}

impl Iterator for Parts<'_> {
    type Item = Part;

    fn next(&mut self) -> Option<Part> {
        loop {
            let piece = match self.single.take() {
                Some(piece) => piece,
                None => {
                    let (piece, rest) = self.pieces.split_first()?;
                    self.pieces = rest;
                    *piece
                }
            };
            let part = piece.clip(self.start, self.end);
            if let Some(part) = part.filter(|part| part.state != State::Missing) {
                let Piece { packet, offset, len, .. } = part;
                return Some(Part {
                    at: part.start.saturating_sub(self.start),
                    extent: Extent { packet, offset, len },
                });
            }
        }
    }
}

/// A run of bytes of a datagram, all of one packet.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Piece {
    /// The packet it came in, also of what is missing.
    pub(super) packet: u64,
    /// Where in that packet's captured data it is; of no meaning if it is missing.
    pub(super) offset: u32,
    /// Where in the datagram it is.
    pub(super) start: u32,
    pub(super) len: u32,
    pub(super) state: State,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum State {
    /// Captured, and its bytes were at hand when it was found.
    Known,
    /// Captured.
    Captured,
    /// On the wire only.
    Missing,
}

impl Piece {
    pub(super) const fn end(&self) -> u32 {
        self.start.saturating_add(self.len)
    }

    /// The part of it between two places of the datagram; `None` if it has none there.
    pub(super) fn clip(&self, from: u32, to: u32) -> Option<Self> {
        let start = self.start.max(from);
        let len = self.end().min(to).checked_sub(start).filter(|len| *len > 0)?;
        let skipped = start.saturating_sub(self.start);
        Some(Self { start, len, offset: self.offset.saturating_add(skipped), ..*self })
    }
}

/// What headers are read from.
#[derive(Clone, Copy, Debug)]
pub(super) struct View<'v> {
    bytes: &'v [u8],
    map: Map<'v>,
}

#[derive(Clone, Copy, Debug)]
enum Map<'v> {
    /// A packet, of which so many bytes were captured.
    Packet { number: u64, captured: u32 },
    /// A datagram: sorted, without gap or overlap.
    Pieces(&'v [Piece]),
}

impl<'v> View<'v> {
    pub(super) fn packet(number: u64, data: &'v [u8]) -> Self {
        Self { bytes: data, map: Map::Packet { number, captured: narrow(data.len()) } }
    }

    /// A packet without its bytes, to say where in it a payload lies.
    pub(super) fn located(number: u64, captured: usize) -> Self {
        Self { bytes: &[], map: Map::Packet { number, captured: narrow(captured) } }
    }

    /// A datagram that lies in `pieces` and begins with the bytes of `head`.
    pub(super) const fn pieces(head: &'v [u8], pieces: &'v [Piece]) -> Self {
        Self { bytes: head, map: Map::Pieces(pieces) }
    }
}

/// A place in a view, and the end of the layer it is in.
#[derive(Clone, Copy, Debug)]
pub(super) struct At<'v> {
    view: &'v View<'v>,
    /// Bytes of the wire before it.
    pub(super) offset: usize,
    /// Where the layer ends on the wire; may lie beyond what was captured.
    end: usize,
}

impl<'v> At<'v> {
    /// The beginning of a view of which `end` bytes were on the wire.
    pub(super) const fn new(view: &'v View<'v>, end: usize) -> Self {
        Self { view, offset: 0, end }
    }

    /// Bytes of the layer from here on, on the wire.
    #[inline]
    pub(super) const fn wire_len(&self) -> usize {
        self.end.saturating_sub(self.offset)
    }

    /// Those of them that are at hand.
    #[inline]
    pub(super) fn rest(&self) -> &'v [u8] {
        let end = self.end.min(self.view.bytes.len());
        self.view.bytes.get(self.offset..end).unwrap_or_default()
    }

    /// The reason why `needed` bytes cannot be read from here, if they cannot.
    #[inline]
    pub(super) const fn lacking(&self, needed: usize) -> Reason {
        if self.wire_len() < needed { Reason::Malformed } else { Reason::Truncated }
    }

    /// The next `N` bytes.
    #[inline]
    pub(super) fn peek<const N: usize>(&self) -> Result<&'v [u8; N], Reason> {
        self.rest().first_chunk().ok_or_else(|| self.lacking(N))
    }

    /// The `N` bytes that follow the next `skip`.
    #[inline]
    pub(super) fn peek_behind<const N: usize>(&self, skip: usize) -> Result<&'v [u8; N], Reason> {
        self.skip(skip)?.peek()
    }

    /// The place `len` bytes further on.
    #[inline]
    pub(super) const fn skip(&self, len: usize) -> Result<Self, Reason> {
        if self.wire_len() < len {
            return Err(Reason::Malformed);
        }
        Ok(Self { offset: self.offset.saturating_add(len), ..*self })
    }

    /// The next `N` bytes, and the place behind them.
    #[inline]
    pub(super) fn take<const N: usize>(&self) -> Result<(&'v [u8; N], Self), Reason> {
        Ok((self.peek()?, self.skip(N)?))
    }

    /// The same place in a layer that ends `len` bytes further on, unless this one ends before.
    #[inline]
    pub(super) fn limit(&self, len: usize) -> Self {
        Self { end: self.end.min(self.offset.saturating_add(len)), ..*self }
    }

    /// Where the bytes of the layer from here on lie, as pieces of a datagram that begin at
    /// `start` in it. At most `most` of them: a hostile list is cut, and then not contiguous.
    pub(super) fn pieces(&self, start: u32, most: usize) -> Vec<Piece> {
        let (from, to) = (narrow(self.offset), narrow(self.end));
        let known = narrow(self.view.bytes.len());
        let mut pieces = Vec::new();
        let mut next = from;
        let mut add = |piece: Piece| {
            let rebased = piece.start.saturating_sub(from).saturating_add(start);
            if piece.len > 0 && pieces.len() < most {
                pieces.push(Piece { start: rebased, ..piece });
            }
        };
        let whole;
        let map = match self.view.map {
            Map::Packet { number, captured } => {
                let (packet, state) = (number, State::Captured);
                whole = [Piece { packet, offset: 0, start: 0, len: captured, state }];
                &whole[..]
            }
            Map::Pieces(pieces) => pieces,
        };
        let first = map.partition_point(|piece| piece.end() <= from);
        for part in map.iter().skip(first).map_while(|piece| piece.clip(from, to)) {
            next = part.end();
            if part.state == State::Missing {
                add(part);
                continue;
            }
            if let Some(part) = part.clip(0, known) {
                add(Piece { state: State::Known, ..part });
            }
            if let Some(part) = part.clip(known, u32::MAX) {
                add(Piece { state: State::Captured, ..part });
            }
        }
        // What was not captured.
        let packet = map.last().map_or(0, |piece| piece.packet);
        let len = to.saturating_sub(next);
        add(Piece { packet, offset: 0, start: next, len, state: State::Missing });
        pieces
    }
}

/// Lengths of captured data fit by far (`savefile::MAX_CAPTURED_LEN`); claims may not.
#[inline]
pub(super) fn narrow(len: usize) -> u32 {
    u32::try_from(len).unwrap_or(u32::MAX)
}
