//! Lists directories, a page at a time.
//!
//! A *cookie* says where a listing continues. It belongs to a name, not to a place in the list: it
//! is made from the flow's id or the transaction's index. So names that come and go during a
//! listing cause no other name to be skipped or listed twice.

use std::ops::ControlFlow;

use protocol::http::direction::Direction;

use super::captures::Named;
use super::error::Error;
use super::node::{FLOW_LEAVES, LEAVES, Node, Part};
use super::{Kind, Tree};

/// Cookies of `.` and `..`, which come first.
const DOT: u64 = 1;
const DOT_DOT: u64 = 2;

/// One name of a directory.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Listed<'a> {
    pub(crate) inode: u64,
    pub(crate) kind: Kind,
    pub(crate) name: &'a str,
    /// The listing continues after this cookie.
    pub(crate) cookie: u64,
}

/// Takes the names of a directory one by one, for as long as it wants more.
type Visit<'a> = &'a mut dyn FnMut(Listed<'_>) -> ControlFlow<()>;

impl Tree {
    /// Visits the names of a directory after the one with the cookie `after`, which is 0 for all:
    /// `.` and `..`, then the others, always in the same order.
    pub(crate) fn list(&self, inode: u64, after: u64, visit: Visit<'_>) -> Result<(), Error> {
        let version = self.known.lock().version(inode).ok_or(Error::NotFound)?;
        let node = version.node;
        if node.kind() != Kind::Directory {
            return Err(Error::NotADirectory);
        }
        self.check_flow(node)?;
        for (cookie, name, dot) in [(DOT, ".", node), (DOT_DOT, "..", node.parent())] {
            let inode = if cookie == DOT { inode } else { self.known.lock().listed(dot) };
            let listed = Listed { inode, kind: Kind::Directory, name, cookie };
            if cookie > after && visit(listed).is_break() {
                return Ok(());
            }
        }
        let after = after.max(DOT_DOT);
        match node {
            Node::Root => self.list_root(after, visit),
            Node::Capture(id) => {
                let names = LEAVES.iter().enumerate();
                let names = names.map(|(index, (name, _))| (*name, Node::Leaf(id, index)));
                self.list_names(names, after, visit);
            }
            Node::Flow(capture, id, Part::Directory) => {
                let has_http = self.entry(capture)?.capture.flows().flow(id);
                let has_http = has_http.is_some_and(|flow| flow.has_http);
                let names = FLOW_LEAVES.iter().filter(|(_, part)| has_http || !part.is_of_http());
                let names = names.map(|(name, part)| (*name, Node::Flow(capture, id, *part)));
                self.list_names(names, after, visit);
            }
            Node::Flow(capture, id, _) => self.list_bodies(capture, id, after, visit)?,
            Node::Leaf(capture, _) => self.list_flows(capture, after, visit)?,
            Node::Readme | Node::RootStatus | Node::Link(_) => return Err(Error::NotADirectory),
        }
        Ok(())
    }

    /// Checks that the flow of a node exists.
    fn check_flow(&self, node: Node) -> Result<(), Error> {
        match node {
            Node::Flow(capture, id, _) => {
                self.entry(capture)?.capture.flows().flow(id).ok_or(Error::NotFound)?;
                Ok(())
            }
            _ => Ok(()),
        }
    }

    fn listed<'a>(&self, node: Node, name: &'a str, cookie: u64) -> Listed<'a> {
        // Only nodes that may have a counted inode are looked up.
        let plain = if node.begins_anew() { None } else { node.number() };
        let inode = plain.unwrap_or_else(|| self.known.lock().listed(node));
        Listed { inode, kind: node.kind(), name, cookie }
    }

    fn list_root(&self, after: u64, visit: Visit<'_>) {
        let named = self.captures.names();
        let fixed = [("README", Node::Readme), ("status.json", Node::RootStatus)];
        let named = named.iter().map(|(name, named)| match named {
            Named::Capture(found) => (name.as_str(), Node::Capture(found.id)),
            Named::Link { index } => (name.as_str(), Node::Link(*index)),
        });
        self.list_names(fixed.into_iter().chain(named), after, visit);
    }

    /// Lists names that never change, or are few: the cookie is the place.
    fn list_names<'a>(
        &self,
        names: impl Iterator<Item = (&'a str, Node)>,
        after: u64,
        visit: Visit<'_>,
    ) {
        for (cookie, (name, node)) in (DOT_DOT + 1..).zip(names) {
            if cookie > after && visit(self.listed(node, name, cookie)).is_break() {
                return;
            }
        }
    }

    fn list_flows(&self, capture: u32, after: u64, visit: Visit<'_>) -> Result<(), Error> {
        let entry = self.entry(capture)?;
        entry.capture.flows().list(flow_after(after), &mut |flow| {
            let node = Node::Flow(capture, flow.id, Part::Directory);
            visit(self.listed(node, &flow.name, flow_cookie(flow.id)))
        });
        Ok(())
    }

    fn list_bodies(
        &self,
        capture: u32,
        id: u64,
        after: u64,
        visit: Visit<'_>,
    ) -> Result<(), Error> {
        let entry = self.entry(capture)?;
        entry.capture.flows().bodies(id, transaction_after(after), &mut |body| {
            let cookie = body_cookie(body.index, body.direction);
            if cookie <= after {
                return ControlFlow::Continue(());
            }
            let file = capture::flow::File::Body { index: body.index, direction: body.direction };
            let node = Node::Flow(capture, id, Part::File(file));
            visit(self.listed(node, &body.name, cookie))
        });
        Ok(())
    }
}

/// Cookie of a flow; ids begin with 1.
const fn flow_cookie(id: u64) -> u64 {
    id.saturating_add(DOT_DOT)
}

/// The lowest id that may come after a cookie.
const fn flow_after(cookie: u64) -> u64 {
    cookie - DOT_DOT + 1
}

/// Cookie of a body; indexes begin with 1.
const fn body_cookie(index: u64, direction: Direction) -> u64 {
    let number = match direction {
        Direction::Request => index.saturating_mul(2),
        Direction::Response => index.saturating_mul(2).saturating_add(1),
    };
    number.saturating_add(1)
}

/// The lowest index of a transaction that may have a body after a cookie.
const fn transaction_after(cookie: u64) -> u64 {
    cookie / 2
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn cookies_of_flows_lead_to_the_next_flow() {
        assert_eq!(flow_after(DOT_DOT), 1, "the first one after the dots");
        for id in [1, 2, 1_000_000, 1 << 40] {
            assert!(flow_cookie(id) > DOT_DOT);
            assert_eq!(flow_after(flow_cookie(id)), id + 1);
        }
    }

    #[test]
    fn cookies_of_bodies_lead_to_the_next_body() {
        assert!(transaction_after(DOT_DOT) <= 1, "the first one after the dots");
        let mut before = DOT_DOT;
        for index in [1, 2, 3, 32_000, 1 << 40] {
            for direction in [Direction::Request, Direction::Response] {
                let cookie = body_cookie(index, direction);
                assert!(cookie > before, "{index} {direction:?}");
                assert!(transaction_after(before) <= index, "not passed over");
                before = cookie;
            }
            assert_eq!(transaction_after(body_cookie(index, Direction::Request)), index);
            assert_eq!(transaction_after(body_cookie(index, Direction::Response)), index + 1);
        }
    }
}
