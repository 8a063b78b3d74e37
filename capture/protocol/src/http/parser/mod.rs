//! The state machine: two streams in, transactions out.
//!
//! Each direction is fed its bytes once and in order, and keeps of them only what is undecided:
//! part of a head, of a chunk's first line, of a start line that is looked for after a gap. All of
//! it is bounded by [`Limits`]. How bytes are cut into calls makes no difference.
//!
//! Responses belong to requests in order. If the client pipelines, a gap that may have swallowed
//! heads leaves requests and responses apart until their numbers are certain (`doubt`). Otherwise, after such a gap, what each
//! side had seen of the other when it sent decides: a response cannot answer a request sent after
//! its beginning had arrived, nor one whose successor was sent on bytes that came before it. The
//! first holds as well in a connection that was joined in the middle, where the first response may
//! answer a request that was not captured.
//!
//! `side` is what is known of one direction, `step` moves it on through a message, `starts` and
//! `heads` decide what begins, `body` notes where its bytes are, `pairing` finds the request of a
//! response, `pipeline` knows when that is in doubt, `doubt` keeps what is until `positions` says
//! how far messages lie apart, and `gaps` says what becomes of it all when bytes are missing.

#![warn(
    clippy::indexing_slicing,
    clippy::arithmetic_side_effects,
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::panic
)]

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

use super::direction::Direction;
use super::transaction::Transaction;
use super::transcript::Progress;
use crate::time::Timestamp;

use doubt::{Doubt, Hidden};
pub use limits::{Counters, Limits};
use pairing::Open;
use pipeline::RequestGap;
use side::{MARKS, Phase, Side};
use step::{Input, Step};

/// How a direction ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum End {
    /// With a FIN: the sender said all.
    Fin,
    /// With a RST.
    Reset,
    /// Nothing came for long.
    Timeout,
    /// The flow had to make room, or the capture ended.
    Evicted,
}

/// What the parser has to say.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Event {
    /// A transaction ended.
    Transaction(Box<Transaction>),
    /// The connection no longer speaks HTTP/1; nothing else will come. Comes after the
    /// transaction that led to it, if one did.
    Switched {
        /// Stream offset of the first byte the client sends in the other protocol.
        request: u64,
        /// Stream offset of the first byte the server sends in the other protocol.
        response: u64,
    },
}

/// Heap memory of a transaction under way beside its heads and ranges: the lists' own, the names of
/// codings, and what the allocator adds.
const BESIDE: usize = 256;

/// One connection. See the [module](self).
#[derive(Debug, Default)]
pub struct Parser {
    limits: Limits,
    request: Side,
    response: Side,
    open: VecDeque<Open>,
    events: VecDeque<Event>,
    counters: Counters,
    last_index: u64,
    pending_bytes: usize,
    /// Heap memory of the heads in `open`.
    pending_heads: usize,
    /// Ranges and holes in the bodies of `open`.
    pending_ranges: usize,
    /// Responses to come whose requests were given up.
    shed: u64,
    /// Highest stream offset of the responses that the client is known to have seen.
    acknowledged: u64,
    /// The streams may begin within a message.
    joined: bool,
    /// The client was seen to ask before it had the answer to what it asked before.
    pipelines: bool,
    /// Responses that began, and gaps among them.
    responses: u64,
    response_gaps: u64,
    /// How things stood when the gap of the requests began that may have swallowed heads.
    request_gap: RequestGap,
    /// Requests before the next response may be missing, if the client pipelines.
    is_unproven: bool,
    /// A gap was judged as if it did not.
    trusted: bool,
    /// Responses since then that answer requests in it.
    lost_answers: Hidden,
    /// The server was seen to send an interim response.
    has_interim: bool,
    /// Messages whose pairs are not known yet, if there are any.
    doubt: Option<Box<Doubt>>,
}

impl Parser {
    /// A connection of which nothing is known yet.
    #[must_use]
    pub fn new(limits: Limits) -> Self {
        Self { limits, ..Self::default() }
    }

    /// A connection that was under way before its first byte was captured: either stream may begin
    /// with the rest of a message.
    #[must_use]
    pub fn joined(limits: Limits) -> Self {
        Self { joined: true, ..Self::new(limits) }
    }

    /// The streams are HTTP from these offsets on; what comes before them is no gap.
    #[must_use]
    pub const fn beginning_at(mut self, request: u64, response: u64) -> Self {
        self.request.next = request;
        self.response.next = response;
        self
    }

    /// The first transaction has this index, unless it is 0.
    #[must_use]
    pub fn with_first_index(mut self, index: u64) -> Self {
        self.last_index = index.saturating_sub(1);
        self
    }

    /// What bit so far.
    #[must_use]
    pub const fn counters(&self) -> &Counters {
        &self.counters
    }

    /// The next thing to know, oldest first.
    pub fn event(&mut self) -> Option<Event> {
        self.events.pop_front()
    }

    /// Transactions under way: the request began, not everything ended.
    #[must_use]
    pub fn pending(&self) -> usize {
        self.open.len()
    }

    /// These as far as they are, in the order in which they began. What is added to one until it
    /// ends is added at the end, and a message that is there stays.
    pub fn under_way(&self) -> impl Iterator<Item = (&Transaction, Progress)> {
        self.open.iter().map(|open| {
            let (request, response) = (open.request_done, open.response_done);
            (&*open.transaction, Progress::UnderWay { request, response })
        })
    }

    /// Bytes kept on the heap, about; for whoever adds them up.
    #[must_use]
    pub fn memory(&self) -> usize {
        let carried = self.request.carry.capacity().saturating_add(self.response.carry.capacity());
        let open = self.open.capacity().saturating_mul(size_of::<Open>());
        let each = size_of::<Transaction>().saturating_add(BESIDE);
        let open = open.saturating_add(self.open.len().saturating_mul(each));
        // A list is up to half empty.
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

    /// The client said that it has the response stream up to `offset` (a TCP acknowledgement).
    ///
    /// Not needed, but after gaps it tells which request a response answers. Best called before
    /// [`feed`](Self::feed) with the payload of the same packet.
    pub fn acknowledged(&mut self, offset: u64) {
        self.acknowledged = self.acknowledged.max(offset);
    }

    /// The next bytes of a stream; what lies between them and those before is taken for a
    /// [gap](Self::gap), what was fed before is ignored.
    pub fn feed(&mut self, direction: Direction, offset: u64, bytes: &[u8], time: Timestamp) {
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
        if matches!(side.phase, Phase::Opaque) {
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
                Step::Consumed(length) => at = at.saturating_add(length),
                Step::Again => {}
                Step::More => break,
            }
        }
        let side = self.side_mut(direction);
        if at >= buffer.len() || matches!(side.phase, Phase::Opaque) {
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

    const fn side(&self, direction: Direction) -> &Side {
        match direction {
            Direction::Request => &self.request,
            Direction::Response => &self.response,
        }
    }

    const fn side_mut(&mut self, direction: Direction) -> &mut Side {
        match direction {
            Direction::Request => &mut self.request,
            Direction::Response => &mut self.response,
        }
    }

    fn stray(&mut self, bytes: usize) {
        self.counters.stray_bytes = self.counters.stray_bytes.saturating_add(bytes as u64);
    }
}
