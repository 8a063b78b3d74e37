//! Connections: their maximum number, and which one is closed beyond it.
//!
//! A client that connects and sends nothing, or nonsense, costs a descriptor and a few kilobytes.
//! When there are too many connections, the oldest without a request under way is closed, first
//! among those of the same user. If there is none, the user with the largest number of connections
//! loses one: first one whose requests concern no capture that its user may read. Some places are
//! only for root.

use std::collections::BTreeMap;
use std::io::{self, IoSlice};
use std::os::fd::AsRawFd;
use std::os::unix::net::UnixListener as StdListener;
use std::pin::Pin;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU32, Ordering};
use std::task::{Context, Poll, ready};
use std::time::Duration;

use nix::sys::socket::{Shutdown, shutdown};
use parking_lot::Mutex;
use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};
use tokio::net::{UnixListener, UnixStream};
use tokio::sync::mpsc;
use tokio_stream::wrappers::ReceiverStream;
use tonic::transport::server::Connected;

use super::peer;
use crate::fs::access::Caller;

/// The maximum number of connections: a quarter of the 1,024 descriptors that a process usually
/// has.
const CONNECTIONS: usize = 256;

/// The maximum number of connections of a user other than root: four such users fit at once.
const CONNECTIONS_OF_USER: usize = 64;

/// Places that only root can use.
const PLACES_OF_ROOT: usize = 32;

/// Connections that have been accepted but not served yet.
const QUEUE: usize = 8;

/// How long to wait if no connection can be accepted, usually for lack of descriptors.
const RESPITE: Duration = Duration::from_millis(50);

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
}

/// A request under way, as long as this exists.
#[derive(Debug)]
pub(super) struct Busy {
    peer: Arc<Peer>,
}

impl Peer {
    fn new(caller: Caller, process: u32) -> Arc<Self> {
        let (requests, has_rights) = (AtomicU32::new(0), AtomicBool::new(false));
        Arc::new(Self { caller, process, requests, has_rights })
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
#[derive(Debug, Default)]
struct ConnectionTable {
    came: u64,
    connections: BTreeMap<u64, (Arc<Peer>, Arc<UnixStream>)>,
}

impl ConnectionTable {
    /// Makes room for one more connection, if necessary and possible.
    fn make_room(&mut self, uid: u32) -> Result<(), ConnectionsFull> {
        let of_user = self.connections.values().filter(|(peer, _)| peer.caller.uid == uid).count();
        let of_others = self.connections.values().filter(|(peer, _)| peer.caller.uid != 0).count();
        let user_is_full = uid != 0 && of_user >= CONNECTIONS_OF_USER;
        let others_are_full = uid != 0 && of_others >= CONNECTIONS - PLACES_OF_ROOT;
        if user_is_full || others_are_full || self.connections.len() >= CONNECTIONS {
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
            if let Some((_, stream)) = self.connections.remove(&number) {
                // Its task sees the end, and releases it.
                let _ = shutdown(stream.as_raw_fd(), Shutdown::Both);
            }
        }
        Ok(())
    }

    /// A connection to close although a request is under way, for a user with `held` others: the
    /// oldest of the user, other than root, who has the largest number. A connection with a right
    /// to its requests is closed only for a user who has no connection at all.
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
struct ConnectionsFull;

/// One connection.
#[derive(Debug)]
pub(super) struct ClientConnection {
    stream: Arc<UnixStream>,
    peer: Arc<Peer>,
    number: u64,
    table: Arc<Mutex<ConnectionTable>>,
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
    let table = Arc::new(Mutex::new(ConnectionTable::default()));
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
    let mut locked = table.lock();
    locked.make_room(caller.uid).ok()?;
    let stream = Arc::new(stream);
    let peer = Peer::new(caller, process);
    locked.came += 1;
    let number = locked.came;
    locked.connections.insert(number, (Arc::clone(&peer), Arc::clone(&stream)));
    Some(ClientConnection { stream, peer, number, table: Arc::clone(table) })
}

/// Tries again as long as the operation would have to wait although the socket was ready.
fn attempt<T>(
    mut ready: impl FnMut() -> Poll<io::Result<()>>,
    mut operation: impl FnMut() -> io::Result<T>,
) -> Poll<io::Result<T>> {
    loop {
        ready!(ready())?;
        match operation() {
            Err(error) if error.kind() == io::ErrorKind::WouldBlock => {}
            result => return Poll::Ready(result),
        }
    }
}

impl AsyncRead for ClientConnection {
    fn poll_read(
        self: Pin<&mut Self>,
        context: &mut Context<'_>,
        buffer: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        let stream = &self.stream;
        let read = ready!(attempt(
            || stream.poll_read_ready(context),
            || stream.try_read(buffer.initialize_unfilled()),
        ))?;
        buffer.advance(read);
        Poll::Ready(Ok(()))
    }
}

impl AsyncWrite for ClientConnection {
    fn poll_write(
        self: Pin<&mut Self>,
        context: &mut Context<'_>,
        bytes: &[u8],
    ) -> Poll<io::Result<usize>> {
        let stream = &self.stream;
        attempt(|| stream.poll_write_ready(context), || stream.try_write(bytes))
    }

    fn poll_write_vectored(
        self: Pin<&mut Self>,
        context: &mut Context<'_>,
        slices: &[IoSlice<'_>],
    ) -> Poll<io::Result<usize>> {
        let stream = &self.stream;
        attempt(|| stream.poll_write_ready(context), || stream.try_write_vectored(slices))
    }

    fn is_write_vectored(&self) -> bool {
        true
    }

    fn poll_flush(self: Pin<&mut Self>, _context: &mut Context<'_>) -> Poll<io::Result<()>> {
        Poll::Ready(Ok(()))
    }

    fn poll_shutdown(self: Pin<&mut Self>, _context: &mut Context<'_>) -> Poll<io::Result<()>> {
        // A connection that is gone has no end to shut down.
        let _ = shutdown(self.stream.as_raw_fd(), Shutdown::Write);
        Poll::Ready(Ok(()))
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
            let mut table = self.table.lock();
            table.make_room(uid).ok()?;
            let caller = Caller { uid, gid: uid, groups: Vec::new() };
            let peer = Peer::new(caller, 0);
            table.came += 1;
            let (number, stream) = (table.came, Arc::new(stream));
            table.connections.insert(number, (Arc::clone(&peer), Arc::clone(&stream)));
            let table = Arc::clone(&self.table);
            self.connections.push(ClientConnection {
                stream,
                peer: Arc::clone(&peer),
                number,
                table,
            });
            Some(peer)
        }

        fn of(&self, uid: u32) -> usize {
            let table = self.table.lock();
            table.connections.values().filter(|(peer, _)| peer.caller.uid == uid).count()
        }
    }

    #[tokio::test]
    async fn the_idle_give_way() {
        let mut scene = Scene { table: Arc::default(), connections: Vec::new() };
        let first = scene.connect(7).unwrap();
        let _busy = first.busy();
        for _ in 0..CONNECTIONS {
            scene.connect(7).unwrap();
        }
        assert_eq!(scene.of(7), CONNECTIONS_OF_USER, "one user has only so many");
        assert!(scene.table.lock().connections.contains_key(&1), "the busy one stays");
        for _ in 0..2 * CONNECTIONS {
            scene.connect(0).unwrap();
        }
        assert_eq!((scene.of(0), scene.of(7)), (CONNECTIONS - CONNECTIONS_OF_USER, 64));
    }

    #[tokio::test]
    async fn no_users_keep_others_out() {
        let mut scene = Scene { table: Arc::default(), connections: Vec::new() };
        let mut busy = Vec::new();
        for uid in 1..=4 {
            for _ in 0..CONNECTIONS_OF_USER {
                busy.extend(scene.connect(uid).map(|peer| peer.busy()));
            }
        }
        assert_eq!((1..=4).map(|uid| scene.of(uid)).sum::<usize>(), CONNECTIONS - PLACES_OF_ROOT);
        for _ in 0..PLACES_OF_ROOT {
            busy.push(scene.connect(0).unwrap().busy());
        }
        // Another user takes places from the user, other than root, with the largest number, until
        // it has as many.
        let mut of_fifth = 0;
        while let Some(peer) = scene.connect(5).filter(|_| of_fifth < CONNECTIONS) {
            busy.push(peer.busy());
            of_fifth += 1;
        }
        assert_eq!((scene.of(0), scene.of(5)), (PLACES_OF_ROOT, of_fifth));
        assert!((40..=46).contains(&of_fifth), "{of_fifth}: an even share of 224 is 44.8");
    }

    #[tokio::test]
    async fn who_has_rights_gives_way_last() {
        let mut scene = Scene { table: Arc::default(), connections: Vec::new() };
        let mut busy = Vec::new();
        for uid in 1..=4 {
            for _ in 0..CONNECTIONS_OF_USER {
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
        let mut scene = Scene { table: Arc::default(), connections: Vec::new() };
        let mut busy = Vec::new();
        for _ in 0..CONNECTIONS_OF_USER {
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
