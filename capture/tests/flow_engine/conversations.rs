//! Any conversations in any order.

use capture::flow::{Application, File, Log};
use capture::ring::MIN_RING;
use proptest::prelude::*;
use protocol::http::direction::MessageRole;
use serde_json::Value;

use crate::scene::*;

#[test]
fn requests_captured_after_the_answer_and_the_next_request() {
    let mut scene = Scene::new(free());
    let mut talk = Talk::new(1, 2_000);
    scene.send_all(talk.open());
    let mut turn = |number: u32| {
        let asks = talk.says(CLIENT, &get(&target(1, number)), 1_000).remove(0);
        (asks, talk.says(SERVER, &ok(b"hello"), 1_000).remove(0))
    };
    let (first, second, third) = (turn(1), turn(2), turn(3));
    scene.send_all([first.0, first.1, second.1, third.0, second.0, third.1]);
    scene.send(&talk.acknowledges(CLIENT));
    scene.settle();
    let told = scene.log(Log::Lines(Application::Http));
    let targets: Vec<_> = told.iter().map(|line| line["target"].clone()).collect();
    assert_eq!(targets, ["/1/1", "/1/2", "/1/3"], "while the connection is still open");
    assert!(told.iter().all(|line| line["state"] == "complete"));
}

#[derive(Clone, Debug)]
struct Turn {
    asks: usize,
    answers: usize,
    /// Bytes of a chunk, if the answer comes in chunks.
    chunk: Option<usize>,
}

#[derive(Clone, Debug)]
struct Plan {
    turns: Vec<Turn>,
    /// Whether all requests come before the first answer.
    is_pipelined: bool,
    /// Maximum bytes of a segment.
    segment: usize,
    is_closed: bool,
    /// Segments that are captured after the next one, and segments that are captured twice.
    late: Vec<prop::sample::Index>,
    twice: Vec<prop::sample::Index>,
}

fn plan() -> impl Strategy<Value = Plan> {
    let turn = (0..3_000_usize, 0..6_000_usize, prop::option::of(1..700_usize)).prop_map(
        |(asks, answers, chunk)| Turn { asks: asks.saturating_sub(1_500), answers, chunk },
    );
    let some = || prop::collection::vec(any::<prop::sample::Index>(), 0..6);
    (
        prop::collection::vec(turn, 1..5),
        any::<bool>(),
        20..1_460_usize,
        any::<bool>(),
        some(),
        some(),
    )
        .prop_map(|(turns, is_pipelined, segment, is_closed, late, twice)| Plan {
            turns,
            is_pipelined,
            segment,
            is_closed,
            late,
            twice,
        })
}

fn text(seed: usize, len: usize) -> Vec<u8> {
    (0..len).map(|at| b'a' + u8::try_from((at * 7 + seed + at / 26) % 26).unwrap()).collect()
}

impl Turn {
    fn request(&self, turn: usize) -> Vec<u8> {
        if self.asks == 0 {
            return get(&format!("/{turn}"));
        }
        let head = format!("POST /{turn} HTTP/1.1\r\nContent-Length: {}\r\n\r\n", self.asks);
        [head.into_bytes(), text(turn, self.asks)].concat()
    }

    fn answer(&self, turn: usize) -> Vec<u8> {
        let body = text(turn + 9, self.answers);
        let Some(chunk) = self.chunk else { return ok(&body) };
        let mut bytes = b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n".to_vec();
        for part in body.chunks(chunk) {
            bytes.extend(format!("{:x}\r\n", part.len()).into_bytes());
            bytes.extend(part);
            bytes.extend(b"\r\n");
        }
        bytes.extend(b"0\r\n\r\n");
        bytes
    }
}

impl Plan {
    fn frames(&self, talk: &mut Talk) -> Vec<Vec<u8>> {
        let opening = talk.open();
        let mut frames = Vec::new();
        for (number, turn) in self.turns.iter().enumerate() {
            frames.extend(talk.says(CLIENT, &turn.request(number), self.segment));
            if !self.is_pipelined {
                frames.extend(talk.says(SERVER, &turn.answer(number), self.segment));
            }
        }
        if self.is_pipelined {
            for (number, turn) in self.turns.iter().enumerate() {
                frames.extend(talk.says(SERVER, &turn.answer(number), self.segment));
            }
        }
        for twice in &self.twice {
            let at = twice.index(frames.len());
            frames.insert(at, frames[at].clone());
        }
        for late in &self.late {
            let at = late.index(frames.len() - 1);
            frames.swap(at, at + 1);
        }
        let closing = if self.is_closed { talk.close() } else { vec![talk.acknowledges(CLIENT)] };
        [opening, frames, closing].concat()
    }
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 48, ..ProptestConfig::default() })]

    #[test]
    fn any_conversations_come_out_as_they_were(
        plans in prop::collection::vec(plan(), 1..6),
        order in prop::collection::vec(any::<prop::sample::Index>(), 64),
        ends in any::<bool>(),
    ) {
        let mut scene = Scene::of_size(4 * MIN_RING, free());
        let mut talks: Vec<_> = (0..).map(|number| Talk::new(number, 2_000)).take(plans.len()).collect();
        let frames = plans.iter().zip(&mut talks).map(|(plan, talk)| plan.frames(talk).into_iter());
        let mut frames: Vec<_> = frames.collect();
        let mut order = order.iter().cycle();
        while !frames.is_empty() {
            let at = order.next().unwrap().index(frames.len());
            match frames[at].next() {
                Some(frame) => scene.send(&frame),
                None => drop(frames.remove(at)),
            }
        }
        scene.settle();
        if ends {
            scene.end();
        }
        let told = scene.log(Log::Lines(Application::Http));
        prop_assert_eq!(scene.ids().len(), plans.len());
        for id in scene.ids() {
            let number = number_of(&scene.flows.flow(id).unwrap().name) as usize;
            let (plan, talk) = (&plans[number], &talks[number]);
            prop_assert!(scene.file(id, File::Client) == talk.sent[CLIENT]);
            prop_assert!(scene.file(id, File::Server) == talk.sent[SERVER]);
            let lines = scene.file(id, File::Lines(Application::Http));
            let lines: Vec<Value> = lines
                .split_inclusive(|byte| *byte == b'\n')
                .map(|line| serde_json::from_slice(line).unwrap())
                .collect();
            let of_flow: Vec<_> = told.iter().filter(|line| line["flow"] == id).collect();
            prop_assert_eq!(lines.iter().collect::<Vec<_>>(), of_flow, "the same as in the log of all");
            prop_assert_eq!(lines.len(), plan.turns.len());
            for (turn, (line, wanted)) in lines.iter().zip(&plan.turns).enumerate() {
                prop_assert_eq!(&line["target"], &Value::from(format!("/{turn}")));
                prop_assert_eq!((&line["state"], &line["status"]), (&"complete".into(), &200.into()));
                prop_assert_eq!(&line["request_body"]["bytes"], &Value::from(wanted.asks));
                prop_assert_eq!(&line["response_body"]["bytes"], &Value::from(wanted.answers));
                let index = turn as u64 + 1;
                for (direction, len, seed) in [
                    (MessageRole::Request, wanted.asks, turn),
                    (MessageRole::Response, wanted.answers, turn + 9),
                ] {
                    if len > 0 {
                        let body = scene.file(id, File::Body { index, direction });
                        prop_assert!(body == text(seed, len));
                    }
                }
            }
        }
    }
}

#[test]
fn an_empty_body_in_chunks_is_recorded_once_it_is_acknowledged() {
    let turn = Turn { asks: 0, answers: 0, chunk: Some(1) };
    let (turns, late, twice) = (vec![turn], Vec::new(), Vec::new());
    let plan = Plan { turns, is_pipelined: false, segment: 20, is_closed: false, late, twice };
    let mut scene = Scene::new(free());
    for frame in plan.frames(&mut Talk::new(0, 2_000)) {
        scene.send(&frame);
    }
    scene.settle();
    assert_eq!(scene.log(Log::Lines(Application::Http)).len(), 1);
}
