//! `http.har` of flows and of the capture, as they are kept in case somebody asks again.

use std::sync::{Arc, Weak};

use crate::flow::log::LineLog;
use crate::flow::made::Made;

/// Bytes of all `http.har` that are kept, since whoever reads one asks for its size before.
pub(in crate::flow) const HARS: usize = 64 << 20;

/// Files of `http.har` that were asked for last.
#[derive(Debug, Default)]
pub(in crate::flow) struct Hars {
    pub(in crate::flow) of_flows: Vec<OfFlow>,
    /// That of the capture, and what it was made of.
    pub(in crate::flow) all: Option<(AsOf, Packed)>,
}

/// `http.har` of a flow when it had so many transactions.
#[derive(Debug)]
pub(in crate::flow) struct OfFlow {
    pub(in crate::flow) id: u64,
    pub(in crate::flow) count: usize,
    pub(in crate::flow) text: Weak<Made>,
    /// Keeps it for whoever asks next.
    pub(in crate::flow) kept: Option<Arc<Made>>,
}

impl OfFlow {
    /// Bytes that are kept.
    pub(in crate::flow) fn len(&self) -> usize {
        self.kept.as_ref().map_or(0, |made| made.bytes().len())
    }
}

impl Hars {
    /// That of a flow was opened: one that is too long to be kept was kept until then, since whoever
    /// opens it asks for its size before. It goes with its last reader.
    pub(in crate::flow) fn opened(&mut self, id: u64) {
        for one in self.of_flows.iter_mut().filter(|one| one.id == id && one.len() > HARS) {
            one.kept = None;
        }
    }

    /// Forgets all.
    pub(in crate::flow) fn clear(&mut self) {
        self.of_flows.clear();
        self.all = None;
    }
}

/// A file of lines that does not change, and what it takes of the room of all.
#[derive(Clone, Debug)]
pub(in crate::flow) struct Packed {
    pub(in crate::flow) log: Arc<LineLog>,
    pub(in crate::flow) _taken: Arc<Made>,
}

/// Batches of jobs that were done, and the oldest packet retained.
pub(in crate::flow) type AsOf = (u64, u64);
