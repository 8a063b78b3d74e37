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

/// The packets that one reader got.
pub(crate) struct Arrivals {
    name: &'static str,
    sample: Sample,
    packets: u64,
}

impl Arrivals {
    /// Milliseconds that this part of the packets took at most.
    pub(crate) fn quantile(&self, part: f64) -> f64 {
        self.sample.quantile(part)
    }

    /// A row of [`section`].
    fn cells(&self) -> [String; 6] {
        let at = |part| format!("{:.2}", self.quantile(part));
        let packets = format!("{} of {PACKETS}", self.packets);
        [self.name.to_owned(), packets, at(0.5), at(0.9), at(0.99), at(1.0)]
    }
}

/// A reader by name, and its stream.
pub(crate) type NamedReader = (&'static str, Box<dyn Read + Send>);

/// A section with a row for each reader.
pub(crate) fn section(title: &str, all: &[Arrivals]) -> Section {
    let columns = ["reader", "packets", "median ms", "p90 ms", "p99 ms", "max ms"];
    let mut section = Section::new(title, &columns);
    for arrivals in all {
        section.row(arrivals.cells());
    }
    section
}

/// Sends packets on a wire, and measures when each reader gets them. `end` ends the streams.
/// Returns the packets a second, too.
pub(crate) fn take(
    net: &Net,
    readers: Vec<NamedReader>,
    end: impl FnOnce(),
) -> (Vec<Arrivals>, f64) {
    let sent: Sent = Arc::new((0..=PACKETS).map(|_| AtomicU64::new(0)).collect());
    let begin = Instant::now();
    let threads: Vec<_> =
        readers.into_iter().map(|(name, stream)| (name, arrivals(stream, &sent, begin))).collect();
    // An idle link before the first packet, as between packets.
    thread::sleep(Duration::from_secs(1));

    let mut sender = net.sender(100);
    let mut random: u64 = 88_172_645_463_325_252;
    let sending = Instant::now();
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
    let rate = PACKETS as f64 / sending.elapsed().as_secs_f64();
    // Longer than any reader takes for the last packet.
    thread::sleep(Duration::from_millis(200));
    end();
    let all = threads.into_iter().map(|(name, thread)| {
        let (sample, packets) = thread.join().expect("the stream is whole");
        Arrivals { name, sample, packets }
    });
    (all.collect(), rate)
}

pub(crate) fn measure(_: Effort) -> Section {
    let watch = Watch::when_quiet();
    let wired = Wired::start();
    let live = File::open(wired.daemon.path("web/live.pcap")).expect("it can be opened");
    let mut tcpdump = Tcpdump::start(&wired.net);
    let theirs = tcpdump.0.stdout.take().expect("piped");
    wait_until("the reader is there", 10, || wired.daemon.count(ALIAS, "/readers/open") == 1);
    let readers: Vec<NamedReader> = vec![
        ("pcapfs, live.pcap", Box::new(live)),
        ("tcpdump -U --immediate-mode -w -", Box::new(theirs)),
    ];
    let Wired { daemon, net } = wired;
    let (all, rate) = take(&net, readers, || drop((daemon, tcpdump)));
    let mut noise = Noise::default();
    noise.round(&watch);

    let mut section = section("Wire to reader at 100 packets/s", &all);
    for (what, part, target) in [("median", 0.5, 10.0), ("99th percentile", 0.99, 25.0)] {
        let (ours, theirs) = (all[0].quantile(part), all[1].quantile(part));
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
