//! The logs of captures, and an index of their flows.
//!
//! Bounds: eight captures at a time, the one that was asked for last stays longest; of each, half a
//! million flows with 56 bytes each, and the places of blocks of lines, see [`super::log`]. Texts of
//! lines are not kept.

use std::collections::HashMap;
use std::io;
use std::sync::Arc;
use std::time::{Duration, Instant};

use parking_lot::Mutex;
use serde_json::Value;

use super::answer::Problem;
use super::flow_index::FlowIndex;
use super::log::FollowedLog;
use crate::cli::outlet::daemon::CaptureView;
use crate::cli::outlet::tree::{CaptureDirectory, DaemonTree, Generation};
use crate::cli::outlet::trouble::Trouble;

/// Maximum number of captures whose logs are open.
const CAPTURES: usize = 8;

/// The time for which new lines are not looked for again: many readers of events ask.
const FRESH: Duration = Duration::from_millis(100);

/// The logs of one capture.
#[derive(Debug)]
pub(super) struct CaptureRecords {
    directory: CaptureDirectory,
    pub(super) flows: FollowedLog,
    pub(super) index: FlowIndex,
    pub(super) transactions: FollowedLog,
    caught_up: Option<Instant>,
}

/// A capture of a daemon: no other one gets its number.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
struct CaptureKey {
    generation: Generation,
    capture: u64,
}

/// The records of a capture, for all that read them.
pub(super) type SharedRecords = Arc<Mutex<CaptureRecords>>;

/// Records, and when they were asked for last.
type UsedRecords = (Instant, SharedRecords);

/// The records of all captures that were asked for lately.
#[derive(Debug, Default)]
pub(super) struct Records {
    open: Mutex<HashMap<CaptureKey, UsedRecords>>,
}

/// The numbers of lines that have left the logs of a capture.
#[derive(Clone, Copy, Debug, Default)]
pub(super) struct DroppedCounts {
    pub(super) flows: u64,
    pub(super) transactions: u64,
}

impl DroppedCounts {
    /// As the status of the capture has them.
    pub(super) fn of(view: &CaptureView) -> Self {
        let by_log = view.status.get("flows").and_then(|flows| flows.get("log_lines_dropped_by"));
        let dropped = |log| by_log.and_then(|by| by.get(log)).and_then(Value::as_u64).unwrap_or(0);
        Self { flows: dropped(FLOWS), transactions: dropped(TRANSACTIONS) }
    }
}

/// Names of the logs.
const FLOWS: &str = "flows.jsonl";
const TRANSACTIONS: &str = "http.jsonl";

impl Records {
    /// The records of a capture, opened if need be. It may wait for the tree.
    ///
    /// # Errors
    /// The logs cannot be read.
    pub(super) fn of(
        &self,
        tree: &DaemonTree,
        view: &CaptureView,
    ) -> Result<SharedRecords, Problem> {
        let capture = view.status.get("id").and_then(Value::as_u64).unwrap_or(0);
        let key = CaptureKey { generation: Arc::clone(&tree.generation), capture };
        if let Some((used, records)) = self.open.lock().get_mut(&key) {
            *used = Instant::now();
            return Ok(Arc::clone(records));
        }
        let records = CaptureRecords::open(tree.capture(&view.name))
            .map_err(|error| Trouble::of_tree(&view.name, &error))?;
        let mut open = self.open.lock();
        // Another request may have opened them in the meantime.
        let entry = open.entry(key);
        let (_, records) = entry.or_insert_with(|| (Instant::now(), Arc::new(Mutex::new(records))));
        let records = Arc::clone(records);
        open.retain(|key, _| key.generation == tree.generation);
        while open.len() > CAPTURES {
            let oldest = open.iter().min_by_key(|(_, (used, _))| *used);
            let Some(oldest) = oldest.map(|(key, _)| key.clone()) else { break };
            open.remove(&oldest);
        }
        Ok(records)
    }
}

impl CaptureRecords {
    fn open(directory: CaptureDirectory) -> io::Result<Self> {
        Ok(Self {
            flows: FollowedLog::open(&directory, FLOWS)?,
            index: FlowIndex::default(),
            transactions: FollowedLog::open(&directory, TRANSACTIONS)?,
            directory,
            caught_up: None,
        })
    }

    /// Finds the lines that have come, and forgets those that have left.
    ///
    /// # Errors
    /// Those of reading.
    pub(super) fn catch_up(&mut self, dropped: Option<DroppedCounts>) -> io::Result<()> {
        if let Some(dropped) = dropped {
            self.flows.trim(dropped.flows);
            self.transactions.trim(dropped.transactions);
        }
        if self.caught_up.is_some_and(|when| when.elapsed() < FRESH) && dropped.is_none() {
            return Ok(());
        }
        let index = &mut self.index;
        self.flows.catch_up(&self.directory, |block| index.add(block))?;
        self.transactions.catch_up(&self.directory, |_| {})?;
        self.caught_up = Some(Instant::now());
        Ok(())
    }
}
