//! Committed packets survive SIGKILL, another ring size, and damage to the file.

use std::collections::BTreeSet;
use std::fs::{self, OpenOptions};
use std::io::Write;
use std::os::unix::fs::FileExt;
use std::os::unix::process::ExitStatusExt;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::thread::{self, JoinHandle};

use nix::sys::signal::Signal;
use pcapfs_tests::savefile::{Format, Seen, append_numbered, check_prefix};
use pcapfs_tests::{
    ALIAS, Daemon, Emit, Fifo, Mount, Net, Pace, Refused, Running, StreamReader, Traffic, binary,
    is_mounted, skip_unless, tool, wait_until,
};
use serde_json::Value;
use tempfile::TempDir;

/// A ring folder that outlives daemons, and the FIFO from which they capture.
struct Kept {
    rings: TempDir,
    mounts: TempDir,
    fifo: Fifo,
}

impl Kept {
    fn new() -> Self {
        let folder = |parent: &Path| {
            tempfile::Builder::new().prefix("pcapfs-test-").tempdir_in(parent).unwrap()
        };
        let mounts = folder(&std::env::temp_dir());
        Self { rings: folder(Path::new("/dev/shm")), mounts, fifo: Fifo::new() }
    }

    fn ring(&self) -> PathBuf {
        self.rings.path().join("web.ring")
    }

    fn mount(&self, size: &str) -> Mount {
        Mount::new()
            .ring_dir(self.rings.path())
            .mountpoint(self.mounts.path())
            .ring(size)
            .capture(ALIAS, &self.fifo.source())
    }

    /// Runs a daemon that stores packets up to number `count`, after those already stored, and ends
    /// cleanly.
    #[track_caller]
    fn fill(&self, size: &str, count: u64, payload_length: usize) {
        let mut daemon = self.mount(size).start();
        let stored = daemon.count(ALIAS, "/packets/stored");
        let mut feed = self.fifo.connect().after(stored);
        feed.send(count - stored, payload_length);
        daemon.wait_stored(ALIAS, count);
        drop(feed);
        assert!(daemon.terminate().success(), "{}", daemon.stderr());
    }
}

/// The packet numbers in replay. Checks that the packets are whole, without a gap, and numbered as
/// in the ring.
#[track_caller]
fn replayed(daemon: &Daemon) -> Vec<u64> {
    let bytes = fs::read(daemon.path("web/replay.pcap")).unwrap();
    let numbers = check_prefix(&bytes).unwrap().whole();
    let status = daemon.status(ALIAS);
    equations(&status);
    let of = |pointer: &str| status.pointer(pointer).and_then(Value::as_u64).unwrap();
    assert_eq!(numbers.len() as u64, of("/packets/retained"), "{status:#}");
    if let (Some(first), Some(last)) = (numbers.first(), numbers.last()) {
        assert_eq!(*first, of("/ring/first_number"), "{status:#}");
        assert_eq!(*last + 1, of("/ring/next_number"), "{status:#}");
    }
    let bytes = fs::read(daemon.path("web/replay.pcapng")).unwrap();
    assert_eq!(check_prefix(&bytes).unwrap().whole(), numbers);
    numbers
}

#[track_caller]
fn equations(status: &Value) {
    let of = |pointer: &str| status.pointer(pointer).and_then(Value::as_u64).unwrap();
    let [seen, stored] = [of("/packets/seen"), of("/packets/stored")];
    let dropped =
        of("/packets/excluded") + of("/packets/dropped_kernel") + of("/packets/dropped_oversize");
    assert_eq!(seen, stored + dropped, "{status:#}");
    assert_eq!(stored, of("/packets/retained") + of("/packets/overwritten"), "{status:#}");
}

/// Writes numbered packets into a FIFO as fast as they are read, until its reader is gone.
struct Pump {
    thread: JoinHandle<()>,
    sent: Arc<AtomicU64>,
}

impl Pump {
    fn start(fifo: &Fifo, after: u64, payload_length: usize) -> Self {
        let sent = Arc::new(AtomicU64::new(after));
        let mut pipe = OpenOptions::new().write(true).open(fifo.path()).unwrap();
        let thread = thread::spawn({
            let sent = Arc::clone(&sent);
            move || {
                let mut bytes = Format::default().header();
                // A bound, so that the thread always ends. No daemon of these tests lives so long.
                for batch in 0..100_000 {
                    let next = after + batch * 64 + 1;
                    for sequence in next..next + 64 {
                        append_numbered(&mut bytes, Format::default(), sequence, payload_length);
                    }
                    if pipe.write_all(&bytes).is_err() {
                        return;
                    }
                    sent.store(next + 63, Ordering::Relaxed);
                    bytes.clear();
                }
            }
        });
        Self { thread, sent }
    }

    fn sent(&self) -> u64 {
        self.sent.load(Ordering::Relaxed)
    }

    fn finish(self) {
        self.thread.join().unwrap();
    }
}

/// Kills daemons in the middle of traffic from a FIFO, several times over the same ring.
fn killed_again_and_again(size: &str, payload_length: usize, step: u64, leave_mount: bool) {
    let kept = Kept::new();
    let mut daemon = kept.mount(size).start();
    let mut held: Vec<u64> = Vec::new();
    for round in 1..=6u64 {
        let begin = daemon.count(ALIAS, "/ring/next_number") - 1;
        let pump = Pump::start(&kept.fifo, begin, payload_length);
        let follow = StreamReader::open(&daemon.path("web/follow.pcap"), Pace::FAST);
        // Kill at a different position within a segment each time.
        let target = begin + step * round + 37 * round;
        wait_until("enough is stored", 20, || daemon.count(ALIAS, "/packets/stored") >= target);
        let bytes = fs::read(daemon.path("web/replay.pcap")).unwrap();
        // There may be gaps: the ring may wrap around while it is read.
        let before = check_prefix(&bytes).unwrap().seen;
        let told = daemon.status(ALIAS);
        let (stored, first) = (&told["packets"]["stored"], &told["ring"]["first_number"]);
        let (stored, first) = (stored.as_u64().unwrap(), first.as_u64().unwrap());
        let seen = follow.progress().seen;
        let moving = pump.sent();
        wait_until("traffic goes on", 10, || pump.sent() > moving);
        if leave_mount {
            daemon.crash();
            assert!(is_mounted(kept.mounts.path()), "what this test is about");
        } else {
            daemon.kill9();
            drop(daemon); // before the next one is mounted in its place
        }
        pump.finish();

        daemon = kept.mount(size).start();
        let after = replayed(&daemon);
        let what = format!("round {round}, killed after {stored}: {:?}..", after.first());
        let last = *after.last().expect("packets");
        assert!(last >= stored, "{what}: {last} is the last");
        assert!(last >= seen.last, "{what}: a reader had {}, {last} is the last", seen.last);
        assert!(last >= before.last, "{what}: replay had {before:?}");
        // The ring may have overwritten more packets by now, and never fewer.
        let oldest = *after.first().unwrap();
        assert!(oldest >= first, "{what}: overwritten packets are back");
        if told["packets"]["overwritten"] == 0 && daemon.count(ALIAS, "/packets/overwritten") == 0 {
            assert_eq!(oldest, 1, "{what}");
            assert_eq!(after[..held.len()], held, "{what}");
        }
        assert!(
            daemon.stderr().contains(&format!("{} packets", after.len())),
            "{}",
            daemon.stderr()
        );
        assert!(
            !daemon.stderr().contains("damaged"),
            "a kill damages nothing: {}",
            daemon.stderr()
        );
        held = after;
    }
    let mut feed = kept.fifo.connect().after(*held.last().unwrap());
    feed.send(50, 200);
    let last = held.last().unwrap() + 50;
    wait_until("new packets are stored after it", 10, || {
        daemon.count(ALIAS, "/ring/next_number") == last + 1
    });
    assert_eq!(*replayed(&daemon).last().unwrap(), last);
}

#[test]
fn a_kill_in_the_middle_of_a_stream_loses_nothing_committed() {
    skip_unless!(mount);
    killed_again_and_again("64M", 200, 2_000, false);
}

#[test]
fn a_kill_while_the_ring_goes_round_loses_nothing_committed() {
    skip_unless!(mount);
    killed_again_and_again("1M", 700, 5_000, false);
}

#[test]
fn a_dead_mount_is_cleared_away_by_the_next_daemon() {
    skip_unless!(mount);
    killed_again_and_again("512K", 1_400, 1_000, true);
}

#[test]
fn a_kill_in_the_middle_of_traffic_on_a_wire_loses_nothing_committed() {
    skip_unless!(root);
    let (kept, net) = (Kept::new(), Net::new());
    let start = || {
        let daemon = Mount::new()
            .ring_dir(kept.rings.path())
            .mountpoint(kept.mounts.path())
            .inside(&net.a)
            .capture(ALIAS, Net::DEVICE)
            .start();
        daemon.wait_state(ALIAS, "running");
        daemon
    };
    let mut daemon = start();
    let traffic = Traffic::start(net.sender(300), 15_000, 200_000);
    let mut known = BTreeSet::new();
    let mut kills = 0;
    let mut dropped = 0;
    // The kernel may drop packets on a busy machine. It reports that, though a moment later.
    let explained = |daemon: &Daemon, seen: &Seen, kills: u64, dropped: u64| {
        wait_until(&format!("gaps without a daemon, or drops: {seen:?}, {kills} kills"), 5, || {
            seen.gaps <= kills || dropped + daemon.count(ALIAS, "/packets/dropped_kernel") > 0
        });
    };
    for _ in 0..4 {
        let begin = daemon.count(ALIAS, "/packets/stored");
        wait_until("more is stored", 10, || {
            daemon.count(ALIAS, "/packets/stored") >= begin + 3_000
        });
        let stored = daemon.count(ALIAS, "/packets/stored");
        let bytes = fs::read(daemon.path("web/replay.pcap")).unwrap();
        let prefix = check_prefix(&bytes).unwrap();
        explained(&daemon, &prefix.seen, kills, dropped);
        let before = prefix.sequences;
        dropped += daemon.count(ALIAS, "/packets/dropped_kernel");
        daemon.kill9();
        drop(daemon); // before the next one is mounted in its place
        kills += 1;
        let next = start();
        let bytes = fs::read(next.path("web/replay.pcap")).unwrap();
        let prefix = check_prefix(&bytes).unwrap();
        assert_eq!(prefix.rest, 0);
        assert!(prefix.seen.count >= stored, "{stored} were stored: {:?}", prefix.seen);
        explained(&next, &prefix.seen, kills, dropped);
        known.extend(before);
        let after = BTreeSet::from_iter(prefix.sequences);
        let lost: Vec<_> = known.difference(&after).take(5).collect();
        assert!(lost.is_empty(), "{lost:?} and maybe more were there before the kill");
        equations(&next.status(ALIAS));
        daemon = next;
    }
    let stored = daemon.count(ALIAS, "/packets/stored");
    // Send one more packet now that the wire is quiet: the last one may have been sent while no
    // daemon was running.
    let mut sender = traffic.stop();
    sender.send(1);
    let sent = sender.emitted();
    wait_until("the last packet is there", 10, || {
        let bytes = fs::read(daemon.path("web/replay.pcap")).unwrap();
        check_prefix(&bytes).unwrap().seen.last == sent
    });
    assert!(daemon.count(ALIAS, "/packets/stored") >= stored);
    equations(&daemon.status(ALIAS));
}

#[test]
fn a_clean_end_keeps_the_ring_too() {
    skip_unless!(mount);
    let kept = Kept::new();
    for round in 1..=4 {
        kept.fill("8M", round * 500, 200);
        let daemon = kept.mount("8M").start();
        assert_eq!(replayed(&daemon), Vec::from_iter(1..=round * 500));
        // Retained packets can be read, whether traffic goes on or not.
        let follow = StreamReader::open(&daemon.path("web/follow.pcap"), Pace::FAST);
        assert_eq!(follow.wait_last(round * 500).seen.first, 1);
    }
}

#[test]
fn cleared_packets_do_not_come_back() {
    skip_unless!(mount);
    let kept = Kept::new();
    kept.fill("8M", 100, 200);
    let mut daemon = kept.mount("8M").start();
    daemon.control(ALIAS, "clear").unwrap();
    wait_until("the ring is empty", 5, || daemon.count(ALIAS, "/packets/retained") == 0);
    daemon.kill9();
    drop(daemon);
    let daemon = kept.mount("8M").start();
    assert_eq!(replayed(&daemon), [] as [u64; 0]);
    assert_eq!(daemon.count(ALIAS, "/ring/next_number"), 101, "numbering goes on");
    let mut feed = kept.fifo.connect().after(100);
    feed.send(10, 200);
    daemon.wait_stored(ALIAS, 110);
    assert_eq!(replayed(&daemon), Vec::from_iter(101..=110));
}

#[test]
fn a_ring_of_another_size_keeps_its_packets_as_far_as_they_fit() {
    skip_unless!(mount);
    let kept = Kept::new();
    kept.fill("4M", 5_000, 300);
    for (size, all) in [("16M", true), ("2M", true), ("1M", false), ("64M", false)] {
        let daemon = kept.mount(size).start();
        let numbers = replayed(&daemon);
        assert_eq!(numbers.last(), Some(&5_000), "{size}");
        assert_eq!(numbers.first() == Some(&1), all, "{size}: {:?}", numbers.first());
        assert_eq!(daemon.count(ALIAS, "/packets/stored"), 5_000, "{size}");
        // The newest packets, and most of those that fit.
        assert!(numbers.len() >= 2_000, "{size}: {}", numbers.len());
        let files = fs::read_dir(kept.rings.path()).unwrap().count();
        assert_eq!(files, 1, "one ring file and nothing beside it");
    }
    kept.fill("64M", 5_100, 300);
    let daemon = kept.mount("512K").start();
    assert_eq!(replayed(&daemon).last(), Some(&5_100));
}

impl Kept {
    /// Starts a daemon that is killed when it is about to make system call `call` on a file of the
    /// ring for the `count`th time. Returns false if it got ready first; then it is killed too.
    fn killed_at(&self, size: &str, call: &str, count: u32) -> bool {
        let ring = self.rings.path().join("web.ring");
        let mut daemon = Running::spawn(
            tool("strace")
                // The tracer is not the parent, so the child of this process is the daemon.
                .args(["-D", "-f", "-o", "/dev/null", "-P"])
                .arg(&ring)
                .arg("-P")
                .arg(ring.with_extension("ring.new"))
                .args(["-e", &format!("inject={call}:signal=KILL:when={count}"), "--"])
                .arg(binary("pcapfs"))
                .arg("mount")
                .arg(self.mounts.path())
                .arg("--ring-dir")
                .arg(self.rings.path())
                .args(["--ring", size, "-c", &format!("web={}", self.fifo.source())]),
        );
        wait_until("it is killed or ready", 30, || {
            daemon.try_wait().is_some() || daemon.stderr().contains("ready at")
        });
        let is_ready = daemon.try_wait().is_none();
        if is_ready {
            daemon.signal(Signal::SIGKILL);
        }
        let status = daemon.wait(5);
        assert_eq!(status.signal(), Some(libc::SIGKILL), "{status}: {}", daemon.stderr());
        assert!(!daemon.stderr().contains("damaged"), "{}", daemon.stderr());
        !is_ready
    }

    fn files(&self) -> Vec<String> {
        let entries = fs::read_dir(self.rings.path()).unwrap();
        entries.map(|entry| entry.unwrap().file_name().into_string().unwrap()).collect()
    }
}

impl Drop for Kept {
    /// A daemon of [`Kept::killed_at`] may leave a dead mount.
    fn drop(&mut self) {
        if is_mounted(self.mounts.path()) {
            let _ = tool("umount").arg("-l").arg(self.mounts.path()).status();
        }
    }
}

/// The system calls with which a daemon takes over a ring file, and replaces it by one of another
/// size.
const STEPS: [&str; 9] =
    ["openat", "flock", "unlink", "mmap", "fallocate", "fchmod", "ftruncate", "rename", "close"];

#[test]
fn a_kill_at_any_step_of_making_a_ring_or_changing_its_size_costs_no_packet() {
    // A traced fusermount3 would have no rights to mount.
    skip_unless!(root, "strace");
    let kept = Kept::new();
    kept.fill("4M", 3_000, 300);
    // Each time that a daemon gets ready, the ring changes its size; the next ones change it back.
    let mut sizes = ["8M", "4M"].iter().cycle();
    for call in STEPS {
        let size = sizes.next().unwrap();
        let count = (1..).take_while(|count| kept.killed_at(size, call, *count)).count();
        eprintln!("{call}: killed at {count} places");
        assert!(count > 0, "no {call} of a ring file any more: the list of steps is out of date");
    }
    let daemon = kept.mount("8M").start();
    assert_eq!(replayed(&daemon), Vec::from_iter(1..=3_000));
    assert!(!daemon.stderr().contains("damaged"), "{}", daemon.stderr());
}

#[test]
fn a_ring_half_made_by_a_daemon_that_was_killed_is_cleared_away() {
    skip_unless!(root, "strace");
    let kept = Kept::new();
    kept.fill("64M", 20_000, 1_400);
    // The new ring lies beside the old one until it takes its name.
    assert!(kept.killed_at("32M", "rename", 1), "the daemon makes no new ring");
    assert_eq!(kept.files().len(), 2, "{:?}", kept.files());
    let daemon = kept.mount("64M").start();
    assert_eq!(replayed(&daemon), Vec::from_iter(1..=20_000));
    assert_eq!(kept.files(), ["web.ring"], "the unfinished ring is still there");
}

// Damage to the file.

/// Starts a daemon over a damaged ring. It refuses the ring or uses what is whole. Returns whether
/// it started.
#[track_caller]
fn damaged(kept: &Kept, what: &str, intact: &[u64]) -> bool {
    let daemon = match kept.mount("1M").try_start() {
        Ok(daemon) => daemon,
        Err(refused) => {
            let Refused { status, stderr, left_mounted } = refused;
            assert_eq!(status.code(), Some(1), "{what}: {status}: {stderr}");
            let line = stderr.strip_suffix('\n').unwrap_or(&stderr);
            assert!(line.starts_with("pcapfs: ") && !line.contains('\n'), "{what}: {stderr}");
            assert!(line.contains("web.ring"), "{what}: {line}");
            assert!(!left_mounted, "{what}");
            return false;
        }
    };
    let bytes = fs::read(daemon.path("web/replay.pcap")).unwrap();
    let prefix = check_prefix(&bytes).unwrap_or_else(|error| panic!("{what}: {error}"));
    let numbers = prefix.whole();
    equations(&daemon.status(ALIAS));
    let said = daemon.stderr();
    if numbers != intact {
        assert!(said.contains("damaged"), "{what}: {} of them, {said}", numbers.len());
        let run = numbers.first().is_none_or(|first| intact.contains(first))
            && numbers.last().is_none_or(|last| intact.contains(last));
        assert!(run, "{what}: {:?} to {:?}", numbers.first(), numbers.last());
    }
    // It also stores new packets, after the recovered ones.
    let stored = daemon.count(ALIAS, "/packets/stored");
    let begin = intact.last().copied().unwrap_or(0).max(numbers.last().copied().unwrap_or(0));
    let mut feed = kept.fifo.connect().after(begin);
    feed.send(5, 200);
    daemon.wait_stored(ALIAS, stored + 5);
    let bytes = fs::read(daemon.path("web/replay.pcap")).unwrap();
    let after = check_prefix(&bytes).unwrap_or_else(|error| panic!("{what}: {error}"));
    assert_eq!(after.seen.last, begin + 5, "{what}");
    equations(&daemon.status(ALIAS));
    true
}

/// A ring of 1 MiB that has wrapped around, its bytes, and the packets in it.
fn gone_round() -> (Kept, Vec<u8>, Vec<u64>) {
    let kept = Kept::new();
    kept.fill("1M", 3_000, 700);
    let mut daemon = kept.mount("1M").start();
    let intact = replayed(&daemon);
    assert!(intact[0] > 1, "it has not gone round");
    assert!(daemon.terminate().success());
    let bytes = fs::read(kept.ring()).unwrap();
    (kept, bytes, intact)
}

#[test]
fn a_ring_file_cut_anywhere_is_refused_or_used_as_far_as_it_is_whole() {
    skip_unless!(mount);
    let (kept, bytes, intact) = gone_round();
    let whole = bytes.len();
    let cuts =
        [1, 8, 100, 4_095, 4_096, 4_100, 8_192, whole / 3, whole / 2, whole - 4_096, whole - 1];
    for length in cuts {
        fs::write(kept.ring(), &bytes[..length]).unwrap();
        damaged(&kept, &format!("cut to {length} bytes"), &intact);
    }
    // Longer than its header says.
    fs::write(kept.ring(), [&bytes[..], &[0x55; 5_000]].concat()).unwrap();
    damaged(&kept, "with 5000 bytes more", &intact);
    // An empty file cannot be distinguished from a new ring.
    fs::write(kept.ring(), b"").unwrap();
    if let Ok(daemon) = kept.mount("1M").try_start() {
        assert_eq!(replayed(&daemon), [] as [u64; 0]);
    }
}

#[test]
fn a_ring_file_with_its_header_zeroed_is_refused_or_used_as_far_as_it_is_whole() {
    skip_unless!(mount);
    let (kept, bytes, intact) = gone_round();
    for (begin, end) in
        [(0, 8), (0, 64), (0, 4_096), (4_096, 4_096 + 128), (4_096, 8_192), (0, 8_192)]
    {
        let mut torn = bytes.clone();
        torn[begin..end].fill(0);
        fs::write(kept.ring(), &torn).unwrap();
        damaged(&kept, &format!("zeros from {begin} to {end}"), &intact);
        torn[begin..end].fill(0xff);
        fs::write(kept.ring(), &torn).unwrap();
        damaged(&kept, &format!("ones from {begin} to {end}"), &intact);
    }
    let noise = |at: usize| at.wrapping_mul(2_654_435_761).to_le_bytes()[2];
    let noise: Vec<u8> = (0..bytes.len()).map(noise).collect();
    fs::write(kept.ring(), noise).unwrap();
    assert!(!damaged(&kept, "noise", &[]), "noise is taken for a ring");
}

/// Flips one bit at each of these offsets in turn.
fn flipped(offsets: impl Fn(usize) -> Vec<usize>) {
    let (kept, bytes, intact) = gone_round();
    let mut used = 0;
    for (turn, at) in offsets(bytes.len()).into_iter().enumerate() {
        let mut torn = bytes.clone();
        torn[at] ^= 1 << (turn % 8);
        fs::write(kept.ring(), &torn).unwrap();
        let what = format!("bit {} of byte {at}", turn % 8);
        used += u32::from(damaged(&kept, &what, &intact));
    }
    assert!(used > 0, "none of them was of any use");
}

#[test]
fn flipped_bits_in_the_file_header_do_no_harm() {
    skip_unless!(mount);
    flipped(|_| (0..160).step_by(5).collect());
}

#[test]
fn flipped_bits_in_the_segment_headers_do_no_harm() {
    skip_unless!(mount);
    // Reaches every field of some slot: a slot has 128 bytes, and the step does not divide 128.
    flipped(|_| (4_096..4_096 + 17 * 128).step_by(67).collect());
}

#[test]
fn flipped_bits_in_the_bodies_do_no_harm() {
    skip_unless!(mount);
    flipped(|length| (8_192..length).step_by((length - 8_192) / 30).collect());
}

#[test]
fn a_folder_or_a_pipe_in_the_place_of_a_ring_is_refused() {
    skip_unless!(mount);
    let kept = Kept::new();
    fs::create_dir(kept.ring()).unwrap();
    let refused = kept.mount("1M").try_start().expect_err("a folder");
    assert_eq!(refused.status.code(), Some(1), "{refused:?}");
    assert!(refused.stderr.contains("web.ring"), "{refused:?}");
    fs::remove_dir(kept.ring()).unwrap();
    nix::unistd::mkfifo(&kept.ring(), nix::sys::stat::Mode::from_bits_truncate(0o600)).unwrap();
    let refused = kept.mount("1M").try_start().expect_err("a pipe");
    assert_eq!(refused.status.code(), Some(1), "{refused:?}");
    assert!(refused.stderr.contains("web.ring"), "{refused:?}");
    fs::remove_file(kept.ring()).expect("whatever is there stays there");
    // Another program's file is not overwritten.
    fs::write(kept.ring(), b"a user's only copy").unwrap();
    let refused = kept.mount("1M").try_start().expect_err("a text");
    assert!(refused.stderr.contains("delete"), "what to do: {refused:?}");
    assert_eq!(fs::read(kept.ring()).unwrap(), b"a user's only copy");
}

#[test]
fn a_ring_of_another_link_type_is_refused_and_kept() {
    skip_unless!(root);
    let kept = Kept::new();
    kept.fill("1M", 100, 200);
    let before = fs::read(kept.ring()).unwrap();
    let mount = Mount::new().ring_dir(kept.rings.path()).mountpoint(kept.mounts.path()).ring("1M");
    let refused = mount.capture(ALIAS, "any").try_start().expect_err("another link type");
    assert_eq!(refused.status.code(), Some(1), "{refused:?}");
    for part in ["web.ring", "EN10MB", "LINUX_SLL2", "delete"] {
        assert!(refused.stderr.contains(part), "{part}: {}", refused.stderr);
    }
    let mut after = vec![0; before.len()];
    fs::File::open(kept.ring()).unwrap().read_exact_at(&mut after, 0).unwrap();
    assert!(before == after, "the ring was changed");
    let daemon = kept.mount("1M").start();
    assert_eq!(replayed(&daemon), Vec::from_iter(1..=100));
}
