//! Reading a full ring as a file, compared with reading the same bytes from tmpfs.

use std::path::Path;

use pcapfs_tests::{ALIAS, Fed, Mount, run, tool};

use crate::Effort;
use crate::load::Noise;
use crate::memory::{Memory, mebibytes};
use crate::report::Section;
use crate::sample::Sample;

/// Payload size in bytes and number of packets. Together they overfill a ring of one GiB.
const PAYLOAD: usize = 1400;
const PACKETS: u64 = 800_000;

/// Sizes of a read, and the share of tmpfs's speed that each must reach.
const READS: [(&str, f64); 2] = [("1M", 0.5), ("128K", 0.3)];

pub(crate) fn measure(effort: Effort) -> Section {
    let mut section = Section::new(
        "Reading replay.pcap of a 1 GiB ring with dd",
        &["reads", "replay.pcap GB/s", "tmpfs GB/s", "ratio"],
    );
    let mut fed = Fed::with(Mount::new().ring("1G").lifetime(std::time::Duration::from_secs(300)));
    fed.feed.send(PACKETS, PAYLOAD);
    fed.daemon.wait_stored(ALIAS, PACKETS);
    let replay = fed.daemon.path("web/replay.pcap");
    let folder = tempfile::tempdir_in("/dev/shm").expect("a folder on tmpfs");
    let copy = folder.path().join("copy.pcap");
    let _ = run(tool("cp").arg(&replay).arg(&copy), 60).success();
    let _ = run(tool("cmp").arg(&replay).arg(&copy), 60).success();

    let mut noise = Noise::default();
    for (size, target) in READS {
        let (mut ours, mut theirs) = (Sample::default(), Sample::default());
        // A read takes half a second, so more rounds cost little.
        for _ in 0..effort.rounds * 2 {
            let (replayed, copied) = noise.quietly(|| (read(&replay, size), read(&copy, size)));
            ours.push(replayed);
            theirs.push(copied);
        }
        let ratio = ours.over(&theirs);
        section.row([size.to_owned(), ours.show(2), theirs.show(2), ratio.show(2)]);
        section.verdict(
            &format!("replay.pcap over tmpfs, {size} reads"),
            format!("{}x", ratio.show(2)),
            &format!("{target}x or more"),
            ratio.median() >= target,
        );
    }
    let bytes = std::fs::metadata(&copy).expect("it was copied").len();
    section.note(format!(
        "{:.0} MiB of records with {PAYLOAD} bytes of payload; memory beside the ring afterwards \
         {:.1} MiB.",
        mebibytes(bytes),
        mebibytes(Memory::of(fed.daemon.pid()).beside_ring()),
    ));
    section.note(noise.show());
    section
}

/// Bytes per nanosecond, as reported by dd.
fn read(path: &Path, size: &str) -> f64 {
    let mut command = tool("dd");
    command.arg(format!("if={}", path.display()));
    let finished = run(command.args(["of=/dev/null", &format!("bs={size}")]), 60).success();
    // 1073741824 bytes (1.1 GB, 1.0 GiB) copied, 0.4 s, 2.7 GB/s
    let line = finished.stderr.lines().last().expect("dd says how fast it was");
    let bytes: f64 = line.split(' ').next().and_then(|word| word.parse().ok()).expect("bytes");
    let seconds = line.split("copied, ").nth(1).and_then(|rest| rest.split(' ').next());
    let seconds: f64 = seconds.and_then(|word| word.parse().ok()).expect("seconds");
    bytes / seconds / 1e9
}
