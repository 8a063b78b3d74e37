//! The lines of a flow in the log of its capture.
//!
//! The text of a line is in the log, and nowhere else. A flow keeps only the places of its lines, so
//! its file costs 16 bytes for each. When the log drops lines to stay within its limit, the file
//! begins later.

use std::collections::VecDeque;
use std::ops::Range;

use super::Application;

/// The lines of one protocol.
#[derive(Debug)]
pub(in crate::flow) struct FlowLines {
    /// The protocol, and with it the log.
    pub(in crate::flow) application: Application,
    /// Lines ever written.
    pub(in crate::flow) count: u64,
    /// Where the first of `places` begins in the file.
    begin: u64,
    places: VecDeque<LinePlace>,
}

/// The place of a line.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct LinePlace {
    /// Where it begins in the log.
    in_log: u64,
    /// Where it ends in the file of the flow, counted from the first line ever.
    end: u64,
}

impl FlowLines {
    /// No lines yet.
    pub(in crate::flow) fn new(application: Application) -> Self {
        Self { application, count: 0, begin: 0, places: VecDeque::new() }
    }

    /// Adds the line of `len` bytes that begins at `in_log`. The log begins at `log_begin`.
    pub(in crate::flow) fn push(&mut self, in_log: u64, len: u64, log_begin: u64) {
        while self.places.front().is_some_and(|place| place.in_log < log_begin)
            && let Some(dropped) = self.places.pop_front()
        {
            self.begin = dropped.end;
        }
        self.places.push_back(LinePlace { in_log, end: self.end().saturating_add(len) });
        self.count = self.count.saturating_add(1);
    }

    /// Offset in the file of the first line that the log still has, if it begins at `log_begin`.
    pub(in crate::flow) fn begin(&self, log_begin: u64) -> u64 {
        let dropped = self.places.partition_point(|place| place.in_log < log_begin);
        match dropped.checked_sub(1) {
            Some(last) => self.places.get(last).map_or(self.begin, |place| place.end),
            None => self.begin,
        }
    }

    /// Offset in the file after the last line.
    pub(in crate::flow) fn end(&self) -> u64 {
        self.places.back().map_or(self.begin, |place| place.end)
    }

    /// The ranges of the log that hold `range` of the file; lines that are no longer listed are
    /// left out.
    pub(in crate::flow) fn in_log(&self, range: &Range<u64>) -> Vec<Range<u64>> {
        let first = self.places.partition_point(|place| place.end <= range.start);
        let mut start = match first.checked_sub(1) {
            Some(before) => self.places.get(before).map_or(self.begin, |place| place.end),
            None => self.begin,
        };
        let mut found = Vec::new();
        for place in self.places.iter().skip(first) {
            if start >= range.end {
                break;
            }
            let skip = range.start.saturating_sub(start);
            let len = place.end.min(range.end).saturating_sub(start);
            let from = place.in_log.saturating_add(skip);
            found.push(from..place.in_log.saturating_add(len));
            start = place.end;
        }
        found
    }

    /// Frees memory kept for growth, when no more lines will come.
    pub(in crate::flow) fn shrink(&mut self) {
        self.places.shrink_to_fit();
    }

    /// Bytes of memory, on the heap and of itself; an estimate.
    pub(in crate::flow) fn memory(&self) -> usize {
        let places = self.places.capacity().saturating_mul(size_of::<LinePlace>());
        places.saturating_add(size_of::<Self>())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn parts_of_the_file_are_found_in_the_log() {
        let mut lines = FlowLines::new(Application::Dns);
        for (in_log, len) in [(100, 10), (200, 5), (300, 20)] {
            lines.push(in_log, len, 0);
        }
        assert_eq!((lines.begin(0), lines.end(), lines.count), (0, 35, 3));
        let in_log = |range| {
            let found = lines.in_log(&range).into_iter();
            found.map(|range| (range.start, range.end)).collect::<Vec<_>>()
        };
        assert_eq!(in_log(0..35), [(100, 110), (200, 205), (300, 320)]);
        assert_eq!(in_log(3..12), [(103, 110), (200, 202)]);
        assert_eq!(in_log(10..15), [(200, 205)]);
        assert_eq!(in_log(34..40), [(319, 320)]);
        assert_eq!(in_log(35..40), []);
    }

    #[test]
    fn dropped_lines_leave_the_beginning_of_the_file() {
        let mut lines = FlowLines::new(Application::Dns);
        for at in 0..4 {
            lines.push(at * 100, 10, 0);
        }
        assert_eq!((lines.begin(100), lines.begin(101), lines.begin(1_000)), (10, 20, 40));
        // The next line forgets the places of dropped ones; offsets stay the same.
        lines.push(400, 10, 250);
        assert_eq!((lines.begin(0), lines.begin(250), lines.end(), lines.count), (30, 30, 50, 5));
        assert_eq!(lines.in_log(&(30..50)), [300..310, 400..410]);
    }
}
