//! Transfers of zones.

use super::*;

const AXFR: u16 = 252;
const IXFR: u16 = 251;

/// A query for a transfer and its responses, each a list of serial numbers; 0 is another record.
fn transfer(record_type: u16, responses: &[&[u32]]) -> Vec<String> {
    let mut flow = Flow::new();
    flow.sent(Direction::Forward, 1, &Builder::new(1, 0).question("zone", record_type, IN));
    for (number, records) in responses.iter().enumerate() {
        let mut response = Builder::new(1, 0x8400);
        if number == 0 {
            response = response.question("zone", record_type, IN);
        }
        for record in *records {
            response = match record {
                0 => response.record(1, "h.zone", A, IN, 1, &[number as u8; 4]),
                serial => response.soa(*serial),
            };
        }
        flow.sent(Direction::Backward, 2, &response);
    }
    let lines = flow.lines();
    let line = |line: &serde_json::Value| {
        let why = line["why"].as_str().unwrap_or("-");
        format!("{} {} {why}", line["state"].as_str().unwrap(), line["answers_total"])
    };
    lines.iter().map(line).collect()
}

#[test]
fn a_transfer_is_one_transaction() {
    assert_eq!(transfer(AXFR, &[&[5, 0, 0, 5]]), ["answered 4 -"]);
    let expected = ["answered 5 3 response messages"];
    assert_eq!(transfer(AXFR, &[&[5, 0], &[0], &[0, 5]]), expected);
    assert_eq!(transfer(AXFR, &[&[5], &[0], &[5]]), ["answered 3 3 response messages"]);
}

#[test]
fn what_follows_a_transfer_is_unasked() {
    let expected = ["answered 3 -", "unasked 1 no query was captured before it"];
    assert_eq!(transfer(AXFR, &[&[5, 0, 5], &[0]]), expected);
}

#[test]
fn differences_end_with_the_third_record_of_the_new_version() {
    assert_eq!(transfer(IXFR, &[&[7, 5, 0, 7, 0, 7]]), ["answered 6 -"]);
    let expected = ["answered 6 3 response messages"];
    assert_eq!(transfer(IXFR, &[&[7, 5, 0], &[7, 0], &[7]]), expected);
    // The client has the newest version, or gets the whole zone.
    assert_eq!(transfer(IXFR, &[&[7]]), ["answered 1 -"]);
    assert_eq!(transfer(IXFR, &[&[7, 0], &[7]]), ["answered 3 2 response messages"]);
}

#[test]
fn a_transfer_that_does_not_end_says_so() {
    let expected = ["answered 3 the transfer did not end; 2 response messages"];
    assert_eq!(transfer(AXFR, &[&[5, 0], &[0]]), expected);
}

#[test]
fn a_refused_transfer_has_ended() {
    let mut flow = Flow::new();
    flow.sent(Direction::Forward, 1, &Builder::new(1, 0).question("zone", AXFR, IN));
    flow.sent(Direction::Backward, 2, &Builder::new(1, 0x8005).question("zone", AXFR, IN));
    assert_eq!(flow.pairing.under_way(), 0);
    assert_eq!(flow.lines()[0]["rcode"], "REFUSED");
}

#[test]
fn a_long_transfer_needs_no_more_memory_than_a_short_one() {
    let mut flow = Flow::new();
    flow.sent(Direction::Forward, 1, &Builder::new(1, 0).question("zone", AXFR, IN));
    flow.sent(Direction::Backward, 1, &Builder::new(1, 0x8400).soa(5));
    for _ in 0..2000 {
        let record = Builder::new(1, 0x8400).record(1, "h.zone", A, IN, 1, &[1; 4]);
        flow.sent(Direction::Backward, 2, &record);
    }
    assert_eq!(flow.pairing.under_way(), 1);
    assert!(flow.pairing.memory() < 32 << 10, "{}", flow.pairing.memory());
}
