//! Live capture from a network interface, through libpcap's mapped packet socket (`TPACKET_V3`).
//!
//! The kernel fills blocks. It hands a block over when the block is full or [`BLOCK_TIMEOUT_MS`]
//! old, and each hand-over becomes one batch in the ring. libpcap's immediate mode is not used: it
//! would fall back to `TPACKET_V2` and a wake-up for each packet.

mod names;

use std::os::fd::AsFd;
use std::time::{Duration, Instant};

use nix::net::if_::if_nametoindex;
use nix::poll::PollTimeout;
use pcap::{Active, Capture, Linktype, Precision as LibpcapPrecision};
use protocol::linktype::LinkType;
use protocol::time::Timestamp;

use super::control::is_readable;
use super::link_counters::LinkCounters;
use super::namespace::{EnteredNamespace, NamespacedInterface};
use super::{ANY, Observer, Rest, Source, SourceControl, SourceEnd, SourceError, SourceOptions};
use crate::clock;
use crate::filter::marked::{self, CUT_LEN};
use crate::filter::{Filter, FilterError, explain, sees_tags};
use crate::libpcap::{self, Instruction};
use crate::own_transport::{self, HEADERS_LEN, OwnPackets};
use crate::ring::{Append, Writer};
use names::is_device;
pub use names::{InterfaceInfo, interfaces, real_name};

/// Milliseconds after which the kernel hands over a block that is not full: half of the 20 that a
/// packet may take from the wire to a reader on an idle link.
const BLOCK_TIMEOUT_MS: i32 = 10;

/// The same timeout as a duration.
const BLOCK_TIMEOUT: Duration = Duration::from_millis(BLOCK_TIMEOUT_MS.unsigned_abs() as u64);

/// Maximum number of packets between two publications, so that publications are not late on a link
/// that never pauses.
const BATCH: usize = 1024;

/// The time between two reads of the interface's and the kernel's counters while packets arrive,
/// and the maximum time from the last packet to such a read.
const STATISTICS_INTERVAL: Duration = Duration::from_millis(200);

/// The length of a sleep on an idle link.
const IDLE: Duration = Duration::from_secs(1);

/// The length of a sleep on a link that has been idle for [`IDLE_LOOKS`]. Packets, orders and the
/// end of the interface wake at once. Other wake-ups serve only the counters, which a hundred
/// captures would read a hundred times a second.
const LONG_IDLE: Duration = Duration::from_secs(5);

/// Checks of an idle link after which it is checked less often. The rate is measured in these.
const IDLE_LOOKS: u32 = 3;

/// The time between two looks whether the namespace of an interface is still the same, while
/// packets arrive; on an idle link it is the length of a sleep.
const NAMESPACE_INTERVAL: Duration = Duration::from_secs(1);

/// How long packets captured before the filter was in place may arrive: the kernel hands them over
/// with its first block. The check ends after this time, because clocks are set.
const STARTING: Duration = Duration::from_secs(1);

/// An open interface.
pub(super) struct Live {
    capture: Capture<Active>,
    /// The source, for messages.
    name: String,
    is_device: bool,
    link_type: LinkType,
    snaplen: u32,
    /// A filter that is too long for the kernel, whose own filter accepts more packets.
    fine: Option<Filter>,
    /// When the filter was in place, for as long as that matters. The socket has packets from
    /// before, but none from the moment in which libpcap lets nothing through. So packets from
    /// before this time are left out; otherwise that moment would be a loss that nothing counts.
    begun: Option<(Timestamp, Instant)>,
    /// Packets of our own connections; `None` in another namespace, where they are not ours.
    own: Option<OwnPackets>,
    /// The length of a packet that has our mark, with its cooked header; `None` if marked packets
    /// come whole.
    cut_len: Option<usize>,
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

/// An interface that is open, in the namespace of the thread that has opened it.
struct OpenDevice {
    capture: Capture<Active>,
    /// Its real name.
    name: String,
    link_type: LinkType,
    counters: Option<LinkCounters>,
}

impl std::fmt::Debug for Live {
    fn fmt(&self, formatter: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        formatter.debug_struct("Live").field("name", &self.name).finish_non_exhaustive()
    }
}

impl Live {
    /// Opens an interface, or [`ANY`], and starts receiving the packets that pass `filter`.
    ///
    /// `name` may be an alternative name of the interface, or a libpcap device such as `nflog:5`.
    ///
    /// # Errors
    /// [`SourceError`]; nothing stays open.
    pub(super) fn open(name: &str, options: &SourceOptions<'_>) -> Result<Self, SourceError> {
        let device = OpenDevice::open(name, options)?;
        let name = device.name.clone();
        Self::of(device, name, options, None)
    }

    /// Opens an interface in another network namespace, see [`Live::open`].
    ///
    /// # Errors
    /// [`SourceError`]; nothing stays open.
    pub(super) fn open_inside(
        place: &NamespacedInterface,
        options: &SourceOptions<'_>,
    ) -> Result<Self, SourceError> {
        let name = place.to_string();
        let (device, entered) =
            place.inside(|| OpenDevice::open(place.interface(), options)).map_err(|error| {
                // Which of the interfaces of this name it is.
                error.of_source(&name)
            })?;
        Self::of(device, name, options, Some(entered))
    }

    /// Starts receiving from an open device. The name is for messages.
    fn of(
        device: OpenDevice,
        name: String,
        options: &SourceOptions<'_>,
        namespace: Option<EnteredNamespace>,
    ) -> Result<Self, SourceError> {
        let OpenDevice { capture, name: device, link_type, counters } = device;
        let SourceOptions { filter, snaplen, .. } = *options;
        // Marks and addresses mean something else in another namespace.
        let is_here = namespace.as_ref().is_none_or(EnteredNamespace::is_own);
        let is_device = is_device(&device);
        let expression = filter.unwrap_or_default();
        let compiled = if sees_tags(expression) {
            // Compile it for this socket: on a live socket libpcap asks the kernel for the tag that
            // was removed from the packet.
            let program = capture.compile(expression, true).map_err(|error| {
                FilterError::Compile { expression: expression.to_owned(), why: explain(&error) }
            })?;
            Filter::checked(libpcap::instructions(&program), expression).ok_or_else(|| {
                SourceError::Libpcap { name: name.clone(), why: "filter too long".to_owned() }
            })?
        } else {
            Filter::compile_live(expression, link_type)?
        };
        // A filter that is too long for the kernel runs here too, over whole packets.
        let mark = own_transport::mark().filter(|_| is_here && !compiled.is_coarse() && !is_device);
        let lens = (kernel_snaplen(snaplen), mark);
        let (begun, is_cut) = set_filter(&capture, &compiled, lens, &name)?;
        let begun = Some((begun, Instant::now()));
        let cut_len = cooked_len(link_type) + CUT_LEN as usize;
        let capture = capture
            .setnonblock()
            .map_err(|error| SourceError::Libpcap { name: name.clone(), why: explain(&error) })?;
        let mut live = Self {
            capture,
            name,
            is_device,
            link_type,
            snaplen,
            fine: compiled.is_coarse().then_some(compiled),
            begun,
            own: is_here.then(OwnPackets::new),
            cut_len: is_cut.then_some(cut_len),
            interface_drops: 0,
            counters,
            statistics_read: Instant::now(),
            uncounted: true,
            namespace,
            namespace_seen: Instant::now(),
        };
        live.interface_drops = live.count_interface_drops();
        // Packets dropped before the filter was in place are no loss of this capture.
        let _ = live.take_kernel_drops();
        Ok(live)
    }

    /// Takes the packets that the kernel has handed over, up to a batch, and publishes them.
    fn batch(&mut self, writer: &mut Writer) -> Result<usize, SourceError> {
        // On its netlink sockets, libpcap 1.10 takes "no packet" for an error.
        if self.is_device && !is_readable(self.capture.as_fd()) {
            return Ok(0);
        }
        let snaplen = self.snaplen as usize;
        self.begun = self.begun.filter(|(_, at)| at.elapsed() < STARTING);
        let begun = self.begun.map_or_else(Timestamp::default, |(time, _)| time);
        let ring = writer.ring().number();
        let mut excluded = 0;
        let taken = self.capture.dispatch(Some(BATCH), |packet| {
            let time = &packet.header.ts;
            // With nanosecond precision libpcap puts nanoseconds into tv_usec. Neither part is ever
            // negative.
            let nanoseconds = time
                .tv_sec
                .unsigned_abs()
                .wrapping_mul(1_000_000_000)
                .wrapping_add(time.tv_usec.unsigned_abs());
            let time = Timestamp::from_nanoseconds(nanoseconds);
            if time < begun {
                return;
            }
            let (original_len, len) = (packet.header.len, packet.data.len());
            // Other packets are only cut to the snaplen, which is longer.
            if self.cut_len == Some(len) && original_len as usize > len {
                excluded += 1;
                return;
            }
            if self.fine.as_ref().is_some_and(|fine| !fine.matches(original_len, packet.data)) {
                return;
            }
            let what = (self.link_type, original_len);
            if self.own.as_mut().is_some_and(|own| own.has(ring, what, time, packet.data)) {
                excluded += 1;
                return;
            }
            let data = packet.data.get(..snaplen).unwrap_or(packet.data);
            // The ring counts oversize packets.
            let (Append::Stored | Append::Oversize) = writer.append(time, original_len, data);
        });
        if excluded > 0 {
            writer.add_excluded(excluded);
        }
        writer.publish();
        taken.map_err(|error| SourceError::Lost { name: self.name.clone(), why: explain(&error) })
    }

    /// Adds the losses since the last call to the ring's counters.
    fn account(&mut self, writer: &Writer) {
        self.statistics_read = Instant::now();
        self.uncounted = false;
        if let Some(own) = &mut self.own {
            own.tidy();
        }
        let kernel = self.take_kernel_drops();
        let drops = self.count_interface_drops();
        // The count starts again at 0 when the interface is created again.
        let interface = drops.saturating_sub(self.interface_drops);
        self.interface_drops = drops;
        if kernel + interface > 0 {
            writer.add_loss(kernel, interface);
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
        libpcap::take_kernel_drops(self.capture.as_fd()).unwrap_or(0)
    }

    /// Waits for packets, for an order, or until `time` is over.
    fn wait(&self, control: &SourceControl, time: Duration) {
        let timeout = PollTimeout::try_from(time).unwrap_or(PollTimeout::MAX);
        control.wait_for(self.capture.as_fd(), timeout);
    }
}

impl OpenDevice {
    /// Opens an interface, or [`ANY`], in the namespace of this thread.
    fn open(name: &str, options: &SourceOptions<'_>) -> Result<Self, SourceError> {
        let SourceOptions { snaplen, promiscuous, kernel_buffer, .. } = *options;
        let name = real_name(name)?;
        let libpcap_error =
            |error: &pcap::Error| SourceError::Libpcap { name: name.clone(), why: explain(error) };
        let inactive = Capture::from_device(name.as_str())
            .map_err(|error| libpcap_error(&error))?
            .promisc(promiscuous && name != ANY)
            .snaplen(i32::try_from(kernel_snaplen(snaplen)).unwrap_or(i32::MAX))
            .timeout(BLOCK_TIMEOUT_MS)
            .buffer_size(i32::try_from(kernel_buffer).unwrap_or(i32::MAX))
            .precision(LibpcapPrecision::Nano);
        let mut capture = inactive.open().map_err(|error| {
            let why = explain(&error);
            if why.contains("ermi") && (why.contains("CAP_NET_RAW") || why.contains("permitted")) {
                SourceError::NotPermitted { name: name.clone() }
            } else {
                SourceError::Libpcap { name: name.clone(), why }
            }
        })?;
        if name == ANY {
            // Version 2 has the interface of each packet. Where version 2 is not available, libpcap
            // uses version 1 by default.
            let _ = capture.set_datalink(Linktype(LinkType::LINUX_SLL2.to_dlt()));
        }
        let dlt = capture.get_datalink().0;
        let link_type = LinkType::from_dlt(dlt)
            .ok_or_else(|| SourceError::LinkType { name: name.clone(), dlt })?;
        let index = if_nametoindex(name.as_str()).ok();
        let counters = index
            .map(LinkCounters::open)
            .transpose()
            .map_err(|errno| SourceError::System { name: name.clone(), error: errno.into() })?;
        Ok(Self { capture, name, link_type, counters })
    }
}

impl Source for Live {
    fn link_type(&self) -> Option<LinkType> {
        Some(self.link_type)
    }

    fn rest(&self) -> Rest {
        Rest::Closed
    }

    /// Also calls [`Observer::tick`] every few seconds on an idle link.
    fn run(
        &mut self,
        writer: &mut Writer,
        control: &SourceControl,
        observer: &mut dyn Observer,
    ) -> Result<SourceEnd, SourceError> {
        let mut idle_looks: u32 = 0;
        while !control.must_stop() {
            control.clear_if_ordered(|| writer.clear());
            let idle = self.batch(writer)? == 0;
            self.uncounted |= !idle;
            if self.statistics_read.elapsed() >= STATISTICS_INTERVAL {
                self.account(writer);
            }
            observer.tick(writer);
            self.check_namespace()?;
            idle_looks = if idle { idle_looks.saturating_add(1) } else { 0 };
            if idle {
                let long = if idle_looks > IDLE_LOOKS { LONG_IDLE } else { IDLE };
                self.wait(control, if self.uncounted { STATISTICS_INTERVAL } else { long });
            }
        }
        // The packets that the kernel has collected so far come with its next blocks.
        let deadline = Instant::now() + 2 * BLOCK_TIMEOUT;
        while let Some(left) = deadline.checked_duration_since(Instant::now()) {
            // At least a whole millisecond, or poll would not wait at all.
            self.wait(control, left.max(Duration::from_millis(1)));
            self.batch(writer)?;
        }
        self.account(writer);
        Ok(SourceEnd::Stopped)
    }
}

/// Sets the filter of a socket that has been open for a while. Returns the time from which all
/// packets have passed the filter, and whether packets with `mark` are [cut](marked).
fn set_filter(
    capture: &Capture<Active>,
    filter: &Filter,
    (snaplen, mark): (u32, Option<u32>),
    name: &str,
) -> Result<(Timestamp, bool), SourceError> {
    let program = filter.program(snaplen);
    let refused = |why: String| SourceError::Libpcap { name: name.to_owned(), why };
    let in_kernel = |program: &[Instruction]| {
        libpcap::set_kernel_filter(capture.as_fd(), program)
            .map_err(|error| refused(format!("the kernel does not take the filter: {error}")))
    };
    let cut = |program: Vec<Instruction>| mark.and_then(|mark| marked::cut(program, mark));
    if filter.asks_the_kernel() {
        if let Some(begun) = cut(program.clone()).and_then(|program| in_kernel(&program).ok()) {
            return Ok((begun, true));
        }
        return Ok((in_kernel(&program)?, false));
    }
    libpcap::set_filter(capture, &program).map_err(refused)?;
    // As libpcap has changed it for the socket.
    let attached = libpcap::attached(capture.as_fd()).ok();
    if let Some(program) = attached.and_then(cut) {
        if program.len() == marked::LEN + 1 {
            // All packets match, before and after.
            let is_cut = libpcap::attach(capture.as_fd(), &program).is_ok();
            return Ok((clock::now(), is_cut));
        }
        // libpcap runs its program itself over packets that came before, and one byte would not
        // pass.
        let all = [Instruction::returning(snaplen)];
        if libpcap::set_filter(capture, &all).is_ok()
            && let Ok(begun) = in_kernel(&program)
        {
            return Ok((begun, true));
        }
        libpcap::set_filter(capture, &filter.program(snaplen)).map_err(refused)?;
    }
    Ok((clock::now(), false))
}

/// Bytes that libpcap puts before each packet of a link type, and that filters do not see
/// (`SLL_HDR_LEN` and `SLL2_HDR_LEN` of `pcap/sll.h`).
fn cooked_len(link_type: LinkType) -> usize {
    match link_type {
        LinkType::LINUX_SLL => 16,
        LinkType::LINUX_SLL2 => 20,
        _ => 0,
    }
}

/// Bytes that the kernel keeps of a packet: enough to recognize our own packets. What is stored is
/// cut to the snaplen.
fn kernel_snaplen(snaplen: u32) -> u32 {
    snaplen.max(HEADERS_LEN)
}
