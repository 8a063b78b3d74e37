//! The protocol of a TCP flow, as the bytes of its streams arrive: from the search for it to its
//! dissector, and on to the content of a tunnel.

use std::ops::Range;

use protocol::http::parser::StreamEnd;
use protocol::tcp::Direction;
use protocol::time::Timestamp;

use super::StreamProtocolState;
use super::dissector::{ByteStreams, Finished};
use super::kept::FlowRecords;
use super::probing::{ProbeResult, Probing};

/// Borrowed for one packet: what it takes to pass bytes to the protocol of a flow.
pub(in crate::flow) struct ProtocolFeed<'a> {
    pub(in crate::flow) app: &'a mut StreamProtocolState,
    pub(in crate::flow) kept: &'a mut FlowRecords,
    /// Called with each transaction that has ended.
    pub(in crate::flow) sink: &'a mut dyn FnMut(Box<dyn Finished>),
}

impl ProtocolFeed<'_> {
    /// Handles `range`, which the stream sent in `direction` has reached. Its last segment
    /// acknowledges the other stream up to `acknowledged`.
    pub(in crate::flow) fn settled(
        &mut self,
        direction: Direction,
        range: &Range<u64>,
        acknowledged: u64,
        streams: &dyn ByteStreams,
    ) {
        if let StreamProtocolState::Probing(probing) = self.app {
            if !streams.has_beginning() {
                probing.tear();
            }
            let (end, before) = probing.looked(direction.other());
            match probing.look(direction, range, acknowledged, streams, self.kept) {
                ProbeResult::Nothing => return,
                ProbeResult::Protocol(protocol, start) => match protocol.begin(start, self.kept) {
                    Some(mut dissector) => {
                        self.kept.begin_lines(protocol.application());
                        dissector.settled(direction.other(), end, before, streams);
                        *self.app = StreamProtocolState::Dissected(dissector);
                    }
                    None => *self.app = StreamProtocolState::Done,
                },
                ProbeResult::Unknown => *self.app = StreamProtocolState::Done,
            }
        }
        if let StreamProtocolState::Dissected(dissector) = self.app {
            dissector.settled(direction, range.end, acknowledged, streams);
        }
    }

    /// Handles a hole that ends at `end` of the stream sent in `direction`.
    pub(in crate::flow) fn gap(
        &mut self,
        direction: Direction,
        end: u64,
        streams: &dyn ByteStreams,
    ) {
        match self.app {
            StreamProtocolState::Probing(probing) => probing.tear(),
            StreamProtocolState::Dissected(dissector) => {
                dissector.settled(direction, end, 0, streams)
            }
            StreamProtocolState::Done => {}
        }
    }

    /// Lets time pass.
    pub(in crate::flow) fn poll(&mut self, now: Timestamp) {
        if let StreamProtocolState::Dissected(dissector) = self.app {
            dissector.poll(now);
        }
    }

    /// Handles the end of the stream sent in `direction`.
    pub(in crate::flow) fn ended(&mut self, direction: Direction, streams: &dyn ByteStreams) {
        if let StreamProtocolState::Dissected(dissector) = self.app {
            dissector.ended(direction, StreamEnd::Fin, streams);
        }
    }

    /// Reports the transactions that have ended. If the last one opened a tunnel, probes the
    /// content of the tunnel, which may be of the same protocol again.
    pub(in crate::flow) fn report(&mut self, streams: &dyn ByteStreams) {
        // Each turn takes at least one transaction, so this ends with the settled bytes.
        while let StreamProtocolState::Dissected(dissector) = self.app {
            while let Some(finished) = dissector.finished(streams, self.kept) {
                (self.sink)(finished);
            }
            let Some(tunnel) = dissector.take_tunnel() else { return };
            *self.app = StreamProtocolState::Probing(Probing::tunnel(tunnel));
            for (direction, begin, end) in [
                (Direction::Forward, tunnel.begins[0], tunnel.settled[0]),
                (Direction::Backward, tunnel.begins[1], tunnel.settled[1]),
            ] {
                if begin < end {
                    self.settled(direction, &(begin..end), 0, streams);
                }
            }
        }
    }

    /// Ends the flow in the way `how`.
    pub(in crate::flow) fn close(&mut self, how: StreamEnd, streams: &dyn ByteStreams) {
        // A waiting piece may open a tunnel, and the protocol in the tunnel ends here too.
        while let StreamProtocolState::Dissected(dissector) = self.app
            && !dissector.is_closed()
        {
            dissector.close(how, streams);
            self.report(streams);
        }
    }
}
