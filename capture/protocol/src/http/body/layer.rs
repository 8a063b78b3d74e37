//! Undoes one coding. If the first bytes refute it, the data was never in that coding. If the data
//! is corrupt later, the output is cut there.
//!
//! The output is at most `max` bytes, and only valid if `undo` returns `true`.

use std::io::{ErrorKind, Read};

use super::{Coding, DecodingNote, Workspace};

/// Bytes of output after which a coding without a mark is believed, even if its data is corrupt
/// later.
const BELIEVED: usize = 4096;

/// One coding being undone.
pub(super) struct Layer<'a> {
    pub(super) output: Vec<u8>,
    max: usize,
    pub(super) note: Option<DecodingNote>,
    pub(super) broke_off: bool,
    inflater: &'a mut Option<flate2::Decompress>,
}

/// How a run of the inflater ended.
#[derive(PartialEq)]
enum Inflated {
    /// At the end of the data, after this many bytes of input.
    End(usize),
    BreaksOff,
    Bad,
    Full,
}

impl<'a> Layer<'a> {
    /// A layer with at most `max` bytes of output.
    pub(super) fn new(max: usize, workspace: &'a mut Workspace) -> Self {
        let output = workspace.buffer();
        let inflater = &mut workspace.inflater;
        Self { output, max, note: None, broke_off: false, inflater }
    }

    /// Decodes the input. Returns whether it is in that coding; only then is the output valid.
    pub(super) fn undo(&mut self, coding: Coding, input: &[u8], whole: bool) -> bool {
        match coding {
            Coding::Gzip => self.gzip(input),
            Coding::Deflate => {
                self.zlib(input) || {
                    self.output.clear();
                    self.note = None;
                    self.raw_deflate(input, whole)
                }
            }
            Coding::Brotli => {
                let decoder = brotli_decompressor::Decompressor::new(input, 4096);
                self.unmarked(decoder, whole)
            }
            Coding::Zstd => self.zstd(input),
        }
    }

    fn mark(&mut self, note: DecodingNote) {
        self.note = self.note.max(Some(note));
        self.broke_off |= note >= DecodingNote::Truncated;
    }

    /// Decodes members one after the other. Only the necessary fields of a header are read:
    /// browsers do not check reserved flags and checksums of headers either.
    fn gzip(&mut self, input: &[u8]) -> bool {
        let mut rest = input;
        loop {
            let first = rest.len() == input.len();
            let Some(length) = gzip_header(rest) else {
                match (first, rest.is_empty()) {
                    (true, _) if input.starts_with(&[0x1f, 0x8b]) || input == [0x1f] => {
                        self.mark(DecodingNote::Truncated);
                    }
                    (true, _) => return false,
                    (false, false) => self.mark(DecodingNote::Trailing),
                    (false, true) => {}
                }
                return true;
            };
            let data = rest.get(length..).unwrap_or_default();
            let before = self.output.len();
            match self.inflate(data) {
                Inflated::End(consumed) => {
                    let member = self.output.get(before..).unwrap_or_default();
                    let crc = crc32fast::hash(member);
                    // Modulo 2^32, as in RFC 1952.
                    let [a, b, c, d, ..] = (member.len() as u64).to_le_bytes();
                    let tail = data.get(consumed..).unwrap_or_default();
                    let Some((trailer, more)) = tail.split_at_checked(8) else {
                        // The data itself was complete.
                        self.mark(DecodingNote::Checksum);
                        return true;
                    };
                    let expected = [crc.to_le_bytes(), [a, b, c, d]].concat();
                    if trailer != expected {
                        self.mark(DecodingNote::Checksum);
                    }
                    rest = more;
                    if rest.is_empty() {
                        return true;
                    }
                }
                Inflated::BreaksOff => {
                    self.mark(DecodingNote::Truncated);
                    return true;
                }
                Inflated::Full => {
                    self.mark(DecodingNote::Limit);
                    return true;
                }
                Inflated::Bad if first && self.output.is_empty() => return false,
                Inflated::Bad => {
                    self.mark(DecodingNote::Corrupt);
                    return true;
                }
            }
        }
    }

    fn zlib(&mut self, input: &[u8]) -> bool {
        let [cmf, flags, data @ ..] = input else { return false };
        let check = u16::from_be_bytes([*cmf, *flags]);
        if cmf & 0x0f != 8 || check.checked_rem(31) != Some(0) || flags & 0x20 != 0 {
            return false;
        }
        match self.inflate(data) {
            Inflated::End(consumed) => {
                let tail = data.get(consumed..).unwrap_or_default();
                if tail.get(..4) != Some(&adler32(&self.output).to_be_bytes()[..]) {
                    self.mark(DecodingNote::Checksum);
                } else if tail.len() > 4 {
                    self.mark(DecodingNote::Trailing);
                }
                true
            }
            Inflated::BreaksOff => {
                self.mark(DecodingNote::Truncated);
                true
            }
            Inflated::Full => {
                self.mark(DecodingNote::Limit);
                true
            }
            Inflated::Bad if self.output.is_empty() => false,
            Inflated::Bad => {
                self.mark(DecodingNote::Corrupt);
                true
            }
        }
    }

    fn raw_deflate(&mut self, input: &[u8], whole: bool) -> bool {
        match self.inflate(input) {
            Inflated::End(consumed) => {
                if consumed < input.len() {
                    self.mark(DecodingNote::Trailing);
                }
                true
            }
            Inflated::Full => {
                self.mark(DecodingNote::Limit);
                true
            }
            Inflated::BreaksOff => {
                self.mark(DecodingNote::Truncated);
                !(whole && self.output.is_empty())
            }
            Inflated::Bad => {
                self.mark(DecodingNote::Corrupt);
                self.output.len() >= BELIEVED
            }
        }
    }

    fn zstd(&mut self, input: &[u8]) -> bool {
        use zstd::stream::raw::{DParameter, Decoder, InBuffer, Operation, OutBuffer};
        const MAGIC: [u8; 4] = [0x28, 0xb5, 0x2f, 0xfd];
        if !input.starts_with(&MAGIC) {
            // A skippable frame may come first (RFC 8878 3.1.2).
            let skippable = input.get(1..4) == Some(&[0x2a, 0x4d, 0x18][..]);
            if !skippable && !MAGIC.starts_with(input) {
                return false;
            }
        }
        let Ok(mut decoder) = Decoder::new() else { return false };
        // RFC 9659: no window above 8 MiB in HTTP.
        if decoder.set_parameter(DParameter::WindowLogMax(23)).is_err() {
            return false;
        }
        let mut room = [0; 8192];
        let mut source = InBuffer::around(input);
        let mut between_frames = false;
        loop {
            let before = source.pos();
            let mut sink = OutBuffer::around(&mut room[..]);
            let result = decoder.run(&mut source, &mut sink);
            let produced = sink.pos();
            let left = self.max.saturating_sub(self.output.len());
            self.output.extend_from_slice(room.get(..produced.min(left)).unwrap_or_default());
            match result {
                _ if produced > left => self.mark(DecodingNote::Limit),
                Ok(0) if source.pos() < input.len() => {
                    between_frames = true;
                    continue;
                }
                Ok(0) => {}
                Ok(_) if produced > 0 || source.pos() > before => {
                    between_frames = false;
                    continue;
                }
                Ok(_) => self.mark(DecodingNote::Truncated),
                Err(_) if between_frames => self.mark(DecodingNote::Trailing),
                Err(_) if self.output.is_empty() => return false,
                Err(_) => self.mark(DecodingNote::Corrupt),
            }
            return true;
        }
    }

    /// Decodes a coding without a mark: only the data shows whether it is in that coding.
    fn unmarked(&mut self, decoder: impl Read, whole: bool) -> bool {
        match self.drain(decoder) {
            Ok(()) => true,
            Err(ErrorKind::UnexpectedEof) => {
                self.mark(DecodingNote::Truncated);
                !(whole && self.output.is_empty())
            }
            Err(_) => {
                self.mark(DecodingNote::Corrupt);
                self.output.len() >= BELIEVED
            }
        }
    }

    fn drain(&mut self, mut decoder: impl Read) -> Result<(), ErrorKind> {
        let mut room = [0; 4096];
        loop {
            match decoder.read(&mut room) {
                Ok(0) => return Ok(()),
                Ok(length) => {
                    let left = self.max.saturating_sub(self.output.len());
                    self.output.extend_from_slice(room.get(..length.min(left)).unwrap_or_default());
                    if length > left {
                        self.mark(DecodingNote::Limit);
                        return Ok(());
                    }
                }
                Err(error) if error.kind() == ErrorKind::Interrupted => {}
                Err(error) => return Err(error.kind()),
            }
        }
    }

    fn inflate(&mut self, input: &[u8]) -> Inflated {
        let inflater = self.inflater.get_or_insert_with(|| flate2::Decompress::new(false));
        inflater.reset(false);
        let mut room = [0; 8192];
        loop {
            let (read, written) = (inflater.total_in(), inflater.total_out());
            let rest = input.get(usize::try_from(read).unwrap_or(usize::MAX)..).unwrap_or_default();
            let result = inflater.decompress(rest, &mut room, flate2::FlushDecompress::None);
            let produced = inflater.total_out().saturating_sub(written);
            let produced = usize::try_from(produced).unwrap_or(usize::MAX);
            let left = self.max.saturating_sub(self.output.len());
            self.output.extend_from_slice(room.get(..produced.min(left)).unwrap_or_default());
            if produced > left {
                return Inflated::Full;
            }
            match result {
                Ok(flate2::Status::StreamEnd) => {
                    let consumed = usize::try_from(inflater.total_in()).unwrap_or(usize::MAX);
                    return Inflated::End(consumed);
                }
                Err(_) => return Inflated::Bad,
                Ok(_) if produced == 0 && inflater.total_in() == read => {
                    return Inflated::BreaksOff;
                }
                Ok(_) => {}
            }
        }
    }
}

/// Length of a member's header; `None` if it is no header, or an incomplete one.
fn gzip_header(bytes: &[u8]) -> Option<usize> {
    let flags = match bytes {
        [0x1f, 0x8b, 8, flags, ..] if bytes.len() >= 10 => *flags,
        _ => return None,
    };
    let mut at = 10_usize;
    if flags & 0x04 != 0 {
        let length = bytes.get(at..at.checked_add(2)?)?;
        let length = u16::from_le_bytes(length.try_into().ok()?);
        at = at.checked_add(2)?.checked_add(usize::from(length))?;
    }
    for flag in [0x08, 0x10] {
        if flags & flag != 0 {
            let name = bytes.get(at..)?.iter().position(|byte| *byte == 0)?;
            at = at.checked_add(name)?.checked_add(1)?;
        }
    }
    if flags & 0x02 != 0 {
        at = at.checked_add(2)?;
    }
    (at <= bytes.len()).then_some(at)
}

/// RFC 1950 8.2.
fn adler32(bytes: &[u8]) -> u32 {
    // The modulo is only taken once per chunk. This is the maximum length of a chunk whose sums fit
    // 32 bits (zlib's NMAX).
    let (mut a, mut b) = (1_u32, 0_u32);
    for chunk in bytes.chunks(5552) {
        for byte in chunk {
            a = a.wrapping_add(u32::from(*byte));
            b = b.wrapping_add(a);
        }
        a = a.checked_rem(65_521).unwrap_or_default();
        b = b.checked_rem(65_521).unwrap_or_default();
    }
    b << 16 | a
}
