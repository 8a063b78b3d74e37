//! Shared by the tests of the ring: packets that can be distinguished, and readers of savefiles
//! written only for the tests, so that the crate and its tests do not share an error.
#![allow(dead_code, reason = "each test binary uses its part")]

use std::io::{self, IoSlice};
use std::path::{Path, PathBuf};

use capture::cursor::{Cursor, ReadOutcome};
use capture::ring::{MIN_RING, RingOptions};
use capture::store::{Interface, Store};
use protocol::linktype::LinkType;
use protocol::time::{Precision, Timestamp};

/// Time stamp of packet number 0. Packet `n` is `n` nanoseconds later, so that a packet without
/// data shows its number too.
pub(crate) const EPOCH: u64 = 1_700_000_000_000_000_000;

/// Bytes of a segment of the smallest ring.
pub(crate) const SEGMENT: usize = 128 << 10;

/// A directory in memory, if the machine has one: rings are meant to be there.
pub(crate) fn directory() -> tempfile::TempDir {
    let shared = Path::new("/dev/shm");
    if shared.is_dir() {
        tempfile::tempdir_in(shared).unwrap()
    } else {
        tempfile::tempdir().unwrap()
    }
}

pub(crate) fn options(path: PathBuf) -> RingOptions {
    RingOptions {
        path,
        size: MIN_RING,
        snaplen: 262_144,
        precision: Precision::Nano,
        link_type: Some(LinkType::ETHERNET),
        interface: Interface {
            name: Some("test0".to_owned()),
            description: None,
            filter: Some("tcp".to_owned()),
            snaplen: 262_144,
            link_type: None,
        },
    }
}

pub(crate) fn time(number: u64) -> Timestamp {
    Timestamp::from_nanoseconds(EPOCH + number)
}

/// Lengths from 0 to those of a large receive offload, small ones most often.
pub(crate) fn length(number: u64) -> usize {
    let mixed = number.wrapping_mul(0x2545_f491_4f6c_dd1d) >> 33;
    match mixed % 64 {
        0 => 0,
        1 => 40_000 + (mixed % 30_000) as usize,
        2..8 => 1_000 + (mixed % 2_000) as usize,
        _ => 1 + (mixed % 300) as usize,
    }
}

/// The data of a packet. Every byte depends on the number and the length, and once in a kilobyte
/// both are written out, so that no two pieces of packets are alike.
pub(crate) fn data(number: u64, len: usize) -> Vec<u8> {
    let seed = number.wrapping_mul(0x9e37_79b9_7f4a_7c15) ^ len as u64;
    let [.., fill] = seed.to_le_bytes();
    let mut bytes = vec![fill; len];
    for (index, kilobyte) in bytes.chunks_mut(1024).enumerate() {
        if let Some(stamp) = kilobyte.first_chunk_mut() {
            *stamp = (seed.wrapping_add(index as u64)).to_le_bytes();
        }
    }
    bytes
}

/// A packet as a reader received it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Packet {
    pub(crate) number: u64,
    pub(crate) original_len: u32,
    pub(crate) data: Vec<u8>,
    /// Packets lost before this one, according to its comment.
    pub(crate) comment: Option<u64>,
    /// Holes in time before this packet, according to its comment, in the words of the statistics.
    pub(crate) holes: Vec<String>,
    /// Name of its interface; empty in a pcap file.
    pub(crate) interface: String,
    /// Custom blocks before it, back to back, and its options other than comments, in a pcapng
    /// file.
    pub(crate) beside: (Vec<u8>, Vec<(usize, Vec<u8>)>),
    /// Its end in the bytes fed so far.
    pub(crate) end: u64,
}

impl Packet {
    /// Panics unless the packet is exactly as [`data`] makes it, and `original_len` is one more.
    pub(crate) fn check(&self) {
        assert_eq!(self.original_len as usize, self.data.len() + 1, "packet {}", self.number);
        assert!(self.data == data(self.number, self.data.len()), "packet {} is torn", self.number);
    }
}

/// An interface statistics block.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(crate) struct Statistics {
    pub(crate) received: u64,
    pub(crate) os_dropped: u64,
    pub(crate) interface_dropped: u64,
    pub(crate) delivered: u64,
    /// Packets parsed before it.
    pub(crate) after: u64,
    /// The hole in time that it reports.
    pub(crate) hole: Option<String>,
}

/// Takes the bytes that one reader gets, in pieces. Panics at the first byte that does not continue
/// a valid savefile.
#[derive(Debug)]
pub(crate) struct Parser {
    pcapng: bool,
    pending: Vec<u8>,
    taken: u64,
    headed: bool,
    /// Names of the interfaces described so far.
    pub(crate) interfaces: Vec<String>,
    /// Custom blocks since the last packet.
    blocks: Vec<u8>,
    pub(crate) packets: Vec<Packet>,
    pub(crate) count: u64,
    pub(crate) statistics: Vec<Statistics>,
    /// Whether the snaplen in the file header may differ from that of [`options`].
    pub(crate) any_snaplen: bool,
    /// Keeps all packets, not only those of the last [`Parser::feed`].
    keep: bool,
}

fn u32_at(bytes: &[u8], at: usize) -> u32 {
    u32::from_ne_bytes(bytes[at..at + 4].try_into().unwrap())
}

fn u16_at(bytes: &[u8], at: usize) -> usize {
    usize::from(u16::from_ne_bytes(bytes[at..at + 2].try_into().unwrap()))
}

impl Parser {
    pub(crate) fn new(pcapng: bool) -> Self {
        Self {
            pcapng,
            pending: Vec::new(),
            taken: 0,
            headed: false,
            interfaces: Vec::new(),
            blocks: Vec::new(),
            packets: Vec::new(),
            count: 0,
            statistics: Vec::new(),
            any_snaplen: false,
            keep: true,
        }
    }

    /// A parser that keeps only the packets of the last [`Parser::feed`].
    pub(crate) fn forgetful(pcapng: bool) -> Self {
        Self { keep: false, ..Self::new(pcapng) }
    }

    /// Bytes of an incomplete record or block.
    pub(crate) fn pending(&self) -> usize {
        self.pending.len()
    }

    pub(crate) fn feed(&mut self, bytes: &[u8]) {
        if !self.keep {
            self.packets.clear();
        }
        self.pending.extend_from_slice(bytes);
        let pending = std::mem::take(&mut self.pending);
        let mut at = 0;
        loop {
            let rest = &pending[at..];
            let len = match (self.pcapng, self.headed) {
                (false, false) => self.pcap_header(rest),
                (false, true) => self.pcap_record(rest),
                (true, _) => self.block(rest),
            };
            if len == 0 {
                break;
            }
            at += len;
            self.taken += len as u64;
            if let Some(last) = self.packets.last_mut()
                && last.end == 0
            {
                last.end = self.taken;
            }
        }
        self.pending = pending[at..].to_vec();
    }

    fn pcap_header(&mut self, bytes: &[u8]) -> usize {
        if bytes.len() < 24 {
            return 0;
        }
        assert_eq!(u32_at(bytes, 0), 0xa1b2_3c4d, "magic number");
        assert_eq!((u16_at(bytes, 4), u16_at(bytes, 6)), (2, 4), "version");
        assert!(self.any_snaplen || u32_at(bytes, 16) == 262_144, "snaplen");
        assert_eq!(u32_at(bytes, 20), 1, "link type");
        self.headed = true;
        24
    }

    fn push(&mut self, nanoseconds: u64, original_len: u32, data: &[u8], comments: &[String]) {
        self.count += 1;
        let number = nanoseconds.checked_sub(EPOCH).expect("a time stamp of ours");
        assert!(comments.len() <= 1, "{comments:?}");
        let comment = comments.first().map(|text| {
            text.split(|c: char| !c.is_ascii_digit())
                .find_map(|word| word.parse().ok())
                .expect("a comment says how many")
        });
        let holes = comments.iter().flat_map(|text| text.split("; nothing was ").skip(1));
        let holes: Vec<_> = holes.map(|text| format!("pcapfs: nothing was {text}")).collect();
        // The comment has a number of lost packets even if it is 0 and the comment only reports
        // holes.
        let comment = comment.filter(|lost| *lost > 0 || holes.is_empty());
        let data = data.to_vec();
        let (interface, beside) = (String::new(), Default::default());
        self.packets.push(Packet {
            number,
            original_len,
            data,
            comment,
            holes,
            interface,
            beside,
            end: 0,
        });
    }

    fn pcap_record(&mut self, bytes: &[u8]) -> usize {
        if bytes.len() < 16 {
            return 0;
        }
        let [seconds, fraction, captured, original] = [0, 4, 8, 12].map(|at| u32_at(bytes, at));
        assert!(fraction < 1_000_000_000 && captured as usize <= SEGMENT * 64, "a torn header");
        let end = 16 + captured as usize;
        if bytes.len() < end {
            return 0;
        }
        let nanoseconds = u64::from(seconds) * 1_000_000_000 + u64::from(fraction);
        self.push(nanoseconds, original, &bytes[16..end], &[]);
        end
    }

    fn block(&mut self, bytes: &[u8]) -> usize {
        if bytes.len() < 12 {
            return 0;
        }
        let (kind, len) = (u32_at(bytes, 0), u32_at(bytes, 4) as usize);
        assert!(len >= 12 && len.is_multiple_of(4) && len <= SEGMENT * 64, "block length {len}");
        if bytes.len() < len {
            return 0;
        }
        assert_eq!(u32_at(bytes, len - 4) as usize, len, "both lengths of a block");
        let body = &bytes[8..len - 4];
        assert_eq!(kind == 0x0a0d_0d0a, !self.headed, "one section header, and first");
        match kind {
            0x0a0d_0d0a => {
                assert_eq!(u32_at(body, 0), 0x1a2b_3c4d);
                self.headed = true;
            }
            1 => {
                assert_eq!(u16_at(body, 0), 1, "link type");
                assert!(options_of(&body[8..]).contains(&(9, vec![9])), "if_tsresol");
                let named = options_of(&body[8..]).into_iter().find(|(code, _)| *code == 2);
                let name = named.map_or(Vec::new(), |(_, name)| name);
                self.interfaces.push(String::from_utf8(name).unwrap());
            }
            0xbad => self.blocks.extend_from_slice(&bytes[..len]),
            6 => {
                let interface = self.interfaces.get(u32_at(body, 0) as usize).cloned();
                let time = u64::from(u32_at(body, 4)) << 32 | u64::from(u32_at(body, 8));
                let captured = u32_at(body, 12) as usize;
                let options = options_of(&body[20 + captured.next_multiple_of(4)..]);
                let (comments, options): (Vec<_>, Vec<_>) =
                    options.into_iter().partition(|(code, _)| *code == 1);
                let comments: Vec<String> = comments
                    .into_iter()
                    .map(|(_, text)| String::from_utf8(text).unwrap())
                    .collect();
                let packet = &body[20..20 + captured];
                self.push(time, u32_at(body, 16), packet, &comments);
                let packet = self.packets.last_mut().unwrap();
                packet.interface = interface.expect("a packet of a known interface");
                packet.beside = (std::mem::take(&mut self.blocks), options);
            }
            5 => {
                assert!((u32_at(body, 0) as usize) < self.interfaces.len());
                let found = options_of(&body[12..]);
                let value = |code| {
                    let (_, bytes) = found.iter().find(|(found, _)| *found == code).unwrap();
                    u64::from_ne_bytes(bytes.as_slice().try_into().unwrap())
                };
                let comment = found.iter().find(|(code, _)| *code == 1);
                self.statistics.push(Statistics {
                    hole: comment.map(|(_, text)| String::from_utf8(text.clone()).unwrap()),
                    received: value(4),
                    interface_dropped: value(5),
                    os_dropped: value(7),
                    delivered: value(8),
                    after: self.count,
                });
            }
            other => panic!("block type {other:#x}"),
        }
        len
    }
}

fn options_of(mut bytes: &[u8]) -> Vec<(usize, Vec<u8>)> {
    let mut found = Vec::new();
    while !bytes.is_empty() {
        let (code, len) = (u16_at(bytes, 0), u16_at(bytes, 2));
        let value = &bytes[4..4 + len];
        bytes = &bytes[4 + len.next_multiple_of(4)..];
        if code == 0 {
            assert!(len == 0 && bytes.is_empty(), "the end of the options is the end");
            break;
        }
        found.push((code, value.to_vec()));
    }
    found
}

/// A `send` function that collects the bytes.
pub(crate) fn collect(into: &mut Vec<u8>) -> impl FnMut(&[IoSlice<'_>]) -> io::Result<()> {
    |slices| {
        for slice in slices {
            into.extend_from_slice(slice);
        }
        Ok(())
    }
}

/// Reads until nothing more is available for now.
pub(crate) fn drain(cursor: &mut Cursor, store: &dyn Store, want: usize) -> (Vec<u8>, ReadOutcome) {
    let mut bytes = Vec::new();
    loop {
        let outcome = cursor.read(store, want, &mut collect(&mut bytes)).unwrap();
        if !matches!(outcome, ReadOutcome::Sent(_)) {
            return (bytes, outcome);
        }
    }
}
