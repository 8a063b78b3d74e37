//! Exchanges of which the capture has lost segments: complete transactions are right, and those
//! without a gap are found.

#![allow(clippy::cast_possible_truncation, reason = "streams in memory")]

mod http_support;

use std::ops::Range;

use http_support::Random;
use protocol::http::direction::MessageRole;
use protocol::http::parser::{HttpParser, ParserEvent, ParserLimits, StreamEnd};
use protocol::http::transaction::{HttpTransaction, TransactionState};
use protocol::time::Timestamp;

/// The stream of one side, and the parts of it that were lost.
#[derive(Default)]
struct Side {
    stream: Vec<u8>,
    lost: Vec<Range<u64>>,
    fed: usize,
}

impl Side {
    /// Returns `true` if all of a range was captured.
    fn has(&self, range: &Range<usize>) -> bool {
        let (start, end) = (range.start as u64, range.end as u64);
        !self.lost.iter().any(|lost| lost.start < end && start < lost.end)
    }
}

/// A request and its response, as they were sent.
struct Exchange {
    status: u64,
    body: Vec<u8>,
    asked: Range<usize>,
    answered: Range<usize>,
}

#[derive(Default)]
struct Outcome {
    exchanges: usize,
    untouched: usize,
    complete_untouched: usize,
    wrong_statuses: Vec<String>,
    wrong_bodies: Vec<String>,
}

/// Feeds the new bytes of a stream to the parser in segments, and loses some of them.
fn feed(
    parser: &mut HttpParser,
    direction: MessageRole,
    side: &mut Side,
    loss: u64,
    random: &mut Random,
) {
    while side.fed < side.stream.len() {
        let len = 20 + random.below(700) as usize;
        let end = side.stream.len().min(side.fed + len);
        let range = side.fed as u64..end as u64;
        if random.below(1_000) < loss {
            parser.gap(direction, range.start, range.end);
            side.lost.push(range);
        } else {
            let bytes = &side.stream[side.fed..end];
            parser.feed(direction, side.fed as u64, bytes, Timestamp::default());
        }
        side.fed = end;
    }
}

fn body_of(transaction: &HttpTransaction, stream: &[u8]) -> Vec<u8> {
    let ranges = transaction.response.iter().flat_map(|response| &response.body.ranges);
    ranges.flat_map(|range| &stream[range.start as usize..range.end as usize]).copied().collect()
}

/// A connection with up to `burst` requests at a time. `loss` of 1,000 segments are lost.
fn connection(seed: u64, burst: u64, loss: u64, outcome: &mut Outcome) {
    let mut random = Random::new(seed);
    let mut parser = HttpParser::new(ParserLimits::default());
    let (mut client, mut server) = (Side::default(), Side::default());
    let mut exchanges: Vec<Exchange> = Vec::new();
    for _ in 0..12 {
        let first = exchanges.len();
        let count = 1 + random.below(burst) as usize;
        for number in first..first + count {
            let start = client.stream.len();
            let head = format!("GET /{number} HTTP/1.1\r\nHost: x.example\r\n\r\n");
            client.stream.extend(head.as_bytes());
            let body = vec![b'a' + (number % 26) as u8; random.below(2_000) as usize];
            let status = 200 + 7 * random.below(40);
            let status = if matches!(status, 204 | 304) { 200 } else { status };
            exchanges.push(Exchange {
                status,
                body,
                asked: start..client.stream.len(),
                answered: 0..0,
            });
        }
        parser.acknowledged(server.stream.len() as u64);
        feed(&mut parser, MessageRole::Request, &mut client, loss, &mut random);
        for exchange in &mut exchanges[first..] {
            let start = server.stream.len();
            let head = format!("HTTP/1.1 {} X\r\n", exchange.status);
            server.stream.extend(head.as_bytes());
            if random.below(2) == 0 {
                let length = format!("Content-Length: {}\r\n\r\n", exchange.body.len());
                server.stream.extend(length.as_bytes());
                server.stream.extend(&exchange.body);
            } else {
                server.stream.extend(b"Transfer-Encoding: chunked\r\n\r\n");
                for part in exchange.body.chunks(400) {
                    server.stream.extend(format!("{:x}\r\n", part.len()).as_bytes());
                    server.stream.extend(part);
                    server.stream.extend(b"\r\n");
                }
                server.stream.extend(b"0\r\n\r\n");
            }
            exchange.answered = start..server.stream.len();
        }
        feed(&mut parser, MessageRole::Response, &mut server, loss, &mut random);
    }
    parser.end(MessageRole::Request, StreamEnd::Fin);
    parser.end(MessageRole::Response, StreamEnd::Fin);

    let mut complete = vec![false; exchanges.len()];
    while let Some(event) = parser.event() {
        let ParserEvent::Transaction(one) = event else { panic!("{event:?}") };
        let head = one.request.as_ref().and_then(|request| request.head.as_ref());
        let Some(target) = head.and_then(|head| head.target()) else { continue };
        let number: usize = target[1..].parse().unwrap();
        let head = one.response.as_ref().and_then(|response| response.head.as_ref());
        let Some(status) = head.and_then(|head| head.status()) else { continue };
        let exchange = &exchanges[number];
        let what = format!("seed {seed}, burst {burst}, loss {loss}: {number}: {one:?}");
        if u64::from(status) != exchange.status {
            outcome.wrong_statuses.push(what.clone());
        }
        if one.state == TransactionState::Complete {
            complete[number] = true;
            if body_of(&one, &server.stream) != exchange.body || !server.has(&exchange.answered) {
                outcome.wrong_bodies.push(what);
            }
        }
    }
    for (exchange, is_complete) in exchanges.iter().zip(complete) {
        let is_untouched = client.has(&exchange.asked) && server.has(&exchange.answered);
        outcome.exchanges += 1;
        outcome.untouched += usize::from(is_untouched);
        outcome.complete_untouched += usize::from(is_untouched && is_complete);
    }
}

fn all(burst: u64, loss: u64) -> Outcome {
    let mut outcome = Outcome::default();
    for seed in 1..=200 {
        connection(seed, burst, loss, &mut outcome);
    }
    eprintln!(
        "burst {burst}, loss {loss}/1000: {} exchanges, {} untouched, {} of these complete, \
         {} wrong statuses, {} wrong bodies",
        outcome.exchanges,
        outcome.untouched,
        outcome.complete_untouched,
        outcome.wrong_statuses.len(),
        outcome.wrong_bodies.len(),
    );
    let none: [String; 0] = [];
    assert_eq!(outcome.wrong_statuses, none, "wrong statuses");
    assert_eq!(outcome.wrong_bodies, none, "wrong bodies");
    outcome
}

#[test]
fn nothing_is_wrong_when_responses_of_a_pipeline_are_lost() {
    for loss in [5, 10, 30, 50, 100] {
        all(5, loss);
    }
}

#[test]
fn without_pipelining_all_that_no_gap_touches_is_known() {
    for loss in [5, 10, 30, 50, 100] {
        let outcome = all(1, loss);
        let known = outcome.complete_untouched as f64 / outcome.untouched as f64;
        assert!(known >= 0.95, "{known}");
    }
}

#[test]
fn everything_is_known_without_loss() {
    for burst in [1, 5] {
        let outcome = all(burst, 0);
        assert_eq!(outcome.complete_untouched, outcome.exchanges);
    }
}

/// Feeds requests one after the other, and the server's bytes without those in `lost`. The client
/// sends each request when it has the given number of the server's bytes. Returns state and body of
/// each.
fn spoken(
    requests: &[(&str, usize)],
    server: &[u8],
    lost: Range<usize>,
) -> Vec<(TransactionState, String)> {
    let mut parser = HttpParser::new(ParserLimits::default());
    let (mut asked, mut answered) = (0, 0);
    let ends = requests.iter().map(|(_, end)| *end).skip(1).chain([server.len()]);
    for ((request, _), end) in requests.iter().zip(ends) {
        parser.acknowledged(answered as u64);
        parser.feed(MessageRole::Request, asked, request.as_bytes(), Timestamp::default());
        asked += request.len() as u64;
        for range in [answered..lost.start.clamp(answered, end), lost.end.clamp(answered, end)..end]
        {
            let bytes = &server[range.clone()];
            parser.feed(MessageRole::Response, range.start as u64, bytes, Timestamp::default());
        }
        if lost.contains(&(end - 1)) {
            parser.gap(MessageRole::Response, lost.start as u64, end as u64);
        }
        answered = end;
    }
    parser.end(MessageRole::Request, StreamEnd::Fin);
    parser.end(MessageRole::Response, StreamEnd::Fin);
    let mut found = Vec::new();
    while let Some(event) = parser.event() {
        let ParserEvent::Transaction(one) = event else { continue };
        if one.request.is_some() {
            let body = String::from_utf8(body_of(&one, server)).unwrap();
            found.push((one.state, body));
        }
    }
    found
}

#[test]
fn a_response_inside_a_body_without_its_head_is_not_counted() {
    let get = "GET / HTTP/1.1\r\nHost: x\r\n\r\n";
    let inner = "HTTP/1.1 200 OK\r\nContent-Length: 4\r\n\r\nFAKE";
    let answer =
        format!("HTTP/1.1 200 OK\r\nContent-Length: {}\r\n\r\nlog: {inner}", inner.len() + 5);
    let head = answer.find("log: ").unwrap();
    let next = "HTTP/1.1 200 OK\r\nContent-Length: 4\r\n\r\ntrue";
    let stream = format!("{answer}{next}");
    let stream = stream.as_bytes();
    let requests = [(get, 0), (get, answer.len())];
    // All of the head, then also bytes after it. The same for a connection with one request.
    for lost in [0..head, 0..head + 3, 0..head + 5, 1..head, 5..head + 5] {
        let found = spoken(&requests, stream, lost.clone());
        assert_eq!(found[0].0, TransactionState::Gap, "{lost:?} {found:?}");
        assert_eq!(found[1], (TransactionState::Complete, "true".to_owned()), "{lost:?} {found:?}");
        let found = spoken(&requests[..1], answer.as_bytes(), lost.clone());
        assert_eq!(found[0].0, TransactionState::Gap, "{lost:?} {found:?}");
    }
    // No bytes are missing.
    let found = spoken(&requests, stream, 0..0);
    assert!(found.iter().all(|(state, _)| *state == TransactionState::Complete), "{found:?}");
}

#[test]
fn a_response_after_a_missing_one_is_counted() {
    let get = "GET / HTTP/1.1\r\nHost: x\r\n\r\n";
    let post = "POST / HTTP/1.1\r\nExpect: 100-continue\r\nContent-Length: 2\r\n\r\nhi";
    let answer = "HTTP/1.1 200 OK\r\nContent-Length: 4\r\n\r\ntrue";
    let stream = answer.repeat(2);
    let requests = [(get, 0), (get, answer.len())];
    for lost in [0..answer.len(), 0..20, 10..answer.len()] {
        let found = spoken(&requests, stream.as_bytes(), lost.clone());
        assert_eq!(found[1], (TransactionState::Complete, "true".to_owned()), "{lost:?} {found:?}");
    }
    let stream = format!("HTTP/1.1 100 Continue\r\n\r\n{answer}");
    let found = spoken(&[(post, 0)], stream.as_bytes(), 0..25);
    assert_eq!(found[0], (TransactionState::Complete, "true".to_owned()), "{found:?}");
}
