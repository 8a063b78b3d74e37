//! A thread of the test that reads one of the tree's files at a chosen pace and checks each byte.

use std::fs::File;
use std::io::{ErrorKind, Read};
use std::path::Path;
use std::sync::{Arc, Condvar, Mutex};
use std::thread;
use std::time::{Duration, Instant};

use crate::savefile::{Parser, Seen, Statistics, parser_for};

/// How a [`StreamReader`] reads.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Pace {
    /// Bytes of each read.
    pub size: usize,
    /// Pause after each `every` reads.
    pub pause: Duration,
    /// Reads between two pauses.
    pub every: u32,
}

impl Pace {
    /// As fast as possible.
    pub const FAST: Self = Self { size: 1 << 17, pause: Duration::ZERO, every: 1 };

    /// Reads of `size` bytes, with a pause of a millisecond after each `every` of them.
    #[must_use]
    pub const fn slow(size: usize, every: u32) -> Self {
        Self { size, pause: Duration::from_millis(1), every }
    }
}

/// The state of a reader.
#[derive(Clone, Debug, Default)]
pub struct Progress {
    /// Packets seen.
    pub seen: Seen,
    /// Bytes read.
    pub bytes: u64,
    /// Bytes read that belong to no whole record yet.
    pub rest: usize,
    /// Interface statistics blocks seen.
    pub statistics: Vec<Statistics>,
    /// The end of the file, or the error that stopped it.
    pub end: Option<Result<(), String>>,
}

#[derive(Debug)]
struct Shared {
    progress: Mutex<Progress>,
    changed: Condvar,
    pace: Mutex<Pace>,
}

/// A reader at work. It ends with its file, with the daemon, or at the first wrong byte.
#[derive(Debug)]
pub struct StreamReader {
    shared: Arc<Shared>,
    name: String,
}

impl StreamReader {
    /// Opens a file, which decides where a stream begins, and reads it in a thread.
    ///
    /// # Panics
    /// If it cannot be opened.
    #[must_use]
    pub fn open(path: &Path, pace: Pace) -> Self {
        let file = File::open(path).unwrap_or_else(|error| panic!("{}: {error}", path.display()));
        let name = path.file_name().expect("a file").to_string_lossy().into_owned();
        let shared = Arc::new(Shared {
            progress: Mutex::default(),
            changed: Condvar::new(),
            pace: Mutex::new(pace),
        });
        let mut parser = parser_for(&name);
        thread::spawn({
            let shared = Arc::clone(&shared);
            move || {
                let end = shared.read(file, &mut *parser);
                shared.progress.lock().unwrap().end = Some(end);
                shared.changed.notify_all();
            }
        });
        Self { shared, name }
    }

    /// Continues at another pace.
    pub fn set_pace(&self, pace: Pace) {
        *self.shared.pace.lock().unwrap() = pace;
    }

    /// Its current state.
    #[must_use]
    pub fn progress(&self) -> Progress {
        self.shared.progress.lock().unwrap().clone()
    }

    /// Waits until its state is as wanted, and returns the state.
    ///
    /// # Panics
    /// If it is not after `seconds`, or can no longer become so.
    #[track_caller]
    pub fn wait(&self, what: &str, seconds: u64, wanted: impl Fn(&Progress) -> bool) -> Progress {
        let limit = Instant::now() + Duration::from_secs(seconds);
        let mut progress = self.shared.progress.lock().unwrap();
        while !wanted(&progress) {
            let left = limit.saturating_duration_since(Instant::now());
            let at = progress.clone();
            assert!(at.end.is_none(), "{} ended before {what}: {at:?}", self.name);
            assert!(!left.is_zero(), "{}: after {seconds} s not yet {what}: {at:?}", self.name);
            progress = self.shared.changed.wait_timeout(progress, left).unwrap().0;
        }
        progress.clone()
    }

    /// Waits until it has seen packet `sequence`.
    #[track_caller]
    pub fn wait_last(&self, sequence: u64) -> Progress {
        self.wait(&format!("packet {sequence}"), 20, |progress| progress.seen.last >= sequence)
    }

    /// Waits for a proper end of file, at the end of a record.
    #[track_caller]
    pub fn wait_end(&self) -> Progress {
        let progress = self.wait("its end", 20, |progress| progress.end.is_some());
        assert_eq!(progress.end, Some(Ok(())), "{} at {progress:?}", self.name);
        assert_eq!(progress.rest, 0, "{} ends in a record: {progress:?}", self.name);
        progress
    }
}

impl Shared {
    fn read(&self, mut file: File, parser: &mut dyn Parser) -> Result<(), String> {
        let mut buffer = Vec::new();
        let mut reads = 0;
        loop {
            let pace = *self.pace.lock().unwrap();
            buffer.resize(pace.size, 0);
            let length = match file.read(&mut buffer) {
                Ok(0) => return Ok(()),
                Ok(length) => length,
                Err(error) if error.kind() == ErrorKind::Interrupted => continue,
                Err(error) => return Err(error.to_string()),
            };
            let mut progress = self.progress.lock().unwrap();
            let seen = &mut progress.seen;
            parser.push(&buffer[..length], &mut |record| seen.record(&record))?;
            progress.bytes += length as u64;
            progress.rest = parser.rest().len();
            if progress.statistics.len() != parser.statistics().len() {
                progress.statistics = parser.statistics().to_vec();
            }
            drop(progress);
            self.changed.notify_all();
            reads += 1;
            if !pace.pause.is_zero() && reads % pace.every == 0 {
                thread::sleep(pace.pause);
            }
        }
    }
}
