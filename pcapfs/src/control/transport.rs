//! The bytes of a connection, whichever socket it came through: UNIX as it is, or TCP inside TLS.
//!
//! A socket is shared with the table of connections, which may shut it down at any time; its task
//! then sees the end, and releases it.

use std::io::{self, IoSlice};
use std::os::fd::{AsRawFd, RawFd};
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll, ready};

use nix::sys::socket::{Shutdown, shutdown};
use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};
use tokio::net::{TcpStream, UnixStream};
use tokio_rustls::server::TlsStream;

/// A connected socket that several parts of the program know.
#[derive(Clone, Debug)]
pub(super) enum SharedSocket {
    Unix(Arc<UnixStream>),
    Tcp(Arc<TcpStream>),
}

impl SharedSocket {
    /// Ends both directions. A connection that is gone has no end to shut down.
    pub(super) fn close(&self) {
        let _ = shutdown(self.descriptor(), Shutdown::Both);
    }

    fn descriptor(&self) -> RawFd {
        match self {
            Self::Unix(stream) => stream.as_raw_fd(),
            Self::Tcp(stream) => stream.as_raw_fd(),
        }
    }

    fn poll_read_ready(&self, context: &mut Context<'_>) -> Poll<io::Result<()>> {
        match self {
            Self::Unix(stream) => stream.poll_read_ready(context),
            Self::Tcp(stream) => stream.poll_read_ready(context),
        }
    }

    fn poll_write_ready(&self, context: &mut Context<'_>) -> Poll<io::Result<()>> {
        match self {
            Self::Unix(stream) => stream.poll_write_ready(context),
            Self::Tcp(stream) => stream.poll_write_ready(context),
        }
    }
}

/// Tries again as long as the operation would have to wait although the socket was ready.
fn attempt<T>(
    mut ready: impl FnMut() -> Poll<io::Result<()>>,
    mut operation: impl FnMut() -> io::Result<T>,
) -> Poll<io::Result<T>> {
    loop {
        ready!(ready())?;
        match operation() {
            Err(error) if error.kind() == io::ErrorKind::WouldBlock => {}
            result => return Poll::Ready(result),
        }
    }
}

impl AsyncRead for SharedSocket {
    fn poll_read(
        self: Pin<&mut Self>,
        context: &mut Context<'_>,
        buffer: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        let read = ready!(attempt(
            || self.poll_read_ready(context),
            || match &*self {
                Self::Unix(stream) => stream.try_read(buffer.initialize_unfilled()),
                Self::Tcp(stream) => stream.try_read(buffer.initialize_unfilled()),
            },
        ))?;
        buffer.advance(read);
        Poll::Ready(Ok(()))
    }
}

impl AsyncWrite for SharedSocket {
    fn poll_write(
        self: Pin<&mut Self>,
        context: &mut Context<'_>,
        bytes: &[u8],
    ) -> Poll<io::Result<usize>> {
        attempt(
            || self.poll_write_ready(context),
            || match &*self {
                Self::Unix(stream) => stream.try_write(bytes),
                Self::Tcp(stream) => stream.try_write(bytes),
            },
        )
    }

    fn poll_write_vectored(
        self: Pin<&mut Self>,
        context: &mut Context<'_>,
        slices: &[IoSlice<'_>],
    ) -> Poll<io::Result<usize>> {
        attempt(
            || self.poll_write_ready(context),
            || match &*self {
                Self::Unix(stream) => stream.try_write_vectored(slices),
                Self::Tcp(stream) => stream.try_write_vectored(slices),
            },
        )
    }

    fn is_write_vectored(&self) -> bool {
        true
    }

    fn poll_flush(self: Pin<&mut Self>, _context: &mut Context<'_>) -> Poll<io::Result<()>> {
        Poll::Ready(Ok(()))
    }

    fn poll_shutdown(self: Pin<&mut Self>, _context: &mut Context<'_>) -> Poll<io::Result<()>> {
        // A connection that is gone has no end to shut down.
        let _ = shutdown(self.descriptor(), Shutdown::Write);
        Poll::Ready(Ok(()))
    }
}

/// The bytes of one connection.
#[derive(Debug)]
pub(super) enum Transport {
    Plain(SharedSocket),
    Tls(Box<TlsStream<SharedSocket>>),
}

impl Transport {
    fn inner(self: Pin<&mut Self>) -> PinnedTransport<'_> {
        match self.get_mut() {
            Self::Plain(socket) => PinnedTransport::Plain(Pin::new(socket)),
            Self::Tls(stream) => PinnedTransport::Tls(Pin::new(stream.as_mut())),
        }
    }
}

/// A [`Transport`] in place.
enum PinnedTransport<'a> {
    Plain(Pin<&'a mut SharedSocket>),
    Tls(Pin<&'a mut TlsStream<SharedSocket>>),
}

impl AsyncRead for Transport {
    fn poll_read(
        self: Pin<&mut Self>,
        context: &mut Context<'_>,
        buffer: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        match self.inner() {
            PinnedTransport::Plain(socket) => socket.poll_read(context, buffer),
            PinnedTransport::Tls(stream) => stream.poll_read(context, buffer),
        }
    }
}

impl AsyncWrite for Transport {
    fn poll_write(
        self: Pin<&mut Self>,
        context: &mut Context<'_>,
        bytes: &[u8],
    ) -> Poll<io::Result<usize>> {
        match self.inner() {
            PinnedTransport::Plain(socket) => socket.poll_write(context, bytes),
            PinnedTransport::Tls(stream) => stream.poll_write(context, bytes),
        }
    }

    fn poll_write_vectored(
        self: Pin<&mut Self>,
        context: &mut Context<'_>,
        slices: &[IoSlice<'_>],
    ) -> Poll<io::Result<usize>> {
        match self.inner() {
            PinnedTransport::Plain(socket) => socket.poll_write_vectored(context, slices),
            PinnedTransport::Tls(stream) => stream.poll_write_vectored(context, slices),
        }
    }

    fn is_write_vectored(&self) -> bool {
        match self {
            Self::Plain(socket) => socket.is_write_vectored(),
            Self::Tls(stream) => stream.is_write_vectored(),
        }
    }

    fn poll_flush(self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<io::Result<()>> {
        match self.inner() {
            PinnedTransport::Plain(socket) => socket.poll_flush(context),
            PinnedTransport::Tls(stream) => stream.poll_flush(context),
        }
    }

    fn poll_shutdown(self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<io::Result<()>> {
        match self.inner() {
            PinnedTransport::Plain(socket) => socket.poll_shutdown(context),
            PinnedTransport::Tls(stream) => stream.poll_shutdown(context),
        }
    }
}
