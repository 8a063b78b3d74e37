//! DNS over UDP and TCP: its lines in the log of the capture and in files of flows.

use capture::flow::{Application, File, FlowLimits, FlowOpenError, FlowOptions, Log};
use serde_json::{Value, json};

use crate::scene::*;

const DNS: Log = Log::Lines(Application::Dns);
const LINES: File = File::Lines(Application::Dns);

/// A type A query for `name`.
fn query(id: u16, name: &str) -> Vec<u8> {
    message(id, 0x0100, name, &[])
}

/// The response to it, with these addresses.
fn response(id: u16, name: &str, addresses: &[[u8; 4]]) -> Vec<u8> {
    message(id, 0x8180, name, addresses)
}

/// RFC 1035, section 4.1.
fn message(id: u16, flags: u16, name: &str, addresses: &[[u8; 4]]) -> Vec<u8> {
    let answers = u16::try_from(addresses.len()).unwrap();
    let header = [id, flags, 1, answers, 0, 0].map(u16::to_be_bytes);
    let mut bytes = header.as_flattened().to_vec();
    for label in name.split('.') {
        bytes.push(u8::try_from(label.len()).unwrap());
        bytes.extend(label.as_bytes());
    }
    bytes.extend([0, 0, 1, 0, 1]);
    for address in addresses {
        // The name of the question, type A, class IN, a minute, four bytes.
        bytes.extend([0xc0, 12, 0, 1, 0, 1, 0, 0, 0, 60, 0, 4]);
        bytes.extend(address);
    }
    bytes
}

/// A message as TCP sends it: RFC 1035, section 4.2.2.
fn framed(message: &[u8]) -> Vec<u8> {
    let len = u16::try_from(message.len()).unwrap();
    [&len.to_be_bytes(), message].concat()
}

/// The fields of lines that say what happened.
fn told(lines: &[Value]) -> Vec<(&str, &str)> {
    lines
        .iter()
        .map(|line| (line["name"].as_str().unwrap_or("-"), line["state"].as_str().unwrap()))
        .collect()
}

#[test]
fn a_query_and_its_response_are_a_line() {
    let mut scene = Scene::new(free());
    scene.send(&udp(1, 4_000, true, &query(7, "www.example.com")));
    scene.settle();
    assert_eq!(scene.log(DNS), [] as [Value; 0], "it waits for its response");
    let meta = scene.meta(1);
    assert_eq!(
        (&meta["application"], &meta["dns"]),
        (&json!("dns"), &json!({"transactions": 0, "open": 1}))
    );
    scene.send(&udp(
        1,
        4_000,
        false,
        &response(7, "www.example.com", &[[1, 2, 3, 4], [5, 6, 7, 8]]),
    ));
    scene.settle();
    let lines = scene.log(DNS);
    assert_eq!(told(&lines), [("www.example.com", "answered")]);
    let line = &lines[0];
    assert_eq!(
        (&line["capture"], &line["flow"], &line["index"]),
        (&json!(CAPTURE), &json!(1), &json!(1))
    );
    assert_eq!(
        (&line["id"], &line["type"], &line["rcode"]),
        (&json!(7), &json!("A"), &json!("NOERROR"))
    );
    assert_eq!(line["client"], json!({"address": "10.0.0.1", "port": 4_000}));
    assert_eq!(line["server"], json!({"address": "192.168.0.1", "port": 53}));
    let data: Vec<_> = line["answers"].as_array().unwrap().iter().map(|one| &one["data"]).collect();
    assert_eq!(data, ["1.2.3.4", "5.6.7.8"]);
    assert_eq!(scene.lines(1, LINES), lines, "the file of the flow has the same");
    assert_eq!(scene.meta(1)["dns"], json!({"transactions": 1, "open": 0}));
    scene.end();
    assert_eq!(scene.log(DNS).len(), 1);
    assert_eq!(scene.lines(1, LINES), lines);
}

#[test]
fn a_query_without_a_response_is_a_line_when_it_has_waited_long_enough() {
    let mut scene = Scene::new(free());
    scene.send(&udp(1, 4_000, true, &query(1, "answered.test")));
    scene.send(&udp(1, 4_000, false, &response(1, "answered.test", &[])));
    scene.send(&udp(1, 4_000, true, &query(2, "lost.test")));
    scene.settle();
    assert_eq!(told(&scene.log(DNS)), [("answered.test", "answered")]);
    // Time passes by the packets of another flow. This one is still open.
    scene.now += 31 * SECOND;
    scene.send(&udp(2, 4_000, true, &query(3, "later.test")));
    scene.settle();
    let wanted = [("answered.test", "answered"), ("lost.test", "unanswered")];
    assert_eq!(told(&scene.log(DNS)), wanted);
    assert_eq!(told(&scene.lines(1, LINES)), wanted);
    assert_eq!(scene.meta(1)["state"], "open");
    // The end of the capture ends the query of the other flow.
    scene.end();
    assert_eq!(told(&scene.lines(2, LINES)), [("later.test", "unanswered")]);
    assert_eq!(scene.log(DNS).len(), 3);
}

#[test]
fn the_end_of_a_flow_ends_its_queries() {
    let mut scene = Scene::new(free());
    for port in 4_000..4_010 {
        scene.send(&udp(1, port, true, &query(port, "lost.test")));
    }
    scene.settle();
    // A flow ends after 30 seconds if only one side has sent.
    scene.now += 40 * SECOND;
    scene.send(&udp(9, 9, true, b"no DNS at all, but a packet"));
    scene.settle();
    assert_eq!(scene.log(DNS).len(), 10);
    assert!(scene.log(DNS).iter().all(|line| line["state"] == "unanswered"));
    assert_eq!(scene.meta(1)["event"], "ended");
    assert_eq!(scene.meta(1)["dns"], json!({"transactions": 1, "open": 0}));
}

#[test]
fn a_response_in_fragments_is_one_message() {
    let mut scene = Scene::new(free());
    let addresses: Vec<_> = (0..120).map(|last| [10, 1, 1, last]).collect();
    let long = response(5, "many.test", &addresses);
    scene.send(&udp(1, 4_000, true, &query(5, "many.test")));
    let mut fragments = fragments(&udp(1, 4_000, false, &long), 77, &[800, 1_600]);
    let last = fragments.pop().unwrap();
    scene.send_all(fragments);
    // A datagram that comes before the last fragment waits for its turn.
    scene.send(&udp(1, 4_000, false, &response(6, "next.test", &[])));
    scene.settle();
    assert_eq!(scene.log(DNS), [] as [Value; 0]);
    scene.send(&last);
    scene.settle();
    let lines = scene.log(DNS);
    assert_eq!(told(&lines), [("many.test", "answered"), ("next.test", "unasked")]);
    assert_eq!(lines[0]["answers_total"], 120, "{}", lines[0]);
    let why = lines[0]["why"].as_str().unwrap_or_default();
    assert!(!why.contains("cut"), "{why}");
}

#[test]
fn a_message_that_was_captured_in_part_keeps_what_there_is() {
    let mut scene = Scene::new(free());
    scene.send(&udp(1, 4_000, true, &query(5, "cut.test")));
    let whole = udp(1, 4_000, false, &response(5, "cut.test", &[[1, 2, 3, 4], [5, 6, 7, 8]]));
    scene.now += 1_000;
    scene.send_cut(&whole, whole.len() - 6);
    scene.settle();
    let lines = scene.log(DNS);
    assert_eq!(told(&lines), [("cut.test", "answered")]);
    assert_eq!(lines[0]["answers"].as_array().unwrap().len(), 1, "{}", lines[0]);
    assert!(lines[0]["why"].is_string(), "{}", lines[0]);
}

#[test]
fn dns_over_tcp_is_read_in_the_order_of_its_endpoints() {
    let asked: Vec<u8> =
        [query(1, "one.test"), query(2, "two.test")].iter().flat_map(|one| framed(one)).collect();
    let answered: Vec<u8> =
        [response(2, "two.test", &[[2, 2, 2, 2]]), response(1, "one.test", &[[1, 1, 1, 1]])]
            .iter()
            .flat_map(|one| framed(one))
            .collect();
    // Segments of a few zeros may be padding.
    for most in [10, 40, 1_000] {
        for is_swapped in [false, true] {
            let mut scene = Scene::new(free());
            let mut talk = Talk::new(1, 2_000);
            scene.send_all(talk.open());
            let asks = talk.says(CLIENT, &asked, most);
            let answers = talk.says(SERVER, &answered, most);
            // The responses are captured before the queries.
            let (first, second) = if is_swapped { (answers, asks) } else { (asks, answers) };
            scene.send_all(first);
            scene.send_all(second);
            scene.send_all(talk.close());
            scene.settle();
            scene.end();
            let wanted = [("two.test", "answered"), ("one.test", "answered")];
            let case = format!("segments of {most} bytes, swapped: {is_swapped}");
            assert_eq!(told(&scene.log(DNS)), wanted, "{case}");
            assert_eq!(told(&scene.lines(1, LINES)), wanted, "{case}");
            assert_eq!(scene.meta(1)["application"], "dns", "{case}");
            assert_eq!(scene.log(DNS)[0]["server"]["port"], 80, "{case}");
        }
    }
}

#[test]
fn dns_over_tcp_is_found_when_the_beginning_is_missing() {
    let mut scene = Scene::new(free());
    let mut talk = Talk::new(1, 2_000);
    // The handshake and the first half of a query were not captured.
    let _ = talk.open();
    let first = framed(&query(1, "torn.test"));
    let _ = talk.says(CLIENT, &first[..15], 1_000);
    scene.send_all(talk.says(CLIENT, &first[15..], 1_000));
    scene.send_all(talk.says(SERVER, &framed(&response(1, "torn.test", &[[1, 1, 1, 1]])), 1_000));
    scene.send_all(talk.says(CLIENT, &framed(&query(2, "whole.test")), 1_000));
    scene.send_all(talk.says(SERVER, &framed(&response(2, "whole.test", &[])), 1_000));
    scene.send_all(talk.close());
    scene.settle();
    scene.end();
    let lines = scene.log(DNS);
    assert_eq!(told(&lines), [("torn.test", "unasked"), ("whole.test", "answered")]);
    assert_eq!(lines[0]["queried"], json!(null));
    assert!(lines[0]["why"].is_string(), "{}", lines[0]);
}

#[test]
fn a_hole_in_dns_over_tcp_invents_nothing() {
    let mut scene = Scene::new(free());
    let mut talk = Talk::new(1, 2_000);
    scene.send_all(talk.open());
    for id in 1..=40 {
        let asks = talk.says(CLIENT, &framed(&query(id, "a.test")), 1_000);
        let answers = talk.says(SERVER, &framed(&response(id, "a.test", &[[1, 1, 1, 1]])), 1_000);
        scene.send_all(asks);
        // The third response was not captured.
        if id != 3 {
            scene.send_all(answers);
        }
    }
    scene.send_all(talk.close());
    scene.settle();
    scene.end();
    let lines = scene.log(DNS);
    let of = |state: &str| lines.iter().filter(|line| line["state"] == state).count();
    assert_eq!((of("answered"), of("unanswered"), of("unasked")), (39, 1, 0), "{lines:?}");
    let lost = lines.iter().find(|line| line["state"] == "unanswered").unwrap();
    assert_eq!((&lost["id"], &lost["answered"]), (&json!(3), &json!(null)));
}

#[test]
fn only_flows_with_dns_have_the_file() {
    let mut scene = Scene::new(free());
    scene.send(&udp(1, 4_000, true, b"hello"));
    scene.send(&udp(2, 4_000, true, &query(1, "a.test")));
    let mut talk = Talk::new(3, 2_000);
    scene.send_all(talk.open());
    scene.send_all(talk.says(CLIENT, b"GET / HTTP/1.1\r\nHost: a\r\n\r\n", 100));
    scene.settle();
    scene.end();
    let has = |id| scene.flows.flow(id).unwrap().has(LINES);
    assert_eq!([has(1), has(2), has(3)], [false, true, false]);
    assert_eq!(scene.flows.open(1, LINES, 0).err(), Some(FlowOpenError::Gone));
    assert_eq!(scene.flows.stat(3, LINES), None);
    let applications = [1, 2, 3].map(|id| scene.meta(id)["application"].clone());
    assert_eq!(applications, [json!(null), json!("dns"), json!("http")]);
    assert_eq!(scene.meta(3)["dns"], json!(null));
}

#[test]
fn malformed_messages_before_the_first_one_change_nothing() {
    let mut scene = Scene::new(free());
    for _ in 0..3 {
        scene.send(&udp(1, 4_000, true, b"?"));
    }
    scene.send(&udp(1, 4_000, true, &query(1, "a.test")));
    scene.send(&udp(1, 4_000, false, &response(1, "a.test", &[])));
    scene.settle();
    assert_eq!(told(&scene.log(DNS)), [("a.test", "answered")]);
}

#[test]
fn on_other_ports_a_query_or_its_response_is_recognized() {
    let mut scene = Scene::new(free());
    let send = |scene: &mut Scene, port: u16, forward: bool, bytes: &[u8]| {
        scene.send(&udp_to(1, [port, 7_000], forward, bytes));
    };
    send(&mut scene, 4_000, true, b"?");
    send(&mut scene, 4_000, false, &response(1, "response.test", &[]));
    // After two other datagrams, the flow is no longer looked at.
    send(&mut scene, 4_001, true, b"?");
    send(&mut scene, 4_001, false, b"!");
    send(&mut scene, 4_001, true, &query(1, "late.test"));
    scene.settle();
    assert_eq!(told(&scene.log(DNS)), [("response.test", "unasked")]);
}

#[test]
fn a_flow_of_which_the_log_has_dropped_lines_begins_later() {
    let mut options = free();
    options.limits = FlowLimits { log: 1, ..options.limits };
    let mut scene = Scene::of_size(8 << 20, options);
    let mut all = 0;
    // Each query asks for another name, so that lines are not packed too well.
    while scene.counters().log_lines_dropped == 0 || all < 600 {
        for id in 0..100_u16 {
            let name = format!("name-{all}-{id}.test");
            scene.send(&udp(1, 4_000, true, &query(id, &name)));
            scene.send(&udp(1, 4_000, false, &response(id, &name, &[])));
        }
        all += 100;
        scene.settle();
        assert!(all < 100_000, "nothing is dropped");
    }
    let (of_log, of_flow) = (scene.log(DNS), scene.lines(1, LINES));
    assert!(!of_log.is_empty() && of_log.len() < all, "{} of {all}", of_log.len());
    assert_eq!(of_flow, of_log);
    assert_eq!(scene.meta(1)["dns"]["transactions"], all as u64, "the count has them all");
    assert!(scene.flows.stat(1, LINES).unwrap().beginning > 0);
    // An older opener gets an error, not other lines.
    let mut older = scene.flows.open(1, LINES, 0).unwrap();
    assert!(older.read(0, 100).is_err());
}

#[test]
fn what_waits_is_counted_as_memory_and_bounded() {
    let mut scene = Scene::of_size(32 << 20, free());
    let before = scene.counters().memory;
    let name = format!("{}.test", "x".repeat(60));
    for id in 0..50_000_u16 {
        scene.send(&udp(1, 4_000, true, &query(id, &format!("{id}.{name}"))));
    }
    scene.settle();
    let open = scene.meta(1)["dns"]["open"].as_u64().unwrap();
    assert!(open <= 1_024, "{open} wait");
    assert_eq!(scene.log(DNS).len() as u64 + open, 50_000);
    let lines = scene.flows.log_stat(DNS, None).size;
    let grown = scene.counters().memory - before;
    assert!(grown > open * 100, "{grown} bytes for {open}");
    // Lines are compressed, and the flow has their places.
    assert!(grown < lines + 50_000 * 32 + open * 2_000, "{grown} bytes, lines of {lines}");
}

#[test]
fn http_and_dns_of_one_capture_go_to_their_own_logs() {
    let mut scene = Scene::new(free());
    let mut talk = Talk::new(1, 2_000);
    scene.send_all(talk.open());
    for turn in 0..20_u16 {
        scene.send(&udp(1, 4_000, true, &query(turn, "a.test")));
        scene.send_all(talk.says(CLIENT, b"GET / HTTP/1.1\r\nHost: a.test\r\n\r\n", 100));
        scene.send(&udp(1, 4_000, false, &response(turn, "a.test", &[[1, 1, 1, 1]])));
        scene.send_all(talk.says(SERVER, &ok(b"body"), 1_000));
    }
    scene.send_all(talk.close());
    scene.settle();
    scene.end();
    assert_eq!(scene.log(DNS).len(), 20);
    assert_eq!(scene.log(Log::Lines(Application::Http)).len(), 20);
    let flows = scene.log(Log::Flows);
    let ended = flows.iter().filter(|line| line["event"] == "ended");
    let mut applications: Vec<_> = ended.map(|line| line["application"].clone()).collect();
    applications.sort_by_key(Value::to_string);
    assert_eq!(applications, ["dns", "http"]);
}

#[test]
fn a_restart_makes_the_same_lines_again() {
    let mut scene = Scene::new(free());
    for id in 0..50 {
        scene.send(&udp(id.into(), 4_000, true, &query(id, "a.test")));
        if id % 3 > 0 {
            scene.send(&udp(id.into(), 4_000, false, &response(id, "a.test", &[[1, 1, 1, 1]])));
        }
    }
    scene.settle();
    scene.end();
    let before = scene.log(DNS);
    assert_eq!(before.len(), 50);
    let mut scene = scene.restart(FlowOptions::default());
    scene.end();
    assert_eq!(scene.log(DNS), before);
}
