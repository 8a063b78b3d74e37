//! Consecutive ports: all of them are listened at, or none.

use std::io;
use std::net::{IpAddr, SocketAddr};
use std::ops::RangeInclusive;

use tokio::net::TcpListener;

use crate::failure::Failure;

/// A socket that listens, and its address.
#[derive(Debug)]
pub(super) struct ReceivingPort {
    pub(super) listener: TcpListener,
    pub(super) local: SocketAddr,
}

/// The ports from `first` on.
///
/// # Errors
/// There are not as many.
pub(super) fn range(first: u16, count: u16) -> Result<RangeInclusive<u16>, Failure> {
    let last = count.checked_sub(1).and_then(|more| first.checked_add(more));
    last.map(|last| first..=last).ok_or_else(|| {
        let most = u32::from(u16::MAX) - u32::from(first) + 1;
        Failure::Argument(format!(
            "{count} ports from {first} on: the last port is {}, so there are {most}",
            u16::MAX
        ))
    })
}

/// Listens at all of the ports.
///
/// # Errors
/// The first port that cannot be had. Then none is listened at.
pub(super) async fn listen(
    address: IpAddr,
    ports: RangeInclusive<u16>,
) -> Result<Vec<ReceivingPort>, Failure> {
    let mut listening = Vec::with_capacity(ports.len());
    let all = format!("ports {} to {}", ports.start(), ports.end());
    for port in ports {
        let local = SocketAddr::new(address, port);
        let listener = TcpListener::bind(local).await.map_err(|error| {
            Failure::Answer(format!("{local}: {error}{} ({all} are needed)", advice(&error)))
        })?;
        listening.push(ReceivingPort { listener, local });
    }
    Ok(listening)
}

/// Advice on an error of listening.
fn advice(error: &io::Error) -> &'static str {
    match error.kind() {
        io::ErrorKind::AddrInUse => ": another program listens there; see: ss -ltnp",
        io::ErrorKind::AddrNotAvailable => ": no interface has this address; see: ip address",
        io::ErrorKind::PermissionDenied => ": ports below 1024 are for root",
        _ => "",
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn ports_end_with_the_last_one() {
        assert_eq!(range(5000, 3).unwrap(), 5000..=5002);
        assert_eq!(range(65_535, 1).unwrap(), 65_535..=65_535);
        let said = range(65_530, 7).unwrap_err();
        assert!(said.is_usage());
        assert!(said.to_string().ends_with("the last port is 65535, so there are 6"), "{said}");
    }
}
