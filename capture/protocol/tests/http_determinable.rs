//! Pipelined exchanges that have lost segments: the parser finds the pairs that follow from the
//! captured bytes, and no others.
//!
//! The test finds these pairs by trial. A world gives each gap a number of messages that it may
//! have swallowed. A pair is determinable if it is a pair in each world in which no response comes
//! before its request.

#![allow(clippy::cast_possible_truncation, reason = "streams in memory")]

mod http_support;

use std::ops::Range;

use http_support::Random;
use protocol::http::direction::MessageRole;
use protocol::http::parser::{HttpParser, ParserEvent, ParserLimits, StreamEnd};
use protocol::http::transaction::TransactionState;
use protocol::time::Timestamp;

const SEEDS: u64 = 400;

/// Lengths of the shortest messages, shorter than those of the conversations.
const SHORTEST_REQUEST: usize = 22;
const SHORTEST_RESPONSE: usize = 16;

/// The messages of one side, and the ranges of bytes that were lost.
#[derive(Default)]
struct Side {
    stream: Vec<u8>,
    messages: Vec<Range<usize>>,
    lost: Vec<Range<usize>>,
}

impl Side {
    fn say(&mut self, text: &str) {
        let start = self.stream.len();
        self.stream.extend(text.as_bytes());
        self.messages.push(start..self.stream.len());
    }

    fn lost_of(&self, range: &Range<usize>) -> impl Iterator<Item = usize> {
        let range = range.clone();
        self.lost
            .iter()
            .map(move |lost| lost.end.min(range.end).saturating_sub(lost.start.max(range.start)))
            .filter(|bytes| *bytes > 0)
    }

    fn is_whole(&self, message: usize) -> bool {
        self.lost_of(&self.messages[message]).next().is_none()
    }

    /// Numbers of the messages that were captured completely, and how many may be hidden before
    /// each.
    fn seen(&self, shortest: usize) -> Vec<(usize, Range<usize>)> {
        let mut end = 0;
        let mut seen = Vec::new();
        for number in (0..self.messages.len()).filter(|number| self.is_whole(*number)) {
            let between = end..self.messages[number].start;
            let missing: Vec<_> = self.lost_of(&between).collect();
            let most = missing.iter().map(|bytes| bytes / shortest + 1).sum::<usize>();
            seen.push((number, usize::from(most > 0)..most + 1));
            end = self.messages[number].end;
        }
        seen
    }

    /// Number of messages that may be hidden after the last one that was captured completely.
    fn hidden_at_end(&self, shortest: usize) -> Range<usize> {
        let end = self.seen(shortest).last().map_or(0, |(number, _)| self.messages[*number].end);
        let missing: Vec<_> = self.lost_of(&(end..self.stream.len())).collect();
        let most = missing.iter().map(|bytes| bytes / shortest + 1).sum::<usize>();
        usize::from(most > 0)..most + 1
    }

    /// All possible lists of positions for the captured messages.
    fn worlds(&self, shortest: usize, limit: usize) -> Vec<Vec<usize>> {
        let mut worlds = vec![Vec::new()];
        for (_, hidden) in self.seen(shortest) {
            worlds = worlds
                .into_iter()
                .flat_map(|world| {
                    let next = world.last().map_or(0, |last| last + 1);
                    hidden.clone().map(move |hidden| {
                        let mut world = world.clone();
                        world.push(next + hidden);
                        world
                    })
                })
                .filter(|world: &Vec<usize>| *world.last().unwrap() < limit)
                .collect();
        }
        worlds
    }
}

/// Numbers of the exchanges whose messages were captured and form a pair in each world.
fn determinable(client: &Side, server: &Side) -> Vec<usize> {
    let limit = client.messages.len() + 8;
    let (asked, answered) = (client.seen(SHORTEST_REQUEST), server.seen(SHORTEST_RESPONSE));
    let hidden = client.hidden_at_end(SHORTEST_REQUEST).end - 1;
    let answers = server.worlds(SHORTEST_RESPONSE, limit);
    let mut pairs: Option<Vec<(usize, usize)>> = None;
    for requests in client.worlds(SHORTEST_REQUEST, limit) {
        let count = requests.last().map_or(0, |last| last + 1) + hidden;
        for responses in answers.iter().filter(|all| all.last().is_none_or(|last| *last < count)) {
            let here: Vec<_> = requests
                .iter()
                .zip(&asked)
                .filter_map(|(position, (request, _))| {
                    let at = responses.iter().position(|response| response == position)?;
                    Some((*request, answered[at].0))
                })
                .collect();
            pairs = Some(match pairs {
                Some(all) => all.into_iter().filter(|pair| here.contains(pair)).collect(),
                None => here,
            });
        }
    }
    pairs.unwrap_or_default().into_iter().map(|(request, _)| request).collect()
}

/// A connection whose client sends all requests at once. Returns the determinable exchanges, and
/// those that the parser calls complete.
fn connection(seed: u64, loss: u64) -> (Vec<usize>, Vec<usize>) {
    let mut random = Random::new(seed);
    let (mut client, mut server) = (Side::default(), Side::default());
    for number in 0..2 + random.below(5) {
        client.say(&format!("GET /{number} HTTP/1.1\r\nHost: x.example\r\n\r\n"));
        let body = "b".repeat(random.below(600) as usize);
        let (status, length) = (400 + number, body.len());
        server.say(&format!("HTTP/1.1 {status} X\r\nContent-Length: {length}\r\n\r\n{body}"));
    }
    let mut parser = HttpParser::new(ParserLimits::default());
    for (direction, side, longest) in
        [(MessageRole::Request, &mut client, 100), (MessageRole::Response, &mut server, 700)]
    {
        let mut fed = 0;
        while fed < side.stream.len() {
            let end = side.stream.len().min(fed + 20 + random.below(longest) as usize);
            if random.below(1_000) < loss {
                parser.gap(direction, fed as u64, end as u64);
                side.lost.push(fed..end);
            } else {
                let bytes = &side.stream[fed..end];
                parser.feed(direction, fed as u64, bytes, Timestamp::default());
            }
            fed = end;
        }
    }
    parser.end(MessageRole::Response, StreamEnd::Fin);
    parser.end(MessageRole::Request, StreamEnd::Fin);
    let mut complete = Vec::new();
    while let Some(event) = parser.event() {
        let ParserEvent::Transaction(one) = event else { panic!("{event:?}") };
        if one.state != TransactionState::Complete {
            continue;
        }
        let head = |direction| one.message(direction).and_then(|message| message.head.as_ref());
        let target = head(MessageRole::Request).and_then(|head| head.target()).unwrap();
        let status = head(MessageRole::Response).and_then(|head| head.status()).unwrap();
        assert_eq!(target, format!("/{}", status - 400), "seed {seed}, loss {loss}: {one:#?}");
        let body = &one.response.as_ref().unwrap().body;
        let number = usize::from(status - 400);
        assert!(body.ended && server.is_whole(number), "seed {seed}, loss {loss}: {one:#?}");
        complete.push(number);
    }
    (determinable(&client, &server), complete)
}

#[test]
fn everything_that_the_captured_bytes_determine_is_known() {
    for loss in [20, 50, 100, 200, 300] {
        let (mut all, mut known) = (0, 0);
        for seed in 0..SEEDS {
            let (determinable, complete) = connection(seed, loss);
            all += determinable.len();
            known += determinable.iter().filter(|number| complete.contains(number)).count();
        }
        eprintln!("{loss} of 1000 lost: {known} of {all} determinable pairs are known");
        assert!(all > 0 && known * 100 >= all * 95, "{loss}: {known} of {all}");
    }
}

#[test]
fn a_response_that_servers_send_unasked_answers_nothing_for_sure() {
    let mut parser = HttpParser::new(ParserLimits::default());
    let (mut client, mut server) = (Side::default(), Side::default());
    for number in [1, 2] {
        client.say(&format!("GET /{number} HTTP/1.1\r\nHost: x.example\r\n\r\n"));
        server.say("HTTP/1.1 200 OK\r\nContent-Length: 0\r\n\r\n");
    }
    let late = "HTTP/1.1 408 Request Timeout\r\nConnection: close\r\nContent-Length: 0\r\n\r\n";
    let lost = server.stream.len() as u64;
    parser.feed(MessageRole::Request, 0, &client.stream, Timestamp::default());
    parser.gap(MessageRole::Response, 0, lost);
    parser.feed(MessageRole::Response, lost, late.as_bytes(), Timestamp::default());
    parser.end(MessageRole::Response, StreamEnd::Fin);
    parser.end(MessageRole::Request, StreamEnd::Fin);
    let mut count = 0;
    while let Some(ParserEvent::Transaction(one)) = parser.event() {
        assert_eq!(one.state, TransactionState::Gap, "{one:#?}");
        assert!(one.request.is_none() || one.response.is_none(), "{one:#?}");
        count += 1;
    }
    assert_eq!(count, 3);
}
