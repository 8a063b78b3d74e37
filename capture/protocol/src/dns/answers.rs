//! The answers of a transaction, as many as fit into its line.

use super::MAX_LINE;
use super::name::{self, BoundedText, json_len};
use super::notes::{MAX_WHY, Why};
use super::raw::RawRecord;
use super::rdata;

/// Maximum number of bytes of a line without its name, answers and reasons: the keys, the longest
/// alias, two IPv6 addresses and numbers of full length.
const OTHER_FIELDS: usize = 800;

/// Bytes of an answer in JSON without its name and data: keys, a type and a time to live.
const ANSWER: usize = 64;

/// A record of the answer section.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct DnsAnswer {
    /// Owner of the record.
    pub name: Box<str>,
    /// Number of its type.
    pub record_type: u16,
    /// Time to live in seconds, as sent.
    pub ttl: u32,
    /// Its data in presentation format; `None` if the line has no room for it.
    pub data: Option<Box<str>>,
}

/// The answers of a transaction.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(super) struct Answers {
    /// In order. If some are left out, they are the last ones.
    pub(super) list: Vec<DnsAnswer>,
    /// Number of answers that the response says it has.
    pub(super) total: u32,
    /// Bytes that the line has left for answers.
    room: usize,
    /// Answers that have no room.
    omitted: u32,
    /// Answers in the list without their data.
    without_data: u32,
}

impl Answers {
    /// No answers. `name` is the length of the question's name in JSON.
    pub(super) fn new(name: usize) -> Self {
        let others = OTHER_FIELDS.saturating_add(MAX_WHY).saturating_add(name);
        Self { room: MAX_LINE.saturating_sub(others), ..Self::default() }
    }

    /// Adds an answer, without its data if that does not fit.
    pub(super) fn add(&mut self, record: &RawRecord<'_>) {
        if self.omitted > 0 {
            self.omitted = self.omitted.saturating_add(1);
            return;
        }
        let room = self.room.saturating_sub(ANSWER);
        let mut name = BoundedText::new(room);
        if self.room < ANSWER || name::write(&record.owner, &mut name).is_err() {
            self.omitted = 1;
            return;
        }
        let name = name.into_text();
        let room = room.saturating_sub(json_len(&name));
        let mut text = BoundedText::new(room);
        let RawRecord { record_type, ttl, data, .. } = *record;
        let data = rdata::write(record_type, data, &mut text).ok().map(|()| text.into_text());
        self.room = room.saturating_sub(data.as_ref().map_or(0, |data| json_len(data)));
        self.without_data = self.without_data.saturating_add(data.is_none().into());
        self.list.push(DnsAnswer { name, record_type, ttl, data });
    }

    /// Adds the reasons why the list is not complete.
    pub(super) fn explain(&self, why: &mut Why) {
        if self.omitted > 0 {
            why.add(format_args!("a line has no room for the last {} answers", self.omitted));
        }
        if self.without_data > 0 {
            let count = self.without_data;
            why.add(format_args!("a line has no room for the data of {count} answers"));
        }
    }

    /// Heap bytes; an estimate.
    pub(super) fn memory(&self) -> usize {
        let text = |answer: &DnsAnswer| {
            answer.name.len().saturating_add(answer.data.as_ref().map_or(0, |data| data.len()))
        };
        let list = self.list.capacity().saturating_mul(size_of::<DnsAnswer>());
        self.list.iter().map(text).fold(list, usize::saturating_add)
    }
}
