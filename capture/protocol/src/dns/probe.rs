//! Recognizes DNS by its bytes, on any port.
//!
//! On the ports of DNS a plausible header is enough, so that malformed messages are seen too. On
//! other ports the whole message must be well formed and ordinary.

use domain::base::iana::{Class, Opcode, Rtype};

use super::PORTS;
use super::message::{DnsMessage, HEADER, MessageHeader};
use super::raw::RawMessage;
use crate::time::Timestamp;
use crate::verdict::ProbeVerdict;

/// The ports of NetBIOS, whose messages are nearly those of DNS: RFC 1002, section 4.2.
const NETBIOS: [u16; 2] = [137, 138];

/// The highest operation in use: RFC 8490.
const MAX_OPCODE: u8 = 6;

/// The highest response code without EDNS: RFC 2136 and RFC 8490.
const MAX_RCODE: u8 = 11;

/// Maximum number of records that a message with one question may announce without room for them,
/// and still be taken for a malformed one.
const MAX_ANNOUNCED: u16 = 64;

/// Maximum length of the first message of a stream on a port that is not one of DNS. Queries are
/// much shorter, and one side is enough.
const MAX_FIRST: usize = 4096;

/// Number of bytes after which [`stream`] is always decided: a first message with its length.
pub const ENOUGH: usize = MAX_FIRST + 2;

/// Returns true if a payload sent between these UDP ports is a message of DNS. It has `wire_len`
/// bytes, and `bytes` were captured.
#[must_use]
pub fn datagram(bytes: &[u8], wire_len: usize, ports: [u16; 2]) -> bool {
    if ports.iter().any(|port| NETBIOS.contains(port)) {
        return false;
    }
    if has_known(ports) {
        return bytes.len() >= HEADER && is_plausible(bytes, wire_len.max(bytes.len()));
    }
    wire_len <= bytes.len() && is_strict(bytes)
}

/// The number of payloads between these UDP ports that are worth a look: 8 on the ports of DNS,
/// where malformed messages may come first, and a query and a response elsewhere.
#[must_use]
pub fn tries(ports: [u16; 2]) -> usize {
    if ports.iter().any(|port| NETBIOS.contains(port)) {
        0
    } else if has_known(ports) {
        8
    } else {
        2
    }
}

/// Whether a stream between these TCP ports that begins with `bytes` is one direction of DNS.
#[must_use]
pub fn stream(bytes: &[u8], ports: [u16; 2]) -> ProbeVerdict {
    if ports.iter().any(|port| NETBIOS.contains(port)) {
        return ProbeVerdict::No;
    }
    let is_known = has_known(ports);
    // A text such as `STLS` is no length. It is not kept until more bytes come, because TLS may
    // begin with them.
    let is_short = |first: &u8| usize::from(*first) <= MAX_FIRST >> 8;
    if !is_known && !bytes.first().is_none_or(is_short) {
        return ProbeVerdict::No;
    }
    let Some((prefix, message)) = bytes.split_first_chunk::<2>() else {
        return ProbeVerdict::NotYet;
    };
    let len = usize::from(u16::from_be_bytes(*prefix));
    if len < HEADER || (!is_known && len > MAX_FIRST) {
        return ProbeVerdict::No;
    }
    if message.len() < HEADER {
        return ProbeVerdict::NotYet;
    }
    if is_known {
        return if is_plausible(message, len) { ProbeVerdict::Yes } else { ProbeVerdict::No };
    }
    if !is_ordinary(message, len) {
        return ProbeVerdict::No;
    }
    match message.get(..len) {
        None => ProbeVerdict::NotYet,
        Some(message) if is_strict(message) => ProbeVerdict::Yes,
        Some(_) => ProbeVerdict::No,
    }
}

/// Whether a message with its length begins here, for a stream that has lost its place. `None` if
/// more bytes must come. `trials` counts down the messages that are read to their end.
pub(super) fn framed(bytes: &[u8], trials: &mut u32) -> Option<bool> {
    let (prefix, message) = bytes.split_first_chunk::<2>()?;
    let len = usize::from(u16::from_be_bytes(*prefix));
    if len < HEADER {
        return Some(false);
    }
    if message.len() < HEADER {
        return None;
    }
    if !is_ordinary(message, len) {
        return Some(false);
    }
    let message = message.get(..len)?;
    *trials = trials.saturating_sub(1);
    Some(is_strict(message))
}

fn has_known(ports: [u16; 2]) -> bool {
    ports.iter().any(|port| PORTS.contains(port))
}

/// Returns `true` if a message of `len` bytes may have this header, and says that there is
/// something in it.
fn is_plausible(bytes: &[u8], len: usize) -> bool {
    let Some(header) = MessageHeader::read(bytes) else { return false };
    let [questions, records @ ..] = header.counts;
    let is_empty = header.counts == [0; 4];
    let is_short =
        questions == 1 && !header.z && records.iter().all(|count| *count <= MAX_ANNOUNCED);
    let may_be = header.fits(len) && (!is_empty || len == HEADER || header.opcode == MAX_OPCODE);
    header.opcode <= MAX_OPCODE && (may_be || is_short)
}

/// Returns `true` if a message of `len` bytes may have this header, and it is an ordinary one.
fn is_ordinary(bytes: &[u8], len: usize) -> bool {
    let Some(header) = MessageHeader::read(bytes) else { return false };
    let [questions, answers, authority, _] = header.counts;
    let has_kind = if header.is_response {
        header.rcode <= MAX_RCODE
    } else {
        let is_bare = header.opcode != Opcode::QUERY.to_int() || (answers == 0 && authority <= 1);
        header.rcode == 0 && !header.flags.aa && !header.flags.tc && !header.flags.ra && is_bare
    };
    let opcodes = [Opcode::QUERY, Opcode::NOTIFY, Opcode::UPDATE].map(Opcode::to_int);
    has_kind && questions == 1 && !header.z && opcodes.contains(&header.opcode) && header.fits(len)
}

/// Returns `true` if the bytes are an ordinary message from the first to the last.
fn is_strict(bytes: &[u8]) -> bool {
    if bytes.len() < HEADER || !is_ordinary(bytes, bytes.len()) {
        return false;
    }
    let raw = RawMessage::datagram(bytes, bytes.len(), Timestamp::default());
    let Some(message) = DnsMessage::read(&raw, false) else { return false };
    let [question] = message.questions.as_slice() else { return false };
    let records = message.records(None);
    let is_known = Rtype::from_int(question.record_type).to_mnemonic_str().is_some()
        && Class::from_int(question.class).to_mnemonic_str().is_some();
    is_known && records.fault.is_none() && records.trailing == 0
}
