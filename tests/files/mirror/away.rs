//! A remote that is away: its captures do not ask for it each for itself.

use std::net::TcpListener;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::thread;
use std::time::{Duration, Instant};

use pcapfs_tests::{binary, run, skip_unless, tool, wait_until};

use crate::support::Site;

/// Captures of one remote.
const CAPTURES: u64 = 20;

/// The time between two attempts of all captures together.
const BETWEEN: Duration = Duration::from_millis(50);

#[test]
fn captures_of_a_remote_that_is_away_ask_together() {
    skip_unless!(mount);
    let site = Site::new();
    // It accepts connections, and ends each at once.
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let port = listener.local_addr().unwrap().port();
    let attempts = Arc::new(AtomicU64::new(0));
    let counted = Arc::clone(&attempts);
    thread::spawn(move || {
        while let Ok(connection) = listener.accept() {
            drop(connection);
            counted.fetch_add(1, Ordering::Relaxed);
        }
    });
    let path = |name: &str| site.folder.path().join(name).display().to_string();
    let (identity, pem) = (path("identity"), path("near.pem"));
    for words in [
        ["init", "--name", "127.0.0.1", "--dir", &identity, "", ""],
        ["issue", "near", "--dir", &identity, "-o", &pem, ""],
    ] {
        let mut pcapfs = tool(binary("pcapfs").to_str().unwrap());
        pcapfs.arg("identity").args(words.iter().filter(|word| !word.is_empty()));
        let _ = run(&mut pcapfs, 20).success();
    }
    site.remotes(&format!("[far]\nurl = \"pcap://127.0.0.1:{port}\"\nidentity = \"{pem}\"\n"));
    let mut mount = site.near_mount().ring("1M");
    for number in 0..CAPTURES {
        // Equal captures would be one, so each has another limit of its packets.
        let source = format!("remote:far/web,rate={}M", 100 + number);
        mount = mount.capture(&format!("c{number}"), &source);
    }
    let near = mount.start();
    wait_until("all look for it", 20, || {
        let list = near.json(["list", "--json"]).to_string();
        list.matches("\"state\":\"retrying\"").count() as u64 == CAPTURES
    });
    let (before, begin) = (attempts.load(Ordering::Relaxed), Instant::now());
    let made = || attempts.load(Ordering::Relaxed) - before;
    wait_until("some attempts are made", 20, || made() >= CAPTURES);
    // Each alone would make more within this time: a dozen of each capture.
    let made = made();
    let most = begin.elapsed().as_nanos() / BETWEEN.as_nanos() + 2;
    assert!(u128::from(made) <= most, "{made} attempts in {:?}", begin.elapsed());
}
