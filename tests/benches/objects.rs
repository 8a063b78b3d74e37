//! A gigabyte of HTTP: every body read from a savefile, compared with tshark and tcpflow.

use std::fs;
use std::io::Read;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::thread;
use std::time::{Duration, Instant};

use pcapfs_tests::{require, run, tool};
use serde_json::Value;

use crate::Effort;
use crate::load::Noise;
use crate::memory::mebibytes;
use crate::mounted::{Mounted, cached};
use crate::report::Section;
use crate::sample::Sample;

/// Arguments of the generator.
const ARGUMENTS: [&str; 6] = ["--flows", "11000", "--body", "400000", "--interleave", "64"];

/// The capture, made with the generator if it is not there yet. `None` without the generator.
fn capture() -> Option<PathBuf> {
    let generator = require::generator("wiregen.py")?;
    let name = "wiregen-11000-400000-64.pcap";
    Some(cached(name, |path| {
        let _ = run(tool("python3").arg(generator).arg(path).args(ARGUMENTS), 1800).success();
        let truth = |path: &Path| PathBuf::from(format!("{}.truth", path.display()));
        fs::rename(truth(path), truth(&path.with_file_name(name))).expect("in the same folder");
    }))
}

/// Numbers of flows and of responses with a body, and the total size of those bodies in bytes, from
/// the truth beside the capture.
fn truth(capture: &Path) -> (usize, usize, u64) {
    let text = fs::read_to_string(format!("{}.truth", capture.display())).expect("beside it");
    let (mut flows, mut bodies, mut bytes) = (0, 0, 0);
    for line in text.lines() {
        let line: Value = serde_json::from_str(line).expect("JSON on each line");
        flows += usize::from(line["kind"] == "flow");
        for transaction in line["transactions"].as_array().into_iter().flatten() {
            let length = transaction["response_body_len"].as_u64().expect("a length");
            bodies += usize::from(length > 0);
            bytes += length;
        }
    }
    (flows, bodies, bytes)
}

/// The way to read the bodies.
#[derive(Clone, Copy, Debug)]
enum Reader {
    /// A program that opens and reads one body after another, in as many threads as there are
    /// processors. Like the programs it is compared with, it does nothing else.
    Program,
    /// Shell commands.
    Commands,
}

impl Reader {
    const ALL: [Self; 2] = [Self::Program, Self::Commands];

    const fn name(self) -> &'static str {
        match self {
            Self::Program => "pcapfs mount -r, a program that reads",
            Self::Commands => "pcapfs mount -r, find | xargs -P cat",
        }
    }

    /// Reads all bodies.
    fn read(self, folder: &Path) {
        match self {
            Self::Program => read(folder),
            Self::Commands => {
                let mut command = tool("sh");
                let program = "find \"$0\"/*/bodies -type f -print0 \
                               | xargs -0 -n 1000 -P \"$(nproc)\" cat > /dev/null";
                let _ = run(command.args(["-c", program]).arg(folder), 600).success();
            }
        }
    }
}

/// Reads all bodies of the flows in a folder.
fn read(folder: &Path) {
    let flows: Vec<PathBuf> = listed(folder).collect();
    let next = AtomicUsize::new(0);
    let take_turns = || {
        let mut buffer = vec![0; 1 << 20];
        while let Some(flow) = flows.get(next.fetch_add(1, Ordering::Relaxed)) {
            for body in listed(&flow.join("bodies")) {
                let mut file = fs::File::open(body).expect("a body");
                while file.read(&mut buffer).expect("it is read") > 0 {}
            }
        }
    };
    thread::scope(|scope| {
        for _ in 0..thread::available_parallelism().map_or(1, usize::from) {
            scope.spawn(take_turns);
        }
    });
}

fn listed(folder: &Path) -> impl Iterator<Item = PathBuf> {
    let entries = fs::read_dir(folder).expect("it is listed");
    entries.map(|entry| entry.expect("an entry").path())
}

#[derive(Debug, Default)]
struct Figures {
    ended: Sample,
    listed: Sample,
    read: Sample,
    all: Sample,
    cpu: Sample,
    memory: Sample,
}

pub(crate) fn measure(effort: Effort) -> Section {
    let mut section = Section::new(
        "Every body of 1 GB of HTTP",
        &[
            "program",
            "seconds",
            "of them until the last flow",
            "reading",
            "CPU s",
            "own memory MiB",
        ],
    );
    let Some(capture) = capture() else {
        return Section::skipped("objects", "the generator wiregen.py");
    };
    let (flows, bodies, bytes) = truth(&capture);
    let size = fs::metadata(&capture).expect("it is there").len();
    // All programs find the capture in the page cache.
    let _ = run(tool("cp").arg(&capture).arg("/dev/null"), 120);

    let mut noise = Noise::default();
    let mut all = Reader::ALL.map(|_| Figures::default());
    for _ in 0..effort.rounds {
        for (reader, figures) in Reader::ALL.into_iter().zip(&mut all) {
            noise.quietly(|| take(&capture, reader, (flows, bodies, bytes), figures));
        }
    }
    for (reader, figures) in Reader::ALL.into_iter().zip(&all) {
        section.row([
            reader.name().to_owned(),
            figures.all.show(1),
            figures.listed.show(1),
            figures.read.show(1),
            figures.cpu.show(1),
            figures.memory.show(0),
        ]);
    }
    let [ours, _] = &all;
    let tshark = noise.quietly(|| other("tshark", &["-Q", "--export-objects"], &capture));
    let tcpflow = noise.quietly(|| other("tcpflow", &["-e", "http", "-o"], &capture));
    for (name, took) in [("tshark -Q --export-objects http", tshark), ("tcpflow -e http", tcpflow)]
    {
        section.row([
            name.to_owned(),
            format!("{:.1}", took.as_secs_f64()),
            String::new(),
            String::new(),
            String::new(),
            String::new(),
        ]);
    }
    for (name, took, target) in [("tshark", tshark, 0.2), ("tcpflow", tcpflow, 1.0)] {
        let ratio = ours.all.median() / took.as_secs_f64();
        section.verdict(
            &format!("time for every body of 1 GB over {name}'s"),
            format!("{ratio:.3}x"),
            &format!("{target}x or less"),
            ratio <= target,
        );
    }
    let share = 100.0 * ours.memory.median() / mebibytes(size);
    section.verdict(
        "own memory while that is done, of the capture's size",
        format!("{share:.1} %"),
        "15 % or less",
        share <= 15.0,
    );
    section.note(format!(
        "{:.0} MiB, {flows} connections, {bodies} responses with a body, {:.0} MiB of them \
         decoded; the capture is in the page cache, and the others write to tmpfs. Until the \
         capture is `ended` pass {} s.",
        mebibytes(size),
        mebibytes(bytes),
        ours.ended.show(1),
    ));
    section.note(noise.show());
    section
}

fn take(
    capture: &Path,
    reader: Reader,
    (flows, bodies, bytes): (usize, usize, u64),
    figures: &mut Figures,
) {
    let begin = Instant::now();
    let mounted = Mounted::with(capture, &[]);
    let folder = mounted.flows();
    let listed = fs::read_dir(&folder).expect("flows are listed").count();
    figures.listed.push(begin.elapsed().as_secs_f64());
    figures.ended.push(mounted.took.as_secs_f64());
    let reading = Instant::now();
    reader.read(&folder);
    figures.read.push(reading.elapsed().as_secs_f64());
    figures.all.push(begin.elapsed().as_secs_f64());
    figures.cpu.push(pcapfs_tests::measure::cpu_time(mounted.daemon.pid()).as_secs_f64());
    figures.memory.push(mebibytes(mounted.peak()));

    assert_eq!(listed, flows, "flows in the directory");
    let mut command = tool("find");
    command.arg(&folder).args(["-path", "*/bodies/*-response*", "-size", "+0", "-printf", "%s\n"]);
    let sizes = run(&mut command, 600).success();
    let sizes: Vec<u64> = sizes.text().lines().map(|line| line.parse().expect("bytes")).collect();
    assert_eq!((sizes.len(), sizes.iter().sum()), (bodies, bytes), "responses and their bytes");
}

/// Time that another program takes for all bodies.
fn other(name: &str, arguments: &[&str], capture: &Path) -> Duration {
    let folder = tempfile::tempdir_in("/dev/shm").expect("a folder on tmpfs");
    let into = folder.path().display();
    let into = if name == "tshark" { format!("http,{into}") } else { into.to_string() };
    let mut command: Command = tool(name);
    command.args(arguments).arg(into).arg("-r").arg(capture);
    let begin = Instant::now();
    let _ = run(&mut command, 1800);
    begin.elapsed()
}
