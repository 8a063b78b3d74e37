//! The ring of blocks that a packet socket shares with the kernel, and the options of that socket
//! which nix lacks.
//!
//! Why this is not safe code: packets are to be copied once, from where the kernel puts them. The
//! argument: the first word of a block that changes hands is its status. The kernel writes a block,
//! and then sets its status to `TP_STATUS_USER`; from then on it leaves the block alone, until the
//! status is `TP_STATUS_KERNEL` again. Only this process sets that, when the borrow of the block has
//! ended. No other process has the memory mapped: the descriptor is never passed on.
//!
//! Sources: packet(7), Documentation/networking/packet_mmap.rst, and `prb_flush_block` and
//! `prb_dispatch_next_block` of `net/packet/af_packet.c`.
#![expect(unsafe_code, reason = "memory shared with the kernel, and socket options, see above")]

use std::io;
use std::mem;
use std::os::fd::{AsRawFd, BorrowedFd};
use std::sync::atomic::{AtomicU32, Ordering};

use libc::{
    PACKET_ADD_MEMBERSHIP, PACKET_RX_RING, PACKET_VERSION, TP_STATUS_KERNEL, TP_STATUS_USER, c_int,
    packet_mreq, sockaddr_ll, socklen_t, tpacket_req3, tpacket_versions,
};
use memmap2::{MmapOptions, MmapRaw};

use super::block::AFTER_STATUS;

/// Offset of `block_status` in `struct tpacket_block_desc`.
const STATUS: usize = 8;

const _: () = assert!(STATUS + size_of::<u32>() == AFTER_STATUS);

#[expect(clippy::cast_possible_truncation, reason = "17")]
const FAMILY: u16 = libc::AF_PACKET as u16;
#[expect(clippy::cast_possible_truncation, reason = "1")]
const PROMISCUOUS: u16 = libc::PACKET_MR_PROMISC as u16;

/// The size of a ring of blocks.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct BlockGeometry {
    /// Bytes of a block: a power of two, and at least a page.
    pub(super) block_len: u32,
    /// Number of blocks, not 0.
    pub(super) blocks: u32,
    /// Milliseconds after which the kernel hands over a block that has packets and is not full.
    pub(super) retire_ms: u32,
}

/// A ring of blocks.
#[derive(Debug)]
pub(super) struct BlockRing {
    map: MmapRaw,
    block_len: usize,
    blocks: usize,
    /// The block that the kernel hands over next.
    next: usize,
}

impl BlockRing {
    /// Makes the ring of a socket and maps it. The socket must have received nothing yet.
    ///
    /// # Errors
    /// The errors of setsockopt(2) and mmap(2); ENOMEM if there is no memory for the blocks.
    pub(super) fn new(socket: BorrowedFd<'_>, geometry: BlockGeometry) -> io::Result<Self> {
        let BlockGeometry { block_len, blocks, retire_ms } = geometry;
        set_option(socket, PACKET_VERSION, &(tpacket_versions::TPACKET_V3 as c_int))?;
        let request = tpacket_req3 {
            tp_block_size: block_len,
            tp_block_nr: blocks,
            // Packets of any length share a block. The kernel only checks that these two fit.
            tp_frame_size: block_len,
            tp_frame_nr: blocks,
            tp_retire_blk_tov: retire_ms,
            tp_sizeof_priv: 0,
            tp_feature_req_word: 0,
        };
        set_option(socket, PACKET_RX_RING, &request)?;
        let (block_len, blocks) = (block_len as usize, blocks as usize);
        let len = block_len.checked_mul(blocks).ok_or(io::ErrorKind::InvalidInput)?;
        let map = MmapOptions::new().len(len).map_raw(socket.as_raw_fd())?;
        Ok(Self { map, block_len, blocks, next: 0 })
    }

    /// The next block, if the kernel has handed it over.
    pub(super) fn next_block(&mut self) -> Option<HeldBlock<'_>> {
        let block = self.map.as_ptr().wrapping_add(self.next * self.block_len);
        // SAFETY: `next` is below `blocks`, so that the word is inside the mapping, which outlives
        // the borrow of self. Blocks begin at multiples of a page, so it is aligned. The kernel
        // accesses it as a whole; this process accesses it only as an atomic.
        let status = unsafe { AtomicU32::from_ptr(block.wrapping_add(STATUS).cast_mut().cast()) };
        // Acquire pairs with the write barrier between the kernel's last write to the block and its
        // store of the status.
        if status.load(Ordering::Acquire) & TP_STATUS_USER == 0 {
            return None;
        }
        // SAFETY: the range is inside the block, after the status. The kernel has written it, as the
        // load above has seen, and does not write it until the status is set back. That is done when
        // the HeldBlock is dropped, which borrows self mutably, so no second one exists.
        let bytes = unsafe {
            std::slice::from_raw_parts(
                block.wrapping_add(AFTER_STATUS),
                self.block_len - AFTER_STATUS,
            )
        };
        self.next = (self.next + 1) % self.blocks;
        Some(HeldBlock { status, bytes })
    }
}

/// A block that the kernel has handed over. It gets it back when this is dropped.
#[derive(Debug)]
pub(super) struct HeldBlock<'a> {
    status: &'a AtomicU32,
    bytes: &'a [u8],
}

impl HeldBlock<'_> {
    /// The block from [`AFTER_STATUS`] on.
    pub(super) fn bytes(&self) -> &[u8] {
        self.bytes
    }
}

impl Drop for HeldBlock<'_> {
    fn drop(&mut self) {
        // Release, so that all reads of the block come before. The kernel has a read barrier between
        // its load of the status and its first write.
        self.status.store(TP_STATUS_KERNEL, Ordering::Release);
    }
}

/// Has an interface receive frames for other stations too, for as long as the socket is open.
///
/// # Errors
/// The errors of setsockopt(2).
pub(super) fn set_promiscuous(socket: BorrowedFd<'_>, interface: u32) -> io::Result<()> {
    let membership = packet_mreq {
        mr_ifindex: number(interface)?,
        mr_type: PROMISCUOUS,
        mr_alen: 0,
        mr_address: [0; 8],
    };
    set_option(socket, PACKET_ADD_MEMBERSHIP, &membership)
}

/// Makes a packet socket, which is bound, one of those that share the packets of an interface. `id`
/// is the number of their group; with `None` the kernel chooses one that no other group of this
/// network namespace has (`PACKET_FANOUT_FLAG_UNIQUEID`). Returns the number.
///
/// # Errors
/// The errors of setsockopt(2) and getsockopt(2).
pub(super) fn join_fanout(
    socket: BorrowedFd<'_>,
    mode: libc::c_uint,
    id: Option<u16>,
) -> io::Result<u16> {
    let flags = if id.is_none() { libc::PACKET_FANOUT_FLAG_UNIQUEID } else { 0 };
    let wanted: c_int = c_int::try_from((mode | flags) << 16 | u32::from(id.unwrap_or(0)))
        .map_err(|_| io::ErrorKind::InvalidInput)?;
    set_option(socket, libc::PACKET_FANOUT, &wanted)?;
    let mut got: c_int = 0;
    let mut len = socklen_t::try_from(size_of_val(&got)).unwrap_or(0);
    // SAFETY: the kernel writes at most `len` bytes to `got`, which has that size, and the length to
    // `len`.
    let result = unsafe {
        libc::getsockopt(
            socket.as_raw_fd(),
            libc::SOL_PACKET,
            libc::PACKET_FANOUT,
            (&raw mut got).cast(),
            &raw mut len,
        )
    };
    #[expect(clippy::cast_possible_truncation, clippy::cast_sign_loss, reason = "its lower half")]
    if result == 0 { Ok(got as u16) } else { Err(io::Error::last_os_error()) }
}

/// Binds a packet socket to an interface, or with 0 to all. It receives packets of this `protocol`
/// from then on, in the order of this machine; with 0 none.
///
/// # Errors
/// The errors of bind(2).
pub(super) fn bind(socket: BorrowedFd<'_>, interface: u32, protocol: u16) -> io::Result<()> {
    // SAFETY: a structure of integers, for which zero is a valid value.
    let mut address: sockaddr_ll = unsafe { mem::zeroed() };
    address.sll_family = FAMILY;
    address.sll_protocol = protocol.to_be();
    address.sll_ifindex = number(interface)?;
    let len = socklen_t::try_from(size_of_val(&address)).unwrap_or(0);
    // SAFETY: the kernel reads `len` bytes of the structure, which has that size.
    let result = unsafe { libc::bind(socket.as_raw_fd(), (&raw const address).cast(), len) };
    if result == 0 { Ok(()) } else { Err(io::Error::last_os_error()) }
}

/// What a packet socket is bound to.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct BoundInterface {
    /// Number of the interface; negative once it has vanished.
    pub(super) number: c_int,
    /// Its `ARPHRD_` number; 0 if there is none.
    pub(super) hardware: u16,
}

/// The interface that a packet socket is bound to. nix refuses the answer, since its length goes by
/// the length of the hardware address.
///
/// # Errors
/// The errors of getsockname(2).
pub(super) fn bound_interface(socket: BorrowedFd<'_>) -> io::Result<BoundInterface> {
    // SAFETY: as in bind.
    let mut address: sockaddr_ll = unsafe { mem::zeroed() };
    let mut len = socklen_t::try_from(size_of_val(&address)).unwrap_or(0);
    let place = (&raw mut address).cast();
    // SAFETY: the kernel writes at most `len` bytes to the structure, which has that size, and the
    // length to `len`. Any integers are valid values of its fields.
    let result = unsafe { libc::getsockname(socket.as_raw_fd(), place, &raw mut len) };
    if result == 0 {
        Ok(BoundInterface { number: address.sll_ifindex, hardware: address.sll_hatype })
    } else {
        Err(io::Error::last_os_error())
    }
}

fn number(interface: u32) -> io::Result<c_int> {
    c_int::try_from(interface).map_err(|_| io::ErrorKind::InvalidInput.into())
}

/// Sets an option of the level `SOL_PACKET`. `T` is the structure of the option, which consists of
/// integers without padding.
fn set_option<T: Copy>(socket: BorrowedFd<'_>, option: c_int, value: &T) -> io::Result<()> {
    let len = socklen_t::try_from(size_of::<T>()).unwrap_or(0);
    let value = std::ptr::from_ref(value).cast();
    // SAFETY: the kernel reads `len` bytes of the value, which has that size and outlives the call.
    let result =
        unsafe { libc::setsockopt(socket.as_raw_fd(), libc::SOL_PACKET, option, value, len) };
    if result == 0 { Ok(()) } else { Err(io::Error::last_os_error()) }
}
