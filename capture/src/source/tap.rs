//! The program's end of a tap or tun device: what the system sends into the interface is captured,
//! and frames that are [injected](Injection) are written into the device, as if the interface had
//! received them.
//!
//! A read of the device takes one frame out of a queue of the kernel, in which 1,000 wait (500 of a
//! tun device). Frames beyond that are dropped, and counted by the interface. A frame has no time of
//! its own: it gets the time at which it is read.
//!
//! An injected frame is stored before anything that the system sends in answer, and marked outbound.
//!
//! The one invariant: a frame that is read is stored, counted or does not match the filter. While the
//! capture is stopped the device stays open, so that it keeps its addresses and its place in a bridge;
//! frames of that time are dropped at the next start.
//!
//! A [`SourceOpener`] of the program finds or makes the device, and hands it over.
//!
//! [`SourceOpener`]: super::SourceOpener

use std::fs::File;
use std::io::{self, Read, Write};
use std::os::fd::{AsFd, OwnedFd};
use std::sync::Arc;
use std::time::Instant;

use nix::net::if_::if_nametoindex;
use protocol::linktype::LinkType;
use protocol::time::Timestamp;

use super::interface::{IDLE, PacketSelection, ReceivedPacket, STATISTICS_INTERVAL};
use super::link_counters::LinkCounters;
use super::{Observer, Rest, Source, SourceControl, SourceEnd, SourceError, SourceOptions};
use crate::clock;
use crate::filter::Filter;
use crate::injection::{Injection, NextFrame};
use crate::own_transport::OwnPackets;
use crate::ring::Writer;
use crate::store::{NoteRef, Store as _};

/// Bytes of the longest frame that the kernel hands over: an IP packet of 64 KiB after an Ethernet
/// header with two VLAN tags. A frame that is longer than the buffer would be cut without a word.
const FRAME_LEN: usize = (64 << 10) + 14 + 8;

/// Maximum number of frames in a batch: readers see them when it is complete.
const BATCH: usize = 256;

/// More frames than the queue of a device usually has room for. So many are taken out of it after an
/// order to stop: the system may send faster than they are read.
const QUEUED: usize = 2048;

/// Maximum number of frames that are injected between two batches.
const INJECTED: usize = 64;

/// The option `epb_flags` of a pcapng packet, in this machine's byte order: code 2, four bytes, of
/// which the lowest two bits are 2 for an outbound packet (draft-ietf-opsawg-pcapng, section 4.3.1).
const OUTBOUND: [u8; 8] = {
    let ([c0, c1], [l0, l1]) = (2u16.to_ne_bytes(), 4u16.to_ne_bytes());
    let [f0, f1, f2, f3] = 2u32.to_ne_bytes();
    [c0, c1, l0, l1, f0, f1, f2, f3]
};

/// The link types of the frames that a tap device takes, and those of a tun device.
const FRAMES: &[LinkType] = &[LinkType::ETHERNET];
const PACKETS: &[LinkType] = &[LinkType::RAW, LinkType(228), LinkType(229)];

/// An open tap or tun device.
#[derive(Debug)]
pub struct TapDevice {
    /// The source as it was written, for messages.
    name: String,
    device: File,
    link_type: LinkType,
    selection: PacketSelection,
    /// `None` if no frames can be injected.
    injection: Option<Arc<Injection>>,
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
        if let Some(injection) = options.injection {
            injection.begin(if link_type == LinkType::ETHERNET { FRAMES } else { PACKETS });
        }
        Ok(Self {
            name,
            device: device.into(),
            link_type,
            selection: PacketSelection::new(
                link_type,
                options.snaplen,
                filter,
                Some(OwnPackets::new()),
            ),
            injection: options.injection.cloned(),
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
        self.selection.store(writer, received(clock::now(), frame));
    }

    /// Hands frames that are due to the kernel, and stores those that it takes. Returns when the
    /// next one is due, if one waits.
    fn inject(&mut self, writer: &mut Writer) -> Result<Option<Instant>, SourceError> {
        let Some(injection) = self.injection.clone() else { return Ok(None) };
        let (mut has_room, mut lost) = (false, None);
        let mut next = Some(Instant::now());
        for _ in 0..INJECTED {
            let frame = match injection.next(Instant::now()) {
                NextFrame::Due { frame, has_room: again } => {
                    has_room |= again;
                    frame
                }
                NextFrame::At(due) => {
                    next = Some(due);
                    break;
                }
                NextFrame::None => {
                    next = None;
                    break;
                }
            };
            // The system may answer before the call returns.
            let time = clock::now();
            let result = match self.device.write(&frame) {
                Ok(_) => Ok(()),
                Err(error) => {
                    if error.raw_os_error() == Some(libc::EBADFD) {
                        lost = Some(self.lost(&error));
                    }
                    Err(format!("a frame of {} bytes was refused: {error}", frame.len()))
                }
            };
            if result.is_ok() {
                let note = NoteRef { blocks: &[], options: &OUTBOUND };
                self.selection.store_noted(writer, received(time, &frame), note);
            }
            injection.done(frame.len(), result);
            if lost.is_some() {
                break;
            }
        }
        self.selection.publish(writer);
        if has_room {
            // Writers wait where readers wait.
            writer.ring().bells().strike();
        }
        lost.map_or(Ok(next), Err)
    }

    /// Frames that found the queue full, since the interface was made.
    fn count_drops(&self) -> u64 {
        self.counters.as_ref().and_then(LinkCounters::not_sent).unwrap_or(self.drops)
    }

    /// Adds the losses since the last call to the ring's counters.
    fn account(&mut self, writer: &Writer) {
        self.counted = Instant::now();
        self.uncounted = false;
        self.selection.tidy();
        let drops = self.count_drops();
        let lost = drops.saturating_sub(self.drops);
        self.drops = drops;
        if lost > 0 {
            writer.add_loss(0, lost);
        }
    }

    /// Waits for frames of either direction, an order, or until the counters are to be read or the
    /// `next` frame is due.
    fn wait(&self, control: &SourceControl, next: Option<Instant>) {
        let time = if self.uncounted { STATISTICS_INTERVAL } else { IDLE };
        let next = next.map(|next| next.saturating_duration_since(Instant::now()));
        let time = next.map_or(time, |next| next.min(time));
        let Some(injection) = &self.injection else {
            control.wait_for_any(&[self.device.as_fd()], time);
            return;
        };
        control.wait_for_any(&[self.device.as_fd(), injection.wake_fd()], time);
        injection.acknowledge();
    }

    fn capture(
        &mut self,
        writer: &mut Writer,
        control: &SourceControl,
        observer: &mut dyn Observer,
    ) -> Result<(), SourceError> {
        while !control.must_stop() {
            control.clear_if_ordered(|| writer.clear());
            let batch = self.batch(writer);
            self.selection.publish(writer);
            let is_idle = batch? == 0;
            let next = self.inject(writer)?;
            self.uncounted |= !is_idle;
            if self.counted.elapsed() >= STATISTICS_INTERVAL {
                self.account(writer);
            }
            observer.tick(writer);
            if is_idle {
                self.wait(control, next);
            }
        }
        for _ in 0..QUEUED / BATCH {
            let batch = self.batch(writer);
            self.selection.publish(writer);
            if batch? < BATCH {
                break;
            }
        }
        Ok(())
    }
}

impl Drop for TapDevice {
    fn drop(&mut self) {
        if let Some(injection) = &self.injection {
            injection.end();
        }
    }
}

/// A frame that has all its bytes.
fn received(time: Timestamp, frame: &[u8]) -> ReceivedPacket<'_> {
    // No frame is longer than the buffer, and no injected one than the maximum snaplen.
    let original_len = u32::try_from(frame.len()).unwrap_or(u32::MAX);
    ReceivedPacket { time, original_len, is_cut: false, front: &[], data: frame }
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
        let captured = self.capture(writer, control, observer);
        if let Some(injection) = &self.injection {
            injection.end();
            // Programs whose writes wait get an error.
            writer.ring().bells().strike();
        }
        captured?;
        self.account(writer);
        Ok(SourceEnd::Stopped)
    }
}
