//! The flow of a transaction, as every line about a transaction names it.

use std::net::{IpAddr, SocketAddr};

use serde::Serialize;

use crate::tcp::Direction;

/// The flow of a transaction: the fields that all lines about the flow share.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct FlowContext<'a> {
    /// Name of the capture, at most 64 characters.
    pub capture: &'a str,
    /// Number of the flow in the capture, from 1.
    pub flow: u64,
    /// The end that asks.
    pub client: Endpoint,
    /// The end that answers.
    pub server: Endpoint,
}

/// One end of a flow.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
pub struct Endpoint {
    /// IP address.
    pub address: IpAddr,
    /// TCP or UDP port.
    pub port: u16,
}

impl From<SocketAddr> for Endpoint {
    fn from(end: SocketAddr) -> Self {
        Self { address: end.ip(), port: end.port() }
    }
}

impl<'a> FlowContext<'a> {
    /// The flow between `ends`, the one that sends forward and the one that sends backward. The
    /// client sends in direction `client`.
    #[must_use]
    pub fn new(capture: &'a str, flow: u64, ends: [SocketAddr; 2], client: Direction) -> Self {
        let [forward, backward] = ends.map(Endpoint::from);
        let (client, server) = match client {
            Direction::Forward => (forward, backward),
            Direction::Backward => (backward, forward),
        };
        Self { capture, flow, client, server }
    }
}
