//! Captures of other machines as captures of this one (`remote:NAME/CAPTURE`): every packet comes,
//! once, whatever happens on the way.

mod away;
mod faults;
mod network;
mod support;

use std::time::{Duration, Instant};

use pcapfs_tests::savefile::Format;
use pcapfs_tests::{run, skip_unless, wait_until};
use support::{Site, wait_same};

#[test]
fn packets_of_a_far_capture_are_packets_here() {
    skip_unless!(mount);
    let site = Site::new();
    let far = site.far();
    let mut feed = site.fifo.connect();
    feed.send(100, 200);
    let near = site.near();
    wait_same(&near, "web", 100);
    near.wait_state("web", "running");
    feed.send(300, 1000);
    wait_same(&near, "web", 400);
    let status = near.status("web");
    let remote = &status["remote"];
    assert_eq!((&remote["name"], &remote["capture"]), (&"far".into(), &"web".into()));
    assert_eq!(status["source"], "remote:far/web");
    assert_eq!((&remote["connected"], &remote["next_number"]), (&true.into(), &401.into()));
    assert_eq!(status["linktype"], "EN10MB");
    wait_until("the counters of the far side are here", 5, || {
        near.count("web", "/remote/packets/stored") == 400
    });
    let packets = near.status("web")["remote"]["packets"].clone();
    assert_eq!(packets, far.status("web")["packets"], "as they are there");
    assert_eq!(far.readers("web")[0]["file"], "mirror");
    assert!(far.status("web")["remote"].is_null());
    // The bytes are the same in both formats.
    for file in ["replay.pcap", "replay.pcapng"] {
        let [one, other] = [&far, &near].map(|daemon| {
            let path = daemon.path(&format!("web/{file}"));
            run(pcapfs_tests::tool("tcpdump").arg("-nn").arg("-tt").arg("-r").arg(path), 20)
                .success()
        });
        assert_eq!(one.text(), other.text());
    }
}

#[test]
fn a_daemon_that_is_away_is_waited_for() {
    skip_unless!(mount);
    let site = Site::new();
    let near = site.near();
    near.wait_state("web", "retrying");
    let error = near.status("web")["error"].as_str().unwrap().to_owned();
    assert!(error.starts_with("remote:far/web: "), "{error}");
    let mut far = site.far();
    let mut feed = site.fifo.connect();
    feed.send(50, 100);
    wait_same(&near, "web", 50);
    near.wait_state("web", "running");
    assert!(near.status("web")["error"].is_null());

    // The capture is stopped there, and goes on.
    far.verb(["stop", "web"]);
    near.wait_state("web", "retrying");
    wait_until("it is said why", 10, || {
        near.status("web")["error"] == "remote:far/web: web is stopped there"
    });
    far.verb(["start", "web"]);
    near.wait_state("web", "running");
    feed.send(50, 100);
    wait_same(&near, "web", 100);

    // Stopped here: nothing is missed.
    near.verb(["stop", "web"]);
    near.wait_state("web", "stopped");
    feed.send(50, 100);
    near.verb(["start", "web"]);
    wait_same(&near, "web", 150);

    // The far daemon ends, and comes again with its ring.
    assert!(far.terminate().success());
    drop(far);
    near.wait_state("web", "retrying");
    let far = site.far();
    let mut feed = site.fifo.connect().after(150);
    feed.send(50, 100);
    wait_same(&near, "web", 200);
    let interruptions = near.status("web")["interruptions"].as_array().unwrap().len();
    assert_eq!(interruptions, 3);
    assert_eq!(far.count("web", "/packets/stored"), 200);
}

#[test]
fn init_and_the_configuration_take_them() {
    skip_unless!(mount);
    let site = Site::new();
    let _far = site.far();
    let mut feed = site.fifo.connect();
    feed.send(10, 100);
    let config = site.folder.path().join("pcapfs.toml");
    let text = "[[capture]]\nsource = \"remote:far/web\"\ncompression = \"zstd\"\n";
    std::fs::write(&config, text).unwrap();
    let state = site.folder.path().join("state");
    let mount = || site.near_mount().ring_dir(&site.folder.path().join("near-rings"));
    let start = || mount().arg("--config").arg(&config).arg("--state").arg(&state).start();
    let mut near = start();
    wait_same(&near, "far.web", 10);
    assert_eq!(near.status("far.web")["remote"]["compression"], "zstd");
    let made = near.verb(["init", "remote:far/web,from=now", "--alias", "new"]);
    assert!(made.contains("new"), "{made}");
    near.wait_state("new", "running");
    feed.send(5, 100);
    wait_same(&near, "far.web", 15);
    near.wait_stored("new", 5);
    let ratio = near.status("far.web")["remote"]["compression_ratio"].clone();
    assert!(ratio.as_f64().is_some_and(|ratio| ratio > 1.0), "{ratio}");
    // Made again after a restart, with what came meanwhile.
    assert!(near.terminate().success());
    drop(near);
    feed.send(5, 100);
    let near = start();
    wait_same(&near, "far.web", 20);
    near.wait_stored("new", 10);
}

#[test]
fn a_rate_bounds_the_bytes_of_a_second() {
    const PACKETS: u64 = 2_000;
    skip_unless!(mount);
    let site = Site::new();
    let far = site.far();
    site.fifo.connect().send(PACKETS, 1_500);
    far.wait_stored("web", PACKETS);
    let begun = Instant::now();
    let near = site.near_mount().capture("web", "remote:far/web,rate=1M").start();
    wait_same(&near, "web", PACKETS);
    // 3 MB; what an answer holds, 128 KiB, may come ahead.
    let least = Duration::from_millis((PACKETS * 1_500 - (128 << 10)) * 1000 / (1 << 20));
    assert!(begun.elapsed() >= least, "{:?}", begun.elapsed());
}

#[test]
fn times_of_a_far_clock_stay_as_they_are() {
    skip_unless!(mount, "tshark");
    let site = Site::new();
    let _far = site.far();
    // Of 1970, of today, and of 2105, one after the other.
    let mut feed = site.fifo.connect();
    let seconds = [1, 1_790_000_000, 4_260_000_000];
    for seconds in seconds {
        let frame = frames::ethernet(&[], frames::IPV4, &[7; 40]);
        let mut record = Vec::new();
        Format::default().append(&mut record, seconds * 1_000_000_000, &frame, frame.len());
        feed.write(&record);
    }
    let near = site.near();
    wait_until("all packets are here", 10, || near.count("web", "/packets/stored") == 3);
    let mut tshark = pcapfs_tests::tool("tshark");
    tshark.args(["-n", "-T", "fields", "-e", "frame.time_epoch", "-r"]);
    let text = run(tshark.arg(near.path("web/replay.pcapng")), 20).success();
    let second = |line: &str| line.split('.').next().unwrap().parse::<u64>().unwrap();
    let found: Vec<u64> = text.text().lines().map(second).collect();
    assert_eq!(found, seconds);
}

#[test]
fn mistakes_are_named() {
    skip_unless!(mount);
    let site = Site::new();
    for (source, part) in [
        ("remote:far", "write it as remote:NAME/CAPTURE"),
        ("remote:far/web,speed=1", "'speed=1' is no option of it"),
        ("remot:far/web", "remote:NAME/CAPTURE"),
    ] {
        let refused = site.near_mount().capture("web", source).try_start().unwrap_err();
        assert!(refused.stderr.contains(part), "{}", refused.stderr);
    }
    // The missing part may still come.
    let near = site
        .near_mount()
        .capture("none", "remote:nobody/web")
        .capture("missing", "remote:far/missing")
        .start();
    let says = |alias: &str, part: &str| {
        wait_until(part, 10, || {
            let status = near.status(alias);
            status["state"] == "retrying" && status["error"].to_string().contains(part)
        });
    };
    says("none", "no such remote");
    let _far = site.far();
    says("missing", "refused there: missing: no such capture");
}

#[test]
fn all_captures_of_a_remote_are_followed() {
    skip_unless!(mount);
    let site = Site::new();
    let far = site.far();
    let mut feed = site.fifo.connect();
    feed.send(10, 100);
    let near = site.near_mount().capture("all", "remote:far/*").start();
    wait_until("the capture is here", 10, || near.path("far.web").exists());
    wait_same(&near, "far.web", 10);
    assert!(!near.path("all").exists());
    // One that comes later, and one that is itself of another machine.
    far.verb(["init", "lo", "--alias", "loop"]);
    far.verb(["init", "remote:nobody/web", "--alias", "chain"]);
    wait_until("the new capture is here", 10, || near.path("far.loop").exists());
    near.wait_state("far.loop", "running");
    assert!(!near.path("far.chain").exists());
    // Removed here, it stays away.
    near.verb(["remove", "far.loop"]);
    let refused = near.command(["init", "remote:far/*"]).output().unwrap();
    assert!(String::from_utf8_lossy(&refused.stderr).contains("all captures of a remote"));
    far.verb(["init", "lo", "udp", "--alias", "more"]);
    wait_until("the list was asked for again", 10, || near.path("far.more").exists());
    assert!(!near.path("far.loop").exists());
}
