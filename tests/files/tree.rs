//! The tree: its files and folders, their types, and the operations on them.

use std::collections::BTreeMap;
use std::fs::{self, File, OpenOptions};
use std::io::{self, Write};
use std::os::unix::fs::{FileTypeExt, MetadataExt};
use std::path::Path;

use pcapfs_tests::savefile::{Format, check_prefix, numbered};
use pcapfs_tests::schema;
use pcapfs_tests::{
    ALIAS, Daemon, Fed, Fifo, Mount, Net, Pace, StreamReader, Wired, run, skip_unless, tool,
    wait_until,
};
use serde_json::Value;
use tempfile::TempDir;

const FILES: [&str; 14] = [
    "ctl",
    "flows.jsonl",
    "flows/",
    "follow.pcap",
    "follow.pcapng",
    "http-open.jsonl",
    "http.har",
    "http.jsonl",
    "live.pcap",
    "live.pcapng",
    "readers.jsonl",
    "replay.pcap",
    "replay.pcapng",
    "status.json",
];

/// Names in a capture's directory: those above, and the lines of each protocol that has a schema.
fn files() -> Vec<String> {
    let lines = schema::of_protocols().into_iter().map(|name| format!("{name}.jsonl"));
    let mut files: Vec<_> = FILES.into_iter().map(str::to_owned).chain(lines).collect();
    files.sort();
    files.dedup();
    files
}

/// Names in a folder, followed by `/` for a folder and `@` for a link.
fn listing(folder: &Path) -> Vec<String> {
    let mut names: Vec<_> = fs::read_dir(folder)
        .unwrap()
        .map(|entry| {
            let entry = entry.unwrap();
            let kind = entry.file_type().unwrap();
            let looked_up = fs::symlink_metadata(entry.path()).unwrap().file_type();
            assert_eq!(kind, looked_up, "{:?} is listed as something else", entry.path());
            assert!(!kind.is_fifo() && !kind.is_char_device(), "{:?}", entry.path());
            let mark = if kind.is_dir() {
                "/"
            } else if kind.is_symlink() {
                "@"
            } else {
                ""
            };
            format!("{}{mark}", entry.file_name().into_string().unwrap())
        })
        .collect();
    names.sort();
    names
}

#[test]
fn the_tree_is_as_documented() {
    skip_unless!(mount);
    let (one, two) = (Fifo::new(), Fifo::new());
    let daemon =
        Mount::new().capture("web", &one.source()).capture("Db_2.x-y", &two.source()).start();
    assert_eq!(listing(daemon.mountpoint()), ["Db_2.x-y/", "README", "status.json", "web/"]);
    for alias in ["web", "Db_2.x-y"] {
        assert_eq!(listing(&daemon.path(alias)), files(), "{alias}");
        assert_eq!(daemon.status(alias)["alias"], alias);
    }
    let readme = fs::read_to_string(daemon.path("README")).unwrap();
    for word in ["live.pcap", "follow.pcap", "replay.pcap", "status.json", "readers.jsonl", "ctl"] {
        assert!(readme.contains(word), "README does not speak of {word}:\n{readme}");
    }
    let missing = fs::metadata(daemon.path("web/nothing")).unwrap_err();
    assert_eq!(missing.kind(), io::ErrorKind::NotFound);
    let output = run(tool("ls").arg("-lR").arg(daemon.mountpoint()), 5).success();
    assert_eq!(output.stderr, "", "ls finds something wrong");
}

#[test]
fn a_second_alias_of_the_same_capture_is_a_link() {
    skip_unless!(root);
    let net = Net::new();
    let udp = format!("{} udp port 40001", Net::DEVICE);
    let tcp = format!("{} tcp", Net::DEVICE);
    let daemon = Mount::new()
        .inside(&net.a)
        .capture("web", &udp)
        .capture("www", &udp)
        .capture("other", &tcp)
        .start();
    assert_eq!(listing(daemon.mountpoint()), ["README", "other/", "status.json", "web/", "www@"]);
    assert_eq!(fs::read_link(daemon.path("www")).unwrap(), Path::new("web"));
    assert_eq!(daemon.status("www"), {
        let status = daemon.status("web");
        assert_eq!(status["filter"], "udp port 40001");
        assert_eq!(status["interface"], Net::DEVICE);
        status
    });
    daemon.wait_state("web", "running");
    daemon.wait_state("other", "running");
    net.sender(100).send(10);
    daemon.wait_stored("web", 10);
    assert_eq!(daemon.count("other", "/packets/stored"), 0);
    let bytes = fs::read(daemon.path("www/replay.pcap")).unwrap();
    assert_eq!(check_prefix(&bytes).unwrap().whole().len(), 10);
}

/// The type of each field in a capture's status: n whole number, s text, t time or null, z any of
/// these or null.
const STATUS: [(&str, char); 53] = [
    ("/alias", 's'),
    ("/source", 's'),
    ("/interface", 'z'),
    ("/filter", 'z'),
    ("/state", 's'),
    ("/error", 'z'),
    ("/linktype", 'z'),
    ("/snaplen", 'n'),
    ("/precision", 's'),
    ("/started", 't'),
    ("/owner", 's'),
    ("/group", 's'),
    ("/mode", 's'),
    ("/packets/seen", 'n'),
    ("/packets/stored", 'n'),
    ("/packets/excluded", 'n'),
    ("/packets/dropped_kernel", 'n'),
    ("/packets/dropped_interface", 'n'),
    ("/packets/dropped_oversize", 'n'),
    ("/packets/lost_remote", 'n'),
    ("/packets/retained", 'n'),
    ("/packets/overwritten", 'n'),
    ("/bytes/stored", 'n'),
    ("/bytes/retained", 'n'),
    ("/rate/packets_per_second", 'n'),
    ("/rate/bits_per_second", 'n'),
    ("/ring/size", 'n'),
    ("/ring/segments", 'n'),
    ("/ring/used", 'n'),
    ("/ring/oldest", 't'),
    ("/ring/newest", 't'),
    ("/ring/first_number", 'n'),
    ("/ring/next_number", 'n'),
    ("/readers/open", 'n'),
    ("/readers/delivered", 'n'),
    ("/readers/lost", 'n'),
    ("/flows/open", 'n'),
    ("/flows/closed", 'n'),
    ("/flows/evicted", 'n'),
    ("/flows/engine_lag_packets", 'n'),
    ("/flows/engine_lost_packets", 'n'),
    ("/flows/undecodable", 'n'),
    ("/flows/gaps", 'n'),
    ("/flows/overlap_conflicts", 'n'),
    ("/flows/undecodable_by/link_type", 'n'),
    ("/flows/undecodable_by/not_ip", 'n'),
    ("/flows/undecodable_by/truncated", 'n'),
    ("/flows/undecodable_by/malformed", 'n'),
    ("/flows/undecodable_by/too_deep", 'n'),
    ("/flows/undecodable_by/bad_fragment", 'n'),
    ("/flows/undecodable_by/fragment", 'n'),
    ("/flows/undecodable_by/protocol", 'n'),
    ("/flows/undecodable_by/late", 'n'),
];

fn has_type(value: &Value, kind: char) -> bool {
    match kind {
        'n' => value.is_u64(),
        's' => value.is_string(),
        't' => value.is_null() || value.as_str().is_some_and(is_time),
        _ => !value.is_array() && !value.is_object(),
    }
}

/// True if a text is a time of RFC 3339 in UTC with nanoseconds.
fn is_time(text: &str) -> bool {
    let shape = |letter: char| if letter.is_ascii_digit() { '0' } else { letter };
    text.chars().map(shape).collect::<String>() == "0000-00-00T00:00:00.000000000Z"
}

#[test]
fn status_has_every_field() {
    skip_unless!(mount);
    let mut fed = Fed::with(Mount::new().ring("4M"));
    for sent in [0, 100] {
        if sent > 0 {
            fed.send(sent);
        }
        let status = fed.daemon.status(ALIAS);
        for (pointer, kind) in STATUS {
            let value = status.pointer(pointer);
            assert!(
                value.is_some_and(|value| has_type(value, kind)),
                "{pointer} is {value:?}, wanted: {kind}"
            );
        }
        let expected = BTreeMap::from([
            ("/packets/seen", sent),
            ("/packets/stored", sent),
            ("/packets/retained", sent),
            ("/packets/overwritten", 0),
            ("/bytes/stored", sent * Fed::RECORD),
            ("/bytes/retained", sent * Fed::RECORD),
            ("/ring/first_number", 1),
            ("/ring/next_number", sent + 1),
            ("/ring/size", 4 << 20),
        ]);
        for (pointer, wanted) in expected {
            assert_eq!(fed.daemon.count(ALIAS, pointer), wanted, "{pointer} of {status:#}");
        }
        assert_eq!(status["error"], Value::Null);
        assert_eq!(status["state"], "running");
        assert_eq!(status["source"], fed.fifo.source());
        assert_eq!(status["precision"], "nano");
        assert!(status["started"].is_string(), "{status:#}");
        let times = [&status["ring"]["oldest"], &status["ring"]["newest"]];
        // 1 and 100 times 1001 ns after 22:13:20.999 on that day; see the timestamps of the test
        // harness.
        let wanted = ["2023-11-14T22:13:20.999001001Z", "2023-11-14T22:13:20.999100100Z"];
        if sent > 0 {
            assert_eq!(times, wanted, "{status:#}");
        } else {
            assert_eq!(times, [&Value::Null, &Value::Null], "{status:#}");
        }
    }
}

#[test]
fn the_daemon_has_a_status() {
    skip_unless!(mount);
    let fed = Fed::holding(5);
    let status = fed.daemon.status("");
    assert_eq!(status["pid"], fed.daemon.pid().as_raw(), "{status:#}");
    assert!(status["version"].as_str().is_some_and(|version| !version.is_empty()), "{status:#}");
    for field in ["uptime", "memory", "captures"] {
        assert!(status.get(field).is_some_and(|value| !value.is_null()), "{field}: {status:#}");
    }
    assert!(status["captures"].to_string().contains("\"web\""), "{status:#}");
}

#[test]
fn stop_ends_the_readers_and_start_goes_on_in_the_same_ring() {
    skip_unless!(root);
    let wired = Wired::start();
    let daemon = &wired.daemon;
    let mut sender = wired.net.sender(200);
    let open = |file: &str| StreamReader::open(&daemon.path(ALIAS).join(file), Pace::FAST);
    let streams = ["live.pcap", "follow.pcap", "live.pcapng", "follow.pcapng"];
    let readers = streams.map(open);
    wired.send(&mut sender, 100);
    daemon.control(ALIAS, "stop\n").unwrap();
    for reader in &readers {
        assert_eq!(reader.wait_end().seen.count, 100);
    }
    daemon.wait_state(ALIAS, "stopped");

    // Packets sent while the capture is stopped reach no reader, and the retained ones stay.
    sender.send(50);
    let kept = [
        ("live.pcap", 0),
        ("live.pcapng", 0),
        ("follow.pcap", 100),
        ("follow.pcapng", 100),
        ("replay.pcap", 100),
        ("replay.pcapng", 100),
    ];
    for (file, count) in kept {
        assert_eq!(open(file).wait_end().seen.count, count, "{file} of a stopped capture");
    }

    daemon.control(ALIAS, "start\n").unwrap();
    daemon.wait_state(ALIAS, "running");
    let readers = streams.map(open);
    sender.send(25);
    daemon.wait_stored(ALIAS, 125);
    for (reader, file) in readers.iter().zip(streams) {
        let seen = reader.wait_last(175).seen;
        let count = if file.starts_with("live") { 25 } else { 125 };
        assert_eq!(seen.count, count, "{file}: {seen:?}");
    }
    let bytes = fs::read(daemon.path("web/replay.pcap")).unwrap();
    let sequences = check_prefix(&bytes).unwrap().sequences;
    assert_eq!(sequences, Vec::from_iter((1..=100).chain(151..=175)));
    assert_eq!(daemon.count(ALIAS, "/ring/next_number"), 126);
    equations_hold(daemon);
}

fn equations_hold(daemon: &Daemon) {
    let status = daemon.status(ALIAS);
    let of = |name: &str| {
        status.pointer(name).and_then(Value::as_u64).unwrap_or_else(|| panic!("{name}: {status:#}"))
    };
    assert_eq!(
        of("/packets/seen"),
        of("/packets/stored")
            + of("/packets/excluded")
            + of("/packets/dropped_kernel")
            + of("/packets/dropped_oversize"),
        "{status:#}"
    );
    assert_eq!(
        of("/packets/stored"),
        of("/packets/retained") + of("/packets/overwritten"),
        "{status:#}"
    );
    assert_eq!(
        of("/ring/next_number") - of("/ring/first_number"),
        of("/packets/retained"),
        "{status:#}"
    );
}

#[test]
fn clear_empties_the_ring_and_keeps_the_readers() {
    skip_unless!(mount);
    let mut fed = Fed::holding(50);
    let live = StreamReader::open(&fed.daemon.path("web/live.pcap"), Pace::FAST);
    let idle = File::open(fed.daemon.path("web/follow.pcap")).unwrap();
    fed.send(50);
    live.wait_last(100);
    let path = fed.daemon.path("web/replay.pcap");
    let old = File::open(&path).unwrap();
    let before = old.metadata().unwrap();

    fed.daemon.control(ALIAS, "clear").unwrap();
    wait_until("the ring is empty", 5, || fed.daemon.count(ALIAS, "/packets/retained") == 0);
    equations_hold(&fed.daemon);
    assert_eq!(fed.daemon.count(ALIAS, "/bytes/retained"), 0);
    assert_eq!(fed.daemon.status(ALIAS)["state"], "running");
    assert_eq!(fs::read(&path).unwrap().len(), 24, "the header only");
    assert_ne!(fs::metadata(&path).unwrap().ino(), before.ino(), "another beginning");
    assert!(old.metadata().unwrap().size() >= before.size(), "an open file shrinks");

    fed.send(10);
    equations_hold(&fed.daemon);
    let bytes = fs::read(&path).unwrap();
    assert_eq!(check_prefix(&bytes).unwrap().whole(), Vec::from_iter(101..=110));
    let seen = live.wait_last(110).seen;
    assert_eq!((seen.first, seen.missing), (51, 0), "{seen:?}");

    let told = |file| fed.daemon.reader(ALIAS, file, 0);
    let counts = |told: &Value| {
        ["delivered_packets", "lost_packets", "lag_packets"]
            .map(|field| told[field].as_u64().unwrap())
    };
    assert_eq!(counts(&told("live.pcap")), [60, 0, 0]);
    assert_eq!(counts(&told("follow.pcap")).iter().sum::<u64>(), 110);
    let prefix = read_packets(&idle, 10);
    assert_eq!(prefix, Vec::from_iter(101..=110), "the cleared packets are gone for all readers");
    assert_eq!(counts(&told("follow.pcap")), [10, 100, 0]);
}

/// Reads the header and `count` packets of [`Fed::send`] from a stream.
fn read_packets(file: &File, count: u64) -> Vec<u64> {
    use std::io::Read as _;
    let mut bytes = Vec::new();
    file.take(24 + count * Fed::RECORD).read_to_end(&mut bytes).unwrap();
    check_prefix(&bytes).unwrap().whole()
}

#[test]
fn ctl_accepts_its_words_with_and_without_an_end_of_line_and_no_others() {
    skip_unless!(root);
    let wired = Wired::start();
    wired.send(&mut wired.net.sender(200), 5);
    for verb in ["", "\n", "halt", "stop start", "STOP", "clear;", &"stop".repeat(3_000)] {
        let mut file = OpenOptions::new().write(true).open(wired.daemon.path("web/ctl")).unwrap();
        if verb.is_empty() {
            continue; // opened and closed: nothing happens
        }
        let error = file.write_all(verb.as_bytes()).expect_err(verb);
        assert_eq!(error.raw_os_error(), Some(libc::EINVAL), "{verb:?}: {error}");
    }
    assert_eq!(wired.daemon.status(ALIAS)["state"], "running");
    assert_eq!(wired.daemon.count(ALIAS, "/packets/retained"), 5);
    // Shells also truncate the file.
    for (verb, state) in [("stop", "stopped"), ("start", "running"), ("start", "running")] {
        for printer in ["echo", "printf"] {
            let line = format!("{printer} {verb} > {}", wired.daemon.path("web/ctl").display());
            let _ = run(tool("sh").arg("-c").arg(line), 5).success();
            wired.daemon.wait_state(ALIAS, state);
        }
    }
    assert_eq!(wired.daemon.count(ALIAS, "/packets/retained"), 5);
}

#[test]
fn nothing_in_the_tree_can_be_changed() {
    skip_unless!(mount);
    let mut fed = Fed::holding(5);
    let path = |name: &str| fed.daemon.path(name);
    let write = |name: &str| OpenOptions::new().write(true).open(path(name)).map(drop);
    let refused = [
        ("create a file", File::create(path("web/new")).map(drop)),
        ("create beside captures", File::create(path("new")).map(drop)),
        ("make a folder", fs::create_dir(path("web/folder"))),
        ("make a folder beside captures", fs::create_dir(path("folder"))),
        ("make a link", std::os::unix::fs::symlink("web", path("link"))),
        ("make a hard link", fs::hard_link(path("web/replay.pcap"), path("web/hard"))),
        ("remove a file", fs::remove_file(path("web/replay.pcap"))),
        ("remove a capture", fs::remove_dir(path("web"))),
        ("rename a file", fs::rename(path("web/replay.pcap"), path("web/other"))),
        ("rename a capture", fs::rename(path("web"), path("other"))),
        ("write live", write("web/live.pcap")),
        ("write replay", write("web/replay.pcap")),
        ("write status", write("web/status.json")),
        ("write README", write("README")),
        ("truncate replay", nix::unistd::truncate(&path("web/replay.pcap"), 0).map_err(Into::into)),
    ];
    for (what, result) in refused {
        let error = result.expect_err(what);
        let code = error.raw_os_error().unwrap();
        assert!([libc::EPERM, libc::EACCES, libc::EROFS].contains(&code), "{what}: {error}");
    }
    assert_eq!(listing(fed.daemon.mountpoint()), ["README", "status.json", "web/"]);
    assert_eq!(listing(&fed.daemon.path("web")), files());
    fed.send(5);
    let bytes = fs::read(fed.daemon.path("web/replay.pcap")).unwrap();
    assert_eq!(check_prefix(&bytes).unwrap().whole().len(), 10);
}

#[test]
fn an_invalid_alias_is_a_usage_error() {
    skip_unless!(mount);
    let folder = TempDir::new().unwrap();
    let savefile = folder.path().join("trace.pcap");
    fs::write(&savefile, numbered(Format::default(), 3, 100)).unwrap();
    let source = format!("file:{}", savefile.display());
    let long = "a".repeat(65);
    for alias in ["", ".", "..", ".hidden", "a/b", "a b", "ä", "a\nb", &long] {
        let refused = Mount::new().capture(alias, &source).try_start().expect_err(alias);
        assert_eq!(refused.status.code(), Some(2), "{alias:?}: {refused:?}");
        assert!(!refused.left_mounted, "{alias:?}");
        assert!(refused.stderr.contains("alias"), "{alias:?}: {}", refused.stderr);
    }
    let longest = "a".repeat(64);
    let daemon = Mount::new().capture(&longest, &source).start();
    assert_eq!(listing(&daemon.path(&longest)), files());
}
