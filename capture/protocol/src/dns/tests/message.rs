//! Messages that are not as they should be.

use super::*;

/// The line of a response to a query for `a`.
fn answered(response: &[u8], wire_len: usize) -> String {
    let mut flow = Flow::new();
    flow.sent(Direction::Forward, 1, &Builder::query(1, "a"));
    flow.sent_bytes(Direction::Backward, 2, response, wire_len);
    briefs(&mut flow).join("\n")
}

fn two_answers() -> Builder {
    Builder::response(1, "a", [1; 4]).record_of(1, &[0xc0, 12], A, IN, 1, &[2; 4])
}

#[test]
fn answers_before_a_malformed_one_are_kept() {
    let at = two_answers().bytes.len() as u8;
    let loops = two_answers().record_of(1, &[0xc0, at], A, IN, 1, &[3; 4]);
    let expected = "1 answered a [1.1.1.1, 2.2.2.2] answer 3 of 3 has a malformed name";
    assert_eq!(answered(&loops.bytes, loops.bytes.len()), expected);
    let mut more = two_answers();
    more.count(1);
    let expected = "1 answered a [1.1.1.1, 2.2.2.2] answer 3 of 3 is not whole";
    assert_eq!(answered(&more.bytes, more.bytes.len()), expected);
    let mut authority = two_answers();
    authority.count(2);
    let expected = "1 answered a [1.1.1.1, 2.2.2.2] authority record 1 of 1 is not whole";
    assert_eq!(answered(&authority.bytes, authority.bytes.len()), expected);
}

#[test]
fn a_cut_message_shows_what_was_captured() {
    let whole = two_answers().bytes;
    let mut seen = Vec::new();
    for len in 12..whole.len() {
        let line = answered(&whole[..len], whole.len());
        assert!(
            line.contains(&format!("captured {len} of {} bytes of the response", whole.len())),
            "{line}"
        );
        let answers = line.split(['[', ']']).nth(1).unwrap().to_owned();
        if seen.last() != Some(&answers) {
            seen.push(answers);
        }
    }
    assert_eq!(seen, ["", "1.1.1.1"]);
}

#[test]
fn it_is_said_which_message_is_cut() {
    let mut flow = Flow::new();
    let query = Builder::query(1, "a").record(3, "", OPT, 1232, 0, &[]).bytes;
    flow.sent_bytes(Direction::Forward, 1, &query[..20], query.len());
    let response = two_answers().bytes;
    flow.sent_bytes(Direction::Backward, 2, &response[..40], response.len());
    let expected = "1 answered a [1.1.1.1] captured 20 of 30 bytes of the query; \
        additional record 1 of 1 was not captured; \
        captured 40 of 52 bytes of the response; answer 2 of 2 was not captured";
    assert_eq!(briefs(&mut flow), [expected]);
}

#[test]
fn bytes_after_a_message_are_counted() {
    let bytes = [two_answers().bytes, vec![0; 5]].concat();
    let expected = "1 answered a [1.1.1.1, 2.2.2.2] 5 bytes after the last record of the response";
    assert_eq!(answered(&bytes, bytes.len()), expected);
}

#[test]
fn less_than_a_header_is_counted() {
    let mut flow = Flow::new();
    flow.sent_bytes(Direction::Forward, 1, &[0; 11], 11);
    flow.sent_bytes(Direction::Forward, 1, &[0; 3], 40);
    assert_eq!(flow.pairing.counts().malformed, 2);
    flow.sent_bytes(Direction::Forward, 1, &Builder::query(1, "a").bytes[..8], 19);
    let expected = "1 unanswered null [] captured 8 of 19 bytes of the query; \
        the counts of the query were not captured; \
        no question; no response before the flow ended";
    assert_eq!(briefs(&mut flow), [expected]);
}

#[test]
fn a_question_that_cannot_be_read_is_paired_by_id() {
    let mut flow = Flow::new();
    let query = Builder::new(1, QUERY).question_of(&[0xc0, 12], A, IN);
    flow.sent(Direction::Forward, 1, &query);
    flow.sent(Direction::Backward, 2, &Builder::response(1, "a", [1; 4]));
    let expected = "1 answered null [1.1.1.1] question 1 of 1 has a malformed name in the query; \
        paired by id; the query shows no question";
    assert_eq!(briefs(&mut flow), [expected]);
}

#[test]
fn a_response_without_a_question_is_paired_by_id() {
    let mut flow = Flow::new();
    flow.sent(Direction::Forward, 1, &Builder::query(1, "a"));
    flow.sent(Direction::Backward, 2, &Builder::new(1, RESPONSE | 1));
    let lines = flow.lines();
    assert_eq!(lines[0]["rcode"], "FORMERR");
    let expected = "1 answered a [] paired by id; the response shows no question";
    assert_eq!(brief(&lines[0]), expected);
}

#[test]
fn each_question_of_a_message_has_a_line() {
    let mut flow = Flow::new();
    let query = Builder::query(9, "a").question("b", A, IN);
    flow.sent(Direction::Forward, 1, &query);
    let response = Builder::new(9, RESPONSE).question("a", A, IN).question("b", A, IN);
    flow.sent(Direction::Backward, 2, &response.record(1, "b", A, IN, 1, &[2; 4]));
    let expected =
        ["1 answered a [2.2.2.2] -", "2 answered b [] the answers are those of transaction 1"];
    assert_eq!(briefs(&mut flow), expected);
}

#[test]
fn many_questions_of_a_message_are_counted() {
    let mut flow = Flow::new();
    let mut query = Builder::new(9, QUERY).question("first", A, IN);
    for record_type in 2..100 {
        query = query.question_of(&[0xc0, 12], record_type, IN);
    }
    flow.sent(Direction::Forward, 1, &query);
    let lines = briefs(&mut flow);
    assert_eq!(lines.len(), 32);
    let expected = "32 unanswered first [] 67 more questions; no response before the flow ended";
    assert_eq!(lines[31], expected);
    assert_eq!(lines[30], "31 unanswered first [] no response before the flow ended");
}

#[test]
fn an_update_has_its_zone_as_name() {
    let mut flow = Flow::new();
    let update = Builder::new(3, 0x2800).question("zone.example", SOA, IN);
    flow.sent(Direction::Forward, 1, &update.record(2, "h.zone.example", A, IN, 60, &[1; 4]));
    let prerequisite = Builder::new(3, 0xa800).record(1, "h.zone.example", A, IN, 0, &[]);
    flow.sent(Direction::Backward, 2, &prerequisite);
    let lines = flow.lines();
    assert_eq!(lines[0]["opcode"], "UPDATE");
    assert_eq!(lines[0]["name"], "zone.example");
    assert_eq!(lines[0]["type"], "SOA");
    assert_eq!(lines[0]["answers"], serde_json::json!([]));
    assert_eq!(lines[0]["answers_total"], 0);
    assert_eq!(lines[0]["rcode"], "NOERROR");
}
