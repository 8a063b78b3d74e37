//! The byte streams of a TCP connection, and the datagrams of UDP, as dissectors see them.

use std::borrow::Cow;
use std::net::SocketAddr;
use std::ops::{ControlFlow, Range};

use protocol::tcp::{Assembler, Connection, Direction};
use protocol::time::Timestamp;

use crate::flow::apps::datagram::Datagram;
use crate::flow::apps::dissector::{ByteStreams, StreamRun};
use crate::flow::key::FlowKey;
use crate::flow::window::EngineWindow;

/// The streams of a connection, while the engine is at a packet.
pub(in crate::flow) struct TcpStreams<'a> {
    pub(in crate::flow) connection: &'a Connection,
    pub(in crate::flow) window: &'a EngineWindow<'a>,
    pub(in crate::flow) key: &'a FlowKey,
}

impl ByteStreams for TcpStreams<'_> {
    fn read(
        &self,
        direction: Direction,
        range: Range<u64>,
        sink: &mut dyn FnMut(StreamRun<'_>) -> ControlFlow<()>,
    ) {
        for chunk in self.connection.assembler(direction).chunks(range) {
            let there = chunk.content.ok().and_then(|extent| self.window.read(extent));
            let flow = match &there {
                Some((bytes, time)) => {
                    sink(StreamRun::Bytes { at: chunk.range.start, bytes, time: *time })
                }
                None => sink(StreamRun::Hole(chunk.range)),
            };
            if flow.is_break() {
                return;
            }
        }
    }

    fn ends(&self) -> [SocketAddr; 2] {
        self.key.ends()
    }

    fn has_beginning(&self) -> bool {
        self.connection.has_beginning()
    }

    fn is_waiting(&self, direction: Direction) -> bool {
        self.connection.assembler(direction).is_waiting()
    }

    fn received(&self, direction: Direction) -> Option<u64> {
        let is_seen = self.connection.counters(direction.other()).packets > 0;
        is_seen.then(|| self.connection.acknowledged(direction))
    }

    fn is_disputed(&self, direction: Direction, range: &Range<u64>) -> bool {
        self.connection.assembler(direction).is_disputed(range)
    }
}

/// Hands the datagram at `place` of `stream` to `sink`. It ends before the first byte that is
/// missing, or whose copies differ.
pub(in crate::flow) fn read_datagram(
    stream: &Assembler,
    direction: Direction,
    place: &Range<u64>,
    window: &EngineWindow<'_>,
    sink: &mut dyn FnMut(&Datagram<'_>),
) {
    let (mut bytes, mut time) = (Cow::Borrowed(&[][..]), Timestamp::default());
    for chunk in stream.chunks(place.clone()) {
        let is_certain = !stream.is_disputed(&chunk.range);
        let extent = chunk.content.ok().filter(|_| is_certain);
        let Some((part, at)) = extent.and_then(|extent| window.read(extent)) else { break };
        time = at;
        if bytes.is_empty() {
            bytes = part;
        } else {
            bytes.to_mut().extend_from_slice(&part);
        }
    }
    let wire_len = usize::try_from(place.end.saturating_sub(place.start)).unwrap_or(usize::MAX);
    sink(&Datagram { direction, bytes: &bytes, wire_len, time });
}
