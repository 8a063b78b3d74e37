//! Recognizes the protocol of a TCP flow by its bytes, whatever its ports.

use std::borrow::Cow;
use std::ops::Range;

use protocol::http::direction::Direction as Side;
use protocol::http::probe::{self, ProxyLine, Verdict};
use protocol::socks::{self, Preamble};
use protocol::tcp::Direction;
use protocol::tls::{self, ClientHello, Outcome, ServerHello};

use super::messages::{Marks, Pair, Tunnel};
use crate::flow::pair::{of, of_mut};
use crate::flow::window::Window;

/// Pieces of streams whose first bytes are probed: enough for a protocol that speaks before it
/// switches to TLS, as SMTP does.
const MAX_TRIES: u8 = 32;

/// Maximum bytes of a stream that are kept and probed until they decide. A `ClientHello` with
/// post-quantum keys and a ticket has some 2,000 bytes, a request line seldom 8,000.
const MAX_PROBE: usize = 16 << 10;

/// Probes of a stream's first bytes that cost nothing: more than the segments that a `ClientHello`
/// or a request line ever comes in.
const FREE_LOOKS: u32 = 16;

/// The hellos, which TLS sends in the clear.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(in crate::flow) struct TlsHellos {
    pub(in crate::flow) client: Option<ClientHello>,
    pub(in crate::flow) server: Option<ServerHello>,
}

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
    tunnel: Option<Box<Tunnel>>,
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
    /// The TLS hellos found so far.
    hellos: Option<Box<TlsHellos>>,
}

/// The result of a look at a stream.
pub(in crate::flow) enum Found {
    Nothing,
    /// HTTP.
    Http {
        /// The direction of requests.
        request: Direction,
        /// Stream offsets at which it begins, forward and backward.
        begins: [u64; 2],
        /// Whether messages may be under way there whose beginning is missing.
        is_torn: bool,
    },
    /// TLS with both hellos, or with as many as will be found.
    Tls,
    Unknown,
}

/// The result of one probe of some bytes.
enum Look {
    Decided(Found),
    /// More bytes must follow.
    NotYet,
    /// No known protocol begins with them.
    Foreign,
}

impl Probing {
    /// Searches for the protocol inside a proxy's tunnel.
    pub(in crate::flow) fn tunnel(tunnel: Tunnel) -> Self {
        Self { looked: tunnel.begins, tunnel: Some(Box::new(tunnel)), ..Self::default() }
    }

    /// HTTP transactions of the flow before this search.
    pub(in crate::flow) fn transactions(&self) -> u64 {
        self.tunnel.as_ref().map_or(0, |tunnel| tunnel.transactions)
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

    /// Records a segment that came too early, see [`Messages::early`].
    pub(in crate::flow) fn early(&mut self, direction: Direction, end: u64, acknowledged: u64) {
        of_mut(&mut self.marks, direction).set(end, acknowledged);
    }

    /// Returns true if segments came too early in `direction`, and the bytes before them have not
    /// come yet.
    pub(in crate::flow) fn has_marks(&self, direction: Direction) -> bool {
        !of(&self.marks, direction).is_empty()
    }

    /// Takes the marks of segments that came too early.
    pub(in crate::flow) fn take_marks(&mut self) -> [Marks; 2] {
        std::mem::take(&mut self.marks)
    }

    /// The TLS hellos found so far.
    pub(in crate::flow) fn hellos(&self) -> Option<&TlsHellos> {
        self.hellos.as_deref()
    }

    /// Takes the TLS hellos found so far.
    pub(in crate::flow) fn take_hellos(&mut self) -> Option<Box<TlsHellos>> {
        self.hellos.take()
    }

    /// Probes `range`, which the stream sent in `direction` has reached. Its last segment
    /// acknowledged the other stream up to `acknowledged`.
    pub(in crate::flow) fn look(
        &mut self,
        direction: Direction,
        range: &Range<u64>,
        acknowledged: u64,
        pair: &impl Pair,
        window: &Window<'_>,
    ) -> Found {
        *of_mut(&mut self.looked, direction) = range.end;
        // Once the protocol is known, all of it is read again, and then the order matters.
        *of_mut(&mut self.acknowledged, direction) = acknowledged;
        if self.is_torn {
            of_mut(&mut self.marks, direction).set(range.end, acknowledged);
            if let Some(side) = begins_within(direction, range, pair, window) {
                return self.http(direction, side, range.start);
            }
        }
        let mut undecided = std::mem::take(of_mut(&mut self.undecided, direction));
        let follows = undecided.start.saturating_add(undecided.bytes.len() as u64) == range.start;
        if follows && !undecided.bytes.is_empty() {
            gather(&mut undecided.bytes, direction, range.clone(), pair, window);
            // A probe starts at the first byte again. In the long run, probe only when there are
            // many more bytes.
            let enough = undecided.seen.saturating_add(undecided.seen / 4);
            if undecided.looks >= FREE_LOOKS && undecided.bytes.len() < enough {
                *of_mut(&mut self.undecided, direction) = undecided;
                return Found::Nothing;
            }
        } else {
            let bytes = first_bytes(direction, range.clone(), pair, window);
            let is_full = bytes.len() >= MAX_PROBE;
            let looked = self.examine(direction, range.start, &bytes);
            if !matches!(looked, Look::NotYet) || is_full {
                return self.decided(looked);
            }
            let bytes = bytes.into_owned();
            let undecided = Undecided { start: range.start, bytes, ..Undecided::default() };
            return self.undecided_yet(direction, undecided);
        }
        let looked = self.examine(direction, undecided.start, &undecided.bytes);
        if matches!(looked, Look::NotYet) && undecided.bytes.len() < MAX_PROBE {
            return self.undecided_yet(direction, undecided);
        }
        self.decided(looked)
    }

    /// Recognizes the protocol of `bytes`, which begin at `start` of the stream sent in
    /// `direction`.
    fn examine(&mut self, direction: Direction, start: u64, bytes: &[u8]) -> Look {
        let is_beginning = start == *of(&self.begins(), direction);
        let preamble = if is_beginning { socks::preamble(bytes) } else { Preamble::No };
        let (skip, mut may_follow) = match preamble {
            Preamble::No => (0, false),
            Preamble::NotYet => (0, true),
            // The relayed stream must follow.
            Preamble::Len(len) => (len, bytes.len() == len),
        };
        let bytes = bytes.get(skip..).unwrap_or_default();
        if (is_beginning || self.is_torn) && !bytes.is_empty() {
            let probe = if self.is_torn { probe::probe_joined } else { probe::probe };
            for side in Side::BOTH {
                match probe(side, bytes) {
                    // The client did not wait for its proxy: the beginning of the other stream is
                    // known after the proxy has answered.
                    Verdict::Yes if skip > 0 && !self.has_begin(direction.other()) => {
                        may_follow = true;
                    }
                    Verdict::Yes => {
                        return Look::Decided(self.http(
                            direction,
                            side,
                            start.saturating_add(skip as u64),
                        ));
                    }
                    Verdict::NotYet => may_follow = true,
                    Verdict::No => {}
                }
            }
        }
        let bytes = match probe::proxy_line(bytes) {
            ProxyLine::Whole(len) => bytes.get(len..).unwrap_or_default(),
            ProxyLine::Begun | ProxyLine::No => bytes,
        };
        match tls::hello(bytes) {
            Outcome::Client(hello) => {
                self.hellos.get_or_insert_default().client.get_or_insert(hello);
            }
            Outcome::Server(hello) => {
                self.hellos.get_or_insert_default().server.get_or_insert(hello);
            }
            Outcome::NotYet => may_follow = true,
            Outcome::No => {}
        }
        if self.hellos.as_ref().is_some_and(|one| one.client.is_some() && one.server.is_some()) {
            return Look::Decided(Found::Tls);
        }
        if may_follow { Look::NotYet } else { Look::Foreign }
    }

    /// Keeps bytes that do not decide yet.
    fn undecided_yet(&mut self, direction: Direction, mut undecided: Undecided) -> Found {
        undecided.seen = undecided.bytes.len();
        undecided.looks = undecided.looks.saturating_add(1);
        *of_mut(&mut self.undecided, direction) = undecided;
        Found::Nothing
    }

    /// Evaluates a probe whose result no further bytes can change.
    fn decided(&mut self, looked: Look) -> Found {
        if let Look::Decided(found) = looked {
            return found;
        }
        self.tries = self.tries.saturating_add(1);
        match self.tries {
            MAX_TRIES.. if self.hellos.is_some() => Found::Tls,
            MAX_TRIES.. => Found::Unknown,
            _ => Found::Nothing,
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

    /// Returns true if bytes were sent in a direction, and the beginning of the protocol in them is
    /// known.
    fn has_begin(&self, direction: Direction) -> bool {
        of(&self.looked, direction) > of(&self.begins(), direction)
            && self.begin(direction).is_some()
    }

    fn http(&self, direction: Direction, side: Side, start: u64) -> Found {
        let other = direction.other();
        let request = if side == Side::Request { direction } else { other };
        let before = self.begin(other).unwrap_or_else(|| *of(&self.begins(), other));
        let begins = match direction {
            // The first message may come after the rest of another one, which was not probed.
            _ if self.is_torn => self.begins(),
            Direction::Forward => [start, before],
            Direction::Backward => [before, start],
        };
        Found::Http { request, begins, is_torn: self.is_torn }
    }
}

/// The side of HTTP that a segment in `range` belongs to, where only segments after the first are
/// tried. Bytes that are held until the stream's beginning is certain come in one range, and its
/// first segment may be the rest of a message.
fn begins_within(
    direction: Direction,
    range: &Range<u64>,
    pair: &impl Pair,
    window: &Window<'_>,
) -> Option<Side> {
    let behind = pair.stream(direction).chunks(range.clone()).skip(1);
    behind
        .filter_map(|chunk| window.read(chunk.content.ok()?))
        .flat_map(|(bytes, _)| {
            let begins = |side: &Side| probe::probe_joined(*side, &bytes) == Verdict::Yes;
            Side::BOTH.into_iter().find(begins)
        })
        .next()
}

/// The first bytes of `range`, borrowed if all of it lies in one packet.
fn first_bytes<'w>(
    direction: Direction,
    range: Range<u64>,
    pair: &impl Pair,
    window: &'w Window<'_>,
) -> Cow<'w, [u8]> {
    let mut chunks = pair.stream(direction).chunks(range.clone());
    let first = chunks.next().and_then(|chunk| window.read(chunk.content.ok()?));
    let Some((bytes, _)) = first else { return Cow::Borrowed(&[]) };
    if bytes.len() as u64 == range.end.saturating_sub(range.start) {
        return bytes;
    }
    let mut whole = bytes.into_owned();
    let rest = range.start.saturating_add(whole.len() as u64)..range.end;
    gather(&mut whole, direction, rest, pair, window);
    Cow::Owned(whole)
}

/// Appends the bytes of a stream from the beginning of `range` to the first hole.
fn gather(
    bytes: &mut Vec<u8>,
    direction: Direction,
    range: Range<u64>,
    pair: &impl Pair,
    window: &Window<'_>,
) {
    for chunk in pair.stream(direction).chunks(range) {
        let room = MAX_PROBE.saturating_sub(bytes.len());
        let Some((part, _)) = chunk.content.ok().and_then(|extent| window.read(extent)) else {
            return;
        };
        if room == 0 {
            return;
        }
        bytes.extend_from_slice(part.get(..room).unwrap_or(&part));
    }
}
