//! The user at the other end of a connection on loopback, as the kernel knows it.
//!
//! The kernel's answer (`sock_diag(7)`) is about the client's own socket. It counts only while that
//! socket is established: a socket that is closing, or in `TIME_WAIT`, has no owner any more, and
//! the kernel then says uid 0, which is root's.

use std::io;
use std::net::SocketAddr;

use crate::tcp_socket;

/// `TCP_ESTABLISHED` of `net/tcp_states.h`.
const ESTABLISHED: u8 = 1;

/// The uid that the kernel states for users who are not known in this user namespace
/// (`/proc/sys/kernel/overflowuid`). Many users share it, so it identifies no user.
const OVERFLOW: u32 = 65_534;

/// The uid of the process that has the end `client` of a connection between two addresses of this
/// machine; `None` if it is not known for certain.
///
/// # Errors
/// The system does not answer.
pub(super) fn client_user(client: SocketAddr, server: SocketAddr) -> io::Result<Option<u32>> {
    // A connection of IPv4 to a socket of IPv6 is one of IPv4.
    let canonical = |end: SocketAddr| SocketAddr::new(end.ip().to_canonical(), end.port());
    let found = tcp_socket::find(canonical(client), Some(canonical(server)))?;
    let certain = found.filter(|socket| socket.state == ESTABLISHED && socket.user != OVERFLOW);
    Ok(certain.map(|socket| socket.user))
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
}
