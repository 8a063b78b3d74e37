//! The numbers of nodes, of all kinds of directories together.

use std::collections::HashSet;

use ::capture::flow::File;

use super::*;
use crate::fs::flow_tests::scene;

const FLOW: u64 = 1 << 62;

/// The nodes of these numbers; those that no node has are left out.
fn nodes(numbers: impl Iterator<Item = u64>) -> Vec<Node> {
    let nodes = numbers.filter_map(|number| {
        let node = Node::of(number)?;
        assert_eq!(node.number, Some(number), "{node:?}");
        Some(node)
    });
    nodes.collect()
}

#[test]
fn numbers_and_nodes_are_one_to_one() {
    let tree = Tree::new(Permissions { uid: 0, gid: 0, mode: 0o755 });
    let mut all = nodes(0..1 << 16);
    assert_eq!(all.len(), 3, "the root and its files: {all:?}");
    for id in [0, 1, 77, (1 << 30) - 1] {
        let found = nodes((1 << 16..1 << 18).map(|low| id << 32 | low));
        let capture = DirectoryNode::capture(u32::try_from(id).unwrap());
        let mut entries = 0;
        let mut visit = |node: &Node, _: &str, _| {
            assert!(found.contains(node), "{node:?}");
            entries += 1;
            ControlFlow::Continue(())
        };
        capture.provider().list(&tree, 0, &mut visit).unwrap();
        // Its directory, one link, and the file that only captures of devices have.
        assert_eq!(found.len(), 1 + entries + 2);
        all.extend(found);
    }
    for capture in [0, 1, 1023] {
        for flow in [1, 42, (1 << 36) - 1] {
            let place = FLOW | capture << 52 | flow << 16;
            let found = nodes((0..1 << 16).map(|part| place | part));
            // Its directory with its files and `bodies`, and as many bodies as there are numbers.
            assert_eq!(found.len(), 1 + File::named().len() + 1 + (1 << 16) - 16);
            all.extend(found);
        }
    }
    let items: HashSet<_> = all.iter().map(|node| node.item).collect();
    assert_eq!(items.len(), all.len(), "two numbers for one node");
    assert!(all.iter().all(|node| !node.number.is_some_and(is_counted)));
}

/// Walks through a tree with all kinds of directories.
#[test]
fn directories_have_the_number_that_their_parent_lists_and_a_link_for_each_in_them() {
    let (tree, _directory) = scene();
    let mut directories = vec![Node::from(DirectoryNode::root())];
    let mut kinds = HashSet::new();
    while let Some(listed) = directories.pop() {
        let directory = listed.directory().unwrap();
        kinds.insert(std::mem::discriminant(&directory));
        assert_eq!(Node::from(directory).number, listed.number, "{directory:?}");
        let of_number = listed.number.and_then(Node::of).unwrap();
        assert_eq!(of_number.item, listed.item);
        let before = directories.len();
        let mut visit = |node: &Node, name: &str, _| {
            if let NodeItem::Directory(inside) = node.item {
                assert_eq!(inside.provider().parent(), directory, "{name}");
                directories.push(*node);
            }
            ControlFlow::Continue(())
        };
        directory.provider().list(&tree, FIRST_COOKIE - 1, &mut visit).unwrap();
        let inside = u32::try_from(directories.len() - before).unwrap();
        let links = directory.provider().facts(&tree).unwrap().links;
        assert!(links == 1 || links == 2 + inside, "{directory:?}: {links} links, {inside} inside");
    }
    assert_eq!(kinds.len(), 5, "the scene has no directory of some kind");
}

#[test]
fn a_node_that_does_not_fit_has_no_number() {
    for directory in [
        DirectoryNode::capture(1 << 30),
        DirectoryNode::flow(1024, 1),
        DirectoryNode::flow(0, 1 << 36),
        DirectoryNode::bodies(0, u64::MAX),
    ] {
        assert_eq!(Node::from(directory).number, None, "{directory:?}");
    }
    assert!(is_counted(counted(5)));
    assert_eq!(Node::of(counted(5)), None);
}

#[test]
fn every_directory_leads_to_the_root() {
    let mut directory = DirectoryNode::bodies(7, 42);
    let mut path = Vec::new();
    while directory != DirectoryNode::root() {
        directory = directory.provider().parent();
        path.push(directory);
    }
    let flows = [DirectoryNode::flow(7, 42), DirectoryNode::flows(7)];
    assert_eq!(path, [&flows[..], &[DirectoryNode::capture(7), DirectoryNode::root()]].concat());
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
