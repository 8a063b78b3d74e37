//! Capture at full speed on a veth pair, without a reader: the cost of a captured packet, and the
//! number of lost packets.

use std::time::{Duration, Instant};

use nix::sys::signal::Signal;
use nix::unistd::Pid;
use pcapfs_tests::{Daemon, Mount, Net, Running, measure, tool, wait_until};

use crate::load::Noise;
use crate::memory::mebibytes;
use crate::report::Section;
use crate::sample::Sample;
use crate::traffic::{Sender, Traffic};
use crate::{Effort, cores};

/// The packets sent in one run.
#[derive(Clone, Copy, Debug)]
struct Load {
    traffic: Traffic,
    /// Of UDP. The mix has its own number.
    packets: u64,
    /// Packets a second. `None` means as fast as one core can send.
    rate: Option<u64>,
    /// Maximum CPU of the daemon, and of its capture thread, as multiples of tcpdump's.
    over_tcpdump: (f64, Option<f64>),
}

/// Each run takes one to three seconds. At the first rate, only dumpcap may lose packets, on any
/// machine; the others are as fast as the generator.
const LOADS: [Load; 5] = [
    Load {
        traffic: Traffic::OneFlow(1442),
        packets: 1_500_000,
        rate: Some(500_000),
        over_tcpdump: (1.4, Some(0.95)),
    },
    Load {
        traffic: Traffic::OneFlow(1442),
        packets: 1_500_000,
        rate: None,
        over_tcpdump: (1.4, Some(0.95)),
    },
    Load {
        traffic: Traffic::ThousandFlows(1442),
        packets: 1_500_000,
        rate: None,
        over_tcpdump: (1.6, None),
    },
    Load {
        traffic: Traffic::OneFlow(60),
        packets: 2_000_000,
        rate: None,
        over_tcpdump: (2.2, Some(0.5)),
    },
    Load { traffic: Traffic::Mix, packets: 0, rate: None, over_tcpdump: (1.6, None) },
];

/// The maximum time for which one of the tools leaves packets in the kernel. It is tcpdump's, which
/// asks for a second.
const KERNEL_TIMEOUT: Duration = Duration::from_millis(1200);

impl Load {
    fn name(self) -> String {
        let rate = self.rate.map_or_else(|| "full speed".to_owned(), |rate| format!("{rate}/s"));
        format!("{}, {rate}", self.traffic.name())
    }
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Tool {
    Pcapfs,
    Tcpdump,
    Dumpcap,
}

const TOOLS: [Tool; 3] = [Tool::Pcapfs, Tool::Tcpdump, Tool::Dumpcap];

impl Tool {
    fn name(self) -> &'static str {
        match self {
            Self::Pcapfs => "pcapfs",
            Self::Tcpdump => "tcpdump -w /dev/null -B 65536",
            Self::Dumpcap => "dumpcap -B 64, to tmpfs",
        }
    }
}

#[derive(Debug, Default)]
struct Figures {
    offered: Sample,
    rate: Sample,
    captured: Sample,
    lost: Sample,
    lost_share: Sample,
    cpu: Sample,
    /// The part of `cpu` that receives packets; all of it for the other tools.
    thread: Sample,
    resident: Sample,
}

impl Figures {
    fn append(&mut self, other: &Self) {
        for (ours, theirs) in [
            (&mut self.offered, &other.offered),
            (&mut self.rate, &other.rate),
            (&mut self.captured, &other.captured),
            (&mut self.lost, &other.lost),
            (&mut self.lost_share, &other.lost_share),
            (&mut self.cpu, &other.cpu),
            (&mut self.thread, &other.thread),
            (&mut self.resident, &other.resident),
        ] {
            ours.append(theirs);
        }
    }
}

pub(crate) fn measure(effort: Effort) -> Section {
    let mut section = Section::new(
        "Capture, no reader",
        &[
            "sent",
            "tool",
            "offered",
            "packets/s",
            "captured",
            "lost",
            "lost %",
            "CPU us/packet",
            "of it capture thread",
            "resident MiB",
        ],
    );
    let mut noise = Noise::default();
    for load in LOADS {
        let net = Net::new();
        let sender = Sender::new(load.traffic, load.packets, load.rate);
        let mut figures = TOOLS.map(|_| Figures::default());
        for round in 0..effort.rounds {
            for turn in 0..TOOLS.len() {
                let which = (round + turn) % TOOLS.len();
                let taken = noise.quietly(|| take(TOOLS[which], &net, &sender));
                figures[which].append(&taken);
            }
        }
        for (tool, figures) in TOOLS.iter().zip(&figures) {
            section.row([
                load.name(),
                tool.name().to_owned(),
                figures.offered.show(0),
                figures.rate.show(0),
                figures.captured.show(0),
                figures.lost.show(0),
                figures.lost_share.show(2),
                figures.cpu.show(3),
                figures.thread.show(3),
                figures.resident.show(1),
            ]);
        }
        let [ours, tcpdump, dumpcap] = &figures;
        let what = |what: &str| format!("{what}, {}", load.name());
        let measured = format!("{} (tcpdump {})", ours.lost.show(0), tcpdump.lost.show(0));
        let lossless = what("lost, where tcpdump loses 0");
        if tcpdump.lost.median() == 0.0 {
            section.verdict(&lossless, measured, "0", ours.lost.median() == 0.0);
        } else {
            section.undecided(&lossless, measured, "0");
        }
        let (whole, thread) = load.over_tcpdump;
        if let Some(target) = thread {
            let ratio = ours.thread.over(&tcpdump.cpu);
            section.verdict(
                &what("CPU per packet of the capture thread over tcpdump's"),
                format!("{}x", ratio.show(2)),
                &format!("{target}x or less"),
                ratio.median() <= target,
            );
        }
        for (other, name, target) in [(tcpdump, "tcpdump", whole), (dumpcap, "dumpcap", 0.5)] {
            let ratio = ours.cpu.over(&other.cpu);
            section.verdict(
                &what(&format!("CPU per packet over {name}'s")),
                format!("{}x", ratio.show(2)),
                &format!("{target}x or less"),
                ratio.median() <= target,
            );
        }
    }
    section.note(format!(
        "trafgen (the mix: tcpreplay) on core {}, the capturing program on core {}; 64 MiB ring. CPU is that of the process, by \
         captured packets. Resident includes the ring, but no kernel buffers.",
        cores::GENERATOR,
        cores::CAPTURE
    ));
    section.note(noise.show());
    section
}

/// A running capture.
enum Capturing {
    Pcapfs(Daemon),
    Other(Running, Option<tempfile::TempDir>),
}

const ALIAS: &str = "web";

impl Capturing {
    fn start(which: Tool, net: &Net) -> Self {
        let spawn = |command: &mut std::process::Command| {
            cores::on(cores::CAPTURE, || net.a.run(|| Running::spawn(command)))
        };
        match which {
            Tool::Pcapfs => Self::Pcapfs(cores::on(cores::CAPTURE, || {
                Mount::new().inside(&net.a).capture(ALIAS, Net::DEVICE).start()
            })),
            Tool::Tcpdump => {
                let mut command = tool("tcpdump");
                command.args(["-i", Net::DEVICE, "-n", "-Z", "root", "-B", "65536"]);
                let running = spawn(command.args(["-w", "/dev/null"]));
                wait_until("tcpdump listens", 5, || running.stderr().contains("listening on"));
                Self::Other(running, None)
            }
            Tool::Dumpcap => {
                let folder = tempfile::tempdir_in("/dev/shm").expect("a folder on tmpfs");
                let mut command = tool("dumpcap");
                command.args(["-q", "-i", Net::DEVICE, "-B", "64", "-w"]);
                let running = spawn(command.arg(folder.path().join("out.pcapng")));
                wait_until("dumpcap listens", 5, || running.stderr().contains("File: "));
                Self::Other(running, Some(folder))
            }
        }
    }

    fn pid(&self) -> Pid {
        match self {
            Self::Pcapfs(daemon) => daemon.pid(),
            Self::Other(running, _) => running.pid(),
        }
    }

    /// Ends the capture and returns the number of packets captured.
    fn captured(self) -> u64 {
        match self {
            Self::Pcapfs(daemon) => daemon.count(ALIAS, "/packets/stored"),
            Self::Other(mut running, _folder) => {
                running.signal(Signal::SIGINT);
                let _ = running.wait(20);
                captured(&running.stderr())
            }
        }
    }
}

/// Parses `1234 packets captured` of tcpdump and `Packets captured: 1234` of dumpcap.
fn captured(said: &str) -> u64 {
    let line = said.lines().rfind(|line| line.to_lowercase().contains("packets captured"));
    let line = line.unwrap_or_else(|| panic!("no count of packets in: {said}"));
    let digits: String = line.chars().filter(char::is_ascii_digit).collect();
    digits.parse().expect("a number")
}

fn take(which: Tool, net: &Net, sender: &Sender) -> Figures {
    let capturing = Capturing::start(which, net);
    let pid = capturing.pid();
    let (before, begun) = (received(net), measure::cpu_time(pid));
    let thread_begun = thread_time(which, pid);
    let begin = Instant::now();
    sender.send(net);
    let elapsed = begin.elapsed();
    settle(pid);
    let cpu = measure::cpu_time(pid).saturating_sub(begun);
    let thread = thread_time(which, pid).saturating_sub(thread_begun);
    let offered = received(net) - before;
    let resident = measure::resident_memory(pid);
    let captured = capturing.captured();

    assert!(captured > 0, "{which:?} captured nothing");
    let lost = offered.saturating_sub(captured) as f64;
    let mut figures = Figures::default();
    figures.offered.push(offered as f64);
    figures.rate.push(offered as f64 / elapsed.as_secs_f64());
    figures.captured.push(captured as f64);
    figures.lost.push(lost);
    figures.lost_share.push(100.0 * lost / offered as f64);
    figures.cpu.push(cpu.as_secs_f64() * 1e6 / captured as f64);
    figures.thread.push(thread.as_secs_f64() * 1e6 / captured as f64);
    figures.resident.push(mebibytes(resident));
    figures
}

/// Waits until a process has nothing more to do.
fn settle(pid: Pid) {
    // Until then the kernel may hold packets back.
    std::thread::sleep(KERNEL_TIMEOUT);
    let mut last = Duration::MAX;
    wait_until("the capture has caught up", 20, || {
        // The span over which it must use no processor time.
        std::thread::sleep(Duration::from_millis(200));
        let now = measure::cpu_time(pid);
        let still = now.saturating_sub(last) < Duration::from_millis(5) && last != Duration::MAX;
        last = now;
        still
    });
}

/// CPU time of the thread that receives packets.
fn thread_time(which: Tool, pid: Pid) -> Duration {
    if which != Tool::Pcapfs {
        return measure::cpu_time(pid);
    }
    let tasks = std::fs::read_dir(format!("/proc/{pid}/task")).expect("the process is there");
    let times = tasks.flatten().filter_map(|task| {
        let name = std::fs::read_to_string(task.path().join("comm")).ok()?;
        // Nanoseconds come first in the file (Documentation/scheduler/sched-stats.rst).
        let times = std::fs::read_to_string(task.path().join("schedstat")).ok()?;
        let nanoseconds = times.split_whitespace().next()?.parse().ok()?;
        (name.trim() == "capture").then(|| Duration::from_nanos(nanoseconds))
    });
    times.sum()
}

/// Number of packets that have arrived at the captured interface.
fn received(net: &Net) -> u64 {
    let table = net.a.run(|| std::fs::read_to_string("/proc/thread-self/net/dev"));
    let table = table.expect("/proc is mounted");
    let (_, counters) = table
        .lines()
        .filter_map(|line| line.split_once(':'))
        .find(|(name, _)| name.trim() == Net::DEVICE)
        .expect("the interface is there");
    counters.split_whitespace().nth(1).and_then(|field| field.parse().ok()).expect("a counter")
}
