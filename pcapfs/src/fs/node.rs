//! Inode numbers, and the names in the directories of captures and flows.
//!
//! The number of most inodes says what they are. Files whose beginning moves on (`replay`,
//! `packets.pcap` and the logs) get a number of their own for each beginning, and so do nodes that
//! do not fit into a number. Those inodes are counted as the kernel looks them up and forgets them,
//! see [`super::known`].
//!
//! ```text
//!   1                          the root
//!   2, 3                       README, status.json of the root
//!   1 << 16 | capture id << 32 a capture's directory; plus 1 and the leaf's index, what is in it
//!   1 << 17 | link index << 32 a link
//!   1 << 62 | capture id << 52 | flow id << 16
//!                              a flow's directory; plus 1 and the leaf's index, what is in it;
//!                              plus 16 and twice the index from 0 of a transaction, the body of
//!                              its request, and plus 1 that of its response
//!   1 << 63 | n                the n-th counted inode made so far
//! ```

use capture::cursor::{Begin, Format};
use capture::flow::{File, Log};
use protocol::http::direction::Direction;

use super::Kind;

/// An entry of a capture's directory.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Leaf {
    /// `live`, from the next packet on, and `follow`, from the oldest.
    Stream(Begin, Format),
    /// `replay`
    Replay(Format),
    Status,
    Readers,
    Control,
    /// `flows.jsonl` and `http.jsonl`
    Log(Log),
    /// `http-open.jsonl`
    OpenHttp,
    /// `http.har`
    Har,
    /// The directory of flows.
    Flows,
}

/// Every leaf with its name, in the order of directory listings.
pub(crate) const LEAVES: [(&str, Leaf); 14] = [
    ("ctl", Leaf::Control),
    ("flows", Leaf::Flows),
    ("flows.jsonl", Leaf::Log(Log::Flows)),
    ("follow.pcap", Leaf::Stream(Begin::Oldest, Format::Pcap)),
    ("follow.pcapng", Leaf::Stream(Begin::Oldest, Format::Pcapng)),
    ("http-open.jsonl", Leaf::OpenHttp),
    ("http.har", Leaf::Har),
    ("http.jsonl", Leaf::Log(Log::Http)),
    ("live.pcap", Leaf::Stream(Begin::Next, Format::Pcap)),
    ("live.pcapng", Leaf::Stream(Begin::Next, Format::Pcapng)),
    ("readers.jsonl", Leaf::Readers),
    ("replay.pcap", Leaf::Replay(Format::Pcap)),
    ("replay.pcapng", Leaf::Replay(Format::Pcapng)),
    ("status.json", Leaf::Status),
];

/// A part of a flow.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub(crate) enum Part {
    /// Its directory.
    Directory,
    /// `bodies` in it.
    Bodies,
    /// A file in one of the two.
    File(File),
}

impl Part {
    /// True if its size is known only after it has been made.
    pub(crate) const fn is_measured_by_making(self) -> bool {
        matches!(self, Self::File(File::Transcript | File::HttpOpen | File::Har))
    }

    /// True if only flows with HTTP have it.
    pub(crate) const fn is_of_http(self) -> bool {
        match self {
            Self::Directory => false,
            Self::File(File::Meta | File::Packets | File::Client | File::Server) => false,
            Self::Bodies => true,
            Self::File(File::Transcript | File::HttpJsonl | File::HttpOpen) => true,
            Self::File(File::Har | File::Body { .. }) => true,
        }
    }
}

/// The entries of a flow's directory and their names, in the order of directory listings.
pub(crate) const FLOW_LEAVES: [(&str, Part); 9] = [
    ("bodies", Part::Bodies),
    ("client.bin", Part::File(File::Client)),
    ("http", Part::File(File::Transcript)),
    ("http-open.jsonl", Part::File(File::HttpOpen)),
    ("http.har", Part::File(File::Har)),
    ("http.jsonl", Part::File(File::HttpJsonl)),
    ("meta.json", Part::File(File::Meta)),
    ("packets.pcap", Part::File(File::Packets)),
    ("server.bin", Part::File(File::Server)),
];

/// Number of the root.
pub(crate) const ROOT: u64 = 1;
/// Number of the README in the root.
const README: u64 = 2;
/// Number of `status.json` in the root.
const ROOT_STATUS: u64 = 3;

const CAPTURE: u64 = 1 << 16;
const LINK: u64 = 1 << 17;
const FLOW: u64 = 1 << 62;
const COUNTED: u64 = 1 << 63;

/// Bits above which a capture's or link's index would reach the marks.
const INDEX_BITS: u32 = 30;

/// Bits of a capture's id in the number of a flow, and where they are. A daemon has a thread or
/// more for each capture, so it will not get to a thousand.
const CAPTURE_BITS: u32 = 10;
const CAPTURE_SHIFT: u32 = 52;
/// Bits of a flow's id, and where they are: two years of a thousand flows a second.
const FLOW_BITS: u32 = 36;
const FLOW_SHIFT: u32 = 16;
/// Bits of the part of a flow.
const PART_BITS: u32 = 16;
/// The first number of a body among the parts.
const FIRST_BODY: u64 = 16;

/// The meaning of an inode in the tree.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub(crate) enum Node {
    Root,
    Readme,
    RootStatus,
    /// A capture's directory.
    Capture(u32),
    /// An entry of a capture's directory.
    Leaf(u32, usize),
    Link(u32),
    /// A part of a flow: capture, flow id and part.
    Flow(u32, u64, Part),
}

impl Node {
    /// The node of a number; `None` for a counted inode, and for a number that no inode has.
    pub(crate) fn of(inode: u64) -> Option<Self> {
        if is_counted(inode) {
            return None;
        }
        if inode & FLOW != 0 {
            let capture = u32::try_from((inode & !FLOW) >> CAPTURE_SHIFT).ok()?;
            let id = inode >> FLOW_SHIFT & ((1 << FLOW_BITS) - 1);
            return Some(Self::Flow(capture, id, part_of(inode & ((1 << PART_BITS) - 1))?));
        }
        let id = u32::try_from(inode >> 32).ok()?;
        let low = inode & 0xffff_ffff;
        match inode {
            ROOT => Some(Self::Root),
            README => Some(Self::Readme),
            ROOT_STATUS => Some(Self::RootStatus),
            _ if low == CAPTURE => Some(Self::Capture(id)),
            _ if low == LINK => Some(Self::Link(id)),
            _ if low > CAPTURE && low < LINK => {
                let index = usize::try_from(low - CAPTURE - 1).ok()?;
                (index < LEAVES.len()).then_some(Self::Leaf(id, index))
            }
            _ => None,
        }
    }

    /// The number of this node; `None` if it does not fit into a number.
    pub(crate) fn number(self) -> Option<u64> {
        let index = |index: u32| (index >> INDEX_BITS == 0).then_some(u64::from(index) << 32);
        match self {
            Self::Root => Some(ROOT),
            Self::Readme => Some(README),
            Self::RootStatus => Some(ROOT_STATUS),
            Self::Capture(id) => Some(index(id)? | CAPTURE),
            Self::Leaf(id, leaf) => Some(index(id)? | (CAPTURE + 1 + leaf as u64)),
            Self::Link(id) => Some(index(id)? | LINK),
            Self::Flow(capture, id, part) => {
                let fits = capture >> CAPTURE_BITS == 0 && id >> FLOW_BITS == 0;
                let place = u64::from(capture) << CAPTURE_SHIFT | id << FLOW_SHIFT;
                fits.then_some(FLOW | place | number_of(part)?)
            }
        }
    }

    /// The leaf, for an entry of a capture's directory.
    pub(crate) fn leaf(self) -> Option<Leaf> {
        match self {
            Self::Leaf(_, index) => LEAVES.get(index).map(|(_, leaf)| *leaf),
            _ => None,
        }
    }

    /// The kind of inode it is.
    pub(crate) fn kind(self) -> Kind {
        match self {
            Self::Root | Self::Capture(_) | Self::Flow(.., Part::Directory | Part::Bodies) => {
                Kind::Directory
            }
            Self::Leaf(..) if self.leaf() == Some(Leaf::Flows) => Kind::Directory,
            Self::Link(_) => Kind::Link,
            Self::Readme | Self::RootStatus | Self::Leaf(..) | Self::Flow(..) => Kind::File,
        }
    }

    /// The directory it is in; the root is in itself.
    pub(crate) fn parent(self) -> Self {
        match self {
            Self::Root | Self::Readme | Self::RootStatus | Self::Capture(_) | Self::Link(_) => {
                Self::Root
            }
            Self::Leaf(capture, _) => Self::Capture(capture),
            Self::Flow(capture, _, Part::Directory) => {
                let flows = LEAVES.iter().position(|(_, leaf)| *leaf == Leaf::Flows);
                flows.map_or(Self::Capture(capture), |index| Self::Leaf(capture, index))
            }
            Self::Flow(capture, id, Part::File(File::Body { .. })) => {
                Self::Flow(capture, id, Part::Bodies)
            }
            Self::Flow(capture, id, _) => Self::Flow(capture, id, Part::Directory),
        }
    }

    /// True if it may later begin elsewhere, and be another file then.
    pub(crate) fn begins_anew(self) -> bool {
        matches!(self.leaf(), Some(Leaf::Replay(_) | Leaf::Log(_)))
            || matches!(self, Self::Flow(.., Part::File(File::Packets)))
    }
}

/// Number of a part among those of its flow.
fn number_of(part: Part) -> Option<u64> {
    let number = match part {
        Part::Directory => 0,
        Part::File(File::Body { index, direction }) => {
            let response = u64::from(direction == Direction::Response);
            index.checked_sub(1)?.checked_mul(2)?.checked_add(FIRST_BODY + response)?
        }
        Part::Bodies | Part::File(_) => {
            1 + FLOW_LEAVES.iter().position(|(_, known)| *known == part)? as u64
        }
    };
    (number >> PART_BITS == 0).then_some(number)
}

/// Undoes [`number_of`].
fn part_of(number: u64) -> Option<Part> {
    if let Some(body) = number.checked_sub(FIRST_BODY) {
        let direction = if body % 2 == 0 { Direction::Request } else { Direction::Response };
        return Some(Part::File(File::Body { index: body / 2 + 1, direction }));
    }
    match usize::try_from(number).ok()?.checked_sub(1) {
        None => Some(Part::Directory),
        Some(index) => FLOW_LEAVES.get(index).map(|(_, part)| *part),
    }
}

/// True if it is the number of a counted inode.
pub(crate) const fn is_counted(inode: u64) -> bool {
    inode & COUNTED != 0
}

/// Number of the `n`-th counted inode.
pub(crate) const fn counted(n: u64) -> u64 {
    COUNTED | n
}

/// Index of a leaf's name.
pub(crate) fn leaf_index(name: &str) -> Option<usize> {
    LEAVES.iter().position(|(known, _)| *known == name)
}

/// The part of a flow that has this name in its directory.
pub(crate) fn flow_leaf(name: &str) -> Option<Part> {
    FLOW_LEAVES.iter().find(|(known, _)| *known == name).map(|(_, part)| *part)
}

/// The number a name in `flows` or `bodies` begins with, up to a hyphen.
pub(crate) fn leading_number(name: &str) -> Option<u64> {
    let (digits, _) = name.split_once('-')?;
    // `parse` would also accept a sign.
    digits.bytes().all(|byte| byte.is_ascii_digit()).then(|| digits.parse().ok()).flatten()
}

#[cfg(test)]
mod tests {
    use super::*;

    const DIRECTIONS: [Direction; 2] = [Direction::Request, Direction::Response];

    fn body(index: u64, direction: Direction) -> Part {
        Part::File(File::Body { index, direction })
    }

    #[test]
    fn numbers_and_nodes_are_one_to_one() {
        let mut nodes = vec![Node::Root, Node::Readme, Node::RootStatus];
        for id in [0, 1, 77, (1 << 30) - 1] {
            nodes.extend([Node::Capture(id), Node::Link(id)]);
            nodes.extend((0..LEAVES.len()).map(|index| Node::Leaf(id, index)));
        }
        for capture in [0, 1, 1023] {
            for id in [1, 42, (1 << 36) - 1] {
                let bodies = [1, 2, 32_000, 32_760];
                let bodies = bodies.iter().flat_map(|n| DIRECTIONS.map(|way| body(*n, way)));
                let leaves = FLOW_LEAVES.iter().map(|(_, part)| *part);
                let parts = leaves.chain(bodies).chain([Part::Directory]);
                nodes.extend(parts.map(|part| Node::Flow(capture, id, part)));
            }
        }
        let mut numbers = std::collections::HashSet::new();
        for node in nodes {
            let number = node.number().unwrap();
            assert_eq!(Node::of(number), Some(node));
            assert!(!is_counted(number), "{node:?}");
            assert!(numbers.insert(number), "{node:?} shares its number");
        }
        let last = CAPTURE + 1 + LEAVES.len() as u64;
        for nonsense in [0, 4, last, LINK + 1, FLOW | 1 << 16 | 10, FLOW | 1 << 16 | 15] {
            assert_eq!(Node::of(nonsense), None);
        }
        assert!(is_counted(counted(5)));
        assert_eq!(Node::of(counted(5)), None);
    }

    #[test]
    fn what_does_not_fit_has_no_number() {
        for node in [
            Node::Capture(1 << 30),
            Node::Flow(1024, 1, Part::Directory),
            Node::Flow(0, 1 << 36, Part::Directory),
            Node::Flow(0, u64::MAX, Part::Bodies),
            Node::Flow(0, 1, body(32_761, Direction::Request)),
            Node::Flow(0, 1, body(u64::MAX, Direction::Response)),
            Node::Flow(0, 1, body(0, Direction::Request)),
        ] {
            assert_eq!(node.number(), None, "{node:?}");
        }
    }

    #[test]
    fn listings_are_sorted() {
        assert!(LEAVES.is_sorted_by_key(|(name, _)| *name));
        assert!(FLOW_LEAVES.is_sorted_by_key(|(name, _)| *name));
        assert!((FLOW_LEAVES.len() as u64) < FIRST_BODY);
    }

    #[test]
    fn everything_is_in_a_directory() {
        let mut node = Node::Flow(7, 42, body(3, Direction::Response));
        let mut path = Vec::new();
        while node != Node::Root {
            node = node.parent();
            assert_eq!(node.kind(), Kind::Directory, "{node:?}");
            path.push(node);
        }
        assert_eq!(path.len(), 5, "{path:?}");
    }

    #[test]
    fn names_begin_with_a_number() {
        assert_eq!(leading_number("000042-tcp-10.0.0.1.43512-10.0.0.2.80"), Some(42));
        assert_eq!(leading_number("1234567-udp-::1.1-::2.2"), Some(1_234_567));
        assert_eq!(leading_number("0001-request.json"), Some(1));
        for name in ["", "-", "42", "+42-tcp", "-42-tcp", "x1-tcp", "4 2-tcp", "٤٢-tcp"] {
            assert_eq!(leading_number(name).filter(|id| *id > 0), None, "{name}");
        }
        assert_eq!(leading_number("99999999999999999999-tcp"), None);
    }
}
