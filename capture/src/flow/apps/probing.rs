//! Recognizes the protocol of a TCP flow by its bytes, whatever its ports.

use std::net::SocketAddr;
use std::ops::{ControlFlow, Range};

use protocol::socks::{self, Preamble};
use protocol::tcp::Direction;

use super::PROTOCOLS;
use super::dissector::{
    Boundary, ByteStreams, DissectorStart, ProbeAnswer, ProbedBytes, ProxyTunnel, StreamProtocol,
    StreamRun,
};
use super::kept::FlowRecords;
use super::marks::Marks;
use crate::flow::pair::{of, of_mut};

/// Pieces of streams whose first bytes are probed: enough for a protocol that speaks before it
/// switches to TLS, as SMTP does.
const MAX_TRIES: u8 = 32;

/// Maximum bytes of a stream that are kept and probed until they decide. A `ClientHello` with
/// post-quantum keys and a ticket has some 2,000 bytes, a request line seldom 8,000.
const MAX_PROBE: usize = 16 << 10;

/// Probes of a stream's first bytes that cost nothing: more than the segments that a `ClientHello`
/// or a request line ever comes in.
const FREE_LOOKS: u32 = 16;

/// Bytes of a stream that do not decide the protocol yet. They are kept, so that a stream of small
/// segments is not fetched again with each one.
#[derive(Debug, Default)]
struct Undecided {
    /// Offset in the stream at which they begin.
    start: u64,
    bytes: Vec<u8>,
    /// Number of probes so far, and the number of bytes that the last one saw.
    looks: u32,
    seen: usize,
}

/// The search for a protocol.
#[derive(Debug, Default)]
pub(in crate::flow) struct Probing {
    tries: u8,
    /// The tunnel whose content is probed, if it is not the whole flow.
    tunnel: Option<Box<ProxyTunnel>>,
    /// Forward and backward.
    undecided: [Undecided; 2],
    /// Forward and backward: offset up to which the stream was probed.
    looked: [u64; 2],
    /// Forward and backward: the acknowledgment of the other stream by the last probed segment.
    acknowledged: [u64; 2],
    /// Forward and backward: segments captured before the bytes that precede them, or before it was
    /// certain where their stream begins.
    marks: [Marks; 2],
    /// Bytes are missing, or the beginning was not captured: a message may begin anywhere.
    is_torn: bool,
}

/// The result of a look at a stream.
#[derive(Debug)]
pub(in crate::flow) enum ProbeResult {
    /// Nothing yet.
    Nothing,
    /// This protocol.
    Protocol(&'static dyn StreamProtocol, DissectorStart),
    /// No known protocol; the search is over.
    Unknown,
}

/// The result of one probe of some bytes.
enum Look {
    Decided(ProbeResult),
    /// More bytes must follow.
    NotYet,
    /// No known protocol begins with them.
    Foreign,
}

impl Probing {
    /// Searches for the protocol inside a proxy's tunnel.
    pub(in crate::flow) fn tunnel(tunnel: ProxyTunnel) -> Self {
        Self { looked: tunnel.begins, tunnel: Some(Box::new(tunnel)), ..Self::default() }
    }

    /// Forward and backward: stream offsets at which the protocol begins, unless a SOCKS preamble
    /// comes first.
    fn begins(&self) -> [u64; 2] {
        self.tunnel.as_ref().map_or([0, 0], |tunnel| tunnel.begins)
    }

    /// Records that bytes are missing, or that the beginning of the flow was not captured.
    pub(in crate::flow) fn tear(&mut self) {
        self.is_torn = true;
    }

    /// Bytes of memory on the heap; an estimate.
    pub(in crate::flow) fn memory(&self) -> usize {
        let bytes: usize = self.undecided.iter().map(|undecided| undecided.bytes.capacity()).sum();
        bytes.saturating_add(self.marks.iter().map(Marks::memory).sum())
    }

    /// The offset up to which the stream sent in `direction` was probed, and the acknowledgment of
    /// the other stream by the last probed segment.
    pub(in crate::flow) fn looked(&self, direction: Direction) -> (u64, u64) {
        (*of(&self.looked, direction), *of(&self.acknowledged, direction))
    }

    /// Records a segment that came too early, see `Dissector::early`.
    pub(in crate::flow) fn early(&mut self, direction: Direction, end: u64, acknowledged: u64) {
        of_mut(&mut self.marks, direction).set(end, acknowledged);
    }

    /// Returns `true` if segments came too early in `direction`, and the bytes before them have not
    /// come yet.
    pub(in crate::flow) fn has_early(&self, direction: Direction) -> bool {
        !of(&self.marks, direction).is_empty()
    }

    /// Probes `range`, which the stream sent in `direction` has reached. Its last segment
    /// acknowledged the other stream up to `acknowledged`.
    pub(in crate::flow) fn look(
        &mut self,
        direction: Direction,
        range: &Range<u64>,
        acknowledged: u64,
        streams: &dyn ByteStreams,
        kept: &mut FlowRecords,
    ) -> ProbeResult {
        *of_mut(&mut self.looked, direction) = range.end;
        // Once the protocol is known, all of it is read again, and then the order matters.
        *of_mut(&mut self.acknowledged, direction) = acknowledged;
        if self.is_torn {
            of_mut(&mut self.marks, direction).set(range.end, acknowledged);
            if let Some((protocol, is_client)) = begins_within(direction, range, streams, kept) {
                let sender = (direction, is_client);
                return self.found(protocol, sender, range.start, streams.ends());
            }
        }
        let mut undecided = std::mem::take(of_mut(&mut self.undecided, direction));
        let follows = undecided.start.saturating_add(undecided.bytes.len() as u64) == range.start;
        if follows && !undecided.bytes.is_empty() {
            gather(&mut undecided.bytes, direction, range.clone(), streams);
            // A probe starts at the first byte again. In the long run, probe only when there are
            // many more bytes.
            let enough = undecided.seen.saturating_add(undecided.seen / 4);
            if undecided.looks >= FREE_LOOKS && undecided.bytes.len() < enough {
                *of_mut(&mut self.undecided, direction) = undecided;
                return ProbeResult::Nothing;
            }
        } else {
            undecided = Undecided { start: range.start, ..Undecided::default() };
            let looked =
                self.examine_first(direction, range, &mut undecided.bytes, streams, &mut *kept);
            return match looked {
                Look::NotYet => self.undecided_yet(direction, undecided),
                looked => self.decided(looked),
            };
        }
        let (start, bytes) = (undecided.start, &undecided.bytes);
        let looked = self.examine(direction, start, bytes, streams.ends(), kept);
        if matches!(looked, Look::NotYet) && undecided.bytes.len() < MAX_PROBE {
            return self.undecided_yet(direction, undecided);
        }
        self.decided(looked)
    }

    /// Recognizes the protocol of `range`. Bytes that do not decide yet are put into `bytes`; those
    /// of a single packet that decide are not copied.
    fn examine_first(
        &mut self,
        direction: Direction,
        range: &Range<u64>,
        bytes: &mut Vec<u8>,
        streams: &dyn ByteStreams,
        kept: &mut FlowRecords,
    ) -> Look {
        let len = range.end.saturating_sub(range.start);
        let mut looked = None;
        streams.read(direction, range.clone(), &mut |run| {
            let StreamRun::Bytes { bytes: run, .. } = run else { return ControlFlow::Break(()) };
            if run.len() as u64 == len {
                let look = self.examine(direction, range.start, run, streams.ends(), kept);
                if matches!(look, Look::NotYet) {
                    bytes.extend_from_slice(run);
                }
                looked = Some(look);
                return ControlFlow::Break(());
            }
            append(bytes, run)
        });
        let looked = looked
            .unwrap_or_else(|| self.examine(direction, range.start, bytes, streams.ends(), kept));
        match looked {
            Look::NotYet if bytes.len() >= MAX_PROBE => Look::Foreign,
            looked => looked,
        }
    }

    /// Recognizes the protocol of `bytes`, which begin at `start` of the stream sent in
    /// `direction`.
    fn examine(
        &mut self,
        direction: Direction,
        start: u64,
        bytes: &[u8],
        ends: [SocketAddr; 2],
        kept: &mut FlowRecords,
    ) -> Look {
        let is_beginning = start == *of(&self.begins(), direction);
        let preamble = if is_beginning { socks::preamble(bytes) } else { Preamble::No };
        let (skip, mut may_follow) = match preamble {
            Preamble::No => (0, false),
            Preamble::NotYet => (0, true),
            // The relayed stream must follow.
            Preamble::Len(len) => (len, bytes.len() == len),
        };
        let boundary = match is_beginning {
            _ if self.is_torn => Boundary::Torn,
            true => Boundary::Beginning,
            false => Boundary::Piece,
        };
        let opening = ProbedBytes { bytes: bytes.get(skip..).unwrap_or_default(), boundary, ends };
        for protocol in PROTOCOLS {
            match protocol.probe(&opening, kept) {
                // The client did not wait for its proxy: the beginning of the other stream is
                // known after the proxy has answered.
                ProbeAnswer::Yes { .. } if skip > 0 && !self.has_begin(direction.other()) => {
                    may_follow = true;
                }
                ProbeAnswer::Yes { is_client } => {
                    let start = start.saturating_add(skip as u64);
                    let found = self.found(protocol, (direction, is_client), start, ends);
                    return Look::Decided(found);
                }
                ProbeAnswer::NotYet => may_follow = true,
                ProbeAnswer::No => {}
            }
        }
        if may_follow { Look::NotYet } else { Look::Foreign }
    }

    /// Keeps bytes that do not decide yet.
    fn undecided_yet(&mut self, direction: Direction, mut undecided: Undecided) -> ProbeResult {
        undecided.seen = undecided.bytes.len();
        undecided.looks = undecided.looks.saturating_add(1);
        *of_mut(&mut self.undecided, direction) = undecided;
        ProbeResult::Nothing
    }

    /// Evaluates a probe whose result no further bytes can change.
    fn decided(&mut self, looked: Look) -> ProbeResult {
        if let Look::Decided(found) = looked {
            return found;
        }
        self.tries = self.tries.saturating_add(1);
        match self.tries {
            MAX_TRIES.. => ProbeResult::Unknown,
            _ => ProbeResult::Nothing,
        }
    }
}

impl Probing {
    /// The offset at which the protocol begins in a stream, as far as it was seen. A SOCKS preamble
    /// is skipped; `None` if the preamble has not ended.
    fn begin(&self, direction: Direction) -> Option<u64> {
        let undecided = of(&self.undecided, direction);
        // Earlier bytes in this direction belong to the protocol if no byte was missed.
        if undecided.bytes.is_empty() {
            return Some(*of(&self.begins(), direction));
        }
        match socks::preamble(&undecided.bytes) {
            Preamble::No => Some(undecided.start),
            Preamble::NotYet => None,
            Preamble::Len(len) => Some(undecided.start.saturating_add(len as u64)),
        }
    }

    /// Returns `true` if bytes were sent in a direction, and the beginning of the protocol in them
    /// is known.
    fn has_begin(&self, direction: Direction) -> bool {
        of(&self.looked, direction) > of(&self.begins(), direction)
            && self.begin(direction).is_some()
    }

    fn found(
        &mut self,
        protocol: &'static dyn StreamProtocol,
        (direction, is_client): (Direction, bool),
        start: u64,
        ends: [SocketAddr; 2],
    ) -> ProbeResult {
        let other = direction.other();
        let client = if is_client { direction } else { other };
        let before = self.begin(other).unwrap_or_else(|| *of(&self.begins(), other));
        let begins = match direction {
            // The first message may come after the rest of another one, which was not probed.
            _ if self.is_torn => self.begins(),
            Direction::Forward => [start, before],
            Direction::Backward => [before, start],
        };
        let marks = std::mem::take(&mut self.marks);
        let before = self.tunnel.as_ref().map_or(0, |tunnel| tunnel.transactions);
        ProbeResult::Protocol(
            protocol,
            DissectorStart { client, begins, marks, is_torn: self.is_torn, before, ends },
        )
    }
}

/// The protocol that a segment in `range` belongs to, and whether its sender is the client, where
/// only segments after the first are tried. Bytes that are held until the stream's beginning is
/// certain come in one range, and its first segment may be the rest of a message.
fn begins_within(
    direction: Direction,
    range: &Range<u64>,
    streams: &dyn ByteStreams,
    kept: &mut FlowRecords,
) -> Option<(&'static dyn StreamProtocol, bool)> {
    let (mut found, mut is_first) = (None, true);
    streams.read(direction, range.clone(), &mut |run| {
        let is_later = !std::mem::take(&mut is_first);
        if let StreamRun::Bytes { bytes, .. } = run
            && is_later
        {
            let opening = ProbedBytes { bytes, boundary: Boundary::Segment, ends: streams.ends() };
            found = PROTOCOLS.iter().find_map(|protocol| match protocol.probe(&opening, kept) {
                ProbeAnswer::Yes { is_client } => Some((*protocol, is_client)),
                ProbeAnswer::No | ProbeAnswer::NotYet => None,
            });
        }
        if found.is_some() { ControlFlow::Break(()) } else { ControlFlow::Continue(()) }
    });
    found
}

/// Appends the bytes of a stream from the beginning of `range` to the first hole.
fn gather(bytes: &mut Vec<u8>, direction: Direction, range: Range<u64>, streams: &dyn ByteStreams) {
    streams.read(direction, range, &mut |run| match run {
        StreamRun::Bytes { bytes: run, .. } => append(bytes, run),
        StreamRun::Hole(_) => ControlFlow::Break(()),
    });
}

/// Appends as many bytes as there is room for; breaks when there is none.
fn append(bytes: &mut Vec<u8>, run: &[u8]) -> ControlFlow<()> {
    let room = MAX_PROBE.saturating_sub(bytes.len());
    if room == 0 {
        return ControlFlow::Break(());
    }
    bytes.extend_from_slice(run.get(..room).unwrap_or(run));
    ControlFlow::Continue(())
}
