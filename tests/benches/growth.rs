//! The same number of packets in few flows and in many: the cost of one packet must not depend on
//! that.
//!
//! Making and recording a flow costs time that is not a cost of its packets. So each case is also
//! measured with three times as many packets, and the difference is the cost of packets.

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
/// Packets of the longer captures as a multiple of the shorter ones.
const TIMES: u32 = 3;
const FLOWS: [u32; 4] = [1_000, 10_000, 100_000, 1_000_000];
/// Maximum cost of a packet in the highest number of flows, as a multiple of its cost in the lowest
/// number of flows that exceeds the processor's caches.
const TARGET: f64 = 1.5;
/// Index in [`FLOWS`] of that lowest number.
const MANY: usize = 1;

pub(crate) fn measure(effort: Effort) -> Section {
    let mut section = Section::new(
        "4,000,000 packets in more and more flows",
        &[
            "flows",
            "packets of each",
            "CPU us/packet, with making the flows",
            "CPU us/packet more",
            "ended after s",
            "own memory MiB",
        ],
    );
    let mut noise = Noise::default();
    let [mut whole, mut cpu, mut took, mut memory] =
        [(); 4].map(|()| FLOWS.map(|_| Sample::default()));
    for _ in 0..effort.rounds {
        for (index, flows) in FLOWS.into_iter().enumerate() {
            let per_packet =
                |mounted: &Mounted| mounted.cpu.as_secs_f64() * 1e6 / f64::from(PACKETS);
            let (once, more) = (capture(flows, 1), capture(flows, TIMES));
            let mounted = noise.quietly(|| Mounted::with(&once, &[]));
            let first = per_packet(&mounted);
            whole[index].push(first);
            took[index].push(mounted.took.as_secs_f64());
            memory[index].push(mebibytes(mounted.peak()));
            drop(mounted);
            let mounted = noise.quietly(|| Mounted::with(&more, &[]));
            cpu[index].push((per_packet(&mounted) - first) / f64::from(TIMES - 1));
        }
    }
    for (index, flows) in FLOWS.into_iter().enumerate() {
        section.row([
            flows.to_string(),
            (PACKETS / flows).to_string(),
            whole[index].show(3),
            cpu[index].show(3),
            took[index].show(2),
            memory[index].show(0),
        ]);
    }
    let ratio = cpu[FLOWS.len() - 1].over(&cpu[MANY]);
    section.verdict(
        "CPU for one more packet in 1,000,000 flows over that in 10,000",
        format!("{}x", ratio.show(2)),
        &format!("{TARGET}x or less"),
        ratio.median() <= TARGET,
    );
    section.note(
        "Segments with eight bytes, one of each flow after the other, so that no flow of many is in \
         the processor's caches when its next one comes. What a packet costs more is measured with \
         12,000,000 packets in as many flows. 1,000 flows are in the caches all the time."
            .to_owned(),
    );
    section.note(noise.show());
    section
}

/// A savefile of [`PACKETS`] packets, multiplied by `times`, in `flows` flows.
fn capture(flows: u32, times: u32) -> PathBuf {
    let name = format!("segments-{flows}-{times}.pcap");
    cached(&name, |path| write(path, flows, times).expect("room on the disk"))
}

fn write(path: &Path, flows: u32, times: u32) -> io::Result<()> {
    let mut file = Segments::create(path)?;
    for round in 0..times * (PACKETS / flows) {
        for number in 0..flows {
            match round {
                0 => file.push(number, From::Client, flags::SYN, [0, 0], b"")?,
                _ => {
                    let sequence = 1 + 8 * (round - 1);
                    file.push(number, From::Client, flags::ACK, [sequence, 1], b"\x008 byte.")?;
                }
            }
        }
    }
    file.finish()
}
