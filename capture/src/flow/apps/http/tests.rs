//! HTTP/1 over byte streams that are no TCP: texts in memory, such as the plaintext of an encrypted
//! connection, whose bytes are in no packet.

use std::net::{IpAddr, Ipv4Addr, SocketAddr};
use std::ops::{ControlFlow, Range};

use protocol::flow_context::{Endpoint, FlowContext};
use protocol::http::body::{BodyPiece, Streams, Workspace};
use protocol::http::direction::MessageRole;
use protocol::http::parser::StreamEnd;
use protocol::tcp::Direction;
use protocol::time::Timestamp;
use serde_json::Value;

use super::messages::HttpDissector;
use crate::flow::apps::StreamProtocolState;
use crate::flow::apps::dissector::{ByteStreams, Finished, Recorded, RecordingContext, StreamRun};
use crate::flow::apps::kept::FlowRecords;
use crate::flow::apps::speaking::ProtocolFeed;
use crate::flow::pair::of;

/// Bytes of each run that is read: as many as a small packet has.
const RUN: usize = 7;

/// Two texts, with a hole in the one that is sent backward.
#[derive(Clone, Debug)]
struct Texts {
    sent: [Vec<u8>; 2],
    hole: Range<u64>,
}

impl ByteStreams for Texts {
    fn read(
        &self,
        direction: Direction,
        range: Range<u64>,
        sink: &mut dyn FnMut(StreamRun<'_>) -> ControlFlow<()>,
    ) {
        let text = of(&self.sent, direction);
        let mut at = range.start;
        while at < range.end {
            let is_holed = direction == Direction::Backward && self.hole.contains(&at);
            let end = (at + RUN as u64).min(range.end);
            let (run, end) = if is_holed {
                let end = self.hole.end.min(range.end);
                (StreamRun::Hole(at..end), end)
            } else {
                let next = direction == Direction::Backward && at < self.hole.start;
                let end = if next { end.min(self.hole.start) } else { end };
                let index = |offset: u64| usize::try_from(offset).unwrap();
                let bytes = &text[index(at)..index(end)];
                (StreamRun::Bytes { at, bytes, time: Timestamp::from_nanoseconds(at) }, end)
            };
            if sink(run).is_break() {
                return;
            }
            at = end;
        }
    }

    fn ends(&self) -> [SocketAddr; 2] {
        [1, 2].map(|port| (Ipv4Addr::LOCALHOST, port).into())
    }

    fn has_beginning(&self) -> bool {
        true
    }

    fn is_waiting(&self, _direction: Direction) -> bool {
        false
    }

    fn received(&self, _direction: Direction) -> Option<u64> {
        None
    }

    fn is_disputed(&self, _direction: Direction, _range: &Range<u64>) -> bool {
        false
    }
}

/// The same texts for readers. Requests go forward.
impl Streams for Texts {
    fn read(&self, side: MessageRole, range: Range<u64>, sink: &mut dyn FnMut(BodyPiece<'_>)) {
        let direction = match side {
            MessageRole::Request => Direction::Forward,
            MessageRole::Response => Direction::Backward,
        };
        ByteStreams::read(self, direction, range, &mut |run| {
            match run {
                StreamRun::Bytes { bytes, .. } => sink(BodyPiece::Bytes(bytes)),
                StreamRun::Hole(hole) => sink(BodyPiece::Hole(hole.end - hole.start)),
            }
            ControlFlow::Continue(())
        });
    }
}

const ASKED: &[u8] = b"GET /one HTTP/1.1\r\nHost: a\r\n\r\nPOST /two HTTP/1.1\r\nHost: a\r\n\
                       Content-Length: 4\r\n\r\nbody";
const ANSWERED: &[u8] =
    b"HTTP/1.1 200 OK\r\nContent-Type: text/plain\r\nContent-Length: 11\r\n\r\n\
                          hello there\
                          HTTP/1.1 404 Not Found\r\nContent-Length: 0\r\n\r\n";

/// Brings both texts to the search for a protocol in pieces of `piece` bytes, and returns what the
/// flow keeps, and the transactions that ended.
fn spoken(
    texts: &Texts,
    piece: usize,
) -> (StreamProtocolState, FlowRecords, Vec<Box<dyn Finished>>) {
    let (mut app, mut kept, mut ended) =
        (StreamProtocolState::default(), FlowRecords::default(), Vec::new());
    let mut sink = |finished| ended.push(finished);
    let mut speaking = ProtocolFeed { app: &mut app, kept: &mut kept, sink: &mut sink };
    let mut reached = [0_u64; 2];
    // Each request is followed by its response.
    let steps = [(0, ASKED.len() as u64), (1, ANSWERED.len() as u64)];
    for (side, to) in steps {
        let direction = [Direction::Forward, Direction::Backward][side];
        while reached[side] < to {
            let end = (reached[side] + piece as u64).min(to);
            speaking.settled(direction, &(reached[side]..end), reached[1 - side], texts);
            speaking.report(texts);
            reached[side] = end;
        }
    }
    speaking.close(StreamEnd::Fin, texts);
    (app, kept, ended)
}

/// The lines of the transactions, as the recorder makes them.
fn recorded(texts: &Texts, kept: &mut FlowRecords, ended: Vec<Box<dyn Finished>>) -> Vec<Value> {
    let end = |port| Endpoint { address: IpAddr::V4(Ipv4Addr::LOCALHOST), port };
    let mut workspace = Workspace::default();
    let lines = ended.into_iter().map(|finished| {
        assert_eq!(finished.client(), Direction::Forward);
        let (client, server) = (end(1), end(2));
        let connection = FlowContext { capture: "memory", flow: 1, client, server };
        let mut desk = RecordingContext { connection, streams: texts, workspace: &mut workspace };
        let Recorded { line, keep, .. } = finished.record(&mut desk);
        keep.unwrap()(kept);
        serde_json::from_slice(&line).unwrap()
    });
    lines.collect()
}

#[test]
fn http_is_read_from_streams_that_are_in_no_packet() {
    let texts = Texts { sent: [ASKED.to_vec(), ANSWERED.to_vec()], hole: 0..0 };
    for piece in [1, 5, 64, 4_096] {
        let (app, mut kept, ended) = spoken(&texts, piece);
        assert!(app.dissector::<HttpDissector>().is_some(), "found in pieces of {piece} bytes");
        let lines = recorded(&texts, &mut kept, ended);
        let what: Vec<_> = lines
            .iter()
            .map(|line| (&line["method"], &line["target"], &line["status"], &line["state"]))
            .map(|(method, target, status, state)| {
                (
                    method.as_str().unwrap(),
                    target.as_str().unwrap(),
                    status.as_u64(),
                    state.as_str(),
                )
            })
            .collect();
        let complete = Some("complete");
        assert_eq!(
            what,
            [("GET", "/one", Some(200), complete), ("POST", "/two", Some(404), complete)],
            "in pieces of {piece} bytes"
        );
        // A reader gets the same transaction, with its head, from the same streams.
        let http = kept.http.as_ref().unwrap();
        assert!(http.transit.is_empty(), "all are recorded");
        let again = http.exchange(1).unwrap().transaction(&texts);
        let head = again.response.unwrap().head.unwrap();
        assert_eq!((head.status(), head.value("content-type")), (Some(200), Some("text/plain")));
        assert_eq!(http.exchange(1).unwrap().decoded(), 11);
    }
}

#[test]
fn a_hole_in_such_a_stream_is_a_gap_in_its_transaction() {
    let body = ANSWERED.windows(5).position(|five| five == b"hello").unwrap() as u64;
    let texts = Texts { sent: [ASKED.to_vec(), ANSWERED.to_vec()], hole: body + 2..body + 6 };
    let (_, mut kept, ended) = spoken(&texts, 64);
    let lines = recorded(&texts, &mut kept, ended);
    let states: Vec<_> = lines.iter().map(|line| line["state"].as_str().unwrap()).collect();
    assert_eq!(states, ["gap", "complete"], "{lines:?}");
}

#[test]
fn other_protocols_are_not_taken_for_http() {
    let texts = Texts { sent: [vec![b'x'; ASKED.len()], vec![b'y'; ANSWERED.len()]], hole: 0..0 };
    let (app, kept, ended) = spoken(&texts, 64);
    assert!(app.dissector::<HttpDissector>().is_none() && ended.is_empty());
    assert!(kept.http.is_none());
}
