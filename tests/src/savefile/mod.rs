//! The tests' own view of pcap and pcapng: strict readers and plain writers.
//!
//! Written from the format descriptions (draft-ietf-opsawg-pcap, draft-ietf-opsawg-pcapng), and
//! stricter than any tool: every byte that a daemon hands out must pass.

use crate::frame;

mod pcap;
mod pcapng;

pub use frames::{ETHERNET, Format};
pub use pcap::{PcapParser, append_numbered, numbered, timestamp};
pub use pcapng::{Interface, NgPacket, NgParser, Statistics, pcapng};

/// One packet of a savefile.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Record<'a> {
    /// Nanoseconds since the Unix epoch.
    pub timestamp: u64,
    /// LINKTYPE_ number of the packet.
    pub link_type: u32,
    /// Index of the interface in a pcapng; 0 in a pcap.
    pub interface: u32,
    /// Length on the wire.
    pub original_length: u32,
    /// Bytes kept.
    pub data: &'a [u8],
    /// Its comment, in a pcapng.
    pub comment: Option<&'a str>,
}

impl Record<'_> {
    /// Sequence number of a numbered packet, after a check of each byte.
    ///
    /// # Errors
    /// The mistake in the packet.
    pub fn sequence(&self) -> Result<u64, String> {
        let original = usize::try_from(self.original_length).expect("64 bits");
        frame::sequence(self.link_type, self.data, original)
    }

    /// The number of lost packets in a comment: its first number.
    ///
    /// # Errors
    /// If there is a comment without a number.
    pub fn lost(&self) -> Result<u64, String> {
        let Some(comment) = self.comment else {
            return Ok(0);
        };
        comment
            .split(|letter: char| !letter.is_ascii_digit())
            .find(|word| !word.is_empty())
            .and_then(|word| word.parse().ok())
            .ok_or_else(|| format!("no number in the comment {comment:?}"))
    }
}

/// A reader of savefiles that gets bytes as they come and finds the whole records in them.
pub trait Parser: Send {
    /// Takes the next bytes and calls `each` for every record that they complete.
    ///
    /// # Errors
    /// The reason why the bytes so far are no prefix of a savefile, or the error of `each`.
    fn push(
        &mut self,
        bytes: &[u8],
        each: &mut dyn FnMut(Record<'_>) -> Result<(), String>,
    ) -> Result<(), String>;

    /// Bytes taken so far that do not complete a header, record or block yet.
    fn rest(&self) -> &[u8];

    /// Blocks with interface statistics seen so far; none in a pcap.
    fn statistics(&self) -> &[Statistics] {
        &[]
    }
}

/// The parser for a file, chosen by its name.
#[must_use]
pub fn parser_for(name: &str) -> Box<dyn Parser> {
    if name.ends_with(".pcapng") {
        Box::<NgParser>::default()
    } else {
        Box::<PcapParser>::default()
    }
}

/// The packets of a numbered sequence that a reader has seen.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Seen {
    /// Number of the first packet; 0 before it.
    pub first: u64,
    /// Number of the last packet; 0 before the first.
    pub last: u64,
    /// Packets seen.
    pub count: u64,
    /// Packets missing between the first and the last.
    pub missing: u64,
    /// The number of gaps.
    pub gaps: u64,
    /// Lost packets according to comments.
    pub said: u64,
}

impl Seen {
    /// Adds a test packet.
    ///
    /// # Errors
    /// If it is no test packet, does not come after the last one, or its comment about a loss does
    /// not match the gap before it.
    pub fn record(&mut self, record: &Record<'_>) -> Result<(), String> {
        let sequence = record.sequence()?;
        let said = record.lost()?;
        let gap = self.push(sequence)?;
        if record.comment.is_some() && self.count > 1 && said != gap {
            return Err(format!(
                "the comment {:?} on packet {sequence}, which {gap} missing ones precede",
                record.comment
            ));
        }
        self.said += said;
        Ok(())
    }

    /// Adds a number and returns how many are missing before it.
    ///
    /// # Errors
    /// If it does not come after the last one.
    pub fn push(&mut self, sequence: u64) -> Result<u64, String> {
        if sequence <= self.last {
            return Err(format!("packet {sequence} comes after packet {}", self.last));
        }
        let gap = if self.count == 0 { 0 } else { sequence - self.last - 1 };
        if self.count == 0 {
            self.first = sequence;
        }
        self.count += 1;
        self.missing += gap;
        self.gaps += u64::from(gap > 0);
        self.last = sequence;
        Ok(gap)
    }
}

/// The result of [`check_prefix`].
#[derive(Clone, Debug, Default)]
pub struct Prefix {
    /// The sequence numbers, strictly increasing.
    pub sequences: Vec<u64>,
    /// A summary of them.
    pub seen: Seen,
    /// Bytes after the last whole header, record or block.
    pub rest: usize,
    /// Interface statistics blocks.
    pub statistics: Vec<Statistics>,
}

impl Prefix {
    /// The sequence numbers, if the bytes end at the end of a record and no packet is missing.
    ///
    /// # Panics
    /// If they do not.
    #[must_use]
    pub fn whole(self) -> Vec<u64> {
        assert_eq!(self.rest, 0, "bytes of a cut record after {:?}", self.seen);
        assert_eq!(self.seen.missing, 0, "missing packets: {:?}", self.seen);
        self.sequences
    }
}

/// Checks that `bytes` are a prefix of a native nanosecond pcap, or of a native pcapng, whose
/// packets are numbered test packets in strictly increasing order.
///
/// # Errors
/// The place where they are not.
pub fn check_prefix(bytes: &[u8]) -> Result<Prefix, String> {
    let mut pcap = PcapParser::default();
    let mut pcapng = NgParser::default();
    let section = [0x0a, 0x0d, 0x0d, 0x0a];
    let is_pcapng = bytes.starts_with(&section[..bytes.len().min(4)]) && !bytes.is_empty();
    let parser: &mut dyn Parser = if is_pcapng { &mut pcapng } else { &mut pcap };
    let mut prefix = Prefix::default();
    parser.push(bytes, &mut |record| {
        prefix.seen.record(&record)?;
        prefix.sequences.push(prefix.seen.last);
        Ok(())
    })?;
    prefix.rest = parser.rest().len();
    prefix.statistics = parser.statistics().to_vec();
    if let Some(format) = pcap.format() {
        let wanted =
            Format { link_type: format.link_type, snaplen: format.snaplen, ..Format::default() };
        if format != wanted || format.snaplen == 0 {
            return Err(format!("not a native nanosecond savefile: {format:?}"));
        }
    }
    Ok(prefix)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_numbered_savefile_passes_its_own_check_at_every_cut() {
        let file = numbered(Format::default(), 3, 50);
        for end in 0..=file.len() {
            let prefix = check_prefix(&file[..end]).unwrap();
            assert_eq!(prefix.sequences.len(), end.saturating_sub(24) / (16 + 42 + 50));
        }
    }

    #[test]
    fn a_changed_byte_anywhere_is_noticed() {
        let file = numbered(Format::default(), 2, 50);
        // Left out are time stamps, addresses, ports, identification and checksums, which nothing
        // else determines, and the snaplen and the record's wire length as far as they stay
        // plausible.
        let payload = 24 + 16 + 42;
        for at in (0..16).chain(payload..payload + 50) {
            let mut torn = file.clone();
            torn[at] ^= 0x80;
            let whole = check_prefix(&torn).is_ok_and(|prefix| prefix.sequences == [1, 2]);
            assert!(!whole, "byte {at} can be anything");
        }
    }

    #[test]
    fn a_lost_or_repeated_packet_is_counted_or_refused() {
        let mut file = Format::default().header();
        for sequence in [1, 2, 5] {
            append_numbered(&mut file, Format::default(), sequence, 20);
        }
        let seen = check_prefix(&file).unwrap().seen;
        assert_eq!((seen.count, seen.missing, seen.gaps, seen.last), (3, 2, 1, 5));
        append_numbered(&mut file, Format::default(), 5, 20);
        check_prefix(&file).unwrap_err();
    }

    #[test]
    fn a_pcapng_passes_at_every_cut() {
        let interface = Interface {
            link_type: 1,
            snaplen: 100,
            name: Some("eth0".into()),
            filter: None,
            per_second: 1_000_000_000,
        };
        let packets: Vec<_> = (1..=3)
            .map(|sequence| NgPacket {
                interface: 0,
                timestamp: timestamp(sequence),
                data: frame::ethernet(sequence, 21),
            })
            .collect();
        let file = pcapng(&[interface], &packets);
        for end in 0..=file.len() {
            check_prefix(&file[..end]).unwrap();
        }
        assert_eq!(check_prefix(&file).unwrap().whole(), [1, 2, 3]);
    }

    #[test]
    fn both_byte_orders_and_resolutions_are_read() {
        for (nanoseconds, big_endian) in
            [(true, true), (false, true), (true, false), (false, false)]
        {
            let format = Format { nanoseconds, big_endian, ..Format::default() };
            let mut parser = PcapParser::default();
            let mut times = Vec::new();
            parser
                .push(&numbered(format, 2, 30), &mut |record| {
                    times.push(record.timestamp);
                    record.sequence().map(drop)
                })
                .unwrap();
            let unit = if nanoseconds { 1 } else { 1_000 };
            assert_eq!(times, [1, 2].map(|sequence| timestamp(sequence) / unit * unit));
        }
    }
}
