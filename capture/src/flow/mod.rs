//! Flows: connections as views of a store.
//!
//! ```text
//!   store ──▶ engine ──jobs──▶ recorder ──lines──▶ log: flows.jsonl, http.jsonl
//!               │                  │
//!               ▼                  ▼
//!             table: conversations by id, each with its packets, streams and app ◀── files
//!               ▲
//!            locator: where the record of a packet lies
//! ```
//!
//! A packet goes from the [engine], as an [arrival], to its [conversation]; the bytes that it adds to
//! a stream go on to what speaks over it, one of the [apps]. What ended there comes back to the
//! engine as [news], and goes to the [recorder]. Imports go the same way, and never back.
//!
//! The [engine] is one more cursor over the store, in its own thread: it looks at every packet once
//! and holds nobody up. What it keeps of a packet is a number in the list of its flow, and for its
//! payload a place in a stream. Whoever reads a stream has the bytes gathered from the store then;
//! those that the store has dropped are holes, and a flow leaves the table with its last packet.
//!
//! The [recorder] is a second thread, since to say how long a body is takes decoding it. The engine
//! waits for it when the queue between them is full; the capture waits for neither. Before the
//! capture overtakes the engine for that, bodies are left as they were sent.
//!
//! Everything that strangers can make grow is bounded by [`Limits`], `tcp`'s and `http`'s limits,
//! and those of [`decode`](protocol::decode). Counters say what was given up for them.

#![warn(clippy::indexing_slicing, clippy::unwrap_used, clippy::expect_used, clippy::panic)]

mod apps;
mod arrival;
mod conversation;
mod engine;
mod error;
mod file;
mod files;
mod key;
mod locator;
mod log;
mod made;
mod memory;
mod meta;
mod news;
mod options;
mod outside;
mod pair;
mod places;
mod recorder;
mod shared;
mod state;
mod table;
mod window;

use std::io;
use std::ops::ControlFlow;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, AtomicUsize, Ordering};
use std::sync::mpsc::sync_channel;
use std::thread::{self, JoinHandle};

use parking_lot::{Mutex, RwLock};
use protocol::http::direction::Direction;

use crate::priority::come_after_capture;
use crate::store::Store;

use conversation::Flow;
use engine::Engine;
pub use error::{OpenError, ReadError};
pub use file::{BodyEntry, File, FlowEntry, Log, Seek, Stat};
pub use files::reading::Reading;
use log::LogWriter;
use made::Contents;
pub use options::{Limits, Options};
pub use outside::Undecodable;
use recorder::{Logs, Queue};
use shared::Shared;

/// Batches the engine may be ahead of the recorder: with some 500 jobs each, a few megabytes.
const QUEUE: usize = 8;

/// `flows` of `status.json`; the order of the fields is that of the file.
///
/// Every flow there ever was is `open`, `closed` or `evicted`.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, serde::Serialize)]
pub struct Counters {
    /// Under way now.
    pub open: u64,
    /// Ended by themselves since the start.
    pub closed: u64,
    /// Ended for a bound, or since their last packet was overwritten, since the start.
    pub evicted: u64,
    /// Packets stored that the engine has not looked at yet.
    pub engine_lag_packets: u64,
    /// Packets that were overwritten before the engine came to them.
    pub engine_lost_packets: u64,
    /// Packets that are in no flow: those stored are in flows, or count here, or wait for the engine,
    /// or are lost to it.
    pub undecodable: u64,
    /// Ranges of streams that are missing.
    pub gaps: u64,
    /// Segments with bytes that differ from an earlier copy.
    pub overlap_conflicts: u64,
    /// Flows that left the tree for a bound while packets of theirs were retained.
    pub dropped: u64,
    /// Segments that came after the end of their connection, and are in no flow.
    pub late: u64,
    /// Packets that are in no flow, by why they are not.
    pub undecodable_by: Undecodable,
    /// Lines that left the logs for their bound.
    pub log_lines_dropped: u64,
    /// Bytes of memory that flows, and what finds them and their packets, take up.
    pub memory: u64,
    /// The same, under a name that says the unit.
    pub memory_bytes: u64,
}

/// The engine of one capture and what it has found.
#[derive(Debug)]
pub struct Flows {
    shared: Arc<Shared>,
    threads: Mutex<Vec<JoinHandle<()>>>,
}

impl Flows {
    /// Starts the engine over the store of the capture that is named `capture`.
    ///
    /// # Errors
    /// If a thread cannot be had.
    pub fn start(capture: &str, store: Arc<dyn Store>, options: Options) -> io::Result<Self> {
        let limit = options.limits.log;
        // What a ring lost in an earlier life was not lost by this engine.
        let first = store.bounds().oldest.number;
        let logs = Logs { flows: LogWriter::new(limit), http: LogWriter::new(limit) };
        let shared = Arc::new(Shared {
            capture: capture.into(),
            store,
            table: RwLock::default(),
            locator: RwLock::default(),
            flow_log: Arc::clone(logs.flows.log()),
            http_log: Arc::clone(logs.http.log()),
            hars: Mutex::default(),
            bodies: Contents::new(options.limits.room()),
            stop: AtomicBool::new(false),
            position: AtomicU64::new(first),
            oldest: AtomicU64::new(first),
            recorded: AtomicU64::new(first),
            batches: AtomicU64::new(0),
            is_over: AtomicBool::new(false),
            opened: AtomicU64::new(0),
            closed: AtomicU64::new(0),
            evicted: AtomicU64::new(0),
            dropped: AtomicU64::new(0),
            lost: AtomicU64::new(0),
            outside: outside::Counts::default(),
            gaps: AtomicU64::new(0),
            conflicts: AtomicU64::new(0),
            waiting: AtomicUsize::new(0),
        });
        let (sender, jobs) = sync_channel(QUEUE);
        let (back, spent) = sync_channel(2 * QUEUE);
        let queue = Queue { jobs, spent: back };
        let recorder = Arc::clone(&shared);
        let recorder = thread::Builder::new().name("recorder".to_owned()).spawn(move || {
            come_after_capture();
            recorder::run(&recorder, logs, &queue);
        })?;
        let engine = Arc::clone(&shared);
        let engine = thread::Builder::new().name("flows".to_owned()).spawn(move || {
            come_after_capture();
            Engine::new(engine, sender, spent, options).run();
        })?;
        Ok(Self { shared, threads: Mutex::new(vec![engine, recorder]) })
    }

    /// Counters as of now.
    #[must_use]
    pub fn counters(&self) -> Counters {
        let shared = &self.shared;
        let load = |counter: &AtomicU64| counter.load(Ordering::Relaxed);
        // Ended ones first: what is opened meanwhile is open.
        let (closed, evicted) = (load(&shared.closed), load(&shared.evicted));
        let opened = load(&shared.opened);
        let next = shared.store.bounds().next.number;
        let outside = shared.outside.get();
        let memory = shared.table.read().memory().saturating_add(shared.memory_beside_flows());
        Counters {
            open: opened.saturating_sub(closed).saturating_sub(evicted),
            closed,
            evicted,
            engine_lag_packets: next.saturating_sub(load(&shared.position)),
            engine_lost_packets: load(&shared.lost),
            undecodable: outside.total(),
            gaps: load(&shared.gaps),
            overlap_conflicts: load(&shared.conflicts),
            dropped: load(&shared.dropped),
            late: outside.late,
            undecodable_by: outside,
            log_lines_dropped: shared
                .flow_log
                .dropped_lines()
                .saturating_add(shared.http_log.dropped_lines()),
            memory: memory as u64,
            memory_bytes: memory as u64,
        }
    }

    /// Whether everything stored so far is in the tree; once the store has ended, also that every
    /// flow has.
    #[must_use]
    pub fn is_caught_up(&self) -> bool {
        let bounds = self.shared.store.bounds();
        let recorded = self.shared.recorded.load(Ordering::Acquire) >= bounds.next.number;
        recorded && (!bounds.ended || self.shared.is_over.load(Ordering::Acquire))
    }

    /// Visits the flows from `from` on, in order of their ids, until told to stop.
    ///
    /// The engine waits meanwhile: visit a page, not all.
    pub fn list(&self, from: u64, visit: &mut dyn FnMut(&FlowEntry) -> ControlFlow<()>) {
        for flow in self.shared.table.read().from(from) {
            if visit(&entry(flow)).is_break() {
                return;
            }
        }
    }

    /// One flow; `None` if it is not (any more) there.
    #[must_use]
    pub fn flow(&self, id: u64) -> Option<FlowEntry> {
        self.shared.table.read().flow(id).map(entry)
    }

    /// Visits the bodies of a flow from transaction `from` on, request before response, until told
    /// to stop.
    pub fn bodies(&self, id: u64, from: u64, visit: &mut dyn FnMut(&BodyEntry) -> ControlFlow<()>) {
        let table = self.shared.table.read();
        let Some(flow) = table.flow(id) else { return };
        for view in flow.transactions(from) {
            for direction in [Direction::Request, Direction::Response] {
                let Some(name) = view.file(direction) else { continue };
                let (index, name) = (view.index(), name.into_owned());
                if visit(&BodyEntry { index, direction, name }).is_break() {
                    return;
                }
            }
        }
    }

    /// Size and time of a file; `None` if there is no such file (any more).
    #[must_use]
    pub fn stat(&self, id: u64, file: File) -> Option<Stat> {
        self.shared.stat(id, file)
    }

    /// Whether opening a file, asking for its size or reading it may take longer than a moment, since
    /// bodies have to be decoded for it or it is made in memory.
    #[must_use]
    pub fn takes_long(&self, id: u64, file: File) -> bool {
        self.shared.effort(id, file) > made::QUICK
    }

    /// Opens a file of a flow that begins at `beginning`, see [`Stat::beginning`].
    ///
    /// # Errors
    /// [`OpenError`]
    pub fn open(&self, id: u64, file: File, beginning: u64) -> Result<Reading, OpenError> {
        let content = self.shared.content(id, file, beginning)?;
        if file == File::Har {
            self.shared.hars.lock().opened(id);
        }
        Reading::new(Arc::clone(&self.shared), content).ok_or(OpenError::Gone)
    }

    /// Size of a log; with `beginning`, of the log that begins there.
    #[must_use]
    pub fn log_stat(&self, log: Log, beginning: Option<u64>) -> Stat {
        let lines = self.shared.log(log);
        let beginning = beginning.unwrap_or_else(|| lines.begin());
        let size = lines.end().saturating_sub(beginning);
        let newest = self.shared.store.bounds().newest_time;
        let modified = newest.unwrap_or_default();
        Stat { size, present: size, modified, beginning, is_final: false }
    }

    /// Opens a log that begins at `beginning`.
    #[must_use]
    pub fn open_log(&self, log: Log, beginning: u64) -> Reading {
        Reading::of_log(Arc::clone(&self.shared), log, beginning)
    }

    /// Size of `http-open.jsonl` of the capture, which is made to know that.
    #[must_use]
    pub fn open_http_stat(&self) -> Stat {
        let size = self.shared.open_http().map_or(0, |lines| lines.len()) as u64;
        let modified = self.shared.store.bounds().newest_time.unwrap_or_default();
        Stat { size, present: size, modified, beginning: 0, is_final: false }
    }

    /// Opens `http-open.jsonl` of the capture: a line for each transaction under way.
    ///
    /// # Errors
    /// [`OpenError::NoRoom`]
    pub fn open_http(&self) -> Result<Reading, OpenError> {
        let lines = self.shared.keep(self.shared.open_http()?)?;
        Ok(Reading::of_made(Arc::clone(&self.shared), lines))
    }

    /// Whether making that may take longer than a moment.
    #[must_use]
    pub fn open_http_takes_long(&self) -> bool {
        self.shared.table.read().has_much_open_http()
    }

    /// Size of `http.har` of the capture, which is made to know that.
    #[must_use]
    pub fn har_stat(&self) -> Stat {
        let size = self.shared.all_har().map_or(0, |packed| packed.log.end());
        let modified = self.shared.store.bounds().newest_time.unwrap_or_default();
        Stat { size, present: size, modified, beginning: 0, is_final: false }
    }

    /// Opens `http.har` of the capture: all transactions of its flows that have ended.
    ///
    /// # Errors
    /// [`OpenError::NoRoom`]
    pub fn har(&self) -> Result<Reading, OpenError> {
        let packed = self.shared.all_har()?;
        Ok(Reading::of_packed(Arc::clone(&self.shared), packed))
    }

    /// Ends the threads. What was found stays readable.
    pub fn stop(&self) {
        self.shared.stop.store(true, Ordering::Release);
        for thread in self.threads.lock().drain(..) {
            thread.thread().unpark();
            // One that panicked has said so on standard error.
            let _ = thread.join();
        }
    }
}

impl Drop for Flows {
    fn drop(&mut self) {
        self.stop();
    }
}

fn entry(flow: &Flow) -> FlowEntry {
    FlowEntry {
        id: flow.id,
        name: key::name(flow.id, &flow.key, flow.client),
        modified: flow.last,
        has_http: flow.http.is_some(),
        is_over: flow.is_sealed,
    }
}
