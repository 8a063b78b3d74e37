//! Faults on the way: processes are killed, rings are overwritten or replaced.

use std::fs;
use std::time::{Duration, Instant};

use nix::sys::signal::Signal;
use pcapfs_tests::{Net, Traffic, skip_unless, wait_until};

use crate::support::{Site, sequences, wait_same};

/// How often the far daemon is killed; `$PCAPFS_MIRROR_KILLS` makes it more.
const KILLS: u32 = 6;

#[test]
fn kills_under_traffic_lose_nothing_that_was_stored() {
    skip_unless!(root, "ip");
    let kills = std::env::var("PCAPFS_MIRROR_KILLS").ok().and_then(|text| text.parse().ok());
    let kills = kills.unwrap_or(KILLS);
    let (site, net) = (Site::new(), Net::new());
    let ring = format!("{}M", 64 + 8 * kills);
    let far_daemon =
        || site.far_mount().ring(&ring).inside(&net.a).capture("web", Net::DEVICE).start();
    let rings = site.folder.path().join("near-rings");
    let near_daemon = || {
        let other = site.fifo.source();
        let mount = site.near_mount().ring_dir(&rings).ring(&ring);
        mount.capture("web", "remote:far/web").capture("other", &other).start()
    };
    let (mut far, mut near) = (far_daemon(), near_daemon());
    let mut other = Some(Traffic::start(site.fifo.connect(), 2_000, 10_000_000));
    let traffic = Traffic::start(net.sender(60), 20_000, 100_000_000);
    let mut has = 0;
    for kill in 1..=kills {
        has += 500;
        wait_until("packets come", 30, || near.count("web", "/packets/stored") > has);
        far.kill9();
        if kill % 3 == 0 {
            // The capture beside it loses nothing until then.
            let fed = other.take().map(|other| pcapfs_tests::Emit::emitted(&other.stop()));
            if let Some(fed) = fed {
                near.wait_stored("other", fed);
            }
            near.kill9();
            near = near_daemon();
        }
        far = far_daemon();
        has = near.count("web", "/packets/stored");
    }
    wait_until("packets come", 30, || near.count("web", "/packets/stored") > has);
    drop(traffic);
    let stored = || far.count("web", "/packets/stored");
    let mut last = 0;
    wait_until("no more packets come there", 30, || std::mem::replace(&mut last, stored()) == last);
    wait_until("all are here", 30, || near.count("web", "/packets/seen") == stored());
    assert_eq!(near.count("web", "/packets/lost_remote"), 0);
    let (there, here) = (sequences(&far, "web"), sequences(&near, "web"));
    assert_eq!(here.len() as u64, stored(), "all are retained in both");
    assert!(there == here, "the same packets in the same order");
    assert!(here.is_sorted_by(|one, other| one < other), "each once");
}

#[test]
fn packets_that_are_gone_are_counted_and_said() {
    skip_unless!(mount);
    let site = Site::new();
    let far = site.far_mount().ring("1M").capture("web", &site.fifo.source()).start();
    let mut feed = site.fifo.connect();
    feed.send(10, 100);
    let near = site.near();
    wait_same(&near, "web", 10);
    near.verb(["stop", "web"]);
    feed.send(10_000, 1000);
    far.wait_stored("web", 10_010);
    near.verb(["start", "web"]);
    wait_until("it has caught up", 20, || near.count("web", "/packets/seen") == 10_010);
    let lost = near.count("web", "/packets/lost_remote");
    assert_eq!(lost, far.count("web", "/packets/overwritten") - 10);
    assert_eq!(near.count("web", "/packets/stored") + lost, 10_010);
    let numbers = sequences(&near, "web");
    assert_eq!(numbers.first_chunk(), Some(&[1, 2, 3, 4, 5, 6, 7, 8, 9, 10]));
    assert_eq!(numbers[10..], Vec::from_iter(11 + lost..=10_010));
    // A stream of pcapng says it.
    let pcapng = near.command(["replay", "--live", "--format", "pcapng", "web"]);
    let reader = pcapfs_tests::Running::spawn(&mut { pcapng });
    let said = format!("{lost} packets were no longer there when remote:far/web was read");
    reader.wait_stdout("the gap is said", 20, |bytes| {
        bytes.windows(said.len()).any(|part| part == said.as_bytes())
    });
    // The far side knows the same.
    wait_until("its report has come", 10, || {
        near.count("web", "/remote/packets/overwritten") == far.count("web", "/packets/overwritten")
    });
}

#[test]
fn a_ring_that_was_replaced_is_read_from_its_beginning() {
    skip_unless!(mount);
    let site = Site::new();
    let mut far = site.far();
    let mut feed = site.fifo.connect();
    feed.send(20, 100);
    let near = site.near();
    wait_same(&near, "web", 20);
    far.terminate();
    drop(far);
    fs::remove_file(site.rings().join("web.ring")).unwrap();
    let far = site.far();
    let mut feed = site.fifo.connect().after(20);
    feed.send(5, 100);
    wait_same(&near, "web", 25);
    assert_eq!(far.count("web", "/packets/stored"), 5);
    assert_eq!(near.count("web", "/remote/next_number"), 6);
}

#[test]
fn a_daemon_that_stops_without_a_sign_is_noticed() {
    skip_unless!(mount);
    let site = Site::new();
    let far = site.far();
    let mut feed = site.fifo.connect();
    feed.send(10, 100);
    let near = site.near();
    wait_same(&near, "web", 10);
    far.signal(Signal::SIGSTOP);
    let begun = Instant::now();
    wait_until("it is missed", 10, || near.status("web")["state"] == "retrying");
    let error = near.status("web")["error"].to_string();
    assert!(error.contains("no sign of life"), "{error}");
    assert!(begun.elapsed() < Duration::from_secs(10), "{:?}", begun.elapsed());
    assert_eq!(near.status("web")["remote"]["connected"], false);
    far.signal(Signal::SIGCONT);
    feed.send(10, 100);
    wait_same(&near, "web", 20);
}
