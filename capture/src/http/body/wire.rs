//! A body on its way from the stream, and its codings taken off one after the other.
//!
//! At most [`Limits::input`] bytes are held of what came, and none after the first hole is taken
//! for compressed data.

use super::layer::Layer;
use super::{Decoded, Limits, Note, Piece, Workspace};

/// The bytes of a body as they come from the stream.
pub(super) struct Wire {
    bytes: Vec<u8>,
    /// Where the first hole is; nothing compressed goes on after it.
    hole: Option<usize>,
    max: u64,
    pub(super) cut: bool,
}

impl Wire {
    pub(super) fn new(limits: &Limits, workspace: &mut Workspace) -> Self {
        Self { bytes: workspace.buffer(), hole: None, max: limits.input, cut: false }
    }

    pub(super) fn push(&mut self, piece: Piece<'_>) {
        let length = match piece {
            Piece::Bytes(bytes) => bytes.len() as u64,
            Piece::Hole(length) => length,
        };
        let room = self.max.saturating_sub(self.bytes.len() as u64);
        self.cut |= length > room;
        let taken = usize::try_from(length.min(room)).unwrap_or(usize::MAX);
        match piece {
            Piece::Bytes(bytes) => {
                self.bytes.extend_from_slice(bytes.get(..taken).unwrap_or(bytes));
            }
            Piece::Hole(length) => {
                if length > 0 {
                    self.hole = self.hole.or(Some(self.bytes.len()));
                }
                self.bytes.resize(self.bytes.len().saturating_add(taken), 0);
            }
        }
    }

    pub(super) fn decode(
        self,
        codings: &[String],
        whole: bool,
        limits: &Limits,
        workspace: &mut Workspace,
    ) -> Decoded {
        let mut decoded = Decoded { bytes: self.bytes, ..Decoded::default() };
        if self.hole.is_some() {
            decoded.note(Note::Hole);
        }
        if self.cut {
            decoded.note(Note::Limit);
        }
        if super::has_foreign(codings) {
            decoded.note(Note::Unknown);
        }
        if super::known(codings).count() > limits.codings {
            decoded.note(Note::Layers);
        }
        let wire_len = decoded.bytes.len() as u64;
        let output =
            limits.output.min(wire_len.saturating_mul(limits.ratio).max(limits.ratio_from));
        let output = usize::try_from(output).unwrap_or(usize::MAX);
        let mut whole = whole && self.hole.is_none() && !self.cut;
        let mut end = self.hole;
        for coding in super::known(codings).rev().take(limits.codings) {
            let input = match end {
                Some(end) => decoded.bytes.get(..end).unwrap_or_default(),
                None => &decoded.bytes,
            };
            if input.is_empty() {
                break;
            }
            let mut layer = Layer::new(output, workspace);
            let is_so = layer.undo(coding, input, whole);
            let Layer { mut output, note, broke_off, .. } = layer;
            if is_so {
                whole &= !broke_off;
                end = None;
                std::mem::swap(&mut decoded.bytes, &mut output);
                decoded.undone.push(coding);
                if let Some(note) = note {
                    decoded.note(note);
                }
            } else {
                decoded.note(Note::Lie);
            }
            workspace.give_back(output);
        }
        decoded
    }
}
