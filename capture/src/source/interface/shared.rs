//! An interface whose packets several threads take.
//!
//! Each thread has a packet socket, and the kernel hands each packet to one of them
//! ([`FanoutGroup`]). The threads fill one ring together ([`SharedWriter`]). The thread of the capture
//! itself takes no packets: it carries out orders and reports.
//!
//! A socket can join the others only once it receives packets. Until all have joined, some packets
//! would be there twice, and others not at all. So each socket has a filter at first that drops
//! everything, and packets before the last socket got its own filter are left out.

use std::sync::Arc;
use std::thread;

use protocol::linktype::LinkType;
use protocol::time::Timestamp;

use super::{
    EnteredNamespace, InterfaceReader, LONG_IDLE, Live, LiveSink, OpenDevice, OpenSocket,
    PacketSelection, ReceivedPacket, STATISTICS_INTERVAL, ThreadDevices, refused,
};
use crate::clock;
use crate::ring::{Append, RecordLengths, RecordRun, SharedWriter, Writer};
use crate::source::packet_v3::{FanoutGroup, JoinedSocket, PacketBlock};
use crate::source::{
    InterfaceBackend, Observer, Rest, Source, SourceControl, SourceEnd, SourceError, SourceOptions,
};
use crate::store::Store as _;

/// Bytes of stack of a thread that takes packets.
const STACK: usize = 256 << 10;

/// Minimum bytes of kernel buffer of each thread, as for a capture with one thread.
const SMALLEST_BUFFER: u64 = 1 << 20;

/// An open interface with a socket for each thread.
#[derive(Debug)]
pub(in crate::source) struct SharedInterface {
    /// The source, for messages.
    name: String,
    members: Vec<Live>,
    link_type: LinkType,
    /// When the last socket had its filter.
    complete: Timestamp,
}

impl SharedInterface {
    /// Starts receiving with these sockets of one interface, see [`Live::of`].
    pub(super) fn of(
        ThreadDevices { first, others }: ThreadDevices,
        name: &str,
        options: &SourceOptions<'_>,
        namespace: Option<EnteredNamespace>,
    ) -> Result<Self, SourceError> {
        let threads = others.len() as u64 + 1;
        let kernel_buffer = (options.kernel_buffer / threads).max(SMALLEST_BUFFER);
        let is_here = namespace.as_ref().is_none_or(EnteredNamespace::is_own);
        let plan = first.plan(name, options, is_here)?;
        let link_type = first.socket.link_type();
        let mut group = FanoutGroup::new(options.workers.fanout);
        let mut joined: Vec<(JoinedSocket, _)> = Vec::new();
        for OpenDevice { socket, counters, .. } in std::iter::once(first).chain(others) {
            let OpenSocket::PacketV3(socket, _) = socket else {
                let why = "its packets come through libpcap, for one thread".to_owned();
                return Err(SourceError::Device { name: name.to_owned(), why });
            };
            let socket = socket.join(&mut group, options.promiscuous, kernel_buffer);
            joined.push((socket.map_err(|error| refused(name, error))?, counters));
        }
        let mut members = Vec::new();
        let mut namespace = namespace;
        for (socket, counters) in joined {
            let admitted = socket.admit(&plan);
            let (reader, is_coarse) = admitted.map_err(|error| refused(name, error))?;
            let selection =
                PacketSelection::for_plan(&plan, link_type, options.snaplen, (is_coarse, is_here));
            // One of them counts for all what the interface drops, and looks after the namespace.
            let counters = counters.filter(|_| members.is_empty());
            let reader = InterfaceReader::PacketV3(Box::new(reader));
            members.push(Live::new(
                reader,
                name.to_owned(),
                selection,
                (counters, namespace.take()),
            ));
        }
        Ok(Self { name: name.to_owned(), members, link_type, complete: clock::now() })
    }
}

/// The sink of one of the threads.
struct SharedSink<'s, 'w> {
    writer: &'s SharedWriter<'w>,
    /// Packets from before are left out.
    since: Timestamp,
    /// Room for the lengths of the packets of a block that are stored, and for the numbers of the
    /// others, from 1.
    lengths: RecordLengths,
    left_out: Vec<usize>,
}

impl<'s, 'w> SharedSink<'s, 'w> {
    fn new(writer: &'s SharedWriter<'w>, since: Timestamp) -> Self {
        Self { writer, since, lengths: RecordLengths::default(), left_out: Vec::new() }
    }

    /// Looks which packets of a block are stored, and how long they are. Returns the number of
    /// packets, and of those that could not be read.
    fn look(&mut self, block: &PacketBlock<'_>, selection: &mut PacketSelection) -> (usize, u64) {
        let Self { writer, since, lengths, left_out } = self;
        let (ring, longest) = (writer.ring().number(), writer.max_captured_len());
        lengths.clear();
        left_out.clear();
        let (mut taken, mut oversize) = (0, 0);
        let damaged = block.for_each(|packet| {
            taken += 1;
            if packet.time >= *since && selection.takes(ring, packet) {
                let len: usize = selection.kept(packet).iter().map(|part| part.len()).sum();
                match u32::try_from(len) {
                    Ok(len) if u64::from(len) <= longest => return lengths.push(len),
                    _ => oversize += 1,
                }
            }
            left_out.push(taken);
        });
        let excluded = selection.take_excluded();
        if excluded + oversize > 0 {
            writer.with(|writer| {
                writer.add_excluded(excluded);
                writer.add_oversize(oversize);
            });
        }
        (taken, damaged)
    }

    /// Stores the packets of a block that [`look`](Self::look) has chosen.
    fn store(&self, block: &PacketBlock<'_>, selection: &PacketSelection) {
        let mut left_out = self.left_out.iter().copied().peekable();
        let mut number = 0;
        let mut is_chosen = || {
            number += 1;
            left_out.next_if_eq(&number).is_none()
        };
        if self.writer.needs_entries() {
            return self.writer.alone(|writer| {
                block.for_each(|packet| {
                    if is_chosen() {
                        let ReceivedPacket { time, original_len, .. } = packet;
                        let kept = selection.kept(packet);
                        // The ring counts a packet that does not fit a segment with its entry.
                        let (Append::Stored | Append::Oversize) =
                            writer.append_joined(time, original_len, kept);
                    }
                });
                writer.publish();
            });
        }
        let mut from = 0;
        let mut run: Option<RecordRun<'_, '_>> = None;
        block.for_each(|packet| {
            if !is_chosen() {
                return;
            }
            if run.as_ref().is_none_or(|run| run.left() == 0) {
                if let Some(full) = run.take() {
                    full.finish();
                }
                let next = self.writer.reserve(&self.lengths, from);
                from += next.left();
                run = Some(next);
            }
            if let Some(run) = &mut run {
                run.append(packet.time, packet.original_len, selection.kept(packet));
            }
        });
        if let Some(full) = run {
            full.finish();
        }
    }
}

impl LiveSink for SharedSink<'_, '_> {
    fn batch(&mut self, live: &mut Live) -> Result<usize, SourceError> {
        let Live { reader: InterfaceReader::PacketV3(reader), selection, name, .. } = live else {
            return Ok(0);
        };
        let Some(block) = reader.next_block() else {
            let lost = reader.failure().map(|why| SourceError::Lost { name: name.clone(), why });
            return lost.map_or(Ok(0), Err);
        };
        let (taken, damaged) = self.look(&block, selection);
        self.store(&block, selection);
        if damaged > 0 {
            self.add_loss(damaged, 0);
        }
        Ok(taken)
    }

    fn add_loss(&mut self, kernel: u64, interface: u64) {
        self.writer.with(|writer| writer.add_loss(kernel, interface));
    }
}

/// Orders threads to stop when it is dropped, so that none outlives the one that waits for them.
struct StopAll<'a>(&'a [Arc<SourceControl>]);

impl Drop for StopAll<'_> {
    fn drop(&mut self) {
        self.0.iter().for_each(|control| control.stop());
    }
}

impl Source for SharedInterface {
    fn link_type(&self) -> Option<LinkType> {
        Some(self.link_type)
    }

    fn rest(&self) -> Rest {
        Rest::Closed
    }

    fn backend(&self) -> Option<InterfaceBackend> {
        Some(InterfaceBackend::AfPacket)
    }

    fn workers(&self) -> u32 {
        u32::try_from(self.members.len()).unwrap_or(u32::MAX)
    }

    fn run(
        &mut self,
        writer: &mut Writer,
        control: &SourceControl,
        observer: &mut dyn Observer,
    ) -> Result<SourceEnd, SourceError> {
        let Self { members, name, complete, .. } = self;
        let (name, since) = (&*name, *complete);
        let system = |error| SourceError::System { name: name.clone(), error };
        let controls: Result<Vec<_>, _> = members.iter().map(|_| SourceControl::new()).collect();
        let controls = controls.map_err(system)?;
        let shared = SharedWriter::new(writer);
        thread::scope(|scope| {
            let stop_all = StopAll(&controls);
            let mut threads = Vec::new();
            for (live, orders) in members.iter_mut().zip(&controls) {
                let mut sink = SharedSink::new(&shared, since);
                let take = move || {
                    let _wake = WakeAtEnd(control);
                    live.fill(&mut sink, orders, |_| {})
                };
                let builder = thread::Builder::new().name("capture".to_owned()).stack_size(STACK);
                threads.push(builder.spawn_scoped(scope, take).map_err(system)?);
            }
            let has_ended = || threads.iter().any(|thread| thread.is_finished());
            oversee(&shared, control, observer, has_ended);
            drop(stop_all);
            let ends = threads.into_iter().map(|thread| {
                thread.join().unwrap_or_else(|panic| std::panic::resume_unwind(panic))
            });
            // The first error, after the end of all.
            let ends: Vec<_> = ends.collect();
            ends.into_iter().collect::<Result<(), _>>().map(|()| SourceEnd::Stopped)
        })
    }
}

/// Carries out orders and reports, until the source must stop or one of the threads `has_ended`.
fn oversee(
    shared: &SharedWriter<'_>,
    control: &SourceControl,
    observer: &mut dyn Observer,
    has_ended: impl Fn() -> bool,
) {
    let next = || shared.ring().bounds().next.number;
    let (mut last, mut time) = (next(), STATISTICS_INTERVAL);
    while !control.must_stop() && !has_ended() {
        control.clear_if_ordered(|| shared.alone(Writer::clear));
        shared.with(|writer| observer.tick(writer));
        let is_idle = std::mem::replace(&mut last, next()) == last;
        time = if is_idle { (time * 2).min(LONG_IDLE) } else { STATISTICS_INTERVAL };
        control.wait(time);
    }
}

/// Wakes the thread of the capture when it is dropped.
struct WakeAtEnd<'a>(&'a SourceControl);

impl Drop for WakeAtEnd<'_> {
    fn drop(&mut self) {
        self.0.wake();
    }
}
