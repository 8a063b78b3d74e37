//! The times of the capture are kept.

use std::time::{Duration, Instant};

use pcapfs_tests::conversation::{Client, Conversation, SECOND};
use pcapfs_tests::savefile::{NgParser, Parser, Record};
use pcapfs_tests::{Receiving, Running, skip_unless, tool};

use crate::support::{Savefile, json, send, send_command};

/// A packet of payload every 50 ms for two seconds.
fn steady() -> Savefile {
    let mut talk = Conversation::tcp("10.0.0.1:40000", "10.0.0.2:80").every(SECOND / 20);
    for _ in 0..41 {
        talk.says(Client, b"x");
    }
    Savefile::of([talk])
}

#[test]
fn packets_come_as_far_apart_as_they_were_captured() {
    let mut receiving = Receiving::start(1, &["--pcapng"]);
    let begin = Instant::now();
    let finished = send(&steady().path, &receiving, &["--speed", "1.0", "--json"]).success();
    let took = begin.elapsed();
    receiving.end();
    assert!(took >= Duration::from_secs(2), "{took:?}");
    let bytes = std::fs::read(&receiving.files()[0]).unwrap();
    let mut times = Vec::new();
    let mut each = |record: Record<'_>| {
        if record.data.ends_with(b"x") {
            times.push(record.timestamp);
        }
        Ok(())
    };
    NgParser::default().push(&bytes, &mut each).unwrap();
    assert_eq!(times.len(), 41);
    // No packet is early. A machine that is busy may make any of them late, and none after it: so
    // half of them are in time.
    let ended = json(&finished).pop().unwrap();
    let most = ended["max_late_us"].as_u64().unwrap() * 1_000;
    let first = times[0];
    let late: Vec<u64> = (0..)
        .zip(&times)
        .map(|(number, time)| (time - first).abs_diff(number * SECOND / 20))
        .collect();
    let mut sorted = late.clone();
    sorted.sort_unstable();
    assert!(sorted[20] < SECOND / 20, "{most} {late:?}");
}

#[test]
fn a_speed_and_rounds_scale_the_time() {
    let receiving = Receiving::start(1, &[]);
    let begin = Instant::now();
    let _ = send(&steady().path, &receiving, &["--speed", "10", "--loop", "3"]).success();
    let took = begin.elapsed();
    assert!(took >= Duration::from_millis(600), "{took:?}");
    for (speed, says) in [("0", "'0' is no speed"), ("fast", "'fast' is no speed")] {
        let refused = send(&steady().path, &receiving, &["--speed", speed]);
        assert_eq!(refused.status.code(), Some(2));
        assert!(refused.stderr.contains(says), "{}", refused.stderr);
    }
}

#[test]
fn a_terminal_shows_how_far_it_is() {
    skip_unless!("script");
    let savefile = steady();
    let receiving = Receiving::start(1, &[]);
    let send = send_command(&savefile.path, &receiving, &["--speed", "1"]);
    let words: Vec<&str> = send.get_args().map(|word| word.to_str().unwrap()).collect();
    let command = format!("exec {} {}", send.get_program().to_str().unwrap(), words.join(" "));
    let mut running = Running::spawn(tool("script").args(["-qfec", &command, "/dev/null"]));
    running.wait_stdout("it shows how far it is", 10, |text| {
        let text = String::from_utf8_lossy(text);
        text.contains(" of 41 sent on 1 connection, ") && text.contains(" ms late")
    });
    assert!(running.wait(20).success());
    let text = String::from_utf8_lossy(&running.stdout()).into_owned();
    assert!(text.contains("\r\u{1b}[Kpcapfs: port 5000 got 41 bytes of 10.0.0.1"), "{text}");
}

#[test]
fn a_wait_of_years_can_be_interrupted() {
    let mut talk = Conversation::tcp("10.0.0.1:40000", "10.0.0.2:80");
    talk.says(Client, b"now").wait(80 * 365 * 86_400 * SECOND).says(Client, b"then");
    let savefile = Savefile::of([talk]);
    let mut receiving = Receiving::start(1, &[]);
    let mut command = send_command(&savefile.path, &receiving, &["--speed", "1"]);
    let mut running = Running::spawn(&mut command);
    receiving.wait_bytes(Receiving::PORT, 3);
    running.signal(nix::sys::signal::Signal::SIGINT);
    assert_eq!(running.wait(10).code(), Some(1));
    let said = running.stderr();
    assert!(said.contains("3 bytes sent in 1 packet on 1 connection"), "{said}");
    assert!(said.ends_with("pcapfs: interrupted\n"), "{said}");
    receiving.wait_said(": has sent all; 3 bytes");
    receiving.end();
}
