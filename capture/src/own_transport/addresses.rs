//! The addresses of this machine, which decide whether a packet to a port on which we listen at all
//! addresses is for us.
//!
//! A machine that forwards packets sees those of others to the same port. They are not ours.

use std::collections::HashSet;
use std::net::IpAddr;
use std::time::{Duration, Instant};

use parking_lot::RwLock;

/// How long the list holds for an address that it has.
const VALID: Duration = Duration::from_secs(10);

/// Minimum time between two reads for addresses that the list lacks. Those may be of packets that
/// are forwarded all the time, and a read takes a tenth of a millisecond.
const INTERVAL: Duration = Duration::from_millis(100);

/// The addresses, and when they were read.
#[derive(Debug, Default)]
pub(super) struct OwnAddresses {
    read: RwLock<Option<(Instant, HashSet<IpAddr>)>>,
}

impl OwnAddresses {
    /// Returns true if `address` is one of this machine.
    pub(super) fn have(&self, address: IpAddr) -> bool {
        if address.is_loopback() {
            return true;
        }
        if let Some((at, addresses)) = &*self.read.read() {
            let (has, age) = (addresses.contains(&address), at.elapsed());
            if age < if has { VALID } else { INTERVAL } {
                return has;
            }
        }
        let addresses = addresses();
        let has = addresses.contains(&address);
        *self.read.write() = Some((Instant::now(), addresses));
        has
    }
}

/// The addresses of all interfaces in this network namespace; none if the kernel does not say.
fn addresses() -> HashSet<IpAddr> {
    let interfaces = nix::ifaddrs::getifaddrs().into_iter().flatten();
    let addresses = interfaces.filter_map(|interface| {
        let address = interface.address?;
        let v4 = address.as_sockaddr_in().map(|address| IpAddr::V4(address.ip()));
        v4.or_else(|| address.as_sockaddr_in6().map(|address| IpAddr::V6(address.ip())))
    });
    addresses.collect()
}
