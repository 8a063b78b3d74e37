//! The interfaces that pcapng streams describe, and the options of their first section.
//!
//! Interfaces have the numbers that they would have in a file with all packets of the ring, from
//! the first one ever. A description comes right before the first packet that was stored after it,
//! so that its length counts in positions. Descriptions that arrived before all packets come before
//! everything.
//!
//! All of this is kept in the header page of the ring file, for the next process. The page has room
//! for the texts of some dozens of interfaces. When it is full, texts are left out, in this process
//! as well: the length of a description must never change.

use std::sync::OnceLock;
use std::sync::atomic::Ordering;

use protocol::linktype::LinkType;

use super::layout::{Committed, DESCRIPTIONS, RingHeader};
use crate::savefile::pcapng_writer::interface_description_len;
use crate::store::Interface;

/// Maximum number of interfaces that a ring distinguishes.
pub const MAX_INTERFACES: usize = 64;

/// Maximum bytes of the first section's options that are kept for the next process.
const MAX_SECTION: usize = 900;

/// Maximum bytes of the source's own texts that are kept.
const MAX_SOURCE: usize = 400;

/// Bytes of a kept interface without its texts.
const FIXED_LEN: usize = 22;

/// Minimum bytes that each interface has for a name: more than Linux allows.
const NAME_LEN: usize = 20;

/// First bytes of the entries that are kept.
const SECTION: u8 = 1;
const INTERFACE: u8 = 2;

/// Flags of an [`INTERFACE`]: some of its texts are cut or left out, and the fields that it has.
const IS_CUT: u8 = 1;
const HAS_LINK_TYPE: u8 = 2;
const HAS_TEXT: [u8; 3] = [4, 8, 16];

const _: () = assert!(MAX_INTERFACES * (FIXED_LEN + NAME_LEN) + MAX_SECTION + 3 < DESCRIPTIONS);

/// One interface of the ring.
#[derive(Clone, Debug, PartialEq, Eq)]
struct RingInterface {
    interface: Interface,
    /// Number of the packet right after the description; 0 if the description comes before
    /// everything.
    before: u64,
    /// Whether there was no room for all of its texts.
    is_cut: bool,
}

impl RingInterface {
    /// Returns `true` if `given` is this interface, whose texts may have been cut for want of room.
    fn is(&self, given: &Interface) -> bool {
        let Self { interface: kept, is_cut, .. } = self;
        if !is_cut {
            return kept == given;
        }
        let begins = |kept: &Option<String>, given: &Option<String>| match (kept, given) {
            (Some(kept), Some(given)) => given.starts_with(kept.as_str()),
            (kept, _) => kept.is_none(),
        };
        (kept.snaplen, kept.link_type) == (given.snaplen, given.link_type)
            && begins(&kept.name, &given.name)
            && begins(&kept.description, &given.description)
            && begins(&kept.filter, &given.filter)
    }
}

/// The interfaces of a ring: at least one.
#[derive(Debug)]
pub(super) struct RingInterfaces {
    /// In the order in which they were described.
    described: Vec<RingInterface>,
    /// Number of interfaces kept in the file.
    kept: usize,
    /// Checksum and length of the bytes in use in the file.
    hasher: crc32fast::Hasher,
    len: usize,
}

impl RingInterfaces {
    /// Only the source itself, as the capture described it.
    pub(super) fn of(source: Interface) -> Self {
        let described = vec![RingInterface { interface: source, before: 0, is_cut: false }];
        Self { described, kept: 0, hasher: crc32fast::Hasher::new(), len: 0 }
    }

    /// The interfaces that an earlier process has kept, and the options of the first section;
    /// `None` if none are kept, or if they are damaged.
    pub(super) fn load(header: &RingHeader) -> Option<(Self, Vec<u8>)> {
        let committed = Committed::unpack(header.described.load(Ordering::Acquire));
        let bytes: Vec<u8> = header
            .descriptions
            .iter()
            .take(committed.len as usize)
            .map(|byte| byte.load(Ordering::Relaxed))
            .collect();
        let mut hasher = crc32fast::Hasher::new();
        hasher.update(&bytes);
        let is_whole = bytes.len() == committed.len as usize
            && hasher.clone().finalize() == committed.checksum;
        let mut rest = is_whole.then_some(bytes.as_slice())?;
        let (mut described, mut section) = (Vec::new(), Vec::new());
        while let Some((kind, behind)) = rest.split_first() {
            rest = behind;
            match *kind {
                SECTION => section = text(&mut rest)?.to_vec(),
                INTERFACE => described.push(RingInterface::read(&mut rest)?),
                _ => return None,
            }
        }
        let is_in_order = described.is_sorted_by_key(|one| one.before);
        let kept = described.len();
        let fits = is_in_order && (1..=MAX_INTERFACES).contains(&kept);
        fits.then_some((Self { described, kept, hasher, len: bytes.len() }, section))
    }

    /// Forgets the interfaces that were described after the last stored packet; `next` is the next
    /// packet.
    pub(super) fn end_before(&mut self, next: u64, header: &RingHeader) {
        let left = self.described.partition_point(|one| one.before < next).max(1);
        if left == self.described.len() {
            return;
        }
        let gone = self.described.split_off(left);
        let kept = gone.iter().take(self.kept.saturating_sub(left));
        self.len -= kept.map(|one| one.bytes().len()).sum::<usize>();
        self.kept = self.kept.min(left);
        self.hasher = crc32fast::Hasher::new();
        for byte in header.descriptions.iter().take(self.len) {
            self.hasher.update(&[byte.load(Ordering::Relaxed)]);
        }
        self.commit(header);
    }

    /// Starts without any interface, and keeps the options of the first section. To be called
    /// before any packet.
    pub(super) fn begin(&mut self, section: &[u8], header: &RingHeader) {
        self.described.clear();
        (self.hasher, self.len, self.kept) = (crc32fast::Hasher::new(), 0, 0);
        self.commit(header);
        if let Some(len) =
            u16::try_from(section.len()).ok().filter(|_| section.len() <= MAX_SECTION)
            && len > 0
        {
            self.keep(&[&[SECTION][..], &len.to_ne_bytes(), section].concat(), header);
        }
    }

    /// Appends bytes to those kept in the file.
    fn keep(&mut self, bytes: &[u8], header: &RingHeader) {
        header.mark_notes();
        for (place, byte) in header.descriptions.iter().skip(self.len).zip(bytes) {
            place.store(*byte, Ordering::Relaxed);
        }
        self.hasher.update(bytes);
        self.len += bytes.len();
        self.commit(header);
    }

    fn commit(&self, header: &RingHeader) {
        let len = u32::try_from(self.len).unwrap_or(u32::MAX);
        let committed = Committed { len, checksum: self.hasher.clone().finalize() };
        header.described.store(committed.pack(), Ordering::Release);
    }

    /// Bytes available for the texts of one more interface.
    fn room(&self) -> usize {
        let to_come = MAX_INTERFACES.saturating_sub(self.described.len());
        let reserved = to_come * (FIXED_LEN + NAME_LEN);
        (DESCRIPTIONS + NAME_LEN).saturating_sub(self.len + reserved)
    }

    /// Returns the index of an interface, and the length of its description if it is new. `taken`
    /// has the indexes that the current section uses already. If the same interface was described
    /// earlier and its index is not taken, that one is used again; otherwise it is described right
    /// before packet `before`.
    ///
    /// # Errors
    /// The index of the last interface, if there is no room for another.
    pub(super) fn describe(
        &mut self,
        given: &Interface,
        taken: &[u32],
        before: u64,
        header: &RingHeader,
    ) -> Result<(u32, u64), u32> {
        let known = (0..).zip(&self.described);
        let same = |(id, one): &(u32, &RingInterface)| !taken.contains(id) && one.is(given);
        if let Some((id, _)) = known.clone().find(same) {
            return Ok((id, 0));
        }
        let last = known.last().map(|(id, _)| id);
        if self.described.len() >= MAX_INTERFACES {
            return Err(last.unwrap_or(0));
        }
        if let [source] = self.described.as_slice()
            && self.kept == 0
        {
            // It comes before everything, so the next process may show less of it.
            let source = RingInterface::fitting(&source.interface, 0, MAX_SOURCE);
            self.keep(&source.bytes(), header);
            self.kept = 1;
        }
        let new = RingInterface::fitting(given, before, self.room());
        let len = interface_description_len(&new.interface);
        self.keep(&new.bytes(), header);
        self.described.push(new);
        self.kept = self.described.len();
        Ok((last.map_or(0, |last| last + 1), len))
    }

    pub(super) fn get(&self, id: u32) -> Option<&Interface> {
        self.described.get(usize::try_from(id).ok()?).map(|one| &one.interface)
    }

    pub(super) fn count(&self) -> u32 {
        u32::try_from(self.described.len()).unwrap_or(u32::MAX)
    }

    /// Number of interfaces described before the packet with this number.
    pub(super) fn before(&self, number: u64) -> u32 {
        let before = self.described.partition_point(|one| one.before < number);
        u32::try_from(before).unwrap_or(u32::MAX).max(1)
    }

    /// Bytes of the descriptions that come right before packets with numbers in `from..to`.
    pub(super) fn len_between(&self, from: u64, to: u64) -> u64 {
        let between = self.described.iter().filter(|one| (from..to).contains(&one.before));
        between.map(|one| interface_description_len(&one.interface)).sum()
    }
}

impl RingInterface {
    /// As much of an interface as fits `room` bytes besides its numbers.
    fn fitting(given: &Interface, before: u64, mut room: usize) -> Self {
        let mut interface = given.clone();
        let texts = [&mut interface.name, &mut interface.description, &mut interface.filter];
        for text in texts {
            let Some(whole) = text else { continue };
            let most = room.min(usize::from(u16::MAX));
            if whole.len() > most {
                let end = (0..=most).rev().find(|end| whole.is_char_boundary(*end)).unwrap_or(0);
                whole.truncate(end);
            }
            room = room.saturating_sub(whole.len());
            if whole.is_empty() {
                *text = None;
            }
        }
        let is_cut = interface != *given;
        Self { interface, before, is_cut }
    }

    fn bytes(&self) -> Vec<u8> {
        let Self { interface, before, is_cut } = self;
        let texts = [&interface.name, &interface.description, &interface.filter];
        let mut flags = if *is_cut { IS_CUT } else { 0 };
        if interface.link_type.is_some() {
            flags |= HAS_LINK_TYPE;
        }
        for (flag, text) in HAS_TEXT.into_iter().zip(texts) {
            flags |= if text.is_some() { flag } else { 0 };
        }
        let mut bytes = vec![INTERFACE, flags];
        bytes.extend(interface.link_type.map_or(0, |link_type| link_type.0).to_ne_bytes());
        bytes.extend(interface.snaplen.to_ne_bytes());
        bytes.extend(before.to_ne_bytes());
        for text in texts {
            let text = text.as_deref().unwrap_or_default();
            bytes.extend(u16::try_from(text.len()).unwrap_or(u16::MAX).to_ne_bytes());
            bytes.extend(text.as_bytes());
        }
        bytes
    }

    /// Reads the bytes that [`RingInterface::bytes`] makes, without the first one.
    fn read(rest: &mut &[u8]) -> Option<Self> {
        let [flags] = take(rest)?;
        let link_type = LinkType(u16::from_ne_bytes(take(rest)?));
        let snaplen = u32::from_ne_bytes(take(rest)?);
        let before = u64::from_ne_bytes(take(rest)?);
        let [mut name, mut description, mut filter] = [None, None, None];
        for (flag, place) in HAS_TEXT.into_iter().zip([&mut name, &mut description, &mut filter]) {
            let text = std::str::from_utf8(text(rest)?).ok()?;
            *place = (flags & flag != 0).then(|| text.to_owned());
        }
        let link_type = (flags & HAS_LINK_TYPE != 0).then_some(link_type);
        let interface = Interface { name, description, filter, snaplen, link_type };
        Some(Self { interface, before, is_cut: flags & IS_CUT != 0 })
    }
}

fn take<const LEN: usize>(rest: &mut &[u8]) -> Option<[u8; LEN]> {
    let (taken, behind) = rest.split_first_chunk()?;
    *rest = behind;
    Some(*taken)
}

/// Reads bytes that follow their length.
fn text<'a>(rest: &mut &'a [u8]) -> Option<&'a [u8]> {
    let len = usize::from(u16::from_ne_bytes(take(rest)?));
    let (text, behind) = rest.split_at_checked(len)?;
    *rest = behind;
    Some(text)
}

/// The options of the first section of files; empty until the stream has sent them.
pub(super) type Section = OnceLock<Box<[u8]>>;

#[cfg(test)]
mod tests {
    use super::*;

    fn named(name: &str) -> Interface {
        Interface { name: Some(name.to_owned()), snaplen: 96, ..Interface::default() }
    }

    #[test]
    fn descriptions_are_there_for_the_next_process() {
        let page = RingHeader::default();
        assert!(RingInterfaces::load(&page).is_none(), "of before this was kept");
        let mut interfaces = RingInterfaces::of(named("source"));
        interfaces.begin(b"some options", &page);
        let full = Interface {
            description: Some("a description".to_owned()),
            filter: Some("tcp".to_owned()),
            link_type: Some(LinkType(101)),
            ..named("ß")
        };
        assert_eq!(interfaces.describe(&full, &[], 0, &page).unwrap().0, 0);
        assert_eq!(interfaces.describe(&full, &[0], 0, &page).unwrap().0, 1, "another like it");
        assert_eq!(interfaces.describe(&full, &[], 7, &page), Ok((0, 0)), "of another writer");
        let (id, len) = interfaces.describe(&named("late"), &[], 7, &page).unwrap();
        assert_eq!((id, len), (2, interface_description_len(&named("late"))));
        assert_eq!([0, 7, 8].map(|number| interfaces.before(number)), [1, 2, 3]);
        assert_eq!((interfaces.len_between(1, 7), interfaces.len_between(1, 8)), (0, len));

        let (mut again, section) = RingInterfaces::load(&page).unwrap();
        assert_eq!((&again.described, &section[..]), (&interfaces.described, &b"some options"[..]));
        // No packet came after the last description.
        again.end_before(7, &page);
        let (again, section) = RingInterfaces::load(&page).unwrap();
        assert_eq!((again.described.len(), &section[..]), (2, &b"some options"[..]));
    }

    #[test]
    #[expect(clippy::cast_possible_truncation, reason = "small numbers")]
    fn as_much_is_kept_as_there_is_room_for() {
        let page = RingHeader::default();
        let mut interfaces = RingInterfaces::of(named("source"));
        interfaces.begin(&[7; MAX_SECTION], &page);
        let wordy = |index: usize| Interface {
            description: Some("ß".repeat(400)),
            ..named(&format!("enp{index:02}s0f0np0.4094"))
        };
        for index in 0..MAX_INTERFACES {
            let (id, _) = interfaces.describe(&wordy(index), &[], 1, &page).unwrap();
            assert_eq!(id as usize, index);
        }
        assert_eq!(interfaces.describe(&named("one more"), &[], 1, &page), Err(63));
        for index in [0, 1, 63] {
            assert_eq!(interfaces.describe(&wordy(index), &[], 9, &page), Ok((index as u32, 0)));
        }
        let (again, section) = RingInterfaces::load(&page).unwrap();
        assert_eq!((again.described, section.len()), (interfaces.described, MAX_SECTION));
    }

    #[test]
    fn flipped_bits_are_found() {
        let page = RingHeader::default();
        let mut interfaces = RingInterfaces::of(named("source"));
        interfaces.begin(b"", &page);
        interfaces.describe(&named("eth0"), &[], 0, &page).unwrap();
        for bit in 0..interfaces.len * 8 {
            let place = &page.descriptions[bit / 8];
            place.fetch_xor(1 << (bit % 8), Ordering::Relaxed);
            assert!(RingInterfaces::load(&page).is_none());
            place.fetch_xor(1 << (bit % 8), Ordering::Relaxed);
        }
        for word in [u64::MAX, 1 << 32, 5 << 32 | 7] {
            page.described.store(word, Ordering::Relaxed);
            assert!(RingInterfaces::load(&page).is_none());
        }
    }
}
