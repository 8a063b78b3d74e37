//! How a connection ends: by FINs, by silence, or because the caller closes it.

use std::time::Duration;

use super::Connection;
use crate::tcp::assembler::Bytes;
use crate::tcp::segment::{ConnectionEvent, ConnectionSettings, ConnectionState, Direction};
use crate::tcp::stream::Announce;

impl Connection {
    /// Silence after which the connection times out in its present state.
    pub(super) fn timeout(&self, settings: &ConnectionSettings) -> Duration {
        match self.state() {
            ConnectionState::Opening => settings.opening_timeout,
            ConnectionState::Open | ConnectionState::Midstream => settings.idle_timeout,
            ConnectionState::Closing if self.is_half_closed() => settings.half_closed_timeout,
            ConnectionState::Closing => settings.closing_timeout,
            ConnectionState::Closed | ConnectionState::Reset | ConnectionState::TimedOut => {
                settings.linger
            }
        }
    }

    /// One side has sent its FIN. The other side was seen, and may go on sending.
    fn is_half_closed(&self) -> bool {
        let has_both = self.forward.fin().is_some() && self.backward.fin().is_some();
        let is_one_sided =
            self.forward.counters.packets == 0 || self.backward.counters.packets == 0;
        !has_both && !is_one_sided
    }

    pub(super) fn state_after_silence(&self) -> ConnectionState {
        match self.state() {
            ConnectionState::Closing if !self.is_half_closed() => ConnectionState::Closed,
            state @ (ConnectionState::Closed | ConnectionState::Reset) => state,
            _ => ConnectionState::TimedOut,
        }
    }

    pub(super) fn close_as(
        &mut self,
        state: ConnectionState,
        settings: &ConnectionSettings,
        bytes: &dyn Bytes,
        events: &mut Vec<ConnectionEvent>,
    ) {
        let (forward, backward) = (self.backward.fin().is_some(), self.forward.fin().is_some());
        let mut announce = Announce { direction: Direction::Forward, events };
        self.forward.close(forward, settings, bytes, &mut announce);
        let mut announce = Announce { direction: Direction::Backward, events };
        self.backward.close(backward, settings, bytes, &mut announce);
        self.closed = Some(state);
        events.push(ConnectionEvent::Closed { state });
    }
}
