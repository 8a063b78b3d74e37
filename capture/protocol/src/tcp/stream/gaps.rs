//! When to give up bytes that were not seen.

use std::time::Duration;

use super::{Announce, Stream, passed};
use crate::tcp::segment::ConnectionSettings;
use crate::time::Timestamp;

/// Holes below `target` that are given up after a while.
#[derive(Clone, Copy, Debug)]
pub(super) struct Suspicion {
    target: u64,
    since: Timestamp,
    pub(super) segments: u16,
}

/// Facts about the receiver of a stream.
#[derive(Clone, Copy, Debug)]
pub(in crate::tcp) struct ReceiverFacts {
    /// Any packet of it was seen.
    pub(in crate::tcp) is_seen: bool,
    /// Its own FIN was seen.
    pub(in crate::tcp) has_ended: bool,
}

impl Stream {
    /// Announces data that is in order, and gives up holes that have waited long enough.
    pub(in crate::tcp) fn advance(
        &mut self,
        receiver: ReceiverFacts,
        now: Timestamp,
        settings: &ConnectionSettings,
        announce: &mut Announce<'_>,
    ) {
        self.end_padding(now, settings);
        while self.assembler.is_overfull(&settings.limits) {
            announce.data(&mut self.assembler);
            announce.gap(self.assembler.give_way());
            self.held = None;
        }
        announce.data(&mut self.assembler);
        if self.held.is_none() {
            self.suspect(receiver, now, settings, announce);
        }
        self.assembler.trim(&settings.limits);
        let is_sure = self.is_fin_acked() || !receiver.is_seen;
        if self.fin == Some(self.assembler.end()) && is_sure && !self.ended {
            self.ended = true;
            announce.ended();
        }
    }

    fn suspect(
        &mut self,
        receiver: ReceiverFacts,
        now: Timestamp,
        settings: &ConnectionSettings,
        announce: &mut Announce<'_>,
    ) {
        let ReceiverFacts { is_seen: is_receiver_seen, has_ended } = receiver;
        loop {
            let target = if is_receiver_seen { self.proven(has_ended) } else { self.highest };
            if target <= self.assembler.end() {
                self.suspicion = None;
                return;
            }
            let end = self.assembler.end();
            let Some(suspicion) = self.suspicion.as_deref().filter(|old| old.target > end) else {
                let suspicion = Suspicion { target, since: now, segments: 0 };
                self.suspicion = Some(Box::new(suspicion));
                return;
            };
            let target = suspicion.target;
            let wait = self.patience(is_receiver_seen, settings);
            let is_enough = is_receiver_seen && suspicion.segments >= settings.gap_segments;
            if !is_enough && !passed(suspicion.since, now, wait) {
                return;
            }
            self.suspicion = None;
            self.give_up(target, announce);
        }
    }

    fn patience(&self, is_receiver_seen: bool, settings: &ConnectionSettings) -> Duration {
        if is_receiver_seen { settings.gap_wait } else { settings.one_sided_wait }
    }

    /// Stream offset below which the other side has received every byte, a FIN excluded.
    /// `has_receiver_ended`: that side has sent its own FIN.
    pub(super) fn proven(&self, has_receiver_ended: bool) -> u64 {
        let acked = self.acked.unwrap_or(0).min(self.fin.unwrap_or(u64::MAX));
        if self.counters.packets == 0 {
            let may_be_fin = has_receiver_ended || self.acked_one;
            return acked.saturating_sub(may_be_fin.into());
        }
        let seen = self.highest.max(self.assembler.end());
        if acked == seen.saturating_add(1) { seen } else { acked }
    }

    /// Gives up all holes below `target`, and announces the data between them.
    pub(super) fn give_up(&mut self, target: u64, announce: &mut Announce<'_>) {
        self.assembler.raise_limit(target);
        announce.data(&mut self.assembler);
        while self.assembler.end() < target {
            announce.gap(self.assembler.skip(target));
            announce.data(&mut self.assembler);
        }
        self.highest = self.highest.max(target);
    }

    /// The latest time for the next call of [`Stream::advance`].
    pub(in crate::tcp) fn deadline(
        &self,
        is_receiver_seen: bool,
        settings: &ConnectionSettings,
    ) -> Option<Timestamp> {
        let held = self.held.as_deref().map(|(since, _)| since.plus(settings.pickup_wait));
        let patience = self.patience(is_receiver_seen, settings);
        let suspect = self.suspicion.as_ref().map(|suspicion| suspicion.since.plus(patience));
        let padding = self.padding_deadline(settings);
        held.into_iter().chain(suspect).chain(padding).min()
    }
}
