//! Attaches an XDP program to an interface, which hands the packets of some receive queues to
//! AF_XDP sockets.
//!
//! It is a crate of its own, because only this step needs `CAP_BPF` and `CAP_NET_ADMIN`. To receive
//! through the descriptors of an [`Attachment`] takes `CAP_NET_RAW`. So a small privileged program
//! can do the step, and pass the descriptors to a capture that has no such rights.
//!
//! The one invariant: the interface has the program for as long as the descriptor of the link is
//! open in some process, and no longer. The kernel closes descriptors at every kind of end of a
//! process, so an interface is never left with a program that takes its packets away.
//!
//! Sources: bpf(2), `union bpf_attr` of `linux/bpf.h`, Documentation/networking/af_xdp.rst.

mod program;
mod sys;

use std::fmt;
use std::io;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};

/// Bytes before a packet that the program writes: the time of its reception in nanoseconds of
/// `CLOCK_MONOTONIC`, in the byte order of this machine. A driver without room for them leaves them
/// out.
pub const STAMP_LEN: usize = program::STAMP_LEN;

/// The place of the program.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum XdpMode {
    /// In the driver, before the kernel makes a buffer of its own for the packet.
    Native,
    /// In the kernel's network stack. Works with all drivers, and costs more.
    Generic,
}

impl XdpMode {
    /// All of them, as they are written.
    pub const WORDS: [&str; 2] = ["native", "generic"];

    /// The mode that is written like this.
    #[must_use]
    pub fn parse(word: &str) -> Option<Self> {
        [Self::Native, Self::Generic].into_iter().find(|mode| mode.word() == word)
    }

    /// As it is written.
    #[must_use]
    pub const fn word(self) -> &'static str {
        let [native, generic] = Self::WORDS;
        match self {
            Self::Native => native,
            Self::Generic => generic,
        }
    }

    /// `XDP_FLAGS_DRV_MODE` and `XDP_FLAGS_SKB_MODE` of `linux/if_link.h`.
    const fn flag(self) -> u32 {
        match self {
            Self::Native => 1 << 2,
            Self::Generic => 1 << 1,
        }
    }
}

/// The step at which an [`Attachment`] failed.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum AttachStep {
    /// Making the map of sockets.
    Map,
    /// Loading the program.
    Load,
    /// Attaching the program to the interface.
    Attach,
}

/// Why an interface has no program.
#[derive(Debug)]
pub struct AttachError {
    /// The step that failed.
    pub step: AttachStep,
    /// The error of the system.
    pub error: io::Error,
}

impl AttachError {
    /// Returns true if the interface has another program.
    #[must_use]
    pub fn is_program_there(&self) -> bool {
        matches!(self.error.raw_os_error(), Some(libc::EBUSY | libc::EEXIST))
    }
}

impl fmt::Display for AttachError {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        if self.is_program_there() {
            return formatter.write_str(
                "the interface has another XDP program (ip link set IFACE xdp off removes one that \
                 no process holds)",
            );
        }
        let step = match self.step {
            AttachStep::Map => "cannot make a map of AF_XDP sockets",
            AttachStep::Load => "cannot load the XDP program",
            AttachStep::Attach => "cannot attach the XDP program",
        };
        write!(formatter, "{step}: {}", self.error)
    }
}

impl std::error::Error for AttachError {
    fn source(&self) -> Option<&(dyn std::error::Error + 'static)> {
        Some(&self.error)
    }
}

/// An interface that has the program.
///
/// The program gives a packet to the socket that the map has for the receive queue of the packet.
/// If it has none, the packet goes on to the kernel's network stack, as without a program.
#[derive(Debug)]
pub struct Attachment {
    /// The link between program and interface, a descriptor. It is declared first, so that it is
    /// closed first: then no packet goes to a socket that is being closed.
    pub link: OwnedFd,
    /// The map with a socket for each receive queue.
    pub sockets: OwnedFd,
    /// The place of the program.
    pub mode: XdpMode,
}

impl Attachment {
    /// Attaches the program to the interface with this number, in the network namespace of this
    /// thread, with a map for so many receive queues. Without a `mode`, the driver decides.
    ///
    /// # Errors
    /// [`AttachError`] with EPERM without `CAP_BPF` and `CAP_NET_ADMIN`, and with EBUSY or EEXIST if
    /// the interface has a program. Nothing is changed then.
    pub fn new(interface: u32, queues: u32, mode: Option<XdpMode>) -> Result<Self, AttachError> {
        let at = |step| move |error| AttachError { step, error };
        let sockets = sys::socket_map(queues).map_err(at(AttachStep::Map))?;
        let program =
            sys::load(&program::program(sockets.as_fd())).map_err(at(AttachStep::Load))?;
        let attach = |mode: XdpMode| {
            sys::attach(program.as_fd(), interface, mode.flag()).map(|link| (link, mode))
        };
        let attached = match mode {
            Some(mode) => attach(mode),
            // A driver without native mode says so in different ways, as does one that has it and
            // not for the present number of queues or length of frames.
            None => attach(XdpMode::Native).or_else(|error| match error.raw_os_error() {
                Some(libc::EPERM | libc::EBUSY | libc::EEXIST | libc::ENODEV) => Err(error),
                _ => attach(XdpMode::Generic),
            }),
        };
        let (link, mode) = attached.map_err(at(AttachStep::Attach))?;
        Ok(Self { link, sockets, mode })
    }
}

/// Gives the packets of a receive queue to an AF_XDP socket, which must be bound to that queue.
///
/// # Errors
/// The errors of bpf(2).
pub fn give_queue(sockets: BorrowedFd<'_>, queue: u32, socket: BorrowedFd<'_>) -> io::Result<()> {
    sys::set_socket(sockets, queue, socket)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn modes_are_read_as_they_are_written() {
        for word in XdpMode::WORDS {
            assert_eq!(XdpMode::parse(word).map(XdpMode::word), Some(word));
        }
        assert_eq!(XdpMode::parse("auto"), None);
    }

    #[test]
    fn an_interface_that_is_not_there_gets_no_program() {
        let error = Attachment::new(i32::MAX.unsigned_abs(), 1, None).unwrap_err();
        let expected: &[AttachStep] = match error.error.raw_os_error() {
            Some(libc::ENODEV | libc::EINVAL) => &[AttachStep::Attach],
            // Without the rights, or where there is no bpf(2).
            Some(libc::EPERM | libc::ENOSYS) => &[AttachStep::Map, AttachStep::Load],
            _ => &[],
        };
        assert!(expected.contains(&error.step), "{error}");
    }
}
