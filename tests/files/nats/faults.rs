//! Streams that are full and servers that are slow: the lines wait, and add up.

use nix::sys::signal::Signal;
use pcapfs_tests::{ALIAS, Fed, Running, saved_places, skip_unless, wait_for_place, wait_until};
use serde_json::json;

use crate::support::{Nats, end, exchange, expected, publish, wait_report};

/// Lines for each part of a test: more than may be unacknowledged.
const COUNT: u16 = 300;

/// A publisher that has begun.
#[track_caller]
fn started(fed: &Fed, server: &Nats, state: &std::path::Path, options: &[&str]) -> Running {
    let publisher = Running::spawn(&mut publish(&fed.daemon, state, &server.url(), options));
    wait_for_place(state, "/lines/http");
    publisher
}

#[test]
fn lines_wait_until_a_full_stream_has_room() {
    skip_unless!(mount, "nats-server", "python3");
    let mut fed = Fed::start();
    let server = Nats::start(&[]);
    // It refuses new lines, instead of dropping old ones.
    let stream = json!({
        "name": "pcapfs", "subjects": ["pcapfs.>"], "storage": "file", "retention": "limits",
        "discard": "new", "max_bytes": 100_000,
    });
    let _ = server.ask("STREAM.CREATE.pcapfs", &stream);
    let (_folder, state) = saved_places();
    let mut publisher = started(&fed, &server, &state, &[]);
    for port in 1..=COUNT {
        fed.feed.write(&exchange(port, ""));
    }
    wait_report(&publisher, "waiting", "maximum bytes exceeded");
    let mut targets = server.targets("");
    assert!(!targets.is_empty() && targets.len() < usize::from(COUNT), "{}", targets.len());
    // Each time that there is room, the next lines come, and none of those before.
    while targets.len() < usize::from(COUNT) {
        // The lines that were seen, and no other that has come meanwhile.
        let _ = server.ask("STREAM.PURGE.pcapfs", &json!({ "seq": targets.len() + 1 }));
        wait_until("more lines are there", 30, || {
            let more = server.targets("");
            let is_more = !more.is_empty();
            targets.extend(more);
            is_more
        });
    }
    assert_eq!(targets, expected(1..=COUNT), "each once and in order");
    let sums = end(&mut publisher);
    assert_eq!((&sums["messages"], &sums["lost"]), (&COUNT.into(), &0.into()), "{sums}");
}

#[test]
fn a_server_that_stands_still_gets_each_line_once() {
    skip_unless!(mount, "nats-server", "python3");
    let mut fed = Fed::start();
    let server = Nats::start(&[]);
    let (_folder, state) = saved_places();
    let mut publisher = started(&fed, &server, &state, &["--create-stream"]);
    fed.feed.write(&exchange(1, ""));
    wait_until("the first line is there", 20, || server.targets("").len() == 1);
    server.signal(Signal::SIGSTOP);
    for port in 2..=COUNT {
        fed.feed.write(&exchange(port, ""));
    }
    wait_report(&publisher, "waiting", "no acknowledgement");
    fed.daemon.wait_stored(ALIAS, 8 * u64::from(COUNT));
    server.signal(Signal::SIGCONT);
    wait_until("all lines are there", 30, || server.targets("").len() >= usize::from(COUNT));
    assert_eq!(server.targets(""), expected(1..=COUNT), "each once and in order");
    let sums = end(&mut publisher);
    assert_eq!((&sums["messages"], &sums["lost"]), (&COUNT.into(), &0.into()), "{sums}");
}
