//! Responses framed and encoded in every odd way that some browser accepts. Each carries a known
//! text; the score is the number of responses in which we find it.

#[path = "../protocol/tests/http_support/mod.rs"]
mod http_support;
mod testdata;

use http_support::connections;
use protocol::http::body::{self, DecodingLimits};
use protocol::http::direction::MessageRole;
use testdata::folder;

/// The minimum score.
const REACH: usize = 245;

#[test]
fn content_that_browsers_accept_is_recovered() {
    let cases = folder().map(|one| one.join("OISF+suricata-verify/tests/http-evader"));
    let Some(cases) = cases.filter(|cases| cases.is_dir()) else {
        eprintln!("skipped: no test data");
        return;
    };
    let mut names: Vec<_> =
        std::fs::read_dir(&cases).unwrap().map(|entry| entry.unwrap().path()).collect();
    names.sort();
    let mut failed = Vec::new();
    for case in &names {
        let mut shown = false;
        let mut states = Vec::new();
        for connection in connections(&case.join("input.pcap")) {
            for one in connection.parse() {
                let Some(response) = &one.response else { continue };
                let direction = MessageRole::Response;
                let limits = DecodingLimits::default();
                let decoded = body::read(&connection.streams, direction, &response.body, &limits);
                let text = b"EICAR-STANDARD-ANTIVIRUS";
                shown |= decoded.bytes.windows(text.len()).any(|window| window == text);
                states.push((one.state, one.why, response.body.framing, decoded.notes));
            }
        }
        if !shown {
            failed.push(format!("{} {states:?}", case.file_name().unwrap().display()));
        }
    }
    eprintln!("{} of {}", names.len() - failed.len(), names.len());
    eprintln!("{}", failed.join("\n"));
    assert!(names.len() - failed.len() >= REACH.min(names.len()));
}
