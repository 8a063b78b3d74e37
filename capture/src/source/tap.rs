//! The program's end of a tap or tun device: what the system sends into the interface is captured.
//!
//! A read of the device takes one frame out of a queue of the kernel, in which 1,000 wait (500 of a
//! tun device). Frames beyond that are dropped, and counted by the interface. A frame has no time of
//! its own: it gets the time at which it is read.
//!
//! The one invariant: a frame that is read is stored, counted or does not match the filter. While the
//! capture is stopped the device stays open, so that it keeps its addresses and its place in a bridge;
//! frames of that time are dropped at the next start.
//!
//! Who makes the device, and how, is the program's matter. This is a [`SourceOpener`]'s part here.
//!
//! [`SourceOpener`]: super::SourceOpener

use std::fs::File;
use std::io::{self, Read};
use std::os::fd::{AsFd, OwnedFd};
use std::time::{Duration, Instant};

use nix::net::if_::if_nametoindex;
use nix::poll::PollTimeout;
use protocol::linktype::LinkType;

use super::link_counters::LinkCounters;
use super::{Observer, Rest, Source, SourceControl, SourceEnd, SourceError, SourceOptions};
use crate::clock;
use crate::filter::Filter;
use crate::own_transport::OwnPackets;
use crate::ring::{Append, Writer};

/// Bytes of the longest frame that the kernel hands over: an IP packet of 64 KiB after an Ethernet
/// header with two VLAN tags. A frame that is longer than the buffer would be cut without a word.
const FRAME_LEN: usize = (64 << 10) + 14 + 8;

/// Maximum number of frames in a batch: readers see them when it is complete.
const BATCH: usize = 256;

/// The time between two reads of the interface's counters while frames arrive, and the maximum time
/// from the last frame to such a read.
const STATISTICS_INTERVAL: Duration = Duration::from_millis(200);

/// The length of a sleep without frames.
const IDLE: Duration = Duration::from_secs(1);

/// More frames than the queue of a device usually has room for. So many are taken out of it after an
/// order to stop: the system may send faster than they are read.
const QUEUED: usize = 2048;

/// An open tap or tun device.
#[derive(Debug)]
pub struct TapDevice {
    /// The source as it was written, for messages.
    name: String,
    device: File,
    link_type: LinkType,
    filter: Option<Filter>,
    snaplen: usize,
    own: OwnPackets,
    /// `None` if the interface was gone at once.
    counters: Option<LinkCounters>,
    /// The interface's own count of drops at the last read.
    drops: u64,
    counted: Instant,
    /// Whether frames have arrived since the counters were read.
    uncounted: bool,
    buffer: Box<[u8]>,
}

impl TapDevice {
    /// Captures what the system sends into `device`, which does not block and is attached to the
    /// interface of this name. `name` is the source as it was written.
    ///
    /// # Errors
    /// [`SourceError::Filter`] and [`SourceError::System`].
    pub fn new(
        name: String,
        device: OwnedFd,
        (interface, link_type): (&str, LinkType),
        options: &SourceOptions<'_>,
    ) -> Result<Self, SourceError> {
        let filter = match options.filter {
            Some(expression) => Some(Filter::compile(expression, link_type)?),
            None => None,
        };
        let index = if_nametoindex(interface).ok();
        let counters = index
            .map(LinkCounters::open)
            .transpose()
            .map_err(|errno| SourceError::System { name: name.clone(), error: errno.into() })?;
        Ok(Self {
            name,
            device: device.into(),
            link_type,
            filter,
            snaplen: usize::try_from(options.snaplen).unwrap_or(usize::MAX),
            own: OwnPackets::new(),
            counters,
            drops: 0,
            counted: Instant::now(),
            uncounted: true,
            buffer: vec![0; FRAME_LEN].into(),
        })
    }

    /// The next frame's length; `None` if no frame waits.
    fn next_frame(&mut self) -> Result<Option<usize>, SourceError> {
        loop {
            match self.device.read(&mut self.buffer) {
                Ok(len) => return Ok(Some(len)),
                Err(error) => match error.kind() {
                    io::ErrorKind::WouldBlock => return Ok(None),
                    io::ErrorKind::Interrupted => {}
                    _ => return Err(self.lost(&error)),
                },
            }
        }
    }

    fn lost(&self, error: &io::Error) -> SourceError {
        let why = match error.raw_os_error() {
            // What the kernel says of a device that was deleted.
            Some(libc::EBADFD) => "the device is gone".to_owned(),
            _ => error.to_string(),
        };
        SourceError::Lost { name: self.name.clone(), why }
    }

    /// Stores the frames that wait, up to a batch. Returns their number.
    fn batch(&mut self, writer: &mut Writer) -> Result<usize, SourceError> {
        for taken in 0..BATCH {
            let Some(len) = self.next_frame()? else { return Ok(taken) };
            self.store(len, writer);
        }
        Ok(BATCH)
    }

    /// Stores the frame of this length in the buffer.
    fn store(&mut self, len: usize, writer: &mut Writer) {
        let frame = self.buffer.get(..len).unwrap_or_default();
        // No frame is longer than the buffer.
        let original_len = u32::try_from(len).unwrap_or(u32::MAX);
        if self.filter.as_ref().is_some_and(|filter| !filter.matches(original_len, frame)) {
            return;
        }
        let (ring, time) = (writer.ring().number(), clock::now());
        if self.own.has(ring, (self.link_type, original_len), time, frame) {
            writer.add_excluded(1);
            return;
        }
        let data = frame.get(..self.snaplen).unwrap_or(frame);
        // The ring counts oversize packets.
        let (Append::Stored | Append::Oversize) = writer.append(time, original_len, data);
    }

    /// Frames that found the queue full, since the interface was made.
    fn count_drops(&self) -> u64 {
        self.counters.as_ref().and_then(LinkCounters::not_sent).unwrap_or(self.drops)
    }

    /// Adds the losses since the last call to the ring's counters.
    fn account(&mut self, writer: &Writer) {
        self.counted = Instant::now();
        self.uncounted = false;
        self.own.tidy();
        let drops = self.count_drops();
        let lost = drops.saturating_sub(self.drops);
        self.drops = drops;
        if lost > 0 {
            writer.add_loss(0, lost);
        }
    }

    /// Waits for frames, an order, or until the counters are to be read.
    fn wait(&self, control: &SourceControl) {
        let time = if self.uncounted { STATISTICS_INTERVAL } else { IDLE };
        let timeout = PollTimeout::try_from(time).unwrap_or(PollTimeout::MAX);
        control.wait_for(self.device.as_fd(), timeout);
    }
}

impl Source for TapDevice {
    fn link_type(&self) -> Option<LinkType> {
        Some(self.link_type)
    }

    fn rest(&self) -> Rest {
        Rest::Kept
    }

    fn run(
        &mut self,
        writer: &mut Writer,
        control: &SourceControl,
        observer: &mut dyn Observer,
    ) -> Result<SourceEnd, SourceError> {
        // Frames from before the start, and their losses, belong to no capture.
        for _ in 0..QUEUED {
            if self.next_frame()?.is_none() {
                break;
            }
        }
        self.drops = self.count_drops();
        while !control.must_stop() {
            control.clear_if_ordered(|| writer.clear());
            let batch = self.batch(writer);
            writer.publish();
            let is_idle = batch? == 0;
            self.uncounted |= !is_idle;
            if self.counted.elapsed() >= STATISTICS_INTERVAL {
                self.account(writer);
            }
            observer.tick(writer);
            if is_idle {
                self.wait(control);
            }
        }
        for _ in 0..QUEUED / BATCH {
            let batch = self.batch(writer);
            writer.publish();
            if batch? < BATCH {
                break;
            }
        }
        self.account(writer);
        Ok(SourceEnd::Stopped)
    }
}
