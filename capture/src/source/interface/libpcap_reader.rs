//! Packets of an interface or another device through libpcap.
//!
//! libpcap opens a mapped packet socket too (`TPACKET_V3`), but before it knows the filter. So its
//! socket has packets from before, and packets of the moment in which the filter is exchanged.
//! libpcap's immediate mode is not used: it would fall back to `TPACKET_V2` and a wake-up for each
//! packet.

use std::os::fd::{AsFd, BorrowedFd};
use std::time::{Duration, Instant};

use pcap::{Active, Capture, Linktype, Precision as LibpcapPrecision};
use protocol::linktype::LinkType;
use protocol::time::Timestamp;

use super::names::is_device;
use super::{FilterPlan, ReceivedPacket};
use crate::clock;
use crate::filter::explain;
use crate::filter::marked::{self, CUT_LEN};
use crate::libpcap::{self, Instruction};
use crate::source::control::is_readable;
use crate::source::{ANY, SourceError, SourceOptions};

/// Milliseconds after which the kernel hands over a block that is not full.
const BLOCK_TIMEOUT_MS: i32 = 10;

/// The same timeout as a duration.
pub(super) const BLOCK_TIMEOUT: Duration =
    Duration::from_millis(BLOCK_TIMEOUT_MS.unsigned_abs() as u64);

/// Maximum number of packets between two publications, so that publications are not late on a link
/// that never pauses.
const BATCH: usize = 1024;

/// How long packets captured before the filter was in place may arrive: the kernel hands them over
/// with its first block. The check ends after this time, because clocks are set.
const STARTING: Duration = Duration::from_secs(1);

/// Devices of packets that netfilter logs begin with this.
const LOGGED: &str = "nflog";

/// Opens an interface, [`ANY`] or another device, in the network namespace of this thread. It keeps
/// `snaplen` bytes of each packet.
///
/// # Errors
/// [`SourceError`]; nothing stays open.
pub(super) fn open_device(
    name: &str,
    options: &SourceOptions<'_>,
    snaplen: u32,
) -> Result<(Capture<Active>, LinkType), SourceError> {
    let libpcap_error =
        |error: &pcap::Error| SourceError::Libpcap { name: name.to_owned(), why: explain(error) };
    let inactive = Capture::from_device(name)
        .map_err(|error| libpcap_error(&error))?
        .promisc(options.promiscuous && name != ANY)
        .snaplen(i32::try_from(snaplen).unwrap_or(i32::MAX))
        .timeout(BLOCK_TIMEOUT_MS)
        .buffer_size(i32::try_from(options.kernel_buffer).unwrap_or(i32::MAX))
        .precision(LibpcapPrecision::Nano);
    let mut capture = inactive.open().map_err(|error| {
        let why = explain(&error);
        if why.contains("ermi") && (why.contains("CAP_NET_RAW") || why.contains("permitted")) {
            if name.starts_with(LOGGED) {
                // The kernel asks for more than for a packet socket.
                let why = "no permission to receive what netfilter logs: it takes CAP_NET_ADMIN \
                           (start a daemon as root with pcapfs mount; one that mount(8) has \
                           started has no such right)";
                return SourceError::Device { name: name.to_owned(), why: why.to_owned() };
            }
            SourceError::NotPermitted { name: name.to_owned() }
        } else if why.contains("not up") {
            SourceError::Down { name: name.to_owned() }
        } else {
            SourceError::Libpcap { name: name.to_owned(), why }
        }
    })?;
    if name == ANY {
        // Version 2 has the interface of each packet. Where version 2 is not available, libpcap
        // uses version 1 by default.
        let _ = capture.set_datalink(Linktype(LinkType::LINUX_SLL2.to_dlt()));
    }
    let dlt = capture.get_datalink().0;
    let link_type = LinkType::from_dlt(dlt)
        .ok_or_else(|| SourceError::LinkType { name: name.to_owned(), dlt })?;
    Ok((capture, link_type))
}

/// An open device that receives packets.
pub(super) struct LibpcapReader {
    capture: Capture<Active>,
    is_device: bool,
    /// When the filter was in place, for as long as that matters. The socket has packets from
    /// before, but none from the moment in which libpcap lets nothing through. So packets from
    /// before this time are left out; otherwise that moment would be a loss that nothing counts.
    begun: Option<(Timestamp, Instant)>,
    /// The length of a packet that has our mark, with its cooked header; `None` if marked packets
    /// come whole.
    cut_len: Option<usize>,
}

impl std::fmt::Debug for LibpcapReader {
    fn fmt(&self, formatter: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        formatter.debug_struct("LibpcapReader").finish_non_exhaustive()
    }
}

impl LibpcapReader {
    /// Starts receiving the packets that pass the filter from an open device.
    ///
    /// # Errors
    /// [`SourceError::Libpcap`]
    pub(super) fn new(
        (capture, link_type): (Capture<Active>, LinkType),
        plan: &FilterPlan,
        device: &str,
        name: &str,
    ) -> Result<Self, SourceError> {
        let refused = |why: String| SourceError::Libpcap { name: name.to_owned(), why };
        let (begun, is_cut) = set_filter(&capture, plan).map_err(refused)?;
        let begun = Some((begun, Instant::now()));
        let cut_len = cooked_len(link_type) + CUT_LEN as usize;
        let capture = capture.setnonblock().map_err(|error| refused(explain(&error)))?;
        let is_device = is_device(device);
        Ok(Self { capture, is_device, begun, cut_len: is_cut.then_some(cut_len) })
    }

    /// The socket, to wait for packets.
    pub(super) fn socket(&self) -> BorrowedFd<'_> {
        self.capture.as_fd()
    }

    /// Takes the packets that the kernel has handed over, up to a batch. Returns their number.
    ///
    /// # Errors
    /// libpcap's message; the packets that came before were taken.
    pub(super) fn batch(
        &mut self,
        mut take: impl FnMut(ReceivedPacket<'_>),
    ) -> Result<usize, String> {
        // On its netlink sockets, libpcap 1.10 takes "no packet" for an error.
        if self.is_device && !is_readable(self.capture.as_fd()) {
            return Ok(0);
        }
        self.begun = self.begun.filter(|(_, at)| at.elapsed() < STARTING);
        let begun = self.begun.map_or_else(Timestamp::default, |(time, _)| time);
        let cut_len = self.cut_len;
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
            take(ReceivedPacket {
                time,
                original_len,
                // Other packets are only cut to the snaplen, which is longer.
                is_cut: cut_len == Some(len) && original_len as usize > len,
                front: &[],
                data: packet.data,
            });
        });
        taken.map_err(|error| explain(&error))
    }
}

/// Sets the filter of a socket that has been open for a while. Returns the time from which all
/// packets have passed the filter, and whether packets with our mark are [cut](marked).
fn set_filter(capture: &Capture<Active>, plan: &FilterPlan) -> Result<(Timestamp, bool), String> {
    let in_kernel = |program: &[Instruction]| {
        libpcap::set_kernel_filter(capture.as_fd(), program)
            .map_err(|error| format!("the kernel does not take the filter: {error}"))
    };
    let cut = |program: Vec<Instruction>| plan.cut(program);
    if plan.is_for_kernel() {
        if let Some(begun) = cut(plan.program.clone()).and_then(|program| in_kernel(&program).ok())
        {
            return Ok((begun, true));
        }
        return Ok((in_kernel(&plan.program)?, false));
    }
    libpcap::set_filter(capture, &plan.program)?;
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
        let all = [Instruction::returning(plan.snaplen)];
        if libpcap::set_filter(capture, &all).is_ok()
            && let Ok(begun) = in_kernel(&program)
        {
            return Ok((begun, true));
        }
        libpcap::set_filter(capture, &plan.program)?;
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
