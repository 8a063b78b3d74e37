//! How flows end and leave: their time has come, room is short, or their packets are gone.
//!
//! However many flows leave at a time, readers get at the table in between.

use std::sync::Arc;
use std::sync::atomic::Ordering;

use protocol::decode::Decoder;
use protocol::time::Timestamp;

use super::AFTERWARDS;
use super::Engine;
use super::SLICE;
use super::retire;
use crate::flow::conversation::Flow;
use crate::flow::recorder::RecorderJob;
use crate::flow::table::{FlowPlace, FlowTable};
use crate::flow::window::EngineWindow;

/// Maximum number of flows that are processed before readers get at the table, when time has passed
/// or memory is short. More than the number that can begin in that time.
const TURN: usize = 4 * SLICE;

/// One part in this many of the memory for flows is left free, for memory that cannot be counted:
/// batches on their way to the recorder and back, as many as its queues hold, and free memory
/// between allocated blocks that is too small for the next allocation.
const UNCOUNTED: usize = 5;

impl Engine {
    /// Has the timer look at a flow at the time `at` or earlier.
    pub(super) fn schedule(&mut self, table: &mut FlowTable, place: FlowPlace, at: Timestamp) {
        if let Some(scheduled) = table.scheduled(place)
            && at.nanoseconds() < *scheduled
        {
            *scheduled = at.nanoseconds();
            self.timers.schedule(at, place);
        }
    }

    /// Processes some of the flows whose time has come. Returns whether these were all.
    pub(super) fn timers_due(
        &mut self,
        table: &mut FlowTable,
        now: Timestamp,
        window: &EngineWindow<'_>,
    ) -> bool {
        let due = self.timers.due(now);
        self.due.extend(due.into_iter().map(|place| (now, place)));
        for _ in 0..TURN {
            let Some((due, place)) = self.due.pop_front() else { break };
            match table.scheduled(place) {
                Some(scheduled) if *scheduled <= due.nanoseconds() => *scheduled = u64::MAX,
                // The flow is gone, or it is scheduled twice and the other time is the one that
                // counts.
                _ => continue,
            }
            self.with(table, place, window, |flow, tools| flow.poll(now, tools));
            if let Some(flow) = table.get(place)
                && flow.ended.is_none()
            {
                let deadline = flow.deadline(&self.settings);
                self.schedule(table, place, deadline);
            }
            table.touched(place);
        }
        let latest = now.plus(AFTERWARDS);
        // A time after `latest` means that the clock has gone back since.
        let is_rested = self.rest(table, TURN, |at| at <= now || at > latest);
        self.due.is_empty() && is_rested
    }

    /// At most `most` flows that ended long enough ago give back the memory that reading them does
    /// not need. Returns whether these were all.
    fn rest(
        &mut self,
        table: &mut FlowTable,
        most: usize,
        is_enough: impl Fn(Timestamp) -> bool,
    ) -> bool {
        for _ in 0..most {
            let Some((_, place)) = self.resting.front().copied().filter(|(at, _)| is_enough(*at))
            else {
                return true;
            };
            self.resting.pop_front();
            retire(table, place);
        }
        false
    }

    /// Enforces the limits. The flows that have been silent for longest go first.
    pub(super) fn make_room(&mut self, table: &mut FlowTable, window: &EngineWindow<'_>) {
        let limits = self.options.limits;
        while table.active() > limits.open
            && let Some(place) = table.oldest_active()
        {
            self.with(table, place, window, |flow, tools| flow.close(true, tools));
            retire(table, place);
        }
        let others = self.shared.memory_beside_flows();
        let used = table.memory().saturating_add(others);
        let limit = limits.memory.saturating_sub(limits.memory / UNCOUNTED);
        let most = self.backoff.limit(limit, used).saturating_sub(others);
        // Before any flow leaves, release the memory kept only for stragglers.
        if table.memory() > most {
            self.rest(table, TURN, |_| true);
        }
        while (table.len() > limits.flows || table.memory() > most)
            && let Some(place) = table.oldest()
        {
            self.shared.dropped.fetch_add(1, Ordering::Relaxed);
            self.mark_leaving(table, place, window);
        }
    }

    /// Has a flow leave the tree after everything about it has been recorded.
    fn mark_leaving(&mut self, table: &mut FlowTable, place: FlowPlace, window: &EngineWindow<'_>) {
        self.with(table, place, window, |flow, tools| flow.close(true, tools));
        if let Some(id) = table.mark_leaving(place) {
            self.outbox.push(RecorderJob::Gone { id });
        }
    }

    /// Flows leave with their last packet. An error means that the recorder is gone.
    pub(super) fn expire(&mut self, oldest: u64, oldest_chunk: u64) -> Result<(), ()> {
        if oldest <= self.oldest {
            return Ok(());
        }
        self.oldest = oldest;
        let shared = Arc::clone(&self.shared);
        shared.oldest.store(oldest, Ordering::Relaxed);
        shared.locator.write().expire(oldest_chunk);
        let window = shared.window(u64::MAX, &[]);
        loop {
            let mut table = shared.table.write();
            for _ in 0..SLICE {
                let is_gone =
                    |flow: &mut Flow| flow.packets.last().is_none_or(|last| last < oldest);
                match table.oldest() {
                    Some(place) if table.get(place).is_some_and(is_gone) => {
                        self.mark_leaving(&mut table, place, &window);
                    }
                    _ => return Ok(()),
                }
            }
            drop(table);
            self.deliver()?;
        }
    }

    /// Lets time pass without packets. An error means that the recorder is gone.
    pub(super) fn pass_time(&mut self) -> Result<(), ()> {
        let (newest, Some(seen)) = self.clock else { return Ok(()) };
        if self.is_over {
            return Ok(());
        }
        let shared = Arc::clone(&self.shared);
        let window = shared.window(u64::MAX, &[]);
        let now = newest.plus(seen.elapsed());
        self.give_up(|decoder| {
            decoder.pass_time(now);
            false
        });
        loop {
            let mut table = shared.table.write();
            let is_done = self.timers_due(&mut table, now, &window);
            // A flow's memory can grow without a packet too, such as when bytes it held back are
            // read.
            self.make_room(&mut table, &window);
            self.forget(&mut table);
            drop(table);
            if is_done {
                return Ok(());
            }
            self.deliver()?;
        }
    }

    /// Has the decoder give up datagrams, as long as `some` returns that there are more.
    fn give_up(&mut self, some: impl Fn(&mut Decoder) -> bool) {
        let Some(mut decoder) = self.decoder.take() else { return };
        let shared = Arc::clone(&self.shared);
        let usual = shared.store.header().map(|header| header.link_type);
        let window = shared.window(u64::MAX, &[]);
        loop {
            let is_more = some(&mut decoder);
            if decoder.has_given_up() {
                self.given_up(&mut shared.table.write(), &mut decoder, usual, &window);
            } else if !is_more {
                break;
            }
        }
        self.decoder = Some(decoder);
    }

    /// Ends all flows under way, because the capture has ended. An error means that the recorder is
    /// gone.
    pub(super) fn close_all(&mut self) -> Result<(), ()> {
        let shared = Arc::clone(&self.shared);
        let window = shared.window(u64::MAX, &[]);
        self.give_up(Decoder::give_up_oldest);
        loop {
            let mut table = shared.table.write();
            for _ in 0..SLICE {
                let Some(place) = table.oldest_active() else {
                    self.rest(&mut table, usize::MAX, |_| true);
                    self.is_over = true;
                    return Ok(());
                };
                self.finish(&mut table, place, &window);
            }
            self.make_room(&mut table, &window);
            drop(table);
            self.deliver()?;
        }
    }

    /// Keeps the lists of waiting flows as limited as the table. Flows that have left the table
    /// stay in the timers until their time, and so do flows that have ended.
    pub(super) fn forget(&mut self, table: &mut FlowTable) {
        if self.timers.len() > table.active().saturating_mul(2).saturating_add(TURN) {
            self.timers.clear();
            self.due.clear();
            for (place, at) in table.all_scheduled().filter(|(_, at)| *at != u64::MAX) {
                self.timers.schedule(Timestamp::from_nanoseconds(at), place);
            }
        }
        let most = self.options.limits.open.min(table.len().saturating_add(TURN));
        self.rest(table, self.resting.len().saturating_sub(most), |_| true);
        if self.resting.len() < self.resting.capacity() / 4 {
            self.resting.shrink_to(self.resting.len().saturating_mul(2));
        }
        // Many transactions may have waited for an acknowledgment until the same moment.
        if self.due.len() < self.due.capacity() / 4 {
            self.due.shrink_to(self.due.len().saturating_mul(2));
        }
        let waiting = self.resting.capacity().saturating_add(self.due.capacity());
        let waiting = waiting.saturating_mul(size_of::<(Timestamp, FlowPlace)>());
        let memory = waiting.saturating_add(self.timers.memory());
        self.shared.waiting.store(memory, Ordering::Relaxed);
    }
}
