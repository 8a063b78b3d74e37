//! The thread that reads every packet of a store once and puts it into its flow.

use std::collections::VecDeque;
use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::sync::mpsc::SyncSender;
use std::thread;
use std::time::{Duration, Instant};

use super::key::{Key, Network, Protocol};
use super::meta::{Meta, State};
use super::one::{Arrival, Flow, News, Tools, Totals};
use super::recorder::Job;
use super::table::{Place, Table};
use super::timer::Timers;
use super::window::Window;
use super::{Options, Shared};
use crate::bell::Bell;
use crate::decode::{self, Decoded, Decoder, Outcome, Tcp, TcpFlags, Transport};
use crate::extent::Extent;
use crate::linktype::LinkType;
use crate::record::Record;
use crate::store::{Bounds, Chunk, PinError, Target};
use crate::tcp::seq::Sequence;
use crate::tcp::{Event, Flags, Segment, Settings, Verdict, after};
use crate::time::{Precision, Timestamp};

/// Packets that are processed without letting readers of the flows in between: a tenth of a
/// millisecond.
const SLICE: usize = 256;

/// Longest sleep, so that flows time out on an idle link.
const NAP: Duration = Duration::from_millis(100);

/// Longest sleep while there is nothing that could time out. The bell rings when there is; this is
/// for a hundred captures on idle links, which would wake a thousand times a second.
const LONG_NAP: Duration = Duration::from_secs(5);

/// How long a connection that ended is kept whole, so that what straggles in is not taken for a
/// new one: after the end, which itself comes after [`Settings::linger`].
const AFTERWARDS: Duration = Duration::from_secs(8);

/// Packets of a flow after which it gives up memory for what the store has dropped.
const EXPIRE_EVERY: usize = 64;

/// Ended flows that are made small at a time when memory is short.
const RELIEF: usize = 4 * SLICE;

/// Where the engine is.
#[derive(Clone, Copy, Debug)]
struct Position {
    /// The next packet.
    number: u64,
    /// Its chunk, and bytes and records before it there; `None` if that has to be found.
    at: Option<(u64, usize, usize)>,
}

/// Everything only the thread uses.
pub(super) struct Engine {
    shared: Arc<Shared>,
    jobs: SyncSender<Vec<Job>>,
    bell: Arc<Bell>,
    options: Options,
    settings: Settings,
    /// Always there between two slices.
    decoder: Option<Decoder>,
    timers: Timers<Place>,
    /// Flows that have ended, in that order, and until when they are kept whole.
    resting: VecDeque<(Timestamp, Place)>,
    events: Vec<Event>,
    news: Vec<News>,
    totals: Totals,
    /// For the recorder, once the table is let go of.
    outbox: Vec<Job>,
    position: Position,
    /// Time of the newest packet, and when it was looked at: time goes on from there.
    clock: (Timestamp, Instant),
    /// All flows were closed since the store had ended.
    is_over: bool,
    /// The oldest packet retained.
    oldest: u64,
    /// What the recorder was told last.
    told: (u64, bool),
}

impl Engine {
    /// To be called on the thread it will run on, which its bell wakes.
    pub(super) fn new(shared: Arc<Shared>, jobs: SyncSender<Vec<Job>>, options: Options) -> Self {
        let thread = thread::current();
        let bell = Bell::new(move || thread.unpark());
        shared.store.bells().hang(Arc::clone(&bell));
        let decoding = decode::Options { tunnels: !options.outer, ..decode::Options::default() };
        Self {
            shared,
            jobs,
            bell,
            options,
            settings: Settings { policy: options.policy, ..Settings::default() },
            decoder: Some(Decoder::new(decoding)),
            timers: Timers::new(),
            resting: VecDeque::new(),
            events: Vec::new(),
            news: Vec::new(),
            totals: Totals::default(),
            outbox: Vec::new(),
            position: Position { number: 1, at: None },
            clock: (Timestamp::default(), Instant::now()),
            is_over: false,
            oldest: 0,
            told: (0, false),
        }
    }

    /// Runs until it is told to stop, or the recorder is gone.
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
            self.expire(bounds.oldest.number, bounds.oldest_chunk);
            if is_idle {
                self.pass_time();
                if bounds.ended && self.position.number >= bounds.next.number && !self.is_over {
                    self.close_all();
                }
            }
            self.publish(is_idle && self.is_over && bounds.ended);
            if self.deliver().is_err() {
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

    /// Packets that were overwritten before they were looked at.
    fn skip_lost(&mut self, bounds: &Bounds) {
        let oldest = bounds.oldest.number;
        if self.position.number < oldest {
            let lost = oldest.saturating_sub(self.position.number);
            self.shared.lost.fetch_add(lost, Ordering::Relaxed);
            self.position = Position { number: oldest, at: None };
        }
    }

    /// Processes what there is of the next chunk. Whether there was anything.
    fn chunk(&mut self) -> bool {
        let store = Arc::clone(&self.shared.store);
        let (id, mut offset, mut index) = match self.position.at {
            Some(at) => at,
            None => match store.find(Target::Number(self.position.number)) {
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
            // From its beginning to the packet.
            let before = self.position.number.saturating_sub(chunk.first.number);
            for _ in 0..before {
                let len = bytes.get(offset..).and_then(crate::record::len_at);
                offset = offset.saturating_add(len.unwrap_or(0));
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

    /// The next records, which can be located from now on, and where they end.
    fn slice<'c>(&self, bytes: &'c [u8], offset: usize) -> (Vec<Record<'c>>, usize) {
        let mut slice = Vec::with_capacity(SLICE);
        let mut at = offset;
        let mut locator = self.shared.locator.write();
        while slice.len() < SLICE
            && let Some(record) = bytes.get(at..).and_then(Record::parse)
        {
            locator.record(u32::try_from(at).unwrap_or(u32::MAX));
            at = at.saturating_add(record.len());
            slice.push(record);
        }
        (slice, at)
    }

    /// Puts the packets of a slice into their flows.
    fn process(
        &mut self,
        chunk: &Chunk<'_>,
        slice: &[Record<'_>],
        first: usize,
        precision: Precision,
        link_type: LinkType,
    ) {
        let shared = Arc::clone(&self.shared);
        // What it finds borrows from it, and the rest of the engine works on that.
        let Some(mut decoder) = self.decoder.take() else { return };
        let mut table = shared.table.write();
        for (index, record) in (first..).zip(slice) {
            let time = record.time(precision);
            let window = Window {
                store: &*shared.store,
                locator: &shared.locator,
                precision,
                chunk: chunk.id,
                bytes: chunk.bytes(),
                number: self.position.number,
                data: record.data,
                time,
            };
            let foreign = chunk
                .interface(index)
                .and_then(|interface| shared.store.interface(interface.id)?.link_type)
                .filter(|foreign| *foreign != link_type);
            if time > self.clock.0 {
                self.clock = (time, self.clock.1);
            }
            let link_type = foreign.unwrap_or(link_type);
            match decoder.packet(link_type, window.number, time, record.original_len, record.data) {
                Outcome::Decoded(packet) => {
                    self.packet(&mut table, &packet, record, foreign, &window);
                }
                Outcome::Fragment => {}
                Outcome::Undecoded(_) => {
                    shared.undecodable.fetch_add(1, Ordering::Relaxed);
                }
            }
            self.position.number = self.position.number.saturating_add(1);
        }
        self.decoder = Some(decoder);
        self.clock.1 = Instant::now();
        let window = Window::between(&shared, precision, chunk.id, chunk.bytes());
        self.timers_due(&mut table, self.clock.0, &window);
        self.make_room(&mut table, &window);
    }

    /// An IP packet.
    fn packet(
        &mut self,
        table: &mut Table,
        packet: &Decoded<'_>,
        record: &Record<'_>,
        foreign: Option<LinkType>,
        window: &Window<'_>,
    ) {
        let (protocol, ports) = match packet.transport {
            Transport::Tcp(tcp) => (Protocol::Tcp, (tcp.source_port, tcp.destination_port)),
            Transport::Udp { source_port, destination_port } => {
                (Protocol::Udp, (source_port, destination_port))
            }
            Transport::Other => return,
        };
        let tag = Network::tag(packet, table.hasher());
        let (key, direction) = Key::new(packet, protocol, ports, tag);
        let arrival = Arrival {
            number: window.number,
            time: window.time,
            direction,
            wire_len: record.original_len,
            record_len: u32::try_from(record.len()).unwrap_or(u32::MAX),
        };
        let incoming = Incoming { packet, arrival, key, foreign };
        let mut extents = Extents::default();
        extents.gather(packet);
        if let Transport::Tcp(tcp) = &packet.transport {
            let segment = segment(tcp, &arrival, extents.as_slice(), packet.payload.len());
            self.segment(table, &incoming, &segment, window);
        } else {
            self.datagram(table, &incoming, extents.as_slice(), window);
        }
    }

    fn segment(
        &mut self,
        table: &mut Table,
        incoming: &Incoming<'_>,
        segment: &Segment<'_>,
        window: &Window<'_>,
    ) {
        let mut found = table.by_key(&incoming.key);
        for _ in 0..2 {
            let is_new = found.is_none();
            let place = found.unwrap_or_else(|| begin(table, incoming));
            let verdict =
                self.with(table, place, window, |flow, tools| flow.segment(segment, tools));
            match verdict {
                Some(Verdict::Taken) => {
                    if is_new && let Some(flow) = table.get(place) {
                        flow.keep_little(segment);
                    }
                    self.joined(table, place, incoming, window, is_new);
                    return;
                }
                Some(Verdict::NewConnection) => {
                    self.finish(table, place, window);
                    found = None;
                }
                Some(Verdict::Late) | None => {
                    self.shared.late.fetch_add(1, Ordering::Relaxed);
                    return;
                }
            }
        }
    }

    fn datagram(
        &mut self,
        table: &mut Table,
        incoming: &Incoming<'_>,
        extents: &[Extent],
        window: &Window<'_>,
    ) {
        let mut found = table.by_key(&incoming.key);
        if let Some(place) = found
            && table.get(place).is_some_and(|flow| {
                flow.ended.is_some() || flow.deadline(&self.settings) <= incoming.arrival.time
            })
        {
            self.with(table, place, window, |flow, tools| flow.poll(incoming.arrival.time, tools));
            self.finish(table, place, window);
            found = None;
        }
        let place = found.unwrap_or_else(|| begin(table, incoming));
        if let Some(flow) = table.get(place) {
            flow.datagram(&incoming.arrival, extents, incoming.packet.payload.len());
        }
        self.joined(table, place, incoming, window, found.is_none());
    }

    /// A packet was put into a flow.
    fn joined(
        &mut self,
        table: &mut Table,
        place: Place,
        incoming: &Incoming<'_>,
        window: &Window<'_>,
        is_new: bool,
    ) {
        let Incoming { packet, arrival, .. } = incoming;
        let Some(flow) = table.get(place) else { return };
        flow.count(arrival);
        for part in packet.payload.parts() {
            // The other fragments of a datagram, as far as they are behind the newest packet: what
            // is in `packets.pcap` stays where it is.
            let number = part.extent.packet;
            if number < arrival.number
                && let Some(len) = window.record_len(number)
            {
                flow.packets.push(number, len);
            }
        }
        flow.packets.push(arrival.number, arrival.record_len);
        if is_new {
            self.shared.opened.fetch_add(1, Ordering::Relaxed);
            self.outbox.push(Job::Opened(Box::new(Meta::of(flow))));
        }
        if flow.packets.len().is_multiple_of(EXPIRE_EVERY) {
            flow.expire(self.oldest);
        }
        let deadline = flow.deadline(&self.settings);
        self.schedule(table, place, deadline);
        table.heard(place);
        table.touched(place);
    }

    /// Has the timer look at a flow then, or before.
    fn schedule(&mut self, table: &mut Table, place: Place, at: Timestamp) {
        if let Some(scheduled) = table.scheduled(place)
            && at.nanoseconds() < *scheduled
        {
            *scheduled = at.nanoseconds();
            self.timers.schedule(at, place);
        }
    }

    /// Does something to a flow, and takes up what it tells.
    fn with<T>(
        &mut self,
        table: &mut Table,
        place: Place,
        window: &Window<'_>,
        act: impl FnOnce(&mut Flow, &mut Tools<'_>) -> T,
    ) -> Option<T> {
        let Self { settings, events, news, totals, .. } = self;
        let flow = table.get(place)?;
        let mut tools = Tools { settings, window, events, news, totals };
        let result = act(flow, &mut tools);
        let (id, ended) = (flow.id, flow.ended);
        for news in std::mem::take(&mut self.news) {
            match news {
                News::Transaction(transaction, request) => {
                    self.outbox.push(Job::Transaction { id, request, transaction });
                }
                News::Closed => {
                    table.deactivate(place);
                    let count = match ended {
                        Some(State::Evicted) => &self.shared.evicted,
                        _ => &self.shared.closed,
                    };
                    count.fetch_add(1, Ordering::Relaxed);
                    self.outbox.push(Job::Closed { id });
                    self.resting.push_back((after(self.clock.0, AFTERWARDS), place));
                }
            }
        }
        Some(result)
    }

    /// Packets with its key go to another flow from now on; ends it if it has not.
    fn finish(&mut self, table: &mut Table, place: Place, window: &Window<'_>) {
        self.with(table, place, window, |flow, tools| flow.close(false, tools));
        retire(table, place);
    }

    /// Flows whose time has come.
    fn timers_due(&mut self, table: &mut Table, now: Timestamp, window: &Window<'_>) {
        for place in self.timers.due(now) {
            match table.scheduled(place) {
                Some(scheduled) => *scheduled = u64::MAX,
                // Gone since.
                None => continue,
            }
            self.with(table, place, window, |flow, tools| flow.poll(now, tools));
            if let Some(flow) = table.get(place)
                && flow.ended.is_none()
            {
                let deadline = flow.deadline(&self.settings);
                self.schedule(table, place, deadline);
            }
            table.touched(place);
        }
        self.rest(table, |at| at <= now);
    }

    /// Flows that have ended long enough ago give back what it does not take to read them.
    fn rest(&mut self, table: &mut Table, mut is_enough: impl FnMut(Timestamp) -> bool) {
        while let Some((at, place)) = self.resting.front().copied()
            && is_enough(at)
        {
            self.resting.pop_front();
            retire(table, place);
        }
    }

    /// Keeps within the bounds: the flows of which nothing was heard for longest go first.
    fn make_room(&mut self, table: &mut Table, window: &Window<'_>) {
        let limits = self.options.limits;
        while table.active() > limits.open
            && let Some(place) = table.oldest_active()
        {
            self.with(table, place, window, |flow, tools| flow.close(true, tools));
            retire(table, place);
        }
        let others = self.shared.memory_beside_flows();
        let most = limits.memory.saturating_sub(others);
        // Before anything leaves, what is only kept for stragglers goes.
        if table.memory() > most {
            let mut left = RELIEF;
            self.rest(table, |_| {
                left = left.saturating_sub(1);
                left > 0
            });
        }
        while (table.len() > limits.flows || table.memory() > most)
            && let Some(place) = table.oldest()
        {
            self.shared.dropped.fetch_add(1, Ordering::Relaxed);
            self.doom(table, place, window);
        }
    }

    /// Has a flow leave the tree once all that was to be told of it is told.
    fn doom(&mut self, table: &mut Table, place: Place, window: &Window<'_>) {
        self.with(table, place, window, |flow, tools| flow.close(true, tools));
        if let Some(id) = table.doom(place) {
            self.outbox.push(Job::Gone { id });
        }
    }

    /// Flows leave with their last packet.
    fn expire(&mut self, oldest: u64, oldest_chunk: u64) {
        if oldest <= self.oldest {
            return;
        }
        self.oldest = oldest;
        let shared = Arc::clone(&self.shared);
        shared.oldest.store(oldest, Ordering::Relaxed);
        shared.locator.write().expire(oldest_chunk);
        let window = Window::between(&shared, Precision::Nano, u64::MAX, &[]);
        let mut table = shared.table.write();
        while let Some(place) = table.oldest()
            && table
                .get(place)
                .is_some_and(|flow| flow.packets.last().is_none_or(|last| last < oldest))
        {
            self.doom(&mut table, place, &window);
        }
    }

    /// Time passes without packets.
    fn pass_time(&mut self) {
        let (newest, seen) = self.clock;
        if newest == Timestamp::default() || self.is_over {
            return;
        }
        let shared = Arc::clone(&self.shared);
        let window = Window::between(&shared, Precision::Nano, u64::MAX, &[]);
        let mut table = shared.table.write();
        self.timers_due(&mut table, after(newest, seen.elapsed()), &window);
    }

    /// The capture has ended, and with it all that is under way.
    fn close_all(&mut self) {
        let shared = Arc::clone(&self.shared);
        let precision = shared.store.header().map_or(Precision::Nano, |header| header.precision);
        let window = Window::between(&shared, precision, u64::MAX, &[]);
        loop {
            let mut table = shared.table.write();
            for _ in 0..SLICE {
                let Some(place) = table.oldest_active() else {
                    self.rest(&mut table, |_| true);
                    self.is_over = true;
                    return;
                };
                self.finish(&mut table, place, &window);
            }
            drop(table);
            if self.deliver().is_err() {
                return;
            }
        }
    }

    /// Says how far it is.
    fn publish(&mut self, is_over: bool) {
        let number = self.position.number;
        self.shared.position.store(number, Ordering::Relaxed);
        self.shared.gaps.store(self.totals.gaps, Ordering::Relaxed);
        self.shared.conflicts.store(self.totals.conflicts, Ordering::Relaxed);
        if !self.outbox.is_empty() || self.told != (number, is_over) {
            self.told = (number, is_over);
            self.outbox.push(Job::Reached { number, is_over });
        }
    }

    /// Hands over to the recorder, and waits for it if it is behind; an error if it is gone.
    fn deliver(&mut self) -> Result<(), ()> {
        if self.outbox.is_empty() {
            return Ok(());
        }
        self.jobs.send(std::mem::take(&mut self.outbox)).map_err(drop)
    }
}

/// A packet of a flow.
struct Incoming<'a> {
    packet: &'a Decoded<'a>,
    arrival: Arrival,
    key: Key,
    /// Its link type, if it is not the usual one.
    foreign: Option<LinkType>,
}

/// A flow that begins with this packet.
fn begin(table: &mut Table, incoming: &Incoming<'_>) -> Place {
    let id = table.take_id();
    let network = Network::of(incoming.packet, incoming.foreign);
    table.insert(Flow::new(id, incoming.key, network, &incoming.arrival))
}

/// Nothing more goes to a flow: it gives back what it does not need to be read.
fn retire(table: &mut Table, place: Place) {
    table.unkey(place);
    if let Some(flow) = table.get(place) {
        flow.compact();
    }
    table.touched(place);
}

/// Where the payload of a packet was captured: nearly always in one place.
#[derive(Default)]
struct Extents {
    first: [Extent; 1],
    rest: Vec<Extent>,
    len: usize,
}

impl Extents {
    /// The payload up to the first byte of it that was not captured.
    fn gather(&mut self, packet: &Decoded<'_>) {
        let mut end = 0_u32;
        for part in packet.payload.parts() {
            if part.at != end {
                return;
            }
            end = end.saturating_add(part.extent.len);
            match self.len {
                0 => self.first = [part.extent],
                1 => self.rest.extend([self.first[0], part.extent]),
                _ => self.rest.push(part.extent),
            }
            self.len = self.len.saturating_add(1);
        }
    }

    fn as_slice(&self) -> &[Extent] {
        match self.len {
            0 => &[],
            1 => &self.first,
            _ => &self.rest,
        }
    }
}

fn segment<'a>(tcp: &Tcp, arrival: &Arrival, payload: &'a [Extent], wire_len: u32) -> Segment<'a> {
    Segment {
        time: arrival.time,
        packet: arrival.number,
        direction: arrival.direction,
        sequence: Sequence(tcp.sequence),
        acknowledgment: tcp.flags.contains(TcpFlags::ACK).then_some(Sequence(tcp.acknowledgment)),
        flags: Flags {
            syn: tcp.flags.contains(TcpFlags::SYN),
            fin: tcp.flags.contains(TcpFlags::FIN),
            rst: tcp.flags.contains(TcpFlags::RST),
        },
        window: tcp.window,
        payload,
        wire_len,
    }
}
