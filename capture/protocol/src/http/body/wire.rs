//! Collects a body from its stream, and removes its codings one after the other.
//!
//! At most [`DecodingLimits::input`] bytes are kept. Bytes after the first hole are not decoded.

use super::layer::Layer;
use super::{BodyPiece, Coding, DecodedBody, DecodingLimits, DecodingNote, Workspace};

/// The bytes of a body as they come from the stream.
pub(super) struct Wire {
    bytes: Vec<u8>,
    /// Offset of the first hole. Compressed data ends there.
    hole: Option<usize>,
    max: u64,
    pub(super) cut: bool,
}

impl Wire {
    pub(super) fn new(limits: &DecodingLimits, workspace: &mut Workspace) -> Self {
        Self { bytes: workspace.buffer(), hole: None, max: limits.input, cut: false }
    }

    pub(super) fn push(&mut self, piece: BodyPiece<'_>) {
        let length = match piece {
            BodyPiece::Bytes(bytes) => bytes.len() as u64,
            BodyPiece::Hole(length) => length,
        };
        let room = self.max.saturating_sub(self.bytes.len() as u64);
        self.cut |= length > room;
        let taken = usize::try_from(length.min(room)).unwrap_or(usize::MAX);
        match piece {
            BodyPiece::Bytes(bytes) => {
                self.bytes.extend_from_slice(bytes.get(..taken).unwrap_or(bytes));
            }
            BodyPiece::Hole(length) => {
                if length > 0 {
                    self.hole = self.hole.or(Some(self.bytes.len()));
                }
                self.bytes.resize(self.bytes.len().saturating_add(taken), 0);
            }
        }
    }

    /// The body as it was sent, with the reason.
    pub(super) fn into_sent(self, why: DecodingNote) -> DecodedBody {
        let mut decoded = self.begin();
        decoded.bytes = self.bytes;
        decoded.note(why);
        decoded
    }

    /// An empty result with the notes that do not depend on the codings.
    fn begin(&self) -> DecodedBody {
        let mut decoded = DecodedBody::default();
        if self.hole.is_some() {
            decoded.note(DecodingNote::Hole);
        }
        if self.cut {
            decoded.note(DecodingNote::Limit);
        }
        decoded
    }

    pub(super) fn decode(
        self,
        codings: &[String],
        whole: bool,
        limits: &DecodingLimits,
        workspace: &mut Workspace,
    ) -> DecodedBody {
        let mut decoded = self.begin();
        if super::has_foreign(codings) {
            decoded.note(DecodingNote::Unknown);
        }
        if super::known(codings).count() > limits.codings {
            return self.into_sent(DecodingNote::Layers);
        }
        let whole = whole && self.hole.is_none() && !self.cut;
        let known = super::known(codings).rev();
        match self.undo(known, whole, limits, workspace, &mut decoded) {
            // No coding was true.
            Ok(()) if decoded.undone.is_empty() => decoded.bytes = self.bytes,
            Ok(()) => workspace.give_back(self.bytes),
            Err(TooMuch) => return self.into_sent(DecodingNote::Effort),
        }
        decoded
    }

    /// Undoes codings, outermost first. The output of the last one is in `decoded`.
    fn undo(
        &self,
        codings: impl Iterator<Item = Coding>,
        mut whole: bool,
        limits: &DecodingLimits,
        workspace: &mut Workspace,
        decoded: &mut DecodedBody,
    ) -> Result<(), TooMuch> {
        let wire_len = self.bytes.len() as u64;
        let output =
            limits.output.min(wire_len.saturating_mul(limits.ratio).max(limits.ratio_from));
        let mut left = wire_len.saturating_mul(limits.effort).max(limits.effort_from);
        let mut end = self.hole;
        for coding in codings {
            let bytes = if decoded.undone.is_empty() { &self.bytes } else { &decoded.bytes };
            let input = match end {
                Some(end) => bytes.get(..end).unwrap_or_default(),
                None => bytes,
            };
            if input.is_empty() {
                break;
            }
            left = left.checked_sub(input.len() as u64).ok_or(TooMuch)?;
            let most = usize::try_from(output.min(left)).unwrap_or(usize::MAX);
            let mut layer = Layer::new(most, workspace);
            let is_so = layer.undo(coding, input, whole);
            let Layer { mut output, note, broke_off, .. } = layer;
            let is_cut = note == Some(DecodingNote::Limit);
            left = left.saturating_sub(output.len() as u64);
            if is_cut && left == 0 {
                workspace.give_back(output);
                return Err(TooMuch);
            }
            if is_so {
                whole &= !broke_off;
                end = None;
                std::mem::swap(&mut decoded.bytes, &mut output);
                decoded.undone.push(coding);
                if let Some(note) = note {
                    decoded.note(note);
                }
            } else {
                decoded.note(DecodingNote::Lie);
            }
            workspace.give_back(output);
        }
        Ok(())
    }
}

/// Undoing the codings takes more than [`DecodingLimits::effort`].
struct TooMuch;
