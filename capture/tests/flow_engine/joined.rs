//! Connections that were under way when the capture began.

use capture::flow::{Application, File, Log};
use proptest::prelude::*;
use protocol::http::direction::MessageRole;
use serde_json::Value;

use crate::scene::*;

/// Silence after which the engine stops waiting for bytes before the first captured ones.
const LONG: u64 = SECOND;

/// Ends of requests: of a head, of a target, of bodies, and an end that shows nothing.
const ASKS: [&str; 7] = [
    "ser-Agent: x\r\nCookie: a\r\n\r\n",
    "tml; q=0.1\r\n\r\n",
    "abc HTTP/1.1\r\nHost: test\r\n\r\n",
    "a=b&c=d",
    "{\"a\":1}",
    "foo bar baz",
    "\r\n",
];

/// Ends of responses.
const ANSWERS: [&str; 6] =
    ["tttttttt", "last words of a text", "line\nline\n", "HTTP is spoken", "ok\r\n0\r\n\r\n", "HT"];

/// One side sends data in one segment, and the other acknowledges it.
fn turn(scene: &mut Scene, talk: &mut Talk, side: usize, data: &[u8]) {
    let data = talk.segment(side, ACK, data);
    let seen = talk.segment(1 - side, ACK, b"");
    scene.send_all([data, seen]);
}

/// The transactions of the only flow: target, status, state, and the response's body.
fn told(scene: &Scene) -> Vec<(Value, Value, Value, String)> {
    let id = scene.ids()[0];
    let lines = scene.file(id, File::Lines(Application::Http));
    let lines = lines.split_inclusive(|byte| *byte == b'\n');
    let line = |line: &[u8]| {
        let line: Value = serde_json::from_slice(line).unwrap();
        let index = line["index"].as_u64().unwrap();
        let has_body = !line["response_body"]["file"].is_null();
        let body = File::Body { index, direction: MessageRole::Response };
        let body = if has_body { scene.file(id, body) } else { Vec::new() };
        let body = String::from_utf8_lossy(&body).into_owned();
        (line["target"].clone(), line["status"].clone(), line["state"].clone(), body)
    };
    lines.map(line).collect()
}

/// The expected transactions of a connection with `turns` requests, whose first has number 2. If
/// `has_orphan`, the response to the request before them was captured too.
fn wanted(has_orphan: bool, turns: u32) -> Vec<(Value, Value, Value, String)> {
    let orphan = (Value::Null, 200.into(), "truncated".into(), "body-1".to_owned());
    let turns = (2..2 + turns).map(|number| {
        let target = Value::from(format!("/{number}"));
        (target, 200.into(), "complete".into(), format!("body-{number}"))
    });
    has_orphan.then_some(orphan).into_iter().chain(turns).collect()
}

fn answer(number: u32) -> Vec<u8> {
    ok(format!("body-{number}").as_bytes())
}

/// The end of a request in two segments, the second from `cut` on, and its response.
fn tail_of_request(scene: &mut Scene, talk: &mut Talk, tail: &str, cut: usize) {
    for part in [&tail.as_bytes()[..cut], &tail.as_bytes()[cut..]] {
        if !part.is_empty() {
            turn(scene, talk, CLIENT, part);
        }
    }
    turn(scene, talk, SERVER, &answer(1));
}

/// Sends requests from number 2 on and their responses, each after its pause, and then the end.
/// Returns the number of requests.
fn goes_on(scene: &mut Scene, talk: &mut Talk, pauses: &[u64]) -> u32 {
    for (number, pauses) in (2..).zip(pauses.chunks_exact(2)) {
        scene.now += pauses[0];
        turn(scene, talk, CLIENT, &get(&format!("/{number}")));
        scene.now += pauses[1];
        turn(scene, talk, SERVER, &answer(number));
    }
    scene.send_all(talk.close());
    scene.settle();
    scene.end();
    u32::try_from(pauses.len() / 2).unwrap()
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 64, ..ProptestConfig::default() })]

    /// The tail of a request, its response, and then requests as usual.
    #[test]
    fn a_request_joined_in_its_tail_has_its_response(
        tail in prop::sample::select(&ASKS[..]),
        cut in prop::option::of(any::<prop::sample::Index>()),
        pauses in prop::collection::vec(prop::sample::select(vec![0, 50 * MILLISECOND, LONG]), 2..24),
    ) {
        let mut scene = Scene::new(free());
        let mut talk = Talk::new(1, 2_000);
        let cut = cut.map_or(tail.len(), |cut| cut.index(tail.len()).max(1));
        tail_of_request(&mut scene, &mut talk, tail, cut);
        let turns = goes_on(&mut scene, &mut talk, &pauses);
        prop_assert_eq!(told(&scene), wanted(true, turns));
    }

    /// The tail of a response, and then requests as usual.
    #[test]
    fn the_tail_of_a_response_is_not_a_response(
        tail in prop::sample::select(&ANSWERS[..]),
        pauses in prop::collection::vec(prop::sample::select(vec![0, 50 * MILLISECOND, LONG]), 2..24),
    ) {
        let mut scene = Scene::new(free());
        let mut talk = Talk::new(1, 2_000);
        turn(&mut scene, &mut talk, SERVER, tail.as_bytes());
        let turns = goes_on(&mut scene, &mut talk, &pauses);
        prop_assert_eq!(told(&scene), wanted(false, turns));
    }
}

#[test]
fn the_tail_of_a_response_ends_where_the_next_one_begins() {
    let mut scene = Scene::new(free());
    let mut talk = Talk::new(1, 2_000);
    turn(&mut scene, &mut talk, SERVER, &[b"tail of a body", &answer(1)[..]].concat());
    for number in 2..5 {
        turn(&mut scene, &mut talk, CLIENT, &get(&format!("/{number}")));
        turn(&mut scene, &mut talk, SERVER, &answer(number));
    }
    scene.send_all(talk.close());
    scene.settle();
    scene.end();
    assert_eq!(told(&scene), wanted(true, 3));
}

#[test]
fn a_request_without_a_version_has_an_answer_without_a_head() {
    let mut scene = Scene::new(free());
    let mut talk = Talk::new(1, 2_000);
    turn(&mut scene, &mut talk, CLIENT, b"GET /old\r\n");
    turn(&mut scene, &mut talk, SERVER, b"<html>old</html>");
    scene.send_all([talk.segment(SERVER, FIN | ACK, b""), talk.segment(CLIENT, FIN | ACK, b"")]);
    scene.settle();
    scene.end();
    let old = ("/old".into(), Value::Null, "complete".into(), "<html>old</html>".to_owned());
    assert_eq!(told(&scene), [old]);
}

/// Each tail may look like something else: the end of a request line looks like a response.
#[test]
fn requests_joined_anywhere_in_their_tails_have_their_responses() {
    for tail in ASKS {
        for cut in 0..tail.len() {
            let mut scene = Scene::new(free());
            let mut talk = Talk::new(1, 2_000);
            tail_of_request(&mut scene, &mut talk, tail, cut);
            let turns = goes_on(&mut scene, &mut talk, &[0, 0]);
            assert_eq!(told(&scene), wanted(true, turns), "{tail:?}, {cut} bytes before the rest");
        }
    }
}

#[test]
fn a_transaction_without_one_of_its_messages_has_no_duration() {
    let mut scene = Scene::new(free());
    let mut talk = Talk::new(1, 2_000);
    tail_of_request(&mut scene, &mut talk, ASKS[0], 0);
    turn(&mut scene, &mut talk, CLIENT, &get("/2"));
    scene.now += SECOND;
    turn(&mut scene, &mut talk, SERVER, &answer(2));
    turn(&mut scene, &mut talk, CLIENT, &get("/3"));
    scene.send_all(talk.close());
    scene.settle();
    scene.end();
    let id = scene.ids()[0];
    let (lines, meta) = (scene.log(Log::Lines(Application::Http)), scene.meta(id));
    assert_eq!(lines.len(), 3, "{lines:?}");
    for line in &lines {
        let is_whole = line["target"] == "/2";
        // From a segment to the second one after it: the acknowledgment lies between them.
        let expected = if is_whole { 1_000_002.into() } else { Value::Null };
        assert_eq!(line["duration_us"], expected, "{line}");
        assert_eq!((&line["capture"], &line["flow"]), (&CAPTURE.into(), &id.into()));
        for end in ["client", "server"] {
            let ends = [&line[end], &meta[end]];
            let [told, known] = ends.map(|end| (&end["address"], &end["port"]));
            assert_eq!(told, known, "{line}");
        }
    }
    let of_flow = String::from_utf8(scene.file(id, File::Lines(Application::Http))).unwrap();
    let of_flow = of_flow.lines().map(|line| serde_json::from_str::<Value>(line).unwrap());
    assert_eq!(of_flow.collect::<Vec<_>>(), lines, "the same in the flow and in the log");
}
