//! The connections of this process, so that no capture stores the packets with which pcapfs
//! carries packets.
//!
//! A capture of an interface over which pcapfs sends captured packets would capture what it sends,
//! and send that again. So each socket that carries packets is entered here: a listening socket by
//! its address and port, an outgoing connection before connect(2), so that not even the answer to
//! its SYN is stored. Captures of interfaces compare what they receive ([`packets`]) before they
//! store it. Packets that we send have a mark, and the kernel hands over one byte of them
//! ([`sockets`]).
//!
//! ```text
//!   our sockets ──enter──▶ table ◀──compare── a capture's thread ──▶ stored, or counted as excluded
//!        │                                           ▲
//!        └──── marked packets ──▶ socket filter ─────┘ one byte of each
//! ```
//!
//! The one invariant: what is excluded belongs to a socket that was entered. An entry names a port
//! of this machine, and the address of the other end if there is one, so the packets of another
//! program to the same far port stay.
//!
//! When a socket is closed, its connections go on for a while: the other end may still send, and
//! the kernel answers. So entries stay for [`LINGER`], and a connection's entry ends earlier if
//! another program opens a connection between the same two ends.

mod addresses;
mod packets;
mod sockets;

use std::collections::{BTreeMap, HashMap, VecDeque};
use std::net::SocketAddr;
use std::sync::atomic::{AtomicU64, AtomicUsize, Ordering};
use std::sync::{Arc, LazyLock};
use std::time::{Duration, Instant};

use parking_lot::RwLock;
use protocol::time::Timestamp;

pub(crate) use packets::{HEADERS_LEN, OwnPackets};
pub use sockets::{OwnListener, OwnStream, enter_accepted, mark};

use crate::clock;
use crate::ring::RingNumber;
use addresses::OwnAddresses;

/// How long packets of a closed connection may come: Linux waits a minute for the FIN of the other
/// end, and keeps a connection that has ended for another minute (`tcp_fin_timeout`,
/// `TCP_TIMEWAIT_LEN`).
pub const LINGER: Duration = Duration::from_secs(120);

/// Maximum number of sockets in the table, closed ones included: the sockets of some hundred remote
/// captures and of all clients that the services accept.
pub const MAX_SOCKETS: usize = 4096;

/// Maximum number of connections that are known only from packets to a listening socket. They take
/// half a megabyte; beyond, the packets that come after the socket is closed are stored.
const MAX_LEARNED: usize = 4096;

/// The sockets of a process that carry captured packets.
#[derive(Debug)]
pub struct OwnTransport {
    /// Number of entries. While it is 0, capture threads look at nothing else.
    count: AtomicUsize,
    /// One bit for each local port that an entry has.
    ports: Box<[AtomicU64; 1024]>,
    table: RwLock<OwnTable>,
    addresses: OwnAddresses,
}

/// Captures whose packets are compared with an entry.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum ExclusionScope {
    /// All captures, also those made later.
    AllCaptures,
    /// The captures with these rings.
    Rings(Arc<[RingNumber]>),
}

impl ExclusionScope {
    fn covers(&self, ring: RingNumber) -> bool {
        match self {
            Self::AllCaptures => true,
            Self::Rings(rings) => rings.contains(&ring),
        }
    }
}

/// The state of a socket in the table.
#[derive(Clone, Copy, Debug, PartialEq, Eq, serde::Serialize)]
#[serde(rename_all = "lowercase")]
pub enum OwnSocketState {
    /// It accepts connections.
    Listening,
    /// It is connected, or is being connected.
    Open,
    /// It was closed, and packets of it may still come.
    Closed,
}

/// An entry of the table, as the status shows it.
#[derive(Clone, Debug, PartialEq, Eq, serde::Serialize)]
pub struct OwnTuple {
    /// Address and port of our end. The address is `0.0.0.0` or `[::]` if it can be any of this
    /// machine.
    pub local: SocketAddr,
    /// Address and port of the other end; `None` for any.
    pub remote: Option<SocketAddr>,
    /// The state of the socket.
    pub state: OwnSocketState,
}

/// The two ends of a connection, or of all connections of a listening socket.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
struct OwnEnds {
    /// With the unspecified address for any of this machine.
    local: SocketAddr,
    remote: Option<SocketAddr>,
}

/// Identifies an entry.
type EntryId = u64;

/// The entries, and the ways to find them.
#[derive(Debug, Default)]
struct OwnTable {
    by_ends: HashMap<OwnEnds, Vec<EntryId>>,
    entries: BTreeMap<EntryId, OwnEntry>,
    /// Number of ends with each local port.
    ports: HashMap<u16, usize>,
    next_id: EntryId,
    learned: usize,
}

/// One socket.
#[derive(Debug)]
struct OwnEntry {
    scope: ExclusionScope,
    ends: Vec<OwnEnds>,
    /// Connections of a listening socket, from their packets.
    learned: VecDeque<OwnEnds>,
    closed: Option<Closed>,
}

/// When a socket was closed, by both clocks: packets have the time of day.
#[derive(Clone, Copy, Debug)]
struct Closed {
    at: Instant,
    time: Timestamp,
}

/// Too many sockets of this process carry packets.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error(
    "no room to exclude another connection of pcapfs from its captures: {MAX_SOCKETS} are open \
     or were closed in the last two minutes"
)]
pub struct TooManySockets;

/// Keeps an entry in the table. On drop, the socket counts as closed.
#[derive(Debug)]
#[must_use = "the packets of the socket are stored again when this is dropped"]
pub struct Exclusion {
    transport: &'static OwnTransport,
    id: EntryId,
}

/// The answer of the table about a packet.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Finding {
    /// Its ends are in no entry.
    Foreign,
    Own,
    /// It is of a listening socket, and its connection is not in the table yet.
    Accepted(EntryId, OwnEnds),
    /// It opens a connection between the ends of a closed one.
    Reused(OwnEnds),
}

impl OwnTransport {
    /// The table of this process.
    #[must_use]
    pub fn of_process() -> &'static Self {
        static OF_PROCESS: LazyLock<OwnTransport> = LazyLock::new(OwnTransport::new);
        &OF_PROCESS
    }

    fn new() -> Self {
        Self {
            count: AtomicUsize::new(0),
            ports: Box::new([const { AtomicU64::new(0) }; 1024]),
            table: RwLock::default(),
            addresses: OwnAddresses::default(),
        }
    }

    /// Enters a socket that listens at `local`. An unspecified address means all addresses of this
    /// machine; with `both_families`, those of IPv4 and IPv6 alike.
    ///
    /// # Errors
    /// [`TooManySockets`].
    pub fn enter_listening(
        &'static self,
        local: SocketAddr,
        both_families: bool,
        scope: ExclusionScope,
    ) -> Result<Exclusion, TooManySockets> {
        let local = plain(local);
        let mut ends = vec![OwnEnds { local, remote: None }];
        if both_families && local.ip().is_unspecified() {
            let other = any_address(local.is_ipv6(), local.port());
            ends.push(OwnEnds { local: other, remote: None });
        }
        self.enter(ends, scope)
    }

    /// Enters a connection. The address of `local` may be unspecified until it is known.
    ///
    /// # Errors
    /// [`TooManySockets`].
    pub fn enter_connection(
        &'static self,
        local: SocketAddr,
        remote: SocketAddr,
        scope: ExclusionScope,
    ) -> Result<Exclusion, TooManySockets> {
        let (mut local, remote) = (plain(local), plain(remote));
        if local.ip().is_unspecified() {
            local = any_address(remote.is_ipv4(), local.port());
        }
        self.enter(vec![OwnEnds { local, remote: Some(remote) }], scope)
    }

    fn enter(
        &'static self,
        ends: Vec<OwnEnds>,
        scope: ExclusionScope,
    ) -> Result<Exclusion, TooManySockets> {
        let mut table = self.table.write();
        if table.entries.len() >= MAX_SOCKETS {
            let closed = table.entries.iter().find(|(_, entry)| entry.closed.is_some());
            let oldest = *closed.ok_or(TooManySockets)?.0;
            self.remove(&mut table, oldest);
        }
        let id = table.next_id;
        table.next_id += 1;
        for ends in &ends {
            self.link(&mut table, *ends, id);
        }
        let entry = OwnEntry { scope, ends, learned: VecDeque::new(), closed: None };
        table.entries.insert(id, entry);
        // Before the lock is released, and so before the socket sends its first packet.
        self.count.store(table.entries.len(), Ordering::Release);
        Ok(Exclusion { transport: self, id })
    }

    /// Returns true if no packet can be ours.
    #[inline]
    #[must_use]
    pub fn is_empty(&self) -> bool {
        // Acquire, so that a thread that sees an entry sees its port too.
        self.count.load(Ordering::Acquire) == 0
    }

    /// The entries that hold for the capture with this ring, or all, oldest first.
    #[must_use]
    pub fn tuples(&self, ring: Option<RingNumber>) -> Vec<OwnTuple> {
        let table = self.table.read();
        let entries = table.entries.values();
        let entries = entries.filter(|entry| ring.is_none_or(|ring| entry.scope.covers(ring)));
        let tuples = entries.flat_map(|entry| {
            let open = |ends: &OwnEnds| match ends.remote {
                Some(_) => OwnSocketState::Open,
                None => OwnSocketState::Listening,
            };
            let state =
                move |ends| entry.closed.map_or_else(|| open(ends), |_| OwnSocketState::Closed);
            entry.ends.iter().map(move |ends| OwnTuple {
                local: ends.local,
                remote: ends.remote,
                state: state(ends),
            })
        });
        tuples.collect()
    }

    /// Removes the entries of sockets that were closed long ago.
    pub(crate) fn tidy(&self) {
        if self.is_empty() {
            return;
        }
        let is_over =
            |entry: &OwnEntry| entry.closed.is_some_and(|closed| closed.at.elapsed() >= LINGER);
        let over: Vec<EntryId> = {
            let table = self.table.read();
            let over = table.entries.iter().filter(|(_, entry)| is_over(entry));
            over.map(|(id, _)| *id).collect()
        };
        if !over.is_empty() {
            let mut table = self.table.write();
            for id in over {
                self.remove(&mut table, id);
            }
        }
    }

    /// Returns true if a TCP packet between these ends is ours. `opens` means that it has the SYN
    /// and no acknowledgment.
    fn owns(
        &self,
        ring: RingNumber,
        [source, destination]: [SocketAddr; 2],
        (time, opens): (Timestamp, bool),
    ) -> bool {
        for (local, remote) in [(source, destination), (destination, source)] {
            if !self.has_port(local.port()) {
                continue;
            }
            match self.find(ring, local, remote, (time, opens)) {
                Finding::Foreign => {}
                Finding::Own => return true,
                Finding::Accepted(id, ends) => {
                    self.learn(id, ends);
                    return true;
                }
                Finding::Reused(ends) => self.forget_closed(ends),
            }
        }
        false
    }

    fn find(
        &self,
        ring: RingNumber,
        local: SocketAddr,
        remote: SocketAddr,
        (time, opens): (Timestamp, bool),
    ) -> Finding {
        let any = any_address(local.is_ipv4(), local.port());
        let table = self.table.read();
        let mut reused = None;
        for (ends, is_any) in [
            (OwnEnds { local, remote: Some(remote) }, false),
            (OwnEnds { local: any, remote: Some(remote) }, true),
            (OwnEnds { local, remote: None }, false),
            (OwnEnds { local: any, remote: None }, true),
        ] {
            let Some(ids) = table.by_ends.get(&ends) else { continue };
            let covering = ids
                .iter()
                .filter_map(|id| Some((*id, table.entries.get(id)?)))
                .filter(|(_, entry)| entry.scope.covers(ring));
            for (id, entry) in covering {
                if is_any && !self.addresses.have(local.ip()) {
                    break;
                }
                // Captures compare packets some time after they came.
                let was_closed = entry.closed.is_some_and(|closed| closed.time < time);
                match ends.remote {
                    Some(_) if opens && was_closed => reused = Some(ends),
                    Some(_) => return Finding::Own,
                    // Now another program can listen there.
                    None if was_closed => {}
                    None => {
                        return Finding::Accepted(id, OwnEnds { local, remote: Some(remote) });
                    }
                }
            }
        }
        reused.map_or(Finding::Foreign, Finding::Reused)
    }

    /// Keeps a connection of a listening socket, for the time after the socket is closed.
    fn learn(&self, id: EntryId, ends: OwnEnds) {
        let mut table = self.table.write();
        if table.by_ends.get(&ends).is_some_and(|ids| ids.contains(&id)) {
            // Another capture was first.
            return;
        }
        if table.learned >= MAX_LEARNED {
            // The oldest of this socket makes room; those of others stay.
            let oldest = table.entries.get_mut(&id).and_then(|entry| entry.learned.pop_front());
            let Some(oldest) = oldest else { return };
            table.learned -= 1;
            self.unlink(&mut table, oldest, id);
        }
        if let Some(entry) = table.entries.get_mut(&id) {
            entry.learned.push_back(ends);
            table.learned += 1;
            self.link(&mut table, ends, id);
        }
    }

    /// Ends the entries of closed sockets with these ends.
    fn forget_closed(&self, ends: OwnEnds) {
        let mut table = self.table.write();
        for id in table.by_ends.get(&ends).cloned().unwrap_or_default() {
            if table.entries.get(&id).is_some_and(|entry| entry.closed.is_some()) {
                self.unlink(&mut table, ends, id);
            }
        }
    }

    fn close(&self, id: EntryId) {
        let mut table = self.table.write();
        let closed = Closed { at: Instant::now(), time: clock::now() };
        if let Some(entry) = table.entries.get_mut(&id) {
            entry.closed = Some(closed);
        }
    }

    fn remove(&self, table: &mut OwnTable, id: EntryId) {
        let Some(entry) = table.entries.remove(&id) else { return };
        table.learned -= entry.learned.len();
        for ends in entry.ends.into_iter().chain(entry.learned) {
            self.unlink(table, ends, id);
        }
        self.count.store(table.entries.len(), Ordering::Release);
    }

    fn link(&self, table: &mut OwnTable, ends: OwnEnds, id: EntryId) {
        table.by_ends.entry(ends).or_default().push(id);
        let port = ends.local.port();
        let uses = table.ports.entry(port).or_default();
        *uses += 1;
        if *uses == 1
            && let Some((word, bit)) = self.port_bit(port)
        {
            word.fetch_or(bit, Ordering::Release);
        }
    }

    fn unlink(&self, table: &mut OwnTable, ends: OwnEnds, id: EntryId) {
        let Some(ids) = table.by_ends.get_mut(&ends) else { return };
        let Some(place) = ids.iter().position(|found| *found == id) else { return };
        ids.swap_remove(place);
        if ids.is_empty() {
            table.by_ends.remove(&ends);
        }
        let port = ends.local.port();
        if let Some(uses) = table.ports.get_mut(&port) {
            *uses -= 1;
            if *uses == 0 {
                table.ports.remove(&port);
                if let Some((word, bit)) = self.port_bit(port) {
                    word.fetch_and(!bit, Ordering::Release);
                }
            }
        }
    }

    fn has_port(&self, port: u16) -> bool {
        // Acquire is not needed: the table has a lock. A packet comes after its socket was entered,
        // and the kernel is between the two.
        self.port_bit(port).is_some_and(|(word, bit)| word.load(Ordering::Relaxed) & bit != 0)
    }

    fn port_bit(&self, port: u16) -> Option<(&AtomicU64, u64)> {
        Some((self.ports.get(usize::from(port >> 6))?, 1 << (port & 63)))
    }
}

impl Exclusion {
    /// Changes the captures that exclude the socket.
    pub fn set_scope(&self, scope: ExclusionScope) {
        let mut table = self.transport.table.write();
        if let Some(entry) = table.entries.get_mut(&self.id) {
            entry.scope = scope;
        }
    }

    /// Sets the local address of a connection that was entered without it.
    pub fn set_local(&self, local: SocketAddr) {
        let local = plain(local);
        let mut table = self.transport.table.write();
        let Some(entry) = table.entries.get_mut(&self.id) else { return };
        let [ends] = &mut entry.ends[..] else { return };
        let (before, now) = (*ends, OwnEnds { local, ..*ends });
        *ends = now;
        self.transport.link(&mut table, now, self.id);
        self.transport.unlink(&mut table, before, self.id);
    }
}

impl Drop for Exclusion {
    fn drop(&mut self) {
        self.transport.close(self.id);
    }
}

/// An address without what packets do not have, such as the scope, and IPv4 as IPv4.
fn plain(address: SocketAddr) -> SocketAddr {
    SocketAddr::new(address.ip().to_canonical(), address.port())
}

/// The unspecified address of a family.
fn any_address(is_ipv4: bool, port: u16) -> SocketAddr {
    use std::net::{Ipv4Addr, Ipv6Addr};
    if is_ipv4 {
        (Ipv4Addr::UNSPECIFIED, port).into()
    } else {
        (Ipv6Addr::UNSPECIFIED, port).into()
    }
}

#[cfg(test)]
mod tests;
