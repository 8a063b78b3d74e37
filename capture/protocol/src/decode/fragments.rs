//! Reassembly of fragmented datagrams.
//!
//! A datagram is a sorted list of pieces, places in captured packets, and a copy of its first
//! [`HEAD_LEN`] bytes, which are needed to decode it once it is complete. Memory, number and age
//! are limited for any input. Every limit has a counter.
//!
//! Sources: RFC 791 3.2, RFC 815, RFC 8200 4.5. RFC 5722 wants datagrams with overlaps dropped. A
//! capture cannot know what the receiver did, so overlapping datagrams are completed, by policy,
//! and counted.

use std::collections::{BTreeMap, HashMap, VecDeque};
use std::net::IpAddr;

use super::view::{At, DatagramPiece, HeaderView, ViewState, narrow};
use super::{DecodeOptions, PacketTunnel, Reason, Transport, Vlans, overlaps};
use crate::linktype::LinkType;
use crate::time::Timestamp;

/// Bytes kept of a datagram's beginning: room for the headers of a tunnel in a tunnel with all
/// their options. Headers beyond it count as truncated.
const HEAD_LEN: usize = 512;

/// Maximum length of a datagram: the total length of IPv4, the payload length of IPv6.
pub(super) const MAX_DATAGRAM_LEN: u32 = 65_535;

/// Number of complete datagrams whose copies are recognized, and for how long, in nanoseconds.
/// Copies captured on two interfaces come at once. After a longer time, another datagram might have
/// the same number.
const MAX_DONE: usize = 32;
const COPY_TIME: u64 = 100_000_000;

/// Maximum number of given-up datagrams that wait for the caller to fetch them.
const MAX_GIVEN_UP: usize = 64;

/// Counters of reassembly.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct FragmentCounters {
    /// Datagrams completed.
    pub reassembled: u64,
    /// Fragments that overlap an earlier one, including repeated ones.
    pub overlapping: u64,
    /// Fragments refused because their datagram already has [`DecodeOptions::max_fragments`]
    /// pieces.
    pub too_many: u64,
    /// Datagrams given up because they were not complete in time.
    pub expired: u64,
    /// Datagrams given up to make room for newer ones.
    pub evicted: u64,
    /// Datagrams under reassembly now.
    pub pending: u64,
}

/// The fields that all fragments of one datagram share.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub(super) struct DatagramKey {
    pub(super) source: IpAddr,
    pub(super) destination: IpAddr,
    pub(super) identification: u32,
    /// 0 for IPv6, where only the first fragment states the protocol.
    pub(super) protocol: u8,
    /// The same private addresses may occur in several networks.
    pub(super) vlans: Vlans,
    pub(super) tunnel: Option<PacketTunnel>,
}

/// One fragment.
#[derive(Clone, Copy, Debug)]
pub(super) struct Fragment<'v> {
    pub(super) key: DatagramKey,
    /// The protocol of the contents, as this fragment states it.
    pub(super) protocol: u8,
    /// Its offset in the datagram.
    pub(super) offset: u32,
    /// More fragments follow.
    pub(super) more: bool,
    pub(super) payload: At<'v>,
    /// Link type of the packet it came in.
    pub(super) link_type: LinkType,
}

/// Facts from the first fragment of a datagram whose payload is returned early.
#[derive(Clone, Copy, Debug)]
pub(super) struct Begun {
    /// Identifies the datagram.
    pub(super) datagram: u64,
    pub(super) protocol: u8,
    pub(super) transport: Transport,
    /// Offset of the payload in the datagram: after the transport header.
    pub(super) start: u32,
    pub(super) end: u32,
}

/// The result for a fragment that was accepted.
#[derive(Debug)]
pub(super) enum Came {
    /// Other fragments must come first.
    Waits,
    /// Its datagram is complete.
    Whole(Box<FragmentedDatagram>),
    /// The beginning of its datagram was returned before.
    Part {
        begun: Begun,
        /// The datagram is complete.
        completes: bool,
        /// It was complete before this fragment, which is a copy.
        is_copy: bool,
    },
}

/// A complete datagram that was returned in portions.
#[derive(Clone, Copy, Debug)]
struct ReturnedDatagram {
    key: DatagramKey,
    begun: Begun,
    len: u32,
    at: Timestamp,
}

/// All datagrams under reassembly.
#[derive(Debug, Default)]
pub(super) struct Fragments {
    datagrams: HashMap<DatagramKey, FragmentedDatagram>,
    /// Their keys by [`FragmentedDatagram::serial`]: oldest first.
    ages: BTreeMap<u64, DatagramKey>,
    next_serial: u64,
    bytes: usize,
    counters: FragmentCounters,
    /// Given up; the caller may still fetch their beginnings.
    given_up: VecDeque<(DatagramKey, FragmentedDatagram)>,
    /// Complete ones whose copies may still come.
    done: VecDeque<ReturnedDatagram>,
}

/// A datagram, complete or not.
#[derive(Debug)]
pub(super) struct FragmentedDatagram {
    serial: u64,
    created: Timestamp,
    link_type: LinkType,
    /// From the fragment at offset 0.
    protocol: u8,
    /// Its length in bytes, known from the last fragment.
    total: Option<u32>,
    /// Sum of the lengths of the pieces, in bytes.
    covered: u32,
    /// Sorted, without overlap, all within `total`.
    pieces: Vec<DatagramPiece>,
    /// Its first bytes; zero where no [`ViewState::Known`] piece covers them.
    head: Vec<u8>,
    /// Packets that its fragments came in, whether their bytes are in pieces or not. The limit is
    /// the same as for pieces: if a fragment is repeated endlessly, the packets beyond it are not
    /// listed.
    packets: Vec<u64>,
    begun: Option<Begun>,
}

impl Fragment<'_> {
    /// The number of bytes that count.
    pub(super) fn len(&self) -> usize {
        let len = self.payload.wire_len();
        // As in Linux: bytes after the last multiple of 8 are dropped, because the next fragment
        // can only begin at such a multiple.
        if self.more { len & !7 } else { len }
    }
}

impl Fragments {
    #[inline]
    pub(super) fn has_any(&self) -> bool {
        !self.ages.is_empty()
    }

    pub(super) fn counters(&self) -> FragmentCounters {
        FragmentCounters { pending: self.ages.len() as u64, ..self.counters }
    }

    pub(super) const fn bytes(&self) -> usize {
        self.bytes
    }

    /// Gives up datagrams that are too old at `now`.
    pub(super) fn expire(&mut self, now: Timestamp, options: &DecodeOptions) {
        let timeout = u64::try_from(options.fragment_timeout.as_nanos()).unwrap_or(u64::MAX);
        while let Some(key) = self.ages.first_entry().map(|entry| *entry.get()) {
            let created = self.datagrams.get(&key).map_or(0, |one| one.created.nanoseconds());
            if now.nanoseconds().saturating_sub(created) <= timeout {
                break;
            }
            self.give_up(&key, options);
            count(&mut self.counters.expired);
        }
    }

    /// The next given-up datagram. Its beginning is known, and nothing of it was returned before.
    pub(super) fn given_up(&mut self) -> Option<(DatagramKey, FragmentedDatagram)> {
        let (key, datagram) = self.given_up.pop_front()?;
        Some((key, datagram.finish()))
    }

    pub(super) fn has_given_up(&self) -> bool {
        !self.given_up.is_empty()
    }

    fn give_up(&mut self, key: &DatagramKey, options: &DecodeOptions) -> bool {
        let Some(datagram) = self.remove(key) else { return false };
        if options.early && datagram.begun.is_none() && datagram.known() > 0 {
            if self.given_up.len() >= MAX_GIVEN_UP {
                self.given_up.pop_front();
            }
            self.given_up.push_back((*key, datagram));
        }
        true
    }

    /// Adds a fragment to its datagram.
    ///
    /// # Errors
    /// [`Reason::BadFragment`] if it is refused; its datagram stays as it was.
    pub(super) fn insert(
        &mut self,
        fragment: &Fragment<'_>,
        now: Timestamp,
        options: &DecodeOptions,
    ) -> Result<Came, Reason> {
        let len =
            u32::try_from(fragment.len()).ok().filter(|len| *len > 0).ok_or(Reason::BadFragment)?;
        let end = fragment.offset.checked_add(len).filter(|end| *end <= MAX_DATAGRAM_LEN);
        let end = end.ok_or(Reason::BadFragment)?;
        let payload = fragment.payload.limit(len as usize);

        if !self.datagrams.contains_key(&fragment.key) {
            if let Some(begun) = self.copied(fragment, end, now) {
                return Ok(Came::Part { begun, completes: true, is_copy: true });
            }
            self.create(fragment, now, options);
        }
        let Some(datagram) = self.datagrams.get_mut(&fragment.key) else {
            return Err(Reason::BadFragment);
        };
        let before = datagram.bytes();
        let inserted = datagram.insert(fragment, payload, end, options);
        let after = datagram.bytes();
        let is_complete = datagram.total == Some(datagram.covered);
        let is_empty = datagram.pieces.is_empty();
        let begun = datagram.begun;
        self.bytes = self.bytes.saturating_sub(before).saturating_add(after);
        match inserted {
            Ok(overlaps) => {
                if overlaps {
                    count(&mut self.counters.overlapping);
                }
            }
            Err(refused) => {
                if refused == Refused::TooMany {
                    count(&mut self.counters.too_many);
                }
                if is_empty {
                    self.remove(&fragment.key);
                }
                return Err(Reason::BadFragment);
            }
        }
        if is_complete {
            count(&mut self.counters.reassembled);
            let whole = self.remove(&fragment.key);
            match (begun, whole) {
                (None, Some(whole)) => return Ok(Came::Whole(Box::new(whole.finish()))),
                (Some(begun), Some(whole)) => {
                    let FragmentedDatagram { covered: len, .. } = whole;
                    self.done.push_back(ReturnedDatagram {
                        key: fragment.key,
                        begun,
                        len,
                        at: now,
                    });
                    self.done.drain(..self.done.len().saturating_sub(MAX_DONE));
                }
                (_, None) => {}
            }
        } else {
            while self.bytes > options.max_fragment_bytes && self.evict(options) {}
        }
        let part = |begun| Came::Part { begun, completes: is_complete, is_copy: false };
        Ok(begun.map_or(Came::Waits, part))
    }

    /// The datagram this fragment is a copy of, if that was completed very recently. A first
    /// fragment begins another datagram, so it is never a copy.
    fn copied(&self, fragment: &Fragment<'_>, end: u32, now: Timestamp) -> Option<Begun> {
        let is_recent = |done: &&ReturnedDatagram| {
            now.nanoseconds().abs_diff(done.at.nanoseconds()) <= COPY_TIME
        };
        let mut done = self.done.iter().rev().take_while(is_recent);
        let done = done.find(|done| done.key == fragment.key)?;
        let fits = if fragment.more { end < done.len } else { end == done.len };
        (fragment.offset > 0 && fits).then_some(done.begun)
    }

    /// The known beginning of a waiting fragment's datagram, unless it was returned before. `None`
    /// if the fragment cannot have changed what is known of the headers.
    pub(super) fn beginning(&mut self, fragment: &Fragment<'_>) -> Option<Beginning> {
        if fragment.offset as usize >= HEAD_LEN {
            return None;
        }
        let datagram = self.datagrams.get_mut(&fragment.key)?;
        let known = datagram.known();
        if known == 0 || datagram.begun.is_some() {
            return None;
        }
        let head = datagram.head.get(..known as usize)?.to_vec();
        Some(Beginning { head, protocol: datagram.protocol, total: datagram.total })
    }

    /// From now on, the payload of this datagram is returned as it comes. Returns its current
    /// contents.
    pub(super) fn begin(
        &mut self,
        key: &DatagramKey,
        transport: Transport,
        protocol: u8,
        payload: (usize, usize),
    ) -> Option<(Begun, Box<FragmentedDatagram>)> {
        let datagram = self.datagrams.get_mut(key)?;
        let start = narrow(payload.0);
        let end = start.saturating_add(narrow(payload.1));
        let begun = Begun { datagram: datagram.serial, protocol, transport, start, end };
        datagram.begun = Some(begun);
        let so_far = FragmentedDatagram {
            pieces: datagram.pieces.clone(),
            head: Vec::new(),
            packets: datagram.packets.clone(),
            ..*datagram
        };
        Some((begun, Box::new(so_far.finish())))
    }

    fn create(&mut self, fragment: &Fragment<'_>, now: Timestamp, options: &DecodeOptions) {
        let key = fragment.key;
        while self.ages.len() >= options.max_datagrams.max(1) && self.evict(options) {}
        let serial = self.next_serial;
        self.next_serial = serial.wrapping_add(1);
        let datagram = FragmentedDatagram {
            serial,
            created: now,
            link_type: fragment.link_type,
            protocol: 0,
            total: None,
            covered: 0,
            pieces: Vec::new(),
            head: Vec::new(),
            packets: Vec::new(),
            begun: None,
        };
        self.bytes = self.bytes.saturating_add(datagram.bytes());
        self.ages.insert(serial, key);
        self.datagrams.insert(key, datagram);
    }

    /// Gives up the oldest datagram; `false` if there are no datagrams.
    pub(super) fn evict(&mut self, options: &DecodeOptions) -> bool {
        let Some(key) = self.ages.first_entry().map(|entry| *entry.get()) else {
            return false;
        };
        count(&mut self.counters.evicted);
        self.give_up(&key, options)
    }

    fn remove(&mut self, key: &DatagramKey) -> Option<FragmentedDatagram> {
        let datagram = self.datagrams.remove(key)?;
        self.ages.remove(&datagram.serial);
        self.bytes = self.bytes.saturating_sub(datagram.bytes());
        Some(datagram)
    }
}

/// The known beginning of an incomplete datagram.
#[derive(Debug)]
pub(super) struct Beginning {
    /// Its first bytes.
    pub(super) head: Vec<u8>,
    /// The protocol of its contents.
    pub(super) protocol: u8,
    /// Its length in bytes, if its last fragment is here.
    pub(super) total: Option<u32>,
}

impl Beginning {
    pub(super) fn view(&self) -> HeaderView<'_> {
        HeaderView::pieces(&self.head, &[])
    }

    /// The maximum length it can have, in bytes.
    pub(super) fn most(&self) -> usize {
        self.total.unwrap_or(MAX_DATAGRAM_LEN) as usize
    }
}

/// The reason for which a fragment is refused.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Refused {
    /// It contradicts the known end of the datagram.
    End,
    TooMany,
}

impl FragmentedDatagram {
    /// The protocol of its contents.
    pub(super) const fn protocol(&self) -> u8 {
        self.protocol
    }

    pub(super) fn view(&self) -> HeaderView<'_> {
        HeaderView::pieces(&self.head, &self.pieces)
    }

    /// When its first fragment came, and the link type of that packet.
    pub(super) const fn origin(&self) -> (Timestamp, LinkType) {
        (self.created, self.link_type)
    }

    /// Its length in bytes, if its last fragment is here.
    pub(super) const fn total(&self) -> Option<u32> {
        self.total
    }

    /// Numbers of the packets it came in; ascending once it is complete.
    pub(super) fn packets(&self) -> &[u64] {
        &self.packets
    }

    /// Number of its bytes that are covered by pieces.
    pub(super) const fn len(&self) -> usize {
        self.covered as usize
    }

    /// End of the last piece, captured or known to have been on the wire.
    pub(super) fn end(&self) -> u32 {
        self.pieces.last().map_or(0, DatagramPiece::end)
    }

    /// Number of available bytes from its beginning on.
    fn known(&self) -> u32 {
        let mut end = 0;
        for piece in &self.pieces {
            if piece.state != ViewState::Known || piece.start != end || end as usize >= HEAD_LEN {
                break;
            }
            end = piece.end();
        }
        end.min(narrow(self.head.len()))
    }

    /// Memory it occupies in bytes, including its entries in both tables.
    const fn bytes(&self) -> usize {
        /// Its key in both tables, and the serial number.
        const TABLES: usize = 2 * size_of::<DatagramKey>() + size_of::<u64>();
        let own = size_of::<Self>().saturating_add(TABLES);
        let pieces = self.pieces.capacity().saturating_mul(size_of::<DatagramPiece>());
        let packets = self.packets.capacity().saturating_mul(size_of::<u64>());
        own.saturating_add(pieces).saturating_add(packets).saturating_add(self.head.capacity())
    }

    /// Adds a fragment. Returns whether it overlaps earlier ones.
    fn insert(
        &mut self,
        fragment: &Fragment<'_>,
        payload: At<'_>,
        end: u32,
        options: &DecodeOptions,
    ) -> Result<bool, Refused> {
        let start = fragment.offset;
        let last_end = self.pieces.last().map_or(0, DatagramPiece::end);
        let total = if fragment.more { self.total } else { Some(end) };
        let contradicts = self.total.is_some() && total != self.total;
        if contradicts || total.is_some_and(|total| end.max(last_end) > total) {
            return Err(Refused::End);
        }

        let fresh = payload.pieces(start, options.max_fragments.saturating_add(1));
        // The pieces that overlap the fragment.
        let low = self.pieces.partition_point(|piece| piece.end() <= start);
        let high = self.pieces.partition_point(|piece| piece.start < end);
        let old = self.pieces.get(low..high).unwrap_or_default();
        let overlaps = !old.is_empty();
        let (merged, added) = overlaps::merge(options.overlap, old, &fresh, start..end);
        let others = self.pieces.len().saturating_sub(old.len());
        if others.saturating_add(merged.len()) > options.max_fragments {
            return Err(Refused::TooMany);
        }
        let old_len: u32 = old.iter().map(|piece| piece.len).sum();
        let new_len: u32 = merged.iter().map(|piece| piece.len).sum();
        for piece in &added {
            self.copy_head(piece, start, payload.rest());
        }
        self.pieces.splice(low..high, merged);
        for packet in fresh.iter().map(|piece| piece.packet) {
            let is_new = self.packets.last() != Some(&packet);
            if is_new && self.packets.len() < options.max_fragments {
                self.packets.push(packet);
            }
        }
        self.covered = self.covered.saturating_sub(old_len).saturating_add(new_len);
        self.total = total;
        let first = start == 0 && added.first().is_some_and(|piece| piece.start == 0);
        if first {
            self.protocol = fragment.protocol;
        }
        Ok(overlaps)
    }

    /// Copies the part of `piece` that belongs into the head. `bytes` are those of its fragment,
    /// which begins at `start`.
    fn copy_head(&mut self, piece: &DatagramPiece, start: u32, bytes: &[u8]) {
        let (from, to) = (piece.start as usize, (piece.end() as usize).min(HEAD_LEN));
        if piece.state != ViewState::Known || from >= to {
            return;
        }
        if self.head.len() < to {
            self.head.resize(to, 0);
        }
        let skip = piece.start.saturating_sub(start) as usize;
        let target = self.head.get_mut(from..to).into_iter().flatten();
        for (target, source) in target.zip(bytes.iter().skip(skip)) {
            *target = *source;
        }
    }

    /// Prepares the datagram to be returned: the head without unknown bytes, as few pieces as
    /// possible, and packets in order, each once.
    fn finish(mut self) -> Self {
        self.head.truncate(self.known() as usize);
        let mut pieces: Vec<DatagramPiece> = Vec::with_capacity(self.pieces.len());
        for piece in self.pieces {
            let is_missing = piece.state == ViewState::Missing;
            let state = if is_missing { ViewState::Missing } else { ViewState::Captured };
            match pieces.last_mut() {
                Some(last)
                    if last.packet == piece.packet
                        && last.state == state
                        && last.end() == piece.start
                        && (is_missing
                            || last.offset.checked_add(last.len) == Some(piece.offset)) =>
                {
                    last.len = last.len.saturating_add(piece.len);
                }
                _ => pieces.push(DatagramPiece { state, ..piece }),
            }
        }
        self.packets.sort_unstable();
        self.packets.dedup();
        Self { pieces, ..self }
    }
}

const fn count(counter: &mut u64) {
    *counter = counter.wrapping_add(1);
}
