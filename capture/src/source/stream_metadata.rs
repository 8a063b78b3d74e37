//! The data that a pcapng stream has beside its packets, on its way into a ring.

use std::sync::Arc;

use parking_lot::Mutex;
use protocol::time::Precision;

use crate::ring::{Append, MAX_INTERFACES, Writer};
use crate::savefile::metadata::{comments, has_keys, statistics_interface};
use crate::savefile::stream::StreamPacket;
use crate::store::{Interface, NoteRef, Store};

/// A snaplen that sets no limit: interfaces keep the one they state.
const NO_LIMIT: u32 = crate::savefile::DEFAULT_SNAPLEN;

/// The ring's indexes of the interfaces of all senders that are connected. Each of them has one
/// sender only, or the packets of two senders would seem to come from one.
pub(super) type SharedInterfaces = Arc<Mutex<Vec<u32>>>;

/// One of several senders.
#[derive(Debug)]
struct Sender {
    /// The name of its interfaces, before its own names for them.
    name: String,
    all: SharedInterfaces,
    /// The ring's index of the interface of a stream that describes none.
    own: Option<u32>,
}

/// The data received since the last stored packet, and the interfaces of the stream.
#[derive(Debug, Default)]
pub(super) struct StreamMetadata {
    /// Whether the stream's first packet has come, and the ring knows its interfaces.
    is_begun: bool,
    /// Options of the first section, until then.
    section: Vec<u8>,
    /// The first interfaces of the section, until then, and the number of further ones.
    waiting: Vec<Interface>,
    more: usize,
    /// The ring's index of each interface of the section.
    ids: Vec<u32>,
    /// The indexes that only one interface of the section has.
    taken: Vec<u32>,
    /// Blocks and options that belong to the next packet, and the number of these blocks.
    blocks: Vec<u8>,
    options: Vec<u8>,
    pending: u64,
    /// Statistics of the section's interfaces, kept until the ring knows these interfaces.
    statistics: Vec<Vec<u8>>,
    /// Whether decryption secrets are left out.
    without_keys: bool,
    /// Number of blocks that were left out.
    left_out: u64,
    /// Number of interfaces that are not distinguished from others.
    unnamed: u64,
    /// Set if others send at the same time.
    sender: Option<Sender>,
}

impl StreamMetadata {
    /// Resets the state of the stream, but keeps the data still to be stored.
    pub(super) fn reset(&mut self) {
        self.is_begun = false;
        self.forget_section();
        self.section.clear();
        if let Some(sender) = &mut self.sender {
            sender.own = None;
        }
    }

    fn forget_section(&mut self) {
        self.waiting.clear();
        self.more = 0;
        self.ids.clear();
        if let Some(sender) = &self.sender {
            sender.all.lock().retain(|id| !self.taken.contains(id));
        }
        self.taken.clear();
        self.left_out += self.statistics.drain(..).count() as u64;
    }

    /// Begins a section.
    pub(super) fn section(&mut self, options: &[u8], writer: &Writer) {
        self.forget_section();
        if self.is_begun {
            self.keep_comments(options, writer);
        } else {
            self.section = options.to_vec();
        }
    }

    /// Keeps the comments of a section for its first packet, unless the files of the ring begin
    /// with that section.
    fn keep_comments(&mut self, section: &[u8], writer: &Writer) {
        if section != writer.ring().section_options() {
            self.options.extend(comments(section));
        }
    }

    /// Adds an interface to the section.
    pub(super) fn interface(&mut self, interface: &Interface, snaplen: u32, writer: &mut Writer) {
        if self.is_begun {
            self.describe(interface, snaplen, writer);
        } else if self.waiting.len() < MAX_INTERFACES {
            self.waiting.push(interface.clone());
        } else {
            self.more += 1;
        }
    }

    /// Handles the first packet, whose link type is the one that the ring holds or will hold.
    pub(super) fn begin(&mut self, snaplen: u32, writer: &mut Writer) {
        self.is_begun = true;
        // The ring had ended, and continues.
        if let Some(blocks) = writer.take_trailing() {
            self.blocks.splice(..0, blocks.iter().copied());
            self.pending += 1;
        }
        let section = std::mem::take(&mut self.section);
        if writer.ring().header().is_none() {
            writer.begin_section(&section);
        } else {
            self.keep_comments(&section, writer);
        }
        for interface in std::mem::take(&mut self.waiting) {
            self.describe(&interface, snaplen, writer);
        }
        let last = self.ids.last().copied().unwrap_or(0);
        self.unnamed += self.more as u64;
        self.ids.resize(self.ids.len() + std::mem::take(&mut self.more), last);
        for block in std::mem::take(&mut self.statistics) {
            self.block(&block, writer);
        }
    }

    fn describe(&mut self, given: &Interface, snaplen: u32, writer: &mut Writer) {
        let own = writer.ring().own_interface();
        let limit = if snaplen < NO_LIMIT { snaplen } else { 0 };
        let name = match (&self.sender, &given.name) {
            (Some(sender), Some(name)) => Some(format!("{} {name}", sender.name)),
            (Some(sender), None) => Some(sender.name.clone()),
            (None, Some(name)) => Some(name.clone()),
            (None, None) => own.name.clone(),
        };
        let interface = Interface {
            name,
            description: given.description.clone(),
            // The filter of this capture, if it has one, chose the packets last.
            filter: own.filter.clone().or_else(|| given.filter.clone()),
            snaplen: if given.snaplen == 0 { limit } else { given.snaplen.min(snaplen) },
            link_type: given.link_type,
        };
        // Once the ring has no room for an interface, it has none for later ones.
        let is_full = self.ids.len() > self.taken.len();
        let described = if is_full {
            Err(self.ids.last().copied().unwrap_or(0))
        } else if let Some(sender) = &self.sender {
            let mut all = sender.all.lock();
            let described = writer.describe(&interface, &all);
            all.extend(described);
            described
        } else {
            writer.describe(&interface, &self.taken)
        };
        match described {
            Ok(id) => {
                self.taken.push(id);
                self.ids.push(id);
            }
            Err(id) => {
                self.unnamed += 1;
                self.ids.push(id);
            }
        }
    }

    /// Distinguishes the interfaces from those of other senders, which `all` has.
    pub(super) fn among(&mut self, name: String, all: &SharedInterfaces) {
        self.sender = Some(Sender { name, all: Arc::clone(all), own: None });
    }

    /// Describes the interface of a stream that describes none, and makes it the one of the next
    /// packets. `limit` is the maximum of bytes kept of one packet.
    pub(super) fn describe_own(&mut self, snaplen: u32, limit: u32, writer: &mut Writer) {
        if writer.ring().header().is_none() {
            writer.begin_section(&[]);
        }
        let sent =
            Interface { name: None, description: None, filter: None, snaplen, link_type: None };
        self.describe(&sent, limit, writer);
        if let Some(sender) = &mut self.sender {
            sender.own = self.ids.last().copied();
        }
        self.return_to_own_interface(writer);
    }

    /// Makes the interface of a stream that describes none the one of the next packets.
    pub(super) fn return_to_own_interface(&self, writer: &mut Writer) {
        if let Some(id) = self.sender.as_ref().and_then(|sender| sender.own) {
            writer.set_interface(id);
        }
    }

    /// Adds a block that belongs to the next packet.
    pub(super) fn block(&mut self, block: &[u8], writer: &Writer) {
        if self.without_keys && has_keys(block) {
            return;
        }
        // Blocks longer than a segment cannot be kept beside any packet.
        let waiting: usize = self.statistics.iter().map(Vec::len).sum();
        let len = self.blocks.len() + waiting + block.len();
        if len as u64 > writer.ring().geometry().segment_size {
            return self.leave_out();
        }
        let mut block = block.to_vec();
        if let Some(interface) = statistics_interface(&mut block) {
            if !self.is_begun {
                self.statistics.push(block);
                return;
            }
            let id = usize::try_from(u32::from_ne_bytes(*interface)).ok();
            let id = id.and_then(|id| self.ids.get(id));
            let has_unit = writer.ring().precision() == Precision::Nano;
            let Some(id) = id.filter(|_| has_unit) else { return self.leave_out() };
            *interface = id.to_ne_bytes();
        }
        self.blocks.extend(block);
        self.pending += 1;
    }

    /// Has the ring show the blocks that wait for a packet after its last packet, because no packet
    /// will come. Blocks of a stream without a packet are left out.
    pub(super) fn end(&mut self, writer: &mut Writer) {
        let pending = std::mem::take(&mut self.pending);
        let blocks = std::mem::take(&mut self.blocks);
        if writer.ring().header().is_none() {
            self.left_out += pending;
        } else if pending > 0 {
            writer.set_trailing(&blocks);
        }
        self.left_out += self.statistics.drain(..).count() as u64;
    }

    /// Sets whether decryption secrets are left out.
    pub(super) fn without_keys(&mut self, without_keys: bool) {
        self.without_keys = without_keys;
    }

    /// Counts a block that is left out.
    pub(super) fn leave_out(&mut self) {
        self.left_out += 1;
    }

    /// Stores `data` of a packet, with the data that came before the packet.
    pub(super) fn store(&mut self, packet: &StreamPacket<'_>, data: &[u8], writer: &mut Writer) {
        if !self.is_begun {
            let (Append::Stored | Append::Oversize) =
                writer.append(packet.time, packet.original_len, data);
            return;
        }
        let id = usize::try_from(packet.interface).ok().and_then(|index| self.ids.get(index));
        writer.set_interface(id.copied().unwrap_or(0));
        let options = if self.options.is_empty() {
            packet.options
        } else {
            self.options.extend_from_slice(packet.options);
            &self.options
        };
        let note = NoteRef { blocks: &self.blocks, options };
        let stored = writer.append_noted(packet.time, packet.original_len, data, note);
        match stored {
            Append::Stored => {
                self.blocks = Vec::new();
                self.pending = 0;
                self.options.clear();
            }
            // The ring counts it. The data that came before it is stored with the next packet.
            Append::Oversize => {
                let said = self.options.len().saturating_sub(packet.options.len());
                self.options.truncate(said);
            }
        }
    }

    /// Number of notes (blocks or options) that are not kept, and of interfaces that are not
    /// distinguished.
    pub(super) fn left_out(&self, writer: &Writer) -> (u64, u64) {
        (self.left_out + writer.left_out(), self.unnamed)
    }
}

impl Drop for StreamMetadata {
    /// Gives the interfaces back to senders to come.
    fn drop(&mut self) {
        self.forget_section();
    }
}
