//! Shared by the tests of HTTP: streams in memory, and a simple reader of captures.

#![allow(dead_code, reason = "each test uses some of it")]
#![allow(clippy::cast_possible_truncation, reason = "streams in memory")]

use std::collections::BTreeMap;
use std::ops::Range;
use std::path::Path;

use protocol::http::body::{BodyPiece, Streams};
use protocol::http::direction::MessageRole;
use protocol::http::parser::{HttpParser, ParserEvent, ParserLimits, StreamEnd};
use protocol::http::transaction::HttpTransaction;
use protocol::time::Timestamp;

/// Random numbers (xorshift64*). Equal seeds give equal numbers.
pub(crate) struct Random(u64);

impl Random {
    pub(crate) fn new(seed: u64) -> Self {
        Self(seed.wrapping_mul(0x9e37_79b9_7f4a_7c15) | 1)
    }

    /// A number below `end`.
    pub(crate) fn below(&mut self, end: u64) -> u64 {
        self.0 ^= self.0 >> 12;
        self.0 ^= self.0 << 25;
        self.0 ^= self.0 >> 27;
        (self.0.wrapping_mul(0x2545_f491_4f6c_dd1d) >> 33) % end
    }
}

/// Both streams of a connection, complete.
#[derive(Clone, Debug, Default)]
pub(crate) struct Memory {
    pub(crate) request: Vec<u8>,
    pub(crate) response: Vec<u8>,
}

impl Streams for Memory {
    fn read(&self, direction: MessageRole, range: Range<u64>, sink: &mut dyn FnMut(BodyPiece<'_>)) {
        let bytes = match direction {
            MessageRole::Request => &self.request,
            MessageRole::Response => &self.response,
        };
        sink(BodyPiece::Bytes(&bytes[range.start as usize..range.end as usize]));
    }
}

pub(crate) fn transactions(parser: &mut HttpParser) -> Vec<HttpTransaction> {
    let mut found = Vec::new();
    while let Some(event) = parser.event() {
        if let ParserEvent::Transaction(one) = event {
            found.push(*one);
        }
    }
    found
}

/// Feeds a request, its response, and the end of both.
pub(crate) fn exchange(request: &[u8], response: &[u8], how: StreamEnd) -> Vec<HttpTransaction> {
    let mut parser = HttpParser::new(ParserLimits::default());
    parser.feed(MessageRole::Request, 0, request, Timestamp::from_nanoseconds(1));
    parser.feed(MessageRole::Response, 0, response, Timestamp::from_nanoseconds(2));
    parser.end(MessageRole::Response, how);
    parser.end(MessageRole::Request, how);
    transactions(&mut parser)
}

/// A connection of a capture, in the order in which its new bytes came.
#[derive(Debug, Default)]
pub(crate) struct Connection {
    pub(crate) streams: Memory,
    /// Each growth: the stream, and its new length.
    pub(crate) order: Vec<(MessageRole, usize)>,
}

impl Connection {
    pub(crate) fn parse(&self) -> Vec<HttpTransaction> {
        let mut parser = HttpParser::new(ParserLimits::default());
        let mut done = [0, 0];
        for (number, &(direction, end)) in self.order.iter().enumerate() {
            let time = Timestamp::from_nanoseconds(number as u64);
            let (stream, done) = match direction {
                MessageRole::Request => (&self.streams.request, &mut done[0]),
                MessageRole::Response => (&self.streams.response, &mut done[1]),
            };
            parser.feed(direction, *done as u64, &stream[*done..end], time);
            *done = end;
        }
        parser.end(MessageRole::Response, StreamEnd::Fin);
        parser.end(MessageRole::Request, StreamEnd::Fin);
        transactions(&mut parser)
    }
}

/// Reads TCP over IPv4 from a little-endian pcap of Ethernet or raw packets. Only segments in
/// order.
pub(crate) fn connections(file: &Path) -> Vec<Connection> {
    let bytes = std::fs::read(file).unwrap();
    let word = |at: usize| u32::from_le_bytes(bytes[at..at + 4].try_into().unwrap());
    assert!(matches!(word(0), 0xa1b2_c3d4 | 0xa1b2_3c4d), "{}", file.display());
    let skip = match word(20) {
        1 => 14,
        12 | 101 => 0,
        other => panic!("link type {other} in {}", file.display()),
    };
    type Address = (Vec<u8>, u16);
    let mut found: BTreeMap<usize, Connection> = BTreeMap::new();
    let mut known: BTreeMap<(Address, Address), (usize, MessageRole, Option<u32>)> =
        BTreeMap::new();
    let mut at = 24;
    while at + 16 <= bytes.len() {
        let length = word(at + 8) as usize;
        let packet = &bytes[at + 16..at + 16 + length];
        at += 16 + length;
        let ip = &packet[skip..];
        if ip.first().is_none_or(|first| first >> 4 != 4) || ip[9] != 6 {
            continue;
        }
        let total = usize::from(u16::from_be_bytes([ip[2], ip[3]]));
        let ip = if total == 0 { ip } else { &ip[..total] };
        let tcp = &ip[usize::from(ip[0] & 15) * 4..];
        let half = |at: usize| u16::from_be_bytes([tcp[at], tcp[at + 1]]);
        let payload = &tcp[usize::from(tcp[12] >> 4) * 4..];
        let from = (ip[12..16].to_vec(), half(0));
        let to = (ip[16..20].to_vec(), half(2));
        let number = u32::from_be_bytes(tcp[4..8].try_into().unwrap());
        let syn = tcp[13] & 2 != 0;
        if !known.contains_key(&(from.clone(), to.clone())) {
            let id = found.len();
            found.insert(id, Connection::default());
            known.insert((from.clone(), to.clone()), (id, MessageRole::Request, None));
            known.insert((to.clone(), from.clone()), (id, MessageRole::Response, None));
        }
        let (id, direction, next) = known.get_mut(&(from, to)).unwrap();
        if syn {
            *next = Some(number.wrapping_add(1));
            continue;
        }
        let expected = next.unwrap_or(number);
        let known_bytes = expected.wrapping_sub(number) as usize;
        if payload.is_empty() || known_bytes >= payload.len() {
            continue;
        }
        *next = Some(number.wrapping_add(u32::try_from(payload.len()).unwrap()));
        let connection = found.get_mut(id).unwrap();
        let stream = match direction {
            MessageRole::Request => &mut connection.streams.request,
            MessageRole::Response => &mut connection.streams.response,
        };
        stream.extend_from_slice(&payload[known_bytes..]);
        let end = stream.len();
        connection.order.push((*direction, end));
    }
    found.into_values().collect()
}
