//! The user at the other end of a connection on loopback, as the kernel knows it.
//!
//! The kernel's answer (`sock_diag(7)`) is about the client's own socket. It counts only while that
//! socket is established: a socket that is closing, or in `TIME_WAIT`, has no owner any more, and
//! the kernel then says uid 0, which is root's.

use std::io;
use std::net::{IpAddr, Ipv6Addr, SocketAddr};
use std::os::fd::AsRawFd;

use nix::sys::socket::{
    AddressFamily, MsgFlags, NetlinkAddr, SockFlag, SockProtocol, SockType, recv, sendto,
    setsockopt, socket, sockopt,
};
use nix::sys::time::{TimeVal, TimeValLike};
use zerocopy::{FromBytes, Immutable, IntoBytes, KnownLayout};

/// `SOCK_DIAG_BY_FAMILY` of `linux/sock_diag.h`.
const BY_FAMILY: u16 = 20;

/// `NLM_F_REQUEST` of `linux/netlink.h`.
const REQUEST: u16 = 1;

/// `TCP_ESTABLISHED` of `net/tcp_states.h`.
const ESTABLISHED: u8 = 1;

/// `INET_DIAG_NOCOOKIE` of `linux/inet_diag.h`: whichever socket has these addresses.
const NO_COOKIE: u32 = u32::MAX;

/// The uid that the kernel states for users who are not known in this user namespace
/// (`/proc/sys/kernel/overflowuid`). Many users share it, so it identifies no user.
const OVERFLOW: u32 = 65_534;

/// Seconds after which the kernel has no answer. It answers within the call that asks.
const PATIENCE: i64 = 1;

/// `struct nlmsghdr` of `linux/netlink.h`.
#[derive(Clone, Copy, FromBytes, IntoBytes, Immutable, KnownLayout)]
#[repr(C)]
struct NetlinkHeader {
    length: u32,
    kind: u16,
    flags: u16,
    sequence: u32,
    port: u32,
}

/// `struct inet_diag_sockid` of `linux/inet_diag.h`; ports and addresses are in network order.
#[derive(Clone, Copy, FromBytes, IntoBytes, Immutable, KnownLayout)]
#[repr(C)]
struct SocketId {
    source_port: [u8; 2],
    destination_port: [u8; 2],
    source: [u8; 16],
    destination: [u8; 16],
    interface: u32,
    cookie: [u32; 2],
}

/// A request: `struct nlmsghdr` and `struct inet_diag_req_v2`.
#[derive(Clone, Copy, FromBytes, IntoBytes, Immutable, KnownLayout)]
#[repr(C)]
struct DiagRequest {
    header: NetlinkHeader,
    family: u8,
    protocol: u8,
    extensions: u8,
    padding: u8,
    states: u32,
    socket: SocketId,
}

/// An answer: `struct nlmsghdr` and `struct inet_diag_msg`.
#[derive(Clone, Copy, FromBytes, IntoBytes, Immutable, KnownLayout)]
#[repr(C)]
struct DiagAnswer {
    header: NetlinkHeader,
    family: u8,
    state: u8,
    timer: u8,
    retransmits: u8,
    socket: SocketId,
    expires: u32,
    receive_queue: u32,
    send_queue: u32,
    uid: u32,
    inode: u32,
}

/// The uid of the process that has the end `client` of a connection between two addresses of this
/// machine; `None` if it is not known for certain.
///
/// # Errors
/// The system does not answer.
pub(super) fn client_user(client: SocketAddr, server: SocketAddr) -> io::Result<Option<u32>> {
    let flags = SockFlag::SOCK_CLOEXEC;
    let protocol = SockProtocol::NetlinkSockDiag;
    let netlink = socket(AddressFamily::Netlink, SockType::Datagram, flags, protocol)?;
    setsockopt(&netlink, sockopt::ReceiveTimeout, &TimeVal::seconds(PATIENCE))?;
    let request = request(client, server);
    let kernel = NetlinkAddr::new(0, 0);
    sendto(netlink.as_raw_fd(), request.as_bytes(), &kernel, MsgFlags::empty())?;
    let mut answer = [0; 512];
    let length = recv(netlink.as_raw_fd(), &mut answer, MsgFlags::empty())?;
    Ok(answer.get(..length).and_then(|bytes| uid(bytes, &request.socket)))
}

fn request(client: SocketAddr, server: SocketAddr) -> DiagRequest {
    // A connection of IPv4 to a socket of IPv6 is one of IPv4.
    let (from, to) = (client.ip().to_canonical(), server.ip().to_canonical());
    let family = if from.is_ipv4() { AddressFamily::Inet } else { AddressFamily::Inet6 };
    DiagRequest {
        header: NetlinkHeader {
            length: u32::try_from(size_of::<DiagRequest>()).unwrap_or(0),
            kind: BY_FAMILY,
            flags: REQUEST,
            sequence: 1,
            port: 0,
        },
        // Both families have numbers below 256.
        family: u8::try_from(family as i32).unwrap_or(0),
        protocol: u8::try_from(libc::IPPROTO_TCP).unwrap_or(0),
        extensions: 0,
        padding: 0,
        states: u32::MAX,
        socket: SocketId {
            source_port: client.port().to_be_bytes(),
            destination_port: server.port().to_be_bytes(),
            source: address(from),
            destination: address(to),
            interface: 0,
            cookie: [NO_COOKIE; 2],
        },
    }
}

/// An address as the kernel writes it: IPv4 in the first four bytes.
fn address(address: IpAddr) -> [u8; 16] {
    match address {
        IpAddr::V4(address) => {
            let [a, b, c, d] = address.octets();
            let mut bytes = Ipv6Addr::UNSPECIFIED.octets();
            bytes.iter_mut().zip([a, b, c, d]).for_each(|(byte, octet)| *byte = octet);
            bytes
        }
        IpAddr::V6(address) => address.octets(),
    }
}

/// The uid in an answer about this socket, if it is established.
fn uid(bytes: &[u8], asked: &SocketId) -> Option<u32> {
    let (answer, _) = DiagAnswer::read_from_prefix(bytes).ok()?;
    let is_about_it = answer.header.kind == BY_FAMILY
        && answer.socket.source_port == asked.source_port
        && answer.socket.destination_port == asked.destination_port;
    let is_certain = is_about_it && answer.state == ESTABLISHED && answer.uid != OVERFLOW;
    is_certain.then_some(answer.uid)
}

#[cfg(test)]
mod tests {
    use std::net::{TcpListener, TcpStream};

    use nix::unistd::geteuid;

    use super::*;

    #[test]
    fn the_client_of_a_connection_is_known_while_it_is_established() {
        for place in ["127.0.0.1:0", "[::1]:0"] {
            let listener = TcpListener::bind(place).unwrap();
            let server = listener.local_addr().unwrap();
            let client = TcpStream::connect(server).unwrap();
            let (_accepted, peer) = listener.accept().unwrap();
            assert_eq!(client_user(peer, server).unwrap(), Some(geteuid().as_raw()));
            // Closed by the client: its socket is in FIN_WAIT.
            drop(client);
            assert_eq!(client_user(peer, server).unwrap(), None);
        }
    }

    #[test]
    fn a_client_of_a_socket_for_both_families_is_known() {
        let listener = TcpListener::bind("[::]:0").unwrap();
        let port = listener.local_addr().unwrap().port();
        let _client = TcpStream::connect(("127.0.0.1", port)).unwrap();
        let (accepted, peer) = listener.accept().unwrap();
        let server = accepted.local_addr().unwrap();
        assert_eq!(client_user(peer, server).unwrap(), Some(geteuid().as_raw()));
    }

    #[test]
    fn a_connection_that_is_not_there_belongs_to_nobody() {
        let place = |port| SocketAddr::from(([127, 0, 0, 1], port));
        assert_eq!(client_user(place(1), place(2)).unwrap(), None);
    }

    #[test]
    fn nonsense_is_no_answer() {
        let asked = request(([127, 0, 0, 1], 1).into(), ([127, 0, 0, 1], 2).into()).socket;
        for length in 0..200 {
            assert_eq!(uid(&vec![0xff; length], &asked), None);
        }
    }
}
