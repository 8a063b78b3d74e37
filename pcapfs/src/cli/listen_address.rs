//! The address at which an outlet listens.

use std::io;
use std::net::SocketAddr;

use capture::source::HostAndPort;

use crate::failure::Failure;

/// Reads the `--listen` of a command. `is_protected` says that the clients which other machines
/// could be are let in one by one, or that the user takes them all; `advice` is for a user who has
/// said neither.
///
/// # Errors
/// It is no address of this machine, or other machines reach it and it is not protected.
pub(super) fn read(text: &str, is_protected: bool, advice: &str) -> Result<SocketAddr, Failure> {
    let wrong = |why: String| Failure::Argument(format!("--listen {text}: {why}"));
    let place = match text.strip_suffix(":0") {
        // Any free port.
        Some(host) => HostAndPort::parse(&format!("{host}:1")).map(|place| (place, Some(0))),
        None => HostAndPort::parse(text).map(|place| (place, None)),
    };
    let (place, port) = place.map_err(|why| wrong(format!("{why} (write ADDR:PORT)")))?;
    let mut address = place
        .local_address()
        .ok_or_else(|| wrong("no address of this machine (127.0.0.1 and [::] are some)".into()))?;
    if let Some(port) = port {
        address.set_port(port);
    }
    if !address.ip().is_loopback() && !is_protected {
        return Err(wrong(advice.to_owned()));
    }
    Ok(address)
}

/// The failure to listen there.
pub(super) fn failure(address: SocketAddr, error: &io::Error) -> Failure {
    let advice = match error.kind() {
        io::ErrorKind::AddrInUse => " (another program listens there; choose a port with --listen)",
        io::ErrorKind::AddrNotAvailable => " (no interface has it; see: ip address)",
        io::ErrorKind::PermissionDenied => " (ports below 1024 are for root)",
        _ => "",
    };
    Failure::Answer(format!("{address}: {error}{advice}"))
}
