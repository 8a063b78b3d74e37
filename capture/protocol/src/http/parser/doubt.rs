//! Requests and responses whose pairs are not known yet.
//!
//! Responses come in the order of requests. If the client pipelines, a gap in either stream may have
//! swallowed whole messages, and nothing that is left says how many. What follows may say it: of two
//! requests that were on the way, one answer lies in the gap, so the one that came is that of the
//! second. So requests and responses wait here, each with its number in a run without gaps, until
//! the [`Positions`] of two runs are certain. What never becomes certain stays apart.

use std::collections::VecDeque;

use super::positions::Positions;

/// Maximum number of messages of one direction that wait. Clients seldom have more requests under way,
/// and messages that wait are in no log yet.
const WAITING: usize = 64;

/// Messages that bytes which are missing may have held.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(super) struct Hidden {
    /// As many at least, and at most. `least <= most`
    pub(super) least: u64,
    pub(super) most: u64,
}

impl Hidden {
    /// Exactly one.
    pub(super) const ONE: Self = Self { least: 1, most: 1 };

    /// Without as many as `answered`.
    pub(super) const fn without(self, answered: Self) -> Self {
        Self {
            least: self.least.saturating_sub(answered.most),
            most: self.most.saturating_sub(answered.least),
        }
    }

    /// These and those.
    pub(super) const fn and(self, other: Self) -> Self {
        Self {
            least: self.least.saturating_add(other.least),
            most: self.most.saturating_add(other.most),
        }
    }

    pub(super) const fn is_possible(self) -> bool {
        self.most > 0
    }

    fn bounds(self) -> (i64, i64) {
        let bound = |count| i64::try_from(count).unwrap_or(i64::MAX).min(1 << 40);
        (bound(self.least), bound(self.most))
    }
}

/// The end of a message's wait. Numbers are indexes of transactions.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Decision {
    /// They belong together.
    Pair { request: u64, response: u64 },
    /// The answer to this request is missing.
    Unanswered(u64),
    /// The request of this response is missing.
    Orphan(u64),
    /// The response to this request will not be known.
    UnknownRequest(u64),
    /// The request of this response will not be known.
    UnknownResponse(u64),
}

#[derive(Clone, Copy, Debug)]
struct Waiting {
    /// From 0 in its run.
    number: i64,
    /// Of the transaction.
    index: u64,
    /// Offset in the stream of responses: where the response begins; how far the client had them
    /// when it sent the request.
    at: u64,
}

/// Messages of one direction with nothing missing among them.
#[derive(Debug, Default)]
struct Run {
    /// Its number in [`Positions`].
    run: usize,
    /// Messages so far.
    count: i64,
    /// The [`Waiting::at`] of the newest of them.
    newest: u64,
    waiting: VecDeque<Waiting>,
}

impl Run {
    fn push(&mut self, index: u64, at: u64) -> Waiting {
        let waiting = Waiting { number: self.count, index, at };
        self.count = self.count.saturating_add(1);
        self.newest = at;
        self.waiting.push_back(waiting);
        waiting
    }

    /// True if a message waits here whose position may be that of message `number` of another run,
    /// which lies so much after this one.
    fn may_hold(&self, number: i64, (least, most): (i64, i64)) -> bool {
        let first = number.saturating_add(least);
        let at = self.waiting.partition_point(|one| one.number < first);
        self.waiting.get(at).is_some_and(|one| one.number <= number.saturating_add(most))
    }

    /// Number of the last message before `offset` that is remembered.
    fn last_before(&self, offset: u64) -> Option<i64> {
        if self.count > 0 && self.newest < offset {
            return Some(self.count.saturating_sub(1));
        }
        self.waiting.iter().rev().find(|one| one.at < offset).map(|one| one.number)
    }
}

/// The messages that wait. See the [module](self).
#[derive(Debug, Default)]
pub(super) struct Doubt {
    positions: Positions,
    /// Oldest first, as all lists here. Empty if nothing will ever be certain again.
    requests: VecDeque<Run>,
    responses: VecDeque<Run>,
    given_up: Vec<Decision>,
}

impl Doubt {
    /// Nothing is known, and will be.
    pub(super) fn without_hope() -> Self {
        Self::default()
    }

    /// The next response answers the first request, those aside that are hidden before it.
    pub(super) fn begin() -> Self {
        let mut doubt = Self::default();
        for runs in [&mut doubt.requests, &mut doubt.responses] {
            if let Some(run) = doubt.positions.add() {
                runs.push_back(Run { run, ..Run::default() });
            }
        }
        if let (Some(request), Some(response)) = (doubt.requests.back(), doubt.responses.back()) {
            doubt.positions.set(request.run, response.run, 0, 0);
        }
        doubt
    }

    /// Bytes of memory on the heap, about.
    pub(super) fn memory(&self) -> usize {
        let runs = self.requests.iter().chain(&self.responses);
        let waiting = runs.map(|run| run.waiting.capacity()).fold(0, usize::saturating_add);
        size_of::<Self>().saturating_add(waiting.saturating_mul(size_of::<Waiting>()))
    }

    fn is_hopeless(&self) -> bool {
        self.requests.is_empty()
    }

    /// A request follows, sent when the client had the responses up to `floor`.
    pub(super) fn request(&mut self, index: u64, floor: u64, hidden: Hidden) {
        if hidden.is_possible() && !self.is_hopeless() {
            self.begin_run(Side::Requests, hidden);
        }
        let Some(run) = self.requests.back_mut() else {
            self.given_up.push(Decision::UnknownRequest(index));
            return;
        };
        let request = run.push(index, floor);
        // Responses that the client had seen answer requests that it had sent before.
        for response in &self.responses {
            if let Some(before) = response.last_before(floor) {
                let most = request.number.saturating_sub(1).saturating_sub(before);
                self.positions.limit(run.run, response.run, most);
            }
        }
        self.trim(Side::Requests);
    }

    /// A response begins at `at`, after others that may be `hidden`; requests may be on the way that
    /// were not captured, but no more than `unseen`.
    pub(super) fn response(&mut self, index: u64, at: u64, hidden: Hidden, unseen: u64) {
        if hidden.is_possible() && !self.is_hopeless() {
            self.begin_run(Side::Responses, hidden);
        }
        let Some(run) = self.responses.back_mut() else {
            self.given_up.push(Decision::UnknownResponse(index));
            return;
        };
        let response = run.push(index, at);
        if let Some(newest) = self.requests.back() {
            let unseen = i64::try_from(unseen).unwrap_or(i64::MAX);
            let most = newest.count.saturating_sub(1).saturating_add(unseen);
            self.positions.limit(newest.run, run.run, most.saturating_sub(response.number));
        }
        for requests in &self.requests {
            if let Some(later) = requests.waiting.iter().find(|request| request.at > at) {
                let most = later.number.saturating_sub(1).saturating_sub(response.number);
                self.positions.limit(requests.run, run.run, most);
            }
        }
        self.trim(Side::Responses);
    }

    /// The newest response was an interim one, and the final one is to come in its place. The
    /// request that it was given to, if it was, waits again.
    pub(super) fn take_back(&mut self, request: Option<(u64, u64)>) {
        let Some(run) = self.responses.back_mut() else { return };
        let number = run.count.saturating_sub(1);
        run.count = number;
        if run.waiting.back().is_some_and(|last| last.number == number) {
            run.waiting.pop_back();
        }
        let responses = run.run;
        let Some((index, at)) = request else { return };
        for run in &mut self.requests {
            if let Some(shift) = self.positions.exactly(run.run, responses) {
                let number = number.saturating_add(shift);
                let is_here = (0..run.count).contains(&number);
                if is_here {
                    let place = run.waiting.partition_point(|one| one.number < number);
                    run.waiting.insert(place, Waiting { number, index, at });
                    return;
                }
            }
        }
    }

    /// Decides on all messages whose pairs are certain by now. They wait no more.
    pub(super) fn decide(&mut self) -> Vec<Decision> {
        let mut decisions = std::mem::take(&mut self.given_up);
        if self.positions.is_contradictory() {
            self.give_up(&mut decisions);
            return decisions;
        }
        self.find_pairs(&mut decisions);
        self.find_lonely(&mut decisions);
        for runs in [&mut self.requests, &mut self.responses] {
            let newest = runs.back().map(|run| run.run);
            runs.retain(|run| {
                let is_needed = !run.waiting.is_empty() || Some(run.run) == newest;
                if !is_needed {
                    self.positions.remove(run.run);
                }
                is_needed
            });
        }
        decisions
    }

    /// True if the next response answers the oldest request that waits, or the next one to come.
    pub(super) fn is_over(&self) -> bool {
        let (Some(request), Some(response)) = (self.requests.back(), self.responses.back()) else {
            return false;
        };
        let next = request.waiting.front().map_or(request.count, |first| first.number);
        response.waiting.is_empty()
            && self.requests.len() == 1
            && self.responses.len() == 1
            && self.positions.exactly(request.run, response.run)
                == Some(next.saturating_sub(response.count))
    }

    /// Nothing more comes, or there is no room: what waits will not be known.
    pub(super) fn give_up(&mut self, decisions: &mut Vec<Decision>) {
        decisions.append(&mut self.given_up);
        for run in self.requests.drain(..) {
            decisions.extend(run.waiting.iter().map(|one| Decision::UnknownRequest(one.index)));
        }
        for run in self.responses.drain(..) {
            decisions.extend(run.waiting.iter().map(|one| Decision::UnknownResponse(one.index)));
        }
    }

    fn find_pairs(&mut self, decisions: &mut Vec<Decision>) {
        for responses in self.responses.iter_mut().filter(|run| !run.waiting.is_empty()) {
            for requests in self.requests.iter_mut().filter(|run| !run.waiting.is_empty()) {
                let Some(shift) = self.positions.exactly(requests.run, responses.run) else {
                    continue;
                };
                responses.waiting.retain(|response| {
                    let number = response.number.saturating_add(shift);
                    let at = requests.waiting.binary_search_by_key(&number, |one| one.number);
                    let request = at.ok().and_then(|at| requests.waiting.remove(at));
                    if let Some(request) = request {
                        let (request, response) = (request.index, response.index);
                        decisions.push(Decision::Pair { request, response });
                    }
                    request.is_none()
                });
            }
        }
    }

    /// Finds messages whose counterparts are not among those that wait, and will not come.
    fn find_lonely(&mut self, decisions: &mut Vec<Decision>) {
        let Self { positions, requests, responses, .. } = self;
        for run in requests.iter_mut() {
            let others: Vec<_> = responses
                .iter()
                .map(|other| (other, positions.between(other.run, run.run)))
                .collect();
            run.waiting.retain(|request| {
                let is_passed = others.iter().any(|(other, (_, most))| {
                    request.number.saturating_add(*most) < other.count.saturating_sub(1)
                });
                let is_kept = !is_passed
                    || others.iter().any(|(other, shift)| other.may_hold(request.number, *shift));
                if !is_kept {
                    decisions.push(Decision::Unanswered(request.index));
                }
                is_kept
            });
        }
        for run in responses.iter_mut() {
            let others: Vec<_> = requests
                .iter()
                .map(|other| (other, positions.between(other.run, run.run)))
                .collect();
            run.waiting.retain(|response| {
                let may_answer_next = others.last().is_some_and(|(newest, (_, most))| {
                    response.number.saturating_add(*most) >= newest.count
                });
                let is_kept = may_answer_next
                    || others.iter().any(|(other, shift)| other.may_hold(response.number, *shift));
                if !is_kept {
                    decisions.push(Decision::Orphan(response.index));
                }
                is_kept
            });
        }
    }

    fn begin_run(&mut self, side: Side, hidden: Hidden) {
        let run = self.positions.add().or_else(|| {
            self.remove_oldest_run();
            self.positions.add()
        });
        let runs = match side {
            Side::Requests => &mut self.requests,
            Side::Responses => &mut self.responses,
        };
        let (Some(run), Some(last)) = (run, runs.back()) else { return };
        let (least, most) = hidden.bounds();
        let count = last.count;
        let (least, most) = (count.saturating_add(least), count.saturating_add(most));
        self.positions.set(last.run, run, least, most);
        runs.push_back(Run { run, ..Run::default() });
    }

    fn remove_oldest_run(&mut self) {
        let from_requests = self.requests.len() > self.responses.len();
        let runs = if from_requests { &mut self.requests } else { &mut self.responses };
        let Some(run) = runs.pop_front() else { return };
        self.positions.remove(run.run);
        let indexes = run.waiting.iter().map(|one| one.index);
        if from_requests {
            self.given_up.extend(indexes.map(Decision::UnknownRequest));
        } else {
            self.given_up.extend(indexes.map(Decision::UnknownResponse));
        }
    }

    /// Gives up the oldest of too many.
    fn trim(&mut self, side: Side) {
        let runs = match side {
            Side::Requests => &mut self.requests,
            Side::Responses => &mut self.responses,
        };
        if runs.iter().map(|run| run.waiting.len()).sum::<usize>() <= WAITING {
            return;
        }
        let oldest = runs.iter_mut().find_map(|run| run.waiting.pop_front());
        self.given_up.extend(oldest.map(|oldest| match side {
            Side::Requests => Decision::UnknownRequest(oldest.index),
            Side::Responses => Decision::UnknownResponse(oldest.index),
        }));
    }
}

#[derive(Clone, Copy, Debug)]
enum Side {
    Requests,
    Responses,
}
