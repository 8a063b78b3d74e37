//! HTTP on a wire at a fixed rate: the engine keeps up.

use std::io;
use std::path::Path;
use std::thread;
use std::time::{Duration, Instant};

use pcapfs_tests::segments::{From, Segments, flags};
use pcapfs_tests::{ALIAS, Mount, Net, measure, run, tool, wait_until};

use crate::Effort;
use crate::cores;
use crate::load::Noise;
use crate::memory::mebibytes;
use crate::mounted::cached;
use crate::program;
use crate::report::Section;
use crate::sample::Sample;

const RATE: u64 = 300_000;
const CONNECTIONS: u32 = 150_000;
/// Number of connections under way at once.
const INTERLEAVED: u32 = 64;
/// Number of segments of a connection, see [`connection`].
const SEGMENTS: usize = 10;

#[derive(Debug, Default)]
struct Figures {
    rate: Sample,
    dropped: Sample,
    lost: Sample,
    lag: Sample,
    catch_up: Sample,
    cpu: Sample,
    memory: Sample,
}

pub(crate) fn measure(effort: Effort) -> Section {
    let mut section = Section::new(
        "HTTP at 300,000 packets/s on a wire",
        &[
            "packets/s",
            "dropped by the kernel",
            "lost by the engine",
            "behind at the end",
            "caught up after ms",
            "CPU us/packet",
            "own memory MiB",
        ],
    );
    let capture = cached("http-150000.pcap", |path| write(path).expect("the disk has room"));
    let mut noise = Noise::default();
    let mut figures = Figures::default();
    for _ in 0..effort.rounds {
        noise.quietly(|| take(&capture, &mut figures));
    }
    section.row([
        figures.rate.show(0),
        figures.dropped.show(0),
        figures.lost.show(0),
        figures.lag.show(0),
        figures.catch_up.show(0),
        figures.cpu.show(3),
        figures.memory.show(0),
    ]);
    for (what, sample) in
        [("dropped by the kernel", &figures.dropped), ("lost by the engine", &figures.lost)]
    {
        let what = format!("packets of HTTP at {RATE}/s {what}");
        section.verdict(&what, sample.show(0), "0", sample.max() == 0.0);
    }
    section.verdict(
        "the engine has caught up after the end",
        format!("{} ms", figures.catch_up.show(0)),
        "1000 ms or less",
        figures.catch_up.max() <= 1000.0,
    );
    section.note(format!(
        "tcpreplay of {CONNECTIONS} connections of {SEGMENTS} segments with a GET and a response \
         of 1,100 bytes, {INTERLEAVED} at a time; the daemon may use every core, the ring has \
         64 MiB."
    ));
    section.note(noise.show());
    section
}

fn write(path: &Path) -> io::Result<()> {
    let mut file = Segments::create(path)?;
    for first in (0..CONNECTIONS).step_by(INTERLEAVED as usize) {
        let group = first..CONNECTIONS.min(first + INTERLEAVED);
        for step in 0..SEGMENTS {
            for number in group.clone() {
                connection(&mut file, number, step)?;
            }
        }
    }
    file.finish()
}

/// Writes one segment of a connection.
fn connection(file: &mut Segments, number: u32, step: usize) -> io::Result<()> {
    const ACK: u8 = flags::ACK;
    let request = format!("GET /{number:08} HTTP/1.1\r\nHost: wire.example\r\n\r\n");
    let head = "HTTP/1.1 200 OK\r\nContent-Type: text/plain\r\nContent-Length: 1100\r\n\r\n";
    let body = [b'x'; 1100];
    let asked = 1 + request.len() as u32;
    let begun = 1 + head.len() as u32;
    let told = begun + body.len() as u32;
    let (from, control, numbers, payload): (_, _, _, &[u8]) = match step {
        0 => (From::Client, flags::SYN, [0, 0], b""),
        1 => (From::Server, flags::SYN | ACK, [0, 1], b""),
        2 => (From::Client, ACK, [1, 1], b""),
        3 => (From::Client, ACK | flags::PSH, [1, 1], request.as_bytes()),
        4 => (From::Server, ACK, [1, asked], head.as_bytes()),
        5 => (From::Server, ACK | flags::PSH, [begun, asked], &body),
        6 => (From::Client, ACK, [asked, told], b""),
        7 => (From::Client, ACK | flags::FIN, [asked, told], b""),
        8 => (From::Server, ACK | flags::FIN, [told, asked + 1], b""),
        _ => (From::Client, ACK, [asked + 1, told + 1], b""),
    };
    file.push(number, from, control, numbers, payload)
}

fn take(capture: &Path, figures: &mut Figures) {
    let net = Net::new();
    let daemon = Mount::new()
        .inside(&net.a)
        .capture(ALIAS, Net::DEVICE)
        .args(program::daemon_arguments())
        .start();
    daemon.wait_state(ALIAS, "running");
    let pid = daemon.pid();
    let mut command = tool("tcpreplay");
    command.args(["--preload-pcap", "--quiet", "--pps", &RATE.to_string(), "-i", Net::PEER]);
    let finished = cores::on(cores::GENERATOR, || net.b.run(|| run(command.arg(capture), 120)));
    let end = Instant::now();
    let lag = daemon.count(ALIAS, "/flows/engine_lag_packets");
    let finished = finished.success();
    let sent = u64::from(CONNECTIONS) * SEGMENTS as u64;
    wait_until("the engine has caught up", 60, || {
        daemon.count(ALIAS, "/packets/seen") >= sent
            && daemon.count(ALIAS, "/flows/engine_lag_packets") == 0
    });
    figures.catch_up.push(end.elapsed().as_secs_f64() * 1e3);
    // Rated: 9000000.0 Bps, 72.00 Mbps, 300000.00 pps
    let rate = finished.text().split(" pps").next().and_then(|text| text.rsplit(' ').next());
    figures.rate.push(rate.and_then(|rate| rate.parse().ok()).unwrap_or(0.0));
    figures.lag.push(lag as f64);
    figures.dropped.push(daemon.count(ALIAS, "/packets/dropped_kernel") as f64);
    figures.lost.push(daemon.count(ALIAS, "/flows/engine_lost_packets") as f64);
    // The recorder may still write lines; its processor time belongs to the figure too.
    thread::sleep(Duration::from_millis(100));
    figures.cpu.push(measure::cpu_time(pid).as_secs_f64() * 1e6 / sent as f64);
    figures.memory.push(mebibytes(measure::anonymous_memory(pid)));
}
