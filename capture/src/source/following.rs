//! Packets of another capture, with their numbers there, on their way into a ring.
//!
//! The sender is another daemon, so nothing that it sends is trusted: records, options and blocks
//! are checked one by one. The place in its store goes into the ring together with the packets, so
//! no packet is stored twice and none is left out, whatever happens to either side. Packets that
//! the sender could not give are counted as lost, and are a hole in pcapng.

use protocol::linktype::LinkType;
use protocol::time::{Precision, Timestamp};

use super::stream_metadata::StreamMetadata;
use super::{SourceError, SourceOptions};
use crate::clock;
use crate::filter::Filter;
use crate::record;
use crate::ring::{FarPlace, Writer};
use crate::savefile::ByteOrder;
use crate::savefile::metadata::{packet_options, section_options, whole_blocks};
use crate::savefile::stream::StreamPacket;
use crate::store::{Interface, Store, StoreIdentity, StorePlace};

/// The beginning of a stream of packets of another capture.
#[derive(Clone, Debug)]
pub struct FollowBeginning<'a> {
    /// The store that the packets are from.
    pub identity: StoreIdentity,
    /// Number of the first packet that the receiver should get.
    pub first: u64,
    /// True if the sender goes on at the place that it was given.
    pub is_continued: bool,
    /// Byte order of records, options and blocks.
    pub order: ByteOrder,
    /// Link type of all packets.
    pub link_type: LinkType,
    /// Resolution of their times.
    pub precision: Precision,
    /// Maximum number of bytes kept of one packet.
    pub snaplen: u32,
    /// Options of the section at the beginning of a pcapng file.
    pub section: &'a [u8],
    /// The interfaces that come before the first packet.
    pub interfaces: &'a [Interface],
}

/// Packets with consecutive numbers.
#[derive(Clone, Copy, Debug)]
pub struct FollowedPackets<'a> {
    /// Number of the first packet.
    pub first: u64,
    /// Records back to back.
    pub records: &'a [u8],
    /// The data that some of the packets have beside them, in rising order.
    pub notes: &'a [FollowedNote<'a>],
}

/// The data that a packet has beside it.
#[derive(Clone, Copy, Debug)]
pub struct FollowedNote<'a> {
    /// Index of the packet among those it comes with.
    pub index: u64,
    /// Index of its interface.
    pub interface: u32,
    /// Blocks before it.
    pub blocks: &'a [u8],
    /// Its options.
    pub options: &'a [u8],
}

/// A capture that is followed into a ring.
#[derive(Debug)]
pub struct Following {
    name: String,
    filter: Option<String>,
    /// The filter, compiled for this link type.
    compiled: Option<(LinkType, Filter)>,
    snaplen: u32,
    metadata: StreamMetadata,
    order: ByteOrder,
    precision: Precision,
    place: FarPlace,
}

impl Following {
    /// Follows a capture that is called `name` in messages.
    ///
    /// # Errors
    /// If the filter does not compile.
    pub fn new(name: &str, options: &SourceOptions<'_>) -> Result<Self, SourceError> {
        // As for every stream: an error is reported now, and Ethernet is the likely link type.
        let compiled = match options.filter {
            Some(expression) => {
                Some((LinkType::ETHERNET, Filter::compile(expression, LinkType::ETHERNET)?))
            }
            None => None,
        };
        let mut metadata = StreamMetadata::default();
        metadata.without_keys(!options.export_keys);
        Ok(Self {
            name: name.to_owned(),
            filter: options.filter.map(str::to_owned),
            compiled,
            snaplen: options.snaplen,
            metadata,
            order: ByteOrder::NATIVE,
            precision: Precision::Nano,
            place: FarPlace::default(),
        })
    }

    /// Begins to receive.
    ///
    /// # Errors
    /// [`SourceError::Changed`] and [`SourceError::Filter`]; nothing is received then.
    pub fn begin(
        &mut self,
        beginning: &FollowBeginning<'_>,
        writer: &mut Writer,
    ) -> Result<(), SourceError> {
        let sent = beginning.link_type;
        let changed = |held| SourceError::Changed { name: self.name.clone(), held, sent };
        if let Some(held) = writer.ring().header().filter(|held| held.link_type != sent) {
            return Err(changed(held.link_type));
        }
        if let Some(expression) = &self.filter
            && self.compiled.as_ref().is_none_or(|(known, _)| *known != sent)
        {
            self.compiled = Some((sent, Filter::compile(expression, sent)?));
        }
        self.order = beginning.order;
        self.precision = beginning.precision;
        self.metadata.reset();
        let section = section_options(beginning.section, self.order);
        self.metadata.section(&section, writer);
        for interface in beginning.interfaces {
            self.metadata.interface(interface, self.snaplen, writer);
        }
        self.metadata.begin(self.snaplen, writer);
        writer.declare(sent, beginning.snaplen.min(self.snaplen)).map_err(changed)?;
        let before = writer.far_place();
        let place = StorePlace { identity: beginning.identity, next: beginning.first };
        self.place = FarPlace { place, lost: before.map_or(0, |before| before.lost) };
        if before.is_some() && !beginning.is_continued {
            let name = &self.name;
            let why = format!(
                "{name} has another ring now; an unknown number of packets of the former one may \
                 be missing"
            );
            hole(writer, &why, clock::now());
        }
        writer.set_far_place(self.place);
        Ok(())
    }

    /// Describes another interface, which the packets after it may have.
    pub fn interface(&mut self, interface: &Interface, writer: &mut Writer) {
        self.metadata.interface(interface, self.snaplen, writer);
    }

    /// The place after the last packet received.
    #[must_use]
    pub const fn place(&self) -> FarPlace {
        self.place
    }

    /// Stores packets and publishes them.
    ///
    /// # Errors
    /// [`SourceError::Malformed`] if they are not what was to come. Those before are stored.
    pub fn packets(
        &mut self,
        packets: &FollowedPackets<'_>,
        writer: &mut Writer,
    ) -> Result<(), SourceError> {
        let stored = self.store(packets, writer);
        writer.publish();
        stored
    }

    fn store(
        &mut self,
        packets: &FollowedPackets<'_>,
        writer: &mut Writer,
    ) -> Result<(), SourceError> {
        let next = self.place.place.next;
        if packets.first < next {
            let first = packets.first;
            return Err(self.malformed(format!("packet {first} came again, after {next}")));
        }
        let mut rest = packets.records;
        let mut notes = packets.notes.iter().peekable();
        let mut index = 0_u64;
        while !rest.is_empty() {
            let Some((packet, after)) = self.packet(rest) else {
                return Err(self.malformed("a record is not whole".to_owned()));
            };
            rest = after;
            if index == 0 && packets.first > next {
                self.pass_gap(packets.first, packet.time, writer);
            }
            let note = notes.next_if(|note| note.index == index);
            let options = match note {
                Some(note) if !note.options.is_empty() => packet_options(note.options, self.order),
                _ => Vec::new(),
            };
            if let Some(note) = note {
                for block in whole_blocks(note.blocks, self.order) {
                    self.metadata.block(&block, writer);
                }
            }
            let interface = note.map_or(0, |note| note.interface);
            let packet = StreamPacket { interface, options: &options, ..packet };
            if self.is_wanted(&packet) {
                let data = packet.data.get(..self.snaplen as usize).unwrap_or(packet.data);
                self.metadata.store(&packet, data, writer);
            }
            index = index.saturating_add(1);
            self.place.place.next = packets.first.saturating_add(index);
            writer.set_far_place(self.place);
        }
        Ok(())
    }

    fn is_wanted(&self, packet: &StreamPacket<'_>) -> bool {
        let filter = self.compiled.as_ref();
        filter.is_none_or(|(_, filter)| filter.matches(packet.original_len, packet.data))
    }

    /// The first record of `bytes`, and the bytes after it.
    fn packet<'a>(&self, bytes: &'a [u8]) -> Option<(StreamPacket<'a>, &'a [u8])> {
        let (header, rest) = bytes.split_first_chunk::<{ record::HEADER_LEN }>()?;
        let [seconds, fraction, captured_len, original_len] = self.order.words(header);
        let (data, rest) = rest.split_at_checked(usize::try_from(captured_len).ok()?)?;
        let time = Timestamp::from_parts(seconds, fraction, self.precision);
        Some((StreamPacket { time, original_len, data, interface: 0, options: &[] }, rest))
    }

    /// Counts the packets before packet `first`, which was captured at `time`, as lost.
    fn pass_gap(&mut self, first: u64, time: Timestamp, writer: &mut Writer) {
        let lost = first.saturating_sub(self.place.place.next);
        self.place.lost = self.place.lost.saturating_add(lost);
        self.place.place.next = first;
        let packets = if lost == 1 { "1 packet was" } else { &format!("{lost} packets were") };
        let name = &self.name;
        hole(writer, &format!("{packets} no longer there when {name} was read"), time);
        writer.set_far_place(self.place);
    }

    fn malformed(&self, why: String) -> SourceError {
        SourceError::Malformed { name: self.name.clone(), why }
    }
}

/// Records a hole in time between the newest packet and `ended`.
fn hole(writer: &mut Writer, why: &str, ended: Timestamp) {
    writer.publish();
    let newest = writer.ring().bounds().newest_time;
    writer.source_lost(newest.map_or(ended, |newest| newest.min(ended)), why);
    writer.source_found(ended);
}
