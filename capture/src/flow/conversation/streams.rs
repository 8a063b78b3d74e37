//! The byte streams of a TCP connection, as dissectors see them.

use std::ops::{ControlFlow, Range};

use protocol::tcp::{Connection, Direction};

use crate::flow::apps::dissector::{ByteStreams, Run};
use crate::flow::window::Window;

/// The streams of a connection, while the engine is at a packet.
pub(in crate::flow) struct TcpStreams<'a> {
    pub(in crate::flow) connection: &'a Connection,
    pub(in crate::flow) window: &'a Window<'a>,
}

impl ByteStreams for TcpStreams<'_> {
    fn read(
        &self,
        direction: Direction,
        range: Range<u64>,
        sink: &mut dyn FnMut(Run<'_>) -> ControlFlow<()>,
    ) {
        for chunk in self.connection.assembler(direction).chunks(range) {
            let there = chunk.content.ok().and_then(|extent| self.window.read(extent));
            let flow = match &there {
                Some((bytes, time)) => {
                    sink(Run::Bytes { at: chunk.range.start, bytes, time: *time })
                }
                None => sink(Run::Hole(chunk.range)),
            };
            if flow.is_break() {
                return;
            }
        }
    }

    fn has_beginning(&self) -> bool {
        self.connection.has_beginning()
    }

    fn is_waiting(&self, direction: Direction) -> bool {
        self.connection.assembler(direction).is_waiting()
    }

    fn is_disputed(&self, direction: Direction, range: &Range<u64>) -> bool {
        self.connection.assembler(direction).is_disputed(range)
    }
}
