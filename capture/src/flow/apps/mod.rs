//! Applications: the protocols spoken over flows, recognized by their bytes.
//!
//! [`PROTOCOLS`] lists them. [`dissector`] is what each of them is for the rest of the engine.
//! [`probing`] looks at the first bytes of both streams until one of them recognizes its own. Then
//! its dissector reads both streams. [`speaking`] takes a flow from one to the other. [`kept`] is
//! what a flow keeps of them.

pub(in crate::flow) mod dissector;
pub(in crate::flow) mod http;
pub(in crate::flow) mod kept;
mod marks;
mod probing;
pub(in crate::flow) mod speaking;
mod tls;

use std::any::Any;

use protocol::tcp::Direction;

use dissector::{Dissector, Protocol};
use probing::Probing;

/// The protocols of TCP flows, in the order in which they are asked about a flow.
const PROTOCOLS: [&dyn Protocol; 2] = [&http::messages::Http1, &tls::Tls];

/// The application protocol of a flow.
#[derive(Debug)]
pub(in crate::flow) enum App {
    /// Not known yet.
    Probing(Probing),
    /// Recognized, and followed.
    Dissected(Box<dyn Dissector>),
    /// Not looked at any more: not recognized, or nothing more is to be learned from it.
    Done,
}

impl Default for App {
    fn default() -> Self {
        Self::Probing(Probing::default())
    }
}

impl App {
    /// Returns true if the application protocol is no longer looked at.
    pub(in crate::flow) const fn is_done(&self) -> bool {
        matches!(self, Self::Done)
    }

    /// Returns true while there are segments that came too early in `direction`.
    pub(in crate::flow) fn has_early(&self, direction: Direction) -> bool {
        match self {
            Self::Probing(probing) => probing.has_early(direction),
            Self::Dissected(dissector) => dissector.has_early(direction),
            Self::Done => false,
        }
    }

    /// Records a segment that came too early, see [`Dissector::early`].
    pub(in crate::flow) fn early(&mut self, direction: Direction, end: u64, acknowledged: u64) {
        match self {
            Self::Probing(probing) => probing.early(direction, end, acknowledged),
            Self::Dissected(dissector) => dissector.early(direction, end, acknowledged),
            Self::Done => {}
        }
    }

    /// The dissector, if it is a `D`: files of a protocol may show what is under way in it.
    pub(in crate::flow) fn dissector<D: Dissector>(&self) -> Option<&D> {
        match self {
            Self::Dissected(dissector) => (&**dissector as &dyn Any).downcast_ref(),
            Self::Probing(_) | Self::Done => None,
        }
    }

    /// Bytes of memory on the heap; an estimate.
    pub(in crate::flow) fn memory(&self) -> usize {
        match self {
            Self::Probing(probing) => probing.memory(),
            Self::Dissected(dissector) => dissector.memory().saturating_add(ALLOCATION),
            Self::Done => 0,
        }
    }
}

/// Bytes that the allocator adds to each block; an estimate.
const ALLOCATION: usize = 16;
