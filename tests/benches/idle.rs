//! A thousand readers that wait on an idle link, compared with no reader.

use std::thread;
use std::time::{Duration, Instant};

use pcapfs_tests::{ALIAS, Wired, measure, wait_until};

use crate::Effort;
use crate::fanout::follow;
use crate::load::{Noise, Watch};
use crate::memory::{Memory, mebibytes};
use crate::report::Section;
use crate::sample::Sample;

const READERS: usize = 1000;
const WINDOW: Duration = Duration::from_secs(10);

#[derive(Debug, Default)]
struct Figures {
    cpu: Sample,
    memory: Sample,
    threads: Sample,
    descriptors: Sample,
}

pub(crate) fn measure(effort: Effort) -> Section {
    let mut section = Section::new(
        "Blocked readers on an idle link",
        &["readers", "daemon CPU % of a core", "MiB beside the ring", "threads", "descriptors"],
    );
    let mut noise = Noise::default();
    let (mut none, mut many) = (Figures::default(), Figures::default());
    let mut grown = Sample::default();
    for _ in 0..effort.rounds.min(2) {
        let watch = Watch::when_quiet();
        let wired = Wired::start();
        let before = window(&wired, &mut none);
        let live = wired.daemon.path("web/live.pcap");
        let readers: Vec<_> = (0..READERS).map(|_| follow(&live)).collect();
        wait_until("all readers wait", 30, || {
            let waiting = wired.daemon.readers(ALIAS);
            waiting.iter().filter(|reader| reader["blocked"] == true).count() == READERS
        });
        let after = window(&wired, &mut many);
        grown.push(mebibytes(after.saturating_sub(before)));
        drop(wired);
        readers.into_iter().for_each(|reader| drop(reader.join().expect("it read to the end")));
        noise.round(&watch);
    }
    for (readers, figures) in [(0, &none), (READERS, &many)] {
        section.row([
            readers.to_string(),
            figures.cpu.show(2),
            figures.memory.show(1),
            figures.threads.show(0),
            figures.descriptors.show(0),
        ]);
    }
    section.verdict(
        "daemon CPU with 1,000 blocked readers",
        format!("{} % of a core (none: {} %)", many.cpu.show(2), none.cpu.show(2)),
        "below 1 %",
        many.cpu.median() < 1.0,
    );
    section.verdict(
        "memory for 1,000 blocked readers",
        format!("{} MiB", grown.show(1)),
        "16 MiB or less",
        grown.median() <= 16.0,
    );
    section.note(noise.show());
    section
}

/// Watches a daemon for a while. Returns its memory without the ring, in bytes.
fn window(wired: &Wired, figures: &mut Figures) -> u64 {
    let pid = wired.daemon.pid();
    let (cpu, begin) = (measure::cpu_time(pid), Instant::now());
    thread::sleep(WINDOW);
    let cpu = measure::cpu_time(pid).saturating_sub(cpu);
    figures.cpu.push(100.0 * cpu.as_secs_f64() / begin.elapsed().as_secs_f64());
    let memory = Memory::of(pid).beside_ring();
    figures.memory.push(mebibytes(memory));
    figures.threads.push(measure::threads(pid) as f64);
    figures.descriptors.push(measure::descriptors(pid) as f64);
    memory
}
