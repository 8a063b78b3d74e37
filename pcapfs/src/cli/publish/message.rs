//! Messages: their frames, and the place after which a reader goes on.

use bytes::{Bytes, BytesMut};

use super::zmtp::frame;
use crate::cli::outlet::event_kind::EventKind;

/// The place of a message in what it was made of.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum MessagePlace {
    /// The line of this number.
    Line(EventKind, u64),
    /// Up to the packet of this number.
    Packet(u64),
    /// A segment: the next packet to look at until it is sent, and after that. Several segments may come
    /// from one packet, and only the last one leaves it.
    Segment { unsent: u64, sent: u64 },
    /// The counters at a moment, which come anew in each run.
    Status,
}

/// A message.
#[derive(Clone, Debug)]
pub(super) struct Message {
    pub(super) topic: &'static str,
    /// After the topic: JSON, and bytes.
    pub(super) frames: Vec<Bytes>,
    pub(super) place: MessagePlace,
    /// Different for each message; the same for a repetition.
    pub(super) id: String,
    /// Its place among all messages, if they are distributed.
    pub(super) sequence: u64,
}

impl Message {
    /// Bytes on the wire.
    pub(super) fn size(&self) -> usize {
        let frames = self.frames.iter().map(|body| frame::length(body.len()));
        frame::length(self.topic.len()) + frames.sum::<usize>()
    }

    /// Appends it as it is on the wire.
    pub(super) fn append(&self, out: &mut BytesMut) {
        out.reserve(self.size());
        frame::append(out, self.topic.as_bytes(), !self.frames.is_empty());
        for (index, body) in self.frames.iter().enumerate() {
            frame::append(out, body, index + 1 < self.frames.len());
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_last_frame_has_no_other_after_it() {
        let frames = vec![Bytes::from_static(b"{}"), Bytes::new()];
        let message = Message {
            topic: "http",
            frames,
            place: MessagePlace::Packet(1),
            id: String::new(),
            sequence: 0,
        };
        let mut out = BytesMut::new();
        message.append(&mut out);
        assert_eq!(out, &b"\x01\x04http\x01\x02{}\0\0"[..]);
        assert_eq!(message.size(), out.len());
    }
}
