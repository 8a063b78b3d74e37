//! Reports the state to systemd, see sd_notify(3). Without systemd it does nothing.

use std::env;
use std::ffi::OsString;
use std::os::linux::net::SocketAddrExt;
use std::os::unix::ffi::OsStrExt;
use std::os::unix::net::{SocketAddr, UnixDatagram};
use std::process;
use std::time::Duration;

/// The socket of systemd, and its watchdog interval.
#[derive(Debug, Default)]
pub(crate) struct Notifier {
    to: Option<(UnixDatagram, SocketAddr)>,
    watchdog: Option<Duration>,
}

impl Notifier {
    /// The settings of the environment.
    pub(crate) fn from_environment() -> Self {
        let of_us = env::var("WATCHDOG_PID").map_or(true, |pid| pid.parse() == Ok(process::id()));
        let interval = env::var("WATCHDOG_USEC").ok().and_then(|text| text.parse().ok());
        Self {
            to: env::var_os("NOTIFY_SOCKET").and_then(open),
            watchdog: interval.filter(|interval| of_us && *interval > 0).map(Duration::from_micros),
        }
    }

    /// How long systemd waits for a sign of life, if it does.
    pub(crate) fn watchdog(&self) -> Option<Duration> {
        self.watchdog
    }

    /// Sends assignments such as `READY=1`, one a line.
    pub(crate) fn tell(&self, state: &str) {
        if let Some((socket, address)) = &self.to {
            // If systemd is not there now, a later message will reach it.
            let _ = socket.send_to_addr(state.as_bytes(), address);
        }
    }
}

fn open(name: OsString) -> Option<(UnixDatagram, SocketAddr)> {
    let address = match name.as_bytes() {
        [b'@', rest @ ..] => SocketAddr::from_abstract_name(rest).ok()?,
        _ => SocketAddr::from_pathname(name).ok()?,
    };
    let socket = UnixDatagram::unbound().ok()?;
    // A send must not block.
    socket.set_nonblocking(true).ok()?;
    Some((socket, address))
}
