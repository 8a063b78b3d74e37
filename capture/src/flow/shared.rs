//! The state that the engine, the recorder and all readers of one capture share.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, AtomicUsize, Ordering};

use parking_lot::{Mutex, RwLock};
use protocol::http::direction::MessageRole;

use super::file::Log;
use super::files::hars::Hars;
use super::locator::Locator;
use super::log::LineLog;
use super::log::set::Logs;
use super::made::Contents;
use super::outside;
use super::table::FlowTable;
use super::window::EngineWindow;
use crate::store::Store;

/// State shared by the threads and all readers.
#[derive(Debug)]
pub(super) struct SharedFlows {
    /// Name of the capture.
    pub(super) capture: Arc<str>,
    pub(super) store: Arc<dyn Store>,
    pub(super) table: RwLock<FlowTable>,
    pub(super) locator: RwLock<Locator>,
    pub(super) logs: Logs<Arc<LineLog>>,
    pub(super) hars: Mutex<Hars>,
    /// Decoded bodies that readers have open; `hars` and `meta.json` use the same room.
    pub(super) bodies: Contents<(u64, u64, MessageRole)>,
    pub(super) stop: AtomicBool,
    /// The next packet that the engine will look at.
    pub(super) position: AtomicU64,
    /// The oldest packet retained, as far as the engine knows.
    pub(super) oldest: AtomicU64,
    /// All packets before this are in the tree.
    pub(super) recorded: AtomicU64,
    /// Batches of jobs that the recorder has done.
    pub(super) batches: AtomicU64,
    /// The store has ended, and so has every flow.
    pub(super) is_over: AtomicBool,
    pub(super) opened: AtomicU64,
    pub(super) closed: AtomicU64,
    pub(super) evicted: AtomicU64,
    pub(super) dropped: AtomicU64,
    pub(super) lost: AtomicU64,
    /// Packets that are in no flow.
    pub(super) outside: outside::OutsideCounts,
    pub(super) gaps: AtomicU64,
    pub(super) conflicts: AtomicU64,
    /// Bytes of memory of the engine's lists of waiting flows.
    pub(super) waiting: AtomicUsize,
}

impl SharedFlows {
    /// Bytes of memory of the logs, of the locator, and of the engine's lists of waiting flows.
    pub(super) fn memory_beside_flows(&self) -> usize {
        let logs = self.logs.all().map(|log| log.memory()).sum::<usize>();
        let waiting = self.waiting.load(Ordering::Relaxed);
        logs.saturating_add(self.locator.read().memory()).saturating_add(waiting)
    }

    /// The engine's view between two packets; `bytes` are the records of the chunk that it holds.
    pub(super) fn window<'a>(&'a self, chunk: u64, bytes: &'a [u8]) -> EngineWindow<'a> {
        EngineWindow::between(&*self.store, &self.locator, chunk, bytes)
    }

    /// Records that all packets before `number` are in the tree and, if `is_over`, that every flow
    /// has ended.
    pub(super) fn reached(&self, number: u64, is_over: bool) {
        self.recorded.store(number, Ordering::Release);
        self.is_over.store(is_over, Ordering::Release);
    }

    pub(super) fn log(&self, log: Log) -> &LineLog {
        self.logs.get(log)
    }
}
