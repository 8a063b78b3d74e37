//! Chunks converted from a savefile whose bytes cannot be served unchanged: pcapng, the other byte
//! order, packets left out or cut.

use std::collections::VecDeque;
use std::sync::Arc;

use protocol::linktype::LinkType;

use super::index::IndexEntry;
use super::metadata;
use super::verdicts::matched;
use super::walk::{FileFormat, FileInterface, FilePacket, WalkResult};
use crate::record;
use crate::store::{Converted, PacketNote, Selection};

/// Maximum number of chunks kept: enough for some readers that read the file side by side.
const CACHED_CHUNKS: usize = 8;

/// Maximum bytes kept, unless the newest chunk alone has more: eight chunks of usual size.
const CACHED_LEN: usize = 2 << 20;

/// The parameters shared by all chunks of a file.
#[derive(Clone, Copy, Debug)]
pub(super) struct Conversion<'a> {
    /// The file.
    pub(super) bytes: &'a [u8],
    pub(super) format: &'a FileFormat,
    /// At least all interfaces described before the end of the chunk.
    pub(super) interfaces: &'a [FileInterface],
    /// Maximum bytes served of a packet.
    pub(super) snaplen: u32,
    /// Link type of the packets in `.pcap` files.
    pub(super) link_type: LinkType,
    /// Whether decryption secrets are left out.
    pub(super) without_keys: bool,
}

impl Conversion<'_> {
    /// Converts the records of a chunk. `pcap_len` is the length, according to the index, of the
    /// records with the link type of `.pcap` files. Together with [`IndexEntry::len`] it limits the
    /// memory that is allocated.
    ///
    /// `None` if the file no longer holds what the index found there.
    pub(super) fn convert(&self, entry: &IndexEntry, pcap_len: u64) -> Option<Converted> {
        let Self { format, interfaces, snaplen, link_type, .. } = *self;
        let bytes = self.bytes.get(..entry.end)?;
        let (len, pcap_len) = (usize::try_from(entry.len).ok()?, usize::try_from(pcap_len).ok()?);
        let mut converted = Converted { bytes: Vec::with_capacity(len), ..Converted::default() };
        // Each record has a header, so the lengths differ if and only if the packets do.
        let mut selection = (pcap_len != len)
            .then(|| Selection { bytes: Vec::with_capacity(pcap_len), ..Selection::default() });
        let mut place = entry.place;
        let mut packets = 0_usize;
        let (mut records, mut blocks, mut comments) = (0_u32, Vec::new(), Vec::new());
        while place.offset < entry.end {
            match place.step(bytes, format, interfaces).ok()? {
                WalkResult::Packet(packet) => {
                    if matched(entry.matched.as_deref(), packets) {
                        append(&mut converted.bytes, &packet, snaplen, len)?;
                        if let Some(selection) = &mut selection {
                            if packet.link_type == link_type {
                                append(&mut selection.bytes, &packet, snaplen, pcap_len)?;
                                selection.indices.push(selection.records);
                            }
                            selection.records = selection.records.checked_add(1)?;
                        }
                        if matches!(format, FileFormat::Pcapng) {
                            converted.interfaces.push(packet.interface);
                            let blocks = std::mem::take(&mut blocks);
                            let mut options = std::mem::take(&mut comments);
                            options.extend(packet.kept_options());
                            let note = PacketNote { index: records, blocks, options };
                            if !note.is_empty() {
                                converted.notes.push(note);
                            }
                        }
                        records = records.checked_add(1)?;
                    }
                    packets = packets.checked_add(1)?;
                }
                WalkResult::Interface(_) => place.describe(),
                WalkResult::Kept(head, _) if self.without_keys && metadata::is_keys(&head) => {}
                WalkResult::Kept(head, bytes) => {
                    blocks.extend(place.kept(&head, bytes, interfaces).unwrap_or_default());
                }
                WalkResult::Section(more) => comments.extend(more),
                WalkResult::Other => {}
                WalkResult::End => return None,
            }
        }
        if place.described <= 1 {
            converted.interfaces = Vec::new();
        }
        let selected = selection.as_ref().is_none_or(|selection| selection.bytes.len() == pcap_len);
        converted.selection = selection;
        (converted.bytes.len() == len && selected).then_some(converted)
    }
}

/// Appends a packet as a native record; `None` if the result would exceed `most` bytes.
fn append(out: &mut Vec<u8>, packet: &FilePacket<'_>, snaplen: u32, most: usize) -> Option<()> {
    let captured_len = u32::try_from(packet.data.len()).ok()?.min(snaplen);
    let data = packet.data.get(..captured_len as usize)?;
    let len = out.len().checked_add(record::HEADER_LEN)?.checked_add(data.len())?;
    if len > most {
        return None;
    }
    // As in the file, even if the fraction is a second or more.
    for field in [packet.seconds, packet.fraction, captured_len, packet.original_len] {
        out.extend_from_slice(&field.to_ne_bytes());
    }
    out.extend_from_slice(data);
    Some(())
}

/// A cache of the last converted chunks, so that readers one after the other do not convert twice.
#[derive(Debug, Default)]
pub(super) struct ConvertedChunks {
    /// Least recently used first.
    chunks: VecDeque<(u64, Arc<Converted>)>,
}

impl ConvertedChunks {
    pub(super) fn get(&mut self, chunk: u64) -> Option<Arc<Converted>> {
        let at = self.chunks.iter().position(|(id, _)| *id == chunk)?;
        let entry = self.chunks.remove(at)?;
        let converted = Arc::clone(&entry.1);
        self.chunks.push_back(entry);
        Some(converted)
    }

    pub(super) fn insert(&mut self, chunk: u64, converted: Arc<Converted>) {
        self.chunks.retain(|(id, _)| *id != chunk);
        self.chunks.push_back((chunk, converted));
        while self.chunks.len() > CACHED_CHUNKS || self.chunks.len() > 1 && self.len() > CACHED_LEN
        {
            self.chunks.pop_front();
        }
    }

    fn len(&self) -> usize {
        let lens = self.chunks.iter().map(|(_, converted)| {
            let selected =
                converted.selection.as_ref().map_or(0, |selection| selection.bytes.len());
            converted.bytes.len().saturating_add(selected)
        });
        lens.fold(0, usize::saturating_add)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_cache_keeps_the_chunks_used_last_within_its_bounds() {
        let chunk = |len| Arc::new(Converted { bytes: vec![0; len], ..Converted::default() });
        let mut cache = ConvertedChunks::default();
        for id in 0..10 {
            cache.insert(id, chunk(100));
            assert!(cache.get(0).is_some() || id >= CACHED_CHUNKS as u64 + 2);
        }
        assert_eq!(cache.chunks.len(), CACHED_CHUNKS);
        assert!(cache.get(1).is_none(), "the least recently used went");
        cache.insert(10, chunk(CACHED_LEN + 1));
        assert_eq!(cache.chunks.len(), 1, "a large one goes alone");
        assert!(cache.get(10).is_some());
    }
}
