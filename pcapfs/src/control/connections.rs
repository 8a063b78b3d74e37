//! Connections: their maximum number, and which one is closed beyond it.
//!
//! A client that connects and sends nothing, or nonsense, costs a descriptor and a few kilobytes.
//! When there are too many connections, the oldest without a request under way is closed, first
//! among those of the same user. If there is none, the user with the largest number of connections
//! loses one: first one whose requests concern no capture that its user may read. Some places are
//! only for root.

use std::collections::BTreeMap;
use std::io::{self, IoSlice};
use std::net::SocketAddr;
use std::os::unix::net::UnixListener as StdListener;
use std::pin::Pin;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU32, Ordering};
use std::task::{Context, Poll};
use std::time::Duration;

use capture::own_transport::Exclusion;
use parking_lot::Mutex;
use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};
use tokio::net::{UnixListener, UnixStream};
use tokio::sync::mpsc;
use tokio_stream::wrappers::ReceiverStream;
use tonic::transport::server::Connected;

use super::peer;
use super::transport::{SharedSocket, Transport};
use crate::fs::Asker;
use crate::fs::access::Caller;
use crate::fs::open_file::FileOpener;
use crate::remote::certificate::CertificateFacts;

/// The maximum numbers of connections.
#[derive(Clone, Copy, Debug)]
struct ConnectionLimits {
    /// Of all users together.
    all: usize,
    /// Of a user other than root.
    of_user: usize,
    /// Places that only root can use.
    of_root: usize,
}

/// For clients on this machine: a quarter of the 1,024 descriptors that a process usually has. Four
/// users fit at once.
const LOCAL: ConnectionLimits = ConnectionLimits { all: 256, of_user: 64, of_root: 32 };

/// For clients on other machines: each of these has a connection for each capture that it follows,
/// and all of them may have the same user here. Each takes about 100 KiB.
const REMOTE: ConnectionLimits = ConnectionLimits { all: 1024, of_user: 512, of_root: 32 };

/// Connections that have been accepted but not served yet.
pub(super) const QUEUE: usize = 8;

/// How long to wait if no connection can be accepted, usually for lack of descriptors.
pub(super) const RESPITE: Duration = Duration::from_millis(50);

/// The client at the other end of a connection.
#[derive(Debug)]
pub(super) struct Peer {
    pub(super) caller: Caller,
    /// Its process when it connected, 0 if that is not visible.
    pub(super) process: u32,
    /// Requests under way.
    requests: AtomicU32,
    /// True if it got data of a capture, or an order of it was carried out.
    has_rights: AtomicBool,
    /// Set for clients on other machines.
    pub(super) remote: Option<RemotePeer>,
}

/// A client on another machine.
#[derive(Debug)]
pub(super) struct RemotePeer {
    /// Its certificate.
    pub(super) facts: CertificateFacts,
    pub(super) address: SocketAddr,
    /// The answer to all of its requests, if its certificate maps to no user.
    pub(super) refusal: Option<String>,
    /// Keeps the packets of its connection out of captures.
    pub(super) _exclusion: Option<Exclusion>,
}

/// A request under way, as long as this exists.
#[derive(Debug)]
pub(super) struct Busy {
    peer: Arc<Peer>,
}

impl Peer {
    fn new(caller: Caller, process: u32) -> Arc<Self> {
        Self::made(caller, process, None)
    }

    /// A client on another machine, for whom `caller` stands.
    pub(super) fn remote(caller: Caller, remote: RemotePeer) -> Arc<Self> {
        Self::made(caller, 0, Some(remote))
    }

    fn made(caller: Caller, process: u32, remote: Option<RemotePeer>) -> Arc<Self> {
        let (requests, has_rights) = (AtomicU32::new(0), AtomicBool::new(false));
        Arc::new(Self { caller, process, requests, has_rights, remote })
    }

    /// The peer as the opener of a file. One on another machine has the name of its certificate.
    pub(super) fn opener(&self) -> FileOpener {
        let Caller { uid, gid, .. } = self.caller;
        let asker = Asker { thread: self.process, uid, gid };
        match &self.remote {
            Some(remote) => {
                let name = format!("{}@{}", remote.facts.name(), remote.address.ip());
                FileOpener::elsewhere(asker, name)
            }
            None => FileOpener::new(asker),
        }
    }

    /// Notes that its user had the right to something it asked for.
    pub(super) fn shown_rights(&self) {
        self.has_rights.store(true, Ordering::Relaxed);
    }

    /// Notes that a request is under way.
    pub(super) fn busy(self: &Arc<Self>) -> Busy {
        self.requests.fetch_add(1, Ordering::Relaxed);
        Busy { peer: Arc::clone(self) }
    }
}

impl Drop for Busy {
    fn drop(&mut self) {
        self.peer.requests.fetch_sub(1, Ordering::Relaxed);
    }
}

/// The connections, in the order in which they came.
#[derive(Debug)]
pub(super) struct ConnectionTable {
    limits: ConnectionLimits,
    came: u64,
    connections: BTreeMap<u64, (Arc<Peer>, SharedSocket)>,
}

impl ConnectionTable {
    /// Without connections, for clients on this machine.
    fn local() -> Arc<Mutex<Self>> {
        Self::with(LOCAL)
    }

    /// Without connections, for clients on other machines.
    pub(super) fn remote() -> Arc<Mutex<Self>> {
        Self::with(REMOTE)
    }

    fn with(limits: ConnectionLimits) -> Arc<Mutex<Self>> {
        Arc::new(Mutex::new(Self { limits, came: 0, connections: BTreeMap::new() }))
    }

    /// The number of connections.
    pub(super) fn len(&self) -> u64 {
        self.connections.len() as u64
    }

    /// Closes connections of these peers.
    pub(super) fn close_where(&mut self, mut is_closed: impl FnMut(&Peer) -> bool) {
        self.connections.retain(|_, (peer, socket)| {
            let is_closed = is_closed(peer);
            if is_closed {
                // Its task sees the end, and releases it.
                socket.close();
            }
            !is_closed
        });
    }

    /// Makes room for one more connection, if necessary and possible.
    fn make_room(&mut self, uid: u32) -> Result<(), ConnectionsFull> {
        let of_user = self.connections.values().filter(|(peer, _)| peer.caller.uid == uid).count();
        let of_others = self.connections.values().filter(|(peer, _)| peer.caller.uid != 0).count();
        let limits = self.limits;
        let user_is_full = uid != 0 && of_user >= limits.of_user;
        let others_are_full = uid != 0 && of_others >= limits.all - limits.of_root;
        if user_is_full || others_are_full || self.connections.len() >= limits.all {
            let idle = |same_user: bool| {
                self.connections.iter().find(|(_, (peer, _))| {
                    let is_idle = peer.requests.load(Ordering::Relaxed) == 0;
                    // No other user can take one of root's places.
                    let may_be_taken = uid == 0 || peer.caller.uid != 0;
                    is_idle && may_be_taken && (!same_user || peer.caller.uid == uid)
                })
            };
            let found = idle(true).map(|(number, _)| *number);
            let number = match found {
                None if user_is_full => None,
                None => idle(false).map(|(number, _)| *number).or_else(|| self.busy(of_user)),
                found => found,
            };
            let number = number.ok_or(ConnectionsFull)?;
            if let Some((_, socket)) = self.connections.remove(&number) {
                // Its task sees the end, and releases it.
                socket.close();
            }
        }
        Ok(())
    }

    /// A connection to close although a request is under way, for a new one of a user who has
    /// `held`. Of the users other than root with more than `held`, the one with the largest number
    /// loses its oldest. A connection with a right to its requests is closed only for a user who
    /// has no connection at all.
    fn busy(&self, held: usize) -> Option<u64> {
        let mut counts = BTreeMap::<u32, usize>::new();
        for (peer, _) in self.connections.values().filter(|(peer, _)| peer.caller.uid != 0) {
            *counts.entry(peer.caller.uid).or_default() += 1;
        }
        let most_of = |has_rights: bool, least: usize| {
            let numbers = self.connections.iter().filter(|(_, (peer, _))| {
                let count = counts.get(&peer.caller.uid).copied().unwrap_or(0);
                peer.has_rights.load(Ordering::Relaxed) == has_rights && count >= least
            });
            // The oldest of the user with the largest number.
            let count = |peer: &Peer| counts.get(&peer.caller.uid).copied().unwrap_or(0);
            numbers.rev().max_by_key(|(_, (peer, _))| count(peer)).map(|(number, _)| *number)
        };
        let without = most_of(false, held.saturating_add(1));
        without.or_else(|| if held == 0 { most_of(true, 2) } else { None })
    }
}

/// The places are full, and every connection that could be closed has a request under way.
#[derive(Debug)]
pub(super) struct ConnectionsFull;

/// One connection.
#[derive(Debug)]
pub(super) struct ClientConnection {
    transport: Transport,
    peer: Arc<Peer>,
    number: u64,
    table: Arc<Mutex<ConnectionTable>>,
}

impl ClientConnection {
    /// Takes a place in the table for a connection. Its bytes go through `transport`, and `socket`
    /// is what is shut down if another takes its place.
    ///
    /// # Errors
    /// There is no place.
    pub(super) fn new(
        table: &Arc<Mutex<ConnectionTable>>,
        peer: Arc<Peer>,
        socket: SharedSocket,
        transport: Transport,
    ) -> Result<Self, ConnectionsFull> {
        let mut locked = table.lock();
        locked.make_room(peer.caller.uid)?;
        locked.came += 1;
        let number = locked.came;
        locked.connections.insert(number, (Arc::clone(&peer), socket));
        Ok(Self { transport, peer, number, table: Arc::clone(table) })
    }
}

impl Drop for ClientConnection {
    fn drop(&mut self) {
        self.table.lock().connections.remove(&self.number);
    }
}

impl Connected for ClientConnection {
    type ConnectInfo = Arc<Peer>;

    fn connect_info(&self) -> Self::ConnectInfo {
        Arc::clone(&self.peer)
    }
}

/// The stream of incoming connections, as long as it is polled.
///
/// # Errors
/// Errors of registering the listener with the runtime; call it inside the runtime.
pub(super) fn accept(
    listener: StdListener,
) -> io::Result<ReceiverStream<Result<ClientConnection, io::Error>>> {
    let listener = UnixListener::from_std(listener)?;
    let table = ConnectionTable::local();
    let (sender, accepted) = mpsc::channel(QUEUE);
    tokio::spawn(async move {
        loop {
            let stream = tokio::select! {
                () = sender.closed() => return,
                accepted = listener.accept() => accepted,
            };
            let Ok((stream, _)) = stream else {
                tokio::time::sleep(RESPITE).await;
                continue;
            };
            if let Some(connection) = admit(stream, &table)
                && sender.send(Ok(connection)).await.is_err()
            {
                return;
            }
        }
    });
    Ok(ReceiverStream::new(accepted))
}

/// Accepts a connection, unless there are too many; then it is closed.
fn admit(stream: UnixStream, table: &Arc<Mutex<ConnectionTable>>) -> Option<ClientConnection> {
    let (caller, process) = peer::credentials(&stream).ok()?;
    let socket = SharedSocket::Unix(Arc::new(stream));
    let transport = Transport::Plain(socket.clone());
    ClientConnection::new(table, Peer::new(caller, process), socket, transport).ok()
}

impl AsyncRead for ClientConnection {
    fn poll_read(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
        buffer: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        Pin::new(&mut self.transport).poll_read(context, buffer)
    }
}

impl AsyncWrite for ClientConnection {
    fn poll_write(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
        bytes: &[u8],
    ) -> Poll<io::Result<usize>> {
        Pin::new(&mut self.transport).poll_write(context, bytes)
    }

    fn poll_write_vectored(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
        slices: &[IoSlice<'_>],
    ) -> Poll<io::Result<usize>> {
        Pin::new(&mut self.transport).poll_write_vectored(context, slices)
    }

    fn is_write_vectored(&self) -> bool {
        self.transport.is_write_vectored()
    }

    fn poll_flush(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.transport).poll_flush(context)
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.transport).poll_shutdown(context)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    struct Scene {
        table: Arc<Mutex<ConnectionTable>>,
        connections: Vec<ClientConnection>,
    }

    impl Scene {
        /// Connects one more client of this user.
        fn connect(&mut self, uid: u32) -> Option<Arc<Peer>> {
            let (stream, _) = UnixStream::pair().unwrap();
            let caller = Caller { uid, gid: uid, groups: Vec::new() };
            let peer = Peer::new(caller, 0);
            let socket = SharedSocket::Unix(Arc::new(stream));
            let transport = Transport::Plain(socket.clone());
            let connection =
                ClientConnection::new(&self.table, Arc::clone(&peer), socket, transport);
            self.connections.push(connection.ok()?);
            Some(peer)
        }

        fn of(&self, uid: u32) -> usize {
            let table = self.table.lock();
            table.connections.values().filter(|(peer, _)| peer.caller.uid == uid).count()
        }
    }

    #[tokio::test]
    async fn the_idle_give_way() {
        let mut scene = Scene { table: ConnectionTable::local(), connections: Vec::new() };
        let first = scene.connect(7).unwrap();
        let _busy = first.busy();
        for _ in 0..LOCAL.all {
            scene.connect(7).unwrap();
        }
        assert_eq!(scene.of(7), LOCAL.of_user, "one user has only so many");
        assert!(scene.table.lock().connections.contains_key(&1), "the busy one stays");
        for _ in 0..2 * LOCAL.all {
            scene.connect(0).unwrap();
        }
        assert_eq!((scene.of(0), scene.of(7)), (LOCAL.all - LOCAL.of_user, 64));
    }

    #[tokio::test]
    async fn no_users_keep_others_out() {
        let mut scene = Scene { table: ConnectionTable::local(), connections: Vec::new() };
        let mut busy = Vec::new();
        for uid in 1..=4 {
            for _ in 0..LOCAL.of_user {
                busy.extend(scene.connect(uid).map(|peer| peer.busy()));
            }
        }
        assert_eq!((1..=4).map(|uid| scene.of(uid)).sum::<usize>(), LOCAL.all - LOCAL.of_root);
        for _ in 0..LOCAL.of_root {
            busy.push(scene.connect(0).unwrap().busy());
        }
        // Another user takes places from the user, other than root, with the largest number, until
        // it has as many.
        let mut of_fifth = 0;
        while let Some(peer) = scene.connect(5).filter(|_| of_fifth < LOCAL.all) {
            busy.push(peer.busy());
            of_fifth += 1;
        }
        assert_eq!((scene.of(0), scene.of(5)), (LOCAL.of_root, of_fifth));
        assert!((40..=46).contains(&of_fifth), "{of_fifth}: an even share of 224 is 44.8");
    }

    #[tokio::test]
    async fn who_has_rights_gives_way_last() {
        let mut scene = Scene { table: ConnectionTable::local(), connections: Vec::new() };
        let mut busy = Vec::new();
        for uid in 1..=4 {
            for _ in 0..LOCAL.of_user {
                if let Some(peer) = scene.connect(uid) {
                    if uid <= 2 {
                        peer.shown_rights();
                    }
                    busy.push(peer.busy());
                }
            }
        }
        let before = [scene.of(1), scene.of(2)];
        for _ in 0..20 {
            busy.push(scene.connect(5).unwrap().busy());
        }
        assert_eq!([scene.of(1), scene.of(2)], before);
        for (peer, _) in scene.table.lock().connections.values() {
            peer.shown_rights();
        }
        assert!(scene.connect(5).is_none(), "it has some");
        assert!(scene.connect(6).is_some(), "it has none");
    }

    #[tokio::test]
    async fn the_busy_do_not() {
        let mut scene = Scene { table: ConnectionTable::local(), connections: Vec::new() };
        let mut busy = Vec::new();
        for _ in 0..LOCAL.of_user {
            busy.push(scene.connect(7).unwrap().busy());
        }
        assert!(scene.connect(7).is_none(), "all are busy");
        assert!(scene.connect(8).is_some(), "another user is not concerned");
        busy.pop();
        assert!(scene.connect(7).is_some(), "one is idle now");
        scene.connections.clear();
        assert_eq!(scene.of(7), 0);
    }
}
