//! The rate of incoming packets, measured by the thread that stores them.

use std::time::{Duration, Instant};

use parking_lot::Mutex;

use crate::store::Bounds;

/// Packets and bits per second, over about the last second.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, serde::Serialize)]
pub struct Rate {
    /// Packets stored per second.
    pub packets_per_second: u64,
    /// Captured bits stored per second, without record headers.
    pub bits_per_second: u64,
}

/// Minimum time between two measurements.
const INTERVAL: Duration = Duration::from_secs(1);

#[derive(Debug, Default)]
pub(super) struct RateMeter {
    // Used by the source's thread once per interval, and by callers of `get`.
    state: Mutex<Measured>,
}

#[derive(Debug, Default)]
struct Measured {
    last: Option<(Instant, u64, u64)>,
    rate: Rate,
}

impl RateMeter {
    /// Measures the rate, if the interval has passed.
    pub(super) fn measure(&self, now: Instant, bounds: impl FnOnce() -> Bounds) {
        let mut state = self.state.lock();
        if state.last.is_some_and(|(then, ..)| now.duration_since(then) < INTERVAL) {
            return;
        }
        let next = bounds().next;
        if let Some((then, number, pcap)) = state.last {
            let packets = next.number.saturating_sub(number);
            let header_bytes = packets * crate::record::HEADER_LEN as u64;
            let bytes = next.pcap.saturating_sub(pcap).saturating_sub(header_bytes);
            let milliseconds =
                u64::try_from(now.duration_since(then).as_millis()).unwrap_or(u64::MAX).max(1);
            state.rate = Rate {
                packets_per_second: packets.saturating_mul(1000) / milliseconds,
                bits_per_second: bytes.saturating_mul(8000) / milliseconds,
            };
        }
        state.last = Some((now, next.number, next.pcap));
    }

    /// Resets the rate, because no more packets come.
    pub(super) fn reset(&self) {
        *self.state.lock() = Measured::default();
    }

    pub(super) fn get(&self) -> Rate {
        self.state.lock().rate
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::store::Position;

    #[test]
    fn rates_are_of_the_last_interval() {
        let meter = RateMeter::default();
        let start = Instant::now();
        let at = |number, pcap| {
            move || Bounds {
                oldest_chunk: 1,
                newest_chunk: 1,
                oldest: Position::START,
                next: Position { number, pcap, pcapng: 0 },
                foreign_bytes: 0,
                trailing: 0,
                newest_time: None,
                ended: false,
            }
        };
        meter.measure(start, at(1, 0));
        meter.measure(start + INTERVAL / 2, at(900, 0));
        assert_eq!(meter.get(), Rate::default(), "too early to say");
        meter.measure(start + 2 * INTERVAL, at(201, 200 * 116));
        assert_eq!(meter.get(), Rate { packets_per_second: 100, bits_per_second: 80_000 });
        meter.reset();
        assert_eq!(meter.get(), Rate::default());
    }
}
