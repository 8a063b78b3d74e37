//! A savefile mounted, from exec to the last flow, with its time, CPU time and memory.

use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::thread::{self, JoinHandle};
use std::time::{Duration, Instant};

use pcapfs_tests::{ALIAS, Daemon, Mount, measure};

use crate::program;

/// A daemon whose capture has ended.
pub(crate) struct Mounted {
    // Declared before the daemon, so that it is dropped first.
    peak: Peak,
    /// The daemon.
    pub(crate) daemon: Daemon,
    /// Time from exec until the capture was `ended`.
    pub(crate) took: Duration,
    /// CPU time of the daemon until then.
    pub(crate) cpu: Duration,
}

impl Mounted {
    /// Mounts a savefile with further arguments and waits until its capture has ended.
    pub(crate) fn with(file: &Path, arguments: &[&str]) -> Self {
        let begin = Instant::now();
        let daemon = Mount::new()
            .lifetime(Duration::from_secs(900))
            .capture(ALIAS, &format!("file:{}", file.display()))
            .args(arguments)
            .args(program::daemon_arguments())
            .start();
        let peak = Peak::of(&daemon);
        while daemon.status(ALIAS)["state"] != "ended" {
            assert!(begin.elapsed() < Duration::from_secs(600), "{} never ends", file.display());
            thread::sleep(Duration::from_millis(5));
        }
        let took = begin.elapsed();
        let cpu = measure::cpu_time(daemon.pid());
        Self { peak, daemon, took, cpu }
    }

    /// The capture's folder of flows.
    pub(crate) fn flows(&self) -> PathBuf {
        self.daemon.path(ALIAS).join("flows")
    }

    /// Maximum anonymous memory of the daemon so far, in bytes.
    pub(crate) fn peak(&self) -> u64 {
        self.peak.most()
    }
}

/// Maximum anonymous memory of a daemon, sampled a hundred times a second.
struct Peak {
    stop: Arc<AtomicBool>,
    most: Arc<AtomicU64>,
    thread: Option<JoinHandle<()>>,
}

impl Peak {
    fn of(daemon: &Daemon) -> Self {
        let stop = Arc::new(AtomicBool::new(false));
        let most = Arc::default();
        let thread = thread::spawn({
            let (stop, most, pid) = (Arc::clone(&stop), Arc::clone(&most), daemon.pid());
            move || {
                while !stop.load(Ordering::Relaxed) {
                    let most: &AtomicU64 = &most;
                    most.fetch_max(measure::anonymous_memory(pid), Ordering::Relaxed);
                    // The interval of the samples.
                    thread::sleep(Duration::from_millis(10));
                }
            }
        });
        Self { stop, most, thread: Some(thread) }
    }

    fn most(&self) -> u64 {
        self.most.load(Ordering::Relaxed)
    }
}

impl Drop for Peak {
    fn drop(&mut self) {
        self.stop.store(true, Ordering::Relaxed);
        if let Some(thread) = self.thread.take() {
            let _ = thread.join();
        }
    }
}

/// A file in the folder for captures that are made only once. `make` makes it if it is not there.
pub(crate) fn cached(name: &str, make: impl FnOnce(&Path)) -> PathBuf {
    let folder = std::env::temp_dir().join("pcapfs-bench-cache");
    std::fs::create_dir_all(&folder).expect("a folder for captures");
    let path = folder.join(name);
    if !path.exists() {
        // A temporary name, so that an interrupted `make` does not leave a partial file under the
        // real one.
        let unfinished = folder.join(format!("unfinished-{name}"));
        make(&unfinished);
        std::fs::rename(&unfinished, &path).expect("in the same folder");
    }
    path
}
