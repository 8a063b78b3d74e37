//! Sockets that are in the table before their first packet, and the mark of what they send.
//!
//! The kernel gives the mark of a socket (`SO_MARK`, socket(7)) to each packet that it sends, also
//! to a SYN-ACK and to what it sends for a connection that has ended, and a socket filter sees it.
//! So the filter of a capture hands over one byte of our packets, which are then counted and cost
//! next to nothing. Packets without the mark, such as those that we receive, are compared with the
//! table. Without the right to set the mark (`CAP_NET_RAW`, before Linux 5.17 `CAP_NET_ADMIN`), the
//! table alone decides, with the same result.
//!
//! Marks are seen by rules of routing and firewalls too. Ours has none of the bits that well-known
//! programs test: 0xc000 of Kubernetes, 0x0f00 of Cilium, 0xffff0000 of Calico and Tailscale, 0x80
//! of the VPC plugin of Amazon. Each process has a mark of its own, since what another daemon sends
//! is not ours. It holds a name for the mark, an abstract UNIX socket: the network namespace in
//! which such a name exists is the one in which marks are seen.

use std::io::{self, Read, Write};
use std::net::{SocketAddr, TcpListener, TcpStream};
use std::ops::Deref;
use std::os::fd::{AsFd, AsRawFd, BorrowedFd, OwnedFd};
use std::sync::OnceLock;

use nix::sys::socket::{
    AddressFamily, Backlog, SockFlag, SockType, SockaddrStorage, UnixAddr, bind, getsockname,
    getsockopt, listen, setsockopt, socket, sockopt,
};

use super::{Exclusion, ExclusionScope, OwnTransport};

/// Number of marks: seven low bits, and the two above them that no well-known program tests.
const MARKS: u32 = 1 << 9;

/// The mark of this process; `None` if other processes hold all marks.
#[must_use]
pub fn mark() -> Option<u32> {
    static HELD: OnceLock<Option<(u32, OwnedFd)>> = OnceLock::new();
    HELD.get_or_init(hold_mark).as_ref().map(|(mark, _)| *mark)
}

fn hold_mark() -> Option<(u32, OwnedFd)> {
    // Two processes with neighbouring numbers try different marks first.
    let first = std::process::id();
    (0..MARKS).find_map(|step| {
        let number = first.wrapping_add(step) % MARKS;
        let mark = number & 0x7f | (number & 0x180) << 5;
        // 0 is a packet without a mark.
        let name = UnixAddr::new_abstract(format!("pcapfs/mark/{mark:#x}").as_bytes()).ok()?;
        let name = (mark != 0).then_some(name)?;
        let holder = socket(AddressFamily::Unix, SockType::Datagram, SockFlag::SOCK_CLOEXEC, None);
        let holder = holder.ok()?;
        bind(holder.as_raw_fd(), &name).ok()?;
        Some((mark, holder))
    })
}

/// A TCP connection whose packets no capture stores.
#[derive(Debug)]
pub struct OwnStream {
    stream: TcpStream,
    /// Closed after the stream. `None` if the table is full, and the entry of the listening socket
    /// has to do.
    exclusion: Option<Exclusion>,
}

impl OwnStream {
    /// A socket for a connection to `remote`, in the table and not connected yet.
    ///
    /// It has a port already, by which its first packets are recognized.
    ///
    /// # Errors
    /// The errors of socket(2) and bind(2), and [`TooManySockets`](super::TooManySockets).
    pub fn unconnected(remote: SocketAddr) -> io::Result<Self> {
        let socket = stream_socket(remote)?;
        let any = super::any_address(remote.is_ipv4(), 0);
        bind(socket.as_raw_fd(), &SockaddrStorage::from(any))?;
        let stream = TcpStream::from(socket);
        let transport = OwnTransport::of_process();
        let scope = ExclusionScope::AllCaptures;
        let exclusion = transport.enter_connection(stream.local_addr()?, remote, scope);
        Ok(Self { stream, exclusion: Some(exclusion.map_err(io::Error::other)?) })
    }

    /// Enters the local address, which the kernel chooses with connect(2). Call it once the
    /// connection is there.
    ///
    /// # Errors
    /// The errors of getsockname(2).
    pub fn enter_local_address(&self) -> io::Result<()> {
        let local = self.stream.local_addr()?;
        if let Some(exclusion) = &self.exclusion {
            exclusion.set_local(local);
        }
        Ok(())
    }

    /// The stream, for another runtime, and what keeps it in the table. Keep it as long as the
    /// stream.
    #[must_use]
    pub fn into_parts(self) -> (TcpStream, Option<Exclusion>) {
        (self.stream, self.exclusion)
    }
}

impl Deref for OwnStream {
    type Target = TcpStream;

    fn deref(&self) -> &TcpStream {
        &self.stream
    }
}

impl AsFd for OwnStream {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.stream.as_fd()
    }
}

impl Read for OwnStream {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        self.stream.read(buffer)
    }
}

impl Write for OwnStream {
    fn write(&mut self, buffer: &[u8]) -> io::Result<usize> {
        self.stream.write(buffer)
    }

    fn flush(&mut self) -> io::Result<()> {
        self.stream.flush()
    }
}

/// A TCP socket that accepts connections whose packets no capture stores.
#[derive(Debug)]
pub struct OwnListener {
    listener: TcpListener,
    exclusion: Exclusion,
}

impl OwnListener {
    /// A socket that listens at `local`. An unspecified IPv6 address accepts IPv4 too, unless the
    /// system is set otherwise.
    ///
    /// # Errors
    /// The errors of socket(2), bind(2) and listen(2), and
    /// [`TooManySockets`](super::TooManySockets).
    pub fn bind(local: SocketAddr) -> io::Result<Self> {
        let socket = stream_socket(local)?;
        // As the standard library does: a restart need not wait for connections that have ended.
        setsockopt(&socket, sockopt::ReuseAddr, &true)?;
        bind(socket.as_raw_fd(), &SockaddrStorage::from(local))?;
        let both_families = local.is_ipv6() && !getsockopt(&socket, sockopt::Ipv6V6Only)?;
        let listener = TcpListener::from(socket);
        let transport = OwnTransport::of_process();
        let scope = ExclusionScope::AllCaptures;
        let exclusion = transport.enter_listening(listener.local_addr()?, both_families, scope);
        let exclusion = exclusion.map_err(io::Error::other)?;
        listen(&listener, Backlog::MAXALLOWABLE)?;
        Ok(Self { listener, exclusion })
    }

    /// The next connection, and the address of its other end.
    ///
    /// # Errors
    /// The errors of accept(2).
    pub fn accept(&self) -> io::Result<(OwnStream, SocketAddr)> {
        let (stream, remote) = self.listener.accept()?;
        let exclusion = enter_accepted(&stream, remote);
        Ok((OwnStream { stream, exclusion }, remote))
    }

    /// The socket, for another runtime, and what keeps it in the table. Keep it as long as the
    /// socket.
    pub fn into_parts(self) -> (TcpListener, Exclusion) {
        (self.listener, self.exclusion)
    }
}

impl Deref for OwnListener {
    type Target = TcpListener;

    fn deref(&self) -> &TcpListener {
        &self.listener
    }
}

impl AsFd for OwnListener {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.listener.as_fd()
    }
}

/// Enters a connection that a listening socket of the table has accepted, so that the status shows
/// it. If that is not possible, the entry of the listening socket has to do.
pub fn enter_accepted(stream: &impl AsFd, remote: SocketAddr) -> Option<Exclusion> {
    let local: SockaddrStorage = getsockname(stream.as_fd().as_raw_fd()).ok()?;
    let v4 = local.as_sockaddr_in().map(|local| SocketAddr::V4((*local).into()));
    let local = v4.or_else(|| local.as_sockaddr_in6().map(|local| SocketAddr::V6((*local).into())));
    let transport = OwnTransport::of_process();
    transport.enter_connection(local?, remote, ExclusionScope::AllCaptures).ok()
}

/// A TCP socket of the family of `address`, with our mark if we may set it.
fn stream_socket(address: SocketAddr) -> io::Result<OwnedFd> {
    let family = if address.is_ipv4() { AddressFamily::Inet } else { AddressFamily::Inet6 };
    let socket = socket(family, SockType::Stream, SockFlag::SOCK_CLOEXEC, None)?;
    // Without it, the table alone decides.
    let _ = mark().map(|mark| setsockopt(&socket, sockopt::Mark, &mark));
    Ok(socket)
}
