//! The state machine: takes two streams, returns transactions.
//!
//! Each direction is fed its bytes once and in order. It keeps only undecided bytes: a part of a
//! head, of a chunk's first line, or of a start line that is searched for after a gap.
//! [`ParserLimits`] bounds all of them. The result does not depend on how bytes are cut into calls.
//!
//! Responses answer requests in order. If the client pipelines, a gap that may have swallowed heads
//! leaves requests and responses unpaired until their numbers are certain (`doubt`). If the client
//! does not pipeline, the parser compares after such a gap what each side had seen of the other
//! when it sent. A response cannot answer a request that was sent after the response had begun to
//! arrive. It cannot answer a request either if the client sent the next request after bytes from
//! the gap had arrived: those bytes began the answer. The first rule also holds in a connection
//! that was joined in the middle, where the first response may answer a request that was not
//! captured.
//!
//! `side` is the state of one direction, and `step` moves it on through a message. `starts` and
//! `heads` decide what begins, and `body` notes where the bytes of a body are. `pairing` finds the
//! request of a response, `pipeline` recognizes when that is in doubt, and `doubt` keeps those
//! messages until `positions` knows how far they lie apart. `gaps` decides how all of this
//! continues after missing bytes.

mod body;
mod doubt;
mod gaps;
mod heads;
mod limits;
mod pairing;
mod pipeline;
mod positions;
mod side;
mod starts;
mod step;

use std::borrow::Cow;
use std::collections::VecDeque;
use std::ops::Range;

use super::direction::MessageRole;
use super::transaction::HttpTransaction;
use super::transcript::TransactionProgress;
use crate::time::Timestamp;

use doubt::{Hidden, PairingDoubt};
pub use limits::{ParserCounters, ParserLimits};
use pairing::OpenTransaction;
use pipeline::RequestGap;
use side::{MARKS, MessagePhase, ParserSide};
use step::{Input, ParserStep};

/// How a direction ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum StreamEnd {
    /// With a FIN: the sender sent everything.
    Fin,
    /// With a RST.
    Reset,
    /// No packets came for a long time.
    Timeout,
    /// The flow was evicted, or the capture ended.
    Evicted,
}

/// The output of the parser.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum ParserEvent {
    /// A transaction ended.
    Transaction(Box<HttpTransaction>),
    /// The connection no longer speaks HTTP/1, and no other event will come. Follows the
    /// transaction that caused the switch, if one did.
    Switched {
        /// Stream offset of the first byte the client sends in the other protocol.
        request: u64,
        /// Stream offset of the first byte the server sends in the other protocol.
        response: u64,
    },
}

/// Heap memory of a transaction under way besides its heads and ranges, in bytes: the lists
/// themselves, the names of codings, and the allocator's own.
const BESIDE: usize = 256;

/// The parser of one connection. See the [module](self).
#[derive(Debug, Default)]
pub struct HttpParser {
    limits: ParserLimits,
    request: ParserSide,
    response: ParserSide,
    open: VecDeque<OpenTransaction>,
    events: VecDeque<ParserEvent>,
    counters: ParserCounters,
    last_index: u64,
    pending_bytes: usize,
    /// Heap memory of the heads in `open`, in bytes.
    pending_heads: usize,
    /// Number of ranges and holes in the bodies of `open`.
    pending_ranges: usize,
    /// Number of expected responses whose requests were given up.
    shed: u64,
    /// Highest stream offset of the responses that the client is known to have.
    acknowledged: u64,
    /// The streams may begin within a message.
    joined: bool,
    /// The client was seen to send a request before it had all earlier answers.
    pipelines: bool,
    /// Numbers of responses that began, and of gaps in the responses.
    responses: u64,
    response_gaps: u64,
    /// The state of both directions when the gap of the requests began that may have swallowed
    /// heads.
    request_gap: RequestGap,
    /// Requests before the next response may be missing, if the client pipelines.
    is_unproven: bool,
    /// A gap was judged as if the client did not pipeline.
    trusted: bool,
    /// Responses since the gap of the requests began that answer requests in it.
    lost_answers: Hidden,
    /// The server was seen to send an interim response.
    has_interim: bool,
    /// Messages whose pairs are not known yet, if any.
    doubt: Option<Box<PairingDoubt>>,
}

impl HttpParser {
    /// A parser for a new connection.
    #[must_use]
    pub fn new(limits: ParserLimits) -> Self {
        Self { limits, ..Self::default() }
    }

    /// A parser for a connection that was under way before its first captured byte: either stream
    /// may begin with the rest of a message.
    #[must_use]
    pub fn joined(limits: ParserLimits) -> Self {
        Self { joined: true, ..Self::new(limits) }
    }

    /// The streams are HTTP from these offsets on. The bytes before are not a gap.
    #[must_use]
    pub const fn beginning_at(mut self, request: u64, response: u64) -> Self {
        self.request.next = request;
        self.response.next = response;
        self
    }

    /// Sets the index of the first transaction, unless `index` is 0.
    #[must_use]
    pub fn with_first_index(mut self, index: u64) -> Self {
        self.last_index = index.saturating_sub(1);
        self
    }

    /// How often each limit was hit, and other counts.
    #[must_use]
    pub const fn counters(&self) -> &ParserCounters {
        &self.counters
    }

    /// The oldest event that was not fetched yet.
    pub fn event(&mut self) -> Option<ParserEvent> {
        self.events.pop_front()
    }

    /// Number of transactions under way: their requests began, and something has not ended.
    #[must_use]
    pub fn pending(&self) -> usize {
        self.open.len()
    }

    /// The transactions under way as far as they are known, in the order in which they began. Until
    /// one ends, bytes are only added at its end, and a message in it stays.
    pub fn under_way(&self) -> impl Iterator<Item = (&HttpTransaction, TransactionProgress)> {
        self.open.iter().map(|open| {
            let (request, response) = (open.request_done, open.response_done);
            (&*open.transaction, TransactionProgress::UnderWay { request, response })
        })
    }

    /// Approximate heap memory in bytes, for memory accounting.
    #[must_use]
    pub fn memory(&self) -> usize {
        let carried = self.request.carry.capacity().saturating_add(self.response.carry.capacity());
        let open = self.open.capacity().saturating_mul(size_of::<OpenTransaction>());
        let each = size_of::<HttpTransaction>().saturating_add(BESIDE);
        let open = open.saturating_add(self.open.len().saturating_mul(each));
        // Up to half of a list is unused.
        let ranges = self.pending_ranges.saturating_mul(size_of::<[Range<u64>; 2]>());
        let sides = [&self.request, &self.response];
        let forbidden = sides.into_iter().filter_map(|side| side.forbidden.as_ref());
        let forbidden = forbidden.map(|one| one.head.memory().saturating_add(size_of_val(&**one)));
        let marks = sides.into_iter().map(|side| side.marks.capacity()).sum::<usize>();
        let doubt = self.doubt.as_ref().map_or(0, |doubt| doubt.memory());
        [open, self.pending_heads, ranges, forbidden.sum(), marks.saturating_mul(16), doubt]
            .into_iter()
            .fold(carried, usize::saturating_add)
    }

    /// The client has the response stream up to `offset`, by a TCP acknowledgment.
    ///
    /// Optional, but after gaps it shows which request a response answers. Best called before
    /// [`feed`](Self::feed) with the payload of the same packet.
    pub fn acknowledged(&mut self, offset: u64) {
        self.acknowledged = self.acknowledged.max(offset);
    }

    /// Adds the next bytes of a stream. Bytes skipped since the last call count as a
    /// [gap](Self::gap). Bytes that were fed before are ignored.
    pub fn feed(&mut self, direction: MessageRole, offset: u64, bytes: &[u8], time: Timestamp) {
        let next = self.side(direction).next;
        if offset > next {
            self.gap(direction, next, offset);
        }
        let known = usize::try_from(next.saturating_sub(offset)).unwrap_or(usize::MAX);
        let Some(bytes) = bytes.get(known..).filter(|bytes| !bytes.is_empty()) else { return };
        let side = self.side_mut(direction);
        if side.ended.is_some() {
            return;
        }
        let carried = side.carry.len();
        let base = side.next.saturating_sub(carried as u64);
        let mut marks = std::mem::take(&mut side.marks);
        if carried > 0 && marks.last().is_some_and(|(_, last)| *last != time) {
            if marks.len() >= MARKS {
                marks.remove(1);
            }
            marks.push((side.next, time));
        }
        side.next = side.next.saturating_add(bytes.len() as u64);
        if matches!(side.phase, MessagePhase::Opaque) {
            return;
        }
        let mut buffer = Cow::Borrowed(bytes);
        if carried > 0 {
            let mut whole = std::mem::take(&mut side.carry);
            whole.extend_from_slice(bytes);
            buffer = Cow::Owned(whole);
        }
        let mut at = 0_usize;
        while let Some(rest) = buffer.get(at..).filter(|rest| !rest.is_empty()) {
            let offset = base.saturating_add(at as u64);
            let first = marks.iter().rfind(|(from, _)| *from <= offset);
            let first = first.map_or(time, |(_, first)| *first);
            let input = Input { direction, rest, at: offset, first, now: time, eof: false };
            match self.step(input) {
                ParserStep::Consumed(length) => at = at.saturating_add(length),
                ParserStep::Again => {}
                ParserStep::More => break,
            }
        }
        let side = self.side_mut(direction);
        if at >= buffer.len() || matches!(side.phase, MessagePhase::Opaque) {
            return;
        }
        let start = base.saturating_add(at as u64);
        if marks.is_empty() {
            marks.push((start, time));
        }
        let stale = marks.iter().skip(1).take_while(|(from, _)| *from <= start).count();
        marks.drain(..stale);
        side.marks = marks;
        match buffer {
            Cow::Owned(mut whole) => {
                whole.drain(..at);
                side.carry = whole;
            }
            Cow::Borrowed(bytes) => side.carry = bytes.get(at..).unwrap_or_default().to_vec(),
        }
    }

    const fn side(&self, direction: MessageRole) -> &ParserSide {
        match direction {
            MessageRole::Request => &self.request,
            MessageRole::Response => &self.response,
        }
    }

    const fn side_mut(&mut self, direction: MessageRole) -> &mut ParserSide {
        match direction {
            MessageRole::Request => &mut self.request,
            MessageRole::Response => &mut self.response,
        }
    }

    fn stray(&mut self, bytes: usize) {
        self.counters.stray_bytes = self.counters.stray_bytes.saturating_add(bytes as u64);
    }
}
