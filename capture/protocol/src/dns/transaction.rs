//! A query with its response, as [`Pairing`](super::Pairing) hands it out.

use super::answers::{Answers, DnsAnswer};
use super::message::{DnsFlags, MessageHeader, Question};
use super::notes::Why;
use crate::tcp::Direction;
use crate::time::Timestamp;

/// A query with its response, or one without the other.
#[derive(Clone, Debug)]
pub struct DnsTransaction {
    /// Its number in the flow, from 1, in order of beginning.
    pub index: u64,
    /// The direction of its query.
    pub asked: Direction,
    /// Whether there is a query, and a response.
    pub state: QueryState,
    /// Its identification (RFC 1035, section 4.1.1).
    pub id: u16,
    /// When the first byte of the query was seen.
    pub queried: Option<Timestamp>,
    /// When the last byte of the response was seen.
    pub answered: Option<Timestamp>,
    /// The flags of the response, or of the query without one.
    pub flags: DnsFlags,
    pub(super) opcode: u8,
    pub(super) question: Option<Question>,
    /// That of the response, with the bits of EDNS (RFC 6891, section 6.1.3).
    pub(super) rcode: Option<u16>,
    pub(super) answers: Answers,
    pub(super) why: Why,
}

/// Whether a transaction has a query and a response.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum QueryState {
    /// Both.
    Answered,
    /// No response has come.
    Unanswered,
    /// A response to no query: a second one, one whose query was not captured, or an announcement
    /// as mDNS has them.
    Unasked,
}

impl QueryState {
    /// Its name in `dns.jsonl`.
    #[must_use]
    pub const fn name(self) -> &'static str {
        match self {
            Self::Answered => "answered",
            Self::Unanswered => "unanswered",
            Self::Unasked => "unasked",
        }
    }
}

impl DnsTransaction {
    /// A transaction without times, answers and reasons.
    pub(super) fn new(
        index: u64,
        asked: Direction,
        state: QueryState,
        header: &MessageHeader,
        question: Option<Question>,
    ) -> Self {
        let answers = Answers::new(question.as_ref().map_or(0, Question::json_len));
        Self {
            index,
            asked,
            state,
            id: header.id,
            queried: None,
            answered: None,
            flags: header.flags,
            opcode: header.opcode,
            question,
            rcode: None,
            answers,
            why: Why::default(),
        }
    }

    /// The name in the question.
    #[must_use]
    pub fn name(&self) -> Option<&str> {
        self.question.as_ref().map(|question| &*question.name)
    }

    /// The answers that fit into the line, in order.
    #[must_use]
    pub fn answers(&self) -> &[DnsAnswer] {
        &self.answers.list
    }

    /// Why the transaction is not as it should be, or what is odd.
    #[must_use]
    pub fn why(&self) -> Option<&str> {
        self.why.text()
    }

    /// Heap bytes; an estimate.
    #[must_use]
    pub fn memory(&self) -> usize {
        let name = self.question.as_ref().map_or(0, |question| question.name.len());
        name.saturating_add(self.answers.memory()).saturating_add(self.why.memory())
    }
}
