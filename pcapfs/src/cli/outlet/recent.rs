//! The lines that were given out lately, recognized when the next daemon makes them again of the same
//! packets.

use std::collections::{HashSet, VecDeque};
use std::hash::{BuildHasher, RandomState};

/// Lines that are remembered, with 8 bytes each in two places: those of some seconds at the highest
/// rates.
const LINES: usize = 1 << 16;

/// Hashes of lines, the oldest first.
#[derive(Debug, Default)]
pub(super) struct RecentLines {
    hasher: RandomState,
    order: VecDeque<u64>,
    known: HashSet<u64>,
}

impl RecentLines {
    /// Remembers a line; false if it is one that is remembered. The number of its flow does not
    /// count: the next daemon numbers flows from 1 again.
    pub(super) fn insert(&mut self, line: &[u8]) -> bool {
        let hash = self.hasher.hash_one(Unnumbered::of(line));
        if !self.known.insert(hash) {
            return false;
        }
        self.order.push_back(hash);
        if self.order.len() > LINES
            && let Some(oldest) = self.order.pop_front()
        {
            self.known.remove(&oldest);
        }
        true
    }
}

/// A line without the numbers of its flow: each number after one of these keys is left out.
#[derive(Hash, PartialEq, Eq, Debug)]
struct Unnumbered<'a>(Vec<&'a [u8]>);

/// Keys before a number of the flow. They are among the first fields of a line.
const NUMBERED: [&[u8]; 3] = [b"\"flow\":", b"\"id\":", b"\"name\":\""];

/// Bytes at the beginning of a line in which these keys are: a name of a capture may have 64.
const HEAD: usize = 256;

impl<'a> Unnumbered<'a> {
    fn of(line: &'a [u8]) -> Self {
        let mut parts = Vec::with_capacity(NUMBERED.len() + 1);
        let mut rest = line;
        for key in NUMBERED {
            let head = rest.get(..HEAD.min(rest.len())).unwrap_or_default();
            let Some(at) = head.windows(key.len()).position(|window| window == key) else {
                continue;
            };
            let (before, after) = rest.split_at(at + key.len());
            parts.push(before);
            let digits = after.iter().take_while(|byte| byte.is_ascii_digit()).count();
            rest = after.get(digits..).unwrap_or_default();
        }
        parts.push(rest);
        Self(parts)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_line_is_known_whatever_its_flow_is_called() {
        let mut recent = RecentLines::default();
        let flow = |number: u64, bytes: u64| {
            let line = format!(
                "{{\"flow\":{number},\"id\":{number},\"event\":\"ended\",\"capture\":\"web\",\
                 \"name\":\"{number:06}-tcp-10.0.0.1.1-10.0.0.2.80\",\"bytes\":{bytes}}}"
            );
            line.into_bytes()
        };
        assert!(recent.insert(&flow(42, 7)));
        assert!(!recent.insert(&flow(1, 7)));
        assert!(recent.insert(&flow(42, 8)));
        assert!(recent.insert(b"{\"capture\":\"web\",\"flow\":42,\"index\":1}"));
        assert!(!recent.insert(b"{\"capture\":\"web\",\"flow\":3,\"index\":1}"));
        assert!(recent.insert(b"{\"capture\":\"web\",\"flow\":42,\"index\":2}"));
        assert!(recent.insert(b""));
    }

    #[test]
    fn the_number_of_lines_is_bounded() {
        let mut recent = RecentLines::default();
        for number in 0..=LINES {
            assert!(recent.insert(format!("line {number}").as_bytes()));
        }
        assert_eq!((recent.order.len(), recent.known.len()), (LINES, LINES));
        assert!(recent.insert(b"line 0"), "forgotten");
        assert!(!recent.insert(format!("line {LINES}").as_bytes()));
    }
}
