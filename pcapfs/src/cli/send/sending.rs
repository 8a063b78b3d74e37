//! Sends a capture: plans, connects, waits for the time of each packet, and gives its bytes to its
//! connection.

use std::time::Duration;

use bytes::Bytes;
use capture::clock;
use capture::savefile::stream::StreamEvent;
use capture::source::HostAndPort;
use protocol::time::Timestamp;
use tokio::task::JoinSet;
use tokio::time::{Instant, interval, sleep, sleep_until};

use super::alarm::SendClock;
use super::extraction::{Extracted, Extraction, SenderKey, SentContent};
use super::far_ends::FarEnds;
use super::input::{PacketInput, PacketReader};
use super::outgoing::{OutgoingStream, WaitingRoom};
use super::plan::{ConnectionPlan, NoPort, PlannedContent};
use super::report::{SendReport, SendSums, SenderCounts};
use super::schedule::{SendSchedule, SendSpeed};
use crate::cli::client::DaemonSocket;
use crate::cli::savefile::TransferSignals;
use crate::failure::Failure;

/// The interval between two looks at the receivers and at streams that wait.
const TICK: Duration = Duration::from_millis(500);

/// Nanoseconds that a packet may take from its time stamp to this process.
const ON_THE_WAY: u64 = 500_000_000;

/// The time for waiting bytes after an interruption.
const LAST_WRITES: Duration = Duration::from_secs(2);

/// The user's settings.
#[derive(Debug)]
pub(super) struct SendSettings {
    pub(super) content: SentContent,
    pub(super) speed: SendSpeed,
    pub(super) filter: Option<String>,
    /// How often everything is sent.
    pub(super) rounds: u64,
    pub(super) json: bool,
}

/// A connection, its key and its counters.
#[derive(Debug)]
struct SenderConnection {
    key: SenderKey,
    port: u16,
    /// `None` after its receiver has gone away or could not be reached.
    stream: Option<OutgoingStream>,
    counts: SenderCounts,
    /// Bytes that the kernel has taken, once the connection has ended.
    written: u64,
    /// How it ended.
    end: Option<Result<(), String>>,
}

/// Sends a capture.
#[derive(Debug)]
pub(super) struct Sending {
    settings: SendSettings,
    input: PacketInput,
    far: FarEnds,
    plan: ConnectionPlan,
    connections: Vec<SenderConnection>,
    room: WaitingRoom,
    schedule: SendSchedule,
    clock: SendClock,
    report: SendReport,
    sums: SendSums,
    /// Time of the last look at the receivers.
    looked: Instant,
}

/// The reason for an early end.
#[derive(Debug)]
enum SendStop {
    Interrupted,
    /// All receivers have gone away.
    Alone,
    Failed(Failure),
}

impl From<Failure> for SendStop {
    fn from(failure: Failure) -> Self {
        Self::Failed(failure)
    }
}

impl Sending {
    /// Finds out which connections are needed, as far as that can be known, and makes them.
    ///
    /// # Errors
    /// The capture cannot be read, or the receiver has too few ports.
    pub(super) async fn prepare(
        settings: SendSettings,
        input: PacketInput,
        place: &HostAndPort,
        daemon: &DaemonSocket,
    ) -> Result<Self, Failure> {
        let mut far = FarEnds::find(place, daemon).await?;
        let mut plan = ConnectionPlan::new(place.port);
        let mut content = None;
        let mut connections = Vec::new();
        let room = WaitingRoom::new();
        let mut report = SendReport::new(settings.json);
        if input.can_be_repeated() {
            content = Some(read_ahead(&settings, &input, &mut plan).await?);
            let ports = plan.ports().map_err(|most| too_few(&plan, place.port, most))?;
            let streams = far.connect_all(ports.take(plan.keys().len()).collect()).await?;
            for (key, (port, stream)) in plan.keys().iter().zip(streams) {
                let stream = far.taken(stream, &room).await;
                connections.push(SenderConnection::new(*key, port, stream));
            }
        }
        let content = content.map(|content| content.times(settings.rounds));
        report.begins(place, content, plan.keys().len());
        for connection in &connections {
            report.connected(&connection.key, connection.port);
        }
        Ok(Self {
            schedule: SendSchedule::new(settings.speed),
            clock: SendClock::start().map_err(Failure::System)?,
            settings,
            input,
            far,
            plan,
            connections,
            room,
            report,
            sums: SendSums::default(),
            looked: Instant::now(),
        })
    }

    /// Sends everything, or until a signal comes.
    ///
    /// # Errors
    /// Not everything was sent.
    pub(super) async fn run(mut self, signals: &mut TransferSignals) -> Result<(), Failure> {
        let sent = self.send_rounds(signals).await;
        let is_interrupted = matches!(sent, Err(SendStop::Interrupted));
        let gone = self.finish(signals, is_interrupted).await;
        self.report.ended(self.connections.len(), &self.sums);
        match sent {
            Err(SendStop::Failed(failure)) => Err(failure),
            // Live packets have no other end.
            Err(SendStop::Interrupted) if !self.input.is_live() => {
                Err(Failure::Answer("interrupted".to_owned()))
            }
            _ if gone > 0 => Err(Failure::Answer(format!(
                "{gone} of {} receivers did not get everything",
                self.connections.len()
            ))),
            _ if self.sums.without_port > 0 => Err(Failure::Answer(format!(
                "{} packets had no port to be sent to",
                self.sums.without_port
            ))),
            _ => Ok(()),
        }
    }

    async fn send_rounds(&mut self, signals: &mut TransferSignals) -> Result<(), SendStop> {
        for _ in 0..self.settings.rounds {
            let mut reader = self.input.open(self.settings.filter.as_deref()).await?;
            let mut extraction = Extraction::new(self.settings.content);
            let sent = self.send_round(&mut reader, &mut extraction, signals).await;
            self.sums.add(&extraction.left_out, reader.lost);
            sent?;
            self.schedule.repeat();
        }
        Ok(())
    }

    /// Sends everything once.
    async fn send_round(
        &mut self,
        reader: &mut PacketReader,
        extraction: &mut Extraction,
        signals: &mut TransferSignals,
    ) -> Result<(), SendStop> {
        let mut tick = interval(TICK);
        let mut extracted = Vec::new();
        let result = loop {
            match self.send_available(reader, extraction, signals).await {
                Ok(()) => {}
                Err(SendStop::Failed(failure)) => break Err(failure),
                Err(stop) => return Err(stop),
            }
            tokio::select! {
                biased;
                () = signals.any() => return Err(SendStop::Interrupted),
                filled = reader.fill() => match filled {
                    Ok(true) => {}
                    Ok(false) => break Ok(()),
                    Err(failure) => break Err(failure),
                },
                _ = tick.tick() => {
                    self.look_after().await?;
                    if self.input.is_live() {
                        // Packets may still be on their way from the daemon.
                        let now = clock::now().nanoseconds().saturating_sub(ON_THE_WAY);
                        let now = Timestamp::from_nanoseconds(now);
                        extraction.advance(now, &mut |one| extracted.push(one));
                    }
                }
            }
            self.give_all(extraction, &mut extracted, signals).await?;
        };
        extraction.finish(&mut |one| extracted.push(one));
        self.give_all(extraction, &mut extracted, signals).await?;
        let incomplete = reader.incomplete();
        if incomplete > 0 && result.is_ok() {
            self.report.cut_off(reader.name(), incomplete);
        }
        Ok(result?)
    }

    /// Sends the packets that the reader has.
    async fn send_available(
        &mut self,
        reader: &mut PacketReader,
        extraction: &mut Extraction,
        signals: &mut TransferSignals,
    ) -> Result<(), SendStop> {
        let mut extracted = Vec::new();
        while let Some(event) = reader.event()? {
            match event {
                StreamEvent::Header(header) => extraction.begin(header),
                StreamEvent::Foreign { .. } => extraction.left_out.link_type += 1,
                StreamEvent::Packet(packet) => {
                    let far = &self.far;
                    let is_own = |source, destination| far.is_own(source, destination);
                    extraction.packet(&packet, &is_own, &mut |one| extracted.push(one));
                    if self.looked.elapsed() >= TICK {
                        self.look_after().await?;
                    }
                    if extracted.is_empty() {
                        continue;
                    }
                    if let Some(due) = self.schedule.due(packet.time) {
                        self.wait(due, signals).await?;
                    }
                    self.sums.packets += 1;
                    self.give_all(extraction, &mut extracted, signals).await?;
                }
                StreamEvent::Section(_)
                | StreamEvent::Interface(_)
                | StreamEvent::Kept(_)
                | StreamEvent::LeftOut => {}
            }
        }
        Ok(())
    }

    /// Waits until a packet is due.
    async fn wait(&mut self, due: Duration, signals: &mut TransferSignals) -> Result<(), SendStop> {
        while self.clock.elapsed() < due {
            tokio::select! {
                biased;
                () = signals.any() => return Err(SendStop::Interrupted),
                () = self.clock.wait_until(due) => {}
                () = sleep_until(self.looked + TICK) => self.look_after().await?,
            }
        }
        self.sums.late(self.clock.elapsed().saturating_sub(due));
        Ok(())
    }

    /// Looks which receivers have gone away, and shows progress.
    async fn look_after(&mut self) -> Result<(), SendStop> {
        self.looked = Instant::now();
        for connection in &mut self.connections {
            if connection.stream.as_ref().is_some_and(OutgoingStream::is_gone) {
                connection.lose(&mut self.report).await;
            }
        }
        let is_alone = self.connections.iter().all(|connection| connection.stream.is_none());
        if is_alone && !self.connections.is_empty() {
            return Err(SendStop::Alone);
        }
        let open = self.connections.iter().filter_map(|connection| connection.stream.as_ref());
        let written: u64 = self.connections.iter().map(SenderConnection::written).sum();
        self.report.progress(open.count(), written, &self.sums);
        Ok(())
    }

    /// Gives bytes to their connections.
    async fn give_all(
        &mut self,
        extraction: &Extraction,
        extracted: &mut Vec<Extracted>,
        signals: &mut TransferSignals,
    ) -> Result<(), SendStop> {
        for one in extracted.drain(..) {
            let preamble = extraction.preamble();
            tokio::select! {
                biased;
                () = signals.any() => return Err(SendStop::Interrupted),
                given = self.give(one, preamble) => given?,
            }
        }
        Ok(())
    }

    async fn give(&mut self, extracted: Extracted, preamble: Bytes) -> Result<(), SendStop> {
        let Extracted { key, bytes, missing } = extracted;
        let Some(index) = self.connection(key).await else {
            self.sums.without_port += 1;
            return Ok(());
        };
        let Some(connection) = self.connections.get_mut(index) else { return Ok(()) };
        let preamble = if connection.counts.packets == 0 { preamble } else { Bytes::new() };
        connection.counts.add((preamble.len() + bytes.len()) as u64, missing);
        let Some(stream) = &connection.stream else { return Ok(()) };
        for bytes in [preamble, bytes].into_iter().filter(|bytes| !bytes.is_empty()) {
            if !stream.give(bytes).await {
                return self.look_after().await;
            }
        }
        Ok(())
    }

    /// The index of the connection for this key, which is made if it was not planned. `None` if
    /// there is no port for it.
    async fn connection(&mut self, key: SenderKey) -> Option<usize> {
        let index = self.plan.index(key).ok()?;
        if index < self.connections.len() {
            return Some(index);
        }
        let port = match self.plan.port(index) {
            Ok(port) => port,
            Err(NoPort) => {
                self.report.without_port(&key, self.plan.keys().len());
                return None;
            }
        };
        let stream = match self.far.connect(port).await {
            Ok(stream) => self.far.taken(stream, &self.room).await,
            Err(error) => Err(error.to_string()),
        };
        match &stream {
            Ok(_) => self.report.connected(&key, port),
            Err(why) => self.report.gone(&key, port, why),
        }
        self.connections.push(SenderConnection::new(key, port, stream));
        Some(index)
    }

    /// Sends the waiting bytes, and ends the connections. Returns the number of receivers that did not get
    /// everything.
    async fn finish(&mut self, signals: &mut TransferSignals, is_interrupted: bool) -> usize {
        let mut finishing = JoinSet::new();
        for (index, connection) in self.connections.iter_mut().enumerate() {
            if let Some(stream) = connection.stream.take() {
                connection.written = stream.written();
                finishing.spawn(async move { (index, stream.finish().await) });
            }
        }
        let limit = sleep(if is_interrupted { LAST_WRITES } else { Duration::MAX });
        tokio::pin!(limit);
        while !finishing.is_empty() {
            tokio::select! {
                biased;
                Some(finished) = finishing.join_next() => {
                    let Ok((index, (written, ended))) = finished else { continue };
                    if let Some(connection) = self.connections.get_mut(index) {
                        connection.written = written;
                        connection.end = Some(ended);
                    }
                }
                () = &mut limit => break,
                () = signals.any() => break,
            }
        }
        let mut gone = 0;
        for connection in &self.connections {
            gone += usize::from(!matches!(connection.end, Some(Ok(()))));
            self.sums.sent(connection.written, &connection.counts);
            let SenderConnection { key, port, written, counts, end, .. } = connection;
            let why = match end {
                Some(Ok(())) => None,
                Some(Err(why)) => Some(why.as_str()),
                None => Some("interrupted"),
            };
            self.report.closed(key, *port, *written, counts, why);
        }
        gone
    }
}

impl SenderConnection {
    fn new(key: SenderKey, port: u16, stream: Result<OutgoingStream, String>) -> Self {
        let (stream, end) = match stream {
            Ok(stream) => (Some(stream), None),
            Err(why) => (None, Some(Err(why))),
        };
        Self { key, port, stream, counts: SenderCounts::default(), written: 0, end }
    }

    /// Bytes that were written so far.
    fn written(&self) -> u64 {
        self.stream.as_ref().map_or(self.written, OutgoingStream::written)
    }

    /// Notes that the receiver has gone away, and reports why.
    async fn lose(&mut self, report: &mut SendReport) {
        let Some(stream) = self.stream.take() else { return };
        let (written, ended) = stream.finish().await;
        let why = ended.err().unwrap_or_else(|| "closed".to_owned());
        report.gone(&self.key, self.port, &why);
        self.written = written;
        self.end = Some(Err(why));
    }
}

/// Reads everything once to find the connections.
async fn read_ahead(
    settings: &SendSettings,
    input: &PacketInput,
    plan: &mut ConnectionPlan,
) -> Result<PlannedContent, Failure> {
    let mut reader = input.open(settings.filter.as_deref()).await?;
    let mut extraction = Extraction::new(settings.content);
    let (mut content, mut extracted) = (PlannedContent::default(), Vec::new());
    let mut last = Timestamp::default();
    loop {
        // A malformed packet is reported later, after the packets before it were sent.
        while let Ok(Some(event)) = reader.event() {
            match event {
                StreamEvent::Header(header) => extraction.begin(header),
                StreamEvent::Packet(packet) => {
                    last = packet.time;
                    extraction.packet(&packet, &|_, _| false, &mut |one| extracted.push(one));
                    planned(plan, &mut content, last, &mut extracted)?;
                }
                _ => {}
            }
        }
        if !reader.fill().await? {
            break;
        }
    }
    extraction.finish(&mut |one| extracted.push(one));
    planned(plan, &mut content, last, &mut extracted)?;
    Ok(content)
}

/// Adds the connections that a packet needs.
fn planned(
    plan: &mut ConnectionPlan,
    content: &mut PlannedContent,
    time: Timestamp,
    extracted: &mut Vec<Extracted>,
) -> Result<(), Failure> {
    if extracted.is_empty() {
        return Ok(());
    }
    content.add(time, extracted);
    for one in extracted.drain(..) {
        plan.index(one.key).map_err(|NoPort| {
            let many = plan.keys().len();
            Failure::Answer(format!(
                "more than {many} ports are needed, one for each connection: leave out packets with \
                 --filter"
            ))
        })?;
    }
    Ok(())
}

fn too_few(plan: &ConnectionPlan, base: u16, most: u32) -> Failure {
    Failure::Answer(format!(
        "{} ports from {base} on are needed, one for each connection, and there are {most}: choose a \
         lower base port, or leave out packets with --filter",
        plan.keys().len()
    ))
}
