//! Copies of the same bytes that differ. It is not known which of them was received.

use capture::flow::{Application, FlowOptions, Log};
use protocol::tcp::Policy;

use crate::scene::*;

const REQUEST: &str = "captured copies of the request differ";
const RESPONSE: &str = "captured copies of the response differ";

/// A segment with other data in place of the data that `talk` sends next.
fn forged(talk: &Talk, side: usize, data: &[u8]) -> Vec<u8> {
    talk.clone().segment(side, ACK, data)
}

/// Checks the state and reason of each transaction of a connection, under both policies. The policy
/// decides which copy of a target counts.
#[track_caller]
fn check(make: impl Fn(&mut Talk) -> Vec<Vec<u8>>, wanted: &[(&str, Option<&str>)]) {
    for policy in [Policy::First, Policy::Last] {
        let mut scene = Scene::new(FlowOptions { policy, ..free() });
        let mut talk = Talk::new(1, 2_000);
        scene.send_all(talk.open());
        scene.send_all(make(&mut talk));
        scene.send_all(talk.close());
        scene.settle();
        scene.end();
        let lines = scene.log(Log::Lines(Application::Http));
        let found: Vec<_> = lines
            .iter()
            .map(|line| {
                let of = |field: &str| line[field].as_str();
                (of("state").unwrap_or_default(), of("why"))
            })
            .collect();
        assert_eq!(found, wanted, "{policy:?}");
        assert!(scene.counters().overlap_conflicts > 0);
    }
}

#[test]
fn a_body_with_differing_copies_is_not_complete() {
    let make = |talk: &mut Talk| {
        let mut frames = talk.says(CLIENT, &get("/a"), 1_000);
        let (answer, body) = (ok(b"0123456789"), ok(b"").len() + 1);
        frames.push(forged(talk, SERVER, &answer[..body + 3]));
        let mut other = answer[..body + 3].to_vec();
        other[body + 1] = b'X';
        frames.push(forged(talk, SERVER, &other));
        frames.extend(talk.says(SERVER, &answer, 50));
        frames
    };
    check(make, &[("gap", Some(RESPONSE))]);
}

#[test]
fn nor_if_they_differ_while_bytes_in_front_of_them_are_missing() {
    let make = |talk: &mut Talk| {
        let mut frames = talk.says(CLIENT, &get("/a"), 1_000);
        let answer = ok(b"0123456789");
        let mut ahead = talk.clone();
        let _ = ahead.segment(SERVER, ACK, &answer[..42]);
        frames.push(forged(&ahead, SERVER, b"XX"));
        frames.extend(talk.says(SERVER, &answer, 1_000));
        frames
    };
    check(make, &[("gap", Some(RESPONSE))]);
}

#[test]
fn a_request_with_differing_copies_is_not_complete() {
    let make = |talk: &mut Talk| {
        let mut frames = vec![forged(talk, CLIENT, &get("/b"))];
        frames.extend(talk.says(CLIENT, &get("/b"), 1_000));
        frames.push(forged(
            &Talk { next: back(talk, &get("/a")), ..talk.clone() },
            CLIENT,
            &get("/a"),
        ));
        frames.extend(talk.says(SERVER, &ok(b"yes"), 1_000));
        frames
    };
    check(make, &[("gap", Some(REQUEST))]);
}

/// The numbers with which the client sends `data` again.
fn back(talk: &Talk, data: &[u8]) -> [u32; 2] {
    let len = u32::try_from(data.len()).unwrap();
    [talk.next[CLIENT].wrapping_sub(len), talk.next[SERVER]]
}

#[test]
fn nor_if_they_differ_before_it_is_known_to_be_http() {
    let make = |talk: &mut Talk| {
        let request = get("/a");
        let mut ahead = talk.clone();
        let _ = ahead.segment(CLIENT, ACK, &request[..4]);
        let mut frames = vec![forged(&ahead, CLIENT, b"/b")];
        frames.push(forged(&ahead, CLIENT, &request[4..]));
        frames.extend(talk.says(CLIENT, &request, 4));
        frames.extend(talk.says(SERVER, &ok(b"yes"), 1_000));
        frames
    };
    let mut scene = Scene::new(free());
    let mut talk = Talk::new(1, 2_000);
    scene.send_all(talk.open());
    scene.send_all(make(&mut talk));
    scene.send_all(talk.close());
    scene.settle();
    scene.end();
    let lines = scene.log(Log::Lines(Application::Http));
    assert_eq!((&lines[0]["target"], &lines[0]["state"]), (&"/b".into(), &"gap".into()));
}

#[test]
fn data_in_a_syn_that_the_server_did_not_take_is_in_doubt() {
    let mut scene = Scene::new(free());
    let mut talk = Talk::new(1, 2_000);
    let refused = talk.clone().segment(CLIENT, SYN, &get("/x"));
    let opening = talk.open();
    scene.send(&refused);
    scene.send_all(opening.into_iter().skip(1));
    scene.send_all(talk.says(CLIENT, &get("/y"), 1_000));
    scene.send_all(talk.says(SERVER, &ok(b"yes"), 1_000));
    scene.send_all(talk.close());
    scene.settle();
    scene.end();
    let lines = scene.log(Log::Lines(Application::Http));
    assert_eq!((&lines[0]["state"], &lines[0]["why"]), (&"gap".into(), &REQUEST.into()));
}

#[test]
fn undisputed_transactions_of_a_pipeline_are_complete() {
    let make = |talk: &mut Talk| {
        let requests = [get("/a"), get("/b"), get("/c")].concat();
        let mut frames = talk.says(CLIENT, &requests, 1_000);
        let other = [get("/a"), get("/X"), get("/c")].concat();
        frames.push(forged(&Talk { next: back(talk, &other), ..talk.clone() }, CLIENT, &other));
        let answers = [ok(b"a"), ok(b"b"), ok(b"c")].concat();
        let ends = ok(b"a").len() * 2;
        frames.push(forged(talk, SERVER, &answers[..ends + 5]));
        let mut other = answers[..ends + 5].to_vec();
        other[ends + 3] = b'X';
        frames.push(forged(talk, SERVER, &other));
        frames.extend(talk.says(SERVER, &answers, 1_000));
        frames
    };
    let states =
        [("/a", "complete", None), ("/b", "gap", Some(REQUEST)), ("/c", "gap", Some(RESPONSE))];
    let mut scene = Scene::new(free());
    let mut talk = Talk::new(1, 2_000);
    scene.send_all(talk.open());
    scene.send_all(make(&mut talk));
    scene.send_all(talk.close());
    scene.settle();
    scene.end();
    let lines = scene.log(Log::Lines(Application::Http));
    for (line, (target, state, why)) in lines.iter().zip(states) {
        assert_eq!(
            (line["target"].as_str(), line["state"].as_str(), line["why"].as_str()),
            (Some(target), Some(state), why)
        );
    }
    assert_eq!(lines.len(), 3);
}

#[test]
fn chunk_sizes_trailers_and_interim_responses_count() {
    let parts: [&[u8]; 6] = [
        b"HTTP/1.1 103 Early Hints\r\nLink: x\r\n\r\n",
        b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n",
        b"5\r\n",
        b"hello\r\n",
        b"0\r\n",
        b"A: b\r\n\r\n",
    ];
    for forged_part in 0..parts.len() {
        let mut scene = Scene::new(free());
        let mut talk = Talk::new(1, 2_000);
        scene.send_all(talk.open());
        scene.send_all(talk.says(CLIENT, &get("/a"), 1_000));
        for (at, part) in parts.iter().enumerate() {
            // The last part ends the transaction, so its other copy is cut short.
            let most = if at + 1 == parts.len() { 2 } else { part.len() };
            if at == forged_part {
                let mut other = part[..most].to_vec();
                scene.send(&forged(&talk, SERVER, &other));
                other[0] = b'7';
                scene.send(&forged(&talk, SERVER, &other));
            }
            scene.send_all(talk.says(SERVER, part, 1_000));
        }
        scene.send_all(talk.close());
        scene.settle();
        scene.end();
        let lines = scene.log(Log::Lines(Application::Http));
        let line = &lines[0];
        assert_eq!(
            (line["state"].as_str(), line["why"].as_str()),
            (Some("gap"), Some(RESPONSE)),
            "{line}"
        );
    }
}

/// The lines of HTTP after each packet: how many there are, and the state of the first one.
fn progress(scene: &mut Scene, frames: Vec<Vec<u8>>) -> Vec<(usize, String)> {
    let mut found = Vec::new();
    for frame in frames {
        scene.send(&frame);
        scene.settle();
        let lines = scene.log(Log::Lines(Application::Http));
        let state = lines.first().and_then(|line| line["state"].as_str()).unwrap_or_default();
        found.push((lines.len(), state.to_owned()));
    }
    found
}

/// A connection after a request and its answer, which the client has not acknowledged.
fn answered(scene: &mut Scene) -> (Talk, Vec<u8>) {
    let mut talk = Talk::new(1, 2_000);
    scene.send_all(talk.open());
    // The first packets tell the engine what time it is.
    scene.settle();
    scene.send_all(talk.says(CLIENT, &get("/a"), 1_000));
    let answer = ok(b"0123456789");
    let before = forged(&talk, SERVER, &[&answer[..answer.len() - 1], b"X"].concat());
    scene.send_all(talk.says(SERVER, &answer, 1_000));
    scene.settle();
    (talk, before)
}

#[test]
fn a_transaction_has_its_line_once_its_last_byte_is_acknowledged() {
    let mut scene = Scene::new(free());
    let (mut talk, forged) = answered(&mut scene);
    assert!(scene.log(Log::Lines(Application::Http)).is_empty());
    let acknowledgment = talk.acknowledges(CLIENT);
    // The client has the first copy, and nothing changes that.
    let found = progress(&mut scene, vec![acknowledgment, forged]);
    assert_eq!(found, [(1, "complete".to_owned()), (1, "complete".to_owned())]);
}

#[test]
fn a_copy_that_differs_is_noticed_until_then() {
    for is_closed in [false, true] {
        let mut scene = Scene::new(free());
        let (mut talk, forged) = answered(&mut scene);
        let frames = if is_closed {
            vec![forged, talk.segment(SERVER, FIN | ACK, b""), talk.segment(CLIENT, FIN | ACK, b"")]
        } else {
            vec![forged, talk.acknowledges(CLIENT)]
        };
        let found = progress(&mut scene, frames);
        assert_eq!(found.first(), Some(&(0, String::new())));
        assert_eq!(found.last(), Some(&(1, "gap".to_owned())));
        assert_eq!(scene.log(Log::Lines(Application::Http))[0]["why"], RESPONSE);
    }
}

/// The acknowledgment was not captured, or never is.
#[test]
fn it_waits_for_half_a_second_at_most() {
    let mut scene = Scene::new(free());
    let _ = answered(&mut scene);
    scene.now += 490_000_000;
    let packet = || vec![udp(9, 1, true, b"time passes")];
    assert_eq!(progress(&mut scene, packet()), [(0, String::new())]);
    // Timers have buckets of 64 ms.
    scene.now += 80_000_000;
    assert_eq!(progress(&mut scene, packet()), [(1, "complete".to_owned())]);
    // No packet of the client is captured.
    let mut scene = Scene::new(free());
    let mut talk = Talk::new(1, 2_000);
    scene.send(&talk.open()[1]);
    scene.send_all(talk.says(SERVER, &ok(b"0123456789"), 1_000));
    scene.settle();
    let count = scene.log(Log::Lines(Application::Http)).len();
    assert_eq!(count, 1, "no acknowledgment will ever come");
}
