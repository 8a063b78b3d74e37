//! Where messages go: to whoever has started this, and to the system's log after that.

use std::fmt::Display;
use std::io::{self, Read, Write};
use std::os::unix::net::UnixDatagram;

/// The system's log, see syslog(3).
const SYSTEM: &str = "/dev/log";

/// `LOG_DAEMON | LOG_NOTICE`.
const PRIORITY: u32 = 3 << 3 | 5;

/// Most bytes of a line of the daemon.
const LONGEST: usize = 1000;

/// Takes messages.
#[derive(Debug)]
pub(crate) struct Log {
    /// The system's log, as it is in the mount namespace this was made in.
    system: Option<UnixDatagram>,
    /// Standard error is of no use any more.
    has_left: bool,
}

impl Log {
    /// Messages go to standard error at first.
    pub(crate) fn new() -> Self {
        let socket = UnixDatagram::unbound().and_then(|socket| {
            socket.set_nonblocking(true)?;
            socket.connect(SYSTEM)?;
            Ok(socket)
        });
        // Without a system log, messages after the start are lost.
        Self { system: socket.ok(), has_left: false }
    }

    /// From now on messages go to the system's log.
    pub(crate) fn leave(&mut self) {
        self.has_left = true;
    }

    /// One message of this program.
    pub(crate) fn say(&self, message: impl Display) {
        self.line(&format!("mount.pcapfs: {message}"));
    }

    /// One line, which begins with the name of a program and a colon.
    pub(crate) fn line(&self, line: &str) {
        if !self.has_left {
            let _ = writeln!(io::stderr().lock(), "{line}");
        } else if let Some(socket) = &self.system {
            let (name, text) = line.split_once(": ").unwrap_or(("pcapfs", line));
            let pid = std::process::id();
            let _ = socket.send(format!("<{PRIORITY}>{name}[{pid}]: {text}").as_bytes());
        }
    }
}

/// Makes lines of what the daemon writes on standard error, which is a stranger's text: bounded,
/// and without control characters, which terminals obey.
#[derive(Debug, Default)]
pub(crate) struct Lines {
    begun: Vec<u8>,
    /// The rest of the line is too long.
    cut: bool,
}

impl Lines {
    /// Reads what is there and gives every whole line; `None` after the end.
    ///
    /// `from` must be readable, or at its end, or must not block.
    pub(crate) fn read(&mut self, mut from: impl Read) -> Option<Vec<String>> {
        let mut bytes = [0; 4096];
        match from.read(&mut bytes) {
            Ok(0) => None,
            Ok(len) => Some(self.take(bytes.get(..len).unwrap_or_default())),
            Err(error) => match error.kind() {
                io::ErrorKind::WouldBlock | io::ErrorKind::Interrupted => Some(Vec::new()),
                _ => None,
            },
        }
    }

    fn take(&mut self, bytes: &[u8]) -> Vec<String> {
        let mut lines = Vec::new();
        for byte in bytes {
            if *byte == b'\n' {
                lines.push(plain(&std::mem::take(&mut self.begun)));
                self.cut = false;
            } else if !self.cut {
                self.begun.push(*byte);
                self.cut = self.begun.len() >= LONGEST;
            }
        }
        lines
    }
}

fn plain(line: &[u8]) -> String {
    String::from_utf8_lossy(line)
        .chars()
        .map(|character| if character.is_control() { '?' } else { character })
        .collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn lines_are_whole_bounded_and_harmless() {
        let mut lines = Lines::default();
        assert_eq!(lines.read(&b"pcapfs: on"[..]), Some(vec![]));
        assert_eq!(
            lines.read(&b"e\nt\x1b[2Jwo\xff\n"[..]).unwrap(),
            ["pcapfs: one", "t?[2Jwo\u{fffd}"]
        );
        let long = [b'x'; 3 * LONGEST];
        assert_eq!(lines.read(&long[..]), Some(vec![]));
        assert_eq!(lines.read(&b"\nnext\n"[..]).unwrap(), ["x".repeat(LONGEST), "next".into()]);
        assert_eq!(lines.read(&b""[..]), None);
    }
}
