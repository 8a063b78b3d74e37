//! The load of other programs on the machine during a measurement.

use std::collections::HashMap;
use std::fs;
use std::thread;
use std::time::{Duration, Instant};

use crate::cores;

/// Maximum share of the machine that others may use before a round is called noisy.
const NOISY: f64 = 0.05;

/// Maximum wait for a quiet machine before a round.
const PATIENCE: Duration = Duration::from_secs(5);

/// Clock ticks a second in `/proc`, which the kernel fixes for programs (`USER_HZ`).
const TICKS: f64 = 100.0;

/// Watches the machine from its creation on.
#[derive(Debug)]
pub(crate) struct Watch {
    begin: Instant,
    before: Used,
}

/// Maximum number of attempts at a run that others disturb.
const ATTEMPTS: usize = 3;

/// Ticks used so far.
#[derive(Debug)]
struct Used {
    /// By processes that belong neither to this program nor to the kernel, including processes that
    /// have ended.
    others: u64,
    /// By other machines on the same host.
    stolen: u64,
}

impl Watch {
    /// Waits a while for the machine to be quiet and starts watching.
    pub(crate) fn when_quiet() -> Self {
        let limit = Instant::now() + PATIENCE;
        loop {
            let look = Self::now();
            // The span over which the load is measured.
            thread::sleep(Duration::from_millis(250));
            if look.others() < NOISY || Instant::now() > limit {
                return Self::now();
            }
        }
    }

    fn now() -> Self {
        Self { begin: Instant::now(), before: Used::now() }
    }

    /// Share of the machine that others have used, 0 to 1.
    fn others(&self) -> f64 {
        let now = Used::now();
        let ticks = now.others.saturating_sub(self.before.others)
            + now.stolen.saturating_sub(self.before.stolen);
        ticks as f64 / TICKS / self.begin.elapsed().as_secs_f64() / cores::count() as f64
    }
}

/// Rounds in which others used much of the machine.
#[derive(Debug, Default)]
pub(crate) struct Noise {
    rounds: usize,
    noisy: Vec<(usize, f64)>,
    most: f64,
}

impl Noise {
    /// Runs something on a quiet machine, and repeats it a few times if the machine does not stay
    /// quiet. Returns the result of the last run.
    pub(crate) fn quietly<T>(&mut self, mut run: impl FnMut() -> T) -> T {
        for _ in 1..ATTEMPTS {
            let watch = Watch::when_quiet();
            let result = run();
            let others = watch.others();
            if others < NOISY {
                self.count(others);
                return result;
            }
        }
        let watch = Watch::when_quiet();
        let result = run();
        self.round(&watch);
        result
    }

    /// Counts a run that has just ended.
    pub(crate) fn round(&mut self, watch: &Watch) {
        self.count(watch.others());
    }

    fn count(&mut self, others: f64) {
        self.rounds += 1;
        self.most = self.most.max(others);
        if others >= NOISY {
            self.noisy.push((self.rounds, others));
        }
    }

    /// A one-sentence summary.
    pub(crate) fn show(&self) -> String {
        if self.noisy.is_empty() {
            return format!(
                "Others used at most {:.0} % of the machine in any run.",
                self.most * 100.0
            );
        }
        let noisy: Vec<_> = self
            .noisy
            .iter()
            .map(|(round, others)| format!("{round} ({:.0} %)", others * 100.0))
            .collect();
        format!(
            "NOISY: others used more than {:.0} % of the machine in {} of {} runs: {}.",
            NOISY * 100.0,
            noisy.len(),
            self.rounds,
            noisy.join(", ")
        )
    }
}

impl Used {
    fn now() -> Self {
        // Parent, and ticks including those of children that have ended; fields of proc(5).
        let mut table: HashMap<u32, (u32, u64)> = HashMap::new();
        for entry in fs::read_dir("/proc").expect("/proc is mounted").flatten() {
            let Some(pid) = entry.file_name().to_str().and_then(|name| name.parse().ok()) else {
                continue;
            };
            let Ok(stat) = fs::read_to_string(entry.path().join("stat")) else { continue };
            let Some((_, fields)) = stat.rsplit_once(')') else { continue };
            let fields: Vec<u64> =
                fields.split_whitespace().map(|field| field.parse().unwrap_or(0)).collect();
            table.insert(pid, (fields[1] as u32, fields[11..15].iter().sum()));
        }
        let ours = |mut pid: u32| {
            // Kernel threads, whose parent is 2, also work for this program.
            while let Some((parent, _)) = table.get(&pid) {
                if pid == std::process::id() || pid == 2 {
                    return true;
                }
                pid = *parent;
            }
            false
        };
        let others =
            table.iter().filter(|(pid, _)| !ours(**pid)).map(|(_, (_, ticks))| ticks).sum();
        let stat = fs::read_to_string("/proc/stat").expect("/proc is mounted");
        let stolen = stat.split_whitespace().nth(8).and_then(|field| field.parse().ok());
        Self { others, stolen: stolen.unwrap_or(0) }
    }
}
