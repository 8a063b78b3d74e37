//! Messages in a TCP stream: each has its length before it, in two bytes (RFC 1035, section 4.2.2;
//! RFC 7766, section 8).
//!
//! After a gap that hides a length, the next message is found by its form: all bytes of the message
//! must be a well-formed message, and a length must precede it. Bytes in no message are counted.

use super::probe;
use super::raw::RawMessage;
use crate::time::Timestamp;

/// Bytes of a length.
const PREFIX: usize = 2;

/// Maximum number of places where a message is looked for after a gap. A message usually begins
/// with the first byte after it, because servers send a message in one write.
const MAX_PLACES: u32 = 1 << 16;

/// Maximum number of those places whose message is read to its end.
const MAX_TRIALS: u32 = 64;

/// Larger buffers are given back after their message.
const KEPT: usize = 4096;

/// Splits one direction of a TCP stream into messages.
#[derive(Debug, Default)]
pub struct Framer {
    /// The bytes of the incomplete message with its length, or those among which a message is
    /// looked for.
    buffer: Vec<u8>,
    /// Bytes of the incomplete message that are missing at the end of the buffer.
    missing: usize,
    /// When the first byte in the buffer was seen.
    first: Timestamp,
    last: Timestamp,
    search: Option<Search>,
    note: Option<&'static str>,
    skipped: u64,
}

/// The search for a message after a gap.
#[derive(Clone, Copy, Debug)]
struct Search {
    places: u32,
    trials: u32,
}

/// Receives messages.
type Each<'a> = &'a mut dyn FnMut(RawMessage<'_>);

impl Framer {
    /// For a stream seen from its beginning.
    #[must_use]
    pub fn new() -> Self {
        Self::default()
    }

    /// For a stream that may begin within a message.
    #[must_use]
    pub fn joined() -> Self {
        let mut framer = Self::default();
        framer.lose();
        framer
    }

    /// Takes the next bytes of the stream, seen at `time`.
    pub fn data(&mut self, time: Timestamp, mut bytes: &[u8], each: Each<'_>) {
        self.last = time;
        while !bytes.is_empty() {
            if self.buffer.is_empty() {
                self.first = time;
            }
            if self.search.is_some() {
                bytes = self.look(bytes, each);
            } else if self.buffer.is_empty()
                && let Some(len) = whole(bytes)
            {
                let (message, rest) = bytes.split_at_checked(len).unwrap_or((bytes, &[]));
                self.hand_out(message.get(PREFIX..).unwrap_or_default(), len, each);
                bytes = rest;
            } else {
                bytes = self.append(bytes, each);
            }
        }
    }

    /// The next `len` bytes of the stream are missing.
    pub fn gap(&mut self, len: u64, each: Each<'_>) {
        if len == 0 {
            return;
        }
        let left = self.total().map(|total| total.saturating_sub(self.position()));
        match left {
            Some(left) if self.search.is_none() => {
                let len = usize::try_from(len).unwrap_or(usize::MAX);
                self.missing = self.missing.saturating_add(len.min(left));
                if len >= left {
                    self.end_message(each);
                }
                if len > left {
                    self.lose();
                }
            }
            _ => {
                self.drop_buffer();
                self.lose();
            }
        }
    }

    /// The stream has ended. An incomplete last message is cut.
    pub fn close(&mut self, each: Each<'_>) {
        if self.search.is_none() && self.total().is_some() {
            self.end_message(each);
        }
        self.drop_buffer();
    }

    /// Number of captured bytes that are in no message.
    #[must_use]
    pub fn skipped(&self) -> u64 {
        self.skipped
    }

    /// Heap bytes.
    #[must_use]
    pub fn memory(&self) -> usize {
        self.buffer.capacity()
    }

    /// Bytes of the incomplete message, with its length, if that is known.
    fn total(&self) -> Option<usize> {
        total(&self.buffer)
    }

    /// The place of the next byte in the incomplete message.
    fn position(&self) -> usize {
        self.buffer.len().saturating_add(self.missing)
    }

    /// Takes bytes of the incomplete message. Returns the bytes after it.
    fn append<'a>(&mut self, bytes: &'a [u8], each: Each<'_>) -> &'a [u8] {
        let total = self.total().unwrap_or(PREFIX);
        let len = total.saturating_sub(self.position());
        let (now, rest) = bytes.split_at_checked(len).unwrap_or((bytes, &[]));
        if self.missing == 0 {
            self.buffer.extend_from_slice(now);
        } else {
            // Bytes after missing ones have no place in a message that is cut.
            self.missing = self.missing.saturating_add(now.len());
            self.skipped = self.skipped.saturating_add(now.len() as u64);
        }
        if self.total().is_some_and(|total| self.position() >= total) {
            self.end_message(each);
        }
        rest
    }

    /// Hands out the message in the buffer, as far as it has come.
    fn end_message(&mut self, each: Each<'_>) {
        let buffer = std::mem::take(&mut self.buffer);
        let total = total(&buffer).unwrap_or(PREFIX);
        self.hand_out(buffer.get(PREFIX..).unwrap_or_default(), total, each);
        self.missing = 0;
        if buffer.capacity() <= KEPT {
            self.buffer = buffer;
            self.buffer.clear();
        }
    }

    fn hand_out(&mut self, bytes: &[u8], total: usize, each: Each<'_>) {
        each(RawMessage {
            bytes,
            wire_len: total.saturating_sub(PREFIX),
            first: self.first,
            last: self.last,
            note: self.note.take(),
        });
    }

    /// The beginning of the next message is not known.
    fn lose(&mut self) {
        self.search = Some(Search { places: MAX_PLACES, trials: MAX_TRIALS });
    }

    fn drop_buffer(&mut self) {
        self.skipped = self.skipped.saturating_add(self.buffer.len() as u64);
        self.buffer = Vec::new();
        self.missing = 0;
    }

    /// Looks for a message. Returns the bytes that were not needed.
    fn look<'a>(&mut self, bytes: &'a [u8], each: Each<'_>) -> &'a [u8] {
        self.buffer.extend_from_slice(bytes);
        let Some(search) = &mut self.search else { return bytes };
        let mut at = 0_usize;
        let found = loop {
            let here = self.buffer.get(at..).unwrap_or_default();
            if search.places == 0 || search.trials == 0 {
                at = self.buffer.len();
                break false;
            }
            match probe::framed(here, &mut search.trials) {
                Some(true) => break true,
                Some(false) => {
                    at = at.saturating_add(1);
                    search.places = search.places.saturating_sub(1);
                }
                None => break false,
            }
        };
        self.skipped = self.skipped.saturating_add(at as u64);
        self.buffer.drain(..at.min(self.buffer.len()));
        if found {
            self.search = None;
            self.note = Some("found by its form after a gap in the stream");
            let buffer = std::mem::take(&mut self.buffer);
            self.data(self.last, &buffer, each);
        }
        &[]
    }
}

/// The length of a message with the two bytes before it.
fn total(bytes: &[u8]) -> Option<usize> {
    let (prefix, _) = bytes.split_first_chunk::<PREFIX>()?;
    Some(usize::from(u16::from_be_bytes(*prefix)).saturating_add(PREFIX))
}

/// The same, if the whole message is there.
fn whole(bytes: &[u8]) -> Option<usize> {
    total(bytes).filter(|total| *total <= bytes.len())
}
