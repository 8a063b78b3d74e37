//! The cost of one user's readers for others: a user who has large bodies decoded delays no other
//! user and can be stopped.

use std::fs::{self, File, OpenOptions};
use std::os::unix::fs::FileExt;
use std::path::{Path, PathBuf};
use std::process::Stdio;
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread;
use std::time::{Duration, Instant};

use nix::sys::signal::Signal;
use pcapfs_tests::coding::gzip;
use pcapfs_tests::conversation::{noise, savefile_of};
use pcapfs_tests::{
    ALIAS, Client, Conversation, Daemon, Fed, Feed, Fifo, Mount, Pace, Running, Server,
    StreamReader, run, skip_unless, tool,
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

    /// The 90th percentile of two times: of a stat call, and from a packet's arrival until a reader
    /// of `live.pcap` has it.
    fn latencies(&mut self) -> (Duration, Duration) {
        let live = self.daemon.path("web/live.pcap");
        let status = self.daemon.path("web/status.json");
        let reader = StreamReader::open(&live, Pace::FAST);
        let (mut looks, mut arrivals) = (Vec::new(), Vec::new());
        for _ in 0..40 {
            let begun = Instant::now();
            status.metadata().unwrap();
            looks.push(begun.elapsed());
            let begun = Instant::now();
            self.feed.send(1, 200);
            self.sent += 1;
            reader.wait_last(self.sent);
            arrivals.push(begun.elapsed());
        }
        (ninth_tenth(looks), ninth_tenth(arrivals))
    }
}

fn ninth_tenth(mut times: Vec<Duration>) -> Duration {
    times.sort();
    times[times.len() * 9 / 10]
}

/// Opens files in turn, again and again, from several threads, while `act` runs.
fn while_opened<T>(files: &[PathBuf], threads: usize, act: impl FnOnce() -> T) -> T {
    let stop = AtomicBool::new(false);
    let open = |at: usize| {
        let mut opened = 0;
        loop {
            File::open(&files[(at + opened) % files.len()]).unwrap();
            opened += 1;
            if stop.load(Ordering::Relaxed) {
                return opened;
            }
        }
    };
    thread::scope(|scope| {
        let openers: Vec<_> = (0..threads)
            .map(|at| {
                scope.spawn({
                    let open = &open;
                    move || open(at)
                })
            })
            .collect();
        let result = act();
        stop.store(true, Ordering::Relaxed);
        let opened: usize = openers.into_iter().map(|opener| opener.join().unwrap()).sum();
        eprintln!("opened {opened} times");
        result
    })
}

#[test]
fn readers_of_large_bodies_delay_nobody_else() {
    skip_unless!(mount, "python3");
    let mut scene = Scene::new();
    let (look, arrival) = scene.latencies();
    let mut files = scene.bodies.clone();
    // Opening `http.har` renders it, because its size must be known.
    files.extend(scene.bodies.iter().map(|body| body.with_file_name("../http.har")));
    let (loaded_look, loaded_arrival) = while_opened(&files, 6, || scene.latencies());
    eprintln!("look {look:?} -> {loaded_look:?}, arrival {arrival:?} -> {loaded_arrival:?}");
    // Decoding one body takes longer than this, and six would have to wait for each other.
    let most = |idle: Duration| 20 * idle + Duration::from_millis(100);
    assert!(loaded_look <= most(look), "{loaded_look:?} instead of {look:?}");
    assert!(loaded_arrival <= most(arrival), "{loaded_arrival:?} instead of {arrival:?}");
}

#[test]
fn who_waits_for_a_large_body_can_be_killed() {
    skip_unless!(mount, "python3");
    let scene = Scene::new();
    while_opened(&scene.bodies, 3, || {
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
    scene.latencies();
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
