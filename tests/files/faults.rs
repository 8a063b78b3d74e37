//! The daemon's end, clean or not: signals, unmounting, full disks, and files opened ten thousand
//! times.

use std::fs::{self, File, Permissions};
use std::io::{Read, Write};
use std::os::fd::AsFd;
use std::os::unix::fs::{MetadataExt, OpenOptionsExt, PermissionsExt};
use std::os::unix::net::UnixStream;
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use nix::mount::{MntFlags, MsFlags, mount, umount2};
use nix::poll::{PollFd, PollFlags, PollTimeout, poll};
use nix::sys::resource::{Resource, getrlimit, setrlimit};
use nix::sys::signal::Signal;
use pcapfs_tests::measure::{anonymous_memory, descriptors, threads};
use pcapfs_tests::savefile::{Format, check_prefix, numbered};
use pcapfs_tests::{
    ALIAS, Daemon, Emit, Fed, Fifo, Mount, Pace, Running, StreamReader, Traffic, Wired, binary,
    is_mounted, run, skip_unless, tool, wait_until,
};
use tempfile::TempDir;

const STREAMS: [&str; 4] = ["live.pcap", "live.pcapng", "follow.pcap", "follow.pcapng"];

/// Readers in processes of their own, all of them blocked.
fn blocked_cats(daemon: &Daemon, count: usize) -> Vec<Running> {
    let cats: Vec<Running> = STREAMS
        .iter()
        .cycle()
        .take(count)
        .map(|file| Running::spawn(tool("cat").arg(daemon.path(ALIAS).join(file))))
        .collect();
    wait_until("all of them are blocked", 10, || {
        let readers = daemon.readers(ALIAS);
        readers.iter().filter(|reader| reader["blocked"] == true).count() == count
    });
    cats
}

#[track_caller]
fn is_gone(daemon: &mut Daemon, limit: Duration) {
    let begin = Instant::now();
    let status = daemon.wait_exit(limit).unwrap_or_else(|| {
        panic!("still there after {limit:?}: {}", daemon.stderr());
    });
    assert!(status.success(), "{status} after {:?}: {}", begin.elapsed(), daemon.stderr());
    assert!(!is_mounted(daemon.mountpoint()), "left mounted");
}

#[test]
fn signals_end_fifty_blocked_readers_with_end_of_file() {
    skip_unless!(mount);
    for signal in [Signal::SIGTERM, Signal::SIGINT] {
        let mut fed = Fed::holding(20);
        let mut cats = blocked_cats(&fed.daemon, 50);
        fed.daemon.signal(signal);
        is_gone(&mut fed.daemon, Duration::from_secs(3));
        for (cat, file) in cats.iter_mut().zip(STREAMS.iter().cycle()) {
            assert!(cat.wait(3).success(), "{file} on {signal}: {}", cat.stderr());
            let prefix = check_prefix(&cat.stdout()).unwrap();
            let packets = if file.starts_with("live") { 0 } else { 20 };
            assert_eq!(prefix.whole().len(), packets, "{file} on {signal}");
        }
    }
}

#[test]
fn signals_without_a_meaning_leave_the_tree() {
    let fed = Fed::holding(7);
    let pid = fed.daemon.pid().to_string();
    let signal =
        |name: &str| run(tool("kill").args([&format!("-{name}"), &pid]), 5).success().status;
    // Signals that end a process by default; 34 and 64 are real-time signals.
    for name in
        ["USR2", "ALRM", "VTALRM", "PROF", "IO", "PWR", "STKFLT", "XFSZ", "PIPE", "34", "64"]
    {
        assert!(signal(name).success());
        assert_eq!(fed.daemon.count(ALIAS, "/packets/stored"), 7, "{name}");
    }
    assert!(signal("USR1").success());
    let line = format!(
        "pcapfs: {ALIAS}: 7 packets seen, 7 stored, 0 dropped by the kernel, 0 too large, 7 retained"
    );
    wait_until("the counters are said", 5, || fed.daemon.stderr().contains(&line));
}

#[test]
fn signals_end_readers_under_load_with_end_of_file() {
    skip_unless!(root);
    for signal in [Signal::SIGTERM, Signal::SIGINT] {
        let mut wired = Wired::with(Mount::new().ring("4M"));
        let mut readers = Vec::new();
        for index in 0..50 {
            let file = STREAMS[index % 4];
            let pace = if index % 5 == 4 { Pace::slow(4096, 4) } else { Pace::FAST };
            readers.push(StreamReader::open(&wired.daemon.path(ALIAS).join(file), pace));
        }
        let traffic = Traffic::start(wired.net.sender(200), 5_000, 100_000);
        wait_until("traffic is under way", 10, || {
            readers.iter().all(|reader| reader.progress().seen.last > 500)
        });
        wired.daemon.signal(signal);
        is_gone(&mut wired.daemon, Duration::from_secs(4));
        let sent = traffic.stop().emitted();
        for reader in &readers {
            let seen = reader.wait_end().seen;
            assert!(seen.last <= sent, "{seen:?}");
            assert_eq!(seen.missing, 0, "they kept up: {seen:?}");
        }
        let last = readers.iter().map(|reader| reader.progress().seen.last);
        let (least, most) = (last.clone().min(), last.max());
        assert_eq!(least, most, "every one gets all that was stored");
    }
}

#[test]
fn a_file_held_open_without_reading_delays_the_end_only_for_a_while() {
    skip_unless!(mount);
    let mut fed = Fed::holding(20);
    let held = File::open(fed.daemon.path("web/live.pcap")).unwrap();
    let begin = Instant::now();
    fed.daemon.signal(Signal::SIGTERM);
    wait_until("it is out of the tree at once", 2, || !is_mounted(fed.daemon.mountpoint()));
    is_gone(&mut fed.daemon, Duration::from_secs(5));
    assert!(begin.elapsed() < Duration::from_secs(5));
    let error = (&held).read(&mut [0; 64]).expect_err("the daemon is gone");
    assert_eq!(error.raw_os_error(), Some(libc::ENOTCONN), "{error}");

    // Idle clients of the control socket and `status --watch` do not delay the end either.
    let mut fed = Fed::holding(20);
    let _held = File::open(fed.daemon.path("web/flows.jsonl")).unwrap();
    let _mute = UnixStream::connect(fed.daemon.socket()).unwrap();
    let watch = Running::spawn(&mut fed.daemon.command(["status", ALIAS, "--watch", "--json"]));
    watch.wait_stdout("it watches", 5, |bytes| !bytes.is_empty());
    let begin = Instant::now();
    fed.daemon.signal(Signal::SIGTERM);
    is_gone(&mut fed.daemon, Duration::from_secs(5));
    // Three seconds are promised. The rest allows for the end of a process on a busy machine.
    assert!(begin.elapsed() < Duration::from_millis(3_500), "{:?}", begin.elapsed());

    // A second signal ends the daemon without waiting for readers.
    let mut fed = Fed::holding(20);
    let _held = File::open(fed.daemon.path("web/live.pcap")).unwrap();
    fed.daemon.signal(Signal::SIGTERM);
    wait_until("it is out of the tree", 2, || !is_mounted(fed.daemon.mountpoint()));
    fed.daemon.signal(Signal::SIGTERM);
    is_gone(&mut fed.daemon, Duration::from_secs(1));
}

#[test]
fn a_lazy_unmount_leaves_readers_reading_and_ends_with_the_last() {
    skip_unless!(root);
    let mut fed = Fed::holding(20);
    let cats: Vec<Running> = STREAMS
        .map(|file| Running::spawn(tool("cat").arg(fed.daemon.path(ALIAS).join(file))))
        .into();
    for (cat, file) in cats.iter().zip(STREAMS) {
        fed.daemon.wait_blocked(ALIAS, file, cat.pid());
    }
    let _ = run(tool("umount").arg("-l").arg(fed.daemon.mountpoint()), 5).success();
    assert!(!is_mounted(fed.daemon.mountpoint()));
    fed.feed.send(100, 200);
    for (cat, file) in cats.iter().zip(STREAMS) {
        cat.wait_stdout(&format!("packet 120 of {file}"), 10, |bytes| {
            check_prefix(bytes).unwrap().seen.last == 120
        });
    }
    assert_eq!(fed.daemon.try_wait(), None, "it has readers: {}", fed.daemon.stderr());
    drop(cats);
    is_gone(&mut fed.daemon, Duration::from_secs(3));
}

#[test]
fn unmounting_a_tree_in_use_is_refused_and_changes_nothing() {
    skip_unless!(root);
    let mut fed = Fed::holding(20);
    let cat = Running::spawn(tool("cat").arg(fed.daemon.path("web/follow.pcap")));
    fed.daemon.wait_blocked(ALIAS, "follow.pcap", cat.pid());
    let plain = run(tool("umount").arg(fed.daemon.mountpoint()), 5);
    assert!(!plain.status.success());
    assert!(plain.stderr.contains("busy"), "{}", plain.stderr);
    let ours =
        run(tool(binary("pcapfs").to_str().unwrap()).arg("umount").arg(fed.daemon.mountpoint()), 5);
    assert_eq!(ours.status.code(), Some(1), "{ours:?}");
    let line = ours.stderr.strip_suffix('\n').unwrap_or(&ours.stderr);
    assert!(line.starts_with("pcapfs: ") && !line.contains('\n'), "{ours:?}");
    assert!(line.contains("busy"), "{line}");

    assert!(is_mounted(fed.daemon.mountpoint()));
    fed.send(20);
    cat.wait_stdout("packet 40", 5, |bytes| check_prefix(bytes).unwrap().seen.last == 40);
    drop(cat);
    wait_until("no reader is left", 5, || fed.daemon.readers(ALIAS).is_empty());
    wait_until("it can be unmounted", 5, || {
        run(tool("umount").arg(fed.daemon.mountpoint()), 5).status.success()
    });
    is_gone(&mut fed.daemon, Duration::from_secs(3));
}

#[test]
fn a_killed_daemon_ends_its_readers_with_an_error() {
    skip_unless!(mount);
    let mut fed = Fed::holding(20);
    let mut cats = blocked_cats(&fed.daemon, 20);
    let open = File::open(fed.daemon.path("web/replay.pcap")).unwrap();
    let begin = Instant::now();
    fed.daemon.signal(Signal::SIGKILL);
    for cat in &mut cats {
        assert_eq!(cat.wait(3).code(), Some(1), "{}", cat.stderr());
        let said = cat.stderr();
        let known = ["Software caused connection abort", "Transport endpoint is not connected"];
        assert!(known.iter().any(|error| said.contains(error)), "{said}");
    }
    assert!(begin.elapsed() < Duration::from_secs(3), "{:?}", begin.elapsed());
    let error = File::open(fed.daemon.path("web/replay.pcap")).expect_err("a dead tree");
    assert_eq!(error.raw_os_error(), Some(libc::ENOTCONN), "{error}");
    drop(open);
    // Drop expects a process that is still running to end cleanly, so wait for this one.
    assert!(!fed.daemon.wait_exit(Duration::from_secs(3)).expect("SIGKILL ends it").success());
}

// Full disks.

/// A file system in memory of the given size. It is unmounted on drop.
struct Small {
    folder: TempDir,
}

impl Small {
    fn new(size: &str) -> Self {
        let folder = TempDir::new().unwrap();
        let options = format!("size={size},mode=700");
        mount(
            Some("pcapfs-test"),
            folder.path(),
            Some("tmpfs"),
            MsFlags::empty(),
            Some(options.as_str()),
        )
        .expect("root may mount");
        Self { folder }
    }

    fn path(&self) -> &Path {
        self.folder.path()
    }

    /// Fills the remaining space and returns the path of the file that does so.
    fn fill(&self) -> PathBuf {
        let path = self.path().join("filler");
        let mut file = File::create(&path).unwrap();
        let block = vec![0x77; 1 << 16];
        let error = loop {
            if let Err(error) = file.write_all(&block) {
                break error;
            }
        };
        assert_eq!(error.raw_os_error(), Some(libc::ENOSPC), "{error}");
        path
    }
}

impl Drop for Small {
    fn drop(&mut self) {
        let _ = umount2(self.path(), MntFlags::MNT_DETACH);
    }
}

#[test]
fn a_ring_folder_without_room_is_a_clear_refusal() {
    skip_unless!(root);
    let small = Small::new("4m");
    let fifo = Fifo::new();
    let mount =
        |size: &str| Mount::new().ring_dir(small.path()).ring(size).capture(ALIAS, &fifo.source());
    for size in ["64M", "4M", "1G"] {
        let refused = mount(size).try_start().expect_err("no room");
        assert_eq!(refused.status.code(), Some(1), "{refused:?}");
        let line = refused.stderr.strip_suffix('\n').unwrap_or(&refused.stderr);
        assert!(line.starts_with("pcapfs: ") && !line.contains('\n'), "{refused:?}");
        for part in ["web.ring", "no room", "--ring"] {
            assert!(line.contains(part), "{part}: {line}");
        }
        assert!(!refused.left_mounted);
        assert_eq!(fs::read_dir(small.path()).unwrap().count(), 0, "{size} left something");
    }
    // The ring of the first capture fits, but the second capture fails. The ring must not stay.
    let refused = mount("1M").capture("other", &Fifo::new().source());
    let refused = refused.try_start().expect_err("a FIFO that is gone");
    assert_eq!(refused.status.code(), Some(1), "{refused:?}");
    assert_eq!(fs::read_dir(small.path()).unwrap().count(), 0, "a ring is left");
    let daemon = mount("1M").start();
    assert_eq!(daemon.status(ALIAS)["state"], "pending");
}

#[test]
fn a_ring_has_its_room_from_the_start() {
    skip_unless!(root);
    let small = Small::new("16m");
    let fifo = Fifo::new();
    let mut daemon =
        Mount::new().ring_dir(small.path()).ring("4M").capture(ALIAS, &fifo.source()).start();
    let ring = fs::metadata(small.path().join("web.ring")).unwrap();
    assert!(ring.blocks() * 512 >= ring.size(), "it has holes: {ring:?}");
    let filler = small.fill();
    let mut feed = fifo.connect();
    feed.send(30_000, 400);
    daemon.wait_stored(ALIAS, 30_000);
    assert!(daemon.count(ALIAS, "/packets/overwritten") > 10_000, "not round yet");
    let bytes = fs::read(daemon.path("web/replay.pcap")).unwrap();
    assert_eq!(check_prefix(&bytes).unwrap().seen.last, 30_000);

    // Starting again needs no room either.
    let retained = daemon.count(ALIAS, "/packets/retained");
    daemon.kill9();
    let daemon =
        Mount::new().ring_dir(small.path()).ring("4M").capture(ALIAS, &fifo.source()).start();
    assert_eq!(daemon.count(ALIAS, "/packets/retained"), retained);
    fs::remove_file(filler).unwrap();
}

#[test]
fn a_larger_ring_without_room_leaves_the_smaller_one_as_it_was() {
    skip_unless!(root);
    let small = Small::new("16m");
    let fifo = Fifo::new();
    let mount =
        |size: &str| Mount::new().ring_dir(small.path()).ring(size).capture(ALIAS, &fifo.source());
    let mut daemon = mount("4M").start();
    let mut feed = fifo.connect();
    feed.send(1_000, 400);
    daemon.wait_stored(ALIAS, 1_000);
    assert!(daemon.terminate().success());
    let refused = mount("64M").try_start().expect_err("no room");
    assert!(refused.stderr.contains("no room"), "{refused:?}");
    let names: Vec<_> =
        fs::read_dir(small.path()).unwrap().map(|entry| entry.unwrap().file_name()).collect();
    assert_eq!(names, ["web.ring"]);
    let daemon = mount("4M").start();
    let bytes = fs::read(daemon.path("web/replay.pcap")).unwrap();
    assert_eq!(check_prefix(&bytes).unwrap().whole(), Vec::from_iter(1..=1_000));
}

#[test]
fn a_ring_file_removed_while_in_use_does_no_harm() {
    skip_unless!(mount);
    let mut fed = Fed::with(Mount::new().ring("1M"));
    fed.send(100);
    fs::remove_file(fed.daemon.ring_dir().join("web.ring")).unwrap();
    fed.send(5_000);
    let bytes = fs::read(fed.daemon.path("web/replay.pcap")).unwrap();
    assert_eq!(check_prefix(&bytes).unwrap().seen.last, 5_100);
    fed.daemon.control(ALIAS, "clear").unwrap();
    wait_until("it is empty", 5, || fed.daemon.count(ALIAS, "/packets/retained") == 0);
}

#[test]
fn a_ring_file_cut_while_it_is_in_use_does_not_kill_the_daemon() {
    skip_unless!(mount);
    let (cut, fine) = (Fifo::new(), Fifo::new());
    let mut daemon = Mount::new()
        .ring("1M")
        .capture(ALIAS, &cut.source())
        .capture("fine", &fine.source())
        .start();
    let mut feed = cut.connect();
    feed.send(100, 200);
    daemon.wait_stored(ALIAS, 100);
    let ring = daemon.ring_dir().join("web.ring");
    File::options().write(true).open(ring).unwrap().set_len(0).unwrap();
    feed.send(10, 200);
    wait_until("the capture reports the error", 10, || {
        assert_eq!(daemon.try_wait(), None, "{}", daemon.stderr());
        daemon.status(ALIAS)["error"].is_string()
    });
    let mut feed = fine.connect();
    feed.send(10, 200);
    daemon.wait_stored("fine", 10);
}

#[test]
fn with_few_descriptors_all_works_or_the_start_is_refused() {
    skip_unless!(mount);
    let folder = TempDir::new().unwrap();
    let path = |name: &str| folder.path().join(name);
    for name in ["mount", "rings"] {
        fs::create_dir(path(name)).unwrap();
    }
    fs::set_permissions(path("rings"), Permissions::from_mode(0o700)).unwrap();
    fs::write(path("trace.pcap"), numbered(Format::default(), 10, 100)).unwrap();
    let (mut refused, mut ready) = (0, 0);
    for limit in (10..=50).step_by(2) {
        let script = r#"ulimit -n "$1"; shift; exec "$@""#;
        let mut command = tool("sh");
        command.args(["-c", script, "sh"]).arg(limit.to_string()).arg(binary("pcapfs"));
        command.arg("mount").arg(path("mount")).arg("--ring-dir").arg(path("rings"));
        command.arg("-r").arg(path("trace.pcap")).arg("--socket").arg(path("socket"));
        let mut daemon = Running::spawn(&mut command);
        wait_until("it is ready or has ended", 10, || {
            daemon.try_wait().is_some() || daemon.stderr().contains(": ready at ")
        });
        if daemon.try_wait().is_some() {
            assert_eq!(daemon.wait(1).code(), Some(1), "{limit}: {}", daemon.stderr());
            let said = daemon.stderr();
            assert_eq!(said.lines().count(), 1, "{limit}: {said}");
            assert!(said.ends_with("; raise the limit of open files (ulimit -n)\n"), "{said}");
            assert!(!is_mounted(&path("mount")), "{limit}: {said}");
            refused += 1;
            continue;
        }
        let mut list = tool(binary("pcapfs").to_str().unwrap());
        list.arg("list").arg("--socket").arg(path("socket"));
        let listed = run(&mut list, 10).success();
        assert!(listed.text().contains("trace"), "{limit}: {listed:?}");
        let savefile = fs::read(path("mount/trace/replay.pcap")).unwrap();
        assert!(savefile == numbered(Format::default(), 10, 100), "{limit}");
        daemon.signal(Signal::SIGTERM);
        assert_eq!(daemon.wait(10).code(), Some(0), "{limit}: {}", daemon.stderr());
        assert_eq!(daemon.stderr().lines().count(), 1, "{limit}: {}", daemon.stderr());
        ready += 1;
    }
    assert!(refused > 0 && ready > 0, "{refused} refused, {ready} ready");
}

// Ten thousand of everything.

/// Opens `path`, reads a little or polls, and closes it.
fn visit(path: &Path, poll_it: bool) {
    let mut file =
        fs::OpenOptions::new().read(true).custom_flags(libc::O_NONBLOCK).open(path).unwrap();
    if poll_it {
        let mut ready = [PollFd::new(file.as_fd(), PollFlags::POLLIN)];
        poll(&mut ready, PollTimeout::ZERO).unwrap();
    } else {
        let mut part = [0; 300];
        let length = file.read(&mut part).unwrap();
        assert!(length > 0 || path.ends_with("readers.jsonl"), "{}", path.display());
    }
}

#[test]
fn ten_thousand_opens_and_closes_leave_no_memory_in_use() {
    skip_unless!(mount);
    let fed = Fed::holding(50);
    let files: Vec<PathBuf> = ["README", "status.json"]
        .iter()
        .map(|name| fed.daemon.path(name))
        .chain(
            ["replay.pcap", "replay.pcapng", "status.json", "readers.jsonl"]
                .iter()
                .chain(&STREAMS)
                .map(|name| fed.daemon.path(ALIAS).join(name)),
        )
        .collect();
    let visit_all = |times: usize| {
        for turn in 0..times {
            for path in &files {
                visit(path, turn % 2 == 1);
            }
        }
    };
    let settled = || {
        wait_until("all are closed", 10, || fed.daemon.readers(ALIAS).is_empty());
    };
    let pid = fed.daemon.pid();
    visit_all(200);
    settled();
    let (memory, open, running) = (anonymous_memory(pid), descriptors(pid), threads(pid));
    visit_all(10_000 / files.len());
    settled();
    let growth = anonymous_memory(pid).saturating_sub(memory);
    // Less than 32 bytes for each: noise of the allocator, not an entry in a table.
    assert!(growth <= 320_000, "{growth} bytes more than {memory} after 10,000 opens");
    assert_eq!(descriptors(pid), open, "descriptors");
    assert!(threads(pid) <= running, "{} threads, {running} before", threads(pid));
    assert_eq!(fed.daemon.count(ALIAS, "/readers/open"), 0);
}

#[test]
fn two_thousand_files_open_at_once_are_given_back() {
    skip_unless!(mount);
    let mut fed = Fed::holding(10);
    let pid = fed.daemon.pid();
    let round = |fed: &mut Fed| {
        let path = fed.daemon.path("web/live.pcap");
        let open: Vec<File> = (0..500).map(|_| File::open(&path).unwrap()).collect();
        // Half of them are in poll, so that packets wake them.
        let mut ready: Vec<PollFd<'_>> = open
            .iter()
            .step_by(2)
            .map(|file| PollFd::new(file.as_fd(), PollFlags::POLLIN))
            .collect();
        poll(&mut ready, PollTimeout::ZERO).unwrap();
        fed.send(10);
        let count = poll(&mut ready, PollTimeout::from(5_000u16)).unwrap();
        assert!(count > 0, "no reader woke up");
        assert_eq!(fed.daemon.count(ALIAS, "/readers/open"), 500);
        drop(open);
        wait_until("all are closed", 10, || fed.daemon.readers(ALIAS).is_empty());
    };
    // Let the allocator take what it needs first; afterwards its memory levels off.
    for _ in 0..4 {
        round(&mut fed);
    }
    let (memory, open) = (anonymous_memory(pid), descriptors(pid));
    for _ in 0..4 {
        round(&mut fed);
    }
    let growth = anonymous_memory(pid).saturating_sub(memory);
    assert!(growth <= 512 << 10, "{growth} bytes more than {memory}");
    assert_eq!(descriptors(pid), open, "descriptors");
}

#[test]
fn lists_of_readers_that_are_open_are_bounded_together() {
    skip_unless!(mount);
    const ROOM: u64 = 64 << 20;
    let (_, most) = getrlimit(Resource::RLIMIT_NOFILE).unwrap();
    setrlimit(Resource::RLIMIT_NOFILE, most, most).unwrap();
    let fed = Fed::holding(10);
    let readers: Vec<File> =
        (0..1_500).map(|_| File::open(fed.daemon.path("web/live.pcap")).unwrap()).collect();
    let path = fed.daemon.path("web/readers.jsonl");
    let before = anonymous_memory(fed.daemon.pid());
    let (mut lists, mut bytes) = (Vec::new(), 0);
    let error = loop {
        match File::open(&path) {
            Ok(list) => {
                bytes += list.metadata().unwrap().size();
                lists.push(list);
            }
            Err(error) => break error,
        }
        assert!(bytes <= ROOM, "{} lists of {bytes} bytes", lists.len());
    };
    assert_eq!(error.raw_os_error(), Some(libc::ENOMEM), "{error}");
    assert!(bytes > ROOM * 9 / 10, "{bytes} bytes");
    let growth = anonymous_memory(fed.daemon.pid()).saturating_sub(before);
    assert!(growth <= ROOM + (16 << 20), "{growth} bytes more");
    // Small files can still be opened.
    assert_eq!(fed.daemon.count(ALIAS, "/readers/open"), 1_500);
    drop((lists, readers));
    wait_until("all are closed", 10, || fed.daemon.readers(ALIAS).is_empty());
}

#[test]
fn readers_killed_while_blocked_leave_nothing() {
    skip_unless!(mount);
    let fed = Fed::holding(10);
    let pid = fed.daemon.pid();
    drop(blocked_cats(&fed.daemon, 20));
    wait_until("all are gone", 10, || fed.daemon.readers(ALIAS).is_empty());
    let (memory, open) = (anonymous_memory(pid), descriptors(pid));
    for _ in 0..5 {
        drop(blocked_cats(&fed.daemon, 20));
        wait_until("all are gone", 10, || fed.daemon.readers(ALIAS).is_empty());
    }
    let growth = anonymous_memory(pid).saturating_sub(memory);
    assert!(growth <= 512 << 10, "{growth} bytes more than {memory}");
    assert_eq!(descriptors(pid), open, "descriptors");
}
