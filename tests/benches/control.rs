//! The benchmark of the control service: the time until a hundred captures are there, the time of
//! its answers then, their cost while they are unused, and the cost of listening compared with
//! reading the file.
//!
//! Run by hand, as root: `cargo bench -p pcapfs-tests --bench control`. See `spine.rs` for the way
//! figures are taken, and `program.rs` for the arguments after `--`.
#![allow(clippy::print_stdout, reason = "a benchmark is a program that prints")]
#![allow(
    clippy::cast_possible_truncation,
    clippy::cast_sign_loss,
    reason = "figures are far below the limits of their types, and rounded for people"
)]

#[allow(dead_code, reason = "shared with the other benchmarks")]
mod cores;
#[allow(dead_code, reason = "shared with the other benchmarks")]
mod load;
mod machine;
#[allow(dead_code, reason = "shared with the other benchmarks")]
mod program;
#[allow(dead_code, reason = "shared with the other benchmarks")]
mod report;
#[allow(dead_code, reason = "shared with the other benchmarks")]
mod sample;

use std::process::{Child, Command, ExitCode, Stdio};
use std::thread;
use std::time::{Duration, Instant};

use nix::unistd::Pid;
use pcapfs_tests::{ALIAS, Daemon, Fed, Mount, Namespace, measure, wait_until};

pub(crate) use program::Effort;

use load::{Noise, Watch};
use program::Part;
use report::Section;
use sample::Sample;

const PARTS: &[Part] = &[
    Part { name: "start", tools: &["ip"], measure: start },
    Part { name: "status", tools: &["ip"], measure: status },
    Part { name: "idle", tools: &["ip"], measure: idle },
    Part { name: "listen", tools: &["cat"], measure: listen },
];

/// Number of captures during the requests.
const CAPTURES: usize = 100;

fn main() -> ExitCode {
    program::run("control", "Control service", PARTS)
}

/// A daemon with a hundred captures on a link without traffic.
fn hundred(namespace: &Namespace) -> Daemon {
    with_captures(CAPTURES, namespace)
}

/// A daemon with `count` captures on a link without traffic.
fn with_captures(count: usize, namespace: &Namespace) -> Daemon {
    let mut mount = Mount::new().inside(namespace).ring("512K");
    for number in 0..count {
        mount = mount.capture(&format!("c{number}"), &format!("lo udp port {}", 1000 + number));
    }
    mount.start()
}

/// Time from exec to exit of a command. Its output is discarded.
fn timed(command: &mut Command) -> Duration {
    let begin = Instant::now();
    let status = command.stdout(Stdio::null()).status().expect("the binary starts");
    assert!(status.success());
    begin.elapsed()
}

fn start(effort: Effort) -> Section {
    let mut section = Section::new(
        "From exec to ready, and from SIGTERM to the end",
        &["captures", "ready after ms", "ended after ms"],
    );
    let mut noise = Noise::default();
    let namespace = Namespace::new();
    for count in [1, CAPTURES] {
        let (mut ready, mut ended) = (Sample::default(), Sample::default());
        for _ in 0..effort.rounds {
            let watch = Watch::when_quiet();
            let begin = Instant::now();
            let mut daemon = with_captures(count, &namespace);
            ready.push(begin.elapsed().as_secs_f64() * 1e3);
            let begin = Instant::now();
            assert!(daemon.terminate().success());
            ended.push(begin.elapsed().as_secs_f64() * 1e3);
            noise.round(&watch);
        }
        section.row([count.to_string(), ready.show(0), ended.show(0)]);
        if count == CAPTURES {
            section.verdict(
                "ready after start, 100 captures",
                format!("{} ms", ready.show(0)),
                "2000 ms or less",
                ready.median() <= 2000.0,
            );
        }
    }
    section.note(format!("Of each capture the kernel zeroes 22 MiB of buffer. {}", noise.show()));
    section
}

fn status(effort: Effort) -> Section {
    let title = format!("Control round trips with {CAPTURES} captures, from exec to exit");
    let mut section = Section::new(&title, &["command", "median ms", "p99 ms", "max ms"]);
    let mut noise = Noise::default();
    let namespace = Namespace::new();
    let daemon = hundred(&namespace);
    let mut of_status = Sample::default();
    for words in [
        &["status", "c50", "--json"][..],
        &["status", "--json"],
        &["list", "--json"],
        // The share of the program itself.
        &["--version"],
    ] {
        let mut sample = Sample::default();
        for _ in 0..effort.rounds {
            let watch = Watch::when_quiet();
            for _ in 0..100 {
                sample.push(timed(&mut daemon.command(words)).as_secs_f64() * 1000.0);
            }
            noise.round(&watch);
        }
        section.row([
            words.join(" "),
            format!("{:.2}", sample.median()),
            format!("{:.2}", sample.quantile(0.99)),
            format!("{:.2}", sample.max()),
        ]);
        if words[0] == "status" && words.len() == 3 {
            of_status = sample;
        }
    }
    section.verdict(
        "status of one of 100 captures, the whole command",
        format!("{:.2} ms", of_status.median()),
        "5 ms or less",
        of_status.median() <= 5.0,
    );
    section.note(noise.show());
    section
}

fn idle(effort: Effort) -> Section {
    const WINDOW: Duration = Duration::from_secs(10);
    let mut section = Section::new(
        "Captures on links without traffic",
        &["captures", "daemon CPU % of a core", "MiB of its own", "threads", "descriptors"],
    );
    let mut noise = Noise::default();
    let namespace = Namespace::new();
    let daemon = hundred(&namespace);
    let pid = daemon.pid();
    let mut cpu = Sample::default();
    for _ in 0..effort.rounds {
        let watch = Watch::when_quiet();
        let (before, begin) = (measure::cpu_time(pid), Instant::now());
        thread::sleep(WINDOW);
        let used = measure::cpu_time(pid).saturating_sub(before);
        cpu.push(100.0 * used.as_secs_f64() / begin.elapsed().as_secs_f64());
        noise.round(&watch);
    }
    section.row([
        CAPTURES.to_string(),
        cpu.show(2),
        format!("{:.1}", measure::anonymous_memory(pid) as f64 / f64::from(1 << 20)),
        measure::threads(pid).to_string(),
        measure::descriptors(pid).to_string(),
    ]);
    section.verdict(
        "daemon CPU with 100 idle captures",
        format!("{} % of a core", cpu.show(2)),
        "below 1 %",
        cpu.median() < 1.0,
    );
    section.note(noise.show());
    section
}

/// The reader while packets come in.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Reader {
    Nobody,
    Cat,
    Listen,
}

/// The cost of one run.
struct Cost {
    cpu: Duration,
    bytes: u64,
}

const PACKETS: u64 = 400_000;
/// Packets sent first, which fill the ring once: its new pages cost more than anything measured
/// here.
const BEFORE: u64 = 200_000;
const PAYLOAD: usize = 1400;
const BATCH: u64 = 1000;

fn listen(effort: Effort) -> Section {
    let mut section = Section::new(
        "Listening at 100,000 packets/s of 1,400 bytes",
        &["reader", "CPU s, daemon and reader", "MB delivered", "CPU ns per byte over no reader"],
    );
    let mut noise = Noise::default();
    let kinds = [Reader::Nobody, Reader::Cat, Reader::Listen];
    let mut cpu = [Sample::default(), Sample::default(), Sample::default()];
    let mut bytes = cpu.clone();
    let mut own = cpu.clone();
    for _ in 0..effort.rounds {
        let costs = kinds.map(|kind| noise.quietly(|| read(kind)));
        for (index, cost) in costs.iter().enumerate() {
            cpu[index].push(cost.cpu.as_secs_f64());
            bytes[index].push(cost.bytes as f64 / 1e6);
            let over = cost.cpu.saturating_sub(costs[0].cpu).as_nanos() as f64;
            own[index].push(over / (cost.bytes.max(1)) as f64);
        }
    }
    for (index, name) in ["nobody", "cat live.pcap", "pcapfs listen"].iter().enumerate() {
        section.row([
            (*name).to_owned(),
            cpu[index].show(2),
            bytes[index].show(0),
            own[index].show(3),
        ]);
    }
    let ratio = own[2].over(&own[1]);
    section.verdict(
        "CPU of listening over that of cat live.pcap, without that of capturing",
        format!("{}x", ratio.show(2)),
        "2x or less",
        ratio.median() <= 2.0,
    );
    section.note(format!(
        "With what capturing costs alone, which is the first row: {} times. The ring is full \
         before anybody reads.",
        cpu[2].over(&cpu[1]).show(2)
    ));
    section.note(noise.show());
    section
}

fn read(kind: Reader) -> Cost {
    let mut fed = Fed::with(Mount::new().ring("256M"));
    for _ in 0..BEFORE / BATCH {
        fed.feed.send(BATCH, PAYLOAD);
    }
    fed.daemon.wait_stored(ALIAS, BEFORE);
    let mut child: Option<Child> = match kind {
        Reader::Nobody => None,
        Reader::Cat => {
            let path = fed.daemon.path("web/live.pcap");
            Some(Command::new("cat").arg(path).stdout(Stdio::null()).spawn().expect("cat"))
        }
        Reader::Listen => {
            let mut command = fed.daemon.command(["listen", ALIAS]);
            Some(command.stdout(Stdio::null()).spawn().expect("the binary starts"))
        }
    };
    let pid = child.as_ref().map(|child| Pid::from_raw(i32::try_from(child.id()).expect("a pid")));
    if let Some(pid) = pid {
        fed.daemon.wait_blocked(ALIAS, "live.pcap", pid);
    }
    let daemon = fed.daemon.pid();
    let used = || {
        let reader = pid.map(measure::cpu_time).unwrap_or_default();
        measure::cpu_time(daemon) + reader
    };
    let before = used();
    let begin = Instant::now();
    let mut sent = 0;
    while sent < PACKETS {
        fed.feed.send(BATCH, PAYLOAD);
        sent += BATCH;
        let due = Duration::from_micros(sent * 10);
        thread::sleep(due.saturating_sub(begin.elapsed()));
    }
    fed.daemon.wait_stored(ALIAS, BEFORE + PACKETS);
    let mut bytes = 0;
    if pid.is_some() {
        wait_until("all is delivered", 10, || {
            let reader = fed.daemon.reader(ALIAS, "live.pcap", 0);
            bytes = reader["delivered_bytes"].as_u64().unwrap_or(0);
            assert_eq!(reader["lost_packets"], 0, "too slow");
            reader["lag_packets"] == 0 && reader["blocked"] == true
        });
    }
    let cpu = used().saturating_sub(before);
    if let Some(child) = &mut child {
        let _ = child.kill();
        let _ = child.wait();
    }
    Cost { cpu, bytes }
}
