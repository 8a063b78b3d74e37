//! Telling systemd how things are, see sd_notify(3); to anybody else it makes no difference.

use std::env;
use std::ffi::OsString;
use std::os::linux::net::SocketAddrExt;
use std::os::unix::ffi::OsStrExt;
use std::os::unix::net::{SocketAddr, UnixDatagram};
use std::process;
use std::time::Duration;

/// Where to, and how often.
#[derive(Debug, Default)]
pub(crate) struct Notifier {
    to: Option<(UnixDatagram, SocketAddr)>,
    watchdog: Option<Duration>,
}

impl Notifier {
    /// As the environment has it.
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
            // systemd, if it is there at all, is there again later.
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
    // Nobody is to be waited for.
    socket.set_nonblocking(true).ok()?;
    Some((socket, address))
}
