//! Packets of an interface, or of all, through a packet socket of our own (`TPACKET_V3`).
//!
//! The kernel fills blocks in memory that it shares with this process. It hands a block over when
//! the block is full, or when its timer finds packets in it ([`QUICK_RETIRE_MS`]). A block is walked in place
//! ([`block`]), and its packets go straight into the ring of the capture.
//!
//! The one invariant: every packet in the blocks came after the socket had its filter and its ring.
//! A packet socket receives nothing until it is bound with a protocol, and that is the last step.
//!
//! Interfaces that are not Ethernet have other headers, which the kernel does not take off and put
//! on alike. They are left to libpcap, see [`QuietSocket::open`].

mod block;
mod cooked;
mod mapped;

use std::io;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::path::Path;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::{Duration, Instant};

use nix::errno::Errno;
use nix::sys::socket::{AddressFamily, SockFlag, SockType, getsockopt, socket, sockopt};
use protocol::linktype::LinkType;

use super::Fanout;
use super::interface::{FilterPlan, ReceivedPacket};
use crate::filter::marked::CUT_LEN;
use crate::libpcap::{self, Instruction};
use block::BlockPackets;
use cooked::{LOOPBACK, WholePacket, without_header, without_loops};
use mapped::{BlockGeometry, BlockRing, HeldBlock};

/// Milliseconds after which the kernel hands over a block that is not full: for the first
/// [`QUICK_SOCKETS`] of this process, and for the others.
///
/// The kernel's timer runs for each socket, with and without packets. It takes a microsecond, and
/// cannot be set anew. At 3 ms, a packet on an idle link waits for 1.5 ms in the median.
const QUICK_RETIRE_MS: u32 = 3;
const SLOW_RETIRE_MS: u32 = 10;

/// Sockets with a quick timer. Their timers run 5,300 times a second, half as often as those of a
/// hundred sockets with a slow one.
const QUICK_SOCKETS: usize = 16;

/// Sockets of this process that have a quick timer.
static QUICK: AtomicUsize = AtomicUsize::new(0);

/// Bytes of a block. Nothing longer than a block is received whole, and libpcap's blocks have the
/// same size. Half of it fits into the second-level cache of common processors together with what
/// it is copied to.
const BLOCK_LEN: u32 = 256 << 10;

/// Bytes of a block of a small buffer. A frame of the largest receive offload fits, and a record that
/// does not would not fit the segments of a small ring either.
const SMALL_BLOCK_LEN: u32 = 128 << 10;

/// Bytes below which a buffer is small. The timer hands over blocks that are hardly filled, so this
/// process may be late by no more than the timer times the number of blocks: at 3 ms, sixteen blocks
/// are 48 ms.
const SMALL_BUFFER: u64 = 16 * BLOCK_LEN as u64;

/// Minimum number of blocks: the kernel fills one while this process reads the other.
const MIN_BLOCKS: u32 = 2;

/// The protocol with which a packet socket receives all packets.
#[expect(clippy::cast_possible_truncation, reason = "3")]
const ALL_PROTOCOLS: u16 = libc::ETH_P_ALL as u16;

/// The time between two looks whether an interface that is down still exists, at first and at most.
const FIRST_LOOK: Duration = Duration::from_millis(50);
const LAST_LOOK: Duration = Duration::from_secs(1);

/// A socket's right to a quick timer, or its lack.
#[derive(Debug)]
struct RetireTimer {
    is_quick: bool,
}

impl RetireTimer {
    fn take() -> Self {
        // Only the number matters.
        let more = |quick: usize| (quick < QUICK_SOCKETS).then_some(quick + 1);
        let is_quick = QUICK.fetch_update(Ordering::Relaxed, Ordering::Relaxed, more).is_ok();
        Self { is_quick }
    }

    const fn milliseconds(&self) -> u32 {
        if self.is_quick { QUICK_RETIRE_MS } else { SLOW_RETIRE_MS }
    }
}

impl Drop for RetireTimer {
    fn drop(&mut self) {
        if self.is_quick {
            QUICK.fetch_sub(1, Ordering::Relaxed);
        }
    }
}

/// A packet socket that receives nothing yet.
#[derive(Debug)]
pub(super) struct QuietSocket {
    socket: OwnedFd,
    /// 0 for all interfaces.
    interface: u32,
}

impl QuietSocket {
    /// A socket for an interface by name and number, or for all interfaces, in the network
    /// namespace of this thread. `None` if its packets are no Ethernet frames.
    ///
    /// # Errors
    /// The errors of socket(2); EPERM without the right to capture.
    pub(super) fn open(interface: Option<(&str, u32)>) -> io::Result<Option<Self>> {
        let kind = if interface.is_some() { SockType::Raw } else { SockType::Datagram };
        let flags = SockFlag::SOCK_CLOEXEC | SockFlag::SOCK_NONBLOCK;
        // Without a protocol, it receives nothing.
        let socket = socket(AddressFamily::Packet, kind, flags, None)?;
        Self::of(socket, interface)
    }

    /// The same with a socket without a protocol that another process has made, in the network
    /// namespace of that socket.
    ///
    /// # Errors
    /// The errors of bind(2).
    pub(super) fn of(socket: OwnedFd, interface: Option<(&str, u32)>) -> io::Result<Option<Self>> {
        if let Some((name, number)) = interface {
            mapped::bind(socket.as_fd(), number, 0)?;
            let hardware = mapped::bound_interface(socket.as_fd())?.hardware;
            if ![libc::ARPHRD_ETHER, libc::ARPHRD_LOOPBACK].contains(&hardware) || is_switch(name) {
                return Ok(None);
            }
        }
        Ok(Some(Self { socket, interface: interface.map_or(0, |(_, number)| number) }))
    }

    /// Has the interface receive frames for other stations too, for as long as the socket is open.
    ///
    /// # Errors
    /// The errors of setsockopt(2).
    pub(super) fn make_promiscuous(&self) -> io::Result<()> {
        mapped::set_promiscuous(self.socket.as_fd(), self.interface)
    }

    /// The link type of the packets it will receive.
    pub(super) const fn link_type(&self) -> LinkType {
        if self.interface == 0 { LinkType::LINUX_SLL2 } else { LinkType::ETHERNET }
    }

    /// Starts receiving the packets that pass the filter. Returns, too, whether the filter must be
    /// applied here once more.
    ///
    /// # Errors
    /// The errors of setsockopt(2), mmap(2) and bind(2); ENETDOWN if the interface is down.
    pub(super) fn start(
        self,
        plan: &FilterPlan,
        promiscuous: bool,
        kernel_buffer: u64,
    ) -> io::Result<(PacketReader, bool)> {
        let attached = attach(self.as_fd(), self.interface, plan)?;
        let reader = self.bind(promiscuous, kernel_buffer)?;
        Ok((PacketReader { cuts: attached.cuts, ..reader }, attached.is_coarse))
    }

    /// Becomes one of the sockets that share the packets of the interface. It receives nothing
    /// before [`JoinedSocket::admit`].
    ///
    /// # Errors
    /// The errors of setsockopt(2), getsockopt(2), mmap(2) and bind(2); ENETDOWN if the interface is
    /// down.
    pub(super) fn join(
        self,
        group: &mut FanoutGroup,
        promiscuous: bool,
        kernel_buffer: u64,
    ) -> io::Result<JoinedSocket> {
        // A socket can join only when it is bound, and then it has packets that others have too.
        libpcap::attach(self.as_fd(), &[Instruction::returning(0)])?;
        let reader = self.bind(promiscuous, kernel_buffer)?;
        group.add(reader.socket())?;
        Ok(JoinedSocket { reader })
    }

    /// Has the kernel deliver packets that pass the attached filter.
    fn bind(self, promiscuous: bool, kernel_buffer: u64) -> io::Result<PacketReader> {
        let Self { socket, interface } = self;
        let fd = socket.as_fd();
        let timer = RetireTimer::take();
        let ring = ring_of(fd, kernel_buffer, timer.milliseconds())?;
        if promiscuous && interface != 0 {
            mapped::set_promiscuous(fd, interface)?;
        }
        mapped::bind(fd, interface, ALL_PROTOCOLS)?;
        match getsockopt(&fd, sockopt::SocketError)? {
            0 => {}
            error => return Err(io::Error::from_raw_os_error(error)),
        }
        Ok(PacketReader { socket, interface, ring, timer, cuts: false, down: None })
    }
}

impl AsFd for QuietSocket {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.socket.as_fd()
    }
}

/// Packet sockets that share the packets of an interface: each packet goes to one of them.
///
/// The kernel never puts fragments together for that (`PACKET_FANOUT_FLAG_DEFRAG`): such a packet
/// was not on the wire. Nor does a full socket leave packets to the next one
/// (`PACKET_FANOUT_FLAG_ROLLOVER`), since they would change places.
#[derive(Debug)]
pub(super) struct FanoutGroup {
    mode: Fanout,
    /// The kernel's number of the group in this network namespace; `None` before the first socket.
    id: Option<u16>,
}

impl FanoutGroup {
    /// A group without sockets.
    pub(super) const fn new(mode: Fanout) -> Self {
        Self { mode, id: None }
    }

    fn add(&mut self, socket: BorrowedFd<'_>) -> io::Result<()> {
        let mode = match self.mode {
            Fanout::Hash => libc::PACKET_FANOUT_HASH,
            Fanout::Cpu => libc::PACKET_FANOUT_CPU,
            Fanout::Queue => libc::PACKET_FANOUT_QM,
        };
        self.id = Some(mapped::join_fanout(socket, mode, self.id)?);
        Ok(())
    }
}

/// A packet socket in a [`FanoutGroup`] that receives nothing yet.
#[derive(Debug)]
pub(super) struct JoinedSocket {
    reader: PacketReader,
}

impl JoinedSocket {
    /// Starts receiving, see [`QuietSocket::start`]. Packets before the last socket of the group has
    /// started may have been for that one.
    ///
    /// # Errors
    /// The errors of setsockopt(2).
    pub(super) fn admit(self, plan: &FilterPlan) -> io::Result<(PacketReader, bool)> {
        let Self { reader } = self;
        let attached = attach(reader.socket(), reader.interface, plan)?;
        Ok((PacketReader { cuts: attached.cuts, ..reader }, attached.is_coarse))
    }
}

/// Returns true if an interface is the port of a switch whose frames have a tag of that switch
/// (distributed switch architecture): libpcap knows these.
fn is_switch(name: &str) -> bool {
    Path::new("/sys/class/net").join(name).join("dsa/tagging").exists()
}

/// The filter that a socket got.
struct AttachedFilter {
    /// It hands over one byte of packets with our mark.
    cuts: bool,
    /// It accepts more packets than the filter of the capture.
    is_coarse: bool,
}

/// Gives the filter to the kernel, as much of it as the kernel takes.
fn attach(socket: BorrowedFd<'_>, interface: u32, plan: &FilterPlan) -> io::Result<AttachedFilter> {
    let loops = |program: Vec<Instruction>| {
        if [0, LOOPBACK].contains(&interface) { without_loops(program) } else { program }
    };
    let whole =
        if interface == 0 { without_header(&plan.program) } else { Some(plan.program.clone()) };
    if let Some(program) = &whole {
        if let Some(program) = plan.cut(program.clone())
            && libpcap::attach(socket, &loops(program)).is_ok()
        {
            return Ok(AttachedFilter { cuts: true, is_coarse: false });
        }
        match libpcap::attach(socket, &loops(program.clone())) {
            Ok(()) => return Ok(AttachedFilter { cuts: false, is_coarse: plan.is_coarse() }),
            Err(error) if plan.is_for_kernel() => return Err(error),
            // Too long for the kernel, as a rule (`net.core.optmem_max`).
            Err(_) => {}
        }
    } else if plan.is_for_kernel() {
        return Err(io::ErrorKind::Unsupported.into());
    }
    libpcap::attach(socket, &loops(vec![Instruction::returning(plan.snaplen)]))?;
    Ok(AttachedFilter { cuts: false, is_coarse: true })
}

/// A ring of blocks of some `kernel_buffer` bytes, or less if the kernel has no memory for that.
fn ring_of(socket: BorrowedFd<'_>, kernel_buffer: u64, retire_ms: u32) -> io::Result<BlockRing> {
    let block_len = if kernel_buffer < SMALL_BUFFER { SMALL_BLOCK_LEN } else { BLOCK_LEN };
    let blocks = u32::try_from(kernel_buffer / u64::from(block_len)).unwrap_or(u32::MAX);
    let mut blocks = blocks.clamp(MIN_BLOCKS, i32::MAX.unsigned_abs() / block_len);
    loop {
        let geometry = BlockGeometry { block_len, blocks, retire_ms };
        match BlockRing::new(socket, geometry) {
            Err(error) if error.raw_os_error() == Some(libc::ENOMEM) && blocks > MIN_BLOCKS => {
                blocks = (blocks - blocks / 4 - 1).max(MIN_BLOCKS);
            }
            ring => return ring,
        }
    }
}

/// A block of packets.
#[derive(Debug)]
pub(super) struct PacketBlock<'a> {
    block: HeldBlock<'a>,
    /// Its packets have no link header.
    is_cooked: bool,
    /// Packets with our mark have one byte.
    cuts: bool,
}

impl PacketBlock<'_> {
    /// Calls `take` with each packet, in their order. Returns how many packets could not be read.
    #[inline]
    pub(super) fn for_each(&self, mut take: impl FnMut(ReceivedPacket<'_>)) -> u64 {
        let mut packets = BlockPackets::new(self.block.bytes());
        for packet in packets.by_ref() {
            // Few packets have a tag.
            let whole = match packet.tag {
                None if !self.is_cooked => WholePacket::plain(&packet),
                Some(_) if !self.is_cooked => WholePacket::ethernet(&packet),
                _ => WholePacket::cooked(&packet),
            };
            let WholePacket { original_len, front, rest } = whole;
            take(ReceivedPacket {
                time: packet.time,
                original_len,
                // Other packets are only cut to the snaplen, which is longer.
                is_cut: self.cuts
                    && packet.data.len() == CUT_LEN as usize
                    && packet.original_len > CUT_LEN,
                front: front.bytes(),
                data: rest,
            });
        }
        packets.left().into()
    }
}

/// A packet socket that receives packets.
#[derive(Debug)]
pub(super) struct PacketReader {
    socket: OwnedFd,
    /// 0 for all interfaces.
    interface: u32,
    ring: BlockRing,
    timer: RetireTimer,
    /// Whether the kernel hands over one byte of packets with our mark.
    cuts: bool,
    /// When the interface went down, and when to look next whether it still exists.
    down: Option<(Instant, Instant)>,
}

impl PacketReader {
    /// The socket, to wait for packets.
    pub(super) fn socket(&self) -> BorrowedFd<'_> {
        self.socket.as_fd()
    }

    /// Maximum time for which the kernel keeps packets back.
    pub(super) fn delay(&self) -> Duration {
        Duration::from_millis(self.timer.milliseconds().into())
    }

    /// The next block, if the kernel has handed it over. The kernel gets it back when it is dropped.
    pub(super) fn next_block(&mut self) -> Option<PacketBlock<'_>> {
        let block = self.ring.next_block()?;
        self.down = None;
        Some(PacketBlock { block, is_cooked: self.interface == 0, cuts: self.cuts })
    }

    /// Why the socket receives nothing more; `None` while it may. To be called while there are no
    /// packets.
    pub(super) fn failure(&mut self) -> Option<String> {
        match getsockopt(&self.socket, sockopt::SocketError) {
            Ok(0) => {}
            Ok(libc::ENETDOWN) => {
                // It is down, or about to vanish. A socket stays bound to an interface that is down.
                let now = Instant::now();
                self.down = Some((now, now));
            }
            Ok(error) => return Some(Errno::from_raw(error).desc().to_owned()),
            Err(error) => return Some(error.desc().to_owned()),
        }
        let (since, next) = self.down?;
        let now = Instant::now();
        if now < next {
            return None;
        }
        self.down = Some((since, now + since.elapsed().clamp(FIRST_LOOK, LAST_LOOK)));
        // The kernel takes the interface from the socket when it vanishes.
        let bound = mapped::bound_interface(self.socket.as_fd());
        let is_gone = bound.is_ok_and(|bound| u32::try_from(bound.number) != Ok(self.interface));
        is_gone.then(|| "the interface is gone".to_owned())
    }

    /// Maximum time to wait before [`failure`](Self::failure) is to be called again.
    pub(super) fn patience(&self) -> Option<Duration> {
        self.down.map(|(_, next)| next.saturating_duration_since(Instant::now()))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_first_sockets_have_quick_timers() {
        let all: Vec<RetireTimer> = (0..QUICK_SOCKETS + 5).map(|_| RetireTimer::take()).collect();
        let times: Vec<u32> = all.iter().map(RetireTimer::milliseconds).collect();
        assert!(times.is_sorted() && times.ends_with(&[SLOW_RETIRE_MS; 5]), "{times:?}");
        drop(all);
        assert!(RetireTimer::take().is_quick);
    }
}
