//! Ordinary tools on the tree: each is the real tool, on every kind of file it is meant for.

use std::fs::{self, File};
use std::path::Path;
use std::process::Stdio;

use nix::sys::signal::Signal;
use pcapfs_tests::savefile::check_prefix;
use pcapfs_tests::{
    ALIAS, Daemon, Emit, Fed, Mount, Running, Traffic, Wired, python, run, skip_unless, tool,
    wait_until,
};
use tempfile::TempDir;

/// Number of packets in captures without traffic.
const HELD: u64 = 100;

fn numbers(from: u64, to: u64) -> Vec<u64> {
    (from..=to).collect()
}

/// Sequence numbers in the output of tshark with `-T fields -e udp.payload`.
fn payload_numbers(printed: &[u8]) -> Vec<u64> {
    let text = str::from_utf8(printed).expect("hexadecimal digits");
    let whole = text.rsplit_once('\n').map_or("", |(whole, _)| whole);
    let number = |line: &str| u64::from_str_radix(line.get(16..32)?, 16).ok();
    whole.lines().map(|line| number(line).unwrap_or_else(|| panic!("no payload: {line}"))).collect()
}

fn tshark(file: &Path) -> std::process::Command {
    let mut command = tool("tshark");
    command.args(["-n", "-l", "-T", "fields", "-e", "udp.payload", "-r"]).arg(file);
    command
}

fn md5(bytes: &[u8]) -> String {
    let folder = TempDir::new().unwrap();
    let file = folder.path().join("bytes");
    fs::write(&file, bytes).unwrap();
    let output = run(tool("md5sum").stdin(File::open(file).unwrap()), 10).success();
    output.text()[..32].to_owned()
}

#[test]
fn cat_gets_every_byte_of_replay() {
    skip_unless!(mount);
    let fed = Fed::holding(HELD);
    let output = run(tool("cat").arg(fed.daemon.path("web/replay.pcap")), 5).success();
    assert_eq!(check_prefix(&output.stdout).unwrap().whole(), numbers(1, HELD));
    assert_eq!(output.stdout[24..], Fed::records(HELD), "records are not as they were sent");
}

#[test]
fn cat_streams_live_and_follow() {
    skip_unless!(mount);
    let mut fed = Fed::holding(HELD);
    for file in ["live.pcap", "live.pcapng", "follow.pcap", "follow.pcapng"] {
        let cat = Running::spawn(tool("cat").arg(fed.daemon.path(ALIAS).join(file)));
        fed.daemon.wait_blocked(ALIAS, file, cat.pid());
        let before = fed.daemon.count(ALIAS, "/packets/stored");
        let first = if file.starts_with("live") { before + 1 } else { 1 };
        for sent in [before + 1, before + 2] {
            fed.send(1);
            cat.wait_stdout(&format!("packet {sent} of {file}"), 5, |bytes| {
                check_prefix(bytes).unwrap().seen.last == sent
            });
        }
        let sequences = check_prefix(&cat.stdout()).unwrap().whole();
        assert_eq!(sequences, numbers(first, before + 2), "{file}");
    }
}

#[test]
fn cat_of_replay_ends_under_full_load() {
    skip_unless!(mount);
    let fed = Fed::with(Mount::new().ring("16M"));
    let daemon = &fed.daemon;
    let traffic = Traffic::start(fed.feed, u64::from(u32::MAX), 20_000_000);
    for file in ["replay.pcap", "replay.pcapng"].repeat(3) {
        let sent = traffic.sent();
        let output = run(tool("cat").arg(daemon.path(ALIAS).join(file)), 10).success();
        let prefix = check_prefix(&output.stdout).unwrap();
        assert_eq!(prefix.rest, 0, "{file} ends in the middle of a record");
        // The FIFO and the daemon's buffer hold a few thousand packets at most.
        assert!(prefix.seen.last + 10_000 > sent, "{file} ends at {:?} of {sent}", prefix.seen);
        wait_until("traffic goes on", 10, || traffic.sent() > sent);
    }
    drop(traffic.stop());
}

#[test]
fn head_reads_a_part_of_a_stream_and_ends() {
    skip_unless!(mount);
    let fed = Fed::holding(HELD);
    let header = run(tool("head").args(["-c", "24"]).arg(fed.daemon.path("web/live.pcap")), 5);
    assert_eq!(header.success().stdout.len(), 24, "an idle link hides the header");
    for file in ["follow.pcap", "replay.pcap"] {
        let output =
            run(tool("head").args(["-c", "5000"]).arg(fed.daemon.path(ALIAS).join(file)), 5);
        let output = output.success();
        assert_eq!(output.stdout.len(), 5000);
        assert_eq!(output.stdout[24..], Fed::records(HELD)[..5000 - 24], "{file}");
    }
}

#[test]
fn dd_reads_blocks_of_any_size() {
    skip_unless!(mount);
    let fed = Fed::holding(HELD);
    let records = Fed::records(HELD);
    for (file, size, count) in [
        ("follow.pcap", 7, 500),
        ("follow.pcap", 1000, 20),
        ("replay.pcap", 1, 2000),
        ("replay.pcap", 4096, 5),
    ] {
        let input = format!("if={}", fed.daemon.path(ALIAS).join(file).display());
        let sizes = [format!("bs={size}"), format!("count={count}")];
        let output = run(tool("dd").arg(input).args(sizes).arg("iflag=fullblock"), 10).success();
        let wanted = size * count;
        assert_eq!(output.stdout.len(), wanted, "{file} in blocks of {size}");
        assert_eq!(output.stdout[24..], records[..wanted - 24], "{file} in blocks of {size}");
    }
    let input = format!("if={}", fed.daemon.path("web/replay.pcap").display());
    let output = run(tool("dd").arg(input).args(["bs=100", "skip=3"]), 5).success();
    assert_eq!(output.stdout, records[300 - 24..], "dd skip= on replay");
}

#[test]
fn md5sum_agrees_with_the_bytes() {
    skip_unless!(mount);
    let mut fed = Fed::holding(HELD);
    for file in ["replay.pcap", "replay.pcapng"] {
        let path = fed.daemon.path(ALIAS).join(file);
        let bytes = fs::read(&path).unwrap();
        let output = run(tool("md5sum").arg(&path), 5).success();
        assert_eq!(output.text()[..32], md5(&bytes), "{file}");
    }
    let mut stream = Running::spawn(tool("md5sum").arg(fed.daemon.path("web/follow.pcap")));
    fed.daemon.wait_blocked(ALIAS, "follow.pcap", stream.pid());
    fed.send(10);
    fed.daemon.control(ALIAS, "stop\n").unwrap();
    assert!(stream.wait(5).success());
    let bytes = fs::read(fed.daemon.path("web/replay.pcap")).unwrap();
    assert_eq!(String::from_utf8(stream.stdout()).unwrap()[..32], md5(&bytes));
}

#[test]
fn tail_follows_replay() {
    skip_unless!(mount);
    let mut fed = Fed::holding(HELD);
    for file in ["replay.pcap", "replay.pcapng"] {
        let path = fed.daemon.path(ALIAS).join(file);
        let tail = Running::spawn(tool("tail").args(["-f", "-c", "+1"]).arg(path));
        for _ in 0..2 {
            let stored = fed.daemon.count(ALIAS, "/packets/stored");
            tail.wait_stdout(&format!("packet {stored} of {file}"), 5, |bytes| {
                check_prefix(bytes).unwrap().seen.last == stored
            });
            fed.send(10);
        }
        let stored = fed.daemon.count(ALIAS, "/packets/stored");
        tail.wait_stdout("the last packet", 5, |bytes| {
            check_prefix(bytes).unwrap().seen.last == stored
        });
        assert_eq!(check_prefix(&tail.stdout()).unwrap().whole(), numbers(1, stored), "{file}");
        assert!(!tail.stderr().contains("truncated"), "{}", tail.stderr());
    }
}

#[test]
fn tail_follows_replay_on_an_interface_under_load() {
    skip_unless!(root);
    let wired = Wired::start();
    let path = wired.daemon.path("web/replay.pcap");
    let tail = Running::spawn(tool("tail").args(["-f", "-c", "+1"]).arg(&path));
    let traffic = Traffic::start(wired.net.sender(200), 20_000, 40_000);
    assert_eq!(traffic.finish().emitted(), 40_000);
    wired.daemon.wait_stored(ALIAS, 40_000);
    tail.wait_stdout("all packets", 10, |bytes| bytes.len() as u64 >= 24 + 40_000 * Fed::RECORD);
    assert_eq!(check_prefix(&tail.stdout()).unwrap().whole(), numbers(1, 40_000));
}

#[test]
fn tail_prints_the_end_of_replay() {
    skip_unless!(mount);
    let fed = Fed::holding(HELD);
    let path = fed.daemon.path("web/replay.pcap");
    let bytes = fs::read(&path).unwrap();
    for count in [1, 24, 3000] {
        let output = run(tool("tail").arg("-c").arg(count.to_string()).arg(&path), 5).success();
        assert_eq!(output.stdout, bytes[bytes.len() - count..]);
    }
}

#[test]
fn tail_prints_the_end_of_a_stream_that_ends() {
    skip_unless!(mount);
    let mut fed = Fed::holding(HELD);
    let path = fed.daemon.path("web/follow.pcap");
    let mut tail = Running::spawn(tool("tail").args(["-c", "1000"]).arg(path));
    fed.daemon.wait_blocked(ALIAS, "follow.pcap", tail.pid());
    fed.send(10);
    fed.daemon.control(ALIAS, "stop").unwrap();
    assert!(tail.wait(5).success());
    let records = Fed::records(HELD + 10);
    assert_eq!(tail.stdout(), records[records.len() - 1000..]);
}

#[test]
fn tcpdump_reads_every_file() {
    skip_unless!(root, "tcpdump");
    let wired = Wired::start();
    let mut sender = wired.net.sender(200);
    wired.send(&mut sender, HELD);
    for (file, by_name) in [
        ("live.pcap", true),
        ("live.pcap", false),
        ("follow.pcap", true),
        ("follow.pcap", false),
        ("follow.pcapng", true),
    ] {
        let path = wired.daemon.path(ALIAS).join(file);
        let mut command = tool("tcpdump");
        command.args(["--time-stamp-precision=nano", "-U", "-w", "-", "-r"]);
        if by_name {
            command.arg(&path);
        } else {
            command.arg("-").stdin(File::open(&path).unwrap());
        }
        let stored = wired.daemon.count(ALIAS, "/packets/stored");
        let first = if file.starts_with("live") { stored + 1 } else { 1 };
        let tcpdump = Running::spawn(&mut command);
        if by_name {
            wired.daemon.wait_blocked(ALIAS, file, tcpdump.pid());
        }
        for last in [stored + 5, stored + 10] {
            wired.send(&mut sender, 5);
            tcpdump.wait_stdout(&format!("packet {last} of {file}"), 5, |bytes| {
                check_prefix(bytes).unwrap().seen.last == last
            });
        }
        let sequences = check_prefix(&tcpdump.stdout()).unwrap().whole();
        assert_eq!(sequences, numbers(first, stored + 10), "{file}");
    }
    let stored = wired.daemon.count(ALIAS, "/packets/stored");
    for file in ["replay.pcap", "replay.pcapng"] {
        let path = wired.daemon.path(ALIAS).join(file);
        let output = run(tool("tcpdump").args(["-nn", "-r"]).arg(&path), 5).success();
        assert_eq!(output.text().lines().count() as u64, stored, "{file}");
        let last = output.text().lines().last().unwrap();
        assert!(last.contains("10.77.0.9.40001: UDP, length 200"), "{file}: {last}");
    }
}

#[test]
fn tshark_reads_replay() {
    skip_unless!(mount, "tshark");
    let fed = Fed::holding(HELD);
    for file in ["replay.pcap", "replay.pcapng"] {
        let output = run(&mut tshark(&fed.daemon.path(ALIAS).join(file)), 20).success();
        assert_eq!(payload_numbers(&output.stdout), numbers(1, HELD), "{file}");
    }
}

#[test]
fn tshark_streams_live_and_follow() {
    skip_unless!(mount, "tshark");
    let mut fed = Fed::holding(HELD);
    let files = ["live.pcap", "live.pcapng", "follow.pcap", "follow.pcapng"];
    let readers = files.map(|file| {
        let tshark = Running::spawn(&mut tshark(&fed.daemon.path(ALIAS).join(file)));
        fed.daemon.wait_blocked(ALIAS, file, tshark.pid());
        tshark
    });
    for last in [HELD + 5, HELD + 10] {
        fed.send(5);
        for (tshark, file) in readers.iter().zip(files) {
            tshark.wait_stdout(&format!("packet {last} of {file}"), 10, |printed| {
                payload_numbers(printed).last() == Some(&last)
            });
        }
    }
    for (tshark, file) in readers.iter().zip(files) {
        let first = if file.starts_with("live") { HELD + 1 } else { 1 };
        assert_eq!(payload_numbers(&tshark.stdout()), numbers(first, HELD + 10), "{file}");
    }
}

#[test]
fn tshark_captures_from_a_file_as_standard_input() {
    skip_unless!(mount, "tshark", "dumpcap");
    let mut fed = Fed::holding(HELD);
    let files = ["follow.pcap", "follow.pcapng"];
    let readers = files.map(|file| {
        let input = File::open(fed.daemon.path(ALIAS).join(file)).unwrap();
        Running::spawn(
            tool("tshark")
                .args(["-n", "-l", "-i", "-", "-T", "fields", "-e", "udp.payload"])
                .stdin(Stdio::from(input)),
        )
    });
    for last in [HELD, HELD + 5, HELD + 10] {
        for (tshark, file) in readers.iter().zip(files) {
            tshark.wait_stdout(&format!("packet {last} of {file}"), 20, |printed| {
                payload_numbers(printed).last() == Some(&last)
            });
            assert_eq!(payload_numbers(&tshark.stdout()), numbers(1, last), "{file}");
        }
        fed.send(5);
    }
}

#[test]
fn capinfos_counts_replay() {
    skip_unless!(mount, "capinfos");
    let fed = Fed::holding(HELD);
    for (file, kind) in [("replay.pcap", "pcap"), ("replay.pcapng", "pcapng")] {
        let path = fed.daemon.path(ALIAS).join(file);
        let size = fs::metadata(&path).unwrap().len();
        let output = run(tool("capinfos").args(["-M", "-c", "-s", "-t"]).arg(&path), 10).success();
        let value = |name: &str| {
            let line = output.text().lines().find_map(|line| line.strip_prefix(name));
            line.unwrap_or_else(|| panic!("no {name} in {}", output.text())).trim().to_owned()
        };
        assert_eq!(value("Number of packets:"), HELD.to_string(), "{file}");
        assert_eq!(value("File size:").trim_end_matches(" bytes"), size.to_string(), "{file}");
        assert!(value("File type:").contains(kind), "{file}: {}", output.text());
    }
}

#[test]
fn cp_copies_replay_exactly() {
    skip_unless!(mount);
    let fed = Fed::holding(HELD);
    let folder = TempDir::new().unwrap();
    for file in ["replay.pcap", "replay.pcapng"] {
        let (from, to) = (fed.daemon.path(ALIAS).join(file), folder.path().join(file));
        let _ = run(tool("cp").arg(&from).arg(&to), 5).success();
        assert_eq!(fs::read(&to).unwrap(), fs::read(&from).unwrap(), "{file}");
        assert_eq!(check_prefix(&fs::read(&to).unwrap()).unwrap().whole(), numbers(1, HELD));
    }
}

#[test]
fn cp_copies_a_stream_that_ends() {
    skip_unless!(mount);
    let mut fed = Fed::holding(HELD);
    let folder = TempDir::new().unwrap();
    let copy = folder.path().join("copy");
    let mut cp = Running::spawn(tool("cp").arg(fed.daemon.path("web/follow.pcap")).arg(&copy));
    fed.daemon.wait_blocked(ALIAS, "follow.pcap", cp.pid());
    fed.send(10);
    fed.daemon.control(ALIAS, "stop").unwrap();
    assert!(cp.wait(5).success(), "{}", cp.stderr());
    assert_eq!(check_prefix(&fs::read(copy).unwrap()).unwrap().whole(), numbers(1, HELD + 10));
}

/// Files of a capture that can be copied: all but the endless streams and `ctl`.
const FINITE: [&str; 4] = ["replay.pcap", "replay.pcapng", "status.json", "readers.jsonl"];

/// Checks copies of [`FINITE`] that may have been made while the capture went on: each copy of a
/// replay file ends with a whole record and is a prefix of the file as it is now.
fn check_copies(daemon: &Daemon, copies: &Path, what: &str) {
    for file in ["replay.pcap", "replay.pcapng"] {
        let copy = fs::read(copies.join(file)).unwrap();
        let now = fs::read(daemon.path(ALIAS).join(file)).unwrap();
        let prefix = check_prefix(&copy).unwrap_or_else(|error| panic!("{what} {file}: {error}"));
        assert_eq!(prefix.rest, 0, "{what}: {file} ends in a record");
        assert!(prefix.seen.count > 0, "{what}: {file} is empty");
        assert!(now.starts_with(&copy), "{what}: the copy of {file} is none of its bytes");
    }
    let status = fs::read_to_string(copies.join("status.json")).unwrap();
    let status: serde_json::Value = serde_json::from_str(&status)
        .unwrap_or_else(|error| panic!("{what}: status.json: {error}: {status}"));
    assert_eq!(status["alias"], ALIAS);
    let readers = fs::read_to_string(copies.join("readers.jsonl")).unwrap();
    for line in readers.lines() {
        serde_json::from_str::<serde_json::Value>(line)
            .unwrap_or_else(|error| panic!("{what}: readers.jsonl: {error}: {line}"));
    }
}

/// Copies [`FINITE`] with `cp -r`, `tar` and `rsync -a` and checks the copies.
fn copy_with_each_tool(daemon: &Daemon, quiet: bool) {
    let source = daemon.path(ALIAS);
    let paths = FINITE.map(|file| source.join(file));

    let folder = TempDir::new().unwrap();
    let _ = run(tool("cp").arg("-r").args(&paths).arg(folder.path()), 20).success();
    check_copies(daemon, folder.path(), "cp -r");

    let folder = TempDir::new().unwrap();
    let archive = run(tool("tar").arg("-C").arg(&source).arg("-c").args(FINITE), 20);
    // tar compares times before and after. "changed" is correct for a growing file, "shrank" never
    // is.
    let changed = archive
        .stderr
        .lines()
        .filter(|line| line.contains("replay"))
        .all(|line| !quiet && line.ends_with("file changed as we read it"));
    assert!(changed && !archive.stderr.contains("shrank"), "tar: {}", archive.stderr);
    let packed = folder.path().join("archive.tar");
    fs::write(&packed, &archive.stdout).unwrap();
    let _ = run(tool("tar").arg("-C").arg(folder.path()).arg("-xf").arg(&packed), 20).success();
    check_copies(daemon, folder.path(), "tar");

    if let Err(lack) = pcapfs_tests::require::tool("rsync") {
        return pcapfs_tests::require::skip(&lack);
    }
    let folder = TempDir::new().unwrap();
    let _ = run(tool("rsync").arg("-a").args(&paths).arg(folder.path()), 20).success();
    check_copies(daemon, folder.path(), "rsync -a");
}

#[test]
fn copying_tools_copy_files_that_do_not_change() {
    skip_unless!(mount);
    let fed = Fed::holding(HELD);
    copy_with_each_tool(&fed.daemon, true);
}

#[test]
fn copying_tools_copy_growing_files() {
    skip_unless!(root);
    let wired = Wired::start();
    let mut sender = wired.net.sender(200);
    wired.send(&mut sender, HELD);
    let traffic = Traffic::start(sender, 5_000, 60_000);
    let before = traffic.sent();
    copy_with_each_tool(&wired.daemon, false);
    assert!(traffic.sent() > before, "there was no traffic");
}

#[test]
fn wc_counts_the_bytes() {
    skip_unless!(mount);
    let mut fed = Fed::holding(HELD);
    let size = 24 + HELD * Fed::RECORD;
    let count = |path: &Path| {
        let output = run(tool("wc").arg("-c").arg(path), 5).success();
        output.text().split(' ').next().unwrap().parse::<u64>().unwrap()
    };
    assert_eq!(count(&fed.daemon.path("web/replay.pcap")), size);
    let pcapng = fed.daemon.path("web/replay.pcapng");
    assert_eq!(count(&pcapng), fs::read(&pcapng).unwrap().len() as u64);

    let follow = fed.daemon.path("web/follow.pcap");
    let mut stream = Running::spawn(tool("wc").arg("-c").arg(follow));
    fed.daemon.wait_blocked(ALIAS, "follow.pcap", stream.pid());
    fed.send(10);
    fed.daemon.control(ALIAS, "stop").unwrap();
    assert!(stream.wait(5).success());
    let printed = String::from_utf8(stream.stdout()).unwrap();
    assert_eq!(printed.split(' ').next(), Some(&*(size + 10 * Fed::RECORD).to_string()));
}

#[test]
fn file_recognizes_savefiles() {
    skip_unless!(mount, "file");
    let fed = Fed::holding(HELD);
    for (file, kind) in [
        ("replay.pcap", "pcap capture file"),
        ("replay.pcapng", "pcapng capture file"),
        ("live.pcap", "empty"),
        ("follow.pcapng", "empty"),
        ("status.json", "JSON"),
    ] {
        let output = run(tool("file").arg("-b").arg(fed.daemon.path(ALIAS).join(file)), 5);
        let output = output.success();
        assert!(output.text().contains(kind), "{file}: {}", output.text());
    }
}

/// Waits in `poll`, `epoll` or `select`, chosen by its second argument, and never in `read`.
const WAITS_FOR_DATA: &str = r"
import errno, os, select, sys
fd = os.open(sys.argv[1], os.O_RDONLY | os.O_NONBLOCK)
def by_poll(ms):
    p = select.poll(); p.register(fd, select.POLLIN)
    return [event & select.POLLIN for _, event in p.poll(ms)]
epoll = select.epoll(); epoll.register(fd, select.EPOLLIN)
def by_epoll(ms):
    return [event & select.EPOLLIN for _, event in epoll.poll(ms / 1000)]
def by_select(ms):
    return [select.POLLIN for _ in select.select([fd], [], [], ms / 1000)[0]]
wait = {'poll': by_poll, 'epoll': by_epoll, 'select': by_select}[sys.argv[2]]
def drain():
    total = 0
    while True:
        try:
            data = os.read(fd, 4096)
        except BlockingIOError as error:
            assert error.errno == errno.EAGAIN
            return total, False
        if not data:
            return total, True
        total += len(data)
total, end = drain()
while not end:
    assert wait(0) == [], 'says there is something, but there was not'
    print('idle', total, flush=True)
    # One packet may come in two parts: until the wait is over there must be data, or the end.
    assert wait(10000) == [select.POLLIN], 'not woken'
    more, end = drain()
    assert more or end, 'woken for nothing'
    total += more
print('end', total, flush=True)
";

#[test]
fn python_waits_in_poll_epoll_and_select() {
    skip_unless!(mount, "python3");
    let mut fed = Fed::holding(HELD);
    let path = fed.daemon.path("web/live.pcap");
    let mut readers: Vec<_> = ["poll", "epoll", "select"]
        .map(|way| Running::spawn(python(WAITS_FOR_DATA).arg(&path).arg(way)))
        .into();
    for packets in 0..3 {
        let line = format!("idle {}\n", 24 + packets * Fed::RECORD);
        for reader in &readers {
            reader.wait_stdout(&line, 10, |bytes| bytes.ends_with(line.as_bytes()));
        }
        if packets < 2 {
            fed.send(1);
        }
    }
    fed.daemon.control(ALIAS, "stop").unwrap();
    for reader in &mut readers {
        assert!(reader.wait(5).success(), "{}", reader.stderr());
        let wanted = [0, 1, 2].map(|packets| format!("idle {}\n", 24 + packets * Fed::RECORD));
        let wanted = format!("{}end {}\n", wanted.concat(), 24 + 2 * Fed::RECORD);
        assert_eq!(String::from_utf8(reader.stdout()).unwrap(), wanted);
    }
}

#[test]
fn python_sends_streams_that_are_opened_for_direct_reading() {
    skip_unless!(mount, "python3");
    let fed = Fed::holding(10);
    fed.daemon.control(ALIAS, "stop").unwrap();
    fed.daemon.wait_state(ALIAS, "stopped");
    let program = r"
import os, sys
source = os.open(sys.argv[1], os.O_RDONLY | os.O_DIRECT)
while os.sendfile(1, source, None, 1 << 16):
    pass
";
    let path = fed.daemon.path("web/follow.pcap");
    // Into a pipe, as with splice(2).
    let output = run(python(program).arg(path), 10).success();
    assert_eq!(check_prefix(&output.stdout).unwrap().whole(), Vec::from_iter(1..=10));
}

#[test]
fn a_nonblocking_read_in_python_gets_eagain_without_packets() {
    skip_unless!(mount, "python3");
    let fed = Fed::holding(HELD);
    let program = r"
import os, sys
fd = os.open(sys.argv[1], os.O_RDONLY | os.O_NONBLOCK)
total = 0
try:
    while True: total += len(os.read(fd, 1000))
except BlockingIOError:
    print(total)
os.set_blocking(fd, True)
print('blocks', flush=True)
os.read(fd, 1)
";
    for (file, total) in [("live.pcap", 24), ("follow.pcap", 24 + HELD * Fed::RECORD)] {
        let path = fed.daemon.path(ALIAS).join(file);
        let mut reader = Running::spawn(python(program).arg(path));
        let wanted = format!("{total}\nblocks\n");
        reader.wait_stdout("that it blocks", 5, |bytes| bytes == wanted.as_bytes());
        fed.daemon.wait_blocked(ALIAS, file, reader.pid());
        reader.end_with(Signal::SIGKILL);
    }
}

#[test]
fn python_maps_files_with_its_defaults() {
    skip_unless!(mount, "python3");
    let fed = Fed::holding(HELD);
    // A shared mapping, which Linux before 6.6 does not allow for files opened for direct reading.
    let program = r"
import mmap, os, sys
release = os.uname().release.split('.')
for path in sys.argv[1:]:
    with open(path, 'rb') as file:
        try:
            with mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_READ) as mapped:
                print(mapped[:] == file.read())
        except OSError as error:
            print((int(release[0]), int(release[1])) < (6, 6) or error)
";
    let path = |file| fed.daemon.path(ALIAS).join(file);
    let files = ["replay.pcap", "replay.pcapng", "status.json"].map(path);
    let output = run(python(program).args(files), 10).success();
    assert_eq!(output.text(), "True\n".repeat(3));
}

#[test]
fn dumpcap_refuses_a_plain_file() {
    skip_unless!(mount, "dumpcap");
    let fed = Fed::holding(HELD);
    let output = run(tool("dumpcap").arg("-i").arg(fed.daemon.path("web/live.pcap")), 5);
    assert!(!output.status.success());
    assert!(
        output.stderr.contains("neither an interface nor a socket nor a pipe"),
        "dumpcap has learnt something: {}",
        output.stderr
    );
}
