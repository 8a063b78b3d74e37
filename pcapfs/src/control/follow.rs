//! The answers to a daemon that follows a capture from another machine.
//!
//! An answer holds packets with consecutive numbers, as they are in the store. About once a second
//! the state of the capture is sent too, so that the follower knows the counters, and that this
//! side still lives. The caller's rights are checked again each time.

use std::future::Future;
use std::io::IoSlice;
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll};
use std::time::Duration;

use bytes::{Bytes, BytesMut};
use capture::clock;
use capture::cursor::ReadOutcome;
use capture::cursor::batch::PacketBatch;
use capture::pipeline;
use capture::store::{Interface, Store, StoreIdentity, StorePlace};
use prost::Message;
use protocol::time::Precision;
use tokio::time::{Instant, Sleep, sleep_until};
use tonic::Status;

use super::chunks;
use super::connections::Peer;
use super::messages::{
    Compression, FollowFrom, FollowHeader, FollowInterface, FollowNote, FollowPlace, FollowRequest,
    FollowResponse, FollowState,
};
use super::service::{refused, state_of};
use crate::fs::captures::CaptureEntry;
use crate::fs::open_file::{OpenFile, ReadFailure};
use crate::registry::Registry;

/// Time between two reports of the state. A follower gives up a connection after several of them
/// are missing.
const REPORT: Duration = Duration::from_secs(1);

/// Keys of the fields of bytes that are put after the others: `records` and `compressed`.
const RECORDS: u8 = 6 << 3 | 2;
const COMPRESSED: u8 = 7 << 3 | 2;

/// Level of Zstandard: one core compresses some hundred MB/s.
const LEVEL: i32 = 1;

/// Answers to one follower.
pub(super) struct FollowAnswers {
    registry: Arc<Registry>,
    peer: Arc<Peer>,
    entry: Arc<CaptureEntry>,
    /// The header, until it is sent.
    header: Option<FollowHeader>,
    /// Interfaces sent.
    described: u32,
    compressor: Option<zstd::bulk::Compressor<'static>>,
    /// Bytes of packets in a second; 0 for no limit.
    rate: u64,
    /// When the bytes sent so far are within the rate.
    allowed: Instant,
    waiting: Option<Pin<Box<Sleep>>>,
    report: Pin<Box<Sleep>>,
    /// True once the last report was made.
    has_ended: bool,
}

impl std::fmt::Debug for FollowAnswers {
    fn fmt(&self, formatter: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        formatter.debug_struct("FollowAnswers").field("rate", &self.rate).finish_non_exhaustive()
    }
}

impl FollowAnswers {
    /// Answers to `request` of `peer`, and the number of the first packet for it.
    ///
    /// # Errors
    /// If there is no memory for the compressor.
    pub(super) fn new(
        registry: &Arc<Registry>,
        peer: &Arc<Peer>,
        entry: &Arc<CaptureEntry>,
        request: &FollowRequest,
    ) -> Result<(Self, u64), Status> {
        let store = &**entry.capture.store();
        let (header, first) = beginning(store, request);
        let compressor = match request.compression() {
            Compression::Zstd => {
                let made = zstd::bulk::Compressor::new(LEVEL);
                Some(made.map_err(|error| Status::resource_exhausted(error.to_string()))?)
            }
            Compression::Unspecified => None,
        };
        let answers = Self {
            registry: Arc::clone(registry),
            peer: Arc::clone(peer),
            entry: Arc::clone(entry),
            header: Some(header),
            described: 0,
            compressor,
            rate: request.rate,
            allowed: Instant::now(),
            waiting: None,
            // The first report comes at once.
            report: Box::pin(sleep_until(Instant::now())),
            has_ended: false,
        };
        Ok((answers, first))
    }

    /// A report of the state, if it is time.
    pub(super) fn poll_report(&mut self, context: &mut Context<'_>) -> Poll<Result<Bytes, Status>> {
        std::task::ready!(self.report.as_mut().poll(context));
        self.report.as_mut().reset(Instant::now() + REPORT);
        // The timer is polled again with the next answer.
        Poll::Ready(self.report())
    }

    /// The last report, before the stream ends; `None` if it was made.
    pub(super) fn last_report(&mut self) -> Option<Result<Bytes, Status>> {
        if std::mem::replace(&mut self.has_ended, true) { None } else { Some(self.report()) }
    }

    /// The state of the capture, as a message.
    ///
    /// # Errors
    /// If the caller has lost the right to read the capture, or the capture is no longer there.
    fn report(&mut self) -> Result<Bytes, Status> {
        let readable = self.registry.readable(&self.peer.caller, self.entry.alias());
        if readable.map_err(refused)?.id != self.entry.id {
            let alias = self.entry.alias();
            return Err(Status::aborted(format!("{alias}: another capture has this name now")));
        }
        let entry = Arc::clone(&self.entry);
        let capture = &entry.capture;
        let condition = capture.condition();
        let (packets, _) = pipeline::counters(&**capture.store());
        let state = FollowState {
            state: state_of(condition.state).into(),
            error: condition.error.unwrap_or_default(),
            seen: packets.seen,
            stored: packets.stored,
            dropped_kernel: packets.dropped_kernel,
            dropped_interface: packets.dropped_interface,
            dropped_oversize: packets.dropped_oversize,
            lost_remote: packets.lost_remote,
            retained: packets.retained,
            overwritten: packets.overwritten,
            excluded: packets.excluded,
            time: clock::now().nanoseconds(),
        };
        let mut answer = FollowResponse { state: Some(state), ..FollowResponse::default() };
        self.begin(&**capture.store(), 1, &mut answer);
        Ok(chunks::framed(encoded(&answer), RECORDS, &[]))
    }

    /// Waits until more packets may be sent.
    pub(super) fn poll_rate(&mut self, context: &mut Context<'_>) -> Poll<()> {
        if self.rate == 0 || self.allowed <= Instant::now() {
            self.waiting = None;
            return Poll::Ready(());
        }
        let allowed = self.allowed;
        let waiting = self.waiting.get_or_insert_with(|| Box::pin(sleep_until(allowed)));
        std::task::ready!(waiting.as_mut().poll(context));
        self.waiting = None;
        Poll::Ready(())
    }

    /// The next packets, at most `size` bytes of records, or one record.
    ///
    /// # Errors
    /// The reason why nothing could be read.
    pub(super) fn read(
        &mut self,
        file: &OpenFile,
        size: usize,
    ) -> Result<(ReadOutcome, Bytes), ReadFailure> {
        let mut message = Bytes::new();
        let outcome = file.read_batch(size, &mut |batch| {
            message = self.message(batch)?;
            Ok(())
        })?;
        if let (ReadOutcome::Sent(bytes), true) = (outcome, self.rate > 0) {
            let nanoseconds = (bytes as u64).saturating_mul(1_000_000_000) / self.rate;
            self.allowed = self.allowed.max(Instant::now()) + Duration::from_nanos(nanoseconds);
        }
        Ok((outcome, message))
    }

    /// A batch as a message.
    fn message(&mut self, batch: &PacketBatch<'_>) -> std::io::Result<Bytes> {
        let mut answer = FollowResponse { first: batch.first, ..FollowResponse::default() };
        let mut known = 1;
        for (index, interface, note) in batch.beside() {
            known = known.max(interface.known);
            answer.notes.push(FollowNote {
                index: u32::try_from(index).unwrap_or(u32::MAX),
                interface: interface.id,
                blocks: note.blocks.to_vec(),
                options: note.options.to_vec(),
            });
        }
        let entry = Arc::clone(&self.entry);
        let store = &**entry.capture.store();
        self.begin(store, known.max(store.interfaces_before(batch.first)), &mut answer);
        let Some(compressor) = &mut self.compressor else {
            return Ok(chunks::framed(encoded(&answer), RECORDS, &[IoSlice::new(batch.records)]));
        };
        let compressed = compressor.compress(batch.records)?;
        answer.size = u32::try_from(batch.records.len()).unwrap_or(u32::MAX);
        Ok(chunks::framed(encoded(&answer), COMPRESSED, &[IoSlice::new(&compressed)]))
    }

    /// Adds the header and the interfaces up to `known` that have not been sent, once the store
    /// knows its link type.
    fn begin(&mut self, store: &dyn Store, known: u32, answer: &mut FollowResponse) {
        let Some(header) = store.header() else { return };
        if let Some(mut waiting) = self.header.take() {
            waiting.link_type = u32::from(header.link_type.0);
            waiting.precision = match header.precision {
                Precision::Micro => 6,
                Precision::Nano => 9,
            };
            waiting.snaplen = header.snaplen;
            waiting.section = store.section_options().to_vec();
            answer.header = Some(waiting);
        }
        while self.described < known
            && let Some(interface) = store.interface(self.described)
        {
            answer.interfaces.push(described(interface));
            self.described = self.described.saturating_add(1);
        }
    }
}

/// The header for a follower, as far as it is known yet, and the number of its first packet.
fn beginning(store: &dyn Store, request: &FollowRequest) -> (FollowHeader, u64) {
    let bounds = store.bounds();
    let place = request.place.map(|place| StorePlace {
        identity: StoreIdentity { store: place.ring, epoch: place.epoch },
        next: place.next,
    });
    let continued = place.and_then(|place| store.continued(place));
    let first = match (place, continued) {
        (_, Some(next)) => next.min(bounds.next.number),
        // A follower of another ring wants all of this one.
        (Some(_), None) => 1,
        (None, None) if request.from() == FollowFrom::Now => bounds.next.number,
        (None, None) => bounds.oldest.number,
    };
    let identity = store.identity();
    let header = FollowHeader {
        place: Some(FollowPlace { ring: identity.store, epoch: identity.epoch, next: first }),
        continued: continued.is_some(),
        big_endian: cfg!(target_endian = "big"),
        version: env!("CARGO_PKG_VERSION").to_owned(),
        ..FollowHeader::default()
    };
    (header, first)
}

fn described(interface: Interface) -> FollowInterface {
    FollowInterface {
        name: interface.name.unwrap_or_default(),
        description: interface.description.unwrap_or_default(),
        filter: interface.filter.unwrap_or_default(),
        snaplen: interface.snaplen,
        link_type: interface.link_type.map(|link_type| u32::from(link_type.0)),
    }
}

fn encoded(answer: &FollowResponse) -> BytesMut {
    let mut fields = BytesMut::with_capacity(answer.encoded_len() + 16);
    // It fails only for lack of room in a fixed buffer.
    let _ = answer.encode(&mut fields);
    fields
}
