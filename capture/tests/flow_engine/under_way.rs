//! Transactions under way: their known parts can be read, and never change once they were read.

use std::collections::BTreeMap;
use std::ops::ControlFlow;

use capture::flow::{Application, File, FileReading, Log};
use capture::ring::MIN_RING;
use capture::store::Store;
use proptest::prelude::*;
use protocol::http::direction::MessageRole;
use serde_json::{Value, json};

use crate::scene::*;

const RESPONSE: File = File::Body { index: 1, direction: MessageRole::Response };
const EVENTS: &[u8] =
    b"HTTP/1.1 200 OK\r\nContent-Type: text/event-stream\r\nTransfer-Encoding: chunked\r\n\r\n";

fn event(number: u32) -> Vec<u8> {
    let text = format!("data: {number}\n\n");
    format!("{:x}\r\n{text}\r\n", text.len()).into_bytes()
}

fn text(scene: &Scene, id: u64) -> String {
    String::from_utf8(scene.file(id, File::Transcript)).unwrap()
}

fn open_http(scene: &Scene) -> Vec<Value> {
    let size = scene.flows.open_http_stat().size;
    let bytes = whole(&mut scene.flows.open_http().unwrap());
    assert_eq!(bytes.len() as u64, size);
    lines(&bytes)
}

fn bodies(scene: &Scene, id: u64) -> Vec<(String, File)> {
    let mut all = Vec::new();
    scene.flows.bodies(id, 0, &mut |body| {
        all.push((body.name.clone(), File::Body { index: body.index, direction: body.direction }));
        ControlFlow::Continue(())
    });
    all
}

/// Reads to the end as it was, then to the end as it is now, and appends the bytes.
#[track_caller]
fn read_on(reading: &mut FileReading, bytes: &mut Vec<u8>) {
    for _ in 0..2 {
        loop {
            let part = reading.read(bytes.len() as u64, 700).expect("it can be read");
            if part.is_empty() {
                break;
            }
            bytes.extend(part);
        }
    }
}

#[test]
fn a_request_that_waits_for_its_answer_is_there() {
    let mut scene = Scene::new(free());
    let mut talk = Talk::new(1, 2_000);
    scene.send_all(talk.open());
    let request = b"POST /slow HTTP/1.1\r\nHost: h\r\nContent-Type: text/plain\r\n\
                    Content-Length: 10\r\n\r\n";
    scene.send_all(talk.says(CLIENT, request, 1_000));
    scene.settle();
    assert!(text(&scene, 1).contains("POST /slow HTTP/1.1"), "{}", text(&scene, 1));
    assert_eq!(bodies(&scene, 1), []);
    scene.send_all(talk.says(CLIENT, b"hello", 1_000));
    scene.settle();
    assert!(text(&scene, 1).ends_with("\n\nhello"), "{}", text(&scene, 1));
    let names: Vec<_> = bodies(&scene, 1).into_iter().map(|(name, _)| name).collect();
    assert_eq!(names, ["0001-request.txt"]);
    let http = json!({ "transactions": 0, "incomplete": 0, "open": 1 });
    assert_eq!(scene.meta(1)["http"], http);
    assert_eq!(scene.log(Log::Lines(Application::Http)).len(), 0);
    let open = open_http(&scene);
    assert_eq!(open, scene.lines(1, File::HttpOpen));
    assert_eq!(open.len(), 1);
    let line = &open[0];
    for (field, expected) in [
        ("state", json!("open")),
        ("method", json!("POST")),
        ("target", json!("/slow")),
        ("flow", json!(1)),
        ("status", Value::Null),
        ("duration_us", Value::Null),
        ("why", Value::Null),
    ] {
        assert_eq!(line[field], expected, "{field} of {line}");
    }
    assert_eq!(line["request_body"]["wire_bytes"], 5);
    assert_eq!(line["request_body"]["file"], "bodies/0001-request.txt");
    scene.send_all(talk.says(CLIENT, b"world", 1_000));
    scene.send_all(talk.says(SERVER, &ok(b"done"), 1_000));
    scene.send(&talk.acknowledges(CLIENT));
    scene.settle();
    assert_eq!(open_http(&scene), [] as [Value; 0]);
    assert_eq!(scene.lines(1, File::HttpOpen), [] as [Value; 0]);
    let log = scene.log(Log::Lines(Application::Http));
    let fields: Vec<_> = log[0].as_object().unwrap().keys().collect();
    let of_open: Vec<_> = line.as_object().unwrap().keys().collect();
    assert_eq!(fields, of_open, "the same fields in both");
    assert_eq!(scene.meta(1)["http"]["open"], 0);
    assert!(text(&scene, 1).contains("\n\nhelloworld\n--- 1 response "), "{}", text(&scene, 1));
}

#[test]
fn a_response_without_end_is_followed() {
    let mut scene = Scene::new(free());
    let mut talk = Talk::new(1, 2_000);
    scene.send_all(talk.open());
    scene.send_all(talk.says(CLIENT, &get("/events"), 1_000));
    scene.send_all(talk.says(SERVER, EVENTS, 1_000));
    scene.send_all(talk.says(SERVER, &event(0), 1_000));
    scene.settle();
    let mut transcript = scene.flows.open(1, File::Transcript, 0).unwrap();
    let mut body = scene.flows.open(1, RESPONSE, 0).unwrap();
    let (mut seen, mut data) = (Vec::new(), Vec::new());
    for number in 1..=20 {
        scene.send_all(talk.says(SERVER, &event(number), 1_000));
        scene.settle();
        read_on(&mut transcript, &mut seen);
        read_on(&mut body, &mut data);
        assert!(seen.ends_with(format!("data: {number}\n\n").as_bytes()));
        let size = scene.flows.stat(1, File::Transcript).unwrap().size;
        assert_eq!(size, seen.len() as u64, "a new reader sees as much as one that reads on");
        assert_eq!(scene.flows.stat(1, RESPONSE).unwrap().size, data.len() as u64);
    }
    let expected: Vec<u8> =
        (0..=20).flat_map(|number| format!("data: {number}\n\n").into_bytes()).collect();
    assert_eq!(data, expected);
    assert!(seen.ends_with(&expected), "{}", String::from_utf8_lossy(&seen));
}

#[test]
fn a_response_without_end_is_followed_although_its_beginning_is_overwritten() {
    let mut scene = Scene::new(free());
    let mut talk = Talk::new(1, 2_000);
    scene.send_all(talk.open());
    scene.send_all(talk.says(CLIENT, &get("/events"), 1_000));
    scene.send_all(talk.says(SERVER, EVENTS, 1_000));
    scene.settle();
    let mut transcript = scene.flows.open(1, File::Transcript, 0).unwrap();
    let mut seen = Vec::new();
    for number in 0..40 {
        scene.send_all(talk.says(SERVER, &event(number), 1_000));
        scene.settle();
        read_on(&mut transcript, &mut seen);
        let told = format!("data: {number}\n\n");
        assert!(seen.ends_with(told.as_bytes()), "{}", String::from_utf8_lossy(&seen));
        // The ring is lapped after 16 events.
        for _ in 0..MIN_RING / 1_500 / 16 {
            scene.send(&udp(9, 1, true, &[0; 1_400]));
        }
    }
    scene.settle();
    assert!(scene.ring.bounds().oldest.number > 100, "{:?}", scene.ring.bounds());
    let size = scene.flows.stat(1, File::Transcript).unwrap().size;
    assert_eq!(size, seen.len() as u64);
    scene.send_all(talk.says(SERVER, b"0\r\n\r\n", 1_000));
    scene.send(&talk.acknowledges(CLIENT));
    scene.settle();
    read_on(&mut transcript, &mut seen);
    assert!(seen.ends_with(b"data: 39\n\n\n"), "{}", String::from_utf8_lossy(&seen));
    assert_eq!(scene.file(1, File::Transcript).len(), seen.len());
}

#[test]
fn all_that_is_under_way_is_in_one_list() {
    let mut scene = Scene::new(free());
    let mut talks: Vec<_> = (1..=200).map(|number| Talk::new(number, 2_000)).collect();
    for talk in &mut talks {
        scene.send_all(talk.open());
        let asks = [get("/a"), get("/b")].concat();
        scene.send_all(talk.says(CLIENT, &asks, 1_000));
    }
    scene.settle();
    let open = open_http(&scene);
    let place = |line: &Value| (line["flow"].as_u64().unwrap(), line["index"].as_u64().unwrap());
    let all: Vec<_> = (1..=200).flat_map(|flow| [(flow, 1), (flow, 2)]).collect();
    assert_eq!(open.iter().map(place).collect::<Vec<_>>(), all);
    for talk in &mut talks {
        scene.send_all(talk.says(SERVER, &ok(b"one"), 1_000));
        scene.send(&talk.acknowledges(CLIENT));
    }
    scene.settle();
    assert_eq!(
        (open_http(&scene).len(), scene.log(Log::Lines(Application::Http)).len()),
        (200, 200)
    );
    scene.end();
    assert_eq!((open_http(&scene).len(), scene.log(Log::Lines(Application::Http)).len()), (0, 400));
}

#[test]
fn http_har_of_the_capture_is_one_of_its_moment() {
    let mut scene = Scene::of_size(16 << 20, free());
    let entries = |bytes: &[u8]| -> Vec<Value> {
        let har: Value = serde_json::from_slice(bytes).unwrap();
        har["log"]["entries"].as_array().unwrap().clone()
    };
    assert_eq!(entries(&whole(&mut scene.flows.har().unwrap())), [] as [Value; 0]);
    // More bytes than an entry has room for, and more than a block of the file.
    let long = vec![b'x'; 1_500_000];
    let mut talks: Vec<_> = (1..=20).map(|number| Talk::new(number, 2_000)).collect();
    for talk in &mut talks[1..] {
        scene.send_all(talk.exchange(&get("/a"), &ok(&[b'y'; 9_000])));
    }
    scene.settle();
    let mut reading = scene.flows.har().unwrap();
    let size = scene.flows.har_stat().size;
    scene.send_all(talks[0].exchange(&get("/long"), &ok(&long)));
    scene.settle();
    let before = whole(&mut reading);
    assert_eq!((before.len() as u64, entries(&before).len()), (size, 19));
    let all = entries(&whole(&mut scene.flows.har().unwrap()));
    let last = all.last().unwrap();
    assert_eq!((all.len(), &last["request"]["url"]), (20, &json!("http://test/long")));
    let content = &last["response"]["content"];
    assert_eq!(content["text"].as_str().unwrap().len(), 1 << 20);
    assert!(content["comment"].as_str().unwrap().contains("larger"), "{}", content["comment"]);
    assert_eq!(last["response"]["bodySize"], long.len());
}

/// The bytes that each side sends in one turn.
fn turn() -> impl Strategy<Value = (Vec<u8>, Vec<u8>)> {
    let words = prop::collection::vec(
        prop::sample::select(vec!["a", "\r\n", "\r", "é", "€", "😀", "\u{0}", "word\n"]),
        0..400,
    );
    let media = prop::sample::select(vec!["text/plain", "image/png", ""]);
    let latin = any::<bool>();
    (words, media, latin, 0..3_usize).prop_map(|(words, media, latin, framing)| {
        let mut body = words.concat().into_bytes();
        if latin {
            body.extend(b" caf\xe9 \xc3");
        }
        let media =
            if media.is_empty() { String::new() } else { format!("Content-Type: {media}\r\n") };
        let answer = if framing == 0 {
            let mut chunks = Vec::new();
            for chunk in body.chunks(50) {
                chunks.extend(format!("{:x}\r\n", chunk.len()).into_bytes());
                chunks.extend(chunk);
                chunks.extend(b"\r\n");
            }
            let head = format!("HTTP/1.1 200 OK\r\n{media}Transfer-Encoding: chunked\r\n\r\n");
            [head.as_bytes(), &chunks, b"0\r\n\r\n"].concat()
        } else {
            let head = format!("HTTP/1.1 200 OK\r\n{media}Content-Length: {}\r\n\r\n", body.len());
            [head.as_bytes(), &body].concat()
        };
        let asks = if framing == 2 {
            let head = format!("POST /é HTTP/1.1\r\n{media}Content-Length: {}\r\n\r\n", body.len());
            [head.as_bytes(), &body].concat()
        } else {
            get("/a")
        };
        (asks, answer)
    })
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 12, failure_persistence: None, ..ProptestConfig::default() })]

    /// However long readers watch files while they grow, the files only get longer, and in the end
    /// they are the same as if no reader had watched.
    #[test]
    fn files_grow_at_their_end_only(
        turns in prop::collection::vec(turn(), 1..4),
        is_pipelined in any::<bool>(),
        segment in 5..1_400_usize,
        every in 1..7_usize,
    ) {
        let mut talk = Talk::new(1, 2_000);
        let mut frames = talk.open();
        if is_pipelined {
            let asks = turns.iter().flat_map(|(asks, _)| asks.clone()).collect::<Vec<_>>();
            frames.extend(talk.says(CLIENT, &asks, segment));
        }
        for (asks, answers) in &turns {
            if !is_pipelined {
                frames.extend(talk.says(CLIENT, asks, segment));
            }
            frames.extend(talk.says(SERVER, answers, segment));
        }
        frames.extend(talk.close());
        let mut unseen = Scene::new(free());
        unseen.send_all(frames.clone());
        unseen.end();

        let mut scene = Scene::new(free());
        let mut known: BTreeMap<String, (File, Vec<u8>)> = BTreeMap::new();
        for frames in frames.chunks(every) {
            scene.send_all(frames.iter().cloned());
            scene.settle();
            let mut files = bodies(&scene, 1);
            if scene.flows.flow(1).unwrap().applications.has(Application::Http) {
                files.push(("http".to_owned(), File::Transcript));
                let begun = scene.meta(1)["http"].clone();
                prop_assert_eq!(scene.log(Log::Lines(Application::Http)).len() as u64, begun["transactions"].as_u64().unwrap());
                prop_assert_eq!(open_http(&scene).len() as u64, begun["open"].as_u64().unwrap());
            }
            for (name, file) in files {
                let now = scene.file(1, file);
                let (_, before) = known.entry(name.clone()).or_insert((file, Vec::new()));
                prop_assert!(now.starts_with(before), "{} was another", name);
                *before = now;
            }
        }
        scene.end();
        for (name, (file, before)) in &known {
            let now = scene.file(1, *file);
            prop_assert!(now.starts_with(before), "{} was another", name);
            prop_assert!(now == unseen.file(1, *file), "{} differs from one that no reader opened", name);
        }
        prop_assert_eq!(bodies(&scene, 1), bodies(&unseen, 1));
    }
}
