//! Chunks of savefiles as they are on the wire, for both ends.
//!
//! A codec copies each message: into a buffer to send it, and out of the buffers that were
//! received. Chunks are nearly all the bytes of the service, so both ends take the body of such an
//! answer past the codec ([`hand_over`]): the daemon copies packets from the ring into the buffer
//! that is sent, and the client writes them from the buffer that was received.
//!
//! ```text
//!  0    length, 4 bytes   0x10   total   0x18   lost    0x0a   length   savefile bytes
//!  └─ prefix of gRPC ─┘   └─ if any ─┘   └─ if any ─┘   └─ field 1 of Chunk ─────────┘
//! ```

use std::future::poll_fn;
use std::io::IoSlice;
use std::pin::Pin;
use std::sync::Arc;

use bytes::{Buf, BufMut, Bytes, BytesMut};
use http::Extensions;
use http_body::Body as _;
use parking_lot::Mutex;
use prost::encoding::{decode_varint, encode_varint};
use tonic::body::Body;
use tonic::{Code, Status};

/// Maximum number of savefile bytes in one message: as much as programs read at a time, and small
/// enough for a hundred clients that stop reading.
pub(super) const CHUNK: u32 = 128 << 10;

/// Bytes of a frame that holds the largest message, with everything before its data.
pub(crate) const FRAME: u32 = CHUNK + 64;

/// Key of `data`: field 1, bytes.
const DATA: u8 = 1 << 3 | BYTES;

/// Key of `total`: field 2, a number.
const TOTAL: u8 = 2 << 3 | NUMBER;

/// Key of `lost`: field 3, a number.
const LOST: u8 = 3 << 3 | NUMBER;

/// Wire types, the lowest three bits of a key.
const NUMBER: u8 = 0;
const BYTES: u8 = 2;
const WIRE_TYPE: u8 = 0b111;

/// Bytes of gRPC's prefix: whether the message is compressed, and its length.
const PREFIX: usize = 5;

/// Bytes of the longest varint.
const VARINT: usize = 10;

/// The body of an answer that bypasses the codec.
#[derive(Clone)]
struct Handed(Arc<Mutex<Option<Body>>>);

/// Puts the body of an answer where [`handed`] finds it.
pub(crate) fn hand_over(extensions: &mut Extensions, body: Body) {
    extensions.insert(Handed(Arc::new(Mutex::new(Some(body)))));
}

/// The body that was handed over with an answer; only the first call gets it.
pub(crate) fn handed(extensions: &mut Extensions) -> Option<Body> {
    extensions.remove::<Handed>()?.0.lock().take()
}

/// The message of a chunk; it contains `total` and `lost` if they are not 0.
pub(super) fn message(total: u64, lost: u64, slices: &[IoSlice<'_>]) -> Bytes {
    let mut fields = BytesMut::with_capacity(3 * (1 + VARINT));
    for (key, number) in [(TOTAL, total), (LOST, lost)] {
        if number > 0 {
            fields.put_u8(key);
            encode_varint(number, &mut fields);
        }
    }
    framed(fields, DATA, slices)
}

/// A message of encoded fields, with one more field of bytes after them, whose key is `key`.
pub(super) fn framed(mut fields: BytesMut, key: u8, slices: &[IoSlice<'_>]) -> Bytes {
    let size: usize = slices.iter().map(|slice| slice.len()).sum();
    if size > 0 {
        fields.put_u8(key);
        encode_varint(size as u64, &mut fields);
    }
    let length = fields.len() + size;
    let mut message = Vec::with_capacity(PREFIX + length);
    message.put_u8(0);
    // At most a chunk, or a single packet, and the fields before it.
    message.put_u32(u32::try_from(length).unwrap_or(u32::MAX));
    message.put_slice(&fields);
    slices.iter().for_each(|slice| message.put_slice(slice));
    Bytes::from(message)
}

/// A part of a message.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum MessagePart {
    /// Bytes of the whole answer.
    Total(u64),
    /// Packets that this reader has lost so far.
    Lost(u64),
    /// Savefile bytes; a message may come in several parts.
    Data(Bytes),
}

/// The parts of the chunks of an answer.
#[derive(Debug)]
pub(crate) struct MessageParts {
    body: Body,
    input: Bytes,
    parser: ChunkParser,
}

impl MessageParts {
    /// The parts of this body.
    pub(crate) fn new(body: Body) -> Self {
        Self { body, input: Bytes::new(), parser: ChunkParser::default() }
    }

    /// The next part; `None` at the end. If the future is dropped before it is ready, no part is
    /// lost.
    ///
    /// # Errors
    /// The daemon's status, or an error if the daemon stopped answering.
    pub(crate) async fn next(&mut self) -> Result<Option<MessagePart>, Status> {
        loop {
            if let Some(part) = self.parser.next(&mut self.input)? {
                return Ok(Some(part));
            }
            let frame = poll_fn(|context| Pin::new(&mut self.body).poll_frame(context)).await;
            let Some(frame) = frame else {
                return Err(Status::unknown("the answer ended without a status"));
            };
            match frame?.into_data() {
                Ok(data) => self.input = data,
                Err(frame) => {
                    let trailers = frame.into_trailers().unwrap_or_default();
                    let status = Status::from_header_map(&trailers);
                    let status = status.unwrap_or_else(|| Status::unknown("no status"));
                    return match status.code() {
                        Code::Ok if self.parser.is_between() => Ok(None),
                        Code::Ok => Err(Status::unknown("the answer ended within a message")),
                        _ => Err(status),
                    };
                }
            }
        }
    }
}

/// The parser's place in a message.
#[derive(Debug)]
struct ChunkParser {
    stage: Stage,
    /// Bytes of the message that are still to come.
    left: u64,
    /// The bytes so far of a number or a prefix.
    held: [u8; VARINT],
    holds: usize,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Stage {
    Prefix,
    Key,
    /// The number after this key.
    Number(u8),
    /// This many bytes after this key.
    Bytes(u8, u64),
}

impl Default for ChunkParser {
    fn default() -> Self {
        Self { stage: Stage::Prefix, left: 0, held: [0; VARINT], holds: 0 }
    }
}

impl ChunkParser {
    /// True if a message has ended and none has begun.
    fn is_between(&self) -> bool {
        self.stage == Stage::Prefix && self.holds == 0
    }

    /// The next part of `input`; `None` if there are no bytes left.
    fn next(&mut self, input: &mut Bytes) -> Result<Option<MessagePart>, Status> {
        loop {
            match self.stage {
                Stage::Key if self.left == 0 => self.stage = Stage::Prefix,
                Stage::Bytes(_, 0) => self.stage = Stage::Key,
                _ if input.is_empty() => return Ok(None),
                Stage::Bytes(key, count) => {
                    let here = usize::try_from(count).unwrap_or(usize::MAX).min(input.len());
                    self.stage = Stage::Bytes(key, count - here as u64);
                    self.left -= here as u64;
                    let bytes = input.split_to(here);
                    if key == DATA {
                        return Ok(Some(MessagePart::Data(bytes)));
                    }
                }
                Stage::Prefix => {
                    if let Some(mut prefix) = self.hold(input.get_u8(), |held| held == PREFIX) {
                        if prefix.get_u8() != 0 {
                            return Err(Status::internal("a compressed message"));
                        }
                        self.left = prefix.get_u32().into();
                        self.stage = Stage::Key;
                    }
                }
                Stage::Key => {
                    let key = input.get_u8();
                    self.left -= 1;
                    // This also accepts fields that a later version may have, up to the 15th.
                    if key & 0x80 != 0 || ![NUMBER, BYTES].contains(&(key & WIRE_TYPE)) {
                        return Err(Status::internal("an unknown kind of field"));
                    }
                    self.stage = Stage::Number(key);
                }
                Stage::Number(key) => {
                    if self.left == 0 {
                        return Err(Status::internal("a message ends within a field"));
                    }
                    let byte = input.get_u8();
                    self.left -= 1;
                    let Some(mut number) =
                        self.hold(byte, |held| byte & 0x80 == 0 || held == VARINT)
                    else {
                        continue;
                    };
                    let number = decode_varint(&mut number)
                        .map_err(|error| Status::internal(error.to_string()))?;
                    self.stage = Stage::Key;
                    if key & WIRE_TYPE == BYTES {
                        if number > self.left {
                            return Err(Status::internal("a field is longer than its message"));
                        }
                        self.stage = Stage::Bytes(key, number);
                    } else if key == TOTAL {
                        return Ok(Some(MessagePart::Total(number)));
                    } else if key == LOST {
                        return Ok(Some(MessagePart::Lost(number)));
                    }
                }
            }
        }
    }

    /// Keeps a byte of a value that may come in pieces; returns all of them with the last one.
    fn hold(&mut self, byte: u8, is_last: impl FnOnce(usize) -> bool) -> Option<&[u8]> {
        // There is room, since held values are shorter.
        if let Some(place) = self.held.get_mut(self.holds) {
            *place = byte;
        }
        self.holds += 1;
        if !is_last(self.holds) {
            return None;
        }
        let held = std::mem::take(&mut self.holds);
        self.held.get(..held)
    }
}

/// The longest head of a message fits into a frame, beside the data.
const _: () = assert!(PREFIX + 3 + 3 * VARINT <= (FRAME - CHUNK) as usize);

#[cfg(test)]
mod tests {
    use proptest::prelude::*;
    use prost::Message;

    use super::super::messages::Chunk;
    use super::*;

    /// All parts of these bytes when they come in such pieces, with the data joined.
    fn parse(wire: &[u8], pieces: usize) -> Result<(Vec<u8>, Vec<u64>), Status> {
        let mut parser = ChunkParser::default();
        let (mut data, mut totals) = (Vec::new(), Vec::new());
        for piece in wire.chunks(pieces) {
            let mut input = Bytes::copy_from_slice(piece);
            while let Some(part) = parser.next(&mut input)? {
                match part {
                    MessagePart::Total(number) | MessagePart::Lost(number) => totals.push(number),
                    MessagePart::Data(bytes) => data.extend_from_slice(&bytes),
                }
            }
            assert!(input.is_empty());
        }
        if !parser.is_between() {
            return Err(Status::unknown("incomplete"));
        }
        Ok((data, totals))
    }

    fn framed(message: &[u8]) -> Vec<u8> {
        let mut wire = vec![0];
        wire.put_u32(u32::try_from(message.len()).unwrap());
        wire.extend_from_slice(message);
        wire
    }

    proptest! {
        #[test]
        fn the_codec_reads_our_messages(
            data in proptest::collection::vec(any::<u8>(), 0..400),
            total: u64,
            lost: u64,
            cut in 0..400_usize,
        ) {
            let (first, second) = data.split_at(cut.min(data.len()));
            let mut wire = message(total, lost, &[IoSlice::new(first), IoSlice::new(second)]);
            prop_assert_eq!(wire.get_u8(), 0);
            prop_assert_eq!(wire.get_u32() as usize, wire.len());
            prop_assert_eq!(Chunk::decode(wire).unwrap(), Chunk { data: data.into(), total, lost });
        }

        #[test]
        fn messages_of_the_codec_are_read(
            messages in proptest::collection::vec(
                (proptest::collection::vec(any::<u8>(), 0..300), any::<u64>(), any::<u64>()), 0..4),
            pieces in 1..400_usize,
        ) {
            let (mut wire, mut all, mut told) = (Vec::new(), Vec::new(), Vec::new());
            for (data, total, lost) in messages {
                all.extend_from_slice(&data);
                told.extend([total, lost].into_iter().filter(|number| *number != 0));
                wire.extend(framed(&Chunk { data: data.into(), total, lost }.encode_to_vec()));
            }
            prop_assert_eq!(parse(&wire, pieces).unwrap(), (all, told));
        }

        #[test]
        fn nonsense_is_refused_or_empty(wire in proptest::collection::vec(any::<u8>(), 0..200)) {
            let _ = parse(&wire, 7);
        }
    }

    #[test]
    fn fields_of_a_later_version_are_passed_over() {
        let wire = framed(b"\x28\x96\x01\x22\x03abc\x0a\x02hi");
        assert_eq!(parse(&wire, 1).unwrap(), (b"hi".to_vec(), vec![]));
    }

    #[test]
    fn broken_messages_are_refused() {
        for message in [&b"\x0a"[..], b"\x0a\x05hi", b"\x10\xff", b"\x09hello678", b"\x8a\x01\x00"]
        {
            assert!(parse(&framed(message), 3).is_err(), "{message:?}");
        }
        assert!(parse(b"\x01\0\0\0\0", 5).is_err(), "compressed");
        assert!(parse(&framed(b"\x0a\x02hi")[..8], 5).is_err(), "cut off");
    }
}
