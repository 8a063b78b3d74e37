//! The same number of packets in few flows and in many: what one costs must not depend on that.

use std::io;
use std::path::{Path, PathBuf};

use pcapfs_tests::segments::{From, Segments, flags};

use crate::Effort;
use crate::load::Noise;
use crate::memory::mebibytes;
use crate::mounted::{Mounted, cached};
use crate::report::Section;
use crate::sample::Sample;

const PACKETS: u32 = 4_000_000;
const FLOWS: [u32; 4] = [1_000, 10_000, 100_000, 1_000_000];
/// What one packet may cost among the most flows over what it costs among the fewest.
const TARGET: f64 = 2.0;

pub(crate) fn measure(effort: Effort) -> Section {
    let mut section = Section::new(
        "4,000,000 packets in more and more flows",
        &["flows", "packets of each", "CPU us/packet", "ended after s", "own memory MiB"],
    );
    let mut noise = Noise::default();
    let mut cpu = FLOWS.map(|_| Sample::default());
    let mut took = FLOWS.map(|_| Sample::default());
    let mut memory = FLOWS.map(|_| Sample::default());
    for _ in 0..effort.rounds {
        for (index, flows) in FLOWS.into_iter().enumerate() {
            let file = capture(flows);
            let mounted = noise.quietly(|| Mounted::with(&file, &[]));
            cpu[index].push(mounted.cpu.as_secs_f64() * 1e6 / f64::from(PACKETS));
            took[index].push(mounted.took.as_secs_f64());
            memory[index].push(mebibytes(mounted.peak()));
        }
    }
    for (index, flows) in FLOWS.into_iter().enumerate() {
        section.row([
            flows.to_string(),
            (PACKETS / flows).to_string(),
            cpu[index].show(3),
            took[index].show(2),
            memory[index].show(0),
        ]);
    }
    let ratio = cpu[FLOWS.len() - 1].over(&cpu[0]);
    section.verdict(
        "CPU per packet in 1,000,000 flows over that in 1,000",
        format!("{}x", ratio.show(2)),
        &format!("{TARGET}x or less"),
        ratio.median() <= TARGET,
    );
    section.note(
        "Segments with eight bytes, one of each flow after the other, so that no flow is in the \
         processor's caches when its next one comes. Every flow also has to be made: among the \
         most, with every fourth packet."
            .to_owned(),
    );
    section.note(noise.show());
    section
}

/// A savefile of [`PACKETS`] packets in that many flows.
pub(crate) fn capture(flows: u32) -> PathBuf {
    cached(&format!("segments-{flows}.pcap"), |path| write(path, flows).expect("room on the disk"))
}

fn write(path: &Path, flows: u32) -> io::Result<()> {
    let mut file = Segments::create(path)?;
    for round in 0..PACKETS / flows {
        for number in 0..flows {
            match round {
                0 => file.push(number, From::Client, flags::SYN, [0, 0], b"")?,
                _ => {
                    let sequence = 1 + 8 * (round - 1);
                    file.push(number, From::Client, flags::ACK, [sequence, 1], b"8 bytes.")?;
                }
            }
        }
    }
    file.finish()
}
