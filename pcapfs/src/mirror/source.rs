//! The source `remote:NAME/CAPTURE`: follows a capture of another machine.
//!
//! It runs on the thread of its capture, with a runtime of its own, so that captures of a slow
//! machine do not hold up others. Whatever ends a connection, the source says so, waits, and asks
//! again for the packets after those in its ring. It never ends by itself, unless the far capture
//! has ended.

use std::sync::Arc;
use std::time::Duration;

use capture::clock;
use capture::ring::Writer;
use capture::savefile::ByteOrder;
use capture::source::{
    ExternalSource, FollowBeginning, FollowedNote, FollowedPackets, Following, Observer,
    ReconnectPatience, Rest, Source, SourceControl, SourceEnd, SourceError, SourceOpener,
    SourceOptions,
};
use capture::store::{Interface, StoreIdentity};
use protocol::linktype::LinkType;
use protocol::time::Precision;
use tokio::net::unix::pipe::Receiver;
use tokio::task::JoinSet;
use tokio::time::timeout;
use tonic::transport::Channel;
use tonic::{Code, Status, Streaming};

use super::connect;
use super::status::MirrorStatus;
use super::written::MirrorName;
use crate::control::messages::control_client::ControlClient;
use crate::control::messages::{
    Compression, FollowFrom, FollowHeader, FollowInterface, FollowPlace, FollowRequest,
    FollowResponse, State,
};
use crate::control::state_name;

/// The longest silence of a far daemon, which reports its state every second. A connection that is
/// broken without a sign is given up after this time.
const SILENCE: Duration = Duration::from_secs(4);

/// Time for connecting, and for the first answer.
const CONNECTING: Duration = Duration::from_secs(10);

/// Time after which another connection is tried beside one that gets no answer. The kernel sends
/// the first packet of a connection again only after a second (RFC 6298, 2.1), so a wire that comes
/// back would be noticed late.
const BESIDE: Duration = Duration::from_millis(400);

/// The maximum of connections that are tried at the same time.
const ATTEMPTS: usize = 3;

/// The maximum bytes of an answer: a chunk of records, or one packet, and what it has beside it.
const MAX_ANSWER: usize = 8 << 20;

/// The maximum bytes of the records of an answer: a chunk of 128 KiB, or one packet of 256 KiB.
const MAX_RECORDS: usize = 512 << 10;

/// Parses a source `remote:NAME/CAPTURE`.
///
/// # Errors
/// The mistake in it, for people.
pub(crate) fn parse(written: &str) -> Result<ExternalSource, String> {
    let name = MirrorName::parse(written)?;
    let written = written.to_owned();
    Ok(ExternalSource::new(MirrorOpener { written, name, status: Arc::default() }))
}

/// Opens the source.
#[derive(Debug)]
struct MirrorOpener {
    written: String,
    name: MirrorName,
    status: Arc<MirrorStatus>,
}

impl SourceOpener for MirrorOpener {
    fn written(&self) -> &str {
        &self.written
    }

    fn default_alias(&self) -> String {
        format!("{}.{}", self.name.remote, self.name.capture)
    }

    fn open(&self, options: &SourceOptions<'_>) -> Result<Box<dyn Source>, SourceError> {
        let label = format!("remote:{}/{}", self.name.remote, self.name.capture);
        Ok(Box::new(MirrorSource {
            following: Following::new(&label, options)?,
            label,
            name: self.name.clone(),
            status: Arc::clone(&self.status),
            decompressor: None,
            has_begun: false,
        }))
    }

    fn lack(&self) -> Option<String> {
        connect::check(&self.name.remote).err()
    }

    fn status(&self) -> Option<serde_json::Value> {
        self.status.to_json(&self.name)
    }
}

/// The source.
struct MirrorSource {
    /// Its name in messages.
    label: String,
    name: MirrorName,
    following: Following,
    status: Arc<MirrorStatus>,
    decompressor: Option<zstd::bulk::Decompressor<'static>>,
    /// True once the header of this connection has come.
    has_begun: bool,
}

impl std::fmt::Debug for MirrorSource {
    fn fmt(&self, formatter: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        formatter.debug_struct("MirrorSource").field("name", &self.name).finish_non_exhaustive()
    }
}

/// How a connection ended.
enum ConnectionEnd {
    /// By an order.
    Stopped,
    /// The far capture has no more packets.
    Exhausted,
    /// For this reason; it may come back.
    Away(String),
}

/// The capture's side of a running source.
struct Near<'a> {
    writer: &'a mut Writer,
    observer: &'a mut dyn Observer,
    /// Since when the far side is away.
    patience: Option<ReconnectPatience>,
    /// True if the observer knows that the far side is there.
    is_back: bool,
}

impl Near<'_> {
    /// Notes that the far side sends.
    fn back(&mut self) {
        if !self.is_back {
            self.is_back = true;
            self.observer.back(self.writer);
        }
    }
}

impl Source for MirrorSource {
    fn link_type(&self) -> Option<LinkType> {
        None
    }

    fn rest(&self) -> Rest {
        Rest::Resumed
    }

    fn is_ready(&self) -> bool {
        false
    }

    fn run(
        &mut self,
        writer: &mut Writer,
        control: &SourceControl,
        observer: &mut dyn Observer,
    ) -> Result<SourceEnd, SourceError> {
        let system = |error| SourceError::System { name: self.label.clone(), error };
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build();
        let runtime = runtime.map_err(system)?;
        let mut near = Near { writer, observer, patience: None, is_back: false };
        let end = loop {
            let end = runtime.block_on(self.follow(&mut near, control));
            self.status.disconnected();
            let why = match end {
                ConnectionEnd::Stopped => break SourceEnd::Stopped,
                ConnectionEnd::Exhausted => break SourceEnd::Exhausted,
                ConnectionEnd::Away(why) => why,
            };
            near.is_back = false;
            let error = SourceError::Lost { name: self.label.clone(), why };
            near.observer.away(near.writer, &error);
            let patience = near.patience.get_or_insert_with(ReconnectPatience::begin);
            if !patience.wait(control) {
                break SourceEnd::Stopped;
            }
            control.clear_if_ordered(|| near.writer.clear());
        };
        // Connections that are being made or ended must not hold up an order to stop.
        runtime.shutdown_background();
        Ok(end)
    }
}

impl MirrorSource {
    /// Connects, and receives packets until the connection ends.
    async fn follow(&mut self, near: &mut Near<'_>, control: &SourceControl) -> ConnectionEnd {
        // An eventfd becomes readable, and is read, as a pipe is.
        let orders = control.wake_fd().try_clone_to_owned();
        let orders = match orders.and_then(Receiver::from_owned_fd_unchecked) {
            Ok(orders) => orders,
            Err(error) => return ConnectionEnd::Away(error.to_string()),
        };
        self.has_begun = false;
        let request = self.request(near.writer);
        let remote = self.name.remote.clone();
        let mut connecting = Box::pin(timeout(CONNECTING, connected(&remote, request)));
        let mut answers = loop {
            tokio::select! {
                biased;
                _ = orders.readable() => {
                    if obeyed(&orders, near, control) {
                        return ConnectionEnd::Stopped;
                    }
                }
                answers = &mut connecting => match answers {
                    Ok(Ok(answers)) => break answers,
                    Ok(Err(why)) => return ConnectionEnd::Away(why),
                    Err(_) => return ConnectionEnd::Away("no answer in time".to_owned()),
                },
            }
        };
        drop(connecting);
        self.status.connected();
        let mut last = None;
        loop {
            let answer = tokio::select! {
                biased;
                _ = orders.readable() => {
                    if obeyed(&orders, near, control) {
                        return ConnectionEnd::Stopped;
                    }
                    continue;
                }
                answer = timeout(SILENCE, answers.message()) => answer,
            };
            match answer {
                Ok(Ok(Some(answer))) => {
                    if let Err(why) = self.take(answer, near, &mut last) {
                        return ConnectionEnd::Away(why);
                    }
                }
                Ok(Ok(None)) => return ended(last, &self.name),
                Ok(Err(status)) => return ConnectionEnd::Away(refusal(&status)),
                Err(_) => {
                    let seconds = SILENCE.as_secs();
                    return ConnectionEnd::Away(format!("no sign of life for {seconds} s"));
                }
            }
        }
    }

    /// The request to the far daemon.
    fn request(&self, writer: &Writer) -> FollowRequest {
        let place = writer.far_place().map(|far| FollowPlace {
            ring: far.place.identity.store,
            epoch: far.place.identity.epoch,
            next: far.place.next,
        });
        let from = if self.name.from_now { FollowFrom::Now } else { FollowFrom::Oldest };
        let compression = if self.name.zstd { Compression::Zstd } else { Compression::Unspecified };
        FollowRequest {
            capture: self.name.capture.clone(),
            from: from.into(),
            place,
            compression: compression.into(),
            rate: self.name.rate,
        }
    }

    /// Takes one answer.
    ///
    /// # Errors
    /// Why the connection must be given up.
    fn take(
        &mut self,
        mut answer: FollowResponse,
        near: &mut Near<'_>,
        last: &mut Option<State>,
    ) -> Result<(), String> {
        let text = |error: SourceError| error.to_string();
        if let Some(header) = &answer.header {
            let interfaces: Vec<_> = answer.interfaces.iter().map(interface).collect();
            let beginning = beginning(header, &interfaces)?;
            self.following.begin(&beginning, near.writer).map_err(text)?;
            self.status.begun(header.version.clone(), beginning.identity.store);
            self.has_begun = true;
        } else {
            for described in &answer.interfaces {
                self.following.interface(&interface(described), near.writer);
            }
        }
        if let Some(state) = answer.state.take() {
            let now = state.state();
            // A state that this version does not know is one of a capture that goes on.
            if !matches!(now, State::Stopped | State::Ended | State::Failed) {
                near.back();
            }
            // The second report of a connection: it lasts.
            if last.replace(now).is_some() {
                near.patience = None;
            }
            self.status.state(state, clock::now());
        }
        let received = answer.records.len().max(answer.compressed.len());
        if received > 0 {
            self.packets(&answer, received, near)?;
            near.patience = None;
        }
        near.observer.tick(near.writer);
        Ok(())
    }

    /// Stores the packets of an answer.
    fn packets(
        &mut self,
        answer: &FollowResponse,
        received: usize,
        near: &mut Near<'_>,
    ) -> Result<(), String> {
        if !self.has_begun {
            return Err("packets came before their header".to_owned());
        }
        let decompressed;
        let records = if answer.compressed.is_empty() {
            &answer.records[..]
        } else {
            decompressed = self.decompress(answer)?;
            &decompressed
        };
        let notes: Vec<_> = answer
            .notes
            .iter()
            .map(|note| FollowedNote {
                index: note.index.into(),
                interface: note.interface,
                blocks: &note.blocks,
                options: &note.options,
            })
            .collect();
        let packets = FollowedPackets { first: answer.first, records, notes: &notes };
        let stored = self.following.packets(&packets, near.writer);
        self.status.received(records.len(), received, self.following.place().place.next);
        stored.map_err(|error| error.to_string())
    }

    fn decompress(&mut self, answer: &FollowResponse) -> Result<Vec<u8>, String> {
        let size = usize::try_from(answer.size).unwrap_or(usize::MAX);
        if size > MAX_RECORDS {
            return Err(format!("{size} bytes of packets in one answer"));
        }
        let damaged = |error: std::io::Error| format!("damaged compressed packets: {error}");
        if self.decompressor.is_none() {
            self.decompressor = Some(zstd::bulk::Decompressor::new().map_err(damaged)?);
        }
        let Some(decompressor) = &mut self.decompressor else { return Ok(Vec::new()) };
        decompressor.decompress(&answer.compressed, size).map_err(damaged)
    }
}

/// Carries out orders, which `orders` has shown to be there; true if the source must stop.
fn obeyed(orders: &Receiver, near: &mut Near<'_>, control: &SourceControl) -> bool {
    // It fails if the order was taken before.
    let _ = orders.try_read(&mut [0; 8]);
    control.clear_if_ordered(|| near.writer.clear());
    control.must_stop()
}

/// Connects to a remote, and asks for packets.
///
/// # Errors
/// The reason, for people.
async fn connected(
    remote: &str,
    request: FollowRequest,
) -> Result<Streaming<FollowResponse>, String> {
    let mut client =
        ControlClient::new(channel(remote).await?).max_decoding_message_size(MAX_ANSWER);
    let answers = client.follow(request).await.map_err(|status| refusal(&status))?;
    Ok(answers.into_inner())
}

/// The first of some connections that is made.
///
/// # Errors
/// Why the last one failed, or that of another capture of this remote.
async fn channel(remote: &str) -> Result<Channel, String> {
    connect::attempt(remote)?;
    let mut attempts = JoinSet::new();
    loop {
        if attempts.len() < ATTEMPTS {
            let remote = remote.to_owned();
            attempts.spawn(async move { connect::channel(&remote).await });
        }
        tokio::select! {
            Some(done) = attempts.join_next() => match done {
                Ok(Ok(channel)) => return Ok(channel),
                Ok(Err(why)) if attempts.is_empty() => return Err(why),
                Err(error) if attempts.is_empty() => return Err(error.to_string()),
                Ok(Err(_)) | Err(_) => tokio::time::sleep(BESIDE).await,
            },
            () = tokio::time::sleep(BESIDE) => {}
        }
    }
}

/// A far daemon's status as text for people.
fn refusal(status: &Status) -> String {
    match status.code() {
        Code::Unimplemented => {
            "its pcapfs is too old to be followed (it has no Follow); update it there".to_owned()
        }
        Code::Unavailable | Code::Cancelled | Code::Unknown | Code::Internal => {
            let why = status.message();
            format!("the connection ended ({why})")
        }
        _ => format!("refused there: {}", status.message()),
    }
}

/// The end of a stream whose capture was last in this state.
fn ended(last: Option<State>, name: &MirrorName) -> ConnectionEnd {
    match last {
        Some(State::Ended) => ConnectionEnd::Exhausted,
        Some(state @ (State::Stopped | State::Failed)) => {
            let (state, capture) = (state_name(state).unwrap_or_default(), &name.capture);
            ConnectionEnd::Away(format!("{capture} is {state} there"))
        }
        _ => ConnectionEnd::Away("the far side ended the stream".to_owned()),
    }
}

fn beginning<'a>(
    header: &'a FollowHeader,
    interfaces: &'a [Interface],
) -> Result<FollowBeginning<'a>, String> {
    let place = header.place.ok_or("its ring has no identity")?;
    let precision = match header.precision {
        6 => Precision::Micro,
        9 => Precision::Nano,
        other => return Err(format!("times of 10^-{other} s, which this version does not know")),
    };
    let link_type = link_type(header.link_type);
    Ok(FollowBeginning {
        identity: StoreIdentity { store: place.ring, epoch: place.epoch },
        first: place.next,
        is_continued: header.continued,
        order: if header.big_endian { ByteOrder::Big } else { ByteOrder::Little },
        link_type: link_type.ok_or_else(|| format!("link type {}", header.link_type))?,
        precision,
        snaplen: header.snaplen,
        section: &header.section,
        interfaces,
    })
}

fn link_type(number: u32) -> Option<LinkType> {
    u16::try_from(number).ok().map(LinkType)
}

fn interface(described: &FollowInterface) -> Interface {
    let text = |text: &String| Some(text.clone()).filter(|text| !text.is_empty());
    Interface {
        name: text(&described.name),
        description: text(&described.description),
        filter: text(&described.filter),
        snaplen: described.snaplen,
        link_type: described.link_type.and_then(link_type),
    }
}

#[cfg(test)]
mod tests {
    use prost::Message;

    use super::*;

    fn header() -> FollowHeader {
        FollowHeader {
            place: Some(FollowPlace { ring: 7, epoch: 1, next: 5 }),
            link_type: 1,
            precision: 9,
            ..FollowHeader::default()
        }
    }

    #[test]
    fn fields_of_a_later_version_are_passed_over() {
        let answer =
            FollowResponse { first: 5, header: Some(header()), ..FollowResponse::default() };
        let mut wire = answer.encode_to_vec();
        // Field 100, a number, and field 101, bytes.
        wire.extend([0xa0, 0x06, 0x2a, 0xaa, 0x06, 3, b'n', b'e', b'w']);
        assert_eq!(FollowResponse::decode(&wire[..]).unwrap(), answer);
        // A state that this version does not know.
        let state = crate::control::messages::FollowState { state: 99, ..Default::default() };
        assert_eq!(state.state(), State::Unspecified);
    }

    #[test]
    fn an_older_version_is_told_from_a_missing_capture() {
        let old = refusal(&Status::unimplemented(""));
        assert!(old.contains("too old to be followed"), "{old}");
        let missing = refusal(&Status::not_found("web: no such capture"));
        assert_eq!(missing, "refused there: web: no such capture");
    }

    #[test]
    fn a_header_is_checked() {
        let good = header();
        let begun = beginning(&good, &[]).unwrap();
        assert_eq!((begun.first, begun.identity.store), (5, 7));
        for wrong in [
            FollowHeader { place: None, ..header() },
            FollowHeader { precision: 12, ..header() },
            FollowHeader { link_type: 1 << 20, ..header() },
        ] {
            assert!(beginning(&wrong, &[]).is_err(), "{wrong:?}");
        }
    }
}
