//! Decodes bodies: removes their content codings, on demand and within limits.
//!
//! Codings are claims. Each is tried, from the outermost inwards. If the bytes refute a coding, it
//! is skipped and noted, so that a body that lies about its encoding is returned as it was sent. If
//! the data ends early, or is corrupt from some point on, the bytes decoded before are returned. A
//! body that claims too many codings, or takes too much effort, is returned as it was sent.

pub mod framed;
mod layer;
mod wire;

use std::ops::Range;

use super::direction::MessageRole;
use framed::Body;
use wire::Wire;

/// A piece of a stream.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum BodyPiece<'a> {
    /// Available bytes.
    Bytes(&'a [u8]),
    /// This many bytes that are missing or have expired.
    Hole(u64),
}

/// The two streams of a connection, to read their bytes again.
pub trait Streams {
    /// Passes `range` of a stream to `sink`, in order and completely.
    fn read(&self, direction: MessageRole, range: Range<u64>, sink: &mut dyn FnMut(BodyPiece<'_>));
}

/// Limits of decoding.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct DecodingLimits {
    /// Bytes taken from the wire for one body; a larger body is cut. A body without codings is
    /// better read from its ranges, without this module.
    pub input: u64,
    /// Output bytes of any one coding. A body is decoded in memory, several at a time.
    pub output: u64,
    /// Output bytes per byte on the wire. Deflate reaches 1,032; real text rarely 50.
    pub ratio: u64,
    /// Output bytes up to which `ratio` does not apply: tiny bodies of blanks are harmless.
    pub ratio_from: u64,
    /// Number of codings that are undone. Each costs as much as a body. Servers use one, and tests
    /// of browsers use at most three.
    pub codings: usize,
    /// Input and output bytes of all codings together, per byte on the wire: 1.5 times as much as
    /// one coding at its [`ratio`](Self::ratio).
    pub effort: u64,
    /// Input and output bytes up to which `effort` does not apply.
    pub effort_from: u64,
}

impl Default for DecodingLimits {
    fn default() -> Self {
        Self {
            input: 64 << 20,
            output: 64 << 20,
            ratio: 256,
            ratio_from: 1 << 20,
            codings: 3,
            effort: 384,
            effort_from: 3 << 19,
        }
    }
}

/// A coding this module can undo.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Coding {
    /// RFC 1952.
    Gzip,
    /// RFC 1950, and RFC 1951 without the wrapper, as some servers send it.
    Deflate,
    /// RFC 7932.
    Brotli,
    /// RFC 8878.
    Zstd,
}

/// The name for no coding at all, RFC 9110 section 12.5.3.
const IDENTITY: &str = "identity";

/// The claimed codings of a body that can be undone.
pub(super) fn known(codings: &[String]) -> impl DoubleEndedIterator<Item = Coding> {
    codings.iter().filter_map(|name| Coding::named(name))
}

/// Returns `true` if a body claims a coding that cannot be undone.
pub(super) fn has_foreign(codings: &[String]) -> bool {
    codings.iter().any(|name| name != IDENTITY && Coding::named(name).is_none())
}

impl Coding {
    /// The coding called `name` in a header, in lower case.
    #[must_use]
    pub fn named(name: &str) -> Option<Self> {
        match name {
            "gzip" | "x-gzip" => Some(Self::Gzip),
            "deflate" | "x-deflate" => Some(Self::Deflate),
            "br" | "brotli" => Some(Self::Brotli),
            "zstd" | "x-zstd" => Some(Self::Zstd),
            _ => None,
        }
    }
}

/// Something noticed while decoding, from harmless to grave.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum DecodingNote {
    /// Bytes after the end of the compressed data were left out.
    Trailing,
    /// A checksum or a length at the end is wrong.
    Checksum,
    /// A coding is unknown here, and was skipped.
    Unknown,
    /// The body is not in a coding that it claims; that coding was skipped.
    Lie,
    /// Bytes are missing.
    Hole,
    /// The compressed data ends early; the bytes before are there.
    Truncated,
    /// The compressed data is corrupt from some point on; the bytes before are there.
    Corrupt,
    /// It claims more codings than [`DecodingLimits::codings`]; none was undone.
    Layers,
    /// Undoing its codings takes more than [`DecodingLimits::effort`]; none was undone.
    Effort,
    /// There was no time for it when it was captured. No coding was undone, nor will be.
    Busy,
    /// A limit of [`DecodingLimits`] cut it.
    Limit,
}

impl DecodingNote {
    /// The note as text for people.
    #[must_use]
    pub const fn text(self) -> &'static str {
        match self {
            Self::Trailing => "bytes follow the compressed data",
            Self::Checksum => "the checksum of the compressed data is wrong",
            Self::Unknown => "the encoding is not known",
            Self::Lie => "the body is not in the encoding it claims",
            Self::Hole => "bytes of the body are missing",
            Self::Truncated => "the compressed data breaks off",
            Self::Corrupt => "the compressed data is corrupt",
            Self::Layers => "it has more encodings than are undone, and is shown as it was sent",
            Self::Effort => "it takes too much effort to decode, and is shown as it was sent",
            Self::Busy => "there was no time to decode it, and it is shown as it was sent",
            Self::Limit => "the decoded body is larger than allowed",
        }
    }

    /// Returns `true` if the body is returned as it was sent, although it claims codings that could
    /// be undone.
    #[must_use]
    pub const fn leaves_as_sent(self) -> bool {
        matches!(self, Self::Layers | Self::Effort | Self::Busy)
    }

    /// Returns `true` if a record must report this note: the decoded bytes are, or may be, not all
    /// that was sent. Missing bytes are reported by the transaction itself.
    #[must_use]
    pub const fn must_be_reported(self) -> bool {
        !matches!(self, Self::Trailing | Self::Hole)
    }
}

/// A decoded body.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct DecodedBody {
    /// The bytes; missing ones are zeros.
    pub bytes: Vec<u8>,
    /// The codings that were undone, in this order.
    pub undone: Vec<Coding>,
    /// The notes, each once, the gravest one last.
    pub notes: Vec<DecodingNote>,
}

impl DecodedBody {
    fn note(&mut self, note: DecodingNote) {
        if let Err(at) = self.notes.binary_search(&note) {
            self.notes.insert(at, note);
        }
    }
}

/// Maximum size of a buffer that is kept for the next body, in bytes.
const MAX_KEPT: usize = 4 << 20;

/// Memory for decoding. Keep it if you decode several bodies in a row: buffers that grow and are
/// freed with each body fragment the heap.
#[derive(Debug, Default)]
pub struct Workspace {
    /// Empty buffers, at most two: one for bytes from the wire, one for output.
    buffers: Vec<Vec<u8>>,
    inflater: Option<flate2::Decompress>,
}

impl Workspace {
    fn buffer(&mut self) -> Vec<u8> {
        self.buffers.pop().unwrap_or_default()
    }

    /// Keeps the memory of bytes that are no longer needed for the next body.
    pub fn give_back(&mut self, mut bytes: Vec<u8>) {
        if self.buffers.len() < 2 && bytes.capacity() <= MAX_KEPT {
            bytes.clear();
            self.buffers.push(bytes);
        }
    }
}

/// The body without the codings that were applied for the wire.
#[must_use]
pub fn read(
    streams: &dyn Streams,
    direction: MessageRole,
    body: &Body,
    limits: &DecodingLimits,
) -> DecodedBody {
    read_with(streams, direction, body, limits, &mut Workspace::default())
}

/// Like [`read`], with the workspace of earlier calls.
#[must_use]
pub fn read_with(
    streams: &dyn Streams,
    direction: MessageRole,
    body: &Body,
    limits: &DecodingLimits,
    workspace: &mut Workspace,
) -> DecodedBody {
    let mut wire = Wire::new(limits, workspace);
    for range in &body.ranges {
        if wire.cut {
            break;
        }
        // Holes known from the start count, even if the stream returns zeros for them.
        let mut at = range.start;
        // Both lists ascend. A stranger decides how long they are.
        let first = body.holes.partition_point(|hole| hole.end <= range.start);
        let holes = body.holes.iter().skip(first).take_while(|hole| hole.start < range.end);
        for hole in holes {
            let (start, end) = (hole.start.max(range.start), hole.end.min(range.end));
            if start > at {
                streams.read(direction, at..start, &mut |piece| wire.push(piece));
            }
            wire.push(BodyPiece::Hole(end.saturating_sub(start)));
            at = end;
        }
        if range.end > at {
            let end = range.end.min(at.saturating_add(limits.input).saturating_add(1));
            streams.read(direction, at..end, &mut |piece| wire.push(piece));
        }
    }
    if body.as_sent {
        return wire.into_sent(DecodingNote::Busy);
    }
    wire.decode(&body.codings, body.is_whole(), limits, workspace)
}

/// Undoes `codings` on the bytes of a body. They are listed in the order in which they were
/// applied.
///
/// `whole` says whether the body ended where its framing says. If so, data that ends early was
/// never compressed, unless its coding has a mark that proves it.
#[must_use]
pub fn decode<'a>(
    pieces: impl IntoIterator<Item = BodyPiece<'a>>,
    codings: &[String],
    whole: bool,
    limits: &DecodingLimits,
) -> DecodedBody {
    let mut workspace = Workspace::default();
    let mut wire = Wire::new(limits, &mut workspace);
    for piece in pieces {
        wire.push(piece);
        if wire.cut {
            break;
        }
    }
    wire.decode(codings, whole, limits, &mut workspace)
}

#[cfg(test)]
mod tests {
    use std::io::Write;

    use super::*;

    const TEXT: &[u8] = b"the quick brown fox jumps over the lazy dog; the quick brown fox.";

    fn gzip(bytes: &[u8]) -> Vec<u8> {
        let mut writer = flate2::write::GzEncoder::new(Vec::new(), flate2::Compression::best());
        writer.write_all(bytes).unwrap();
        writer.finish().unwrap()
    }

    fn zlib(bytes: &[u8]) -> Vec<u8> {
        let mut writer = flate2::write::ZlibEncoder::new(Vec::new(), flate2::Compression::best());
        writer.write_all(bytes).unwrap();
        writer.finish().unwrap()
    }

    fn raw(bytes: &[u8]) -> Vec<u8> {
        let mut writer =
            flate2::write::DeflateEncoder::new(Vec::new(), flate2::Compression::best());
        writer.write_all(bytes).unwrap();
        writer.finish().unwrap()
    }

    fn zstd(bytes: &[u8]) -> Vec<u8> {
        ::zstd::stream::encode_all(bytes, 3).unwrap()
    }

    /// Brotli in one uncompressed meta-block, RFC 7932 9.2.
    fn brotli(bytes: &[u8]) -> Vec<u8> {
        let header = u32::try_from(bytes.len()).unwrap().wrapping_sub(1) << 4 | 1 << 20;
        [&header.to_le_bytes()[..3], bytes, &[3]].concat()
    }

    fn undo(bytes: &[u8], codings: &[&str]) -> DecodedBody {
        let codings: Vec<_> = codings.iter().map(|&name| name.to_owned()).collect();
        decode([BodyPiece::Bytes(bytes)], &codings, true, &DecodingLimits::default())
    }

    #[test]
    fn codings_are_undone_in_reverse() {
        for (bytes, codings) in [
            (TEXT.to_vec(), vec![]),
            (TEXT.to_vec(), vec!["identity"]),
            (gzip(TEXT), vec!["gzip"]),
            (gzip(TEXT), vec!["x-gzip", "identity"]),
            (zlib(TEXT), vec!["deflate"]),
            (raw(TEXT), vec!["deflate"]),
            (zstd(TEXT), vec!["zstd"]),
            (brotli(TEXT), vec!["br"]),
            (gzip(&zlib(TEXT)), vec!["deflate", "gzip"]),
            (raw(&gzip(&zstd(TEXT))), vec!["zstd", "gzip", "deflate"]),
            ([gzip(&TEXT[..9]), gzip(&TEXT[9..])].concat(), vec!["gzip"]),
        ] {
            let decoded = undo(&bytes, &codings);
            assert_eq!(decoded.bytes, TEXT, "{codings:?}");
            assert_eq!(decoded.notes, [], "{codings:?}");
        }
    }

    #[test]
    fn wrong_codings_are_skipped() {
        for (bytes, codings) in [
            (TEXT.to_vec(), vec!["gzip"]),
            (TEXT.to_vec(), vec!["deflate"]),
            (TEXT.to_vec(), vec!["br"]),
            (TEXT.to_vec(), vec!["zstd"]),
            (gzip(TEXT), vec!["gzip", "gzip"]),
            (gzip(TEXT), vec!["gzip", "deflate"]),
            (raw(TEXT), vec!["gzip", "deflate", "zstd"]),
        ] {
            let decoded = undo(&bytes, &codings);
            assert_eq!(decoded.bytes, TEXT, "{codings:?}");
            assert_eq!(decoded.notes, [DecodingNote::Lie], "{codings:?}");
        }
    }

    #[test]
    fn more_codings_than_the_limit_are_reported() {
        let layers = DecodingLimits::default().codings;
        for more in 0..3 {
            let bytes = (0..layers + more).fold(TEXT.to_vec(), |bytes, _| gzip(&bytes));
            let decoded = undo(&bytes, &vec!["gzip"; layers + more]);
            let (left, undone) = if more > 0 { (bytes, 0) } else { (TEXT.to_vec(), layers) };
            assert_eq!((decoded.bytes, decoded.undone.len()), (left, undone));
            assert_eq!(decoded.notes.first(), (more > 0).then_some(&DecodingNote::Layers));
        }
        for (codings, bytes) in [(["br9", "gzip"], gzip(TEXT)), (["gzip", "br9"], gzip(TEXT))] {
            let decoded = undo(&bytes, &codings);
            assert_eq!(
                (&decoded.bytes[..], &decoded.notes[..]),
                (TEXT, &[DecodingNote::Unknown][..])
            );
        }
    }

    #[test]
    fn a_cut_body_is_decoded_up_to_the_cut() {
        let text: Vec<u8> = (0..200_000_u32).flat_map(|n| n.to_string().into_bytes()).collect();
        for (bytes, coding) in [
            (gzip(&text), "gzip"),
            (zlib(&text), "deflate"),
            (raw(&text), "deflate"),
            (zstd(&text), "zstd"),
        ] {
            let half = bytes.len() / 2;
            let decoded = undo(&bytes[..half], &[coding]);
            assert_eq!(decoded.notes, [DecodingNote::Truncated], "{coding}");
            assert!(decoded.bytes.len() > text.len() / 10, "{coding} {}", decoded.bytes.len());
            assert!(text.starts_with(&decoded.bytes), "{coding}");

            // Compressed data ends at a hole.
            let pieces = [
                BodyPiece::Bytes(&bytes[..half]),
                BodyPiece::Hole(9),
                BodyPiece::Bytes(&bytes[half..]),
            ];
            let holed = decode(pieces, &[coding.to_owned()], false, &DecodingLimits::default());
            assert_eq!(holed.bytes, decoded.bytes);
            assert_eq!(holed.notes, [DecodingNote::Hole, DecodingNote::Truncated]);
        }
        let pieces = [BodyPiece::Bytes(b"ab"), BodyPiece::Hole(2), BodyPiece::Bytes(b"c")];
        let plain = decode(pieces, &[], true, &DecodingLimits::default());
        assert_eq!((plain.bytes, plain.notes), (b"ab\0\0c".to_vec(), vec![DecodingNote::Hole]));
    }

    #[test]
    fn trailers_and_odd_headers_do_not_matter() {
        let mut bytes = gzip(TEXT);
        let end = bytes.len();
        bytes[end - 1] ^= 1;
        assert_eq!(undo(&bytes, &["gzip"]).notes, [DecodingNote::Checksum]);
        assert_eq!(undo(&bytes[..end - 8], &["gzip"]).bytes, TEXT);
        bytes[3] = 0xe0;
        assert_eq!(undo(&bytes, &["gzip"]).bytes, TEXT);
        let junk = [gzip(TEXT), b"junk".to_vec()].concat();
        assert_eq!(undo(&junk, &["gzip"]).notes, [DecodingNote::Trailing]);
    }

    #[test]
    fn bombs_stop_at_the_bound() {
        let limits = DecodingLimits { ratio_from: 1000, ..DecodingLimits::default() };
        let zeros = vec![0; 10 << 20];
        for (bytes, coding) in
            [(gzip(&zeros), "gzip"), (raw(&zeros), "deflate"), (zstd(&zeros), "zstd")]
        {
            let most = (bytes.len() as u64 * limits.ratio).max(1000);
            let decoded = decode([BodyPiece::Bytes(&bytes)], &[coding.to_owned()], true, &limits);
            assert_eq!(decoded.bytes.len() as u64, most, "{coding}");
            assert_eq!(decoded.notes, [DecodingNote::Limit], "{coding}");
        }
        let small = DecodingLimits { input: 3, ..DecodingLimits::default() };
        let decoded = decode([BodyPiece::Bytes(b"abcdef")], &[], true, &small);
        assert_eq!(
            (&decoded.bytes[..], &decoded.notes[..]),
            (&b"abc"[..], &[DecodingNote::Limit][..])
        );
    }

    #[test]
    fn codings_that_take_too_much_effort_are_not_undone() {
        let limits = DecodingLimits { effort: 1, effort_from: 12_000, ..DecodingLimits::default() };
        // Small on the wire and at the end, but large in between.
        let bytes = gzip(&[gzip(TEXT), vec![0; 8_000]].concat());
        let twice = ["gzip", "gzip"].map(str::to_owned);
        let decoded = decode([BodyPiece::Bytes(&bytes)], &twice, true, &limits);
        assert_eq!(
            (&decoded.bytes[..], &decoded.notes[..]),
            (&bytes[..], &[DecodingNote::Effort][..])
        );
        assert_eq!(decoded.undone, []);
        // This one is not larger in between, so it is undone.
        let zeros = gzip(&gzip(&vec![0; 8_000]));
        let decoded = decode([BodyPiece::Bytes(&zeros)], &twice, true, &limits);
        assert_eq!((decoded.bytes.len(), decoded.undone.len()), (8_000, 2));
        let zeros = gzip(&gzip(&vec![0; 14_000]));
        let decoded = decode([BodyPiece::Bytes(&zeros)], &twice, true, &limits);
        assert_eq!((decoded.bytes, decoded.notes), (zeros, vec![DecodingNote::Effort]));
    }

    #[test]
    fn a_body_marked_as_sent_is_not_decoded() {
        struct Gzip(Vec<u8>);
        impl Streams for Gzip {
            fn read(&self, _: MessageRole, _: Range<u64>, sink: &mut dyn FnMut(BodyPiece<'_>)) {
                sink(BodyPiece::Bytes(&self.0));
            }
        }
        let sent = gzip(TEXT);
        let range = 0..sent.len() as u64;
        let mut body = Body {
            ranges: vec![range],
            ended: true,
            codings: vec!["gzip".to_owned()],
            ..Body::default()
        };
        let read = |body: &Body| {
            read(&Gzip(sent.clone()), MessageRole::Response, body, &DecodingLimits::default())
        };
        assert_eq!((read(&body).bytes, body.is_decoded()), (TEXT.to_vec(), true));
        body.as_sent = true;
        let decoded = read(&body);
        assert_eq!((decoded.bytes, decoded.notes), (sent.clone(), vec![DecodingNote::Busy]));
        assert!(!body.is_decoded());
    }

    #[test]
    fn unknown_codings_are_reported() {
        let decoded = undo(TEXT, &["lzma"]);
        assert_eq!((&decoded.bytes[..], &decoded.notes[..]), (TEXT, &[DecodingNote::Unknown][..]));
    }
}
