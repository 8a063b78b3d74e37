//! Time from exec to ready, and the memory of a daemon that has just started.

use std::time::Instant;

use pcapfs_tests::{ALIAS, Mount, Net};

use crate::Effort;
use crate::load::{Noise, Watch};
use crate::memory::{Memory, mebibytes};
use crate::report::Section;
use crate::sample::Sample;

const RINGS: [&str; 2] = ["64M", "1G"];

#[derive(Debug, Default)]
struct Figures {
    ready: Sample,
    ring: Sample,
    socket: Sample,
    anonymous: Sample,
    program: Sample,
    beside: Sample,
}

pub(crate) fn measure(effort: Effort) -> Section {
    let mut section = Section::new(
        "Start, and memory beside the ring after 100,000 packets",
        &[
            "ring",
            "ready after ms",
            "MiB of the ring",
            "packet socket",
            "own memory",
            "program",
            "all beside the ring",
        ],
    );
    let mut noise = Noise::default();
    let mut all = RINGS.map(|_| Figures::default());
    for _ in 0..effort.rounds * 2 {
        for (ring, figures) in RINGS.iter().zip(&mut all) {
            let net = Net::new();
            let watch = Watch::when_quiet();
            let begin = Instant::now();
            let mount = Mount::new().inside(&net.a).ring(ring).capture(ALIAS, Net::DEVICE);
            let daemon = mount.start();
            figures.ready.push(begin.elapsed().as_secs_f64() * 1e3);
            noise.round(&watch);
            net.sender(1400).send(100_000);
            daemon.wait_state(ALIAS, "running");
            let memory = Memory::of(daemon.pid());
            for (sample, bytes) in [
                (&mut figures.ring, memory.ring),
                (&mut figures.socket, memory.socket),
                (&mut figures.anonymous, memory.anonymous),
                (&mut figures.program, memory.program),
                (&mut figures.beside, memory.beside_ring()),
            ] {
                sample.push(mebibytes(bytes));
            }
        }
    }
    for (ring, figures) in RINGS.iter().zip(&all) {
        section.row([
            (*ring).to_owned(),
            figures.ready.show(0),
            figures.ring.show(1),
            figures.socket.show(1),
            figures.anonymous.show(1),
            figures.program.show(1),
            figures.beside.show(1),
        ]);
        section.verdict(
            &format!("ready after start, ring of {ring}"),
            format!("{} ms", figures.ready.show(0)),
            "300 ms or less",
            figures.ready.median() <= 300.0,
        );
        section.verdict(
            &format!("memory beside the ring of {ring}"),
            format!("{} MiB", figures.beside.show(1)),
            "32 MiB or less",
            figures.beside.median() <= 32.0,
        );
    }
    section.note(noise.show());
    section
}
