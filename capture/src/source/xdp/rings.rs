//! The memory that an AF_XDP socket shares with the kernel: the frames of packets, and two rings of
//! their places.
//!
//! Why this is not safe code: packets are to be copied once, from where the kernel puts them. The
//! argument: each frame has one owner at a time. The kernel owns the frames whose places it was given
//! in the fill ring. It takes a place from there, writes a packet into the frame, and only then
//! shows the place in the receive ring; from then on it leaves the frame alone. This process reads
//! the frame, and gives its place back in the fill ring after the last access. No other process has
//! the memory mapped: the descriptor of the socket is never passed on, and the frames are private
//! memory.
//!
//! Sources: Documentation/networking/af_xdp.rst, `linux/if_xdp.h`, `net/xdp/xsk_queue.h`.
#![expect(unsafe_code, reason = "memory shared with the kernel, see above")]

use std::io;
use std::num::NonZeroU64;
use std::os::fd::{AsRawFd, BorrowedFd};
use std::sync::atomic::{AtomicU32, Ordering};

use libc::{xdp_desc, xdp_ring_offset};
use memmap2::{MmapOptions, MmapRaw};
use xdp_attach::STAMP_LEN;

/// The size of the memory of one socket.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct FrameGeometry {
    /// Bytes of a frame: 2,048 or 4,096. The kernel leaves the first 256 free
    /// (`XDP_PACKET_HEADROOM`).
    pub(super) frame_len: u32,
    /// Number of frames: a power of two, which rings need.
    pub(super) frames: u32,
}

impl FrameGeometry {
    /// Bytes of all frames.
    pub(super) const fn len(self) -> usize {
        self.frame_len as usize * self.frames as usize
    }
}

/// The frames of a socket.
#[derive(Debug)]
pub(super) struct Frames {
    map: MmapRaw,
    geometry: FrameGeometry,
}

impl Frames {
    /// Memory for frames.
    ///
    /// # Errors
    /// The errors of mmap(2).
    pub(super) fn new(geometry: FrameGeometry) -> io::Result<Self> {
        let map = MmapOptions::new().len(geometry.len()).map_anon()?;
        Ok(Self { map: map.into(), geometry })
    }

    pub(super) const fn geometry(&self) -> FrameGeometry {
        self.geometry
    }

    /// The address of the memory, for the kernel.
    pub(super) fn address(&self) -> u64 {
        self.map.as_ptr().expose_provenance() as u64
    }

    /// The offset of the frame that a place is in.
    fn frame_of(&self, address: u64) -> u64 {
        address & !(u64::from(self.geometry.frame_len) - 1)
    }

    /// The offset of a packet, if it is inside of one frame.
    fn inside(&self, place: &xdp_desc) -> Option<usize> {
        let end = place.addr.checked_add(place.len.into())?;
        let frame = self.frame_of(place.addr);
        let is_inside = end <= frame.checked_add(self.geometry.frame_len.into())?
            && end <= self.geometry.len() as u64;
        usize::try_from(place.addr).ok().filter(|_| is_inside)
    }
}

/// A ring of the places of frames, which one side fills and the other empties.
#[derive(Debug)]
struct PlaceRing {
    map: MmapRaw,
    /// Offsets in the mapping, of two numbers that only grow, and of the places.
    producer: usize,
    consumer: usize,
    places: usize,
    /// Number of places minus one.
    mask: u32,
}

impl PlaceRing {
    /// Maps a ring of `count` places of `place_len` bytes each.
    fn new(
        socket: BorrowedFd<'_>,
        page: u64,
        offsets: &xdp_ring_offset,
        (count, place_len): (u32, usize),
    ) -> io::Result<Self> {
        let offset = |offset: u64| usize::try_from(offset).map_err(|_| io::ErrorKind::InvalidData);
        let (producer, consumer) = (offset(offsets.producer)?, offset(offsets.consumer)?);
        let places = offset(offsets.desc)?;
        let len = (count as usize).checked_mul(place_len).and_then(|len| len.checked_add(places));
        let len = len.ok_or(io::ErrorKind::InvalidData)?;
        let number_at = |at: usize| at.is_multiple_of(4) && at.saturating_add(4) <= len;
        if !number_at(producer) || !number_at(consumer) || !places.is_multiple_of(8) {
            return Err(io::ErrorKind::InvalidData.into());
        }
        let map = MmapOptions::new().offset(page).len(len).map_raw(socket.as_raw_fd())?;
        Ok(Self { map, producer, consumer, places, mask: count - 1 })
    }

    fn number(&self, at: usize) -> &AtomicU32 {
        // SAFETY: `at` is `producer` or `consumer`. `new` has checked that the four bytes there are
        // inside the mapping, which outlives the borrow of self, and that they are aligned. The
        // kernel accesses them as a whole; this process accesses them only as atomics.
        unsafe { AtomicU32::from_ptr(self.map.as_mut_ptr().wrapping_add(at).cast()) }
    }

    /// The address of a place.
    fn place<T>(&self, number: u32) -> *mut T {
        let at = self.places + (number & self.mask) as usize * size_of::<T>();
        self.map.as_mut_ptr().wrapping_add(at).cast()
    }
}

/// A piece of a packet that was received. A packet has several if it is longer than a frame.
#[derive(Clone, Copy, Debug)]
pub(super) struct PacketPiece<'a> {
    /// `None` if its place is outside of the memory, which the kernel never says.
    pub(super) data: Option<&'a [u8]>,
    /// Nanoseconds of `CLOCK_MONOTONIC`; of a first piece only, and only if the driver has room for
    /// it.
    pub(super) stamp: Option<NonZeroU64>,
    /// The next piece belongs to the same packet.
    pub(super) continues: bool,
}

/// The rings of a socket that receives, with the frames.
#[derive(Debug)]
pub(super) struct FrameRings {
    frames: Frames,
    received: PlaceRing,
    /// The next place in `received`.
    next: u32,
    free: PlaceRing,
    /// The next place in `free`.
    returned: u32,
}

/// Offsets of the receive ring and the fill ring in their mappings, as the kernel tells them.
#[derive(Clone, Copy, Debug)]
pub(super) struct RingOffsets {
    pub(super) received: xdp_ring_offset,
    pub(super) free: xdp_ring_offset,
}

impl FrameRings {
    /// Maps the rings of a socket, both with as many places as there are frames, and gives all
    /// frames to the kernel. The frames must be registered with the socket.
    ///
    /// # Errors
    /// The errors of mmap(2).
    pub(super) fn new(
        socket: BorrowedFd<'_>,
        frames: Frames,
        offsets: &RingOffsets,
    ) -> io::Result<Self> {
        let FrameGeometry { frame_len, frames: count } = frames.geometry;
        let received = (count, size_of::<xdp_desc>());
        let received = PlaceRing::new(
            socket,
            libc::XDP_PGOFF_RX_RING.unsigned_abs(),
            &offsets.received,
            received,
        )?;
        let free = PlaceRing::new(
            socket,
            libc::XDP_UMEM_PGOFF_FILL_RING,
            &offsets.free,
            (count, size_of::<u64>()),
        )?;
        let mut rings = Self { frames, received, next: 0, free, returned: 0 };
        for frame in 0..count {
            rings.give_back(u64::from(frame) * u64::from(frame_len));
        }
        rings.publish();
        Ok(rings)
    }

    /// The size of the memory.
    pub(super) const fn geometry(&self) -> FrameGeometry {
        self.frames.geometry()
    }

    /// Takes received pieces, up to a number, and gives their frames back. Returns how many.
    pub(super) fn receive(&mut self, most: u32, mut take: impl FnMut(PacketPiece<'_>)) -> u32 {
        // Acquire pairs with the release store of the kernel after it has written places and frames.
        let produced = self.received.number(self.received.producer).load(Ordering::Acquire);
        let count = produced.wrapping_sub(self.next).min(most).min(self.received.mask + 1);
        for _ in 0..count {
            // SAFETY: the place is inside the mapping, since the number is masked, and aligned. The
            // kernel has written it, as the load above has seen, and writes it again only after
            // `consumer` has passed it, which is stored below. All bits are a valid xdp_desc.
            let place = unsafe { self.received.place::<xdp_desc>(self.next).read() };
            self.next = self.next.wrapping_add(1);
            let continues = place.options & libc::XDP_PKT_CONTD != 0;
            let Some(at) = self.frames.inside(&place) else {
                take(PacketPiece { data: None, stamp: None, continues });
                continue;
            };
            let start = self.frames.map.as_mut_ptr().wrapping_add(at);
            let stamp = self.take_stamp(at);
            // SAFETY: `inside` has checked that the bytes are inside the mapping, which outlives the
            // borrow. The kernel has written the packet, and leaves the frame alone until its place
            // is in the fill ring. That is after `take`, which cannot keep the slice.
            let data = unsafe { std::slice::from_raw_parts(start, place.len as usize) };
            take(PacketPiece { data: Some(data), stamp, continues });
            self.give_back(self.frames.frame_of(place.addr));
        }
        if count > 0 {
            // Release, so that all reads of places and frames come before.
            self.received.number(self.received.consumer).store(self.next, Ordering::Release);
            self.publish();
        }
        count
    }

    /// Reads and removes the stamp before a packet, so that it is not read again with a packet that
    /// has none.
    fn take_stamp(&self, packet_at: usize) -> Option<NonZeroU64> {
        if packet_at % (self.frames.geometry.frame_len as usize) < STAMP_LEN {
            return None;
        }
        let at = packet_at - STAMP_LEN;
        let place = self.frames.map.as_mut_ptr().wrapping_add(at).cast::<[u8; STAMP_LEN]>();
        // SAFETY: the bytes are right before a packet and in the same frame, as was checked above,
        // so they are inside the mapping; bytes have no alignment. `receive` calls this while the
        // frame belongs to this process, and no reference to it exists.
        let stamp = unsafe { place.read() };
        // SAFETY: as above.
        unsafe { place.write([0; STAMP_LEN]) };
        NonZeroU64::new(u64::from_ne_bytes(stamp))
    }

    /// Puts the place of a frame into the fill ring. It becomes visible with
    /// [`publish`](Self::publish).
    fn give_back(&mut self, frame: u64) {
        // SAFETY: the place is inside the mapping, since the number is masked, and aligned. The
        // kernel has read what was there: there are as many places as frames, and this frame is not
        // among those that the kernel has.
        unsafe { self.free.place::<u64>(self.returned).write(frame) };
        self.returned = self.returned.wrapping_add(1);
    }

    /// Shows the kernel the frames that were given back.
    fn publish(&self) {
        // Release, so that the kernel sees the places, and all accesses to the frames come before.
        self.free.number(self.free.producer).store(self.returned, Ordering::Release);
    }
}
