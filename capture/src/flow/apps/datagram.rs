//! The seam between flows and protocols over UDP, where each message is a datagram; for TCP see
//! [`dissector`](super::dissector).

use std::fmt::Debug;
use std::net::SocketAddr;
use std::ops::Range;

use protocol::tcp::Direction;
use protocol::time::Timestamp;

use super::dissector::Finished;
use super::kept::FlowRecords;
use super::{ALLOCATION, Application, DATAGRAM_PROTOCOLS};

/// A datagram, as far as it was captured.
#[derive(Clone, Copy, Debug)]
pub(in crate::flow) struct Datagram<'a> {
    /// The direction in which it was sent.
    pub(in crate::flow) direction: Direction,
    /// Its bytes, up to the first one that is missing or uncertain.
    pub(in crate::flow) bytes: &'a [u8],
    /// Bytes it had when it was sent.
    pub(in crate::flow) wire_len: usize,
    /// When its last bytes were captured.
    pub(in crate::flow) time: Timestamp,
}

/// An application protocol over datagrams.
pub(in crate::flow) trait DatagramProtocol: Debug + Sync {
    /// Its name for the other parts of the engine. Its transactions must have the same, see
    /// [`Finished::application`].
    fn application(&self) -> Application;

    /// Returns true if the datagram is of this protocol. `ends` are the endpoint that sends forward
    /// and the one that sends backward.
    fn probe(&self, datagram: &Datagram<'_>, ends: [SocketAddr; 2]) -> bool;

    /// The number of datagrams between `ends` that are worth probing: malformed messages may come
    /// first. 0 if no flow between them is of this protocol.
    fn tries(&self, ends: [SocketAddr; 2]) -> usize;

    /// Begins to follow a flow between `ends`.
    fn begin(&self, ends: [SocketAddr; 2]) -> Box<dyn DatagramDissector>;
}

/// Follows the application protocol of one flow of datagrams.
///
/// It is given each datagram once. Datagrams of one direction come in their order. It keeps values,
/// not the bytes. Its memory is bounded, whatever is sent.
pub(in crate::flow) trait DatagramDissector: Debug + Send + Sync {
    /// Takes in a datagram.
    fn datagram(&mut self, datagram: &Datagram<'_>);

    /// Lets time pass: what has waited too long ends.
    fn poll(&mut self, now: Timestamp);

    /// The time at which [`DatagramDissector::poll`] has something to do; `None` if it never has.
    fn deadline(&self) -> Option<Timestamp>;

    /// The flow has ended: nothing will follow.
    fn close(&mut self);

    /// The next transaction that has ended, in the order in which they ended.
    fn finished(&mut self) -> Option<Box<dyn Finished>>;

    /// Number of transactions under way.
    fn pending(&self) -> usize;

    /// Bytes of memory, on the heap and of the dissector itself; an estimate.
    fn memory(&self) -> usize;
}

/// The application protocol of a flow of datagrams.
#[derive(Debug)]
pub(in crate::flow) enum DatagramProtocolState {
    /// Not known yet. These datagrams were probed: direction, and place in the stream.
    Probing(Vec<(Direction, Range<u64>)>),
    /// Recognized, and followed.
    Dissected(Box<dyn DatagramDissector>),
    /// Not recognized, and no longer looked for; or the flow has ended.
    Done,
}

impl Default for DatagramProtocolState {
    fn default() -> Self {
        Self::Probing(Vec::new())
    }
}

/// Reads a datagram that lies at a place of the stream sent in a direction.
pub(in crate::flow) type ReadDatagram<'a> =
    dyn Fn(Direction, &Range<u64>, &mut dyn FnMut(&Datagram<'_>)) + 'a;

impl DatagramProtocolState {
    /// Takes in the datagram at `place` of the stream sent in `direction`.
    pub(in crate::flow) fn datagram(
        &mut self,
        direction: Direction,
        place: Range<u64>,
        ends: [SocketAddr; 2],
        kept: &mut FlowRecords,
        read: &ReadDatagram<'_>,
    ) {
        match self {
            Self::Done => {}
            Self::Dissected(dissector) => {
                read(direction, &place, &mut |datagram| dissector.datagram(datagram));
            }
            Self::Probing(probed) => {
                let mut found = None;
                read(direction, &place, &mut |datagram| {
                    found = DATAGRAM_PROTOCOLS.iter().find(|one| one.probe(datagram, ends));
                });
                // A flow has few datagrams, as a rule, and a flood has many flows.
                probed.reserve_exact(1);
                probed.push((direction, place));
                if let Some(protocol) = found {
                    let mut dissector = protocol.begin(ends);
                    kept.begin_lines(protocol.application());
                    // Those before it are of the same protocol, however odd they are.
                    for (direction, place) in probed {
                        read(*direction, place, &mut |datagram| dissector.datagram(datagram));
                    }
                    *self = Self::Dissected(dissector);
                } else if DATAGRAM_PROTOCOLS.iter().all(|one| probed.len() >= one.tries(ends)) {
                    *self = Self::Done;
                }
            }
        }
    }

    /// Returns `true` if no datagram will be looked at.
    pub(in crate::flow) fn is_done(&self) -> bool {
        matches!(self, Self::Done)
    }

    /// Lets time pass.
    pub(in crate::flow) fn poll(&mut self, now: Timestamp) {
        if let Self::Dissected(dissector) = self {
            dissector.poll(now);
        }
    }

    /// The time at which [`DatagramProtocolState::poll`] has something to do; `None` if it never
    /// has.
    pub(in crate::flow) fn deadline(&self) -> Option<Timestamp> {
        match self {
            Self::Dissected(dissector) => dissector.deadline(),
            Self::Probing(_) | Self::Done => None,
        }
    }

    /// The next transaction that has ended.
    pub(in crate::flow) fn finished(&mut self) -> Option<Box<dyn Finished>> {
        match self {
            Self::Dissected(dissector) => dissector.finished(),
            Self::Probing(_) | Self::Done => None,
        }
    }

    /// The flow has ended. To be followed by calls of [`DatagramProtocolState::finished`], as long
    /// as there are transactions.
    pub(in crate::flow) fn close(&mut self) {
        match self {
            Self::Dissected(dissector) => dissector.close(),
            Self::Probing(_) | Self::Done => *self = Self::Done,
        }
    }

    /// Number of transactions under way.
    pub(in crate::flow) fn pending(&self) -> usize {
        match self {
            Self::Dissected(dissector) => dissector.pending(),
            Self::Probing(_) | Self::Done => 0,
        }
    }

    /// Bytes of memory on the heap; an estimate.
    pub(in crate::flow) fn memory(&self) -> usize {
        match self {
            Self::Probing(probed) => {
                probed.capacity().saturating_mul(size_of::<(Direction, Range<u64>)>())
            }
            Self::Dissected(dissector) => dissector.memory().saturating_add(ALLOCATION),
            Self::Done => 0,
        }
    }
}
