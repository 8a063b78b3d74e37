//! Random conversations with a known truth: every framing, coding and way of pipelining, cut into
//! random segments, with random gaps.

#![allow(clippy::cast_possible_truncation, reason = "streams in memory")]

mod http_support;

use std::io::Write;
use std::ops::Range;

use http_support::{Memory, transactions};
use proptest::prelude::*;
use proptest::sample::Index;
use protocol::http::body;
use protocol::http::direction::MessageRole;
use protocol::http::parser::{HttpParser, ParserLimits, StreamEnd};
use protocol::http::transaction::{HttpTransaction, TransactionState};
use protocol::time::Timestamp;

#[derive(Clone, Copy, Debug, PartialEq)]
enum Framed {
    None,
    Length,
    Chunked,
    Close,
}

#[derive(Clone, Copy, Debug)]
enum Coded {
    Plain,
    Gzip,
    Deflate,
    Raw,
    Zstd,
    Brotli,
    Stacked,
}

#[derive(Clone, Debug)]
struct Exchange {
    method: &'static str,
    request: (Framed, Coded, Vec<u8>),
    response: (Framed, Coded, Vec<u8>),
    status: u16,
    interim: bool,
    /// Sent before the response to the request before it.
    pipelined: bool,
    chunk: usize,
    trailer: bool,
}

/// The ranges of an exchange, and its bodies.
#[derive(Clone, Debug)]
struct Truth {
    request: Range<usize>,
    response: Range<usize>,
    request_body: Vec<u8>,
    response_body: Vec<u8>,
}

fn coded() -> impl Strategy<Value = Coded> {
    prop::sample::select(vec![
        Coded::Plain,
        Coded::Plain,
        Coded::Gzip,
        Coded::Deflate,
        Coded::Raw,
        Coded::Zstd,
        Coded::Brotli,
        Coded::Stacked,
    ])
}

fn payload() -> impl Strategy<Value = Vec<u8>> {
    prop_oneof![
        prop::collection::vec(any::<u8>(), 1..300),
        prop::collection::vec(b'a'..=b'f', 1..300),
        Just(b"0\r\n\r\n".to_vec()),
        Just(b"text with HTTP/1.1 in it, POST and GET / too\r\n\r\n".to_vec()),
    ]
}

fn exchange() -> impl Strategy<Value = Exchange> {
    (
        (
            prop::sample::select(vec!["GET", "POST", "HEAD", "PUT", "GET", "POST"]),
            prop::sample::select(vec![Framed::Length, Framed::Chunked]),
            coded(),
            payload(),
        ),
        (
            prop::sample::select(vec![Framed::Length, Framed::Chunked, Framed::Close]),
            coded(),
            payload(),
            prop::sample::select(vec![200, 200, 200, 404, 204, 304]),
        ),
        (any::<bool>(), any::<bool>(), 1..40_usize, any::<bool>()),
    )
        .prop_map(|(request, response, (interim, pipelined, chunk, trailer))| {
            let has_body = matches!(request.0, "POST" | "PUT");
            let framed = if has_body { request.1 } else { Framed::None };
            let bodiless = request.0 == "HEAD" || matches!(response.3, 204 | 304);
            Exchange {
                method: request.0,
                request: (framed, request.2, if has_body { request.3 } else { Vec::new() }),
                response: (
                    if bodiless { Framed::None } else { response.0 },
                    response.1,
                    if bodiless { Vec::new() } else { response.2 },
                ),
                status: response.3,
                interim,
                pipelined,
                chunk,
                trailer,
            }
        })
}

fn encode(coded: Coded, body: &[u8]) -> (&'static str, Vec<u8>) {
    use flate2::Compression;
    if body.is_empty() {
        return ("", Vec::new());
    }
    use flate2::write::{DeflateEncoder, GzEncoder, ZlibEncoder};
    match coded {
        Coded::Plain => ("", body.to_vec()),
        Coded::Gzip => {
            let mut writer = GzEncoder::new(Vec::new(), Compression::fast());
            writer.write_all(body).unwrap();
            ("x-gzip", writer.finish().unwrap())
        }
        Coded::Deflate => {
            let mut writer = ZlibEncoder::new(Vec::new(), Compression::fast());
            writer.write_all(body).unwrap();
            ("Deflate", writer.finish().unwrap())
        }
        Coded::Raw => {
            let mut writer = DeflateEncoder::new(Vec::new(), Compression::fast());
            writer.write_all(body).unwrap();
            ("deflate", writer.finish().unwrap())
        }
        Coded::Zstd => ("zstd", zstd::stream::encode_all(body, 1).unwrap()),
        Coded::Brotli => {
            let header = (u32::try_from(body.len()).unwrap() - 1) << 4 | 1 << 20;
            ("br", [&header.to_le_bytes()[..3], body, &[3]].concat())
        }
        Coded::Stacked => {
            let inner = encode(Coded::Zstd, body).1;
            ("zstd , GZIP", encode(Coded::Gzip, &inner).1)
        }
    }
}

/// Headers for the body, the empty line, and the body.
fn write_body(out: &mut Vec<u8>, part: &(Framed, Coded, Vec<u8>), exchange: &Exchange) {
    let (framed, coded, body) = part;
    let (name, bytes) = encode(*coded, body);
    if !name.is_empty() && !body.is_empty() {
        out.extend_from_slice(format!("Content-Encoding: {name}\r\n").as_bytes());
    }
    match framed {
        Framed::None | Framed::Close => {
            out.extend_from_slice(b"\r\n");
        }
        Framed::Length => {
            out.extend_from_slice(format!("Content-Length: {}\r\n\r\n", bytes.len()).as_bytes());
        }
        Framed::Chunked => {
            out.extend_from_slice(b"Transfer-Encoding: chunked\r\n\r\n");
            for chunk in bytes.chunks(exchange.chunk) {
                out.extend_from_slice(format!("{:x};a=b\r\n", chunk.len()).as_bytes());
                out.extend_from_slice(chunk);
                out.extend_from_slice(b"\r\n");
            }
            let end: &[u8] = if exchange.trailer { b"0\r\nT: x\r\n\r\n" } else { b"0\r\n\r\n" };
            out.extend_from_slice(end);
            return;
        }
    }
    if *framed != Framed::None {
        out.extend_from_slice(&bytes);
    }
}

/// Returns the streams, the order in which they grow, and the truth.
fn play(exchanges: &[Exchange]) -> (Memory, Vec<(MessageRole, usize)>, Vec<Truth>) {
    let mut memory = Memory::default();
    let mut order = Vec::new();
    let mut truth: Vec<Truth> = Vec::new();
    let mut answered = 0;
    let last = exchanges.iter().position(|one| one.response.0 == Framed::Close);
    let exchanges = &exchanges[..last.map_or(exchanges.len(), |last| last + 1)];
    for (number, one) in exchanges.iter().enumerate() {
        if !one.pipelined {
            answer(&mut memory, &mut order, &mut truth, exchanges, &mut answered);
        }
        let start = memory.request.len();
        let line = format!("{} /{number} HTTP/1.1\r\nHost: h\r\n", one.method);
        memory.request.extend_from_slice(line.as_bytes());
        write_body(&mut memory.request, &one.request, one);
        order.push((MessageRole::Request, memory.request.len()));
        truth.push(Truth {
            request: start..memory.request.len(),
            response: 0..0,
            request_body: one.request.2.clone(),
            response_body: one.response.2.clone(),
        });
    }
    answer(&mut memory, &mut order, &mut truth, exchanges, &mut answered);
    (memory, order, truth)
}

fn answer(
    memory: &mut Memory,
    order: &mut Vec<(MessageRole, usize)>,
    truth: &mut [Truth],
    exchanges: &[Exchange],
    answered: &mut usize,
) {
    for number in *answered..truth.len() {
        let one = &exchanges[number];
        let start = memory.response.len();
        if one.interim {
            memory.response.extend_from_slice(b"HTTP/1.1 100 Continue\r\n\r\n");
        }
        let line = format!("HTTP/1.1 {} R{number}\r\nX-Number: {number}\r\n", one.status);
        memory.response.extend_from_slice(line.as_bytes());
        write_body(&mut memory.response, &one.response, one);
        order.push((MessageRole::Response, memory.response.len()));
        truth[number].response = start..memory.response.len();
    }
    *answered = truth.len();
}

/// Feeds everything but the holes, in segments cut at `cuts`.
fn parse(
    memory: &Memory,
    order: &[(MessageRole, usize)],
    holes: &[(MessageRole, Range<usize>)],
    cuts: &[Index],
) -> Vec<HttpTransaction> {
    let mut parser = HttpParser::new(ParserLimits::default());
    let mut done = [0_usize, 0];
    for (number, &(direction, end)) in order.iter().enumerate() {
        let time = Timestamp::from_nanoseconds(number as u64);
        let (stream, slot) = match direction {
            MessageRole::Request => (&memory.request, 0),
            MessageRole::Response => (&memory.response, 1),
        };
        let start = done[slot];
        done[slot] = end;
        let mut points = vec![start, end];
        points.extend(cuts.iter().map(|cut| start + cut.index(end - start)));
        for (_, hole) in holes.iter().filter(|(one, _)| *one == direction) {
            points.extend([hole.start.clamp(start, end), hole.end.clamp(start, end)]);
        }
        points.sort_unstable();
        points.dedup();
        for pair in points.windows(2) {
            let holed =
                holes.iter().any(|(one, hole)| *one == direction && hole.contains(&pair[0]));
            if holed {
                parser.gap(direction, pair[0] as u64, pair[1] as u64);
            } else {
                parser.feed(direction, pair[0] as u64, &stream[pair[0]..pair[1]], time);
            }
        }
    }
    parser.end(MessageRole::Response, StreamEnd::Fin);
    parser.end(MessageRole::Request, StreamEnd::Fin);
    assert_eq!(parser.pending(), 0);
    transactions(&mut parser)
}

fn decoded(memory: &Memory, one: &HttpTransaction, direction: MessageRole) -> Vec<u8> {
    let message = one.message(direction).unwrap();
    let found = body::read(memory, direction, &message.body, &body::DecodingLimits::default());
    assert_eq!(found.notes, [], "{one:?}");
    found.bytes
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 400, ..ProptestConfig::default() })]

    #[test]
    fn without_gaps_everything_comes_out(
        exchanges in prop::collection::vec(exchange(), 1..7),
        cuts in prop::collection::vec(any::<Index>(), 0..5),
    ) {
        let (memory, order, truth) = play(&exchanges);
        let found = parse(&memory, &order, &[], &cuts);
        prop_assert_eq!(found.len(), truth.len());
        for (number, (one, truth)) in found.iter().zip(&truth).enumerate() {
            prop_assert_eq!((one.state, &one.why), (TransactionState::Complete, &None));
            prop_assert_eq!(one.index, number as u64 + 1);
            let request = one.request.as_ref().unwrap();
            prop_assert_eq!(request.head_range.start as usize, truth.request.start);
            let response = one.response.as_ref().unwrap();
            let reason = format!("/{number}");
            prop_assert_eq!(request.head.as_ref().unwrap().target(), Some(reason.as_str()));
            let number = number.to_string();
            prop_assert_eq!(response.head.as_ref().unwrap().value("x-number"), Some(number.as_str()));
            prop_assert_eq!(&decoded(&memory, one, MessageRole::Request), &truth.request_body);
            prop_assert_eq!(&decoded(&memory, one, MessageRole::Response), &truth.response_body);
        }
        // The result does not depend on the cuts.
        prop_assert_eq!(&parse(&memory, &order, &[], &[]), &found);
    }

    /// With one request at a time, everything outside of holes is complete and right, and no bytes
    /// are made up.
    #[test]
    fn messages_outside_holes_are_complete(
        exchanges in prop::collection::vec(exchange(), 1..7),
        cuts in prop::collection::vec(any::<Index>(), 0..3),
        holes in prop::collection::vec((any::<bool>(), any::<Index>(), 1..200_usize), 1..4),
    ) {
        let mut exchanges = exchanges;
        for one in &mut exchanges {
            one.pipelined = false;
        }
        let (memory, order, truth) = play(&exchanges);
        let holes: Vec<_> = holes.into_iter().map(|(request, start, length)| {
            let (direction, stream) = if request {
                (MessageRole::Request, &memory.request)
            } else {
                (MessageRole::Response, &memory.response)
            };
            let start = start.index(stream.len());
            (direction, start..(start + length).min(stream.len()))
        }).collect();
        let found = parse(&memory, &order, &holes, &cuts);
        prop_assert_eq!(&parse(&memory, &order, &holes, &[]), &found);
        let touched = |direction: MessageRole, range: &Range<usize>| holes.iter()
            .any(|(one, hole)| *one == direction && hole.start < range.end && hole.end > range.start);
        for (number, truth) in truth.iter().enumerate() {
            if touched(MessageRole::Request, &truth.request)
                || touched(MessageRole::Response, &truth.response) {
                continue;
            }
            let start = truth.request.start as u64;
            let one = found.iter().find(|one| {
                one.request.as_ref().is_some_and(|request| request.head_range.start == start)
            });
            prop_assert!(one.is_some(), "{number} is not there: {found:#?}");
            let one = one.unwrap();
            prop_assert_eq!((one.state, &one.why), (TransactionState::Complete, &None), "{}", number);
            let number = number.to_string();
            let response = one.response.as_ref().unwrap().head.as_ref().unwrap();
            prop_assert_eq!(response.value("x-number"), Some(number.as_str()));
            prop_assert_eq!(&decoded(&memory, one, MessageRole::Request), &truth.request_body);
            prop_assert_eq!(&decoded(&memory, one, MessageRole::Response), &truth.response_body);
        }
        for one in &found {
            for direction in [MessageRole::Request, MessageRole::Response] {
                let Some(message) = one.message(direction) else { continue };
                for range in &message.body.ranges {
                    let holed = touched(direction, &(range.start as usize..range.end as usize));
                    prop_assert!(!holed || !message.body.holes.is_empty());
                }
                prop_assert!(message.body.holes.is_empty() || one.state >= TransactionState::Gap);
            }
        }
    }
}
