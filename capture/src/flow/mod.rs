//! Flows: connections as views of a store.
//!
//! ```text
//!   store ──▶ engine ──jobs──▶ recorder ──lines──▶ log: flows.jsonl, http.jsonl, dns.jsonl
//!               │                  │
//!               ▼                  ▼
//!             table: conversations by id, each with its packets, streams and app ◀── files
//!               ▲
//!            locator: where the record of a packet lies
//! ```
//!
//! The [engine] makes an [arrival] of each packet and passes it to the packet's [conversation]. The
//! conversation passes the bytes that the packet adds to a stream to one of the [apps], the
//! protocol spoken over that stream. Transactions and connections that end there are reported back
//! to the engine as [news], and the engine passes them to the [recorder]. Imports follow the same
//! direction, and never go back.
//!
//! The [engine] is one more cursor over the store, in its own thread. It looks at every packet once
//! and holds nothing up. Of each packet it keeps a number in the list of its flow and, for the
//! payload, a place in a stream. The bytes of a stream are gathered from the store when a reader
//! asks for them. Bytes that the store has dropped are holes, and a flow leaves the table with its
//! last packet.
//!
//! The [recorder] is a second thread, because it must decode a body to record its length. The
//! engine waits for the recorder when the queue between them is full; the capture waits for
//! neither. When the capture is about to overtake the engine because of that, the recorder stops
//! decoding, and leaves bodies as they were sent.
//!
//! Everything that strangers can make grow is limited by [`FlowLimits`], by the limits of `tcp` and
//! `http`, and by those of [`decode`](protocol::decode). Counters record what was given up because
//! of a limit.

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
use protocol::http::direction::MessageRole;

use crate::priority::come_after_capture;
use crate::store::Store;

pub use apps::{Application, ApplicationSet};
use conversation::Flow;
use engine::Engine;
pub use error::{FlowOpenError, FlowReadError};
pub use file::{BodyEntry, ContentOperation, File, FlowEntry, Log, Seek, Stat};
pub use files::reading::FileReading;
pub use log::set::DroppedLines;
use log::set::Logs;
use made::Contents;
pub use options::{FlowLimits, FlowOptions};
pub use outside::Undecodable;
use recorder::RecorderQueue;
use shared::SharedFlows;

/// Maximum number of batches the engine is ahead of the recorder. A batch has some 500 jobs, so
/// eight of them take a few megabytes.
const QUEUE: usize = 8;

/// `flows` of `status.json`. The fields are in the order of the file.
///
/// Every flow since the start is counted in `open`, `closed` or `evicted`.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, serde::Serialize)]
pub struct FlowCounters {
    /// Flows under way now.
    pub open: u64,
    /// Flows that ended by themselves since the start.
    pub closed: u64,
    /// Flows that ended because of a limit, or because their last packet was overwritten, since the
    /// start.
    pub evicted: u64,
    /// Packets stored that the engine has not looked at yet.
    pub engine_lag_packets: u64,
    /// Packets that were overwritten before the engine reached them.
    pub engine_lost_packets: u64,
    /// Packets that are in no flow. Every stored packet is in a flow, counts here, waits for the
    /// engine, or is lost to it.
    pub undecodable: u64,
    /// Missing ranges of streams.
    pub gaps: u64,
    /// Segments with bytes that differ from an earlier copy.
    pub overlap_conflicts: u64,
    /// Flows that left the tree because of a limit while some of their packets were retained.
    pub dropped: u64,
    /// Segments that came after the end of their connection. They are in no flow.
    pub late: u64,
    /// Packets that are in no flow, by reason.
    pub undecodable_by: Undecodable,
    /// Lines dropped from the logs to keep them within their limit.
    pub log_lines_dropped: u64,
    /// The same, by the file of the log: the first line of a file has the next number.
    pub log_lines_dropped_by: DroppedLines,
    /// Bytes of memory used by flows, and by the structures that find flows and their packets.
    pub memory: u64,
    /// The same value, under a name with the unit.
    pub memory_bytes: u64,
}

/// The engine of one capture, and the flows it has found.
#[derive(Debug)]
pub struct Flows {
    shared: Arc<SharedFlows>,
    threads: Mutex<Vec<JoinHandle<()>>>,
}

impl Flows {
    /// Starts the engine over the store of the capture named `capture`.
    ///
    /// # Errors
    /// If a thread cannot be started.
    pub fn start(capture: &str, store: Arc<dyn Store>, options: FlowOptions) -> io::Result<Self> {
        let limit = options.limits.log;
        // Packets that a ring lost in an earlier life were not lost by this engine.
        let first = store.bounds().oldest.number;
        let logs = Logs::new(limit);
        let shared = Arc::new(SharedFlows {
            capture: capture.into(),
            store,
            table: RwLock::default(),
            locator: RwLock::default(),
            logs: logs.logs(),
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
            outside: outside::OutsideCounts::default(),
            gaps: AtomicU64::new(0),
            conflicts: AtomicU64::new(0),
            waiting: AtomicUsize::new(0),
        });
        let (sender, jobs) = sync_channel(QUEUE);
        let (back, spent) = sync_channel(2 * QUEUE);
        let queue = RecorderQueue { jobs, spent: back };
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

    /// The current counters.
    #[must_use]
    pub fn counters(&self) -> FlowCounters {
        let shared = &self.shared;
        let load = |counter: &AtomicU64| counter.load(Ordering::Relaxed);
        // Ended flows first: a flow that opens between these loads then counts as open.
        let (closed, evicted) = (load(&shared.closed), load(&shared.evicted));
        let opened = load(&shared.opened);
        let next = shared.store.bounds().next.number;
        let outside = shared.outside.get();
        let memory = shared.table.read().memory().saturating_add(shared.memory_beside_flows());
        let dropped_lines = DroppedLines::of(&shared.logs);
        FlowCounters {
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
            log_lines_dropped: dropped_lines.total(),
            log_lines_dropped_by: dropped_lines,
            memory: memory as u64,
            memory_bytes: memory as u64,
        }
    }

    /// Returns `true` if everything stored so far is in the tree and, once the store has ended,
    /// every flow has ended too.
    #[must_use]
    pub fn is_caught_up(&self) -> bool {
        let bounds = self.shared.store.bounds();
        let recorded = self.shared.recorded.load(Ordering::Acquire) >= bounds.next.number;
        recorded && (!bounds.ended || self.shared.is_over.load(Ordering::Acquire))
    }

    /// Visits the flows from id `from` on, in order of their ids, until `visit` breaks.
    ///
    /// The engine waits during the visit, so visit one page at a time, not all flows.
    pub fn list(&self, from: u64, visit: &mut dyn FnMut(&FlowEntry) -> ControlFlow<()>) {
        for flow in self.shared.table.read().from(from) {
            if visit(&entry(flow)).is_break() {
                return;
            }
        }
    }

    /// One flow; `None` if it does not exist, or no longer.
    #[must_use]
    pub fn flow(&self, id: u64) -> Option<FlowEntry> {
        self.shared.table.read().flow(id).map(entry)
    }

    /// Visits the bodies of a flow from transaction `from` on, request before response, until
    /// `visit` breaks.
    pub fn bodies(&self, id: u64, from: u64, visit: &mut dyn FnMut(&BodyEntry) -> ControlFlow<()>) {
        let table = self.shared.table.read();
        let Some(flow) = table.flow(id) else { return };
        for view in flow.transactions(from) {
            for direction in [MessageRole::Request, MessageRole::Response] {
                let Some(name) = view.file(direction) else { continue };
                let (index, name) = (view.index(), name.into_owned());
                if visit(&BodyEntry { index, direction, name }).is_break() {
                    return;
                }
            }
        }
    }

    /// Size and time of a file; `None` if the file does not exist, or no longer.
    #[must_use]
    pub fn stat(&self, id: u64, file: File) -> Option<Stat> {
        self.shared.stat(id, file)
    }

    /// Returns `true` if this operation on a file may take longer than a moment, because bodies
    /// must be decoded for it or because text is made for it.
    #[must_use]
    pub fn takes_long(&self, id: u64, file: File, operation: ContentOperation) -> bool {
        file.is_made_to(operation) && self.shared.effort(id, file) > made::QUICK
    }

    /// Opens a file of a flow. The file begins at `beginning`, see [`Stat::beginning`].
    ///
    /// # Errors
    /// [`FlowOpenError`]
    pub fn open(&self, id: u64, file: File, beginning: u64) -> Result<FileReading, FlowOpenError> {
        let content = self.shared.content(id, file, beginning)?;
        if file == File::Har {
            self.shared.hars.lock().opened(id);
        }
        FileReading::new(Arc::clone(&self.shared), content).ok_or(FlowOpenError::Gone)
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
    pub fn open_log(&self, log: Log, beginning: u64) -> FileReading {
        FileReading::of_log(Arc::clone(&self.shared), log, beginning)
    }

    /// Size of the capture's `http-open.jsonl`. The file is made to find its size.
    #[must_use]
    pub fn open_http_stat(&self) -> Stat {
        let size = self.shared.open_http().map_or(0, |lines| lines.len()) as u64;
        let modified = self.shared.store.bounds().newest_time.unwrap_or_default();
        Stat { size, present: size, modified, beginning: 0, is_final: false }
    }

    /// Opens the capture's `http-open.jsonl`: one line for each transaction under way.
    ///
    /// # Errors
    /// [`FlowOpenError::NoRoom`]
    pub fn open_http(&self) -> Result<FileReading, FlowOpenError> {
        let lines = self.shared.keep(self.shared.open_http()?)?;
        Ok(FileReading::of_made(Arc::clone(&self.shared), lines))
    }

    /// Returns `true` if making `http-open.jsonl` may take longer than a moment.
    #[must_use]
    pub fn open_http_takes_long(&self) -> bool {
        self.shared.table.read().has_much_open_http()
    }

    /// Size of the capture's `http.har`. The file is made to find its size.
    #[must_use]
    pub fn har_stat(&self) -> Stat {
        let size = self.shared.all_har().map_or(0, |packed| packed.log.end());
        let modified = self.shared.store.bounds().newest_time.unwrap_or_default();
        Stat { size, present: size, modified, beginning: 0, is_final: false }
    }

    /// Opens the capture's `http.har`: all ended transactions of its flows.
    ///
    /// # Errors
    /// [`FlowOpenError::NoRoom`]
    pub fn har(&self) -> Result<FileReading, FlowOpenError> {
        let packed = self.shared.all_har()?;
        Ok(FileReading::of_packed(Arc::clone(&self.shared), packed))
    }

    /// Ends the threads. The flows found so far stay readable.
    pub fn stop(&self) {
        self.shared.stop.store(true, Ordering::Release);
        for thread in self.threads.lock().drain(..) {
            thread.thread().unpark();
            // A thread that panicked has reported it on standard error.
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
        applications: flow.kept.applications(),
        is_over: flow.is_sealed,
    }
}
