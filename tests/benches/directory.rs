//! A million flows in one directory: the time to list it and to find a flow in it, and the cost of
//! each flow.

use std::fs;
use std::io;
use std::path::Path;
use std::time::Instant;

use pcapfs_tests::measure::anonymous_memory;
use pcapfs_tests::segments::{From, Segments, flags};
use pcapfs_tests::{run, tool};

use crate::Effort;
use crate::load::Noise;
use crate::mounted::{Mounted, cached};
use crate::report::Section;
use crate::sample::Sample;

const FLOWS: u32 = 1_000_000;
/// Number of flows opened by name, far apart from each other.
const OPENED: usize = 2_000;

pub(crate) fn measure(effort: Effort) -> Section {
    let mut section = Section::new(
        "A directory of 1,000,000 flows",
        &["ended after s", "ls -f | wc -l s", "meta.json of one ms", "worst ms", "bytes a flow"],
    );
    let one = capture(1);
    let million = capture(FLOWS);
    let mut noise = Noise::default();
    let [mut ended, mut listing, mut opening, mut worst, mut bytes] =
        [(); 5].map(|()| Sample::default());
    for _ in 0..effort.rounds {
        noise.quietly(|| {
            let empty = anonymous_memory(Mounted::with(&one, &[]).daemon.pid());
            let mounted = Mounted::with(&million, &[]);
            let more = anonymous_memory(mounted.daemon.pid()).saturating_sub(empty);
            ended.push(mounted.took.as_secs_f64());
            bytes.push(more as f64 / f64::from(FLOWS));
            listing.push(list(&mounted.flows()));
            let opened = open_some(&mounted.flows());
            opening.push(opened.median());
            worst.push(opened.max());
        });
    }
    section.row([ended.show(1), listing.show(2), opening.show(3), worst.show(2), bytes.show(0)]);
    section.verdict(
        "ls -f of 1,000,000 flows",
        format!("{} s", listing.show(2)),
        "2 s or less",
        listing.median() <= 2.0,
    );
    section.verdict(
        "meta.json of one of them, by name",
        format!("{} ms", opening.show(3)),
        "1 ms or less",
        opening.median() <= 1.0,
    );
    section.verdict(
        "memory for each of them",
        format!("{} bytes", bytes.show(0)),
        "600 or less",
        bytes.median() <= 600.0,
    );
    section.note(format!(
        "Connections of one SYN each. Opening is the median of {OPENED}, spread over all; memory \
         is that of the daemon's own beside that with one flow, before anybody has listed them."
    ));
    section.note(noise.show());
    section
}

/// A savefile with one SYN for each of `flows` flows.
fn capture(flows: u32) -> std::path::PathBuf {
    cached(&format!("syn-{flows}.pcap"), |path| write(path, flows).expect("the disk has room"))
}

fn write(path: &Path, flows: u32) -> io::Result<()> {
    let mut file = Segments::create(path)?;
    for number in 0..flows {
        file.push(number, From::Client, flags::SYN, [number, 0], b"")?;
    }
    file.finish()
}

fn list(folder: &Path) -> f64 {
    let begin = Instant::now();
    let finished = run(tool("sh").args(["-c", "ls -f \"$0\" | wc -l"]).arg(folder), 120).success();
    let took = begin.elapsed().as_secs_f64();
    let lines: u32 = finished.text().trim().parse().expect("a number of lines");
    // Including `.` and `..`.
    assert_eq!(lines, FLOWS + 2, "lines of ls");
    took
}

/// Milliseconds for opening and reading the `meta.json` of a flow.
fn open_some(folder: &Path) -> Sample {
    let names: Vec<_> = fs::read_dir(folder)
        .expect("flows are listed")
        .map(|entry| entry.expect("an entry").file_name())
        .collect();
    (0..OPENED)
        .map(|nth| {
            // The step has no factor in common with a million, so the flows are visited in no
            // order.
            let name = &names[nth * 618_033 % names.len()];
            let begin = Instant::now();
            let text = fs::read(folder.join(name).join("meta.json")).expect("it is there");
            let took = begin.elapsed();
            assert!(text.starts_with(b"{"), "JSON");
            took.as_secs_f64() * 1e3
        })
        .collect()
}
