//! Tests of DNS, and a builder of messages for them.
#![expect(
    clippy::arithmetic_side_effects,
    clippy::cast_possible_truncation,
    reason = "the numbers in tests are small"
)]

mod framer;
mod line;
mod message;
mod pairing;
mod probe;
mod properties;
mod rdata;
mod transfer;

use std::net::SocketAddr;

use crate::dns::{DnsRecord, DnsTransaction, Pairing, RawMessage};
use crate::flow_context::FlowContext;
use crate::tcp::Direction;
use crate::time::Timestamp;

/// Types and classes that occur in many tests.
const A: u16 = 1;
const CNAME: u16 = 5;
const SOA: u16 = 6;
const PTR: u16 = 12;
const TXT: u16 = 16;
const OPT: u16 = 41;
const IN: u16 = 1;

/// Flags of a query that desires recursion, and of its response.
const QUERY: u16 = 0x0100;
const RESPONSE: u16 = 0x8180;

/// Builds a message part by part.
#[derive(Clone, Debug)]
struct Builder {
    bytes: Vec<u8>,
}

/// A name on the wire, without compression.
fn wire_name(name: &str) -> Vec<u8> {
    let labels = name.split('.').filter(|label| !label.is_empty());
    let mut wire: Vec<u8> =
        labels.flat_map(|label| [&[label.len() as u8], label.as_bytes()].concat()).collect();
    wire.push(0);
    wire
}

impl Builder {
    fn new(id: u16, flags: u16) -> Self {
        let mut bytes = vec![0; 12];
        bytes[..2].copy_from_slice(&id.to_be_bytes());
        bytes[2..4].copy_from_slice(&flags.to_be_bytes());
        Self { bytes }
    }

    /// A query with one question of type A.
    fn query(id: u16, name: &str) -> Self {
        Self::new(id, QUERY).question(name, A, IN)
    }

    /// A response with one question of type A and one answer to it.
    fn response(id: u16, name: &str, address: [u8; 4]) -> Self {
        Self::new(id, RESPONSE).question(name, A, IN).record(1, name, A, IN, 300, &address)
    }

    fn count(&mut self, section: usize) {
        let at = 4 + 2 * section;
        let count = u16::from_be_bytes([self.bytes[at], self.bytes[at + 1]]) + 1;
        self.bytes[at..at + 2].copy_from_slice(&count.to_be_bytes());
    }

    fn question(self, name: &str, record_type: u16, class: u16) -> Self {
        self.question_of(&wire_name(name), record_type, class)
    }

    fn question_of(mut self, name: &[u8], record_type: u16, class: u16) -> Self {
        self.count(0);
        self.bytes.extend_from_slice(name);
        self.bytes.extend([record_type, class].map(u16::to_be_bytes).concat());
        self
    }

    /// A record in a section: 1 is that of answers.
    fn record(
        self,
        section: usize,
        name: &str,
        record_type: u16,
        class: u16,
        ttl: u32,
        data: &[u8],
    ) -> Self {
        self.record_of(section, &wire_name(name), record_type, class, ttl, data)
    }

    fn record_of(
        mut self,
        section: usize,
        name: &[u8],
        record_type: u16,
        class: u16,
        ttl: u32,
        data: &[u8],
    ) -> Self {
        self.count(section);
        self.bytes.extend_from_slice(name);
        self.bytes.extend([record_type, class].map(u16::to_be_bytes).concat());
        self.bytes.extend_from_slice(&ttl.to_be_bytes());
        self.bytes.extend_from_slice(&(data.len() as u16).to_be_bytes());
        self.bytes.extend_from_slice(data);
        self
    }

    fn soa(self, serial: u32) -> Self {
        let numbers = [serial, 1, 2, 3, 4].map(u32::to_be_bytes).concat();
        self.record(1, "zone", SOA, IN, 5, &[wire_name("ns"), wire_name("me"), numbers].concat())
    }

    /// The message with its length before it, as TCP has it.
    fn framed(&self) -> Vec<u8> {
        [&(self.bytes.len() as u16).to_be_bytes(), &self.bytes[..]].concat()
    }
}

fn second(seconds: u64) -> Timestamp {
    Timestamp::from_nanoseconds(seconds * 1_000_000_000)
}

fn ends(ports: [u16; 2]) -> [SocketAddr; 2] {
    [SocketAddr::from(([192, 0, 2, 1], ports[0])), SocketAddr::from(([192, 0, 2, 53], ports[1]))]
}

/// A flow from a client to a server on port 53.
struct Flow {
    pairing: Pairing,
    ends: [SocketAddr; 2],
}

impl Flow {
    fn new() -> Self {
        Self::between(ends([40_000, 53]))
    }

    fn between(ends: [SocketAddr; 2]) -> Self {
        Self { pairing: Pairing::new(ends), ends }
    }

    fn sent(&mut self, direction: Direction, seconds: u64, message: &Builder) {
        self.sent_bytes(direction, seconds, &message.bytes, message.bytes.len());
    }

    fn sent_bytes(&mut self, direction: Direction, seconds: u64, bytes: &[u8], wire_len: usize) {
        let message = RawMessage::datagram(bytes, wire_len, second(seconds));
        self.pairing.push(direction, message);
    }

    fn finished(&mut self) -> Vec<DnsTransaction> {
        std::iter::from_fn(|| self.pairing.finished()).collect()
    }

    /// The lines of all transactions, those under way included.
    fn lines(&mut self) -> Vec<serde_json::Value> {
        self.pairing.close();
        let (lines, ends) = (self.finished(), self.ends);
        let lines = lines.iter().map(|transaction| {
            let context = FlowContext::new("web", 7, ends, transaction.asked);
            let line = crate::json::line(&DnsRecord::new(&context, transaction));
            assert!(line.len() <= crate::dns::MAX_LINE);
            serde_json::from_slice(&line).unwrap()
        });
        lines.collect()
    }
}

/// A short form of a line: index, state, name, answers' data, and why.
fn brief(line: &serde_json::Value) -> String {
    let answers = line["answers"].as_array().unwrap().iter().map(|one| &one["data"]);
    let answers: Vec<_> = answers.map(|data| data.as_str().unwrap_or("null")).collect();
    let name = line["name"].as_str().unwrap_or("null");
    let state = line["state"].as_str().unwrap();
    let why = line["why"].as_str().unwrap_or("-");
    format!("{} {state} {name} [{}] {why}", line["index"], answers.join(", "))
}

fn briefs(flow: &mut Flow) -> Vec<String> {
    flow.lines().iter().map(brief).collect()
}
