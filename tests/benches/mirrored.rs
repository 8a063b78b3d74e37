//! Following a capture over TLS on loopback: CPU of both daemons, latency, and many captures.

use std::fs::{self, File};
use std::io::{Read, Write as _};
use std::path::PathBuf;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::thread;
use std::time::{Duration, Instant};

use pcapfs_tests::{ALIAS, Daemon, Mount, Net, binary, measure, run, tool, wait_until};
use tempfile::TempDir;

use crate::Effort;
use crate::cores;
use crate::load::{Noise, Watch};
use crate::memory::mebibytes;
use crate::report::Section;
use crate::sample::Sample;
use crate::walker::Walker;

const RATE: u64 = 100_000;
const SECONDS: u64 = 10;
/// Bytes of a frame.
const LENGTH: usize = 1400;

/// Number of captures that one daemon follows.
const FLEET: usize = 200;

/// A far daemon that captures on the wire, with the service on loopback beside it.
struct Far {
    net: Net,
    folder: TempDir,
    daemon: Daemon,
}

impl Far {
    fn start() -> Self {
        let net = Net::new();
        let folder = tempfile::tempdir().expect("a folder for the benchmark");
        let path = |name: &str| folder.path().join(name);
        let identity = path("identity").display().to_string();
        let pem = path("near.pem").display().to_string();
        let pcapfs = |words: &[&str]| {
            let mut command = tool(binary("pcapfs").to_str().expect("a path in text"));
            let _ = run(command.args(words).env("XDG_CONFIG_HOME", path("config")), 20).success();
        };
        pcapfs(&["identity", "init", "--name", "127.0.0.1", "--dir", &identity]);
        pcapfs(&["identity", "issue", "near", "--dir", &identity, "-o", &pem]);
        pcapfs(&["remote", "add", "far", "pcap://127.0.0.1", "--identity", &pem]);
        let config = format!(
            "[remote]\nlisten = \"127.0.0.1\"\nidentity = \"{identity}\"\n\
             [[remote.client]]\nname = \"near\"\nuser = \"root\"\n\
             [[capture]]\nalias = \"{ALIAS}\"\nsource = \"{}\"\n",
            Net::DEVICE
        );
        fs::write(path("pcapfs.toml"), config).expect("our own folder");
        let mount = Mount::new().inside(&net.a).arg("--config").arg(path("pcapfs.toml"));
        let daemon = mount.lifetime(Duration::from_secs(600)).start();
        daemon.wait_state(ALIAS, "running");
        Self { net, folder, daemon }
    }

    /// Where the near daemon finds its remotes.
    fn config(&self) -> PathBuf {
        self.folder.path().join("config")
    }

    /// A near daemon, without captures yet.
    fn near(&self) -> Mount {
        let mount = Mount::new().inside(&self.net.a).env("XDG_CONFIG_HOME", self.config());
        mount.lifetime(Duration::from_secs(600))
    }

    /// A near daemon that follows the capture.
    fn mirror(&self) -> Daemon {
        let near = self.near().capture(ALIAS, &format!("remote:far/{ALIAS}")).start();
        near.wait_state(ALIAS, "running");
        near
    }

    fn generate(&self) {
        let mut packet = tempfile::NamedTempFile::new().expect("a file for trafgen");
        // An Ethernet type to which the kernel has no handler.
        let fill = LENGTH - 14;
        writeln!(packet, "{{ 2,0,0,0,0,0x99, 2,0,0,0,0,1, 0x88,0xb5, fill(0x2a, {fill}) }}")
            .expect("a file for trafgen");
        let mut command = tool("trafgen");
        let number = (RATE * SECONDS).to_string();
        command.args(["--no-sock-mem", "--cpus", "1", "--num", &number]);
        command.args(["--rate", &format!("{RATE}pps"), "--dev", Net::PEER, "--conf"]);
        command.arg(packet.path());
        let finished = cores::on(cores::GENERATOR, || self.net.b.run(|| run(&mut command, 60)));
        let _ = finished.success();
    }
}

pub(crate) fn throughput(effort: Effort) -> Section {
    let mut section = Section::new(
        "Following a capture of 100,000 packets/s of 1,400 bytes over TLS on loopback",
        &["work", "stored", "lost", "CPU us/packet", "packets/s"],
    );
    let (mut noise, mut alone, mut both) = (Noise::default(), Sample::default(), Sample::default());
    let mut lost_in_all = 0;
    for _ in 0..effort.rounds {
        for with_mirror in [false, true] {
            let far = Far::start();
            let near = with_mirror.then(|| far.mirror());
            let watch = Watch::when_quiet();
            let used = || {
                let near = near.as_ref().map(|near| measure::cpu_time(near.pid()));
                measure::cpu_time(far.daemon.pid()) + near.unwrap_or_default()
            };
            let (before, begin) = (used(), Instant::now());
            far.generate();
            let elapsed = begin.elapsed();
            let stored = far.daemon.count(ALIAS, "/packets/stored");
            let mut lost = far.daemon.count(ALIAS, "/packets/dropped_kernel");
            if let Some(near) = &near {
                let seen = || near.count(ALIAS, "/packets/seen");
                wait_until("all have come", 30, || {
                    seen() >= far.daemon.count(ALIAS, "/packets/stored")
                });
                lost += near.count(ALIAS, "/packets/lost_remote");
            }
            // Flows and reports, which belong to it.
            thread::sleep(Duration::from_millis(500));
            let cpu = used().saturating_sub(before).as_secs_f64() * 1e6 / stored as f64;
            if with_mirror { &mut both } else { &mut alone }.push(cpu);
            noise.round(&watch);
            lost_in_all += lost;
            section.row([
                if with_mirror { "captured and followed" } else { "captured" }.to_owned(),
                stored.to_string(),
                lost.to_string(),
                format!("{cpu:.2}"),
                format!("{:.0}", stored as f64 / elapsed.as_secs_f64()),
            ]);
        }
    }
    let ratio = both.median() / alone.median();
    section.verdict("packets lost", lost_in_all.to_string(), "0", lost_in_all == 0);
    section.verdict(
        "CPU of both daemons, by that of capturing alone",
        format!("{ratio:.2}"),
        "3 or less",
        ratio <= 3.0,
    );
    section.note("Both daemons, TLS and the generator share this machine.".to_owned());
    section.note(noise.show());
    section
}

pub(crate) fn latency(_: Effort) -> Section {
    const PACKETS: u64 = 1500;
    let mut section = Section::new(
        "Wire of the far machine to a reader here at 100 packets/s",
        &["reader", "packets", "median ms", "p90 ms", "p99 ms", "max ms"],
    );
    let far = Far::start();
    let near = far.mirror();
    let watch = Watch::when_quiet();
    let sent: Arc<Vec<AtomicU64>> = Arc::new((0..=PACKETS).map(|_| AtomicU64::new(0)).collect());
    let begin = Instant::now();
    let since = move || begin.elapsed().as_nanos() as u64;
    let readers = [("there", &far.daemon), ("here", &near)].map(|(name, daemon)| {
        let mut live = File::open(daemon.path("web/live.pcap")).expect("it can be opened");
        let sent = Arc::clone(&sent);
        (
            name,
            thread::spawn(move || {
                let (mut sample, mut walker) = (Sample::default(), Walker::default());
                let mut buffer = vec![0; 128 << 10];
                while let Ok(length @ 1..) = live.read(&mut buffer) {
                    let now = since();
                    walker.push(&buffer[..length], |number| {
                        let sent = sent[number as usize].load(Ordering::Acquire);
                        sample.push(now.saturating_sub(sent) as f64 / 1e6);
                    });
                }
                (sample, walker.packets)
            }),
        )
    });
    wait_until("the readers are there", 10, || near.count(ALIAS, "/readers/open") == 1);
    let mut sender = far.net.sender(100);
    for number in 1..=PACKETS {
        // The pace that is measured; it varies, so that no timer runs in step.
        thread::sleep(Duration::from_micros(number * 7919 % 20_001));
        sent[number as usize].store(since(), Ordering::Release);
        sender.send(1);
    }
    near.wait_stored(ALIAS, PACKETS);
    drop(near);
    drop(far);
    let mut noise = Noise::default();
    noise.round(&watch);
    for (name, reader) in readers {
        let (sample, packets) = reader.join().expect("the stream is whole");
        let at = |part| format!("{:.2}", sample.quantile(part));
        section.row([
            name.to_owned(),
            format!("{packets} of {PACKETS}"),
            at(0.5),
            at(0.9),
            at(0.99),
            at(1.0),
        ]);
        if name == "here" {
            for (what, part, target) in [("median", 0.5, 5.0), ("99th percentile", 0.99, 15.0)] {
                let taken = sample.quantile(part);
                section.verdict(
                    &format!("far wire to reader here, {what}"),
                    format!("{taken:.2} ms"),
                    &format!("{target} ms or less"),
                    taken <= target,
                );
            }
        }
    }
    section.note(noise.show());
    section
}

pub(crate) fn fleet(_: Effort) -> Section {
    let mut section = Section::new(
        "200 remote captures in one daemon",
        &["state", "own memory MiB", "KiB each", "CPU % of a core"],
    );
    let far = Far::start();
    // Equal captures would be one, so each has another limit of its packets.
    let mut mount = far.near().ring("1M");
    for number in 0..FLEET {
        let source = format!("remote:far/{ALIAS},rate={}M", 100 + number);
        mount = mount.capture(&format!("c{number}"), &source);
    }
    let empty = far.near().start();
    let base = measure::anonymous_memory(empty.pid());
    drop(empty);
    let near = mount.start();
    let all = |wanted: &str| {
        let states = near.json(["list", "--json"]).to_string();
        states.matches(&format!("\"state\":\"{wanted}\"")).count() >= FLEET
    };
    wait_until("all are running", 60, || all("running"));
    let mut row = |name: &str, seconds: u64| {
        let (before, begin) = (measure::cpu_time(near.pid()), Instant::now());
        // The span over which the load is measured.
        thread::sleep(Duration::from_secs(seconds));
        let used = measure::cpu_time(near.pid()).saturating_sub(before);
        let share = 100.0 * used.as_secs_f64() / begin.elapsed().as_secs_f64();
        let memory = measure::anonymous_memory(near.pid());
        section.row([
            name.to_owned(),
            format!("{:.1}", mebibytes(memory)),
            format!("{:.0}", memory.saturating_sub(base) as f64 / 1024.0 / FLEET as f64),
            format!("{share:.1}"),
        ]);
    };
    row("connected, no packets", 10);
    let mut sender = far.net.sender(100);
    let traffic = thread::spawn(move || {
        for _ in 0..100 {
            sender.send(10);
            thread::sleep(Duration::from_millis(100));
        }
    });
    row("100 packets/s each", 9);
    traffic.join().expect("the sender");
    let Far { net, folder, mut daemon } = far;
    daemon.kill9();
    wait_until("all look for it", 60, || all("retrying"));
    row("the far daemon is away", 10);
    let config = folder.path().join("pcapfs.toml");
    let again = Instant::now();
    let daemon = Mount::new().inside(&net.a).arg("--config").arg(config).start();
    wait_until("all are back", 60, || all("running"));
    let took = again.elapsed();
    row("back again", 10);
    section.note(format!(
        "All were back {:.1} s after the far daemon was started.",
        took.as_secs_f64()
    ));
    drop((near, daemon));
    section
}
