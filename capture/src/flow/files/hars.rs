//! `http.har` of flows and of the capture, as they are kept in case somebody asks again.

use std::sync::Arc;

use crate::flow::log::LineLog;
use crate::flow::made::Made;

/// Files of `http.har` that were asked for last, with how many transactions they have.
#[derive(Debug, Default)]
pub(in crate::flow) struct Hars {
    pub(in crate::flow) of_flows: Vec<(u64, usize, Arc<Made>)>,
    /// That of the capture, and what it was made of.
    pub(in crate::flow) all: Option<(AsOf, Packed)>,
}

impl Hars {
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
