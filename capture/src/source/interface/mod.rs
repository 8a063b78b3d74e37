//! Live capture from a network interface.
//!
//! Ethernet, the loopback interface and all interfaces together are read through a packet socket of
//! our own ([`packet_v3`](super::packet_v3)), other link types and devices through
//! [`libpcap_reader`]. Each batch that a reader hands over becomes one batch in the ring. What is
//! common to both is here: which packets are stored, what is counted, and when the source ends.

mod libpcap_reader;
mod names;
mod plan;
mod selection;
mod several;
mod shared;

use std::io;
use std::os::fd::BorrowedFd;
use std::time::{Duration, Instant};

use nix::net::if_::if_nametoindex;
use nix::poll::PollTimeout;
use pcap::{Active, Capture};
use protocol::linktype::LinkType;

use super::link_counters::LinkCounters;
use super::namespace::{EnteredNamespace, NamespaceSockets, NamespacedInterface};
use super::packet_v3::{PacketReader, QuietSocket};
use super::{
    ANY, InterfaceBackend, Observer, Rest, Source, SourceControl, SourceEnd, SourceError,
    SourceOptions,
};
use crate::filter::sees_tags;
use crate::libpcap;
use crate::own_transport;
use crate::ring::Writer;
use libpcap_reader::{BLOCK_TIMEOUT, LibpcapReader, open_device};
use names::is_device;
pub use names::{InterfaceInfo, interfaces, real_name};
pub(super) use plan::FilterPlan;
pub(super) use selection::{PacketSelection, ReceivedPacket};
pub(super) use several::SeveralInterfaces;
use shared::SharedInterface;

/// The time between two reads of the interface's and the kernel's counters while packets arrive,
/// and the maximum time from the last packet to such a read.
pub(super) const STATISTICS_INTERVAL: Duration = Duration::from_millis(200);

/// The length of a sleep on an idle link.
pub(super) const IDLE: Duration = Duration::from_secs(1);

/// The length of a sleep on a link that has been idle for [`IDLE_LOOKS`]. Packets, orders and the
/// end of the interface wake at once. Other wake-ups serve only the counters, which a hundred
/// captures would read a hundred times a second.
pub(super) const LONG_IDLE: Duration = Duration::from_secs(5);

/// Checks of an idle link after which it is checked less often. The rate is measured in these.
pub(super) const IDLE_LOOKS: u32 = 3;

/// The time between two looks whether the namespace of an interface is still the same, while
/// packets arrive; on an idle link it is the length of a sleep.
const NAMESPACE_INTERVAL: Duration = Duration::from_secs(1);

/// Bytes of kernel buffer of a device that is opened to compile a filter only.
const COMPILER_BUFFER: u64 = 512 << 10;

/// The loopback interface, which every network namespace has.
const LOOPBACK: &str = "lo";

/// An open interface.
#[derive(Debug)]
pub(super) struct Live {
    reader: InterfaceReader,
    /// The source, for messages.
    name: String,
    selection: PacketSelection,
    /// `None` for all interfaces, and for what is no interface.
    counters: Option<LinkCounters>,
    /// The interface's own count of drops at the last read.
    interface_drops: u64,
    statistics_read: Instant,
    /// Whether packets have arrived since the counters were read.
    uncounted: bool,
    /// The namespace of the interface, if it is not that of this process.
    namespace: Option<EnteredNamespace>,
    namespace_seen: Instant,
}

/// The way in which packets are received.
#[derive(Debug)]
enum InterfaceReader {
    PacketV3(Box<PacketReader>),
    Libpcap(LibpcapReader),
}

/// A packet socket or a device that was opened in the namespace of a thread.
enum OpenSocket {
    /// A socket, and an open device if an expression about VLAN tags must be compiled.
    PacketV3(QuietSocket, Option<Capture<Active>>),
    Libpcap(Capture<Active>, LinkType),
}

/// An interface that is open, in the namespace of the thread that has opened it.
struct OpenDevice {
    socket: OpenSocket,
    /// Its real name.
    name: String,
    counters: Option<LinkCounters>,
}

/// Opens an interface, or [`ANY`], and starts receiving the packets that pass the filter, in as many
/// threads as the options say.
///
/// `name` may be an alternative name of the interface, or a libpcap device such as `nflog:5`. What
/// libpcap receives is for one thread.
///
/// # Errors
/// [`SourceError`]; nothing stays open.
pub(super) fn open(
    name: &str,
    options: &SourceOptions<'_>,
) -> Result<Box<dyn Source>, SourceError> {
    let devices = OpenDevice::open_all(name, options)?;
    let name = devices.first.name.clone();
    start(devices, &name, options, None)
}

/// Opens an interface in another network namespace, see [`open`].
///
/// # Errors
/// [`SourceError`]; nothing stays open.
pub(super) fn open_inside(
    place: &NamespacedInterface,
    options: &SourceOptions<'_>,
) -> Result<Box<dyn Source>, SourceError> {
    let name = place.to_string();
    if let Some(received) = OpenDevice::received_all(place, options) {
        let (devices, entered) = received?;
        return start(devices, &name, options, Some(entered));
    }
    let opened = place.inside(|| OpenDevice::open_all(place.interface(), options));
    // Which of the interfaces of this name it is.
    let (devices, entered) = opened.map_err(|error| error.of_source(&name))?;
    start(devices, &name, options, Some(entered))
}

/// Starts receiving from open devices. The name is for messages.
fn start(
    devices: ThreadDevices,
    name: &str,
    options: &SourceOptions<'_>,
    namespace: Option<EnteredNamespace>,
) -> Result<Box<dyn Source>, SourceError> {
    if devices.others.is_empty() {
        return Ok(Box::new(Live::of(devices.first, name, options, namespace)?));
    }
    Ok(Box::new(SharedInterface::of(devices, name, options, namespace)?))
}

/// Takes the packets of an open interface to a ring.
trait LiveSink {
    /// Takes the packets that the kernel has handed over, up to a batch, and makes them visible.
    /// Returns their number.
    fn batch(&mut self, live: &mut Live) -> Result<usize, SourceError>;

    /// See [`Writer::add_loss`].
    fn add_loss(&mut self, kernel: u64, interface: u64);
}

impl LiveSink for Writer {
    fn batch(&mut self, live: &mut Live) -> Result<usize, SourceError> {
        live.batch(self)
    }

    fn add_loss(&mut self, kernel: u64, interface: u64) {
        Self::add_loss(self, kernel, interface);
    }
}

impl Live {
    /// Opens an interface for one thread, see [`open`].
    ///
    /// # Errors
    /// [`SourceError`]; nothing stays open.
    pub(super) fn open(name: &str, options: &SourceOptions<'_>) -> Result<Self, SourceError> {
        let device = OpenDevice::open(name, options)?;
        let name = device.name.clone();
        Self::of(device, &name, options, None)
    }

    /// Starts receiving from an open device. The name is for messages.
    fn of(
        device: OpenDevice,
        name: &str,
        options: &SourceOptions<'_>,
        namespace: Option<EnteredNamespace>,
    ) -> Result<Self, SourceError> {
        let SourceOptions { snaplen, promiscuous, kernel_buffer, .. } = *options;
        // Marks and addresses mean something else in another namespace.
        let is_here = namespace.as_ref().is_none_or(EnteredNamespace::is_own);
        let plan = device.plan(name, options, is_here)?;
        let OpenDevice { socket, name: device, counters } = device;
        let link_type = socket.link_type();
        let (reader, is_coarse) = match socket {
            OpenSocket::PacketV3(socket, _) => {
                let started = socket.start(&plan, promiscuous, kernel_buffer);
                let (reader, is_coarse) = started.map_err(|error| refused(name, error))?;
                (InterfaceReader::PacketV3(Box::new(reader)), is_coarse)
            }
            OpenSocket::Libpcap(capture, link_type) => {
                let reader = LibpcapReader::new((capture, link_type), &plan, &device, name)?;
                (InterfaceReader::Libpcap(reader), plan.is_coarse())
            }
        };
        let selection = PacketSelection::for_plan(&plan, link_type, snaplen, (is_coarse, is_here));
        Ok(Self::new(reader, name.to_owned(), selection, (counters, namespace)))
    }

    /// An interface that receives. The counters begin now.
    fn new(
        reader: InterfaceReader,
        name: String,
        selection: PacketSelection,
        (counters, namespace): (Option<LinkCounters>, Option<EnteredNamespace>),
    ) -> Self {
        let now = Instant::now();
        let mut live = Self {
            reader,
            name,
            selection,
            counters,
            interface_drops: 0,
            statistics_read: now,
            uncounted: true,
            namespace,
            namespace_seen: now,
        };
        live.interface_drops = live.count_interface_drops();
        // Packets dropped before the filter was in place are no loss of this capture.
        let _ = live.take_kernel_drops();
        live
    }

    /// Takes the packets that the kernel has handed over, up to a batch, and publishes them.
    fn batch(&mut self, writer: &mut Writer) -> Result<usize, SourceError> {
        let Self { reader, selection, .. } = self;
        let taken = match reader {
            InterfaceReader::PacketV3(reader) => store_block(reader, selection, writer),
            InterfaceReader::Libpcap(reader) => {
                reader.batch(|packet| selection.store(writer, packet))
            }
        };
        self.selection.publish(writer);
        taken.map_err(|why| SourceError::Lost { name: self.name.clone(), why })
    }

    /// Takes packets until `control` orders a stop. Calls `look` after each batch, and at least every
    /// few seconds on an idle link.
    fn fill<S: LiveSink>(
        &mut self,
        sink: &mut S,
        control: &SourceControl,
        mut look: impl FnMut(&mut S),
    ) -> Result<(), SourceError> {
        let mut idle_looks: u32 = 0;
        while !control.must_stop() {
            let idle = sink.batch(self)? == 0;
            self.uncounted |= !idle;
            if self.statistics_read.elapsed() >= STATISTICS_INTERVAL {
                self.account(sink);
            }
            look(sink);
            self.check_namespace()?;
            idle_looks = if idle { idle_looks.saturating_add(1) } else { 0 };
            if idle {
                let long = if idle_looks > IDLE_LOOKS { LONG_IDLE } else { IDLE };
                self.wait(control, if self.uncounted { STATISTICS_INTERVAL } else { long });
            }
        }
        // The packets that the kernel has collected so far come with its next blocks.
        let deadline = Instant::now() + 2 * self.reader.delay();
        while let Some(left) = deadline.checked_duration_since(Instant::now()) {
            self.wait(control, left);
            sink.batch(self)?;
        }
        self.account(sink);
        Ok(())
    }

    /// Adds the losses since the last call to the ring's counters.
    fn account(&mut self, sink: &mut impl LiveSink) {
        self.statistics_read = Instant::now();
        self.uncounted = false;
        self.selection.tidy();
        let kernel = self.take_kernel_drops();
        let drops = self.count_interface_drops();
        // The count starts again at 0 when the interface is created again.
        let interface = drops.saturating_sub(self.interface_drops);
        self.interface_drops = drops;
        if kernel + interface > 0 {
            sink.add_loss(kernel, interface);
        }
    }

    /// Packets that the interface and its driver dropped before the kernel saw them, since the
    /// interface was created. 0 where that is not known, as for [`ANY`].
    fn count_interface_drops(&self) -> u64 {
        self.counters.as_ref().and_then(LinkCounters::drops).unwrap_or(self.interface_drops)
    }

    /// Checks that the source still leads to the namespace that this socket is in. The socket keeps
    /// that namespace, so a container that has ended would not be gone as long as it is open.
    fn check_namespace(&mut self) -> Result<(), SourceError> {
        let Some(namespace) = &self.namespace else { return Ok(()) };
        if self.namespace_seen.elapsed() < NAMESPACE_INTERVAL {
            return Ok(());
        }
        self.namespace_seen = Instant::now();
        let lost = namespace.lost();
        lost.map_or(Ok(()), |why| Err(SourceError::Lost { name: self.name.clone(), why }))
    }

    fn take_kernel_drops(&mut self) -> u64 {
        // A socket that does not answer is about to fail its next read as well.
        libpcap::take_kernel_drops(self.reader.socket()).unwrap_or(0)
    }

    /// Waits for packets, for an order, or until `time` is over.
    fn wait(&self, control: &SourceControl, time: Duration) {
        let time = self.reader.patience().map_or(time, |patience| patience.min(time));
        // At least a whole millisecond, or poll would not wait at all.
        let timeout = PollTimeout::try_from(time.max(Duration::from_millis(1)));
        control.wait_for(self.reader.socket(), timeout.unwrap_or(PollTimeout::MAX));
    }
}

/// Puts the packets of the next block into the ring. Returns their number.
///
/// # Errors
/// Why the socket receives nothing more, as text for people.
fn store_block(
    reader: &mut PacketReader,
    selection: &mut PacketSelection,
    writer: &mut Writer,
) -> Result<usize, String> {
    let Some(block) = reader.next_block() else {
        return reader.failure().map_or(Ok(0), Err);
    };
    let mut taken = 0;
    let damaged = block.for_each(|packet| {
        selection.store(writer, packet);
        taken += 1;
    });
    if damaged > 0 {
        writer.add_loss(damaged, 0);
    }
    Ok(taken)
}

/// The error for a packet socket that the system refuses.
fn refused(name: &str, error: io::Error) -> SourceError {
    let name = name.to_owned();
    match error.raw_os_error() {
        Some(libc::EPERM | libc::EACCES) => SourceError::NotPermitted { name },
        Some(libc::ENETDOWN) => SourceError::Down { name },
        _ => SourceError::System { name, error },
    }
}

impl InterfaceReader {
    fn socket(&self) -> BorrowedFd<'_> {
        match self {
            Self::PacketV3(reader) => reader.socket(),
            Self::Libpcap(reader) => reader.socket(),
        }
    }

    /// Maximum time to wait for packets, if it is limited.
    fn patience(&self) -> Option<Duration> {
        match self {
            Self::PacketV3(reader) => reader.patience(),
            Self::Libpcap(_) => None,
        }
    }

    /// Maximum time for which the kernel keeps packets back.
    fn delay(&self) -> Duration {
        match self {
            Self::PacketV3(reader) => reader.delay(),
            Self::Libpcap(_) => BLOCK_TIMEOUT,
        }
    }
}

/// Open devices of one interface, one for each thread that takes its packets.
struct ThreadDevices {
    first: OpenDevice,
    others: Vec<OpenDevice>,
}

impl OpenSocket {
    fn link_type(&self) -> LinkType {
        match self {
            Self::PacketV3(socket, _) => socket.link_type(),
            Self::Libpcap(_, link_type) => *link_type,
        }
    }
}

impl OpenDevice {
    /// Opens an interface once for each thread that is to take its packets, in the namespace of this
    /// thread.
    fn open_all(name: &str, options: &SourceOptions<'_>) -> Result<ThreadDevices, SourceError> {
        let first = Self::open(name, options)?;
        let mut others = Vec::new();
        if matches!(first.socket, OpenSocket::PacketV3(..)) {
            // The filter is compiled once.
            let plain = SourceOptions { filter: None, ..*options };
            for _ in 1..options.workers.number() {
                others.push(Self::open(name, &plain)?);
            }
        }
        Ok(ThreadDevices { first, others })
    }

    /// The filter of a capture, for packets of this device. `name` is for messages; `is_here` says
    /// whether the device is in the network namespace of this process.
    fn plan(
        &self,
        name: &str,
        options: &SourceOptions<'_>,
        is_here: bool,
    ) -> Result<FilterPlan, SourceError> {
        let expression = options.filter.unwrap_or_default();
        let live = match &self.socket {
            OpenSocket::PacketV3(_, compiler) => compiler.as_ref(),
            OpenSocket::Libpcap(capture, _) => Some(capture).filter(|_| sees_tags(expression)),
        };
        let link_type = self.socket.link_type();
        let mut plan = FilterPlan::new(expression, live, link_type, options.snaplen, name)?;
        plan.set_mark(own_transport::mark().filter(|_| is_here && !is_device(&self.name)));
        Ok(plan)
    }

    /// Opens an interface, or [`ANY`], in the namespace of this thread.
    fn open(name: &str, options: &SourceOptions<'_>) -> Result<Self, SourceError> {
        let name = real_name(name)?;
        let index = if_nametoindex(name.as_str()).ok();
        let socket = Self::open_socket(&name, index, options)?;
        let counters = index
            .map(LinkCounters::open)
            .transpose()
            .map_err(|errno| SourceError::System { name: name.clone(), error: errno.into() })?;
        Ok(Self { socket, name, counters })
    }

    /// Takes over sockets of an interface for each thread that is to take its packets, see
    /// [`received`](Self::received); `None` if this process enters namespaces itself.
    fn received_all(
        place: &NamespacedInterface,
        options: &SourceOptions<'_>,
    ) -> Option<Result<(ThreadDevices, EnteredNamespace), SourceError>> {
        let (sockets, entered) = match place.received()? {
            Ok(received) => received,
            Err(error) => return Some(Err(error)),
        };
        let open = || {
            let identity = sockets.identity;
            let first = Self::received(sockets, place, options)?;
            let mut others = Vec::new();
            let plain = SourceOptions { filter: None, ..*options };
            for _ in 1..options.workers.number() {
                let Some(received) = place.received() else { break };
                let (sockets, _) = received?;
                if sockets.identity != identity {
                    let why = "the namespace was exchanged just now".to_owned();
                    return Err(SourceError::Lost { name: place.to_string(), why });
                }
                others.push(Self::received(sockets, place, &plain)?);
            }
            Ok((ThreadDevices { first, others }, entered))
        };
        Some(open())
    }

    /// Takes over the sockets of an interface, or [`ANY`], in a namespace that this process may not
    /// enter. libpcap opens its sockets itself, so there is no way to receive what it is needed for.
    fn received(
        sockets: NamespaceSockets,
        place: &NamespacedInterface,
        options: &SourceOptions<'_>,
    ) -> Result<Self, SourceError> {
        let NamespaceSockets { packet, route, name, index, .. } = sockets;
        let not_here = |what: &str| {
            place.not_permitted(format!(
                "a daemon that mount(8) has started may not enter other namespaces, and libpcap must \
                 for {what}; start a daemon as root with pcapfs mount"
            ))
        };
        if options.backend == InterfaceBackend::Libpcap {
            return Err(not_here("backend = \"libpcap\""));
        }
        let interface = (index != 0).then_some((name.as_str(), index));
        let socket = QuietSocket::of(packet, interface);
        let socket = socket.map_err(|error| refused(&place.to_string(), error))?;
        let socket = socket.ok_or_else(|| not_here("an interface that is not Ethernet"))?;
        // Expressions mean the same on all Ethernet interfaces, and this one is everywhere.
        let like = if index == 0 { ANY } else { LOOPBACK };
        let compiler = Self::compiler(like, options).transpose();
        let compiler = compiler.map_err(|error| error.of_source(&place.to_string()))?;
        let counters = interface.map(|_| LinkCounters::over(route, index));
        Ok(Self { socket: OpenSocket::PacketV3(socket, compiler), name, counters })
    }

    /// An open device like this one, if an expression about VLAN tags must be compiled.
    fn compiler(
        name: &str,
        options: &SourceOptions<'_>,
    ) -> Option<Result<Capture<Active>, SourceError>> {
        sees_tags(options.filter.unwrap_or_default()).then(|| {
            let small =
                SourceOptions { promiscuous: false, kernel_buffer: COMPILER_BUFFER, ..*options };
            open_device(name, &small, options.snaplen).map(|(capture, _)| capture)
        })
    }

    fn open_socket(
        name: &str,
        index: Option<u32>,
        options: &SourceOptions<'_>,
    ) -> Result<OpenSocket, SourceError> {
        let interface = index.map(|index| (name, index));
        let is_ours =
            options.backend == InterfaceBackend::AfPacket && (interface.is_some() || name == ANY);
        if is_ours
            && let Some(socket) =
                QuietSocket::open(interface).map_err(|error| refused(name, error))?
        {
            let compiler = Self::compiler(name, options).transpose()?;
            return Ok(OpenSocket::PacketV3(socket, compiler));
        }
        let snaplen = options.snaplen.max(own_transport::HEADERS_LEN);
        let (capture, link_type) = open_device(name, options, snaplen)?;
        Ok(OpenSocket::Libpcap(capture, link_type))
    }
}

impl Source for Live {
    fn link_type(&self) -> Option<LinkType> {
        Some(self.selection.link_type())
    }

    fn rest(&self) -> Rest {
        Rest::Closed
    }

    fn backend(&self) -> Option<InterfaceBackend> {
        Some(match self.reader {
            InterfaceReader::PacketV3(_) => InterfaceBackend::AfPacket,
            InterfaceReader::Libpcap(_) => InterfaceBackend::Libpcap,
        })
    }

    /// Also calls [`Observer::tick`] every few seconds on an idle link.
    fn run(
        &mut self,
        writer: &mut Writer,
        control: &SourceControl,
        observer: &mut dyn Observer,
    ) -> Result<SourceEnd, SourceError> {
        self.fill(writer, control, |writer| {
            control.clear_if_ordered(|| writer.clear());
            observer.tick(writer);
        })?;
        Ok(SourceEnd::Stopped)
    }
}
