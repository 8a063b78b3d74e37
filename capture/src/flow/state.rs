//! The state of a flow, as `meta.json` shows it.

use protocol::tcp;
use serde::Serialize;

/// The state of a flow.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "snake_case")]
pub(super) enum FlowState {
    /// TCP: a SYN was seen, but no segment of a side that has finished its handshake. UDP: only one
    /// side has sent.
    Opening,
    /// Both sides may send.
    Open,
    /// One side has sent its FIN; or both have, or there was a reset, and something may still come:
    /// bytes before a FIN, stragglers, transactions that the recorder has not finished.
    Closing,
    /// Both sides have sent their FIN.
    Closed,
    /// Ended by a reset.
    Reset,
    /// No packet was seen for too long.
    TimedOut,
    /// Given up because of a limit, or because the ring had overwritten all its packets.
    Evicted,
    /// Open, but the beginning was not seen.
    Midstream,
}

impl FlowState {
    /// Returns `true` if this state is final.
    pub(super) const fn is_end(self) -> bool {
        match self {
            Self::Closed | Self::Reset | Self::TimedOut | Self::Evicted => true,
            Self::Opening | Self::Open | Self::Closing | Self::Midstream => false,
        }
    }
}

impl From<tcp::ConnectionState> for FlowState {
    fn from(state: tcp::ConnectionState) -> Self {
        match state {
            tcp::ConnectionState::Opening => Self::Opening,
            tcp::ConnectionState::Open => Self::Open,
            tcp::ConnectionState::Closing => Self::Closing,
            tcp::ConnectionState::Closed => Self::Closed,
            tcp::ConnectionState::Reset => Self::Reset,
            tcp::ConnectionState::TimedOut => Self::TimedOut,
            tcp::ConnectionState::Midstream => Self::Midstream,
        }
    }
}
