//! Reports the state to systemd, see sd_notify(3). Without systemd it does nothing.
//!
//! The socket is found once, at the start: in another mount namespace its path may lead nowhere, or
//! to a stranger.

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
    to: Option<UnixDatagram>,
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
        if let Some(socket) = &self.to {
            // If systemd does not take it now, it may take a later message.
            let _ = socket.send(state.as_bytes());
        }
    }
}

fn open(name: OsString) -> Option<UnixDatagram> {
    let address = match name.as_bytes() {
        [b'@', rest @ ..] => SocketAddr::from_abstract_name(rest).ok()?,
        _ => SocketAddr::from_pathname(name).ok()?,
    };
    let socket = UnixDatagram::unbound().ok()?;
    // A send must not block.
    socket.set_nonblocking(true).ok()?;
    socket.connect_addr(&address).ok()?;
    Some(socket)
}

#[cfg(test)]
mod tests {
    use std::fs;

    use super::*;

    #[test]
    fn systemd_is_reached_after_its_path_leads_elsewhere() {
        let path = env::temp_dir().join(format!("pcapfs-notify-{}", process::id()));
        let systemd = UnixDatagram::bind(&path).unwrap();
        let notifier = Notifier { to: open(path.clone().into()), watchdog: None };
        fs::remove_file(&path).unwrap();
        let stranger = UnixDatagram::bind(&path).unwrap();
        notifier.tell("READY=1");
        fs::remove_file(&path).unwrap();
        for socket in [&systemd, &stranger] {
            socket.set_nonblocking(true).unwrap();
        }
        let mut heard = [0; 16];
        let len = systemd.recv(&mut heard).unwrap();
        assert_eq!(heard.split_at(len).0, b"READY=1");
        assert!(stranger.recv(&mut heard).is_err());
    }
}
