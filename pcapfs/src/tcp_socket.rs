//! TCP sockets of this machine, as the kernel knows them (`sock_diag`, sock_diag(7)): whose one is,
//! for services that give the user of a socket rights.
//!
//! The answer is about the network namespace of this process. For a daemon, that is also the one
//! whose packets it captures.

use std::io;
use std::net::{IpAddr, SocketAddr};
use std::os::fd::AsRawFd;

use nix::errno::Errno;
use nix::sys::socket::{
    AddressFamily, MsgFlags, SockFlag, SockProtocol, SockType, recv, send, socket,
};
use nix::sys::time::TimeVal;
use zerocopy::{FromBytes, Immutable, IntoBytes, KnownLayout};

/// `SOCK_DIAG_BY_FAMILY` of `linux/sock_diag.h`.
const BY_FAMILY: u16 = 20;
/// `NLMSG_ERROR` of `linux/netlink.h`.
const ERROR: u16 = 2;
/// `NLM_F_REQUEST` of `linux/netlink.h`.
const REQUEST: u16 = 1;
/// `INET_DIAG_NOCOOKIE` of `linux/inet_diag.h`: any socket with these ends.
const NO_COOKIE: u32 = u32::MAX;

/// `struct nlmsghdr` of `linux/netlink.h`.
#[derive(Clone, Copy, Debug, FromBytes, IntoBytes, Immutable, KnownLayout)]
#[repr(C)]
struct NetlinkHeader {
    len: u32,
    kind: u16,
    flags: u16,
    sequence: u32,
    port: u32,
}

/// `struct inet_diag_sockid` of `linux/inet_diag.h`. Ports and addresses are in network byte order.
#[derive(Clone, Copy, Debug, FromBytes, IntoBytes, Immutable, KnownLayout)]
#[repr(C)]
struct SocketEnds {
    local_port: [u8; 2],
    remote_port: [u8; 2],
    local: [u8; 16],
    remote: [u8; 16],
    interface: u32,
    cookie: [u32; 2],
}

/// `struct nlmsghdr` and `struct inet_diag_req_v2`.
#[derive(Clone, Copy, Debug, FromBytes, IntoBytes, Immutable, KnownLayout)]
#[repr(C)]
struct OwnerRequest {
    header: NetlinkHeader,
    family: u8,
    protocol: u8,
    extensions: u8,
    _padding: u8,
    states: u32,
    ends: SocketEnds,
}

/// `struct nlmsghdr` and `struct inet_diag_msg`, whose attributes follow.
#[derive(Clone, Copy, Debug, FromBytes, IntoBytes, Immutable, KnownLayout)]
#[repr(C)]
struct OwnerAnswer {
    header: NetlinkHeader,
    _family: u8,
    state: u8,
    _timer_and_retransmits: [u8; 2],
    ends: SocketEnds,
    _expires_and_queues: [u32; 3],
    uid: u32,
    _inode: u32,
}

/// `struct nlmsghdr` and the beginning of `struct nlmsgerr`.
#[derive(Clone, Copy, Debug, FromBytes, IntoBytes, Immutable, KnownLayout)]
#[repr(C)]
struct Refused {
    header: NetlinkHeader,
    error: i32,
}

/// A TCP socket.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct TcpSocketFacts {
    /// The uid of its owner; 0 for a socket that has none any more.
    pub(crate) user: u32,
    /// Its state, as numbered in `net/tcp_states.h`.
    pub(crate) state: u8,
}

/// The TCP socket that listens at `local`, or that is connected with `remote`; `None` without such a
/// socket. An unspecified address finds only a socket that has it.
///
/// # Errors
/// The errors of netlink(7). A kernel without `tcp_diag` answers as if there were no
/// socket.
pub(crate) fn find(
    local: SocketAddr,
    remote: Option<SocketAddr>,
) -> io::Result<Option<TcpSocketFacts>> {
    let socket = socket(
        AddressFamily::Netlink,
        SockType::Datagram,
        SockFlag::SOCK_CLOEXEC,
        SockProtocol::NetlinkSockDiag,
    )?;
    // The kernel answers before send(2) returns; this thread serves others too.
    nix::sys::socket::setsockopt(
        &socket,
        nix::sys::socket::sockopt::ReceiveTimeout,
        &TimeVal::new(1, 0),
    )?;
    let request = request(local, remote);
    send(socket.as_raw_fd(), request.as_bytes(), MsgFlags::empty())?;
    let mut answer = [0; 4096];
    let len = recv(socket.as_raw_fd(), &mut answer, MsgFlags::empty())?;
    facts(answer.get(..len).unwrap_or_default(), &request.ends)
}

fn request(local: SocketAddr, remote: Option<SocketAddr>) -> OwnerRequest {
    let any = SocketAddr::new(if local.is_ipv4() { [0; 4].into() } else { [0; 16].into() }, 0);
    let remote = remote.unwrap_or(any);
    let family = if local.is_ipv4() { libc::AF_INET } else { libc::AF_INET6 };
    OwnerRequest {
        header: NetlinkHeader {
            len: u32::try_from(size_of::<OwnerRequest>()).unwrap_or(0),
            kind: BY_FAMILY,
            flags: REQUEST,
            sequence: 1,
            port: 0,
        },
        family: u8::try_from(family).unwrap_or(0),
        protocol: u8::try_from(libc::IPPROTO_TCP).unwrap_or(0),
        extensions: 0,
        _padding: 0,
        states: u32::MAX,
        ends: SocketEnds {
            local_port: local.port().to_be_bytes(),
            remote_port: remote.port().to_be_bytes(),
            local: octets(local.ip()),
            remote: octets(remote.ip()),
            interface: 0,
            cookie: [NO_COOKIE; 2],
        },
    }
}

/// An IPv4 address is in the first four bytes.
fn octets(address: IpAddr) -> [u8; 16] {
    match address {
        IpAddr::V4(v4) => {
            let [a, b, c, d] = v4.octets();
            [a, b, c, d, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0]
        }
        IpAddr::V6(v6) => v6.octets(),
    }
}

/// The socket in an answer about these ends.
fn facts(answer: &[u8], asked: &SocketEnds) -> io::Result<Option<TcpSocketFacts>> {
    let malformed = || io::Error::other("the kernel's answer about a socket is malformed");
    let (header, _) = NetlinkHeader::read_from_prefix(answer).map_err(|_| malformed())?;
    match header.kind {
        BY_FAMILY => {
            let (found, _) = OwnerAnswer::read_from_prefix(answer).map_err(|_| malformed())?;
            // Without a connection, the kernel finds the socket that would accept it.
            let ports = |ends: &SocketEnds| (ends.local_port, ends.remote_port);
            let is_it = ports(&found.ends) == ports(asked);
            Ok(is_it.then_some(TcpSocketFacts { user: found.uid, state: found.state }))
        }
        ERROR => {
            let (refused, _) = Refused::read_from_prefix(answer).map_err(|_| malformed())?;
            match Errno::from_raw(refused.error.saturating_neg()) {
                Errno::ENOENT => Ok(None),
                errno => Err(errno.into()),
            }
        }
        _ => Err(malformed()),
    }
}

#[cfg(test)]
mod tests {
    use std::net::{TcpListener, TcpStream};

    use super::*;

    #[test]
    fn the_owner_of_listening_and_connected_sockets_is_known() {
        let own = nix::unistd::geteuid().as_raw();
        let of_tcp = |local, remote| find(local, remote).map(|found| found.map(|one| one.user));
        for address in ["127.0.0.1:0", "[::1]:0", "0.0.0.0:0"] {
            let Ok(listener) = TcpListener::bind(address) else { continue };
            let local = listener.local_addr().unwrap();
            assert_eq!(of_tcp(local, None).unwrap(), Some(own), "{local}");
            let stream = TcpStream::connect(local).unwrap();
            let ends = (stream.local_addr().unwrap(), stream.peer_addr().unwrap());
            assert_eq!(of_tcp(ends.0, Some(ends.1)).unwrap(), Some(own), "{ends:?}");
            let other = (local, (ends.0.ip(), 9).into());
            assert_eq!(of_tcp(other.0, Some(other.1)).unwrap(), None, "{other:?}");
            drop((listener, stream));
            assert_eq!(of_tcp(local, None).unwrap(), None, "{local}");
        }
    }

    #[test]
    fn any_address_is_not_one_address() {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let port = listener.local_addr().unwrap().port();
        assert_eq!(find(([0, 0, 0, 0], port).into(), None).unwrap(), None);
        // A socket of IPv6 at all addresses has those of IPv4 too.
        if let Ok(both) = TcpListener::bind("[::]:0") {
            let port = both.local_addr().unwrap().port();
            assert!(find(([0, 0, 0, 0], port).into(), None).unwrap().is_some());
        }
    }

    #[test]
    fn a_malformed_answer_is_an_error() {
        let asked = request(([127, 0, 0, 1], 1).into(), Some(([127, 0, 0, 1], 2).into())).ends;
        for len in [0, 15, 16, 80] {
            assert!(facts(&vec![0; len], &asked).is_err());
        }
        for len in 0..200 {
            assert!(facts(&vec![0xff; len], &asked).is_err());
        }
    }
}
