//! One flow: the state of a conversation, from its first packet until it leaves the tree.

mod datagrams;
mod http;
mod kind;
mod packets;
mod streams;

use protocol::decode::Portion;
use protocol::extent::Extent;
use protocol::http::parser::StreamEnd;
use protocol::tcp::{
    Assembler, Connection, ConnectionEvent, ConnectionSettings, Direction, NoBytes, Ports, Segment,
    SegmentVerdict,
};
use protocol::time::Timestamp;

use super::apps::StreamProtocolState;
use super::apps::datagram::{DatagramProtocolState, ReadDatagram};
use super::apps::kept::FlowRecords;
use super::apps::speaking::ProtocolFeed;
use super::arrival::Arrival;
use super::key::{FlowKey, Network, TransportProtocol};
use super::news::News;
use super::pair::{of, of_mut};
use super::state::FlowState;
use super::window::EngineWindow;
use datagrams::Datagrams;
use kind::{Embryo, EndedConnection, FlowKind, ShownCounters, TcpFlow, Udp};
use packets::Packets;
use streams::TcpStreams;

/// Sums over all flows.
#[derive(Clone, Copy, Debug, Default)]
pub(in crate::flow) struct Totals {
    /// Ranges of streams that are missing.
    pub(in crate::flow) gaps: u64,
    /// Segments with bytes that differ from an earlier copy.
    pub(in crate::flow) conflicts: u64,
}

/// The tools that a flow needs to process a packet.
pub(in crate::flow) struct Tools<'a> {
    pub(in crate::flow) settings: &'a ConnectionSettings,
    pub(in crate::flow) window: &'a EngineWindow<'a>,
    pub(in crate::flow) events: &'a mut Vec<ConnectionEvent>,
    pub(in crate::flow) news: &'a mut Vec<News>,
    pub(in crate::flow) totals: &'a mut Totals,
}

/// One flow.
#[derive(Debug)]
pub(in crate::flow) struct Flow {
    pub(in crate::flow) id: u64,
    pub(in crate::flow) key: FlowKey,
    pub(in crate::flow) network: Option<Box<Network>>,
    pub(in crate::flow) first: Timestamp,
    pub(in crate::flow) last: Timestamp,
    pub(in crate::flow) packets: Packets,
    /// Number of packets, and their bytes on the wire, forward and backward.
    pub(in crate::flow) sent: [Sent; 2],
    pub(in crate::flow) client: Direction,
    /// The final state, once the flow has ended.
    pub(in crate::flow) ended: Option<FlowState>,
    /// Its end has been recorded, after its last transaction.
    pub(in crate::flow) is_sealed: bool,
    pub(in crate::flow) kind: FlowKind,
    /// What readers are shown of its application protocols.
    pub(in crate::flow) kept: FlowRecords,
}

/// Packets of one direction.
#[derive(Clone, Copy, Debug, Default)]
pub(in crate::flow) struct Sent {
    pub(in crate::flow) packets: u64,
    pub(in crate::flow) bytes: u64,
}

impl Flow {
    /// A flow before its first packet.
    pub(in crate::flow) fn new(
        id: u64,
        key: FlowKey,
        network: Option<Network>,
        arrival: &Arrival,
    ) -> Self {
        let kind = match key.protocol {
            TransportProtocol::Tcp => FlowKind::Tcp(Box::new(TcpFlow::new(&key))),
            TransportProtocol::Udp => FlowKind::Udp(Box::default()),
        };
        Self {
            id,
            key,
            network: network.map(Box::new),
            first: arrival.time,
            last: arrival.time,
            packets: Packets::default(),
            sent: Default::default(),
            client: arrival.direction,
            ended: None,
            is_sealed: false,
            kind,
            kept: FlowRecords::default(),
        }
    }

    /// Adds a packet to the list of the flow, and counts it.
    ///
    /// `packets.pcap` only grows at its end. So a fragment that is older than the newest packet of
    /// the flow is left out. This happens if its flow was not known when it came.
    ///
    /// Returns `true` if the packet was added.
    pub(in crate::flow) fn joined(&mut self, arrival: &Arrival) -> bool {
        if !self.packets.push(arrival.number, arrival.record_len) {
            return false;
        }
        let sent = of_mut(&mut self.sent, arrival.direction);
        sent.packets = sent.packets.saturating_add(1);
        sent.bytes = sent.bytes.saturating_add(arrival.wire_len.into());
        self.first = self.first.min(arrival.time);
        self.last = self.last.max(arrival.time);
        true
    }

    /// Processes a TCP segment.
    pub(in crate::flow) fn segment(
        &mut self,
        segment: &Segment<'_>,
        tools: &mut Tools<'_>,
    ) -> SegmentVerdict {
        if self.ended.is_none() {
            self.hatch(tools.settings);
        }
        let FlowKind::Tcp(tcp) = &mut self.kind else { return SegmentVerdict::NewConnection };
        let conflicts = tcp.connection.counters(segment.direction).conflicting_bytes;
        tools.events.clear();
        let verdict = tcp.connection.process(segment, tools.settings, tools.window, tools.events);
        let after = tcp.connection.counters(segment.direction).conflicting_bytes;
        tools.totals.conflicts = tools.totals.conflicts.saturating_add((after > conflicts).into());
        if verdict == SegmentVerdict::Taken {
            self.arrived(segment, tools);
        }
        self.happened(tools);
        verdict
    }

    /// Notes the acknowledgment of a segment for the application protocol, before its events are
    /// handled.
    fn arrived(&mut self, segment: &Segment<'_>, tools: &mut Tools<'_>) {
        let FlowKind::Tcp(tcp) = &mut self.kind else { return };
        if tcp.app.is_done() {
            return;
        }
        let direction = segment.direction;
        let has_early = tcp.app.has_early(direction);
        let is_data = |event: &ConnectionEvent| matches!(event, ConnectionEvent::Data { direction: of, .. } if *of == direction);
        let is_early =
            tcp.connection.assembler(direction).is_waiting() && !tools.events.iter().any(is_data);
        // A segment that fills the hole before early segments was sent before them. It may also
        // have been sent before the bytes that they acknowledge.
        if segment.wire_len > 0
            && !segment.is_padded
            && (is_early || has_early)
            && let Some(end) = tcp.connection.offset_behind(segment, tools.settings)
        {
            let acknowledged = tcp.connection.acknowledged_by(segment, tools.settings);
            tcp.app.early(direction, end, acknowledged);
        }
    }

    /// Adds a UDP datagram, or a portion of one: its payload follows those before it.
    pub(in crate::flow) fn datagram(
        &mut self,
        arrival: &Arrival,
        payload: &[Extent],
        wire_len: u32,
        portion: Option<&Portion>,
        tools: &mut Tools<'_>,
    ) {
        let FlowKind::Udp(udp) = &mut self.kind else { return };
        let side = of_mut(&mut udp.sides, arrival.direction);
        let limits = &tools.settings.limits;
        let trouble = side.insert(payload, wire_len, portion, arrival.time, limits, tools.window);
        tools.totals.gaps = tools.totals.gaps.saturating_add(trouble.gaps);
        tools.totals.conflicts = tools.totals.conflicts.saturating_add(trouble.conflicts);
        self.dissect(tools);
    }

    /// Passes settled datagrams to the dissector, and reports the transactions that have ended.
    fn dissect(&mut self, tools: &mut Tools<'_>) {
        let FlowKind::Udp(udp) = &mut self.kind else { return };
        let Udp { sides, app } = &mut **udp;
        for direction in [Direction::Forward, Direction::Backward] {
            while let Some(place) = of_mut(sides, direction).settled() {
                if app.is_done() {
                    continue;
                }
                let window = tools.window;
                let read: &ReadDatagram<'_> = &|direction, place, sink| {
                    streams::read_datagram(
                        of(sides, direction).stream(),
                        direction,
                        place,
                        window,
                        sink,
                    );
                };
                app.datagram(direction, place, self.key.ends(), &mut self.kept, read);
            }
        }
        while let Some(finished) = app.finished() {
            tools.news.push(News::Finished(finished));
        }
    }

    /// Lets time pass.
    pub(in crate::flow) fn poll(&mut self, now: Timestamp, tools: &mut Tools<'_>) {
        match &mut self.kind {
            FlowKind::Embryo(_) => {
                if now >= self.deadline(tools.settings) {
                    self.end(FlowState::TimedOut, tools);
                }
            }
            FlowKind::Tcp(tcp) => {
                tools.events.clear();
                tcp.connection.poll(now, tools.settings, tools.window, tools.events);
                self.happened(tools);
                self.waited(now, tools);
            }
            FlowKind::Udp(_) if self.ended.is_some() => {}
            FlowKind::Udp(udp) => {
                let gaps = udp.sides.iter_mut().map(|side| side.poll(now)).sum::<u64>();
                tools.totals.gaps = tools.totals.gaps.saturating_add(gaps);
                udp.app.poll(now);
                self.dissect(tools);
                if now >= self.silence() {
                    self.end(FlowState::TimedOut, tools);
                }
            }
            FlowKind::Ended(_) => {}
        }
    }

    /// Ends the flow now, in its current state or as evicted.
    pub(in crate::flow) fn close(&mut self, is_evicted: bool, tools: &mut Tools<'_>) {
        if self.ended.is_some() {
            return;
        }
        let evicted = is_evicted.then_some(FlowState::Evicted);
        match &mut self.kind {
            FlowKind::Embryo(_) => {
                let state = evicted.unwrap_or_else(|| self.state());
                self.end(state, tools);
            }
            FlowKind::Tcp(tcp) => {
                tools.events.clear();
                tcp.connection.close(tools.settings, tools.window, tools.events);
                self.ended = evicted;
                self.happened(tools);
            }
            FlowKind::Udp(_) => {
                let state = evicted.unwrap_or_else(|| self.state());
                self.end(state, tools);
            }
            FlowKind::Ended(_) => {}
        }
    }

    fn end(&mut self, state: FlowState, tools: &mut Tools<'_>) {
        if let FlowKind::Udp(udp) = &mut self.kind {
            let gaps = udp.sides.iter_mut().map(Datagrams::close).sum::<u64>();
            tools.totals.gaps = tools.totals.gaps.saturating_add(gaps);
        }
        self.dissect(tools);
        if let FlowKind::Udp(udp) = &mut self.kind {
            udp.app.close();
        }
        self.dissect(tools);
        if let FlowKind::Udp(udp) = &mut self.kind {
            udp.app = DatagramProtocolState::Done;
        }
        self.ended = Some(state);
        tools.news.push(News::Closed);
    }

    /// The time at which [`Flow::poll`] has something to do.
    pub(in crate::flow) fn deadline(&self, settings: &ConnectionSettings) -> Timestamp {
        let never = Timestamp::from_nanoseconds(u64::MAX);
        match &self.kind {
            FlowKind::Embryo(_) | FlowKind::Udp(_) if self.ended.is_some() => never,
            FlowKind::Embryo(embryo) if embryo.flags.syn => {
                self.last.plus(settings.opening_timeout)
            }
            FlowKind::Embryo(_) => self.last.plus(settings.idle_timeout),
            FlowKind::Tcp(tcp) => {
                let deadline = tcp.connection.deadline(settings).unwrap_or(never);
                tcp.app.deadline().unwrap_or(never).min(deadline)
            }
            FlowKind::Udp(udp) => {
                let [forward, backward] = udp.sides.each_ref().map(Datagrams::deadline);
                let others = [forward, backward, udp.app.deadline()];
                others.into_iter().flatten().fold(self.silence(), Timestamp::min)
            }
            FlowKind::Ended(_) => never,
        }
    }

    /// The time at which a UDP conversation has been silent for too long.
    pub(in crate::flow) fn silence(&self) -> Timestamp {
        let is_answered = self.sent.iter().all(|sent| sent.packets > 0);
        let silence = if is_answered { UDP_TIMEOUT } else { UDP_UNANSWERED_TIMEOUT };
        self.last.plus(silence)
    }

    /// Turns an embryo into a connection, from the first segment that was kept.
    fn hatch(&mut self, settings: &ConnectionSettings) {
        let FlowKind::Embryo(embryo) = self.kind else { return };
        let mut tcp = TcpFlow::new(&self.key);
        let segment = embryo.segment(self.last);
        let mut events = Vec::new();
        // The same segment was accepted before.
        let _ = tcp.connection.process(&segment, settings, &NoBytes, &mut events);
        self.kind = FlowKind::Tcp(Box::new(tcp));
    }

    /// After a first segment without payload: keeps only enough to make a connection again.
    pub(in crate::flow) fn keep_little(&mut self, segment: &Segment<'_>) {
        let flags = segment.flags;
        if segment.wire_len == 0 && !flags.rst && !flags.fin && self.ended.is_none() {
            self.kind = FlowKind::Embryo(Embryo::new(segment));
        }
    }

    /// After the end: keeps only the state that reading the flow needs.
    pub(in crate::flow) fn compact(&mut self) {
        if self.ended.is_none() {
            return;
        }
        match &mut self.kind {
            FlowKind::Tcp(tcp) => {
                let connection = std::mem::replace(&mut tcp.connection, Connection::new(NO_PORTS));
                self.kind = FlowKind::Ended(Box::new(EndedConnection::new(connection)));
            }
            FlowKind::Udp(udp) => udp.sides.iter_mut().for_each(Datagrams::shrink),
            FlowKind::Embryo(_) | FlowKind::Ended(_) => {}
        }
        self.packets.shrink();
        self.kept.shrink();
    }

    /// Handles the events of the connection.
    fn happened(&mut self, tools: &mut Tools<'_>) {
        let FlowKind::Tcp(tcp) = &mut self.kind else { return };
        let TcpFlow { connection, app } = &mut **tcp;
        let Tools { events, news, totals, window, .. } = tools;
        let mut sink = |finished| news.push(News::Finished(finished));
        let mut speaking = ProtocolFeed { app, kept: &mut self.kept, sink: &mut sink };
        let streams = &TcpStreams { connection, window, key: &self.key };
        for event in events.drain(..) {
            match event {
                ConnectionEvent::Opened { client } | ConnectionEvent::Turned { client } => {
                    self.client = client
                }
                ConnectionEvent::Data { direction, range } => {
                    let needs = connection.acknowledged(direction.other());
                    speaking.settled(direction, &range, needs, streams);
                }
                ConnectionEvent::Gap { direction, range } => {
                    let is_new = connection.assembler(direction).has_gap_from(range.start);
                    totals.gaps = totals.gaps.saturating_add(is_new.into());
                    speaking.gap(direction, range.end, streams);
                }
                ConnectionEvent::Ended { direction } => speaking.ended(direction, streams),
                ConnectionEvent::Closed { state } => {
                    let state = self.ended.unwrap_or_else(|| state.into());
                    speaking.close(how(state), streams);
                    self.ended = Some(state);
                    news.push(News::Closed);
                    return;
                }
            }
            speaking.report(streams);
        }
        // An acknowledgment is no event, and may be the last thing that a transaction waits for.
        speaking.report(streams);
    }

    /// Lets time pass for the dissector of a connection under way.
    fn waited(&mut self, now: Timestamp, tools: &mut Tools<'_>) {
        let FlowKind::Tcp(tcp) = &mut self.kind else { return };
        let TcpFlow { connection, app } = &mut **tcp;
        let Tools { news, window, .. } = tools;
        let mut sink = |finished| news.push(News::Finished(finished));
        let mut speaking = ProtocolFeed { app, kept: &mut self.kept, sink: &mut sink };
        speaking.poll(now);
        speaking.report(&TcpStreams { connection, window, key: &self.key });
    }

    /// The current state.
    pub(in crate::flow) fn state(&self) -> FlowState {
        if let Some(ended) = self.ended {
            return ended;
        }
        match &self.kind {
            FlowKind::Embryo(embryo) if embryo.flags.syn => FlowState::Opening,
            FlowKind::Embryo(_) => FlowState::Midstream,
            FlowKind::Tcp(tcp) => tcp.connection.state().into(),
            FlowKind::Udp(_) if self.sent.iter().any(|sent| sent.packets == 0) => {
                FlowState::Opening
            }
            FlowKind::Udp(_) | FlowKind::Ended(_) => FlowState::Open,
        }
    }

    /// The stream sent in `direction`; `None` if nothing was sent.
    pub(in crate::flow) fn stream(&self, direction: Direction) -> Option<&Assembler> {
        match &self.kind {
            FlowKind::Embryo(_) => None,
            FlowKind::Tcp(tcp) => Some(tcp.connection.assembler(direction)),
            FlowKind::Udp(udp) => Some(of(&udp.sides, direction).stream()),
            FlowKind::Ended(ended) => of(&ended.streams, direction).as_deref(),
        }
    }

    /// The counters that `meta.json` shows for a direction.
    pub(in crate::flow) fn counters(&self, direction: Direction) -> ShownCounters {
        match &self.kind {
            FlowKind::Tcp(tcp) => ShownCounters::of(&tcp.connection, direction),
            FlowKind::Ended(ended) => *of(&ended.counters, direction),
            FlowKind::Udp(udp) => {
                let (captured_bytes, repeated_bytes, late_bytes) =
                    of(&udp.sides, direction).counts();
                ShownCounters {
                    captured_bytes,
                    repeated_bytes,
                    late_bytes,
                    ..ShownCounters::default()
                }
            }
            FlowKind::Embryo(_) => ShownCounters::default(),
        }
    }

    /// The direction whose sender ended the connection, and how long the handshake took, in
    /// microseconds.
    pub(in crate::flow) fn ending(&self) -> (Option<Direction>, Option<u32>) {
        match &self.kind {
            FlowKind::Tcp(tcp) => (tcp.connection.closed_by(), tcp.connection.handshake_us()),
            FlowKind::Ended(ended) => (ended.closed_by, ended.handshake_us),
            FlowKind::Embryo(_) | FlowKind::Udp(_) => (None, None),
        }
    }

    /// The search for the application protocol of a TCP flow under way, or its dissector.
    pub(in crate::flow) fn app(&self) -> Option<&StreamProtocolState> {
        match &self.kind {
            FlowKind::Tcp(tcp) => Some(&tcp.app),
            FlowKind::Embryo(_) | FlowKind::Udp(_) | FlowKind::Ended(_) => None,
        }
    }

    /// Number of transactions that have not ended.
    pub(in crate::flow) fn pending(&self) -> usize {
        match &self.kind {
            FlowKind::Tcp(tcp) => tcp.app.pending(),
            FlowKind::Udp(udp) => udp.app.pending(),
            FlowKind::Embryo(_) | FlowKind::Ended(_) => 0,
        }
    }

    /// Drops the packets below number `oldest`, which the store has dropped.
    pub(in crate::flow) fn expire(&mut self, oldest: u64) {
        self.packets.expire(oldest);
        match &mut self.kind {
            FlowKind::Embryo(_) => {}
            FlowKind::Tcp(tcp) => tcp.connection.expire(oldest),
            FlowKind::Udp(udp) => udp.sides.iter_mut().for_each(|side| side.expire(oldest)),
            FlowKind::Ended(ended) => {
                ended.streams.iter_mut().flatten().for_each(|stream| stream.expire(oldest));
            }
        }
    }

    /// Bytes of memory on the heap; an estimate.
    pub(in crate::flow) fn memory(&self) -> usize {
        let kind = match &self.kind {
            FlowKind::Embryo(_) => 0,
            FlowKind::Tcp(tcp) => {
                let own = size_of::<TcpFlow>().saturating_add(ALLOCATION);
                own.saturating_add(tcp.connection.memory()).saturating_add(tcp.app.memory())
            }
            FlowKind::Udp(udp) => {
                let heap = udp.sides.iter().map(Datagrams::memory).sum::<usize>();
                size_of::<Udp>().saturating_add(heap).saturating_add(udp.app.memory())
            }
            FlowKind::Ended(ended) => ended.memory(),
        };
        kind.saturating_add(self.packets.memory())
            .saturating_add(self.kept.memory())
            .saturating_add(if self.network.is_some() { size_of::<Network>() } else { 0 })
    }
}

/// Silence after which a UDP conversation has ended: `nf_conntrack_udp_timeout_stream` of Linux.
const UDP_TIMEOUT: std::time::Duration = std::time::Duration::from_secs(120);

/// The same timeout if only one side has sent: `nf_conntrack_udp_timeout`.
const UDP_UNANSWERED_TIMEOUT: std::time::Duration = std::time::Duration::from_secs(30);

/// Bytes that the allocator adds to each block; an estimate.
const ALLOCATION: usize = 16;

const NO_PORTS: Ports = Ports { forward: 0, backward: 0 };

/// How the end of a flow ends a message that is under way.
const fn how(state: FlowState) -> StreamEnd {
    match state {
        FlowState::Closed => StreamEnd::Fin,
        FlowState::Reset => StreamEnd::Reset,
        FlowState::TimedOut => StreamEnd::Timeout,
        FlowState::Opening
        | FlowState::Open
        | FlowState::Closing
        | FlowState::Midstream
        | FlowState::Evicted => StreamEnd::Evicted,
    }
}
