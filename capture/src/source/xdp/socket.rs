//! AF_XDP sockets: their options, which no crate has, and one question about the interface.
//!
//! Sources: Documentation/networking/af_xdp.rst, `linux/if_xdp.h`, `linux/ethtool.h`.
#![expect(unsafe_code, reason = "a family of sockets and an ioctl without safe wrappers")]

use std::io;
use std::mem;
use std::os::fd::{AsFd, AsRawFd, BorrowedFd, FromRawFd, OwnedFd};

use libc::{c_int, c_void, sockaddr_xdp, socklen_t, xdp_mmap_offsets, xdp_umem_reg};

use super::rings::{FrameGeometry, FrameRings, Frames, PacketPiece, RingOffsets};

#[expect(clippy::cast_possible_truncation, reason = "44")]
const FAMILY: u16 = libc::AF_XDP as u16;

/// `ETHTOOL_GCHANNELS`
const GET_CHANNELS: u32 = 0x3c;

/// How a socket is bound.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct BindOptions {
    /// The driver may put packets into the frames itself.
    pub(super) zero_copy: bool,
    /// A packet may be in several frames. Linux has it since 6.6.
    pub(super) several_frames: bool,
}

/// A socket of one receive queue, with its memory.
#[derive(Debug)]
pub(super) struct XdpSocket {
    socket: OwnedFd,
    rings: FrameRings,
    queue: u32,
    /// Packets dropped at the last look.
    dropped: u64,
}

impl XdpSocket {
    /// Makes a socket with memory for frames. It receives nothing before it is bound.
    ///
    /// # Errors
    /// The errors of socket(2), setsockopt(2) and mmap(2). ENOBUFS if the limit of locked memory
    /// (`RLIMIT_MEMLOCK`) is reached, EPERM without `CAP_NET_RAW`, EAFNOSUPPORT if the kernel has no
    /// such sockets.
    pub(super) fn new(queue: u32, geometry: FrameGeometry) -> io::Result<Self> {
        let kind = libc::SOCK_RAW | libc::SOCK_CLOEXEC | libc::SOCK_NONBLOCK;
        // SAFETY: no pointers.
        let socket = unsafe { libc::socket(libc::AF_XDP, kind, 0) };
        if socket < 0 {
            return Err(io::Error::last_os_error());
        }
        // SAFETY: the kernel has just made it for this process, and nothing else has it.
        let socket = unsafe { OwnedFd::from_raw_fd(socket) };
        let frames = Frames::new(geometry)?;
        let memory = xdp_umem_reg {
            addr: frames.address(),
            len: geometry.len() as u64,
            chunk_size: geometry.frame_len,
            headroom: 0,
            flags: 0,
            tx_metadata_len: 0,
        };
        let fd = socket.as_fd();
        set_option(fd, libc::XDP_UMEM_REG, &memory)?;
        set_option(fd, libc::XDP_UMEM_FILL_RING, &geometry.frames)?;
        // A socket must have it. It is used for sending only.
        set_option(fd, libc::XDP_UMEM_COMPLETION_RING, &2_u32)?;
        set_option(fd, libc::XDP_RX_RING, &geometry.frames)?;
        // SAFETY: integers, for which zero is a valid value.
        let zero: xdp_mmap_offsets = unsafe { mem::zeroed() };
        let offsets = option(fd, libc::XDP_MMAP_OFFSETS, zero)?;
        let offsets = RingOffsets { received: offsets.rx, free: offsets.fr };
        let rings = FrameRings::new(fd, frames, &offsets)?;
        Ok(Self { socket, rings, queue, dropped: 0 })
    }

    /// Binds the socket to its queue of the interface with this number. If that fails, it can be
    /// bound in another way.
    ///
    /// # Errors
    /// The errors of bind(2). EINVAL if the interface has no such queue, or the kernel does not know
    /// one of the options; EBUSY if another socket is bound to the queue.
    pub(super) fn bind(&self, interface: u32, options: BindOptions) -> io::Result<()> {
        let mut flags = 0;
        if !options.zero_copy {
            flags |= libc::XDP_COPY;
        }
        if options.several_frames {
            flags |= libc::XDP_USE_SG;
        }
        let address = sockaddr_xdp {
            sxdp_family: FAMILY,
            sxdp_flags: flags,
            sxdp_ifindex: interface,
            sxdp_queue_id: self.queue,
            sxdp_shared_umem_fd: 0,
        };
        let len = socklen_t::try_from(size_of_val(&address)).unwrap_or(0);
        let socket = self.socket.as_raw_fd();
        // SAFETY: the kernel reads `len` bytes of the structure, which has that size.
        let result = unsafe { libc::bind(socket, (&raw const address).cast(), len) };
        if result == 0 { Ok(()) } else { Err(io::Error::last_os_error()) }
    }

    /// The receive queue that it is bound to.
    pub(super) const fn queue(&self) -> u32 {
        self.queue
    }

    /// The socket, to wait for packets.
    pub(super) fn as_fd(&self) -> BorrowedFd<'_> {
        self.socket.as_fd()
    }

    /// Number of frames.
    pub(super) const fn frames(&self) -> u32 {
        self.rings.geometry().frames
    }

    /// Takes received pieces of packets, see [`FrameRings::receive`].
    pub(super) fn receive(&mut self, most: u32, take: impl FnMut(PacketPiece<'_>)) -> u32 {
        self.rings.receive(most, take)
    }

    /// Returns true if the driver puts packets into the frames itself.
    pub(super) fn is_zero_copy(&self) -> bool {
        let options = option(self.as_fd(), libc::XDP_OPTIONS, libc::xdp_options { flags: 0 });
        options.is_ok_and(|options| options.flags & libc::XDP_OPTIONS_ZEROCOPY != 0)
    }

    /// Packets that the kernel could not put into the frames since the last call: there was no free
    /// frame, or the packet was longer than a frame.
    pub(super) fn take_drops(&mut self) -> u64 {
        // SAFETY: integers, for which zero is a valid value.
        let zero: libc::xdp_statistics = unsafe { mem::zeroed() };
        // A socket that does not answer receives nothing either.
        let Ok(now) = option(self.as_fd(), libc::XDP_STATISTICS, zero) else { return 0 };
        // A packet without a free frame is in `rx_fill_ring_empty_descs` too.
        let dropped = now.rx_dropped.saturating_add(now.rx_ring_full);
        let before = mem::replace(&mut self.dropped, dropped);
        dropped.saturating_sub(before)
    }
}

/// Number of receive queues that an interface has at present, in the network namespace of the
/// socket; `None` if its driver does not say.
pub(super) fn receive_queues(socket: BorrowedFd<'_>, interface: &str) -> Option<u32> {
    /// `struct ethtool_channels`
    #[repr(C)]
    struct Channels {
        command: u32,
        most: [u32; 4],
        receive: u32,
        transmit: u32,
        other: u32,
        combined: u32,
    }
    let mut channels = Channels {
        command: GET_CHANNELS,
        most: [0; 4],
        receive: 0,
        transmit: 0,
        other: 0,
        combined: 0,
    };
    // SAFETY: integers and a pointer, for which zero is a valid value.
    let mut request: libc::ifreq = unsafe { mem::zeroed() };
    if interface.len() >= request.ifr_name.len() {
        return None;
    }
    for (place, byte) in request.ifr_name.iter_mut().zip(interface.bytes()) {
        *place = byte.cast_signed();
    }
    request.ifr_ifru.ifru_data = (&raw mut channels).cast();
    // SAFETY: the kernel reads the name, which ends with a zero, and reads and writes a structure of
    // this command at the address in the request. Both outlive the call.
    let result =
        unsafe { libc::ioctl(socket.as_raw_fd(), libc::SIOCETHTOOL as _, &raw mut request) };
    (result == 0).then(|| channels.receive.saturating_add(channels.combined))
}

/// Sets an option of the level `SOL_XDP`. `T` is the structure of the option, which consists of
/// integers without padding.
fn set_option<T: Copy>(socket: BorrowedFd<'_>, option: c_int, value: &T) -> io::Result<()> {
    let len = socklen_t::try_from(size_of::<T>()).unwrap_or(0);
    let value = std::ptr::from_ref(value).cast();
    // SAFETY: the kernel reads `len` bytes of the value, which has that size and outlives the call.
    // A registration of memory has the address of a `Frames`; the kernel itself holds on to its pages.
    let result = unsafe { libc::setsockopt(socket.as_raw_fd(), libc::SOL_XDP, option, value, len) };
    if result == 0 { Ok(()) } else { Err(io::Error::last_os_error()) }
}

/// Reads an option of the level `SOL_XDP` into a structure of integers. A kernel that knows fewer
/// fields leaves the others as they are.
fn option<T: Copy>(socket: BorrowedFd<'_>, option: c_int, mut value: T) -> io::Result<T> {
    let mut len = socklen_t::try_from(size_of::<T>()).unwrap_or(0);
    let place: *mut c_void = (&raw mut value).cast();
    // SAFETY: the kernel writes at most `len` bytes to the structure, which has that size, and their
    // number to `len`. Any bits are valid values of integers.
    let result =
        unsafe { libc::getsockopt(socket.as_raw_fd(), libc::SOL_XDP, option, place, &raw mut len) };
    if result == 0 { Ok(value) } else { Err(io::Error::last_os_error()) }
}
