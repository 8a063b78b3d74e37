//! Savefiles that arrive as a stream of bytes, one after the other: the code that FIFOs, standard
//! input and TCP connections share.
//!
//! When a writer leaves in the middle of a record, that record is dropped. The next writer begins
//! with a header of its own, and continues the same capture.

use protocol::linktype::LinkType;

use super::stream_metadata::{SharedInterfaces, StreamMetadata};
use super::{LeftOut, Observer, STOPPED, SourceControl, SourceError, SourceOptions};
use crate::clock;
use crate::filter::Filter;
use crate::ring::Writer;
use crate::savefile::stream::{StreamEvent, StreamReader};
use crate::store::{Store, StoreHeader};

/// The savefiles of one stream.
#[derive(Debug)]
pub(super) struct Arriving {
    /// Name of the stream, for messages.
    name: String,
    filter: Option<String>,
    /// The filter, compiled for this link type: the one sent last, or the likely one.
    compiled: Option<(LinkType, Filter)>,
    snaplen: u32,
    reader: StreamReader,
    pause: Pause,
    /// Name of the sender, if several send at the same time, each with interfaces of its own.
    sender: Option<String>,
    /// True once this writer has sent a header that fits the capture.
    has_begun: bool,
    /// After an error: ignore the rest of this writer's bytes, up to its end of file or to the
    /// beginning of another writer's file.
    skipping: bool,
    /// The data that the stream has beside packets.
    metadata: StreamMetadata,
    /// Packets of other link types than the capture's, which the capture cannot hold.
    foreign: u64,
    /// The counts of left-out data that were reported last.
    told: (u64, u64, u64),
}

impl Arriving {
    /// A stream of this name, before its first byte.
    ///
    /// # Errors
    /// If the filter does not compile.
    pub(super) fn new(name: String, options: &SourceOptions<'_>) -> Result<Self, SourceError> {
        // An expression that does not compile should be reported now. The result depends on the
        // link type, which is not known yet; Ethernet is the likely one.
        let compiled = match options.filter {
            Some(expression) => {
                Some((LinkType::ETHERNET, Filter::compile(expression, LinkType::ETHERNET)?))
            }
            None => None,
        };
        let mut metadata = StreamMetadata::default();
        metadata.without_keys(!options.export_keys);
        Ok(Self {
            name,
            filter: options.filter.map(str::to_owned),
            compiled,
            snaplen: options.snaplen,
            reader: StreamReader::new(),
            pause: Pause::default(),
            sender: None,
            has_begun: false,
            skipping: false,
            metadata,
            foreign: 0,
            told: (0, 0, 0),
        })
    }

    /// Gives the writer interfaces of its own among those of others that write at the same time:
    /// they have the name `sender`, before the writer's own names for them.
    pub(super) fn among(mut self, sender: String, interfaces: &SharedInterfaces) -> Self {
        self.metadata.among(sender.clone(), interfaces);
        self.sender = Some(sender);
        self
    }

    /// Returns true if the writer has sent a header that fits the capture.
    pub(super) fn has_begun(&self) -> bool {
        self.has_begun
    }

    /// Bytes of a record that has not arrived completely; 0 after an error.
    pub(super) fn half(&self) -> u64 {
        if self.skipping { 0 } else { self.reader.finish() }
    }

    /// Room for the next bytes.
    pub(super) fn space(&mut self) -> &mut [u8] {
        self.reader.space()
    }

    /// Takes the next `count` bytes, which have arrived, and stores every whole record.
    ///
    /// # Errors
    /// The error in the writer's bytes. The rest of them is ignored from now on.
    pub(super) fn arrived(
        &mut self,
        count: usize,
        writer: &mut Writer,
        observer: &mut dyn Observer,
    ) -> Result<(), SourceError> {
        self.reader.filled(count);
        self.go_on(writer, observer)
    }

    /// After an error: stores the packets that another writer may have sent since.
    ///
    /// # Errors
    /// The error in that writer's bytes.
    pub(super) fn go_on(
        &mut self,
        writer: &mut Writer,
        observer: &mut dyn Observer,
    ) -> Result<(), SourceError> {
        if self.skipping {
            if !self.reader.resume() {
                return Ok(());
            }
            self.metadata.reset();
            self.skipping = false;
        }
        let taken = self.take(writer, observer);
        self.skipping = taken.is_err();
        taken
    }

    /// Ends a writer's savefile, and reports a partial record if it left one.
    pub(super) fn left(&mut self, observer: &mut dyn Observer) {
        let half = self.half();
        if half > 0 {
            let why = format!("ended inside a record: {half} bytes dropped");
            observer.trouble(Some(&SourceError::Malformed { name: self.name.clone(), why }));
        }
        self.next_writer();
    }

    /// Drops what this writer has sent of a record; the next writer begins with a header.
    pub(super) fn next_writer(&mut self) {
        self.reader.reset();
        self.metadata.reset();
        self.skipping = false;
        self.has_begun = false;
    }

    /// Ends the stream: no other writer will come.
    pub(super) fn end(&mut self, writer: &mut Writer, observer: &mut dyn Observer) {
        self.metadata.end(writer);
        self.tell(writer, observer);
    }

    /// An error of the system, with the stream's name.
    pub(super) fn system(&self, error: impl Into<std::io::Error>) -> SourceError {
        SourceError::System { name: self.name.clone(), error: error.into() }
    }

    /// Pauses and resumes as `control` orders. While paused, packets are read but not stored.
    pub(super) fn pause_if_ordered(&mut self, writer: &mut Writer, control: &SourceControl) {
        self.pause.follow(writer, control);
    }

    /// Has this writer's packets stored or not, as those of all others.
    pub(super) fn set_pause(&mut self, pause: Pause) {
        self.pause = pause;
    }

    /// Stores every whole record that was read.
    fn take(
        &mut self,
        writer: &mut Writer,
        observer: &mut dyn Observer,
    ) -> Result<(), SourceError> {
        let malformed =
            |name: &str, why: String| SourceError::Malformed { name: name.to_owned(), why };
        // Another writer may have sent packets since.
        self.metadata.return_to_own_interface(writer);
        let result = loop {
            match self.reader.event() {
                Ok(None) => break Ok(()),
                Ok(Some(StreamEvent::Section(options))) => self.metadata.section(options, writer),
                Ok(Some(StreamEvent::Interface(interface))) => {
                    self.metadata.interface(interface, self.snaplen, writer);
                }
                Ok(Some(StreamEvent::Kept(block))) => self.metadata.block(block, writer),
                Ok(Some(StreamEvent::LeftOut)) => self.metadata.leave_out(),
                Ok(Some(StreamEvent::Header(header))) => {
                    // The filter first: a header whose packets it cannot judge changes nothing.
                    let begun = self.compile(header.link_type);
                    if let Err(error) = begun.and_then(|()| self.begin(&header, writer)) {
                        break Err(error);
                    }
                    observer.trouble(None);
                    self.told = (0, 0, 0);
                }
                Ok(Some(StreamEvent::Packet(packet))) => {
                    let data = packet.data.get(..self.snaplen as usize).unwrap_or(packet.data);
                    let matches = self
                        .compiled
                        .as_ref()
                        .is_none_or(|(_, filter)| filter.matches(packet.original_len, packet.data));
                    // A paused stream is still parsed, to stay in step with it.
                    if matches && !self.pause.is_paused() {
                        self.metadata.store(&packet, data, writer);
                    }
                }
                Ok(Some(StreamEvent::Foreign { .. })) => self.foreign += 1,
                Err(error) => break Err(malformed(&self.name, error.to_string())),
            }
        };
        writer.publish();
        self.tell(writer, observer);
        result
    }

    /// Reports the counts of left-out data if they have increased.
    fn tell(&mut self, writer: &Writer, observer: &mut dyn Observer) {
        let (notes, interfaces) = self.metadata.left_out(writer);
        if self.told != (self.foreign, notes, interfaces)
            && let Some(held) = writer.ring().header()
        {
            self.told = (self.foreign, notes, interfaces);
            let (held, packets) = (held.link_type, self.foreign);
            let left_out = LeftOut { held, packets, notes, interfaces };
            observer.trouble(Some(&SourceError::NotAll { name: self.name.clone(), left_out }));
        }
    }

    /// Compiles the filter for this link type, unless that was done last.
    fn compile(&mut self, sent: LinkType) -> Result<(), SourceError> {
        if let Some(expression) = &self.filter
            && self.compiled.as_ref().is_none_or(|(known, _)| *known != sent)
        {
            self.compiled = Some((sent, Filter::compile(expression, sent)?));
        }
        Ok(())
    }

    /// Handles a writer's header, which has its link type.
    fn begin(&mut self, header: &StoreHeader, writer: &mut Writer) -> Result<(), SourceError> {
        let sent = header.link_type;
        let changed = |held| SourceError::Changed { name: self.name.clone(), held, sent };
        // No interface of a refused writer is described.
        if let Some(held) = writer.ring().header().filter(|held| held.link_type != sent) {
            return Err(changed(held.link_type));
        }
        if self.reader.is_pcapng() {
            self.metadata.begin(self.snaplen, writer);
        } else {
            self.metadata.reset();
            writer.take_trailing();
            match &self.sender {
                Some(_) => self.metadata.describe_own(header.snaplen, self.snaplen, writer),
                None => writer.set_own_interface(),
            }
        }
        writer.declare(sent, header.snaplen.min(self.snaplen)).map_err(changed)?;
        self.has_begun = true;
        Ok(())
    }
}

/// A pause: packets are read but not stored while the capture is stopped.
#[derive(Clone, Copy, Debug, Default)]
pub(super) struct Pause {
    is_paused: bool,
}

impl Pause {
    pub(super) const fn is_paused(self) -> bool {
        self.is_paused
    }

    /// Pauses and resumes as `control` orders, and says so in the ring.
    pub(super) fn follow(&mut self, writer: &mut Writer, control: &SourceControl) {
        if self.is_paused == control.is_paused() {
            return;
        }
        self.is_paused = !self.is_paused;
        let now = clock::now();
        if self.is_paused {
            writer.source_rests(now, STOPPED);
        } else {
            writer.source_found(now);
        }
        writer.set_ended(self.is_paused);
    }
}
