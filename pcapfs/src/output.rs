//! Writes to standard output and standard error. No other code of the program writes there.

use std::io::{self, Write};
use std::os::unix::net::UnixDatagram;
use std::path::Path;

use mount_helper::message::unnumbered;

/// The system's log, see syslog(3).
const SYSTEM_LOG: &str = "/dev/log";

/// `LOG_DAEMON | LOG_NOTICE`.
const LOG_PRIORITY: u32 = 3 << 3 | 5;

use nix::errno::Errno;

/// Prints to standard output. A reader that has gone away, as with `| head`, is no error.
///
/// # Errors
/// Any other error of standard output.
pub(crate) fn print(text: &str) -> io::Result<()> {
    write(text.as_bytes())
}

/// Like [`print`], for bytes.
///
/// # Errors
/// The same.
pub(crate) fn write(bytes: &[u8]) -> io::Result<()> {
    print_on(bytes).map(|_| ())
}

/// Like [`print`]; returns whether the reader is still there.
///
/// # Errors
/// The same.
pub(crate) fn print_on(bytes: &[u8]) -> io::Result<bool> {
    // Not through the library's buffer, which searches for lines and keeps the last one until the
    // next is complete: all output must be visible at once, and there are many packets.
    let stdout = io::stdout();
    let mut rest = bytes;
    while !rest.is_empty() {
        match nix::unistd::write(&stdout, rest) {
            Ok(written) => rest = rest.get(written..).unwrap_or_default(),
            Err(Errno::EINTR) => {}
            Err(Errno::EPIPE) => return Ok(false),
            Err(error) => return Err(error.into()),
        }
    }
    Ok(true)
}

/// Shows progress in place of the text shown last; an empty text removes it.
pub(crate) fn progress(text: &str) {
    // Carriage return, and erase to the end of the line (ECMA-48 EL).
    let _ = write!(io::stderr().lock(), "\r{text}\x1b[K");
}

/// Prints a message for the operator: one line on standard error, after the program's name. If no
/// process reads standard error any more, as in the background, the line goes to the system's log.
pub(crate) fn say(text: impl std::fmt::Display) {
    let text = unnumbered(&text.to_string());
    if let Err(error) = writeln!(io::stderr().lock(), "pcapfs: {text}")
        && error.kind() == io::ErrorKind::BrokenPipe
    {
        // Without a system log, the message is lost.
        let _ = log(Path::new(SYSTEM_LOG), &text);
    }
}

/// Sends one line to the log whose socket is at `path`, see syslog(3). Names in it may be a
/// stranger's text, and terminals obey control characters.
fn log(path: &Path, text: &str) -> io::Result<()> {
    let socket = UnixDatagram::unbound()?;
    socket.set_nonblocking(true)?;
    let text = text.replace(char::is_control, "?");
    let line = format!("<{LOG_PRIORITY}>pcapfs[{}]: {text}", std::process::id());
    socket.send_to(line.as_bytes(), path)?;
    Ok(())
}

/// A number and its unit, which gets an s unless it is one.
pub(crate) fn counted(count: u64, unit: &str) -> String {
    if count == 1 { format!("1 {unit}") } else { format!("{count} {unit}s") }
}

/// Rows under a heading, with columns as wide as necessary.
pub(crate) fn table<const N: usize>(heading: [&str; N], rows: &[[String; N]]) -> String {
    let widths: [usize; N] = std::array::from_fn(|column| {
        let cells = rows.iter().filter_map(|row| row.get(column));
        let longest = cells.map(|cell| cell.chars().count()).max().unwrap_or(0);
        longest.max(heading.get(column).map_or(0, |title| title.len()))
    });
    let mut text = String::new();
    let mut line = |cells: &mut dyn Iterator<Item = &str>| {
        let padded: Vec<String> =
            cells.zip(widths).map(|(cell, width)| format!("{cell:width$}")).collect();
        text.push_str(padded.join("  ").trim_end());
        text.push('\n');
    };
    line(&mut heading.into_iter());
    for row in rows {
        line(&mut row.iter().map(String::as_str));
    }
    text
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_line_of_the_log_is_one_line() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("log");
        let socket = UnixDatagram::bind(&path).unwrap();
        log(&path, "x.toml:1: a\n<0>b\x1b[2J").unwrap();
        let mut bytes = [0; 100];
        let len = socket.recv(&mut bytes).unwrap();
        let expected = format!("<29>pcapfs[{}]: x.toml:1: a?<0>b?[2J", std::process::id());
        assert_eq!(String::from_utf8_lossy(&bytes[..len]), expected);
    }

    #[test]
    fn columns_are_as_wide_as_their_widest_cell() {
        let rows = [["eth0".to_owned(), "up".to_owned()], ["lo".to_owned(), String::new()]];
        assert_eq!(table(["NAME", "S"], &rows), "NAME  S\neth0  up\nlo\n");
    }
}
