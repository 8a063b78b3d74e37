//! Sockets of users that captures leave out: those of outlets, which are programs of their users.
//!
//! The user must own the socket, and hold w on each capture that leaves its packets out. Both are
//! checked again every second for as long as the call lasts, since a port can change hands, and
//! permissions can change.

use std::collections::BTreeMap;
use std::net::SocketAddr;
use std::pin::Pin;
use std::sync::Arc;
use std::time::Duration;

use capture::own_transport::{Exclusion, ExclusionScope, OwnTransport};
use parking_lot::Mutex;
use tokio::time::{Interval, MissedTickBehavior, interval};
use tokio_stream::Stream;
use tonic::{Code, Status};

use super::connections::{Busy, Peer};
use super::messages::{ExcludeRequest, ExcludeResponse};
use crate::fs::access::PermissionBit;
use crate::fs::captures::CaptureEntry;
use crate::fs::names;
use crate::registry::{Refusal, Registry};
use crate::tcp_socket;

/// How often the owner of the socket and the permissions are checked.
const CHECK_INTERVAL: Duration = Duration::from_secs(1);

/// Maximum number of sockets of one user.
const SOCKETS_OF_USER: usize = 64;

/// Maximum number of sockets of all users: a quarter of the table.
const SOCKETS: usize = capture::own_transport::MAX_SOCKETS / 4;

/// Number of sockets of each user.
#[derive(Debug, Default)]
pub(super) struct ExcludedSockets(Arc<Mutex<BTreeMap<u32, usize>>>);

/// A place for one socket of a user, free again on drop.
#[derive(Debug)]
struct SocketPlace {
    sockets: Arc<Mutex<BTreeMap<u32, usize>>>,
    uid: u32,
}

impl ExcludedSockets {
    fn place(&self, uid: u32) -> Result<SocketPlace, Status> {
        let mut sockets = self.0.lock();
        let of_user = sockets.get(&uid).copied().unwrap_or(0);
        if of_user >= SOCKETS_OF_USER || sockets.values().sum::<usize>() >= SOCKETS {
            return Err(Status::resource_exhausted(format!(
                "too many sockets are excluded already: {SOCKETS_OF_USER} of a user, {SOCKETS} in all"
            )));
        }
        sockets.insert(uid, of_user + 1);
        Ok(SocketPlace { sockets: Arc::clone(&self.0), uid })
    }
}

impl Drop for SocketPlace {
    fn drop(&mut self) {
        let mut sockets = self.sockets.lock();
        if let Some(count) = sockets.get_mut(&self.uid) {
            *count -= 1;
            if *count == 0 {
                sockets.remove(&self.uid);
            }
        }
    }
}

/// A socket as its user names it.
#[derive(Clone, Copy, Debug)]
struct ExcludedSocket {
    local: SocketAddr,
    remote: Option<SocketAddr>,
}

impl ExcludedSocket {
    fn parse(request: &ExcludeRequest) -> Result<Self, Status> {
        let parse = |text: &str| {
            let wrong = || {
                Status::invalid_argument(format!(
                    "'{text}' is no address with a port, such as 127.0.0.1:57012 or [::1]:57012"
                ))
            };
            let address: SocketAddr = text.parse().map_err(|_| wrong())?;
            // Port 0 is no port.
            if address.port() == 0 { Err(wrong()) } else { Ok(address) }
        };
        let remote = match request.remote.as_str() {
            "" => None,
            remote => Some(parse(remote)?),
        };
        let socket = Self { local: parse(&request.local)?, remote };
        let is_mixed = remote.is_some_and(|remote| remote.is_ipv4() != socket.local.is_ipv4());
        if is_mixed {
            return Err(Status::invalid_argument("the two addresses are of different families"));
        }
        Ok(socket)
    }

    /// Checks that the socket belongs to `uid`, or that `uid` is root.
    fn check_owner(self, uid: u32) -> Result<(), Status> {
        let Self { local, remote } = self;
        let kernel =
            |error| Status::internal(format!("{local}: cannot ask for its owner: {error}"));
        let found = tcp_socket::find(local, remote).map_err(kernel)?;
        match (found.map(|socket| socket.user), remote) {
            (Some(owner), _) if owner == uid || uid == 0 => Ok(()),
            (Some(owner), _) => Err(Status::permission_denied(format!(
                "{local}: the socket belongs to {}, not to {}",
                names::user(owner),
                names::user(uid)
            ))),
            (None, Some(remote)) => Err(Status::failed_precondition(format!(
                "no connection from {local} to {remote} in the network namespace of the daemon"
            ))),
            (None, None) => Err(Status::failed_precondition(format!(
                "no TCP socket listens at {local} in the network namespace of the daemon"
            ))),
        }
    }

    /// Returns true if it accepts IPv4 at its IPv6 address, and that is the same user's.
    fn has_both_families(self, uid: u32) -> bool {
        let is_any = self.local.is_ipv6() && self.local.ip().is_unspecified();
        let v4 = Self { local: ([0, 0, 0, 0], self.local.port()).into(), remote: None };
        is_any && self.remote.is_none() && v4.check_owner(uid).is_ok()
    }
}

/// The captures that leave a socket out, as they were last found.
#[derive(Debug, Default, PartialEq, Eq)]
struct ExcludingCaptures {
    rings: Vec<capture::ring::RingNumber>,
    answer: ExcludeResponse,
}

/// A call: the socket is excluded until this is dropped.
#[derive(Debug)]
pub(super) struct ExcludeStream {
    registry: Arc<Registry>,
    peer: Arc<Peer>,
    socket: ExcludedSocket,
    /// The capture that was named; empty for all.
    capture: String,
    exclusion: Exclusion,
    found: Option<ExcludingCaptures>,
    checks: Interval,
    has_ended: bool,
    _place: SocketPlace,
    _busy: Busy,
}

impl ExcludeStream {
    /// Excludes a socket of the peer.
    ///
    /// # Errors
    /// Why that is refused.
    pub(super) fn open(
        registry: &Arc<Registry>,
        sockets: &ExcludedSockets,
        peer: Arc<Peer>,
        request: &ExcludeRequest,
    ) -> Result<Self, Status> {
        let uid = peer.caller.uid;
        if peer.remote.is_some() {
            return Err(Status::permission_denied(
                "only a socket of the daemon's own machine can be left out",
            ));
        }
        let socket = ExcludedSocket::parse(request)?;
        socket.check_owner(uid)?;
        let place = sockets.place(uid)?;
        let found = excluding(registry, &peer, &request.capture)?;
        let scope = ExclusionScope::Rings(found.rings.as_slice().into());
        let transport = OwnTransport::of_process();
        let exclusion = match socket.remote {
            Some(remote) => transport.enter_connection(socket.local, remote, scope),
            None => transport.enter_listening(socket.local, socket.has_both_families(uid), scope),
        };
        let exclusion = exclusion.map_err(|full| Status::resource_exhausted(full.to_string()))?;
        let mut checks = interval(CHECK_INTERVAL);
        checks.set_missed_tick_behavior(MissedTickBehavior::Delay);
        Ok(Self {
            registry: Arc::clone(registry),
            socket,
            capture: request.capture.clone(),
            exclusion,
            found: None,
            checks,
            has_ended: false,
            _place: place,
            _busy: peer.busy(),
            peer,
        })
    }

    /// The captures, if they are others than before.
    fn check(&mut self) -> Result<Option<ExcludeResponse>, Status> {
        self.socket.check_owner(self.peer.caller.uid)?;
        let found = excluding(&self.registry, &self.peer, &self.capture)?;
        if self.found.as_ref() == Some(&found) {
            return Ok(None);
        }
        self.exclusion.set_scope(ExclusionScope::Rings(found.rings.as_slice().into()));
        let answer = found.answer.clone();
        self.found = Some(found);
        Ok(Some(answer))
    }
}

impl Stream for ExcludeStream {
    type Item = Result<ExcludeResponse, Status>;

    fn poll_next(
        mut self: Pin<&mut Self>,
        context: &mut std::task::Context<'_>,
    ) -> std::task::Poll<Option<Self::Item>> {
        use std::task::{Poll, ready};
        while !self.has_ended {
            ready!(self.checks.poll_tick(context));
            match self.check() {
                Ok(None) => {}
                Ok(Some(answer)) => return Poll::Ready(Some(Ok(answer))),
                Err(status) => {
                    self.has_ended = true;
                    return Poll::Ready(Some(Err(status)));
                }
            }
        }
        Poll::Ready(None)
    }
}

/// The captures of interfaces on which the peer has w, and those which it can only read.
fn excluding(registry: &Registry, peer: &Peer, capture: &str) -> Result<ExcludingCaptures, Status> {
    let refused = |refusal: Refusal| match refusal {
        Refusal::Denied(denied) => {
            Status::permission_denied(format!("packets of your socket are stored: {denied}"))
        }
        other => Status::new(Code::NotFound, other.to_string()),
    };
    let steerable = |entry: &CaptureEntry| registry.steerable(&peer.caller, entry.alias());
    let mut found = ExcludingCaptures::default();
    let mut add = |entry: &CaptureEntry| {
        found.rings.extend(entry.capture.ring_number());
        found.answer.excluding.push(entry.alias().to_owned());
    };
    if !capture.is_empty() {
        add(&*registry.steerable(&peer.caller, capture).map_err(refused)?);
        return Ok(found);
    }
    let mut lacking = None;
    let all = registry.tree.captures.all();
    let mut seeing = Vec::new();
    for entry in all.iter().filter(|entry| is_of_interface(entry)) {
        match steerable(entry) {
            Ok(_) => add(entry),
            Err(refusal) => {
                if peer
                    .caller
                    .may(entry.permissions(), &[PermissionBit::Read, PermissionBit::Search])
                {
                    seeing.push(entry.alias().to_owned());
                }
                lacking = lacking.or(Some(refusal));
            }
        }
    }
    match lacking {
        Some(refusal) if found.rings.is_empty() => Err(refused(refusal)),
        _ => {
            found.answer.seeing = seeing;
            Ok(found)
        }
    }
}

fn is_of_interface(entry: &CaptureEntry) -> bool {
    entry.capture.spec().source.is_of_own_network()
}
