//! Finds the addresses of a host without holding up the thread that captures: getaddrinfo(3) may
//! wait for name servers for half a minute, and nothing ends it early.
//!
//! One thread asks at a time. A source that is stopped does not wait for it; it ends by itself.

use std::io;
use std::net::{SocketAddr, ToSocketAddrs};
use std::os::fd::AsFd;
use std::sync::Arc;
use std::thread;

use nix::sys::eventfd::{EfdFlags, EventFd};
use parking_lot::Mutex;

use super::place::HostAndPort;

/// Bytes of stack of the thread that asks; the C library's resolver has buffers on it.
const STACK: usize = 512 << 10;

/// A question under way.
#[derive(Debug)]
pub(super) struct Lookup {
    shared: Arc<SharedLookup>,
}

#[derive(Debug)]
struct SharedLookup {
    answer: Mutex<Option<io::Result<Vec<SocketAddr>>>>,
    /// Readable when there is an answer.
    answered: EventFd,
}

impl Lookup {
    /// Asks for the addresses of a host.
    ///
    /// # Errors
    /// Errors of making the thread.
    pub(super) fn start(place: &HostAndPort) -> io::Result<Self> {
        let flags = EfdFlags::EFD_CLOEXEC | EfdFlags::EFD_NONBLOCK;
        let answered = EventFd::from_flags(flags)?;
        let shared = Arc::new(SharedLookup { answer: Mutex::default(), answered });
        if let Some(address) = place.address() {
            shared.settle(Ok(vec![address]));
            return Ok(Self { shared });
        }
        let (asked, answer) = (place.clone(), Arc::clone(&shared));
        thread::Builder::new().name("lookup".to_owned()).stack_size(STACK).spawn(move || {
            let found = (asked.host.as_str(), asked.port).to_socket_addrs();
            answer.settle(found.map(Iterator::collect));
        })?;
        Ok(Self { shared })
    }

    /// The addresses; `None` if there is no answer yet. Only the first call after the answer has
    /// it.
    pub(super) fn answer(&self) -> Option<io::Result<Vec<SocketAddr>>> {
        self.shared.answer.lock().take()
    }
}

impl SharedLookup {
    fn settle(&self, answer: io::Result<Vec<SocketAddr>>) {
        *self.answer.lock() = Some(answer);
        // Fails only when the counter is full, and then the descriptor is readable.
        let _ = self.answered.write(1);
    }
}

impl AsFd for Lookup {
    fn as_fd(&self) -> std::os::fd::BorrowedFd<'_> {
        self.shared.answered.as_fd()
    }
}

#[cfg(test)]
mod tests {
    use std::time::{Duration, Instant};

    use super::*;

    fn wait(host: &str) -> io::Result<Vec<SocketAddr>> {
        let lookup = Lookup::start(&HostAndPort { host: host.to_owned(), port: 5 }).unwrap();
        let deadline = Instant::now() + Duration::from_secs(30);
        loop {
            if let Some(answer) = lookup.answer() {
                return answer;
            }
            assert!(Instant::now() < deadline, "no answer");
            thread::yield_now();
        }
    }

    #[test]
    fn names_and_addresses_are_found() {
        assert_eq!(wait("10.1.2.3").unwrap(), ["10.1.2.3:5".parse().unwrap()]);
        assert_eq!(wait("::1").unwrap(), ["[::1]:5".parse().unwrap()]);
        let local = wait("localhost").unwrap();
        assert!(local.iter().all(|address| address.ip().is_loopback() && address.port() == 5));
        assert!(!local.is_empty());
        assert!(wait("no-such-host.invalid").is_err());
    }
}
