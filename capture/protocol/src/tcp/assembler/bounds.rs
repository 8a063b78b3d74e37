//! Limits of one direction, and what is dropped when one is reached.

use std::ops::Range;

use super::Assembler;

/// Limits of one direction. [`AssemblerLimitHits`] counts how often each was reached.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct AssemblerLimits {
    /// Extents that wait after a hole. 16,384 full segments are 23 MB and cost 1 MiB. The largest
    /// receive buffer that Linux uses by itself (6 MB) holds less than that out of order.
    pub pending: usize,
    /// Holes before waiting data. If every second segment of such a buffer is lost, there are
    /// 2,200; a sender with selective acknowledgments does not get much further.
    pub holes: usize,
    /// Extents of the whole stream, about four bytes each. 2^26 are a stream of 90 GB in full
    /// segments, and 256 MiB of memory. Beyond that, the oldest bytes expire.
    pub extents: usize,
    /// Ranges of missing bytes that are remembered one by one, 16 bytes each. Beyond that, the
    /// oldest ranges of the stream and the bytes between them expire, until half as many are left.
    pub gaps: usize,
}

impl Default for AssemblerLimits {
    fn default() -> Self {
        Self { pending: 16_384, holes: 4_096, extents: 1 << 26, gaps: 65_536 }
    }
}

/// How often each limit of [`AssemblerLimits`] was reached.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct AssemblerLimitHits {
    /// Holes given up because too much data waited after them.
    pub holes: u64,
    /// Extents that expired although their packets were still there.
    pub extents: u64,
}

impl Assembler {
    /// Returns `true` if waiting data exceeds a limit of `limits`, so that the first hole has to be
    /// given up.
    #[must_use]
    pub fn is_overfull(&self, limits: &AssemblerLimits) -> bool {
        self.rare.as_ref().is_some_and(|rare| {
            rare.pending.len() > limits.pending || self.holes_waiting() > limits.holes
        })
    }

    /// Reduces waiting data after [`Assembler::is_overfull`]: settles bytes that were kept open, or
    /// gives up the first hole. Returns the hole, if one was given up.
    pub fn give_way(&mut self) -> Option<Range<u64>> {
        let first = self.first_pending()?;
        if let Some(rare) = &mut self.rare {
            rare.bites.holes = rare.bites.holes.saturating_add(1);
        }
        let limit = std::mem::replace(&mut self.limit, u64::MAX);
        let gap = self.skip(first);
        self.settle();
        self.limit = limit;
        gap
    }

    /// Keeps the settled part within `limits`. Call it after anything that may have settled bytes.
    pub fn trim(&mut self, limits: &AssemblerLimits) {
        let mut over = self.settled.len().saturating_sub(limits.extents);
        if over > 0 {
            let bites =
                self.settled.drop_front(|_| over.checked_sub(1).map(|left| over = left).is_some());
            self.bite(bites);
        }
        let Some(rare) = &mut self.rare else {
            return;
        };
        if rare.missing.len() > limits.gaps {
            let cut = rare.missing.len().saturating_sub(limits.gaps / 2);
            let last = rare.missing.drain(..cut).next_back();
            let forgotten = last.map_or(0, |last| last.end);
            let bites = self.settled.drop_front(|piece| piece.start < forgotten);
            self.bite(bites);
        }
    }

    /// How often limits were reached.
    #[must_use]
    pub fn bites(&self) -> AssemblerLimitHits {
        self.rare.as_ref().map_or_else(AssemblerLimitHits::default, |rare| rare.bites)
    }

    fn bite(&mut self, extents: usize) {
        let bites = &mut self.rare.get_or_insert_default().bites;
        bites.extents = bites.extents.saturating_add(u64::try_from(extents).unwrap_or(u64::MAX));
    }
}
