//! Applications: the protocols spoken over flows, recognized by their bytes.
//!
//! [`PROTOCOLS`] lists them. [`dissector`] has the traits that a protocol implements. [`probing`]
//! looks at the first bytes of both streams until a protocol recognizes its own. Then its dissector
//! reads both streams, in the [`order`] in which the endpoints saw them. [`speaking`] moves a flow
//! from probing to its dissector. [`datagram`] has all of this for UDP. [`kept`] is what a flow
//! keeps of its protocols.

pub(in crate::flow) mod datagram;
pub(in crate::flow) mod dissector;
mod dns;
pub(in crate::flow) mod http;
pub(in crate::flow) mod kept;
pub(in crate::flow) mod lines;
mod marks;
mod order;
mod probing;
pub(in crate::flow) mod speaking;
mod tls;

use std::any::Any;

use protocol::tcp::Direction;
use protocol::time::Timestamp;

use datagram::DatagramProtocol;
use dissector::{Dissector, StreamProtocol};
use probing::Probing;

/// The protocols of TCP flows, in the order in which they are asked about a flow.
const PROTOCOLS: [&dyn StreamProtocol; 3] = [&http::messages::Http1, &dns::Dns, &tls::Tls];

/// The protocols of UDP flows, in the same way.
const DATAGRAM_PROTOCOLS: [&dyn DatagramProtocol; 1] = [&dns::Dns];

/// Declares [`Application`] and the list of its variants together, so that the list is complete.
macro_rules! applications {
    ($($(#[$documentation:meta])* $variant:ident,)*) => {
        /// An application protocol that flows are searched for.
        #[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
        pub enum Application {
            $($(#[$documentation])* $variant,)*
        }

        impl Application {
            /// All of them. The discriminant of each is its place here.
            pub const ALL: [Self; [$(Self::$variant),*].len()] = [$(Self::$variant),*];
        }
    };
}

applications! {
    /// HTTP/1.x
    Http,
    /// TLS
    Tls,
    /// DNS, mDNS and LLMNR
    Dns,
}

impl Application {
    /// The name in `meta.json`.
    #[must_use]
    pub const fn name(self) -> &'static str {
        match self {
            Self::Http => "http",
            Self::Tls => "tls",
            Self::Dns => "dns",
        }
    }

    /// The name of the file with a line for each transaction, in a capture and in a flow; `None` if
    /// the protocol has no transactions.
    #[must_use]
    pub const fn line_file_name(self) -> Option<&'static str> {
        match self {
            Self::Http => Some("http.jsonl"),
            Self::Tls => None,
            Self::Dns => Some("dns.jsonl"),
        }
    }

    /// The protocols that have such a file, and its name.
    pub fn with_lines() -> impl Iterator<Item = (Self, &'static str)> {
        Self::ALL
            .into_iter()
            .filter_map(|application| Some((application, application.line_file_name()?)))
    }
}

/// A set of application protocols.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct ApplicationSet(u32);

impl ApplicationSet {
    /// Returns `true` if the protocol is in the set.
    #[must_use]
    pub const fn has(self, application: Application) -> bool {
        self.0 & 1 << application as u32 != 0
    }
}

impl FromIterator<Application> for ApplicationSet {
    fn from_iter<I: IntoIterator<Item = Application>>(all: I) -> Self {
        Self(all.into_iter().fold(0, |set, one| set | 1 << one as u32))
    }
}

/// The application protocol of a TCP flow.
#[derive(Debug)]
pub(in crate::flow) enum StreamProtocolState {
    /// Not known yet.
    Probing(Probing),
    /// Recognized, and followed.
    Dissected(Box<dyn Dissector>),
    /// Not looked at any more: not recognized, or nothing more is to be learned from it.
    Done,
}

impl Default for StreamProtocolState {
    fn default() -> Self {
        Self::Probing(Probing::default())
    }
}

impl StreamProtocolState {
    /// Returns `true` if the application protocol is no longer looked at.
    pub(in crate::flow) const fn is_done(&self) -> bool {
        matches!(self, Self::Done)
    }

    /// Returns `true` while there are segments that came too early in `direction`.
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

    /// Number of transactions under way.
    pub(in crate::flow) fn pending(&self) -> usize {
        match self {
            Self::Dissected(dissector) => dissector.pending(),
            Self::Probing(_) | Self::Done => 0,
        }
    }

    /// The time at which the dissector has something to do although nothing came.
    pub(in crate::flow) fn deadline(&self) -> Option<Timestamp> {
        match self {
            Self::Dissected(dissector) => dissector.deadline(),
            Self::Probing(_) | Self::Done => None,
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
