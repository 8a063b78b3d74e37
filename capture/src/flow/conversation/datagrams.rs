//! One direction of UDP: payloads one after the other.
//!
//! The payload of a datagram that comes in fragments gets its place with the first one. Payloads
//! with later places wait until the datagram is whole, or is given up.

use std::collections::VecDeque;
use std::ops::Range;
use std::time::Duration;

use protocol::decode::Portion;
use protocol::extent::Extent;
use protocol::tcp::assembler::AssemblerLimits;
use protocol::tcp::{Assembler, Bytes, Policy};
use protocol::time::Timestamp;

/// How long to wait for the next fragment of a datagram. Its sender has sent all of them at once,
/// and captures of several queues reorder by less; over a slow link each fragment takes its time.
const PATIENCE: Duration = Duration::from_millis(250);

/// Maximum number of incomplete datagrams of one direction. Above it, the oldest is given up.
const MAX_OPEN: usize = 64;

/// Gaps and conflicts of one insertion.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(in crate::flow) struct InsertionProblems {
    /// Ranges of the stream that are newly missing.
    pub(in crate::flow) gaps: u64,
    /// Payloads with bytes that differ from an earlier copy.
    pub(in crate::flow) conflicts: u64,
}

/// One direction of UDP; see the module's text.
#[derive(Debug, Default)]
pub(in crate::flow) struct Datagrams {
    stream: Assembler,
    /// The place of the next datagram.
    next: u64,
    /// The end of the last datagram that [`Datagrams::settled`] has returned.
    returned: u64,
    /// Bytes of payload that were captured, including repeated and late ones.
    captured: u64,
    rare: Option<Box<RareDatagramState>>,
}

/// State that a conversation without fragments does not need.
#[derive(Debug, Default)]
struct RareDatagramState {
    /// Datagrams that are not whole, in order of their places.
    open: VecDeque<OpenDatagram>,
    /// Ends of the datagrams that are not settled, or wait for one that is not, in order.
    ends: VecDeque<u64>,
    /// Bytes that had been captured before.
    repeated: u64,
    /// Bytes of datagrams that had been given up.
    late: u64,
}

/// A datagram that is not whole: some of its fragments have arrived.
#[derive(Clone, Copy, Debug)]
struct OpenDatagram {
    /// [`Portion::datagram`].
    datagram: u64,
    start: u64,
    /// When its latest fragment arrived.
    since: Timestamp,
}

impl Datagrams {
    pub(in crate::flow) fn stream(&self) -> &Assembler {
        &self.stream
    }

    /// Bytes of payload that were captured. Of these, the bytes that had been captured before, and
    /// the bytes that came after their datagram had been given up.
    pub(in crate::flow) fn counts(&self) -> (u64, u64, u64) {
        let rare = self.rare.as_ref();
        let (repeated, late) = rare.map_or((0, 0), |rare| (rare.repeated, rare.late));
        (self.captured, repeated, late)
    }

    /// Takes the payload of a datagram, `wire_len` bytes long, or a portion of one.
    pub(in crate::flow) fn insert(
        &mut self,
        payload: &[Extent],
        wire_len: u32,
        portion: Option<&Portion>,
        now: Timestamp,
        limits: &AssemblerLimits,
        bytes: &dyn Bytes,
    ) -> InsertionProblems {
        let conflicts = match portion {
            None => {
                let start = self.next;
                self.next = start.saturating_add(wire_len.into());
                self.note_end();
                self.put(start, payload, bytes)
            }
            Some(portion) => self.portion(payload, portion, now, bytes),
        };
        self.let_go(now);
        let mut gaps = self.settle();
        while self.stream.is_overfull(limits) && self.let_go_oldest() {
            gaps = gaps.saturating_add(self.settle());
        }
        self.stream.trim(limits);
        InsertionProblems { gaps, conflicts: conflicts.into() }
    }

    /// Lets time pass. Returns how many ranges are newly missing.
    pub(in crate::flow) fn poll(&mut self, now: Timestamp) -> u64 {
        self.let_go(now);
        self.settle()
    }

    /// Nothing more will come.
    pub(in crate::flow) fn close(&mut self) -> u64 {
        if let Some(rare) = &mut self.rare {
            rare.open = VecDeque::new();
        }
        self.settle()
    }

    /// The place of the next datagram that is settled; `None` if there are no more. To be called
    /// after each change, until there are none.
    pub(in crate::flow) fn settled(&mut self) -> Option<Range<u64>> {
        let end = match self.rare.as_mut().filter(|rare| !rare.ends.is_empty()) {
            Some(rare) => {
                let end = rare.ends.front().copied().filter(|end| *end <= self.stream.end())?;
                rare.ends.pop_front();
                end
            }
            // Without datagrams that wait there is at most one.
            None => self.stream.end(),
        };
        let range = self.returned..end;
        self.returned = end;
        (!range.is_empty()).then_some(range)
    }

    /// The time at which [`Datagrams::poll`] has something to do.
    pub(in crate::flow) fn deadline(&self) -> Option<Timestamp> {
        Some(self.rare.as_ref()?.open.front()?.since.plus(PATIENCE))
    }

    pub(in crate::flow) fn expire(&mut self, oldest: u64) {
        self.stream.expire(oldest);
    }

    pub(in crate::flow) fn shrink(&mut self) {
        self.stream.shrink();
    }

    /// Bytes of memory on the heap; an estimate.
    pub(in crate::flow) fn memory(&self) -> usize {
        let rare = self.rare.as_ref().map_or(0, |rare| {
            let open = rare.open.capacity().saturating_mul(size_of::<OpenDatagram>());
            let ends = rare.ends.capacity().saturating_mul(size_of::<u64>());
            open.saturating_add(ends).saturating_add(size_of::<RareDatagramState>())
        });
        self.stream.memory().saturating_add(rare)
    }

    /// Notes the end of the newest datagram, if it does not settle at once.
    fn note_end(&mut self) {
        let end = self.next;
        let is_waiting =
            |rare: &&mut Box<RareDatagramState>| !rare.open.is_empty() || !rare.ends.is_empty();
        if let Some(rare) = self.rare.as_mut().filter(is_waiting)
            && end > rare.ends.back().copied().unwrap_or(self.returned)
        {
            rare.ends.push_back(end);
        }
    }

    fn portion(
        &mut self,
        payload: &[Extent],
        portion: &Portion,
        now: Timestamp,
        bytes: &dyn Bytes,
    ) -> bool {
        if portion.begins {
            let open = OpenDatagram { datagram: portion.datagram, start: self.next, since: now };
            self.next = self.next.saturating_add(portion.len.into());
            self.rare.get_or_insert_default().open.push_back(open);
            self.note_end();
        }
        let rare = self.rare.get_or_insert_default();
        let found = rare.open.iter().position(|open| open.datagram == portion.datagram);
        let Some((at, open)) = found.and_then(|at| Some((at, *rare.open.get(at)?))) else {
            let unplaced = captured(payload);
            let counter = if portion.is_copy { &mut rare.repeated } else { &mut rare.late };
            *counter = counter.saturating_add(unplaced);
            self.captured = self.captured.saturating_add(unplaced);
            return false;
        };
        if let Some(open) = rare.open.get_mut(at) {
            open.since = open.since.max(now);
        }
        if portion.completes {
            rare.open.remove(at);
        } else if rare.open.len() > MAX_OPEN {
            rare.open.pop_front();
        }
        self.put(open.start.saturating_add(portion.at.into()), payload, bytes)
    }

    /// Puts a payload at its place. Extents of packet 0 are bytes that were not captured. Returns
    /// whether the payload differs from an earlier copy.
    fn put(&mut self, mut at: u64, payload: &[Extent], bytes: &dyn Bytes) -> bool {
        let mut is_conflict = false;
        for extent in payload {
            if extent.packet != 0 {
                let inserted = self.stream.insert(at, *extent, Policy::First, bytes);
                is_conflict |= inserted.conflicting > 0;
                if inserted.seen > 0 || inserted.late > 0 {
                    let rare = self.rare.get_or_insert_default();
                    rare.repeated = rare.repeated.saturating_add(inserted.seen);
                    rare.late = rare.late.saturating_add(inserted.late);
                }
            }
            at = at.saturating_add(extent.len.into());
        }
        self.captured = self.captured.saturating_add(captured(payload));
        is_conflict
    }

    /// Gives up the datagrams that are overdue.
    fn let_go(&mut self, now: Timestamp) {
        while self.deadline().is_some_and(|deadline| deadline <= now) && self.let_go_oldest() {}
    }

    /// Gives up the oldest incomplete datagram; `false` if there are no incomplete datagrams.
    fn let_go_oldest(&mut self) -> bool {
        self.rare.as_mut().is_some_and(|rare| rare.open.pop_front().is_some())
    }

    /// Settles all payloads that no longer wait. Returns how many ranges are newly missing.
    fn settle(&mut self) -> u64 {
        let open = self.rare.as_ref().and_then(|rare| rare.open.front());
        let end = open.map_or(self.next, |open| open.start);
        let mut gaps = 0_u64;
        self.stream.take();
        while self.stream.end() < end
            && let Some(gap) = self.stream.skip(end)
        {
            gaps = gaps.saturating_add(self.stream.has_gap_from(gap.start).into());
        }
        gaps
    }
}

fn captured(payload: &[Extent]) -> u64 {
    let captured = payload.iter().filter(|extent| extent.packet != 0);
    captured.map(|extent| u64::from(extent.len)).sum()
}
