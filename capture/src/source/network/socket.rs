//! The sockets of PCAP-over-IP: they never block, and they find out that a peer is gone that says
//! nothing.

use std::io;
use std::net::SocketAddr;
use std::os::fd::{AsFd, AsRawFd};
use std::time::Duration;

use nix::errno::Errno;
use nix::sys::socket::{SockaddrStorage, connect, setsockopt, sockopt};

use crate::own_transport::{OwnListener, OwnStream};

/// Seconds without a byte from the peer before the kernel asks whether it is there.
const KEEPALIVE_IDLE: u32 = 3;

/// Seconds between two such questions.
const KEEPALIVE_INTERVAL: u32 = 2;

/// Questions without an answer after which the connection is given up.
const KEEPALIVE_COUNT: u32 = 3;

/// The time in which a peer is noticed that is gone without a word: its power failed, or the
/// network between is cut.
pub(super) const NOTICED_WITHIN: Duration =
    Duration::from_secs((KEEPALIVE_IDLE + KEEPALIVE_INTERVAL * KEEPALIVE_COUNT) as u64);

const _: () = assert!(NOTICED_WITHIN.as_secs() < 10, "the promise of docs/semantics.md");

/// A socket that has begun to connect; writable when that is decided.
pub(super) fn begin_connecting(address: SocketAddr) -> io::Result<OwnStream> {
    let made = OwnStream::unconnected(address)?;
    made.set_nonblocking(true)?;
    keep_alive(&made)?;
    match connect(made.as_raw_fd(), &SockaddrStorage::from(address)) {
        Ok(()) | Err(Errno::EINPROGRESS) => Ok(made),
        Err(errno) => Err(errno.into()),
    }
}

/// Returns true if the socket has connected, false if that is not decided yet.
///
/// # Errors
/// Why it has not connected.
pub(super) fn connected(socket: &OwnStream) -> io::Result<bool> {
    if let Some(error) = socket.take_error()? {
        return Err(match error.kind() {
            // It was connected in the meantime.
            io::ErrorKind::ConnectionReset => io::Error::new(error.kind(), why(&error)),
            _ => error,
        });
    }
    match socket.peer_addr() {
        Ok(_) => socket.enter_local_address().map(|()| true),
        Err(error) if error.kind() == io::ErrorKind::NotConnected => Ok(false),
        Err(error) => Err(error),
    }
}

/// A socket at which senders can connect.
pub(super) fn listen(address: SocketAddr) -> io::Result<OwnListener> {
    let listener = OwnListener::bind(address)?;
    listener.set_nonblocking(true)?;
    Ok(listener)
}

/// The next connection of a sender; `None` if none waits.
///
/// # Errors
/// Errors of accept(2) that are not about that one connection.
pub(super) fn accept(listener: &OwnListener) -> io::Result<Option<(OwnStream, SocketAddr)>> {
    loop {
        match listener.accept() {
            Ok((stream, peer)) => {
                stream.set_nonblocking(true)?;
                keep_alive(&stream)?;
                return Ok(Some((stream, peer)));
            }
            Err(error) => match error.kind() {
                io::ErrorKind::WouldBlock => return Ok(None),
                io::ErrorKind::Interrupted | io::ErrorKind::ConnectionAborted => {}
                _ => return Err(error),
            },
        }
    }
}

/// Why a connection has ended, for people.
pub(super) fn why(error: &io::Error) -> String {
    match error.kind() {
        io::ErrorKind::TimedOut => {
            format!("the far end has not answered for {} s", NOTICED_WITHIN.as_secs())
        }
        io::ErrorKind::ConnectionReset => "the far end reset the connection".to_owned(),
        _ => error.to_string(),
    }
}

/// Has the kernel notice within [`NOTICED_WITHIN`] that the peer is gone.
fn keep_alive(socket: &impl AsFd) -> io::Result<()> {
    setsockopt(socket, sockopt::KeepAlive, &true)?;
    setsockopt(socket, sockopt::TcpKeepIdle, &KEEPALIVE_IDLE)?;
    setsockopt(socket, sockopt::TcpKeepInterval, &KEEPALIVE_INTERVAL)?;
    setsockopt(socket, sockopt::TcpKeepCount, &KEEPALIVE_COUNT)?;
    Ok(())
}
