//! `http.har` of flows and of the capture, cached for the next reader.

use std::sync::{Arc, Weak};

use crate::flow::log::LineLog;
use crate::flow::made::MadeContent;

/// Maximum bytes of all cached `http.har`. They are cached because a reader asks for the size
/// before it reads.
pub(in crate::flow) const HARS: usize = 64 << 20;

/// The `http.har` files that were asked for last.
#[derive(Debug, Default)]
pub(in crate::flow) struct Hars {
    pub(in crate::flow) of_flows: Vec<OfFlow>,
    /// The one of the capture, and the state it was made from.
    pub(in crate::flow) all: Option<(AsOf, Packed)>,
}

/// `http.har` of a flow, as it was when the flow had `count` transactions.
#[derive(Debug)]
pub(in crate::flow) struct OfFlow {
    pub(in crate::flow) id: u64,
    pub(in crate::flow) count: usize,
    /// The text, as long as the cache or a reader has it.
    pub(in crate::flow) text: Weak<MadeContent>,
    /// The text, in the cache: if it is short enough, or has not been opened since it was made.
    /// Otherwise only its readers have it.
    pub(in crate::flow) kept: Option<Arc<MadeContent>>,
}

impl OfFlow {
    /// Bytes that this entry keeps.
    pub(in crate::flow) fn len(&self) -> usize {
        self.kept.as_ref().map_or(0, |made| made.bytes().len())
    }
}

impl Hars {
    /// The file of flow `id` was opened. A text too long for the cache was kept only until now,
    /// because the opener had asked for its size before. From now on it lives as long as its last
    /// reader.
    pub(in crate::flow) fn opened(&mut self, id: u64) {
        for one in self.of_flows.iter_mut().filter(|one| one.id == id && one.len() > HARS) {
            one.kept = None;
        }
    }

    /// Clears the cache.
    pub(in crate::flow) fn clear(&mut self) {
        self.of_flows.clear();
        self.all = None;
    }
}

/// A file of lines that does not change, and the part of the room that it takes.
#[derive(Clone, Debug)]
pub(in crate::flow) struct Packed {
    pub(in crate::flow) log: Arc<LineLog>,
    pub(in crate::flow) _taken: Arc<MadeContent>,
}

/// Number of job batches done, and the oldest packet retained.
pub(in crate::flow) type AsOf = (u64, u64);
