//! The receiver's host: connections to its ports, and how captures leave them out.

use std::collections::HashSet;
use std::io;
use std::net::SocketAddr;

use capture::source::HostAndPort;
use tokio::net::{TcpStream, lookup_host};
use tokio::task::JoinSet;

use super::outgoing::{OutgoingStream, WaitingRoom, connect};
use crate::cli::client::DaemonSocket;
use crate::cli::exclude::{self, ExcludedOutlet};
use crate::failure::Failure;
use crate::output;

/// Maximum number of connections that are made at the same time.
const CONNECTING: usize = 64;

/// Maximum number of connections that captures are asked to leave out: a daemon takes no more of a
/// user.
const EXCLUDED: usize = 64;

/// The receiver's host.
#[derive(Debug)]
pub(super) struct FarEnds {
    place: HostAndPort,
    addresses: Vec<SocketAddr>,
    daemon: DaemonSocket,
    /// The ends of each connection of this process, in both directions. The packets of all of them
    /// are left out here, whatever captures do: what is sent would be sent again, and again.
    own: HashSet<(SocketAddr, SocketAddr)>,
    excluded: Vec<ExcludedOutlet>,
}

impl FarEnds {
    /// Looks the host up.
    ///
    /// # Errors
    /// There is no such host.
    pub(super) async fn find(place: &HostAndPort, daemon: &DaemonSocket) -> Result<Self, Failure> {
        let found = lookup_host((place.host.as_str(), place.port)).await;
        let found = found.map_err(|error| Failure::Answer(format!("{}: {error}", place.host)))?;
        Ok(Self {
            place: place.clone(),
            addresses: found.collect(),
            daemon: daemon.clone(),
            own: HashSet::new(),
            excluded: Vec::new(),
        })
    }

    fn at(&self, port: u16) -> Vec<SocketAddr> {
        self.addresses.iter().map(|address| SocketAddr::new(address.ip(), port)).collect()
    }

    /// Connects to a port of the host.
    ///
    /// # Errors
    /// Why there is no connection.
    pub(super) async fn connect(&self, port: u16) -> io::Result<TcpStream> {
        connect(&self.at(port)).await
    }

    /// Connects to all of these ports.
    ///
    /// # Errors
    /// The first port that does not answer, and how many are needed.
    pub(super) async fn connect_all(
        &self,
        ports: Vec<u16>,
    ) -> Result<Vec<(u16, TcpStream)>, Failure> {
        let mut connected = Vec::with_capacity(ports.len());
        for some in ports.chunks(CONNECTING) {
            let mut connecting = JoinSet::new();
            for port in some.iter().copied() {
                let addresses = self.at(port);
                connecting.spawn(async move { (port, connect(&addresses).await) });
            }
            let mut results = connecting.join_all().await;
            results.sort_by_key(|(port, _)| *port);
            for (port, result) in results {
                let stream = result.map_err(|error| self.too_few(port, &error, &ports))?;
                connected.push((port, stream));
            }
        }
        Ok(connected)
    }

    fn too_few(&self, port: u16, error: &io::Error, ports: &[u16]) -> Failure {
        let place = HostAndPort { port, ..self.place.clone() };
        let (needed, base) = (ports.len(), self.place.port);
        if needed == 1 {
            return Failure::Answer(format!("{place}: {error} (start the receiver first)"));
        }
        let answering = match port.saturating_sub(base) {
            0 => "none of them answers (start the receiver first)".to_owned(),
            1 => "the first of them answers".to_owned(),
            count => format!("the first {count} of them answer"),
        };
        Failure::Answer(format!(
            "{place}: {error}; {needed} ports from {base} on are needed, one for each connection, \
             and {answering}"
        ))
    }

    /// Takes a connection to send on. Captures of interfaces leave its packets out if they may.
    ///
    /// # Errors
    /// It is gone already.
    pub(super) async fn taken(
        &mut self,
        stream: TcpStream,
        room: &WaitingRoom,
    ) -> Result<OutgoingStream, String> {
        let ends = stream.local_addr().and_then(|local| Ok((local, stream.peer_addr()?)));
        let (local, remote) = ends.map_err(|error| error.to_string())?;
        self.own.extend([(local, remote), (remote, local)]);
        if self.own.len() <= 2 * EXCLUDED {
            let excluded = exclude::keep_out(&self.daemon, local, Some(remote)).await;
            self.excluded.push(excluded);
        } else if self.own.len() == 2 * (EXCLUDED + 1)
            && self.excluded.iter().any(ExcludedOutlet::is_kept)
        {
            output::say(format_args!(
                "warning: captures leave out the packets of {EXCLUDED} connections; those of the \
                 others are stored by captures that see them"
            ));
        }
        Ok(OutgoingStream::start(stream, room.clone()))
    }

    /// True if a packet between these ends is one of this process's own.
    pub(super) fn is_own(&self, source: SocketAddr, destination: SocketAddr) -> bool {
        self.own.contains(&(source, destination))
    }
}
