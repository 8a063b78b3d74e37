//! Far ends of connections that are gone without a word, because of a power cut or a broken link.

use std::io;
use std::os::fd::AsFd;

use nix::sys::socket::{setsockopt, sockopt};

/// Seconds without a byte from a far end before the kernel asks whether it is there, seconds
/// between two such questions, and questions without an answer after which it is gone.
const KEEPALIVE: (u32, u32, u32) = (10, 5, 4);

/// Has the kernel end a connection when its far end is gone without a word.
///
/// # Errors
/// It is no TCP socket.
pub(super) fn notice_when_gone(stream: &impl AsFd) -> io::Result<()> {
    let (idle, interval, count) = KEEPALIVE;
    setsockopt(stream, sockopt::KeepAlive, &true)?;
    setsockopt(stream, sockopt::TcpKeepIdle, &idle)?;
    setsockopt(stream, sockopt::TcpKeepInterval, &interval)?;
    setsockopt(stream, sockopt::TcpKeepCount, &count)?;
    Ok(())
}
