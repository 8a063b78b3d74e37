//! Requests and responses whose pairs are not known yet.
//!
//! Responses come in the order of requests. If the client pipelines, a gap in either stream may
//! have swallowed whole messages, and the captured bytes do not say how many. Later messages may
//! show it: if two requests were under way and one answer lies in the gap, the answer that came
//! belongs to the second request. So requests and responses wait here, each with its number in a
//! run without gaps, until the [`Positions`] of two runs are certain. Messages whose positions
//! never become certain stay unpaired.

use std::collections::VecDeque;

use super::positions::Positions;

/// Maximum number of waiting messages of one direction. Clients seldom have more requests under
/// way, and waiting messages are not in any log yet.
const WAITING: usize = 64;

/// The number of messages that missing bytes may contain.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(super) struct Hidden {
    /// Minimum and maximum, `least <= most`.
    pub(super) least: u64,
    pub(super) most: u64,
}

impl Hidden {
    /// Exactly one.
    pub(super) const ONE: Self = Self { least: 1, most: 1 };

    /// These messages without the `answered` ones.
    pub(super) const fn without(self, answered: Self) -> Self {
        Self {
            least: self.least.saturating_sub(answered.most),
            most: self.most.saturating_sub(answered.least),
        }
    }

    /// The sum of both.
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
    /// The response to this request will never be known.
    UnknownRequest(u64),
    /// The request of this response will never be known.
    UnknownResponse(u64),
}

#[derive(Clone, Copy, Debug)]
struct WaitingMessages {
    /// Number in its run, from 0.
    number: i64,
    /// Index of its transaction.
    index: u64,
    /// Offset in the stream of responses. For a response, its beginning. For a request, the end of
    /// what the client had when it sent the request.
    at: u64,
}

/// A sequence of messages of one direction with nothing missing between them.
#[derive(Debug, Default)]
struct MessageRun {
    /// Its number in [`Positions`].
    run: usize,
    /// Number of messages so far.
    count: i64,
    /// [`WaitingMessages::at`] of the newest message.
    newest: u64,
    waiting: VecDeque<WaitingMessages>,
}

impl MessageRun {
    fn push(&mut self, index: u64, at: u64) -> WaitingMessages {
        let waiting = WaitingMessages { number: self.count, index, at };
        self.count = self.count.saturating_add(1);
        self.newest = at;
        self.waiting.push_back(waiting);
        waiting
    }

    /// Returns `true` if a message waits here that may have the position of message `number` of
    /// another run. That run lies between `least` and `most` after this one.
    fn may_hold(&self, number: i64, (least, most): (i64, i64)) -> bool {
        let first = number.saturating_add(least);
        let at = self.waiting.partition_point(|one| one.number < first);
        self.waiting.get(at).is_some_and(|one| one.number <= number.saturating_add(most))
    }

    /// Number of the last known message before `offset`.
    fn last_before(&self, offset: u64) -> Option<i64> {
        if self.count > 0 && self.newest < offset {
            return Some(self.count.saturating_sub(1));
        }
        self.waiting.iter().rev().find(|one| one.at < offset).map(|one| one.number)
    }
}

/// The waiting messages. See the [module](self).
#[derive(Debug, Default)]
pub(super) struct PairingDoubt {
    positions: Positions,
    /// Oldest first, as all lists here. Empty if no pair will ever be certain again.
    requests: VecDeque<MessageRun>,
    responses: VecDeque<MessageRun>,
    given_up: Vec<Decision>,
}

impl PairingDoubt {
    /// Nothing is known, and no pair ever will be.
    pub(super) fn without_hope() -> Self {
        Self::default()
    }

    /// The next response answers the first request, apart from requests hidden before it.
    pub(super) fn begin() -> Self {
        let mut doubt = Self::default();
        for runs in [&mut doubt.requests, &mut doubt.responses] {
            if let Some(run) = doubt.positions.add() {
                runs.push_back(MessageRun { run, ..MessageRun::default() });
            }
        }
        if let (Some(request), Some(response)) = (doubt.requests.back(), doubt.responses.back()) {
            doubt.positions.set(request.run, response.run, 0, 0);
        }
        doubt
    }

    /// Approximate heap memory in bytes.
    pub(super) fn memory(&self) -> usize {
        let runs = self.requests.iter().chain(&self.responses);
        let waiting = runs.map(|run| run.waiting.capacity()).fold(0, usize::saturating_add);
        size_of::<Self>().saturating_add(waiting.saturating_mul(size_of::<WaitingMessages>()))
    }

    fn is_hopeless(&self) -> bool {
        self.requests.is_empty()
    }

    /// Adds a request. The client had the responses up to `floor` when it sent the request.
    pub(super) fn request(&mut self, index: u64, floor: u64, hidden: Hidden) {
        if hidden.is_possible() && !self.is_hopeless() {
            self.begin_run(DoubtfulSide::Requests, hidden);
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
        self.trim(DoubtfulSide::Requests);
    }

    /// Adds a response that begins at `at`, after others that may be `hidden`. At most `unseen`
    /// requests may be under way that were not captured.
    pub(super) fn response(&mut self, index: u64, at: u64, hidden: Hidden, unseen: u64) {
        if hidden.is_possible() && !self.is_hopeless() {
            self.begin_run(DoubtfulSide::Responses, hidden);
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
        self.trim(DoubtfulSide::Responses);
    }

    /// The newest response was an interim one, and the final one will take its place. If it was
    /// paired with a request, that request waits again.
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
                    run.waiting.insert(place, WaitingMessages { number, index, at });
                    return;
                }
            }
        }
    }

    /// Decides on all messages whose pairs are certain by now. They no longer wait.
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

    /// Returns `true` if the next response certainly answers the oldest waiting request, or the
    /// next one to come.
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

    /// Gives up all waiting messages, because no more bytes come or there is no room.
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

    /// Finds messages whose counterparts do not wait here and will not come.
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

    fn begin_run(&mut self, side: DoubtfulSide, hidden: Hidden) {
        let run = self.positions.add().or_else(|| {
            self.remove_oldest_run();
            self.positions.add()
        });
        let runs = match side {
            DoubtfulSide::Requests => &mut self.requests,
            DoubtfulSide::Responses => &mut self.responses,
        };
        let (Some(run), Some(last)) = (run, runs.back()) else { return };
        let (least, most) = hidden.bounds();
        let count = last.count;
        let (least, most) = (count.saturating_add(least), count.saturating_add(most));
        self.positions.set(last.run, run, least, most);
        runs.push_back(MessageRun { run, ..MessageRun::default() });
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

    /// Gives up the oldest message if there are too many.
    fn trim(&mut self, side: DoubtfulSide) {
        let runs = match side {
            DoubtfulSide::Requests => &mut self.requests,
            DoubtfulSide::Responses => &mut self.responses,
        };
        if runs.iter().map(|run| run.waiting.len()).sum::<usize>() <= WAITING {
            return;
        }
        let oldest = runs.iter_mut().find_map(|run| run.waiting.pop_front());
        self.given_up.extend(oldest.map(|oldest| match side {
            DoubtfulSide::Requests => Decision::UnknownRequest(oldest.index),
            DoubtfulSide::Responses => Decision::UnknownResponse(oldest.index),
        }));
    }
}

#[derive(Clone, Copy, Debug)]
enum DoubtfulSide {
    Requests,
    Responses,
}
