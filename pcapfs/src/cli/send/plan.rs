//! The port of each connection: the first one leads to the base port, the next one to the port after
//! it, and so on, in the order in which they have something to send.

use std::collections::HashMap;
use std::ops::RangeInclusive;

use protocol::time::Timestamp;

use super::extraction::{Extracted, SenderKey};

/// Maximum number of connections that are counted to say how many ports are needed. There are never
/// more than 65,535 ports.
const MAX_COUNTED: usize = 1_000_000;

/// The connections, by their order.
#[derive(Debug)]
pub(super) struct ConnectionPlan {
    base_port: u16,
    order: HashMap<SenderKey, usize>,
    keys: Vec<SenderKey>,
}

/// There is no port for a connection.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct NoPort;

impl ConnectionPlan {
    /// Without connections.
    pub(super) fn new(base_port: u16) -> Self {
        Self { base_port, order: HashMap::new(), keys: Vec::new() }
    }

    /// The index of a connection, from 0, which is its own from the first call on.
    ///
    /// # Errors
    /// There are too many to count.
    pub(super) fn index(&mut self, key: SenderKey) -> Result<usize, NoPort> {
        if let Some(index) = self.order.get(&key) {
            return Ok(*index);
        }
        let index = self.keys.len();
        if index >= MAX_COUNTED {
            return Err(NoPort);
        }
        self.order.insert(key, index);
        self.keys.push(key);
        Ok(index)
    }

    /// The port of the connection with this index.
    ///
    /// # Errors
    /// It lies beyond the last port.
    pub(super) fn port(&self, index: usize) -> Result<u16, NoPort> {
        let index = u16::try_from(index).map_err(|_| NoPort)?;
        self.base_port.checked_add(index).ok_or(NoPort)
    }

    /// The connections in their order.
    pub(super) fn keys(&self) -> &[SenderKey] {
        &self.keys
    }

    /// The ports of all connections so far.
    ///
    /// # Errors
    /// The number of ports there are, which is too low.
    pub(super) fn ports(&self) -> Result<RangeInclusive<u16>, u32> {
        let last = self.port(self.keys.len().saturating_sub(1));
        let most = u32::from(u16::MAX) - u32::from(self.base_port) + 1;
        last.map(|last| self.base_port..=last).map_err(|NoPort| most)
    }
}

/// The content of a capture, as far as it is known before it is sent.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(super) struct PlannedContent {
    pub(super) packets: u64,
    pub(super) bytes: u64,
    first: Option<Timestamp>,
    last: Timestamp,
}

impl PlannedContent {
    /// Adds the content of a packet of this time.
    pub(super) fn add(&mut self, time: Timestamp, extracted: &[Extracted]) {
        self.packets += 1;
        self.bytes += extracted.iter().map(|one| one.bytes.len() as u64).sum::<u64>();
        self.first.get_or_insert(time);
        self.last = self.last.max(time);
    }

    /// The content of so many rounds, one after the other.
    pub(super) const fn times(self, rounds: u64) -> Self {
        let packets = self.packets.saturating_mul(rounds);
        Self { packets, bytes: self.bytes.saturating_mul(rounds), ..self }
    }

    /// Nanoseconds of one round, from the first packet to the last.
    pub(super) fn nanoseconds(&self) -> u64 {
        let first = self.first.map_or(0, Timestamp::nanoseconds);
        self.last.nanoseconds().saturating_sub(first)
    }
}

#[cfg(test)]
mod tests {
    use std::net::{IpAddr, Ipv4Addr};

    use super::*;

    fn source(number: u32) -> SenderKey {
        SenderKey::Source(IpAddr::V4(Ipv4Addr::from_bits(number)))
    }

    #[test]
    fn ports_follow_the_order_of_appearance() {
        let mut plan = ConnectionPlan::new(5000);
        let indexes = [7, 3, 7, 9, 3].map(|number| plan.index(source(number)).unwrap());
        assert_eq!(indexes, [0, 1, 0, 2, 1]);
        assert_eq!(plan.keys(), [7, 3, 9].map(source));
        assert_eq!(plan.ports(), Ok(5000..=5002));
        assert_eq!(plan.port(1), Ok(5001));
    }

    #[test]
    fn ports_end() {
        let mut plan = ConnectionPlan::new(65_534);
        for number in 0..2 {
            plan.index(source(number)).unwrap();
        }
        assert_eq!(plan.ports(), Ok(65_534..=65_535));
        plan.index(source(2)).unwrap();
        assert_eq!(plan.ports(), Err(2));
        assert_eq!(plan.port(2), Err(NoPort));
        for number in 3..100_000 {
            plan.index(source(number)).unwrap();
        }
        assert_eq!((plan.keys().len(), plan.ports()), (100_000, Err(2)));
    }
}
