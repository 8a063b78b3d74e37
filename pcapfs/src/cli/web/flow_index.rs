//! The flows of a capture by number: where the newest line of each is, and what flows are chosen by.

use std::collections::VecDeque;
use std::net::{IpAddr, Ipv6Addr};
use std::str::FromStr;

use serde::Deserialize;

use crate::cli::outlet::lines::LineBlock;

/// Maximum number of flows, of 56 bytes each; the oldest leave.
const MAX_FLOWS: usize = 1 << 19;

/// The states of a flow, as `meta.json` writes them.
const STATES: [&str; 8] =
    ["opening", "open", "closing", "closed", "reset", "timed_out", "evicted", "midstream"];

/// The flows whose lines were seen.
#[derive(Debug, Default)]
pub(super) struct FlowIndex {
    /// Number of the first one.
    first: u64,
    /// One for each number from there on.
    flows: VecDeque<FlowFacts>,
}

/// The facts about a flow by which it is found and chosen.
#[derive(Clone, Copy, Debug, Default)]
pub(super) struct FlowFacts {
    /// Number of its newest line in `flows.jsonl`; 0 if none was seen.
    pub(super) line: u64,
    /// Addresses of client and server, those of IPv4 as IPv6.
    addresses: [[u8; 16]; 2],
    ports: [u16; 2],
    /// Its place in [`STATES`].
    state: u8,
}

/// The flows that are wanted; a field that is `None` allows all.
#[derive(Clone, Copy, Debug, Default)]
pub(super) struct FlowChoice {
    /// Of either end.
    pub(super) host: Option<IpAddr>,
    /// Of either end.
    pub(super) port: Option<u16>,
    pub(super) state: Option<FlowState>,
}

/// A state of a flow.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct FlowState(u8);

impl FlowState {
    /// All of them, for messages.
    pub(super) fn names() -> String {
        STATES.join(", ")
    }
}

impl FromStr for FlowState {
    type Err = ();

    fn from_str(text: &str) -> Result<Self, ()> {
        let place = STATES.iter().position(|state| *state == text).ok_or(())?;
        u8::try_from(place).map(Self).map_err(|_| ())
    }
}

/// The fields of a line that are kept.
#[derive(Deserialize)]
struct FlowLine<'a> {
    flow: u64,
    #[serde(borrow)]
    state: &'a str,
    client: FlowEnd,
    server: FlowEnd,
}

#[derive(Deserialize)]
struct FlowEnd {
    address: IpAddr,
    port: u16,
}

const fn bytes_of(address: IpAddr) -> [u8; 16] {
    let address: Ipv6Addr = match address {
        IpAddr::V4(address) => address.to_ipv6_mapped(),
        IpAddr::V6(address) => address,
    };
    address.octets()
}

impl FlowChoice {
    fn allows(&self, flow: &FlowFacts) -> bool {
        let host = self.host.is_none_or(|host| flow.addresses.contains(&bytes_of(host)));
        let port = self.port.is_none_or(|port| flow.ports.contains(&port));
        host && port && self.state.is_none_or(|FlowState(state)| flow.state == state)
    }
}

impl FlowIndex {
    /// Adds the flows of these lines.
    pub(super) fn add(&mut self, block: &LineBlock) {
        for (number, line) in block.from(0) {
            // A line that says something else is not one of ours.
            if let Ok(line) = serde_json::from_slice::<FlowLine<'_>>(line) {
                self.insert(number, &line);
            }
        }
    }

    fn insert(&mut self, number: u64, line: &FlowLine<'_>) {
        if self.flows.is_empty() {
            self.first = line.flow;
        }
        // Lines of later flows were seen, or there was no room for it.
        let Some(place) = line.flow.checked_sub(self.first) else { return };
        let wanted = place.saturating_add(1);
        let over = wanted.saturating_sub(MAX_FLOWS as u64);
        for _ in 0..over.min(self.flows.len() as u64) {
            self.flows.pop_front();
        }
        self.first = self.first.saturating_add(over);
        let place = usize::try_from(place.saturating_sub(over)).unwrap_or(MAX_FLOWS);
        if place >= MAX_FLOWS {
            return;
        }
        if self.flows.len() <= place {
            self.flows.resize(place + 1, FlowFacts::default());
        }
        let FlowState(state) = line.state.parse().unwrap_or(FlowState(u8::MAX));
        if let Some(flow) = self.flows.get_mut(place) {
            *flow = FlowFacts {
                line: number,
                addresses: [&line.client, &line.server].map(|end| bytes_of(end.address)),
                ports: [line.client.port, line.server.port],
                state,
            };
        }
    }

    /// The flow of this number.
    pub(super) fn flow(&self, number: u64) -> Option<FlowFacts> {
        let place = usize::try_from(number.checked_sub(self.first)?).ok()?;
        self.flows.get(place).copied().filter(|flow| flow.line > 0)
    }

    /// Number of the newest flow; 0 without one.
    pub(super) fn newest(&self) -> u64 {
        match self.flows.len() as u64 {
            0 => 0,
            count => self.first.saturating_add(count - 1),
        }
    }

    /// The number of flows without a line from this number on.
    pub(super) fn dropped(&self, first_line: u64) -> u64 {
        let kept = self.flows.iter().filter(|flow| flow.line >= first_line.max(1)).count();
        self.newest().saturating_sub(kept as u64)
    }

    /// The flows after this one that are chosen, in the order of their numbers.
    pub(super) fn after(
        &self,
        after: u64,
        choice: FlowChoice,
    ) -> impl Iterator<Item = (u64, FlowFacts)> {
        let skipped = after.saturating_add(1).saturating_sub(self.first);
        let skipped = usize::try_from(skipped).unwrap_or(usize::MAX);
        let flows = self.flows.iter().copied().enumerate().skip(skipped);
        let flows = flows.map(|(place, flow)| (self.first.saturating_add(place as u64), flow));
        flows.filter(move |(_, flow)| flow.line > 0 && choice.allows(flow))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn line<'a>(flow: u64, state: &'a str, client: &str, port: u16) -> FlowLine<'a> {
        let end = |address: &str, port| FlowEnd { address: address.parse().unwrap(), port };
        FlowLine { flow, state, client: end(client, port), server: end("192.0.2.1", 80) }
    }

    fn numbers(index: &FlowIndex, after: u64, choice: FlowChoice) -> Vec<u64> {
        index.after(after, choice).map(|(flow, _)| flow).collect()
    }

    #[test]
    fn flows_are_chosen_by_host_port_and_state() {
        let mut index = FlowIndex::default();
        index.insert(1, &line(5, "open", "192.0.2.9", 1000));
        index.insert(2, &line(7, "opening", "2001:db8::9", 2000));
        index.insert(3, &line(8, "open", "192.0.2.9", 3000));
        index.insert(4, &line(5, "closed", "192.0.2.9", 1000));
        index.insert(5, &line(4, "closed", "192.0.2.9", 1000));
        let all = FlowChoice::default();
        assert_eq!(numbers(&index, 0, all), [5, 7, 8]);
        assert_eq!(numbers(&index, 5, all), [7, 8]);
        assert!(numbers(&index, u64::MAX, all).is_empty());
        let host = |host: &str| FlowChoice { host: Some(host.parse().unwrap()), ..all };
        assert_eq!(numbers(&index, 0, host("192.0.2.9")), [5, 8]);
        assert_eq!(numbers(&index, 0, host("2001:db8::9")), [7]);
        let port = |port| FlowChoice { port: Some(port), ..all };
        assert_eq!(numbers(&index, 0, port(80)), [5, 7, 8]);
        assert_eq!(numbers(&index, 0, port(3000)), [8]);
        let state = |state: &str| FlowChoice { state: state.parse().ok(), ..all };
        assert_eq!(numbers(&index, 0, state("closed")), [5]);
        assert_eq!(index.flow(5).unwrap().line, 4, "its newest line");
        assert!(index.flow(6).is_none() && index.flow(4).is_none());
        assert_eq!((index.newest(), index.dropped(0), index.dropped(3)), (8, 5, 6));
        assert!("shut".parse::<FlowState>().is_err());
    }

    #[test]
    fn the_number_of_flows_is_bounded() {
        let mut index = FlowIndex::default();
        for flow in [1, 2, MAX_FLOWS as u64, MAX_FLOWS as u64 + 1] {
            index.insert(flow, &line(flow, "open", "192.0.2.9", 1));
        }
        assert_eq!((index.first, index.flows.len()), (2, MAX_FLOWS));
        index.insert(9, &line(u64::MAX, "open", "192.0.2.9", 1));
        assert_eq!((index.newest(), index.flows.len()), (u64::MAX, MAX_FLOWS));
        assert_eq!(numbers(&index, 0, FlowChoice::default()), [u64::MAX]);
    }
}
