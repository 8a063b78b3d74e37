//! The carrier of a savefile: a TCP connection, or a protocol that a program puts on it, such as
//! TLS.

use std::fmt;
use std::io::{self, Read};
use std::os::fd::AsFd;

use crate::own_transport::OwnStream;

/// Puts on a TCP connection what its peer speaks.
pub trait Transport: fmt::Debug + Send {
    /// Begins on a connection, which does not block.
    ///
    /// # Errors
    /// It cannot be used; the text is for people.
    fn begin(&self, stream: OwnStream) -> io::Result<Box<dyn Incoming>>;
}

/// The bytes that come over a connection.
///
/// A read does not block: it fails with [`WouldBlock`](io::ErrorKind::WouldBlock) if no bytes are
/// there, and then the descriptor is readable when there may be some. Handshakes take place in
/// reads. If a read has returned bytes, there may be more without the descriptor being readable.
pub trait Incoming: Read + AsFd + fmt::Debug + Send {}

impl Incoming for OwnStream {}

/// TCP alone.
#[derive(Debug)]
pub(super) struct Plain;

impl Transport for Plain {
    fn begin(&self, stream: OwnStream) -> io::Result<Box<dyn Incoming>> {
        Ok(Box::new(stream))
    }
}
