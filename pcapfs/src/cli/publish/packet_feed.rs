//! Messages of packets, with the numbers that they have in their capture, and of the streams in them.
//!
//! The daemon sends them as to a daemon that follows the capture. So a place is kept across
//! interruptions, and the numbers that are left out are lost packets, exactly.

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use bytes::Bytes;
use capture::filter::Filter;
use protocol::linktype::LinkType;
use protocol::time::{Precision, Timestamp};
use serde::Serialize;
use tokio::time::sleep;
use tonic::Streaming;

use super::feed::{FeedItem, FeedSender, FeedSettings};
use super::message::{Message, MessagePlace};
use super::segments::{SegmentContext, SegmentPacket, Segments};
use crate::cli::client;
use crate::cli::outlet::follower::LogBeginning;
use crate::cli::outlet::position::{PacketPlace, SegmentPlace};
use crate::cli::outlet::trouble::Trouble;
use crate::control::messages::{
    FollowFrom, FollowHeader, FollowPlace, FollowRequest, FollowResponse,
};

/// The wait before the daemon is asked again.
const RESPITE: Duration = Duration::from_millis(300);

/// Bytes of a record of pcap before its packet.
const HEADER: usize = 16;

/// The wait for a packet, after which time passes for streams without one.
const TICK: Duration = Duration::from_secs(1);

/// A feed of packets.
#[derive(Debug)]
pub(super) struct PacketFeed {
    settings: Arc<FeedSettings>,
    /// Where it goes on; `None` before the first answer.
    place: Option<PacketPlace>,
    /// Packets lost so far.
    lost: u64,
    /// The sum of all feeds of the reader.
    counter: Arc<AtomicU64>,
    sender: FeedSender,
    /// The streams, if their segments are the messages.
    segments: Option<Box<Segments>>,
}

/// The reader has gone, or the feed has reported why it cannot go on.
struct Over;

/// A connection's facts about its packets.
struct PacketFacts {
    is_big_endian: bool,
    link_type: LinkType,
    precision: Precision,
    filter: Option<Filter>,
    /// Names, by index.
    interfaces: Vec<String>,
}

/// The JSON of a packet.
#[derive(Serialize)]
struct PacketLine<'a> {
    published: PublishedPacket,
    capture: &'a str,
    number: u64,
    time: String,
    /// Bytes of the packet in this message.
    captured: usize,
    /// Bytes on the wire.
    length: u32,
    interface: Option<&'a str>,
    linktype: String,
}

/// The part of a message's JSON about the message itself.
#[derive(Serialize)]
struct PublishedPacket {
    position: String,
    /// Packets lost so far.
    lost: u64,
}

impl PacketFeed {
    pub(super) fn packets(
        settings: Arc<FeedSettings>,
        place: Option<PacketPlace>,
        sender: FeedSender,
        counter: &Arc<AtomicU64>,
    ) -> Self {
        let counter = Arc::clone(counter);
        Self { settings, place, lost: 0, counter, sender, segments: None }
    }

    /// A feed of segments. It reads from the packet at which streams began.
    pub(super) fn segments(
        settings: Arc<FeedSettings>,
        place: Option<SegmentPlace>,
        sender: FeedSender,
        counter: &Arc<AtomicU64>,
    ) -> Self {
        let packets = place.map(|place| PacketPlace { next: place.since, ..place.packets });
        let segments = place
            .map_or_else(|| Segments::new(0, 0), |it| Segments::new(it.since, it.packets.next));
        let feed = Self::packets(settings, packets, sender, counter);
        Self { segments: Some(Box::new(segments)), ..feed }
    }

    /// Hands over until the reader has gone.
    pub(super) async fn run(mut self) {
        loop {
            match self.follow().await {
                Ok(Ok(())) => {}
                Ok(Err(Over)) => return,
                Err(trouble) => self.settings.reporter.away(&trouble.text),
            }
            tokio::select! {
                () = self.sender.closed() => return,
                () = sleep(RESPITE) => {}
            }
            if self.tick().await.is_err() {
                return;
            }
        }
    }

    async fn ask(&self) -> Result<Streaming<FollowResponse>, Trouble> {
        let daemon = &self.settings.source.daemon;
        let from = match self.settings.beginning {
            LogBeginning::Now => FollowFrom::Now,
            LogBeginning::Oldest => FollowFrom::Oldest,
        };
        let place =
            self.place.map(|PacketPlace { ring, epoch, next }| FollowPlace { ring, epoch, next });
        let request = FollowRequest {
            capture: self.settings.capture.clone(),
            from: from.into(),
            place,
            ..FollowRequest::default()
        };
        let asked = match client::open(daemon.socket()).await {
            Ok(mut client) => client.follow(request).await.map_err(client::failure),
            Err(failure) => Err(failure),
        };
        match asked {
            Ok(answers) => Ok(answers.into_inner()),
            Err(failure) => Err(daemon.trouble(failure).await),
        }
    }

    /// Follows over one connection, until it ends.
    async fn follow(&mut self) -> Result<Result<(), Over>, Trouble> {
        let mut answers = self.ask().await?;
        let mut facts = None;
        loop {
            let answer = tokio::select! {
                biased;
                () = self.sender.closed() => return Ok(Err(Over)),
                answer = answers.message() => answer,
                () = sleep(TICK), if self.segments.is_some() => {
                    match self.tick().await {
                        Ok(()) => continue,
                        Err(over) => return Ok(Err(over)),
                    }
                }
            };
            let answer = match answer {
                Ok(Some(answer)) => answer,
                // The capture has stopped; it is asked again until it runs.
                Ok(None) => return Ok(Ok(())),
                Err(status) => {
                    let failure = client::failure(status);
                    return Err(self.settings.source.daemon.trouble(failure).await);
                }
            };
            self.settings.reporter.back();
            if let Some(header) = &answer.header {
                match self.begin(header).await {
                    Ok(begun) => facts = Some(begun),
                    Err(over) => return Ok(Err(over)),
                }
            }
            let Some(facts) = &mut facts else { continue };
            facts.interfaces.extend(answer.interfaces.iter().map(|one| one.name.clone()));
            if !answer.records.is_empty() && self.take(&answer, facts).await.is_err() {
                return Ok(Err(Over));
            }
        }
    }

    /// Begins with the header of a connection.
    async fn begin(&mut self, header: &FollowHeader) -> Result<PacketFacts, Over> {
        let link_type = LinkType(u16::try_from(header.link_type).unwrap_or(u16::MAX));
        let filter = self.settings.filter.as_deref();
        let filter = match filter.map(|filter| Filter::compile(filter, link_type)).transpose() {
            Ok(filter) => filter,
            Err(error) => {
                self.hand(FeedItem::Failed(format!("--filter: {error}"))).await?;
                return Err(Over);
            }
        };
        if let Some(place) = header.place {
            let place = PacketPlace { ring: place.ring, epoch: place.epoch, next: place.next };
            let is_continued = header.continued && self.place.is_some();
            if self.place.is_some() && !is_continued {
                self.settings.reporter.restarted();
            }
            // Numbers that are left out are counted with the packets after them.
            let next = self.place.filter(|_| is_continued).map_or(place.next, |known| known.next);
            let place = PacketPlace { next, ..place };
            self.place = Some(place);
            if let Some(segments) = self.segments.as_mut().filter(|_| !is_continued) {
                **segments = Segments::new(next, 0);
            }
            self.mark(place).await?;
        }
        let precision = if header.precision == 6 { Precision::Micro } else { Precision::Nano };
        let interfaces = Vec::new();
        Ok(PacketFacts {
            is_big_endian: header.big_endian,
            link_type,
            precision,
            filter,
            interfaces,
        })
    }

    async fn take(&mut self, answer: &FollowResponse, facts: &PacketFacts) -> Result<(), Over> {
        let Some(mut place) = self.place else { return Ok(()) };
        // Those that a stream had before its place have been counted.
        let silent_before = self.segments.as_ref().map_or(0, |segments| segments.silent_before());
        let missing = answer.first.saturating_sub(place.next.max(silent_before));
        if missing > 0 {
            self.lost += missing;
            self.counter.fetch_add(missing, Ordering::Relaxed);
            self.settings.reporter.lost("packets", missing);
        }
        let mut notes = answer.notes.iter().peekable();
        let (mut number, mut index) = (answer.first, 0_u32);
        let mut rest = &answer.records[..];
        let mut is_handed = true;
        while let Some(record) = Record::take(&mut rest, facts) {
            while notes.peek().is_some_and(|note| note.index < index) {
                notes.next();
            }
            let note = notes.peek().filter(|note| note.index == index);
            let interface = note.map_or(0, |note| note.interface);
            let matches = |filter: &Filter| filter.matches(record.length, record.data);
            is_handed = facts.filter.as_ref().is_none_or(matches);
            if is_handed {
                let place = PacketPlace { next: number, ..place };
                let messages = self.messages(&record, place, interface, facts);
                is_handed = !messages.is_empty();
                for message in messages {
                    self.hand(FeedItem::Message(message)).await?;
                }
            }
            number = number.saturating_add(1);
            index = index.saturating_add(1);
            place.next = number;
            self.place = Some(place);
        }
        // The packets at the end gave no messages.
        if is_handed { Ok(()) } else { self.mark(place).await }
    }

    /// Hands over the place.
    async fn mark(&self, place: PacketPlace) -> Result<(), Over> {
        let segments = self.segments.as_ref().map(|segments| segments.place(place));
        self.hand(segments.map_or(FeedItem::Packets(place), FeedItem::Segments)).await
    }

    /// Lets time pass for streams.
    async fn tick(&mut self) -> Result<(), Over> {
        let (Some(place), Some(segments)) = (self.place, &mut self.segments) else {
            return Ok(());
        };
        let context = SegmentContext { capture: &self.settings.capture, place, lost: self.lost };
        for message in segments.advance(&context) {
            self.hand(FeedItem::Message(message)).await?;
        }
        Ok(())
    }

    /// The messages of the packet at this place.
    fn messages(
        &mut self,
        record: &Record<'_>,
        place: PacketPlace,
        interface: u32,
        facts: &PacketFacts,
    ) -> Vec<Message> {
        let Some(segments) = &mut self.segments else {
            return vec![self.message(record, place, interface, facts)];
        };
        let Record { time, length, data } = *record;
        let packet = SegmentPacket { link_type: facts.link_type, time, length, data };
        let context = SegmentContext { capture: &self.settings.capture, place, lost: self.lost };
        segments.packet(&packet, &context)
    }

    fn message(
        &self,
        record: &Record<'_>,
        place: PacketPlace,
        interface: u32,
        facts: &PacketFacts,
    ) -> Message {
        let PacketPlace { ring, epoch, next: number } = place;
        let published = PublishedPacket {
            position: format!("{ring:016x}.{epoch}.packet.{number}"),
            lost: self.lost,
        };
        let interface = usize::try_from(interface).ok().and_then(|at| facts.interfaces.get(at));
        let line = PacketLine {
            published,
            capture: &self.settings.capture,
            number,
            time: record.time.to_rfc3339(),
            captured: record.data.len(),
            length: record.length,
            interface: interface.map(String::as_str).filter(|name| !name.is_empty()),
            linktype: facts.link_type.name(),
        };
        let mut json = Vec::with_capacity(256);
        protocol::json::append(&mut json, &line);
        let frames = vec![Bytes::from(json), Bytes::copy_from_slice(record.data)];
        Message {
            topic: "packet",
            frames,
            place: MessagePlace::Packet(number),
            id: String::new(),
            sequence: 0,
        }
    }

    async fn hand(&self, item: FeedItem) -> Result<(), Over> {
        self.sender.send(item).await.map_err(|_| Over)
    }
}

/// A record of a packet.
struct Record<'a> {
    time: Timestamp,
    length: u32,
    data: &'a [u8],
}

impl<'a> Record<'a> {
    /// Takes the first record; `None` after the last one.
    fn take(rest: &mut &'a [u8], facts: &PacketFacts) -> Option<Self> {
        let (header, after) = rest.split_first_chunk::<HEADER>()?;
        let word = |at: usize| {
            let bytes = header.get(at..)?.first_chunk::<4>().copied()?;
            Some(if facts.is_big_endian {
                u32::from_be_bytes(bytes)
            } else {
                u32::from_le_bytes(bytes)
            })
        };
        let (seconds, fraction, captured, length) = (word(0)?, word(4)?, word(8)?, word(12)?);
        let (data, after) = after.split_at_checked(usize::try_from(captured).ok()?)?;
        *rest = after;
        let time = Timestamp::from_parts(seconds, fraction, facts.precision);
        Some(Self { time, length, data })
    }
}
