//! Latency from the wire to a reader at 100 packets a second, compared with tcpdump on the same
//! packets.

use std::fs::File;
use std::io::Read;
use std::process::{Child, Stdio};
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::thread::{self, JoinHandle};
use std::time::{Duration, Instant};

use pcapfs_tests::{ALIAS, Net, Wired, tool, wait_until};

use crate::Effort;
use crate::load::{Noise, Watch};
use crate::report::Section;
use crate::sample::Sample;
use crate::walker::Walker;

/// Number of packets in all rounds together.
const PACKETS: u64 = 1500;
/// Average time between packets. It varies from none to twice as much, so that no timer runs in
/// step.
const INTERVAL: Duration = Duration::from_millis(10);

/// Send time of each packet, in nanoseconds since the start. The payload has the packet's number.
type Sent = Arc<Vec<AtomicU64>>;

pub(crate) fn measure(_: Effort) -> Section {
    let mut section = Section::new(
        "Wire to reader at 100 packets/s",
        &["reader", "packets", "median ms", "p90 ms", "p99 ms", "max ms"],
    );
    let watch = Watch::when_quiet();
    let wired = Wired::start();
    let sent: Sent = Arc::new((0..=PACKETS).map(|_| AtomicU64::new(0)).collect());
    let begin = Instant::now();
    let live = File::open(wired.daemon.path("web/live.pcap")).expect("it can be opened");
    let ours = arrivals(live, &sent, begin);
    let mut tcpdump = Tcpdump::start(&wired.net);
    let theirs = arrivals(tcpdump.0.stdout.take().expect("piped"), &sent, begin);
    wait_until("the reader is there", 10, || wired.daemon.count(ALIAS, "/readers/open") == 1);
    // An idle link before the first packet, as between packets.
    thread::sleep(Duration::from_secs(1));

    let mut sender = wired.net.sender(100);
    let mut random: u64 = 88_172_645_463_325_252;
    for number in 1..=PACKETS {
        // xorshift64
        random ^= random << 13;
        random ^= random >> 7;
        random ^= random << 17;
        // The pace that is measured.
        thread::sleep(INTERVAL * (random % 2001) as u32 / 1000);
        sent[number as usize].store(since(begin), Ordering::Release);
        sender.send(1);
    }
    let rate = PACKETS as f64 / begin.elapsed().as_secs_f64();
    // Longer than any reader takes for the last packet.
    thread::sleep(Duration::from_millis(200));
    drop(wired);
    drop(tcpdump);
    let mut noise = Noise::default();
    noise.round(&watch);

    let ours = ours.join().expect("the stream is whole");
    let theirs = theirs.join().expect("the stream is whole");
    for (name, sample, packets) in [
        ("pcapfs, live.pcap", &ours.0, ours.1),
        ("tcpdump -U --immediate-mode -w -", &theirs.0, theirs.1),
    ] {
        let at = |part| format!("{:.2}", sample.quantile(part));
        section.row([
            name.to_owned(),
            format!("{packets} of {PACKETS}"),
            at(0.5),
            at(0.9),
            at(0.99),
            at(1.0),
        ]);
    }
    for (what, part, target) in [("median", 0.5, 10.0), ("99th percentile", 0.99, 25.0)] {
        let (ours, theirs) = (ours.0.quantile(part), theirs.0.quantile(part));
        section.verdict(
            &format!("wire to reader, {what}"),
            format!("{ours:.2} ms (tcpdump {theirs:.2} ms)"),
            &format!("{target} ms or less"),
            ours <= target,
        );
    }
    section.note(format!("Both read the same packets at the same time, {rate:.0} a second."));
    section.note(noise.show());
    section
}

/// Milliseconds that each packet took, and the number of packets.
fn arrivals(
    mut stream: impl Read + Send + 'static,
    sent: &Sent,
    begin: Instant,
) -> JoinHandle<(Sample, u64)> {
    let sent = Arc::clone(sent);
    thread::spawn(move || {
        let mut sample = Sample::default();
        let mut walker = Walker::default();
        let mut buffer = vec![0; 128 << 10];
        while let Ok(length @ 1..) = stream.read(&mut buffer) {
            let now = since(begin);
            walker.push(&buffer[..length], |number| {
                let sent = sent[number as usize].load(Ordering::Acquire);
                sample.push(now.saturating_sub(sent) as f64 / 1e6);
            });
        }
        (sample, walker.packets)
    })
}

fn since(begin: Instant) -> u64 {
    begin.elapsed().as_nanos() as u64
}

/// A tcpdump whose standard output is read here. It is killed on drop.
struct Tcpdump(Child);

impl Tcpdump {
    fn start(net: &Net) -> Self {
        let mut command = tool("tcpdump");
        command.args(["-i", Net::DEVICE, "-n", "-U", "--immediate-mode", "-Z", "root", "-w", "-"]);
        command.args(["--time-stamp-precision=nano"]).stdout(Stdio::piped()).stderr(Stdio::null());
        Self(net.a.run(|| command.spawn()).expect("tcpdump starts"))
    }
}

impl Drop for Tcpdump {
    fn drop(&mut self) {
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}
