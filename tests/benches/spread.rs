//! Ways of spreading flows over threads, beside each other on the same captures.

use std::path::PathBuf;

use crate::Effort;
use crate::load::Noise;
use crate::memory::mebibytes;
use crate::mounted::Mounted;
use crate::report::Section;
use crate::sample::Sample;
use crate::{directory, growth, objects};

/// Name of a way, and the arguments that make a daemon go it. `--daemon ARG` tries out others.
const WAYS: &[(&str, &[&str])] = &[("as built", &[])];

pub(crate) fn measure(effort: Effort) -> Section {
    let mut section = Section::new(
        "Ways of spreading flows over threads",
        &["capture", "way", "ended after s", "CPU s", "own memory MiB"],
    );
    let mut captures: Vec<(&str, PathBuf)> = vec![
        ("4,000,000 packets, 1,000 flows", growth::capture(1_000, 1)),
        ("4,000,000 packets, 1,000,000 flows", growth::capture(1_000_000, 1)),
        ("1,000,000 SYNs", directory::capture(1_000_000)),
    ];
    captures.extend(objects::capture().map(|path| ("1 GB of HTTP", path)));
    let mut noise = Noise::default();
    for (name, capture) in &captures {
        let mut figures: Vec<[Sample; 3]> = WAYS.iter().map(|_| Default::default()).collect();
        for _ in 0..effort.rounds {
            for ((_, arguments), figures) in WAYS.iter().zip(&mut figures) {
                let mounted = noise.quietly(|| Mounted::with(capture, arguments));
                figures[0].push(mounted.took.as_secs_f64());
                figures[1].push(mounted.cpu.as_secs_f64());
                figures[2].push(mebibytes(mounted.peak()));
            }
        }
        for ((way, _), [took, cpu, memory]) in WAYS.iter().zip(&figures) {
            section.row([
                (*name).to_owned(),
                (*way).to_owned(),
                took.show(2),
                cpu.show(2),
                memory.show(0),
            ]);
        }
    }
    section.note(noise.show());
    section
}
