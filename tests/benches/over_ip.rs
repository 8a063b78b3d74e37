//! The benchmark of PCAP-over-IP: a capture that is served over TCP on the loopback interface, and
//! the capture of another daemon that gets its packets.
//!
//! Run by hand, as root: `cargo bench -p pcapfs-tests --bench over_ip`. See `spine.rs` for the way
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
mod latency;
#[allow(dead_code, reason = "shared with the other benchmarks")]
mod load;
mod machine;
#[allow(dead_code, reason = "shared with the other benchmarks")]
mod program;
#[allow(dead_code, reason = "shared with the other benchmarks")]
mod report;
#[allow(dead_code, reason = "shared with the other benchmarks")]
mod sample;
#[allow(dead_code, reason = "shared with the other benchmarks")]
mod walker;

use std::fs::File;
use std::process::ExitCode;
use std::thread;
use std::time::{Duration, Instant};

use pcapfs_tests::{ALIAS, Daemon, Fed, Mount, Running, Wired, measure, wait_for, wait_until};

pub(crate) use program::Effort;

use load::{Noise, Watch};
use program::Part;
use report::Section;
use sample::Sample;

const PARTS: &[Part] = &[
    Part { name: "mirror", tools: &[], measure: mirror },
    Part { name: "latency", tools: &["ip"], measure: latency },
];

const PACKETS: u64 = 400_000;
/// Packets sent first, which fill both rings once: new pages cost more than anything measured here.
const BEFORE: u64 = 200_000;
const PAYLOAD: usize = 1400;
const BATCH: u64 = 1000;

fn main() -> ExitCode {
    program::run("over_ip", "PCAP-over-IP", PARTS)
}

/// A capture that is served, and one that gets its packets.
struct Mirror {
    daemon: Daemon,
    serving: Running,
}

impl Mirror {
    fn of(far: &Daemon, from: &str) -> Self {
        let words = ["serve", ALIAS, "--listen", "127.0.0.1:0", "--from", from];
        let serving = Running::spawn(&mut far.command(words));
        let place = wait_for("it serves", 10, || {
            let said = serving.stderr();
            let (_, rest) = said.split_once(" at ")?;
            Some(rest.split(' ').next()?.to_owned())
        });
        let daemon = Mount::new().ring("256M").capture(ALIAS, &format!("tcp:{place}")).start();
        wait_until("it is connected", 10, || far.count(ALIAS, "/readers/open") == 1);
        Self { daemon, serving }
    }
}

/// The CPU time of one run.
#[derive(Clone, Copy, Debug, Default)]
struct Costs {
    far: Duration,
    serving: Duration,
    near: Duration,
    lost: u64,
}

/// Sends packets, with or without a mirror.
fn costs(is_mirrored: bool) -> Costs {
    let mut fed = Fed::with(Mount::new().ring("256M"));
    let mirror = is_mirrored.then(|| Mirror::of(&fed.daemon, "live"));
    let wait = |packets: u64| {
        fed.daemon.wait_stored(ALIAS, packets);
        if let Some(mirror) = &mirror {
            wait_until("the mirror has all, or has lost some", 20, || {
                let lost = fed.daemon.reader(ALIAS, "live.pcap", 0)["lost_packets"].as_u64();
                mirror.daemon.count(ALIAS, "/packets/stored") + lost.unwrap_or(0) >= packets
            });
        }
    };
    let cpu = || Costs {
        far: measure::cpu_time(fed.daemon.pid()),
        serving: mirror.as_ref().map_or(Duration::ZERO, |one| measure::cpu_time(one.serving.pid())),
        near: mirror.as_ref().map_or(Duration::ZERO, |one| measure::cpu_time(one.daemon.pid())),
        lost: 0,
    };
    let mut sent = 0;
    while sent < BEFORE {
        fed.feed.send(BATCH, PAYLOAD);
        sent += BATCH;
        // Slowly, so that nothing is lost before it counts.
        thread::sleep(Duration::from_millis(10));
    }
    wait(BEFORE);
    let (before, begin) = (cpu(), Instant::now());
    while sent < BEFORE + PACKETS {
        fed.feed.send(BATCH, PAYLOAD);
        sent += BATCH;
        let due = Duration::from_micros((sent - BEFORE) * 10);
        thread::sleep(due.saturating_sub(begin.elapsed()));
    }
    wait(sent);
    let after = cpu();
    let lost = mirror.as_ref().map_or(0, |one| {
        assert_eq!(one.daemon.count(ALIAS, "/packets/dropped_oversize"), 0);
        sent - one.daemon.count(ALIAS, "/packets/stored")
    });
    Costs {
        far: after.far.saturating_sub(before.far),
        serving: after.serving.saturating_sub(before.serving),
        near: after.near.saturating_sub(before.near),
        lost,
    }
}

fn mirror(effort: Effort) -> Section {
    let mut section = Section::new(
        "A mirror over PCAP-over-IP at 100,000 packets/s of 1,400 bytes",
        &["what runs", "far daemon CPU s", "pcapfs serve CPU s", "near daemon CPU s", "lost"],
    );
    let mut noise = Noise::default();
    let samples = || [Sample::default(), Sample::default(), Sample::default(), Sample::default()];
    let (mut alone, mut mirrored, mut ratio, mut all) =
        (samples(), samples(), Sample::default(), Sample::default());
    for _ in 0..effort.rounds {
        let runs = [false, true].map(|is_mirrored| noise.quietly(|| costs(is_mirrored)));
        for (into, costs) in [&mut alone, &mut mirrored].into_iter().zip(runs) {
            into[0].push(costs.far.as_secs_f64());
            into[1].push(costs.serving.as_secs_f64());
            into[2].push(costs.near.as_secs_f64());
            into[3].push(costs.lost as f64);
        }
        let [alone, mirrored] = runs.map(|run| (run.far + run.near).as_secs_f64());
        ratio.push(mirrored / alone);
        all.push((mirrored + runs[1].serving.as_secs_f64()) / alone);
    }
    for (name, samples) in [("a capture", &alone), ("a capture and its mirror", &mirrored)] {
        section.row([
            name.to_owned(),
            samples[0].show(2),
            samples[1].show(2),
            samples[2].show(2),
            samples[3].show(0),
        ]);
    }
    section.verdict(
        "packets lost by a mirror over PCAP-over-IP",
        mirrored[3].show(0),
        "0",
        mirrored[3].max() == 0.0,
    );
    section.verdict(
        "CPU of both daemons with a mirror over PCAP-over-IP, over that of capturing alone",
        format!("{}x", ratio.show(2)),
        "2x or less",
        ratio.median() <= 2.0,
    );
    section.note(format!(
        "{PACKETS} packets from a FIFO; both rings of 256 MiB are full before. With pcapfs serve, a \
         process between the daemons, it is {} times. Both daemons find flows.",
        all.show(2)
    ));
    section.note(noise.show());
    section
}

fn latency(_: Effort) -> Section {
    let watch = Watch::when_quiet();
    let wired = Wired::start();
    let mirror = Mirror::of(&wired.daemon, "live");
    // The header of the far capture comes before any packet.
    mirror.daemon.wait_state(ALIAS, "running");
    let live = File::open(mirror.daemon.path("web/live.pcap")).expect("it can be opened");
    wait_until("the reader is there", 10, || mirror.daemon.count(ALIAS, "/readers/open") == 1);
    let readers: Vec<latency::NamedReader> =
        vec![("pcapfs, live.pcap of the mirror", Box::new(live))];
    let Wired { daemon, net } = wired;
    let (all, rate) = latency::take(&net, readers, || drop((mirror, daemon)));
    let mut noise = Noise::default();
    noise.round(&watch);
    let title = "Wire to a reader of the mirror at 100 packets/s";
    let mut section = latency::section(title, &all);
    for (what, part, target) in [("median", 0.5, 5.0), ("99th percentile", 0.99, 15.0)] {
        let measured = all[0].quantile(part);
        section.verdict(
            &format!("wire to a reader of the mirror, {what}"),
            format!("{measured:.2} ms"),
            &format!("{target} ms or less"),
            measured <= target,
        );
    }
    section.note(format!("Through pcapfs serve and tcp:, {rate:.0} packets a second."));
    section.note(noise.show());
    section
}
