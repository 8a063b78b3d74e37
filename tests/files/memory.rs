//! Memory that strangers and readers make a daemon take: it stays within what is documented, and is
//! given back.

use std::fs;
use std::time::Duration;

use nix::unistd::Pid;
use pcapfs_tests::conversation::{merged, noise, savefile, savefile_of};
use pcapfs_tests::measure::anonymous_memory;
use pcapfs_tests::{ALIAS, Client, Conversation, Filed, Mount, Server, skip_unless, wait_until};

const MIB: u64 = 1 << 20;

/// What a daemon needs for itself.
const OWN: u64 = 32 * MIB;

/// Bytes that are kept of everything that is open, if flows are given less.
const ROOM: u64 = 256 * MIB;

fn mount(given: u64) -> Mount {
    Mount::new().arg("--flow-memory").arg(given.to_string()).lifetime(Duration::from_secs(240))
}

/// The most of `measure` that is seen until `is_over`.
fn most(pid: Pid, what: &str, mut is_over: impl FnMut() -> bool) -> u64 {
    let mut most = 0;
    wait_until(what, 200, || {
        most = most.max(anonymous_memory(pid));
        is_over()
    });
    most
}

#[test]
fn transactions_under_way_stay_within_the_memory_given() {
    skip_unless!(mount);
    const GIVEN: u64 = 64 * MIB;
    const COUNT: u32 = 24_000;
    let talks = (0..COUNT).map(|number| {
        let [_, a, b, c] = number.to_be_bytes();
        let time = u64::from(number) * 1_000;
        let mut talk = Conversation::tcp(&format!("10.{a}.{b}.{c}:1000"), "10.255.0.1:80")
            .at(pcapfs_tests::conversation::EPOCH + time)
            .every(u64::from(COUNT) * 1_000);
        let cookie = "c".repeat(400);
        talk.open();
        talk.says(Client, format!("GET /{number} HTTP/1.1\r\nHost: x\r\nCookie: {cookie}\r\n\r\n"));
        talk.says(Server, "HTTP/1.1 200 OK\r\nContent-Length: 1000\r\n\r\nbegun");
        talk
    });
    let folder = tempfile::tempdir().unwrap();
    let file = folder.path().join("open.pcap");
    fs::write(&file, savefile(&merged(talks))).unwrap();
    let source = format!("file:{}", file.display());
    let daemon = mount(GIVEN).arg("--no-wait").capture(ALIAS, &source).start();
    let most =
        most(daemon.pid(), "the capture has ended", || daemon.status(ALIAS)["state"] == "ended");
    let flows = daemon.status(ALIAS)["flows"].clone();
    eprintln!("at most {} MiB; {flows}", most / MIB);
    assert!(flows["dropped"].as_u64().unwrap() > 0, "the bound was not reached: {flows:#}");
    assert!(most <= GIVEN + OWN, "{} MiB of {}", most / MIB, GIVEN / MIB);
}

#[test]
fn a_large_har_is_made_within_the_room_for_what_is_open() {
    skip_unless!(mount);
    const GIVEN: u64 = 8 * MIB;
    // 60 MiB of bodies that are no text.
    let body = noise(1, 6 << 20);
    let mut talk = Conversation::tcp("10.0.0.1:1000", "10.0.0.2:80").every(1_000);
    talk.open();
    for number in 0..10 {
        talk.says(Client, format!("GET /{number} HTTP/1.1\r\nHost: a.example\r\n\r\n"));
        let length = body.len();
        talk.says(Server, format!("HTTP/1.1 200 OK\r\nContent-Length: {length}\r\n\r\n"));
        talk.says(Server, &body);
    }
    talk.close(Client);
    let filed = Filed::with(mount(GIVEN), &savefile_of([talk]));
    let har = filed.file(1, "http.har");
    let reader = std::thread::spawn(move || fs::read(har).unwrap().len());
    let pid = filed.daemon.pid();
    let most = most(pid, "it is read", || reader.is_finished());
    let length = reader.join().unwrap() as u64;
    eprintln!("at most {} MiB for a file of {} MiB", most / MIB, length / MIB);
    assert!(length > 80 * MIB, "{length}");
    // Once, and one of its bodies beside it.
    assert!(most <= length + 32 * MIB + GIVEN + OWN, "{} MiB", most / MIB);
    assert!(most <= ROOM + GIVEN + OWN);
}
