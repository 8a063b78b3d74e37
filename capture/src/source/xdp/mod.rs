//! Packets of an interface through AF_XDP: they are taken from the interface before the system's
//! network stack sees them.
//!
//! A program in the kernel ([`xdp_attach`]) hands packets to a socket for each receive queue. The
//! sockets share memory with this process ([`rings`]), from where packets go straight into the ring
//! of the capture.
//!
//! The price is that the system gets none of these packets: no address of the interface answers, and
//! no other program captures them. Sent packets are not seen. So this is for ports that only receive
//! copies of traffic, and an interface that the system uses is refused ([`exposure`]).
//!
//! The one invariant: the interface has the program for as long as this process has the descriptor
//! of the link. It is closed at a stop, and by the kernel if the process dies.

mod error;
mod exposure;
mod joiner;
mod link;
mod open;
mod place;
mod rings;
mod socket;

use std::io;
use std::os::fd::{AsFd, OwnedFd};
use std::time::{Duration, Instant};

use nix::net::if_::if_nametoindex;
use nix::poll::PollTimeout;
use nix::sys::epoll::{Epoll, EpollCreateFlags, EpollEvent, EpollFlags};
use protocol::linktype::LinkType;
use protocol::time::Timestamp;
use xdp_attach::XdpMode;

pub use error::XdpError;
pub use open::{XdpAttacher, attach_xdp_with};
pub(super) use place::{PREFIX, XdpInterface, interface_of};

use super::interface::{
    IDLE, IDLE_LOOKS, LONG_IDLE, PacketSelection, ReceivedPacket, STATISTICS_INTERVAL,
};
use super::packet_v3::QuietSocket;
use super::{
    InterfaceBackend, Observer, Rest, Source, SourceControl, SourceEnd, SourceError, SourceOptions,
    real_name,
};
use crate::clock;
use crate::filter::Filter;
use crate::libpcap;
use crate::own_transport::OwnPackets;
use crate::ring::Writer;
use joiner::{JoinedPacket, PacketJoiner};
use link::LinkWatch;
use open::{OpenInterface, OpenOrder};
use socket::XdpSocket;

/// Maximum number of pieces that are taken from a queue before the others have their turn, and
/// between two publications.
const BATCH: u32 = 1024;

/// The kernel wakes this process for each packet. While packets come, it waits for so long before it
/// looks again, so that more of them come with one look.
const GATHER: Duration = Duration::from_millis(1);

/// It does so while fewer than this part of a queue's frames were taken: then the queue does not
/// fill in the meantime unless packets come several times as fast.
const GATHER_PART: u32 = 8;

/// An interface that is received through AF_XDP.
#[derive(Debug)]
pub(super) struct XdpSource {
    /// The source as it was written, for messages.
    name: String,
    interface: String,
    /// The program on the interface, for as long as it is to be there. It goes before the sockets.
    program: Option<OwnedFd>,
    queues: Vec<XdpQueue>,
    /// Reports packets of all queues, and news of the interface.
    ready: Epoll,
    selection: PacketSelection,
    path: XdpPath,
    watch: LinkWatch,
    /// The interface was down at the last look.
    is_down: bool,
    /// The interface's own count of drops at the last read.
    interface_drops: u64,
    statistics_read: Instant,
    /// Packets have arrived since the counters were read.
    uncounted: bool,
    _quiet: QuietSocket,
    _map: OwnedFd,
}

/// A receive queue.
#[derive(Debug)]
struct XdpQueue {
    socket: XdpSocket,
    joiner: PacketJoiner,
}

/// The way of packets into the memory of AF_XDP sockets.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum XdpPath {
    /// The driver hands packets to the program, and the kernel copies them.
    Native,
    /// The network stack hands packets to the program, and the kernel copies them.
    Generic,
    /// The interface itself writes packets into the memory.
    ZeroCopy,
}

impl XdpPath {
    /// As it is written in a status.
    pub(super) const fn word(self) -> &'static str {
        match self {
            Self::Native => "af_xdp_native",
            Self::Generic => "af_xdp_generic",
            Self::ZeroCopy => "af_xdp_zerocopy",
        }
    }
}

/// The result of a look at all queues.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Harvest {
    Nothing,
    /// So little that it is worth to wait for more.
    Little,
    Much,
}

impl XdpSource {
    /// Opens what is written as `xdp:` and this text.
    ///
    /// # Errors
    /// [`SourceError`]; nothing stays open or attached.
    pub(super) fn open(text: &str, options: &SourceOptions<'_>) -> Result<Self, SourceError> {
        let name = format!("{PREFIX}{text}");
        let place = XdpInterface::parse(text)
            .map_err(|why| SourceError::Place { name: name.clone(), why })?;
        let filter = options.filter.map(|text| Filter::compile(text, LinkType::ETHERNET));
        let interface = real_name(&place.interface).map_err(|error| error.of_source(&name))?;
        let failed = |error: XdpError| SourceError::Xdp { name: name.clone(), error };
        let index = if_nametoindex(interface.as_str())
            .map_err(|errno| failed(io::Error::from(errno).into()))?;
        let order = OpenOrder {
            source_name: &name,
            place: &place,
            interface: &interface,
            index,
            promiscuous: options.promiscuous,
            kernel_buffer: options.kernel_buffer,
        };
        let filter = filter.transpose()?;
        let OpenInterface { attachment, sockets, watch, state, quiet } =
            OpenInterface::open(&order).map_err(failed)?;
        let ready =
            epoll(&sockets, &watch).map_err(|errno| failed(io::Error::from(errno).into()))?;
        let own = Some(OwnPackets::new());
        let path = match attachment.mode {
            XdpMode::Generic => XdpPath::Generic,
            XdpMode::Native if sockets.iter().all(XdpSocket::is_zero_copy) => XdpPath::ZeroCopy,
            XdpMode::Native => XdpPath::Native,
        };
        let joined = |socket| XdpQueue { socket, joiner: PacketJoiner::default() };
        Ok(Self {
            program: Some(attachment.link),
            queues: sockets.into_iter().map(joined).collect(),
            ready,
            selection: PacketSelection::new(LinkType::ETHERNET, options.snaplen, filter, own),
            path,
            watch,
            is_down: false,
            interface_drops: state.drops,
            statistics_read: Instant::now(),
            uncounted: true,
            _quiet: quiet,
            _map: attachment.sockets,
            name,
            interface,
        })
    }

    /// Takes the packets that have come, up to a batch of each queue, and publishes them.
    fn batch(&mut self, writer: &mut Writer) -> Harvest {
        let clock = ClockDistance::now();
        let mut harvest = Harvest::Nothing;
        for XdpQueue { socket, joiner } in &mut self.queues {
            let taken = socket.receive(BATCH, |piece| {
                joiner.take(piece, |JoinedPacket { stamp, original_len, data }| {
                    let time = stamp.map_or(clock.now, |stamp| clock.time_of(stamp.get()));
                    let packet =
                        ReceivedPacket { time, original_len, is_cut: false, front: &[], data };
                    self.selection.store(writer, packet);
                });
            });
            if taken >= BATCH.min(socket.frames() / GATHER_PART) {
                harvest = Harvest::Much;
            } else if taken > 0 && harvest == Harvest::Nothing {
                harvest = Harvest::Little;
            }
            self.selection.publish(writer);
        }
        harvest
    }

    /// Adds the losses since the last call to the ring's counters, and looks after the interface.
    fn account(
        &mut self,
        writer: &mut Writer,
        observer: &mut dyn Observer,
    ) -> Result<(), SourceError> {
        self.statistics_read = Instant::now();
        self.uncounted = false;
        self.selection.tidy();
        let state = self.watch.state();
        self.count_losses(writer, state.as_ref().ok().map(|state| state.drops));
        let lost = |why: &str| SourceError::Lost { name: self.name.clone(), why: why.to_owned() };
        match state {
            Err(error) if error.raw_os_error() == Some(libc::ENODEV) => {
                return Err(lost("the interface is gone"));
            }
            // It is looked at again.
            Err(_) => {}
            Ok(state) if !state.has_program => {
                return Err(lost("its XDP program was detached by another program"));
            }
            // The program stays, and packets come again when the interface is up.
            Ok(state) if !state.is_up && !self.is_down => {
                self.is_down = true;
                let down = XdpError::Down { interface: self.interface.clone() };
                observer.away(writer, &lost(&down.to_string()));
            }
            Ok(state) if state.is_up && self.is_down => {
                self.is_down = false;
                observer.back(writer);
            }
            Ok(_) => {}
        }
        Ok(())
    }

    /// Adds the losses since the last call. `drops` is the interface's own count, if it is known.
    fn count_losses(&mut self, writer: &Writer, drops: Option<u64>) {
        let queues = self.queues.iter_mut();
        let kernel: u64 =
            queues.map(|queue| queue.socket.take_drops() + queue.joiner.take_lost()).sum();
        let drops = drops.unwrap_or(self.interface_drops);
        let interface = drops.saturating_sub(self.interface_drops);
        self.interface_drops = drops;
        if kernel + interface > 0 {
            writer.add_loss(kernel, interface);
        }
    }

    /// Detaches the program, and stores the packets that came before.
    fn finish(&mut self, writer: &mut Writer) {
        self.program = None;
        // On another processor, it may still run.
        libpcap::wait_for_receivers();
        while self.batch(writer) != Harvest::Nothing {}
        let drops = self.watch.state().ok().map(|state| state.drops);
        self.count_losses(writer, drops);
    }

    fn fill(
        &mut self,
        writer: &mut Writer,
        control: &SourceControl,
        observer: &mut dyn Observer,
    ) -> Result<(), SourceError> {
        let mut idle_looks: u32 = 0;
        while !control.must_stop() {
            control.clear_if_ordered(|| writer.clear());
            let harvest = self.batch(writer);
            let idle = harvest == Harvest::Nothing;
            self.uncounted |= !idle;
            if self.statistics_read.elapsed() >= STATISTICS_INTERVAL
                || idle && self.watch.has_news()
            {
                self.account(writer, observer)?;
            }
            observer.tick(writer);
            idle_looks = if idle { idle_looks.saturating_add(1) } else { 0 };
            match harvest {
                Harvest::Nothing => {
                    let long = if idle_looks > IDLE_LOOKS { LONG_IDLE } else { IDLE };
                    let time = if self.uncounted { STATISTICS_INTERVAL } else { long };
                    let time = PollTimeout::try_from(time).unwrap_or(PollTimeout::MAX);
                    control.wait_for(self.ready.0.as_fd(), time);
                }
                Harvest::Little => {
                    control.wait(GATHER);
                }
                Harvest::Much => {}
            }
        }
        Ok(())
    }
}

impl Source for XdpSource {
    fn link_type(&self) -> Option<LinkType> {
        Some(self.selection.link_type())
    }

    fn rest(&self) -> Rest {
        Rest::Closed
    }

    fn backend(&self) -> Option<InterfaceBackend> {
        Some(InterfaceBackend::AfXdp(self.path))
    }

    fn run(
        &mut self,
        writer: &mut Writer,
        control: &SourceControl,
        observer: &mut dyn Observer,
    ) -> Result<SourceEnd, SourceError> {
        let filled = self.fill(writer, control, observer);
        self.finish(writer);
        filled.map(|()| SourceEnd::Stopped)
    }
}

/// Reports whenever one of these has something.
fn epoll(sockets: &[XdpSocket], watch: &LinkWatch) -> nix::Result<Epoll> {
    let ready = Epoll::new(EpollCreateFlags::EPOLL_CLOEXEC)?;
    let event = || EpollEvent::new(EpollFlags::EPOLLIN, 0);
    for socket in sockets {
        ready.add(socket.as_fd(), event())?;
    }
    ready.add(watch.news(), event())?;
    Ok(ready)
}

/// The distance of the clock from the monotonic clock, which the program in the kernel reads.
#[derive(Clone, Copy, Debug)]
struct ClockDistance {
    /// When both clocks were read.
    now: Timestamp,
    /// Nanoseconds, modulo 2^64.
    distance: u64,
}

impl ClockDistance {
    fn now() -> Self {
        let (now, monotonic) = (clock::now(), clock::monotonic());
        Self { now, distance: now.nanoseconds().wrapping_sub(monotonic) }
    }

    const fn time_of(self, stamp: u64) -> Timestamp {
        Timestamp::from_nanoseconds(stamp.wrapping_add(self.distance))
    }
}
