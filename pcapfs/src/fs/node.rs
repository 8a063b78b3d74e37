//! Inode numbers, and the names of what is in a capture's directory.
//!
//! Most inodes are what their number says. `replay` files get a number of their own for each
//! beginning; those are counted as the kernel looks them up and forgets them.
//!
//! ```text
//!   1                          the root
//!   2, 3                       README, status.json of the root
//!   1 << 16 | capture id << 32 a capture's directory; with the leaf's index in the low 16 bits
//!   1 << 17 | link index << 32 a link
//!   1 << 63 | n                the n-th replay file made so far
//! ```

use capture::cursor::{Begin, Format};

/// A file in a capture's directory.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Leaf {
    /// `live`, from the next packet on, and `follow`, from the oldest.
    Stream(Begin, Format),
    /// `replay`
    Replay(Format),
    Status,
    Readers,
    Control,
}

/// Every leaf with its name, in the order of directory listings.
pub(crate) const LEAVES: [(&str, Leaf); 9] = [
    ("ctl", Leaf::Control),
    ("follow.pcap", Leaf::Stream(Begin::Oldest, Format::Pcap)),
    ("follow.pcapng", Leaf::Stream(Begin::Oldest, Format::Pcapng)),
    ("live.pcap", Leaf::Stream(Begin::Next, Format::Pcap)),
    ("live.pcapng", Leaf::Stream(Begin::Next, Format::Pcapng)),
    ("readers.jsonl", Leaf::Readers),
    ("replay.pcap", Leaf::Replay(Format::Pcap)),
    ("replay.pcapng", Leaf::Replay(Format::Pcapng)),
    ("status.json", Leaf::Status),
];

/// Number of the root.
pub(crate) const ROOT: u64 = 1;
/// Number of the README in the root.
pub(crate) const README: u64 = 2;
/// Number of `status.json` in the root.
pub(crate) const ROOT_STATUS: u64 = 3;

const CAPTURE: u64 = 1 << 16;
const LINK: u64 = 1 << 17;
const REPLAY: u64 = 1 << 63;

/// What an inode number says.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Node {
    Root,
    Readme,
    RootStatus,
    /// A capture's directory.
    Capture(u32),
    /// A file in a capture's directory.
    Leaf(u32, usize),
    Link(u32),
    /// A replay file.
    Replay,
}

impl Node {
    /// What `inode` stands for; `None` for a number no inode has.
    pub(crate) fn of(inode: u64) -> Option<Self> {
        if inode & REPLAY != 0 {
            return Some(Self::Replay);
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

    /// The number; for [`Node::Replay`] see [`replay_inode`].
    pub(crate) const fn inode(self) -> u64 {
        match self {
            Self::Root | Self::Replay => ROOT,
            Self::Readme => README,
            Self::RootStatus => ROOT_STATUS,
            Self::Capture(id) => (id as u64) << 32 | CAPTURE,
            Self::Leaf(id, index) => (id as u64) << 32 | (CAPTURE + 1 + index as u64),
            Self::Link(index) => (index as u64) << 32 | LINK,
        }
    }
}

/// Number of the `n`-th replay file.
pub(crate) const fn replay_inode(n: u64) -> u64 {
    REPLAY | n
}

/// Index of a leaf's name.
pub(crate) fn leaf_index(name: &str) -> Option<usize> {
    LEAVES.iter().position(|(known, _)| *known == name)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn numbers_and_nodes_are_one_to_one() {
        let mut nodes = vec![Node::Root, Node::Readme, Node::RootStatus];
        for id in [0, 1, 77, u32::MAX >> 1] {
            nodes.extend([Node::Capture(id), Node::Link(id)]);
            nodes.extend((0..LEAVES.len()).map(|index| Node::Leaf(id, index)));
        }
        let mut numbers = std::collections::HashSet::new();
        for node in nodes {
            assert_eq!(Node::of(node.inode()), Some(node));
            assert!(numbers.insert(node.inode()), "{node:?} shares its number");
        }
        assert_eq!(Node::of(replay_inode(5)), Some(Node::Replay));
        for nonsense in [0, 4, CAPTURE + 1 + LEAVES.len() as u64, LINK + 1] {
            assert_eq!(Node::of(nonsense), None);
        }
    }

    #[test]
    fn listings_are_sorted() {
        assert!(LEAVES.is_sorted_by_key(|(name, _)| *name));
    }
}
