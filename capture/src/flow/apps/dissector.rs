//! The seam between flows and application protocols.
//!
//! An [`StreamProtocol`] recognizes its messages by the first bytes of a stream, and begins a
//! [`Dissector`]. The dissector reads the two [`ByteStreams`] of one flow and returns [`Finished`]
//! transactions. It knows neither TCP nor the store: a byte stream may also be the plaintext of an
//! encrypted connection, whose bytes are in no packet.

use std::any::Any;
use std::fmt::Debug;
use std::net::SocketAddr;
use std::ops::{ControlFlow, Range};

use protocol::flow_context::FlowContext;
use protocol::http::body::{Streams, Workspace};
use protocol::http::direction::MessageRole;
use protocol::http::parser::StreamEnd;
use protocol::tcp::Direction;
use protocol::time::Timestamp;

use super::Application;
use super::kept::FlowRecords;
use super::marks::Marks;

/// The two byte streams of a conversation, which can be read by range.
///
/// Offsets count from the first byte that was sent, holes included. The bytes of a range never
/// change, but they may become a hole.
pub(in crate::flow) trait ByteStreams {
    /// Passes `range` of the stream sent in `direction` to `sink`, in order and without omissions,
    /// until `sink` breaks.
    fn read(
        &self,
        direction: Direction,
        range: Range<u64>,
        sink: &mut dyn FnMut(StreamRun<'_>) -> ControlFlow<()>,
    );

    /// The endpoint that sends forward, and the one that sends backward.
    fn ends(&self) -> [SocketAddr; 2];

    /// Returns `true` if the beginning of both streams was captured, as far as they have bytes.
    fn has_beginning(&self) -> bool;

    /// Returns `true` if bytes of the stream were captured that follow bytes still to come.
    fn is_waiting(&self, direction: Direction) -> bool;

    /// The offset up to which the receiver of the stream sent in `direction` is known to have it;
    /// `None` if no packet of the receiver was captured, so that this is never known.
    fn received(&self, direction: Direction) -> Option<u64>;

    /// Returns `true` if copies of bytes in `range` differed, so that nothing made of them is
    /// certain.
    fn is_disputed(&self, direction: Direction, range: &Range<u64>) -> bool;
}

/// A part of a stream.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(in crate::flow) enum StreamRun<'a> {
    /// Bytes that came together.
    Bytes {
        /// Offset of the first one.
        at: u64,
        bytes: &'a [u8],
        /// When they were captured.
        time: Timestamp,
    },
    /// These bytes are missing.
    Hole(Range<u64>),
}

/// An application protocol that flows are searched for.
pub(in crate::flow) trait StreamProtocol: Debug + Sync {
    /// Its name for the other parts of the engine. Its transactions must have the same, see
    /// [`Finished::application`].
    fn application(&self) -> Application;

    /// Looks at the bytes of one direction, and says whether they are of this protocol. Facts that
    /// are known without a dissector go into `kept`. After [`ProbeAnswer::NotYet`], it is asked
    /// again with more bytes, from the same place on.
    fn probe(&self, opening: &ProbedBytes<'_>, kept: &mut FlowRecords) -> ProbeAnswer;

    /// Begins to follow a flow; `None` if its further bytes have no use, or if `kept` has records
    /// that new ones would contradict. The caller adds the file of lines to `kept`.
    fn begin(&self, start: DissectorStart, kept: &mut FlowRecords) -> Option<Box<dyn Dissector>>;
}

/// Bytes that an [`StreamProtocol`] is asked about.
#[derive(Clone, Copy, Debug)]
pub(in crate::flow) struct ProbedBytes<'a> {
    /// The bytes, up to the first hole.
    pub(in crate::flow) bytes: &'a [u8],
    /// The place where they begin.
    pub(in crate::flow) boundary: Boundary,
    /// The endpoint that sends forward, and the one that sends backward.
    pub(in crate::flow) ends: [SocketAddr; 2],
}

/// The place in a stream where the bytes of a [`ProbedBytes`] begin.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(in crate::flow) enum Boundary {
    /// The beginning of the stream, or of a tunnel in it.
    Beginning,
    /// After a piece that no protocol recognized: another protocol may begin here, as with
    /// STARTTLS.
    Piece,
    /// At a piece of a stream of which bytes are missing. It may be within a message.
    Torn,
    /// Between two segments of a piece of such a stream.
    Segment,
}

/// The answer of an [`StreamProtocol`] about some bytes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(in crate::flow) enum ProbeAnswer {
    /// The bytes are of this protocol.
    Yes {
        /// The sender of the bytes is the side that asks.
        is_client: bool,
    },
    /// The bytes are not of this protocol.
    No,
    /// More bytes must decide.
    NotYet,
}

/// How a [`Dissector`] begins. Pairs are forward and backward.
#[derive(Debug)]
pub(in crate::flow) struct DissectorStart {
    /// The direction of the side that asks.
    pub(in crate::flow) client: Direction,
    /// Offsets at which the protocol begins in the streams.
    pub(in crate::flow) begins: [u64; 2],
    /// Marks of segments whose bytes are not all settled.
    pub(in crate::flow) marks: [Marks; 2],
    /// The streams may begin within a message.
    pub(in crate::flow) is_torn: bool,
    /// Number of transactions that the flow had before this protocol began.
    pub(in crate::flow) before: u64,
    /// The endpoint that sends forward, and the one that sends backward.
    pub(in crate::flow) ends: [SocketAddr; 2],
}

/// Follows the application protocol of one flow.
///
/// It is given each byte once, in the order of its stream, and reads it then: later it may be gone.
/// It keeps places and values, not the bytes. Its memory is bounded, whatever is sent.
pub(in crate::flow) trait Dissector: Any + Debug + Send + Sync {
    /// The stream sent in `direction` is certain up to `end`; holes may be in it. Its last segment
    /// acknowledged the other stream up to `acknowledged`.
    fn settled(
        &mut self,
        direction: Direction,
        end: u64,
        acknowledged: u64,
        streams: &dyn ByteStreams,
    );

    /// A segment whose payload ends at `end` came before the bytes that precede it. It acknowledges
    /// the other stream up to `acknowledged`.
    fn early(&mut self, _direction: Direction, _end: u64, _acknowledged: u64) {}

    /// Returns `true` while there are segments that came too early in `direction`.
    fn has_early(&self, _direction: Direction) -> bool {
        false
    }

    /// Nothing will follow in `direction`; the stream ended in the way `how`.
    fn ended(&mut self, direction: Direction, how: StreamEnd, streams: &dyn ByteStreams);

    /// The flow has ended. A direction that has not ended before ends in the way `how`.
    fn close(&mut self, how: StreamEnd, streams: &dyn ByteStreams);

    /// Returns `true` once it has seen the end of both streams, so that no more transactions can
    /// end.
    fn is_closed(&self) -> bool;

    /// The next transaction that has ended, in the order in which they ended. Until it is recorded,
    /// `kept` must show it to readers as under way.
    fn finished(
        &mut self,
        streams: &dyn ByteStreams,
        kept: &mut FlowRecords,
    ) -> Option<Box<dyn Finished>>;

    /// Takes the tunnel that the last transaction opened. To be called after all transactions that
    /// have ended were taken.
    fn take_tunnel(&mut self) -> Option<ProxyTunnel> {
        None
    }

    /// Number of transactions under way.
    fn pending(&self) -> usize;

    /// Lets time pass: what has waited too long ends.
    fn poll(&mut self, _now: Timestamp) {}

    /// The time at which [`Dissector::poll`] has something to do; `None` if it never has.
    fn deadline(&self) -> Option<Timestamp> {
        None
    }

    /// Bytes of memory, on the heap and of the dissector itself; an estimate.
    fn memory(&self) -> usize;
}

/// A tunnel that a proxy opened. Its content is searched for a protocol as a new flow is. Pairs are
/// forward and backward.
#[derive(Clone, Copy, Debug)]
pub(in crate::flow) struct ProxyTunnel {
    /// Offset of the first byte inside the tunnel.
    pub(in crate::flow) begins: [u64; 2],
    /// The end of the settled bytes.
    pub(in crate::flow) settled: [u64; 2],
    /// Transactions of the flow so far.
    pub(in crate::flow) transactions: u64,
}

/// A transaction that has ended, on its way to the recorder.
pub(in crate::flow) trait Finished: Debug + Send + Sync {
    /// The protocol, whose log gets the line.
    fn application(&self) -> Application;

    /// The direction of the side that asked.
    fn client(&self) -> Direction;

    /// Returns `true` if recording it takes longer than a moment.
    fn is_long(&self) -> bool {
        false
    }

    /// Leaves out what takes long, because there is no time for it.
    fn hurry(&mut self) {}

    /// The range of the stream of a side that will be read to record it.
    fn reads(&self, _side: MessageRole) -> Option<Range<u64>> {
        None
    }

    /// Makes its line, and what the flow keeps of it.
    fn record(&self, desk: &mut RecordingContext<'_>) -> Recorded;
}

/// What is needed to record a transaction.
pub(in crate::flow) struct RecordingContext<'a> {
    /// The flow, for fields that all lines have.
    pub(in crate::flow) connection: FlowContext<'a>,
    /// The streams of the flow.
    pub(in crate::flow) streams: &'a dyn Streams,
    /// Buffers for decoding bodies.
    pub(in crate::flow) workspace: &'a mut Workspace,
}

/// Puts a transaction into what its flow keeps.
pub(in crate::flow) type KeepTransaction = Box<dyn FnOnce(&mut FlowRecords) + Send>;

/// A transaction that has been recorded.
pub(in crate::flow) struct Recorded {
    /// The line for the log of the capture, with its line feed.
    pub(in crate::flow) line: Vec<u8>,
    /// Bytes that were decoded to make it.
    pub(in crate::flow) decoded: u64,
    /// Puts the transaction into what the flow keeps; `None` if the line is all there is to keep.
    pub(in crate::flow) keep: Option<KeepTransaction>,
}
