//! Heap memory of collections, for memory accounting. A collection allocates nodes, not entries.

/// Entries that one node of a `BTreeMap` has room for: `CAPACITY` in `btree/node.rs` of the
/// standard library.
const ROOM: usize = 11;

/// Bytes of a node in addition to its entries: its parent, its place there, its length, and the
/// allocator's own.
const BESIDE: usize = 32;

/// Heap bytes of a `BTreeMap` with this many entries, if it was never emptied. The nodes of a map
/// with several nodes are assumed to be two thirds full.
#[must_use]
pub fn of_tree<K, V>(entries: usize) -> usize {
    let nodes = entries.saturating_mul(3).div_ceil(2 * ROOM);
    let node = ROOM.saturating_mul(size_of::<K>().saturating_add(size_of::<V>()));
    nodes.saturating_mul(node.saturating_add(BESIDE))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn one_entry_takes_a_node() {
        assert_eq!(of_tree::<u64, u64>(0), 0);
        assert_eq!(of_tree::<u64, u64>(1), 11 * 16 + 32);
        assert_eq!(of_tree::<u64, u64>(7), of_tree::<u64, u64>(1));
        assert_eq!(of_tree::<u64, u64>(22_000), 3_000 * (11 * 16 + 32));
    }
}
