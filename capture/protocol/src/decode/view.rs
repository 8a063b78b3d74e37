//! Bytes to read headers from, and the place of each of them in captured packets.
//!
//! A packet is one run of bytes. A reassembled datagram is a list of [`DatagramPiece`]s; only its
//! first bytes are available here. Offsets into both count bytes on the wire, so they are also
//! right after a hole.

use super::Reason;
use crate::extent::Extent;

/// A run of captured bytes of a payload.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct PayloadPart {
    /// Its offset in the payload: the number of bytes on the wire before it.
    pub at: u32,
    /// The place of its bytes; never empty.
    pub extent: Extent,
}

/// The payload of a packet: the places of its captured bytes.
#[derive(Clone, Copy, Debug)]
pub struct Payload<'d> {
    len: u32,
    captured: u32,
    offset: u32,
    map: PayloadMap<'d>,
}

impl<'d> Payload<'d> {
    pub(super) fn new(view: HeaderView<'d>, offset: usize, len: usize) -> Self {
        let (offset, len) = (narrow(offset), narrow(len));
        let mut payload = Self { len, captured: 0, offset, map: view.map };
        payload.captured = match view.map {
            PayloadMap::Packet { captured, .. } => captured.saturating_sub(offset).min(len),
            // These are parts of the payload, so their sum is at most its length.
            PayloadMap::Pieces(_) => payload.parts().map(|part| part.extent.len).sum(),
        };
        payload
    }

    /// Its length on the wire in bytes: `captured() + missing()`.
    #[must_use]
    #[expect(clippy::len_without_is_empty, reason = "a length on the wire, of no container")]
    pub const fn len(&self) -> u32 {
        self.len
    }

    /// Number of its captured bytes: the sum of the lengths of [`Payload::parts`].
    #[must_use]
    pub const fn captured(&self) -> u32 {
        self.captured
    }

    /// Number of its bytes that were on the wire but not captured.
    #[must_use]
    pub const fn missing(&self) -> u32 {
        self.len.saturating_sub(self.captured)
    }

    /// The places of its bytes, in order: one part, several if it came in fragments, or none.
    ///
    /// Parts do not overlap. Bytes of `0..len()` that no part covers are missing.
    #[must_use]
    pub fn parts(&self) -> PayloadParts<'d> {
        let end = self.offset.saturating_add(self.len);
        match self.map {
            PayloadMap::Packet { number, captured } => {
                let piece = DatagramPiece {
                    packet: number,
                    offset: 0,
                    start: 0,
                    len: captured,
                    state: ViewState::Captured,
                };
                PayloadParts { single: Some(piece), pieces: &[], start: self.offset, end }
            }
            PayloadMap::Pieces(pieces) => {
                let first = pieces.partition_point(|piece| piece.end() <= self.offset);
                let pieces = pieces.get(first..).unwrap_or_default();
                PayloadParts { single: None, pieces, start: self.offset, end }
            }
        }
    }
}

/// The parts of a [`Payload`].
#[derive(Clone, Debug)]
pub struct PayloadParts<'d> {
    single: Option<DatagramPiece>,
    pieces: &'d [DatagramPiece],
    start: u32,
    end: u32,
}

impl Iterator for PayloadParts<'_> {
    type Item = PayloadPart;

    fn next(&mut self) -> Option<PayloadPart> {
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
            if let Some(part) = part.filter(|part| part.state != ViewState::Missing) {
                let DatagramPiece { packet, offset, len, .. } = part;
                return Some(PayloadPart {
                    at: part.start.saturating_sub(self.start),
                    extent: Extent { packet, offset, len },
                });
            }
        }
    }
}

/// The places of a payload and its holes. Nearly always it is one place, which takes no heap memory.
#[derive(Clone, Debug, Default)]
pub struct PayloadExtents {
    first: [Extent; 1],
    rest: Vec<Extent>,
    len: usize,
}

impl PayloadExtents {
    /// The places of a payload. An extent of packet 0 is a hole: bytes that were not captured, before
    /// others that were.
    #[must_use]
    pub fn of(payload: &Payload<'_>) -> Self {
        let (mut extents, mut end) = (Self::default(), 0_u32);
        for part in payload.parts() {
            let len = part.at.saturating_sub(end);
            if len > 0 {
                extents.push(Extent { packet: 0, offset: 0, len });
            }
            end = part.at.saturating_add(part.extent.len);
            extents.push(part.extent);
        }
        extents
    }

    fn push(&mut self, extent: Extent) {
        match self.len {
            0 => self.first = [extent],
            1 => {
                let [first] = self.first;
                self.rest.extend([first, extent]);
            }
            _ => self.rest.push(extent),
        }
        self.len = self.len.saturating_add(1);
    }

    /// The extents in the order of the payload.
    #[must_use]
    pub fn as_slice(&self) -> &[Extent] {
        match self.len {
            0 => &[],
            1 => &self.first,
            _ => &self.rest,
        }
    }
}

/// A run of bytes of a datagram, all from one packet.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct DatagramPiece {
    /// The packet it came in. A missing piece has one too.
    pub(super) packet: u64,
    /// Its offset in that packet's captured data; meaningless if it is missing.
    pub(super) offset: u32,
    /// Its offset in the datagram.
    pub(super) start: u32,
    pub(super) len: u32,
    pub(super) state: ViewState,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum ViewState {
    /// Captured, and its bytes were available when the piece was made.
    Known,
    /// Captured.
    Captured,
    /// It was on the wire, but not captured.
    Missing,
}

impl DatagramPiece {
    pub(super) const fn end(&self) -> u32 {
        self.start.saturating_add(self.len)
    }

    /// The part of it between two offsets of the datagram; `None` if that is empty.
    pub(super) fn clip(&self, from: u32, to: u32) -> Option<Self> {
        let start = self.start.max(from);
        let len = self.end().min(to).checked_sub(start).filter(|len| *len > 0)?;
        let skipped = start.saturating_sub(self.start);
        Some(Self { start, len, offset: self.offset.saturating_add(skipped), ..*self })
    }
}

/// The bytes that headers are read from.
#[derive(Clone, Copy, Debug)]
pub(super) struct HeaderView<'v> {
    bytes: &'v [u8],
    map: PayloadMap<'v>,
}

#[derive(Clone, Copy, Debug)]
enum PayloadMap<'v> {
    /// A packet, and the number of its captured bytes.
    Packet { number: u64, captured: u32 },
    /// A datagram: sorted pieces without a gap or an overlap.
    Pieces(&'v [DatagramPiece]),
}

impl<'v> HeaderView<'v> {
    pub(super) fn packet(number: u64, data: &'v [u8]) -> Self {
        Self { bytes: data, map: PayloadMap::Packet { number, captured: narrow(data.len()) } }
    }

    /// A packet without its bytes, to locate a payload in it.
    pub(super) fn located(number: u64, captured: usize) -> Self {
        Self { bytes: &[], map: PayloadMap::Packet { number, captured: narrow(captured) } }
    }

    /// A datagram of `pieces` that begins with the bytes of `head`.
    pub(super) const fn pieces(head: &'v [u8], pieces: &'v [DatagramPiece]) -> Self {
        Self { bytes: head, map: PayloadMap::Pieces(pieces) }
    }
}

/// A place in a view, and the end of the layer it is in.
#[derive(Clone, Copy, Debug)]
pub(super) struct At<'v> {
    view: &'v HeaderView<'v>,
    /// Number of bytes on the wire before this place.
    pub(super) offset: usize,
    /// End of the layer on the wire; may be beyond the captured bytes.
    end: usize,
}

impl<'v> At<'v> {
    /// The beginning of a view that had `end` bytes on the wire.
    pub(super) const fn new(view: &'v HeaderView<'v>, end: usize) -> Self {
        Self { view, offset: 0, end }
    }

    /// Bytes of the layer from here to its end, on the wire.
    #[inline]
    pub(super) const fn wire_len(&self) -> usize {
        self.end.saturating_sub(self.offset)
    }

    /// Bytes of the layer from here on that are available.
    #[inline]
    pub(super) fn rest(&self) -> &'v [u8] {
        let end = self.end.min(self.view.bytes.len());
        self.view.bytes.get(self.offset..end).unwrap_or_default()
    }

    /// Why `needed` bytes cannot be read from here, if fewer are available.
    #[inline]
    pub(super) const fn lacking(&self, needed: usize) -> Reason {
        if self.wire_len() < needed { Reason::Malformed } else { Reason::Truncated }
    }

    /// The next `N` bytes.
    #[inline]
    pub(super) fn peek<const N: usize>(&self) -> Result<&'v [u8; N], Reason> {
        self.rest().first_chunk().ok_or_else(|| self.lacking(N))
    }

    /// The `N` bytes after the next `skip` bytes.
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

    /// The next `N` bytes, and the place after them.
    #[inline]
    pub(super) fn take<const N: usize>(&self) -> Result<(&'v [u8; N], Self), Reason> {
        Ok((self.peek()?, self.skip(N)?))
    }

    /// The same place in a layer that ends `len` bytes further on, or where this one ends if that
    /// is earlier.
    #[inline]
    pub(super) fn limit(&self, len: usize) -> Self {
        Self { end: self.end.min(self.offset.saturating_add(len)), ..*self }
    }

    /// The places of the layer's bytes from here on, as pieces of a datagram that begin at its
    /// offset `start`. At most `most` pieces: a longer list, from an attacker, is cut and then not
    /// contiguous.
    pub(super) fn pieces(&self, start: u32, most: usize) -> Vec<DatagramPiece> {
        let (from, to) = (narrow(self.offset), narrow(self.end));
        let known = narrow(self.view.bytes.len());
        let mut pieces = Vec::new();
        let mut next = from;
        let mut add = |piece: DatagramPiece| {
            let rebased = piece.start.saturating_sub(from).saturating_add(start);
            if piece.len > 0 && pieces.len() < most {
                pieces.push(DatagramPiece { start: rebased, ..piece });
            }
        };
        let whole;
        let map = match self.view.map {
            PayloadMap::Packet { number, captured } => {
                let (packet, state) = (number, ViewState::Captured);
                whole = [DatagramPiece { packet, offset: 0, start: 0, len: captured, state }];
                &whole[..]
            }
            PayloadMap::Pieces(pieces) => pieces,
        };
        let first = map.partition_point(|piece| piece.end() <= from);
        for part in map.iter().skip(first).map_while(|piece| piece.clip(from, to)) {
            next = part.end();
            if part.state == ViewState::Missing {
                add(part);
                continue;
            }
            if let Some(part) = part.clip(0, known) {
                add(DatagramPiece { state: ViewState::Known, ..part });
            }
            if let Some(part) = part.clip(known, u32::MAX) {
                add(DatagramPiece { state: ViewState::Captured, ..part });
            }
        }
        // The rest was not captured.
        let packet = map.last().map_or(0, |piece| piece.packet);
        let len = to.saturating_sub(next);
        add(DatagramPiece { packet, offset: 0, start: next, len, state: ViewState::Missing });
        pieces
    }
}

/// Captured lengths always fit (`savefile::MAX_CAPTURED_LEN`). Lengths that headers state may not.
#[inline]
pub(super) fn narrow(len: usize) -> u32 {
    u32::try_from(len).unwrap_or(u32::MAX)
}
