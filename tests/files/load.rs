//! The cost of one user's readers for others: a user who has large bodies decoded delays no other
//! user and can be stopped.

use std::fs::{self, File, OpenOptions};
use std::os::unix::fs::FileExt;
use std::path::{Path, PathBuf};
use std::process::Stdio;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::thread;
use std::time::Duration;

use nix::sys::signal::Signal;
use pcapfs_tests::coding::gzip;
use pcapfs_tests::conversation::{noise, savefile_of};
use pcapfs_tests::{
    ALIAS, Client, Conversation, Daemon, Fed, Feed, Fifo, Mount, Pace, Running, Server,
    StreamReader, run, skip_unless, tool, wait_until,
};
use tempfile::TempDir;

/// Decoded size of each large body, in bytes.
const LARGE: usize = 12 << 20;

/// A capture with two flows, each with a large body, and another capture that is live.
struct Scene {
    daemon: Daemon,
    bodies: Vec<PathBuf>,
    feed: Feed,
    sent: u64,
    _fifo: Fifo,
    _folder: TempDir,
}

impl Scene {
    #[track_caller]
    fn new() -> Self {
        let body = gzip(&noise(1, 20_000).repeat(LARGE / 20_000));
        let answer = |client: &str| {
            let mut one = Conversation::tcp(client, "10.0.0.1:80");
            one.open().says(Client, "GET /large HTTP/1.1\r\nHost: large.example\r\n\r\n");
            let length = body.len();
            let head = format!("Content-Encoding: gzip\r\nContent-Length: {length}\r\n\r\n");
            one.says(Server, format!("HTTP/1.1 200 OK\r\n{head}")).says(Server, &body);
            one.close(Client);
            one
        };
        let folder = tempfile::tempdir().unwrap();
        let file = folder.path().join("large.pcap");
        fs::write(&file, savefile_of([answer("10.1.0.1:1000"), answer("10.1.0.2:1000")])).unwrap();
        let fifo = Fifo::new();
        let daemon = Mount::new()
            .capture("large", &format!("file:{}", file.display()))
            .capture(ALIAS, &fifo.source())
            .lifetime(Duration::from_secs(240))
            .start();
        let feed = fifo.connect();
        daemon.wait_state(ALIAS, "running");
        daemon.wait_state("large", "ended");
        let large = daemon.path("large/flows");
        let flows = fs::read_dir(large).unwrap().map(|entry| entry.unwrap().path());
        let first = |folder: PathBuf| fs::read_dir(folder).unwrap().next().unwrap().unwrap().path();
        let bodies = flows.map(|flow| first(flow.join("bodies"))).collect();
        Self { daemon, bodies, feed, sent: 0, _fifo: fifo, _folder: folder }
    }

    /// Has the tree answer a stat call and deliver a packet of the other capture, 40 times each.
    /// Returns the 90th percentile of how much `work` was done during one of either.
    fn work_during_answers(&mut self, work: &AtomicUsize) -> (usize, usize) {
        let live = self.daemon.path("web/live.pcap");
        let status = self.daemon.path("web/status.json");
        let reader = StreamReader::open(&live, Pace::FAST);
        let during = |act: &mut dyn FnMut()| {
            let before = work.load(Ordering::Relaxed);
            act();
            work.load(Ordering::Relaxed) - before
        };
        let (mut looks, mut arrivals) = (Vec::new(), Vec::new());
        for _ in 0..40 {
            looks.push(during(&mut || {
                let _ = status.metadata().unwrap();
            }));
            self.sent += 1;
            arrivals.push(during(&mut || {
                self.feed.send(1, 200);
                reader.wait_last(self.sent);
            }));
        }
        (ninth_tenth(looks), ninth_tenth(arrivals))
    }
}

fn ninth_tenth(mut numbers: Vec<usize>) -> usize {
    numbers.sort_unstable();
    numbers[numbers.len() * 9 / 10]
}

/// Opens files in turn, again and again, from several threads, while `act` runs. `act` gets the
/// number of bodies opened so far.
fn while_opened<T>(files: &[PathBuf], threads: usize, act: impl FnOnce(&AtomicUsize) -> T) -> T {
    let stop = AtomicBool::new(false);
    let bodies = AtomicUsize::new(0);
    let open = |at: usize| {
        for file in files.iter().cycle().skip(at) {
            File::open(file).unwrap();
            if !file.ends_with("http.har") {
                bodies.fetch_add(1, Ordering::Relaxed);
            }
            if stop.load(Ordering::Relaxed) {
                return;
            }
        }
    };
    thread::scope(|scope| {
        for at in 0..threads {
            let open = &open;
            scope.spawn(move || open(at));
        }
        // The openers end if `act` panics too.
        let _stop = SetOnDrop(&stop);
        act(&bodies)
    })
}

struct SetOnDrop<'a>(&'a AtomicBool);

impl Drop for SetOnDrop<'_> {
    fn drop(&mut self) {
        self.0.store(true, Ordering::Relaxed);
    }
}

/// Counted in work, not in time: an answer that waits for the bodies of the other capture waits for
/// several of them, since the six openers are always ahead of it, however fast the machine is.
#[test]
fn readers_of_large_bodies_delay_no_other_reader() {
    skip_unless!(mount, "python3");
    let mut scene = Scene::new();
    let mut files = scene.bodies.clone();
    // Opening `http.har` renders it, because its size must be known.
    files.extend(scene.bodies.iter().map(|body| body.with_file_name("../http.har")));
    while_opened(&files, 6, |bodies| {
        wait_until("bodies are opened", 60, || bodies.load(Ordering::Relaxed) >= 4);
        let (look, arrival) = scene.work_during_answers(bodies);
        eprintln!("{look} bodies opened during a stat, {arrival} until a packet arrived");
        assert!(look <= 1, "a stat waits for {look} bodies");
        assert!(arrival <= 1, "a packet waits for {arrival} bodies");
    });
}

#[test]
fn who_waits_for_a_large_body_can_be_killed() {
    skip_unless!(mount, "python3");
    let scene = Scene::new();
    while_opened(&scene.bodies, 3, |_| {
        for signal in [Signal::SIGKILL, Signal::SIGTERM] {
            for body in &scene.bodies {
                let mut cats: Vec<_> = (0..4)
                    .map(|_| Running::spawn(tool("cat").arg(body).stdout(Stdio::null())))
                    .collect();
                for cat in &mut cats {
                    let time = cat.end_with(signal);
                    assert!(time < Duration::from_secs(2), "it outlives {signal} by {time:?}");
                }
            }
        }
    });
    let whole = fs::read(&scene.bodies[0]).unwrap();
    assert_eq!(whole.len(), LARGE / 20_000 * 20_000, "and the next one has all of it");
}

#[test]
fn the_daemon_ends_while_bodies_are_decoded() {
    skip_unless!(mount, "python3");
    let mut scene = Scene::new();
    let path = scene.bodies[0].clone();
    let openers: Vec<_> = (0..3)
        .map(|_| Running::spawn(tool("sh").arg("-c").arg("while : <\"$0\"; do :; done").arg(&path)))
        .collect();
    scene.work_during_answers(&AtomicUsize::new(0));
    assert!(scene.daemon.terminate().success());
    drop(openers);
}

/// Flips bits in a ring's segment headers while the ring is in use.
fn flip_bits(ring: &Path, random: &mut u64) {
    // Headers of 128 bytes each, after the page of the file header.
    const HEADERS: std::ops::Range<u64> = 4_096..4_096 + 128 * 72;
    let file = OpenOptions::new().read(true).write(true).open(ring).unwrap();
    for _ in 0..20 {
        // xorshift64
        *random ^= *random << 13;
        *random ^= *random >> 7;
        *random ^= *random << 17;
        let place = HEADERS.start + *random % (HEADERS.end - HEADERS.start);
        let mut byte = [0];
        file.read_exact_at(&mut byte, place).unwrap();
        byte[0] ^= 1 << (*random >> 32 & 7);
        file.write_all_at(&byte, place).unwrap();
    }
}

#[test]
fn a_daemon_whose_ring_is_written_to_by_another_answers_and_ends() {
    skip_unless!(mount);
    for seed in [1, 7] {
        let mut fed = Fed::with(Mount::new().ring("4M"));
        let ring = fed.daemon.ring_dir().join("web.ring");
        let mut random = seed;
        let mut readers: Vec<_> = ["follow.pcap", "follow.pcapng", "live.pcap"]
            .map(|file| fed.daemon.path(ALIAS).join(file))
            .map(|path| Running::spawn(tool("cat").arg(path).stdout(Stdio::null())))
            .into();
        for _ in 0..30 {
            fed.feed.send(500, 200);
            flip_bits(&ring, &mut random);
            let path = fed.daemon.path("web/replay.pcap");
            readers.push(Running::spawn(tool("cat").arg(path).stdout(Stdio::null())));
        }
        let looked = run(tool("ls").arg(fed.daemon.path(ALIAS)), 10);
        assert!(looked.text().contains("status.json"), "{looked:?}");
        fed.daemon.signal(Signal::SIGTERM);
        let ended = fed.daemon.wait_exit(Duration::from_secs(10));
        assert!(ended.is_some(), "it has not ended: {}", fed.daemon.stderr());
        drop(readers);
    }
}
