//! The steps from the name of an interface to sockets that receive its packets.

use std::io;
use std::os::fd::AsFd;
use std::sync::OnceLock;
use std::thread;
use std::time::Duration;

use xdp_attach::{AttachError, Attachment, XdpMode};

use super::error::XdpError;
use super::exposure::use_of;
use super::link::{LinkState, LinkWatch};
use super::place::{WantedQueues, XdpInterface};
use super::rings::FrameGeometry;
use super::socket::{BindOptions, XdpSocket, receive_queues};
use crate::source::packet_v3::QuietSocket;

/// Bytes of a frame: what two pages of an ordinary link fit into, and a page.
const SHORT_FRAME: u32 = 2048;
const LONG_FRAME: u32 = 4096;

/// Bytes of a frame that the kernel leaves free (`XDP_PACKET_HEADROOM`), and maximum length of the
/// header of a link: Ethernet with two VLAN tags.
const HEADROOM: u32 = 256;
const LINK_HEADER: u32 = 22;

/// Bounds of the number of frames of a queue. With fewer, a packet of several frames leaves no room
/// for others; more than 256 MiB for a queue would only be memory that is locked.
const MIN_FRAMES: u32 = 64;
const MAX_FRAMES: u32 = 1 << 16;

/// How often, and after what time, a queue is tried again that is taken: the kernel frees the queue of
/// a socket that was closed a moment ago in the background.
const ATTEMPTS: u32 = 50;
const ATTEMPT_INTERVAL: Duration = Duration::from_millis(10);

/// The parameters with which an interface is opened.
#[derive(Clone, Copy, Debug)]
pub(super) struct OpenOrder<'a> {
    /// The source as it was written.
    pub(super) source_name: &'a str,
    pub(super) place: &'a XdpInterface,
    /// The interface's real name, and its number.
    pub(super) interface: &'a str,
    pub(super) index: u32,
    pub(super) promiscuous: bool,
    /// Bytes for frames, of all queues together.
    pub(super) kernel_buffer: u64,
}

/// An interface whose packets go to sockets of this process.
#[derive(Debug)]
pub(super) struct OpenInterface {
    /// Declared first, so that the program is detached before the sockets are closed.
    pub(super) attachment: Attachment,
    pub(super) sockets: Vec<XdpSocket>,
    pub(super) watch: LinkWatch,
    pub(super) state: LinkState,
    /// Keeps the interface promiscuous; it receives nothing.
    pub(super) quiet: QuietSocket,
}

impl OpenInterface {
    /// Attaches the program, and has the packets of the wanted queues go to sockets.
    ///
    /// # Errors
    /// [`XdpError`]; nothing stays open or attached.
    pub(super) fn open(order: &OpenOrder<'_>) -> Result<Self, XdpError> {
        let OpenOrder { place, interface, index, .. } = *order;
        let quiet = QuietSocket::open(Some((interface, index))).map_err(not_permitted)?;
        let quiet = quiet.ok_or(XdpError::NotEthernet)?;
        // First the news, then the state, so that no change is missed.
        let watch = LinkWatch::open(index)?;
        let state = watch.state()?;
        if !state.is_up {
            return Err(XdpError::Down { interface: interface.to_owned() });
        }
        if !place.is_forced
            && let Some(why) = use_of(interface, &state)
        {
            let (source_name, interface) = (order.source_name.to_owned(), interface.to_owned());
            return Err(XdpError::InUse { source_name, interface, why });
        }
        let count = receive_queues(quiet.as_fd(), interface).unwrap_or(state.receive_queues).max(1);
        let queues = match &place.queues {
            WantedQueues::All => (0..count).collect(),
            WantedQueues::Listed(queues) => queues.clone(),
        };
        let highest = queues.last().copied().unwrap_or(0);
        if highest >= count {
            let interface = interface.to_owned();
            return Err(XdpError::NoQueue { interface, queue: highest, last: count - 1 });
        }
        let attachment = attach(interface, index, highest + 1, place.mode)?;
        if order.promiscuous {
            quiet.make_promiscuous()?;
        }
        let mut opener = SocketOpener {
            interface: index,
            geometry: geometry(&state, order.kernel_buffer, queues.len()),
            options: BindOptions { zero_copy: place.zero_copy, several_frames: true },
        };
        let sockets: Vec<XdpSocket> =
            queues.into_iter().map(|queue| opener.open(queue)).collect::<Result<_, _>>()?;
        // From here on, packets come.
        for socket in &sockets {
            xdp_attach::give_queue(attachment.sockets.as_fd(), socket.queue(), socket.as_fd())?;
        }
        Ok(Self { attachment, sockets, watch, state, quiet })
    }
}

/// Attaches the program to an interface.
fn attach(
    interface: &str,
    index: u32,
    queues: u32,
    mode: Option<XdpMode>,
) -> Result<Attachment, XdpError> {
    if let Some(attacher) = ATTACHER.get() {
        return attacher(interface, queues, mode).map_err(XdpError::Refused);
    }
    Attachment::new(index, queues, mode).map_err(|failure: AttachError| {
        match failure.error.raw_os_error() {
            Some(libc::EPERM | libc::EACCES) => XdpError::NotPermitted,
            // The filter of system calls does not know bpf(2).
            Some(libc::ENOSYS) => XdpError::NotHere,
            _ if failure.is_program_there() => {
                XdpError::OtherProgram { interface: interface.to_owned() }
            }
            _ => XdpError::Attach(failure),
        }
    })
}

/// A way to have the program attached by another process: the interface by its real name, the number
/// of its receive queues, and the place of the program.
pub type XdpAttacher =
    Box<dyn Fn(&str, u32, Option<XdpMode>) -> Result<Attachment, String> + Send + Sync>;

/// The other process.
static ATTACHER: OnceLock<XdpAttacher> = OnceLock::new();

/// Has programs attached in this way, for a process that may not do it; only the first call counts.
pub fn attach_xdp_with(attacher: XdpAttacher) {
    let _ = ATTACHER.set(attacher);
}

fn not_permitted(error: io::Error) -> XdpError {
    match error.raw_os_error() {
        Some(libc::EPERM | libc::EACCES) => XdpError::NotPermitted,
        Some(libc::EAFNOSUPPORT) => XdpError::NoSockets,
        Some(libc::ENOBUFS | libc::ENOMEM) => XdpError::Memory(error),
        _ => XdpError::System(error),
    }
}

/// The memory of one of `queues` sockets.
fn geometry(state: &LinkState, kernel_buffer: u64, queues: usize) -> FrameGeometry {
    let is_short = state.mtu.saturating_add(LINK_HEADER + HEADROOM) <= SHORT_FRAME;
    let frame_len = if is_short { SHORT_FRAME } else { LONG_FRAME };
    let frames = kernel_buffer / (queues.max(1) as u64) / u64::from(frame_len);
    let frames = u32::try_from(frames).unwrap_or(MAX_FRAMES).clamp(MIN_FRAMES, MAX_FRAMES);
    // Rounded down to a power of two.
    FrameGeometry { frame_len, frames: 1 << frames.ilog2() }
}

/// Opens the sockets of an interface. What one socket could not have, the next ones do not ask for.
#[derive(Debug)]
struct SocketOpener {
    interface: u32,
    geometry: FrameGeometry,
    options: BindOptions,
}

impl SocketOpener {
    fn open(&mut self, queue: u32) -> Result<XdpSocket, XdpError> {
        let socket = self.unbound(queue)?;
        let mut attempts = 0;
        loop {
            let Err(error) = socket.bind(self.interface, self.options) else { return Ok(socket) };
            match error.raw_os_error() {
                // A kernel before 6.6. Packets that are longer than a frame are dropped and counted.
                Some(libc::EINVAL | libc::EOPNOTSUPP) if self.options.several_frames => {
                    self.options.several_frames = false;
                }
                Some(libc::EBUSY) if attempts < ATTEMPTS => {
                    attempts += 1;
                    thread::sleep(ATTEMPT_INTERVAL);
                }
                Some(libc::EBUSY) => return Err(XdpError::QueueTaken { queue }),
                _ => return Err(error.into()),
            }
        }
    }

    /// A socket with memory of this size, or with less if no more may be locked.
    fn unbound(&mut self, queue: u32) -> Result<XdpSocket, XdpError> {
        loop {
            match XdpSocket::new(queue, self.geometry) {
                Err(error)
                    if matches!(error.raw_os_error(), Some(libc::ENOBUFS | libc::ENOMEM))
                        && self.geometry.frames > MIN_FRAMES =>
                {
                    self.geometry.frames /= 2;
                }
                socket => return socket.map_err(not_permitted),
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_memory_of_a_queue_is_its_share_of_the_buffer_in_frames_that_fit_the_link() {
        let link = |mtu| LinkState {
            is_up: true,
            master: None,
            mtu,
            receive_queues: 1,
            has_program: false,
            drops: 0,
        };
        for (mtu, buffer, queues, frame_len, frames) in [
            (1500, 16 << 20, 1, 2048, 8192),
            (1500, 16 << 20, 3, 2048, 2048),
            (1770, 1 << 20, 1, 2048, 512),
            (1771, 1 << 20, 1, 4096, 256),
            (9000, 512 << 10, 4, 4096, 64),
            (u32::MAX, u64::MAX, 1, 4096, 65_536),
        ] {
            let expected = FrameGeometry { frame_len, frames };
            assert_eq!(geometry(&link(mtu), buffer, queues), expected, "{mtu} {buffer} {queues}");
        }
    }
}
