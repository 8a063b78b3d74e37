//! Which response belongs to which query.

use super::*;
use crate::dns::pairing::{MAX_ALIKE, MAX_WAITING};

#[test]
fn names_are_compared_without_case_and_shown_as_sent() {
    let mut flow = Flow::new();
    flow.sent(Direction::Forward, 1, &Builder::query(1, "ExAmPlE"));
    flow.sent(Direction::Backward, 2, &Builder::response(1, "example", [1; 4]));
    assert_eq!(briefs(&mut flow), ["1 answered ExAmPlE [1.1.1.1] -"]);
}

#[test]
fn responses_in_another_order_find_their_queries() {
    let mut flow = Flow::new();
    flow.sent(Direction::Forward, 1, &Builder::query(1, "a"));
    flow.sent(Direction::Forward, 1, &Builder::query(2, "b"));
    // The same id, for another type.
    flow.sent(Direction::Forward, 1, &Builder::new(1, QUERY).question("a", 28, IN));
    flow.sent(Direction::Backward, 2, &Builder::response(2, "b", [2; 4]));
    flow.sent(Direction::Backward, 3, &Builder::new(1, RESPONSE).question("a", 28, IN));
    flow.sent(Direction::Backward, 4, &Builder::response(1, "a", [1; 4]));
    let expected = ["2 answered b [2.2.2.2] -", "3 answered a [] -", "1 answered a [1.1.1.1] -"];
    assert_eq!(briefs(&mut flow), expected);
}

#[test]
fn a_query_sent_again_is_one_transaction() {
    let mut flow = Flow::new();
    for seconds in [0, 20, 40] {
        flow.sent(Direction::Forward, seconds, &Builder::query(1, "a"));
    }
    flow.sent(Direction::Backward, 41, &Builder::response(1, "a", [1; 4]));
    let lines = flow.lines();
    assert_eq!(lines[0]["duration_us"], 41_000_000);
    assert_eq!(brief(&lines[0]), "1 answered a [1.1.1.1] asked 3 times");
}

#[test]
fn an_id_may_be_used_again_after_its_response() {
    let mut flow = Flow::new();
    for seconds in [1, 3] {
        flow.sent(Direction::Forward, seconds, &Builder::query(1, "a"));
        let address = [seconds as u8; 4];
        flow.sent(Direction::Backward, seconds + 1, &Builder::response(1, "a", address));
    }
    assert_eq!(briefs(&mut flow), ["1 answered a [1.1.1.1] -", "2 answered a [3.3.3.3] -"]);
}

#[test]
fn a_second_response_is_visible() {
    let mut flow = Flow::new();
    flow.sent(Direction::Forward, 1, &Builder::query(1, "a"));
    flow.sent(Direction::Backward, 2, &Builder::response(1, "a", [6; 4]));
    flow.sent(Direction::Backward, 2, &Builder::response(1, "a", [1; 4]));
    flow.sent(Direction::Backward, 2, &Builder::response(1, "a", [6; 4]));
    flow.sent(Direction::Backward, 40, &Builder::response(1, "a", [6; 4]));
    let expected = [
        "1 answered a [6.6.6.6] -",
        "2 unasked a [1.1.1.1] a second, different response to transaction 1",
        "3 unasked a [6.6.6.6] the response of transaction 1 again",
        "4 unasked a [6.6.6.6] no query was captured before it",
    ];
    assert_eq!(briefs(&mut flow), expected);
    assert_eq!(flow.pairing.counts().unasked, 3);
}

#[test]
fn a_response_to_another_question_does_not_answer() {
    let mut flow = Flow::new();
    flow.sent(Direction::Forward, 1, &Builder::query(1, "a"));
    flow.sent(Direction::Backward, 2, &Builder::response(1, "b", [1; 4]));
    flow.sent(Direction::Backward, 2, &Builder::response(2, "a", [1; 4]));
    // A client does not answer.
    flow.sent(Direction::Forward, 2, &Builder::response(1, "a", [1; 4]));
    let expected = [
        "2 unasked b [1.1.1.1] transaction 1 has its id and asks something else",
        "3 unasked a [1.1.1.1] no query was captured before it",
        "4 unasked a [1.1.1.1] no query was captured before it",
        "1 unanswered a [] no response before the flow ended",
    ];
    assert_eq!(briefs(&mut flow), expected);
}

#[test]
fn queries_are_given_up_in_time() {
    let mut flow = Flow::new();
    assert_eq!(flow.pairing.deadline(), None);
    flow.sent(Direction::Forward, 1, &Builder::query(1, "a"));
    flow.sent(Direction::Forward, 5, &Builder::query(2, "b"));
    assert_eq!(flow.pairing.deadline(), Some(second(31)));
    flow.pairing.poll(second(30));
    assert_eq!(flow.pairing.under_way(), 2);
    flow.pairing.poll(second(31));
    assert_eq!(flow.pairing.under_way(), 1);
    assert_eq!(flow.pairing.finished().unwrap().why(), Some("no response within 30 s"));
    // Messages let time pass, too.
    flow.sent(Direction::Backward, 35, &Builder::response(2, "b", [1; 4]));
    let expected = [
        "2 unanswered b [] no response within 30 s",
        "3 unasked b [1.1.1.1] too late for transaction 2",
    ];
    assert_eq!(briefs(&mut flow), expected);
    assert_eq!(flow.pairing.deadline(), None);
}

#[test]
fn the_oldest_query_leaves_if_too_many_wait() {
    let mut flow = Flow::new();
    for number in 0..=MAX_WAITING as u16 {
        flow.sent(Direction::Forward, 1, &Builder::query(number, "a"));
    }
    assert_eq!(flow.pairing.under_way(), MAX_WAITING);
    let oldest = flow.finished();
    assert_eq!(oldest.len(), 1);
    assert_eq!((oldest[0].index, oldest[0].why()), (1, Some("1024 later queries wait")));
}

#[test]
fn memory_returns_when_transactions_are_fetched() {
    let mut flow = Flow::new();
    for number in 0..1000 {
        flow.sent(Direction::Forward, 1, &Builder::query(number, &"x".repeat(63)));
    }
    let full = flow.pairing.memory();
    assert!((250_000..1_000_000).contains(&full), "{full}");
    flow.pairing.close();
    assert_eq!(flow.finished().len(), 1000);
    assert_eq!(flow.pairing.waiting_bytes(), (0, 0));
}

fn mdns() -> Flow {
    let [host, _] = ends([5353, 5353]);
    Flow::between([host, SocketAddr::from(([224, 0, 0, 251], 5353))])
}

#[test]
fn multicast_queries_do_not_wait() {
    let mut flow = mdns();
    let query = Builder::new(0, 0)
        .question("_ipp._tcp.local", PTR, IN | 0x8000)
        .question("_ssh._tcp.local", PTR, IN)
        .record(1, "_ssh._tcp.local", PTR, IN, 4500, &wire_name("h._ssh._tcp.local"));
    flow.sent(Direction::Forward, 1, &query);
    assert_eq!(flow.pairing.under_way(), 0);
    let lines = flow.lines();
    assert_eq!(lines[0]["class"], "IN");
    let expected = [
        "1 unanswered _ipp._tcp.local [] asked a group; responses are in other flows",
        "2 unanswered _ssh._tcp.local [] 1 answers are known to the client; \
            asked a group; responses are in other flows",
    ];
    assert_eq!(lines.iter().map(brief).collect::<Vec<_>>(), expected);
}

#[test]
fn multicast_responses_are_unasked() {
    let mut flow = mdns();
    let flush = IN | 0x8000;
    let response = Builder::new(0, 0x8400).record(1, "h.local", A, flush, 120, &[192, 0, 2, 1]);
    flow.sent(Direction::Forward, 1, &response);
    flow.sent(Direction::Forward, 2, &response);
    let lines = flow.lines();
    assert_eq!(lines[0]["server"]["address"], "192.0.2.1");
    assert_eq!(lines[0]["answers"][0]["name"], "h.local");
    let expected = ["1 unasked null [192.0.2.1] -", "2 unasked null [192.0.2.1] -"];
    assert_eq!(lines.iter().map(brief).collect::<Vec<_>>(), expected);
}

#[test]
fn ordinary_dns_on_the_port_of_mdns_is_paired() {
    let mut flow = Flow::between(ends([40_000, 5353]));
    flow.sent(Direction::Forward, 1, &Builder::query(7, "a"));
    flow.sent(Direction::Backward, 2, &Builder::new(7, RESPONSE | 2));
    flow.sent(Direction::Backward, 2, &Builder::response(8, "a", [1; 4]));
    let expected = [
        "1 answered a [] paired by id; the response shows no question",
        "2 unasked a [1.1.1.1] no query was captured before it",
    ];
    assert_eq!(briefs(&mut flow), expected);
}

#[test]
fn a_query_after_its_response_says_so() {
    let mut flow = Flow::new();
    flow.sent(Direction::Backward, 1, &Builder::response(1, "a", [1; 4]));
    flow.sent(Direction::Forward, 1, &Builder::query(1, "a"));
    flow.sent(Direction::Forward, 2, &Builder::query(1, "b"));
    let expected = [
        "1 unasked a [1.1.1.1] no query was captured before it",
        "2 unanswered a [] transaction 1 is an earlier response to it; \
            no response before the flow ended",
        "3 unanswered b [] no response before the flow ended",
    ];
    assert_eq!(briefs(&mut flow), expected);
}

#[test]
fn few_queries_wait_with_the_same_id() {
    let mut flow = Flow::new();
    for number in 0..=MAX_ALIKE {
        flow.sent(Direction::Forward, 1, &Builder::query(1, &format!("n{number}")));
    }
    assert_eq!(flow.pairing.under_way(), MAX_ALIKE);
    let lines = briefs(&mut flow);
    assert_eq!(lines[0], "1 unanswered n0 [] 64 later queries with its id wait");
}
