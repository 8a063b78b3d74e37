//! Sends messages to the program that started this one, and later to the system's log.

use std::fmt::Display;
use std::io::{self, Read, Write};
use std::os::unix::net::UnixDatagram;

use mount_helper::message::unnumbered;

/// The system's log, see syslog(3).
const SYSTEM: &str = "/dev/log";

/// `LOG_DAEMON | LOG_NOTICE`.
const PRIORITY: u32 = 3 << 3 | 5;

/// The daemon's name in the log.
const DAEMON: &str = "pcapfs";

/// Maximum number of bytes of a line of the daemon.
const LONGEST: usize = 1000;

/// The destination of messages.
#[derive(Debug)]
pub(crate) struct MessageLog {
    /// The system's log, in the mount namespace that this was made in.
    system: Option<UnixDatagram>,
    /// True if standard error is no longer used.
    has_left: bool,
}

impl MessageLog {
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
        self.line("mount.pcapfs", std::process::id(), &message.to_string());
    }

    /// Logs a line of the daemon, which is process `pid`. The name in the log is always `pcapfs`.
    pub(crate) fn of_daemon(&self, pid: u32, line: &str) {
        self.line(DAEMON, pid, line.strip_prefix("pcapfs: ").unwrap_or(line));
    }

    fn line(&self, name: &str, pid: u32, text: &str) {
        let text = unnumbered(text);
        if !self.has_left {
            let _ = writeln!(io::stderr().lock(), "{name}: {text}");
        } else if let Some(socket) = &self.system {
            let _ = socket.send(format!("<{PRIORITY}>{name}[{pid}]: {text}").as_bytes());
        }
    }
}

/// Splits the daemon's standard error, which is a stranger's text, into lines: bounded, and without
/// control characters, which terminals obey.
#[derive(Debug, Default)]
pub(crate) struct Lines {
    begun: Vec<u8>,
    /// The rest of the line is too long.
    cut: bool,
}

impl Lines {
    /// Reads the available bytes and returns every whole line; `None` after the end.
    ///
    /// `from` must be readable, or at its end, or non-blocking.
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

/// A line with an escape for each character that must not be obeyed: controls, and those that end a
/// line or change the direction of text.
fn plain(line: &[u8]) -> String {
    let mut text = String::new();
    for character in String::from_utf8_lossy(line).chars() {
        match character {
            '\u{61c}'
            | '\u{200e}'..='\u{200f}'
            | '\u{2028}'..='\u{202e}'
            | '\u{2066}'..='\u{2069}' => {
                text.extend(character.escape_unicode());
            }
            _ if character.is_control() => text.extend(character.escape_unicode()),
            _ => text.push(character),
        }
    }
    text
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_daemon_speaks_for_itself_only() {
        let (ours, theirs) = UnixDatagram::pair().unwrap();
        let log = MessageLog { system: Some(ours), has_left: true };
        for line in ["sshd: Accepted password for root", "pcapfs: sshd: yes", "mount.pcapfs: no"] {
            log.of_daemon(7, line);
        }
        log.say("done");
        let own = format!("<29>mount.pcapfs[{}]: done", std::process::id());
        for expected in [
            "<29>pcapfs[7]: sshd: Accepted password for root",
            "<29>pcapfs[7]: sshd: yes",
            "<29>pcapfs[7]: mount.pcapfs: no",
            &own,
        ] {
            let mut bytes = [0; 100];
            let len = theirs.recv(&mut bytes).unwrap();
            assert_eq!(str::from_utf8(&bytes[..len]).unwrap(), expected);
        }
    }

    #[test]
    fn lines_are_whole_bounded_and_harmless() {
        let mut lines = Lines::default();
        assert_eq!(lines.read(&b"pcapfs: on"[..]), Some(vec![]));
        assert_eq!(
            lines.read(&b"e\nt\x1b[2Jwo\xff\n"[..]).unwrap(),
            ["pcapfs: one", "t\\u{1b}[2Jwo\u{fffd}"]
        );
        // C1 controls, a line separator, an override of direction.
        let strange = "a\u{9b}2J\u{2028}b\u{202e}\t\n";
        let expected = r"a\u{9b}2J\u{2028}b\u{202e}\u{9}";
        assert_eq!(lines.read(strange.as_bytes()).unwrap(), [expected]);
        let long = [b'x'; 3 * LONGEST];
        assert_eq!(lines.read(&long[..]), Some(vec![]));
        assert_eq!(lines.read(&b"\nnext\n"[..]).unwrap(), ["x".repeat(LONGEST), "next".into()]);
        assert_eq!(lines.read(&b""[..]), None);
    }
}
