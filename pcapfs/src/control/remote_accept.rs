//! Connections from other machines: TLS before anything else, and limits before that.
//!
//! A handshake runs in a task of its own and ends after [`HANDSHAKE`] at the latest, so a peer that
//! says nothing holds up no other. Each address may begin a number of handshakes a second; all
//! together have a number of places, and the oldest gives way. Local clients have other places, so
//! no peer on the network can take theirs.

use std::collections::{BTreeMap, HashMap};
use std::io;
use std::net::{IpAddr, SocketAddr};
use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::{Duration, Instant};

use capture::own_transport::{self, OwnListener};
use parking_lot::Mutex;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::{Notify, mpsc, oneshot};
use tokio_rustls::TlsAcceptor;
use tokio_stream::wrappers::ReceiverStream;

use super::connections::{ClientConnection, ConnectionTable, Peer, QUEUE, RESPITE, RemotePeer};
use super::remote_access::{RemoteAccess, said};
use super::transport::{SharedSocket, Transport};
use crate::fs::access::Caller;
use crate::output::say;
use crate::remote::tls::{SeenCertificate, TlsFailure};

/// Time for a handshake: three round trips of the slowest link, with packets lost.
const HANDSHAKE: Duration = Duration::from_secs(10);

/// Handshakes that may be under way.
const HANDSHAKES: usize = 64;

/// Handshakes a second that one address may begin, and how many at once after a pause. Each costs
/// this side about a millisecond of a processor.
const HANDSHAKES_A_SECOND: f64 = 50.0;
const HANDSHAKES_AT_ONCE: f64 = 100.0;

/// Addresses whose handshakes are counted; beyond it, those that were quiet longest are forgotten.
const ADDRESSES: usize = 1024;

/// How often open connections are compared with the rules and the list of revoked certificates.
const CHECK: Duration = Duration::from_millis(500);

/// How long bytes of a refused client are read, so that it gets the reason and not a reset.
const FAREWELL: Duration = Duration::from_secs(1);

/// Lines about refused clients in [`LOG_INTERVAL`]; the others are counted.
const LOG_LINES: u32 = 20;
const LOG_INTERVAL: Duration = Duration::from_secs(10);

/// The user id in the table of connections of clients that map to no user; it means "no change"
/// to chown(2), so no user has it.
const NOBODY: u32 = u32::MAX;

/// Accepts connections from other machines.
#[derive(Debug)]
struct RemoteAcceptor {
    access: Arc<RemoteAccess>,
    table: Arc<Mutex<ConnectionTable>>,
    /// Notified when a client is let in.
    came: Arc<Notify>,
    pace: Mutex<HandshakePace>,
    /// Handshakes under way; dropping the sender ends one.
    under_way: Mutex<BTreeMap<u64, oneshot::Sender<()>>>,
    log: Mutex<RefusalLog>,
}

/// The stream of connections from other machines, as long as it is polled.
///
/// # Errors
/// Errors of registering the listener with the runtime; call it inside the runtime.
pub(super) fn accept(
    listener: OwnListener,
    access: Arc<RemoteAccess>,
) -> io::Result<ReceiverStream<Result<ClientConnection, io::Error>>> {
    let (listener, exclusion) = listener.into_parts();
    let listener = TcpListener::from_std(listener)?;
    let acceptor = Arc::new(RemoteAcceptor {
        access,
        table: ConnectionTable::remote(),
        came: Arc::default(),
        pace: Mutex::default(),
        under_way: Mutex::default(),
        log: Mutex::default(),
    });
    tokio::spawn(check_again(Arc::downgrade(&acceptor), Arc::clone(&acceptor.came)));
    let (sender, accepted) = mpsc::channel(QUEUE);
    tokio::spawn(async move {
        let _while_it_listens = exclusion;
        let mut came = 0_u64;
        loop {
            let stream = tokio::select! {
                () = sender.closed() => return,
                accepted = listener.accept() => accepted,
            };
            let Ok((stream, address)) = stream else {
                tokio::time::sleep(RESPITE).await;
                continue;
            };
            if !acceptor.pace.lock().may_begin(address.ip(), Instant::now()) {
                acceptor.access.counters().too_many.fetch_add(1, Ordering::Relaxed);
                acceptor.log.lock().say(address, "more connections a second than are allowed");
                continue;
            }
            came = came.saturating_add(1);
            let ended = acceptor.begin(came);
            let (acceptor, sender) = (Arc::clone(&acceptor), sender.clone());
            tokio::spawn(async move {
                let connection = tokio::select! {
                    connection = acceptor.admit(stream, address) => connection,
                    _ = ended => None,
                    () = sender.closed() => None,
                };
                acceptor.under_way.lock().remove(&came);
                if let Some(connection) = connection {
                    // If the service has ended, nothing serves it.
                    let _ = sender.send(Ok(connection)).await;
                }
            });
        }
    });
    Ok(ReceiverStream::new(accepted))
}

impl RemoteAcceptor {
    /// Notes a handshake. The oldest gives way if there are too many.
    fn begin(&self, number: u64) -> oneshot::Receiver<()> {
        let (sender, ended) = oneshot::channel();
        let mut under_way = self.under_way.lock();
        under_way.insert(number, sender);
        if under_way.len() > HANDSHAKES {
            under_way.pop_first();
            self.access.counters().too_many.fetch_add(1, Ordering::Relaxed);
        }
        ended
    }

    /// A connection, unless its client is refused.
    async fn admit(&self, stream: TcpStream, address: SocketAddr) -> Option<ClientConnection> {
        let exclusion = own_transport::enter_accepted(&stream, address);
        // Small messages must not wait for the acknowledgment of others.
        let _ = stream.set_nodelay(true);
        let socket = SharedSocket::Tcp(Arc::new(stream));
        let seen = Arc::new(SeenCertificate::default());
        let refused = |why: &str| {
            let name = seen.get().map(|facts| format!("certificate of '{}': ", facts.name()));
            self.access.counters().refused.fetch_add(1, Ordering::Relaxed);
            self.log.lock().say(address, &format!("{}{why}", name.unwrap_or_default()));
        };
        let config = self.access.tls(Arc::clone(&seen)).map_err(|why| refused(&why)).ok()?;
        let accepting = TlsAcceptor::from(config).accept(socket.clone());
        let stream = match tokio::time::timeout(HANDSHAKE, accepting).await {
            Ok(Ok(stream)) => stream,
            Ok(Err(error)) => {
                let failure = TlsFailure::of(&error);
                refused(&failure.map_or_else(|| error.to_string(), |failure| said(&failure)));
                say_farewell(socket).await;
                return None;
            }
            Err(_) => {
                refused(&format!("no handshake within {} s", HANDSHAKE.as_secs()));
                return None;
            }
        };
        // The verifier has set it before the handshake could succeed.
        let facts = seen.get().cloned()?;
        let access = Arc::clone(&self.access);
        let asked = facts.clone();
        let user = tokio::task::spawn_blocking(move || access.user(&asked)).await.ok()?;
        let (caller, refusal) = match user {
            Ok(user) => (user.caller, None),
            // It is served with refusals, since only these reach the person who asked.
            Err(why) => {
                refused(&why);
                (Caller { uid: NOBODY, gid: NOBODY, groups: Vec::new() }, Some(why))
            }
        };
        let remote = RemotePeer { facts, address, refusal, _exclusion: exclusion };
        let peer = Peer::remote(caller, remote);
        let transport = Transport::Tls(Box::new(stream));
        let counters = self.access.counters();
        match ClientConnection::new(&self.table, peer, socket, transport) {
            Ok(connection) => {
                counters.accepted.fetch_add(1, Ordering::Relaxed);
                self.came.notify_one();
                Some(connection)
            }
            Err(_) => {
                counters.too_many.fetch_add(1, Ordering::Relaxed);
                self.log.lock().say(address, "too many connections of this user");
                None
            }
        }
    }

    /// Closes the connections whose certificate is not let in any more. Returns whether there are
    /// connections.
    fn check(&self) -> bool {
        let mut table = self.table.lock();
        self.access.counters().open.store(table.len(), Ordering::Relaxed);
        table.close_where(|peer| {
            let Some(remote) = peer.remote.as_ref().filter(|remote| remote.refusal.is_none())
            else {
                return false;
            };
            match self.access.user_name(&remote.facts) {
                Ok(_) => false,
                Err(why) => {
                    let name = remote.facts.name();
                    say(format_args!(
                        "remote: {}: connection of '{name}' closed: {why}",
                        remote.address
                    ));
                    true
                }
            }
        });
        table.len() > 0
    }
}

/// Compares open connections with the rules, as long as connections are accepted. Without
/// connections it does not run, so that an idle daemon stays asleep.
async fn check_again(acceptor: std::sync::Weak<RemoteAcceptor>, came: Arc<Notify>) {
    loop {
        let has_connections = match acceptor.upgrade() {
            Some(acceptor) => acceptor.check(),
            None => return,
        };
        if !has_connections {
            came.notified().await;
        }
        tokio::time::sleep(CHECK).await;
    }
}

/// Ends the own direction, and reads what the client has sent already: closing a socket with unread
/// bytes would discard the alert that has the reason.
async fn say_farewell(mut socket: SharedSocket) {
    let _ = socket.shutdown().await;
    let drained = async {
        let mut unread = [0; 4096];
        for _ in 0..64 {
            if !matches!(socket.read(&mut unread).await, Ok(1..)) {
                return;
            }
        }
    };
    let _ = tokio::time::timeout(FAREWELL, drained).await;
}

/// How many handshakes each address may begin now.
#[derive(Debug, Default)]
struct HandshakePace {
    addresses: HashMap<IpAddr, (f64, Instant)>,
}

impl HandshakePace {
    /// Counts a handshake of this address, and returns whether it may begin.
    fn may_begin(&mut self, address: IpAddr, now: Instant) -> bool {
        let address = network_of(address);
        let left = |(before, when): (f64, Instant)| {
            let gained = now.saturating_duration_since(when).as_secs_f64() * HANDSHAKES_A_SECOND;
            (before + gained).min(HANDSHAKES_AT_ONCE)
        };
        if self.addresses.len() >= ADDRESSES && !self.addresses.contains_key(&address) {
            self.addresses.retain(|_, state| left(*state) < HANDSHAKES_AT_ONCE);
            if self.addresses.len() >= ADDRESSES
                && let Some(oldest) = self.addresses.iter().min_by_key(|(_, (_, when))| *when)
            {
                let oldest = *oldest.0;
                self.addresses.remove(&oldest);
            }
        }
        let state = self.addresses.entry(address).or_insert((HANDSHAKES_AT_ONCE, now));
        let has = left(*state);
        let may = has >= 1.0;
        *state = (if may { has - 1.0 } else { has }, now);
        may
    }
}

/// The address, or for IPv6 its network of 64 bits, which one machine has to itself.
fn network_of(address: IpAddr) -> IpAddr {
    match address.to_canonical() {
        IpAddr::V4(address) => address.into(),
        IpAddr::V6(address) => {
            let network = address.to_bits() & !u128::from(u64::MAX);
            std::net::Ipv6Addr::from_bits(network).into()
        }
    }
}

/// Lines about refused clients: so many, and then their number.
#[derive(Debug, Default)]
struct RefusalLog {
    began: Option<Instant>,
    lines: u32,
    unsaid: u64,
}

impl RefusalLog {
    fn say(&mut self, address: SocketAddr, why: &str) {
        let now = Instant::now();
        if self.began.is_none_or(|began| now.saturating_duration_since(began) >= LOG_INTERVAL) {
            let unsaid = std::mem::take(&mut self.unsaid);
            if unsaid > 0 {
                say(format_args!("remote: {unsaid} more connections refused"));
            }
            (self.began, self.lines) = (Some(now), 0);
        }
        if self.lines < LOG_LINES {
            self.lines += 1;
            say(format_args!("remote: {address} refused: {why}"));
        } else {
            self.unsaid = self.unsaid.saturating_add(1);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_address_may_begin_so_many_handshakes() {
        let mut pace = HandshakePace::default();
        let now = Instant::now();
        let one: IpAddr = "192.0.2.1".parse().unwrap();
        let begun = (0..1000).filter(|_| pace.may_begin(one, now)).count();
        assert_eq!(begun, 100);
        assert!(pace.may_begin("192.0.2.2".parse().unwrap(), now), "another address");
        let later = now + Duration::from_millis(100);
        assert_eq!((0..1000).filter(|_| pace.may_begin(one, later)).count(), 5);
        for number in 0..10_000_u32 {
            pace.may_begin(std::net::Ipv4Addr::from_bits(number).into(), later);
            assert!(pace.addresses.len() <= ADDRESSES);
        }
        let network = |text: &str| network_of(text.parse().unwrap());
        assert_eq!(network("2001:db8::1"), network("2001:db8::ffff:2"));
        assert_eq!(network("::ffff:192.0.2.1"), one);
    }
}
