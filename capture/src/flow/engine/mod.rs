//! The thread that reads every packet of a store once and puts it into its flow.

mod incoming;
mod leaving;
mod timer;

use std::collections::VecDeque;
use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::sync::mpsc::{Receiver, SyncSender};
use std::thread;
use std::time::{Duration, Instant};

use protocol::decode::{self, DecodeOutcome, Decoder};
use protocol::linktype::LinkType;
use protocol::tcp::{ConnectionEvent, ConnectionSettings, Direction};
use protocol::time::{Precision, Timestamp};

use super::arrival::Arrival;
use super::conversation::{Flow, Tools, Totals};
use super::memory::MemoryBackoff;
use super::meta::Meta;
use super::news::News;
use super::options::FlowOptions;
use super::outside::Outside;
use super::recorder::{RecorderJob, Spent};
use super::shared::SharedFlows;
use super::state::FlowState;
use super::table::{FlowPlace, FlowTable};
use super::window::EngineWindow;
use crate::bell::Bell;
use crate::prefetch;
use crate::record::PacketRecord;
use crate::store::{Bounds, Chunk, PinError, SearchTarget};
use timer::Timers;

/// Packets that are processed before readers of the flows get at the table: a tenth of a
/// millisecond.
const SLICE: usize = 256;

/// Bytes of a record after which the headers of most packets end.
const HEADERS: usize = 80;

/// Longest sleep while flows may time out, so that they do on an idle link.
const NAP: Duration = Duration::from_millis(100);

/// Longest sleep while nothing can time out. The bell rings when a packet comes. A short sleep
/// would wake a hundred captures on idle links a thousand times a second.
const LONG_NAP: Duration = Duration::from_secs(5);

/// How long an ended connection is kept whole, so that its stragglers are not taken for a new
/// connection. It begins at the end of the connection, which itself comes after
/// [`ConnectionSettings::linger`].
const AFTERWARDS: Duration = Duration::from_secs(8);

/// How far packets of several queues may be out of order. If a packet is older by more, the clock
/// was set, or another savefile begins, and time continues from there. Otherwise the flows of the
/// packets after it would time out at once.
const REORDERED: Duration = Duration::from_secs(1);

/// The engine's position in the store.
#[derive(Clone, Copy, Debug)]
struct EnginePosition {
    /// Number of the next packet.
    number: u64,
    /// The packet's chunk, and the bytes and records before it in that chunk; `None` if they must
    /// be found.
    at: Option<(u64, usize, usize)>,
}

/// State that only the engine's thread uses.
pub(super) struct Engine {
    shared: Arc<SharedFlows>,
    jobs: SyncSender<Vec<RecorderJob>>,
    /// Jobs that the recorder has finished with, for the engine to free.
    spent: Receiver<Vec<Spent>>,
    bell: Arc<Bell>,
    options: FlowOptions,
    settings: ConnectionSettings,
    /// Always `Some` between two slices.
    decoder: Option<Decoder>,
    timers: Timers<FlowPlace>,
    /// Flows that the timers have returned, and when; some of them are processed at a time.
    due: VecDeque<(Timestamp, FlowPlace)>,
    /// Flows that have ended, in that order, and the time until which they are kept whole.
    resting: VecDeque<(Timestamp, FlowPlace)>,
    events: Vec<ConnectionEvent>,
    news: Vec<News>,
    totals: Totals,
    /// Jobs for the recorder, sent once the table is released.
    outbox: Vec<RecorderJob>,
    position: EnginePosition,
    /// Time of the newest packet, and when the engine saw it: time continues from there. The second
    /// is `None` before the first packet, because a packet's time may be 0.
    clock: (Timestamp, Option<Instant>),
    /// All flows were closed because the store had ended.
    is_over: bool,
    /// The oldest packet retained.
    oldest: u64,
    /// The progress that was last published.
    reported: (u64, bool),
    /// Number of batches that were sent to the recorder.
    batches: u64,
    /// The limit on the memory of flows while memory is short.
    backoff: MemoryBackoff,
}

impl Engine {
    /// To be called on the thread that the engine will run on, which its bell wakes.
    pub(super) fn new(
        shared: Arc<SharedFlows>,
        jobs: SyncSender<Vec<RecorderJob>>,
        spent: Receiver<Vec<Spent>>,
        options: FlowOptions,
    ) -> Self {
        let thread = thread::current();
        let bell = Bell::new(move || thread.unpark());
        shared.store.bells().hang(Arc::clone(&bell));
        let first = shared.position.load(Ordering::Relaxed);
        let decoding = decode::DecodeOptions {
            tunnels: !options.outer,
            vlans: !options.any_vlan,
            early: true,
            ..decode::DecodeOptions::default()
        };
        Self {
            shared,
            jobs,
            spent,
            bell,
            options,
            settings: ConnectionSettings {
                policy: options.policy,
                urgent: options.urgent,
                ..ConnectionSettings::default()
            },
            decoder: Some(Decoder::new(decoding)),
            timers: Timers::new(),
            due: VecDeque::new(),
            resting: VecDeque::new(),
            events: Vec::new(),
            news: Vec::new(),
            totals: Totals::default(),
            outbox: Vec::new(),
            position: EnginePosition { number: first, at: None },
            clock: (Timestamp::default(), None),
            is_over: false,
            oldest: 0,
            reported: (0, false),
            batches: 0,
            backoff: MemoryBackoff::default(),
        }
    }

    /// Runs until it is stopped, or the recorder is gone.
    pub(super) fn run(mut self) {
        while !self.shared.stop.load(Ordering::Acquire) {
            let bounds = self.shared.store.bounds();
            self.skip_lost(&bounds);
            let is_idle = if self.position.number < bounds.next.number {
                self.is_over = false;
                !self.chunk()
            } else {
                true
            };
            let is_at_end = bounds.ended && self.position.number >= bounds.next.number;
            let mut done = self.expire(bounds.oldest.number, bounds.oldest_chunk);
            if is_idle {
                done = done.and_then(|()| self.pass_time());
                if is_at_end && !self.is_over {
                    done = done.and_then(|()| self.close_all());
                }
            }
            self.publish(is_idle && self.is_over && bounds.ended);
            if done.and_then(|()| self.deliver()).is_err() {
                return;
            }
            if is_idle {
                self.wait();
            }
        }
    }

    /// Sleeps until there are packets, or time has passed.
    fn wait(&self) {
        self.bell.arm();
        let bounds = self.shared.store.bounds();
        let is_new = self.position.number < bounds.next.number || bounds.ended && !self.is_over;
        if !is_new && !self.shared.stop.load(Ordering::Acquire) {
            let is_at_rest = self.timers.is_empty() && self.resting.is_empty();
            thread::park_timeout(if is_at_rest { LONG_NAP } else { NAP });
        }
    }

    /// Skips packets that were overwritten before the engine looked at them, and counts them.
    fn skip_lost(&mut self, bounds: &Bounds) {
        let oldest = bounds.oldest.number;
        if self.position.number < oldest {
            let lost = oldest.saturating_sub(self.position.number);
            self.shared.lost.fetch_add(lost, Ordering::Relaxed);
            self.position = EnginePosition { number: oldest, at: None };
        }
    }

    /// Processes the packets that the next chunk has by now. Returns whether there were any.
    fn chunk(&mut self) -> bool {
        let store = Arc::clone(&self.shared.store);
        let (id, mut offset, mut index) = match self.position.at {
            Some(at) => at,
            None => match store.find(SearchTarget::Number(self.position.number)) {
                Ok(id) => (id, 0, 0),
                Err(_) => return false,
            },
        };
        let chunk = match store.pin(id) {
            Ok(chunk) => chunk,
            Err(PinError::Lapped) => {
                self.position.at = None;
                return true;
            }
            Err(PinError::NotYet | PinError::Failed(_)) => return false,
        };
        let Some(header) = store.header() else { return false };
        let bytes = chunk.bytes();
        if self.position.at.is_none() {
            // Walk from the chunk's beginning to the packet.
            let before = self.position.number.saturating_sub(chunk.first.number);
            for _ in 0..before {
                let len = bytes.get(offset..).and_then(crate::record::len_at);
                // The number is from a header that another process may have changed.
                let Some(len) = len else { break };
                offset = offset.saturating_add(len);
                index = index.saturating_add(1);
            }
            self.shared.locator.write().begin_chunk(id, self.position.number);
        }
        let mut is_any = false;
        loop {
            let (slice, behind) = self.slice(bytes, offset);
            if slice.is_empty() {
                break;
            }
            is_any = true;
            self.process(&chunk, &slice, index, header.precision, header.link_type);
            index = index.saturating_add(slice.len());
            offset = behind;
            if self.shared.stop.load(Ordering::Acquire) || self.outbox.len() >= SLICE {
                break;
            }
        }
        let is_done = chunk.complete && offset >= bytes.len();
        self.position.at =
            if is_done { Some((id.saturating_add(1), 0, 0)) } else { Some((id, offset, index)) };
        if is_done {
            self.shared.locator.write().begin_chunk(id.saturating_add(1), self.position.number);
        }
        is_any || is_done
    }

    /// The next records, and the offset at which they end. From now on they can be located.
    fn slice<'c>(&self, bytes: &'c [u8], offset: usize) -> (Vec<PacketRecord<'c>>, usize) {
        let mut slice = Vec::with_capacity(SLICE);
        let mut at = offset;
        let mut locator = self.shared.locator.write();
        while slice.len() < SLICE
            && let Some(record) = bytes.get(at..).and_then(PacketRecord::parse)
        {
            locator.record(u32::try_from(at).unwrap_or(u32::MAX));
            let len = record.len();
            // The headers of this packet, for later, and the record after the next one, which is
            // assumed to begin where it would if the next one were as long as this one.
            prefetch::for_reading(bytes, at.saturating_add(HEADERS));
            prefetch::for_reading(bytes, at.saturating_add(len).saturating_add(len));
            at = at.saturating_add(len);
            slice.push(record);
        }
        (slice, at)
    }

    /// Puts the packets of a slice into their flows.
    fn process(
        &mut self,
        chunk: &Chunk<'_>,
        slice: &[PacketRecord<'_>],
        first: usize,
        precision: Precision,
        usual: LinkType,
    ) {
        let shared = Arc::clone(&self.shared);
        // Decoded packets borrow from the decoder while the rest of the engine works on them.
        let Some(mut decoder) = self.decoder.take() else { return };
        let mut table = shared.table.write();
        for (index, record) in (first..).zip(slice) {
            let time = record.time(precision);
            let window = EngineWindow {
                store: &*shared.store,
                locator: &shared.locator,
                precision,
                chunk: chunk.id,
                bytes: chunk.bytes(),
                number: self.position.number,
                data: record.data,
                time,
            };
            let interface = if chunk.is_mixed() { chunk.interface(index) } else { None };
            let foreign = interface
                .and_then(|interface| shared.store.interface(interface.id)?.link_type)
                .filter(|foreign| *foreign != usual);
            if time > self.clock.0 || time.plus(REORDERED) < self.clock.0 {
                self.clock.0 = time;
            }
            let link_type = foreign.unwrap_or(usual);
            match decoder.packet(link_type, window.number, time, record.original_len, record.data) {
                DecodeOutcome::Decoded(packet) => {
                    let arrival = Arrival::new(window.number, time, Direction::Forward, record);
                    self.packet(&mut table, &packet, arrival, foreign, &window);
                }
                DecodeOutcome::Fragment => shared.outside.add(Outside::Fragment, 1),
                DecodeOutcome::Undecoded(why) => shared.outside.add(Outside::Undecoded(why), 1),
            }
            if decoder.has_given_up() {
                self.given_up(&mut table, &mut decoder, Some(usual), &window);
            }
            self.position.number = self.position.number.saturating_add(1);
        }
        self.decoder = Some(decoder);
        self.clock.1 = Some(Instant::now());
        let window = shared.window(chunk.id, chunk.bytes());
        self.timers_due(&mut table, self.clock.0, &window);
        self.make_room(&mut table, &window);
        self.forget(&mut table);
    }

    /// Runs `act` on a flow, and handles the news that it causes.
    fn with<T>(
        &mut self,
        table: &mut FlowTable,
        place: FlowPlace,
        window: &EngineWindow<'_>,
        act: impl FnOnce(&mut Flow, &mut Tools<'_>) -> T,
    ) -> Option<T> {
        let Self { settings, events, news, totals, .. } = self;
        let flow = table.get(place)?;
        let mut tools = Tools { settings, window, events, news, totals };
        let result = act(flow, &mut tools);
        let (id, key, ended) = (flow.id, flow.key, flow.ended);
        for news in std::mem::take(&mut self.news) {
            match news {
                News::Finished(finished) => {
                    self.outbox.push(RecorderJob::Finished { id, key, finished });
                }
                News::Closed => {
                    table.deactivate(place);
                    let count = match ended {
                        Some(FlowState::Evicted) => &self.shared.evicted,
                        _ => &self.shared.closed,
                    };
                    count.fetch_add(1, Ordering::Relaxed);
                    let job = match table.get(place) {
                        // Nothing of the flow is decoded, so the recorder need not ask for the
                        // table, which this thread holds most of the time.
                        Some(flow) if !flow.kept.has_transactions() => {
                            flow.is_sealed = true;
                            flow.expire(self.oldest);
                            RecorderJob::Flow(Box::new(Meta::of(flow, &self.shared.capture)))
                        }
                        _ => RecorderJob::Closed { id },
                    };
                    self.outbox.push(job);
                    self.resting.push_back((self.clock.0.plus(AFTERWARDS), place));
                }
            }
        }
        Some(result)
    }

    /// Ends a flow if it has not ended yet. From now on, packets with its key go to another flow.
    fn finish(&mut self, table: &mut FlowTable, place: FlowPlace, window: &EngineWindow<'_>) {
        self.with(table, place, window, |flow, tools| flow.close(false, tools));
        retire(table, place);
    }

    /// Publishes how far the engine is.
    fn publish(&mut self, is_over: bool) {
        let number = self.position.number;
        self.shared.position.store(number, Ordering::Relaxed);
        self.shared.gaps.store(self.totals.gaps, Ordering::Relaxed);
        self.shared.conflicts.store(self.totals.conflicts, Ordering::Relaxed);
        if self.outbox.is_empty() && self.reported == (number, is_over) {
            return;
        }
        self.reported = (number, is_over);
        if self.outbox.is_empty() && self.shared.batches.load(Ordering::Acquire) == self.batches {
            // The recorder has nothing to do: a job would cost more than it reports, for every few
            // packets.
            self.shared.reached(number, is_over);
        } else {
            self.outbox.push(RecorderJob::Reached { number, is_over });
        }
    }

    /// Sends the jobs to the recorder, and waits while its queue is full. An error means that the
    /// recorder is gone, or is about to stop.
    fn deliver(&mut self) -> Result<(), ()> {
        if self.shared.stop.load(Ordering::Acquire) {
            return Err(());
        }
        if self.outbox.is_empty() {
            return Ok(());
        }
        self.spent.try_iter().for_each(drop);
        self.batches = self.batches.saturating_add(1);
        self.jobs.send(std::mem::take(&mut self.outbox)).map_err(drop)
    }
}

/// Releases the memory of a flow that gets no more packets, except what reading it needs.
fn retire(table: &mut FlowTable, place: FlowPlace) {
    table.unkey(place);
    if let Some(flow) = table.get(place) {
        flow.compact();
    }
    table.touched(place);
}
