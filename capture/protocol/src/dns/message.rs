//! A message, part by part: RFC 1035, section 4. What precedes a malformed part is kept.

use std::fmt;

use domain::base::header::{Header as WireHeader, HeaderCounts};
use domain::base::iana::Opcode;
use domain::base::wire::ParseError;
use domain::dep::octseq::Parser;

use super::answers::Answers;
use super::data::Data;
use super::name::{self, BoundedText, Name, json_len};
use super::notes::Why;
use super::raw::{RawMessage, RawRecord};

/// Bytes of a header.
pub(super) const HEADER: usize = 12;

/// Bytes of a header up to the counts. Of a message that was cut, more must have been captured.
const BEGINNING: usize = 4;

/// Bytes of the shortest question and of the shortest record: the root, and the fixed fields.
const QUESTION: usize = 5;
const RECORD: usize = 11;

/// Maximum number of questions that are kept of a message. Queries of mDNS have up to 20 or so;
/// other messages have one.
const MAX_QUESTIONS: usize = 32;

/// Maximum bytes of all names in the questions of a message, in JSON.
const MAX_NAMES: usize = super::MAX_LINE;

/// The bit of the class of a question that asks for a unicast response, and of a record that asks
/// to flush caches: RFC 6762, sections 5.4 and 10.2.
const MDNS_BIT: u16 = 0x8000;

/// The flags of a message: RFC 1035, section 4.1.1.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash, serde::Serialize)]
pub struct DnsFlags {
    /// The answer comes from an authority for the name.
    pub aa: bool,
    /// The message was truncated by its sender.
    pub tc: bool,
    /// Recursion is desired.
    pub rd: bool,
    /// Recursion is available.
    pub ra: bool,
}

/// The header of a message.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct MessageHeader {
    pub(super) id: u16,
    pub(super) is_response: bool,
    pub(super) opcode: u8,
    pub(super) flags: DnsFlags,
    /// The bit that must be zero.
    pub(super) z: bool,
    pub(super) rcode: u8,
    /// Numbers of questions, answers, authority records and additional records.
    pub(super) counts: [u16; 4],
}

impl MessageHeader {
    /// Reads a header. If the counts were not captured, they are zero.
    pub(super) fn read(bytes: &[u8]) -> Option<Self> {
        if bytes.len() < BEGINNING {
            return None;
        }
        let mut whole = [0; HEADER];
        whole.iter_mut().zip(bytes).for_each(|(to, from)| *to = *from);
        if bytes.len() < HEADER {
            whole.iter_mut().skip(BEGINNING).for_each(|byte| *byte = 0);
        }
        let header = WireHeader::for_message_slice(&whole);
        let counts = HeaderCounts::for_message_slice(&whole);
        let flags = DnsFlags { aa: header.aa(), tc: header.tc(), rd: header.rd(), ra: header.ra() };
        Some(Self {
            id: header.id(),
            is_response: header.qr(),
            opcode: header.opcode().to_int(),
            flags,
            z: header.z(),
            rcode: header.rcode().to_int(),
            counts: [counts.qdcount(), counts.ancount(), counts.nscount(), counts.arcount()],
        })
    }

    /// Returns `true` if a message of `len` bytes has room for as many questions and records as it
    /// says.
    pub(super) fn fits(&self, len: usize) -> bool {
        let [questions, records @ ..] = self.counts.map(usize::from);
        let records: usize = records.iter().sum();
        let least =
            questions.saturating_mul(QUESTION).saturating_add(records.saturating_mul(RECORD));
        least.saturating_add(HEADER) <= len
    }
}

/// A question, or the zone of an update (RFC 2136, section 2.3).
#[derive(Clone, Debug)]
pub(super) struct Question {
    /// The name as sent.
    pub(super) name: Box<str>,
    pub(super) record_type: u16,
    pub(super) class: u16,
}

impl PartialEq for Question {
    /// Names are the same regardless of case: RFC 4343.
    fn eq(&self, other: &Self) -> bool {
        (self.record_type, self.class) == (other.record_type, other.class)
            && self.name.eq_ignore_ascii_case(&other.name)
    }
}

impl Question {
    pub(super) fn json_len(&self) -> usize {
        json_len(&self.name)
    }
}

/// The sections of a message.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum MessageSection {
    Question,
    Answer,
    Authority,
    Additional,
}

/// The first part of a message that cannot be read.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct MessageFault {
    section: MessageSection,
    /// Its number in the section, from 1, of as many as the header says.
    number: u16,
    of: u16,
    reason: &'static str,
}

impl fmt::Display for MessageFault {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        let part = match self.section {
            MessageSection::Question => "question",
            MessageSection::Answer => "answer",
            MessageSection::Authority => "authority record",
            MessageSection::Additional => "additional record",
        };
        write!(formatter, "{part} {} of {} {}", self.number, self.of, self.reason)
    }
}

/// The questions of a message, and where its records begin.
#[derive(Debug)]
pub(super) struct DnsMessage<'a> {
    pub(super) header: MessageHeader,
    /// At most [`MAX_QUESTIONS`], the first ones.
    pub(super) questions: Vec<Question>,
    /// The first question that cannot be read. No records are read then.
    pub(super) fault: Option<MessageFault>,
    records: Data<'a>,
    is_cut: bool,
    is_mdns: bool,
}

/// What the records of a message say, apart from the answers.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(super) struct RecordSummary {
    /// The upper bits of the response code (RFC 6891, section 6.1.3).
    pub(super) extended_rcode: Option<u8>,
    /// The first record that cannot be read, and all after it.
    pub(super) fault: Option<MessageFault>,
    /// Bytes after the last record.
    pub(super) trailing: usize,
}

impl<'a> DnsMessage<'a> {
    /// Reads the header and the questions. `None` if there is no header.
    pub(super) fn read(raw: &RawMessage<'a>, is_mdns: bool) -> Option<Self> {
        let is_cut = raw.is_cut();
        let header = MessageHeader::read(raw.bytes)?;
        if raw.bytes.len() < HEADER && !is_cut {
            return None;
        }
        let mut parser = Parser::from_ref(raw.bytes);
        let _ = parser.advance(HEADER.min(raw.bytes.len()));
        let mut message =
            Self { header, questions: Vec::new(), fault: None, records: parser, is_cut, is_mdns };
        message.read_questions();
        Some(message)
    }

    fn read_questions(&mut self) {
        let [of, ..] = self.header.counts;
        let mut names = MAX_NAMES;
        for number in 1..=of {
            if self.questions.len() == MAX_QUESTIONS || names == 0 {
                self.skip_question(number);
            } else {
                self.read_question(number, &mut names);
            }
            if self.fault.is_some() {
                return;
            }
        }
    }

    fn read_question(&mut self, number: u16, names: &mut usize) {
        let (name, record_type, class) = match self.parse_question() {
            Ok(question) => question,
            Err(error) => return self.fault_in_question(number, error),
        };
        let mut text = BoundedText::new(*names);
        if name::write(&name, &mut text).is_err() {
            // The room for names ends here.
            *names = 0;
            return;
        }
        let name = text.into_text();
        *names = names.saturating_sub(json_len(&name));
        let class = if self.is_mdns { class & !MDNS_BIT } else { class };
        self.questions.push(Question { name, record_type, class });
    }

    /// The name, type and class of the next question.
    fn parse_question(&mut self) -> Result<(Name, u16, u16), ParseError> {
        let name = Name::parse(&mut self.records)?;
        Ok((name, self.records.parse_u16_be()?, self.records.parse_u16_be()?))
    }

    fn skip_question(&mut self, number: u16) {
        let skipped = Name::skip(&mut self.records);
        let skipped = skipped.and_then(|()| Ok(self.records.advance(4)?));
        if let Err(error) = skipped {
            self.fault_in_question(number, error);
        }
    }

    fn fault_in_question(&mut self, number: u16, error: ParseError) {
        let [of, ..] = self.header.counts;
        self.fault = Some(self.fault(MessageSection::Question, number, of, error));
    }

    fn fault(
        &self,
        section: MessageSection,
        number: u16,
        of: u16,
        error: ParseError,
    ) -> MessageFault {
        let reason = match error {
            ParseError::ShortInput if self.is_cut => "was not captured",
            ParseError::ShortInput => "is not whole",
            ParseError::Form(_) => "has a malformed name",
        };
        MessageFault { section, number, of, reason }
    }

    /// Number of questions that are not kept.
    pub(super) fn omitted_questions(&self) -> usize {
        let [of, ..] = self.header.counts;
        match self.fault {
            Some(_) => 0,
            None => usize::from(of).saturating_sub(self.questions.len()),
        }
    }

    /// Reads all records. Adds those of the answer section to `answers`.
    pub(super) fn records(&self, answers: Option<&mut Answers>) -> RecordSummary {
        let mut found = RecordSummary { fault: self.fault, ..RecordSummary::default() };
        if self.fault.is_none() {
            self.read_records(answers, &mut found);
        }
        found
    }

    fn read_records(&self, mut answers: Option<&mut Answers>, found: &mut RecordSummary) {
        let [_, answer, authority, additional] = self.header.counts;
        let sections = [
            (MessageSection::Answer, answer),
            (MessageSection::Authority, authority),
            (MessageSection::Additional, additional),
        ];
        // That section of an update has its prerequisites: RFC 2136, section 2.4.
        if self.is_update() {
            answers = None;
        }
        let mut parser = self.records;
        for (section, of) in sections {
            for number in 1..=of {
                let record = match RawRecord::read(&mut parser) {
                    Ok(record) => record,
                    Err(error) => {
                        found.fault = Some(self.fault(section, number, of, error));
                        return;
                    }
                };
                if record.is_options() {
                    found.extended_rcode.get_or_insert_with(|| record.extended_rcode());
                } else if section == MessageSection::Answer
                    && let Some(answers) = &mut answers
                {
                    answers.add(&record);
                }
            }
        }
        found.trailing = parser.remaining();
    }

    /// The number of answers that the header says there are.
    pub(super) fn answers_total(&self) -> u32 {
        let [_, answers, ..] = self.header.counts;
        if self.is_update() { 0 } else { answers.into() }
    }

    fn is_update(&self) -> bool {
        self.header.opcode == Opcode::UPDATE.to_int()
    }

    /// The records of the answer section, up to the first that cannot be read.
    pub(super) fn answers(&self) -> impl Iterator<Item = RawRecord<'a>> {
        let [_, answers, ..] = self.header.counts;
        let answers = if self.fault.is_some() { 0 } else { answers };
        let mut parser = self.records;
        (0..answers).map_while(move |_| RawRecord::read(&mut parser).ok())
    }

    /// Adds the reasons for which a message is not as it should be.
    pub(super) fn explain(&self, records: &RecordSummary, raw: &RawMessage<'_>, why: &mut Why) {
        let side = if self.header.is_response { "response" } else { "query" };
        if raw.is_cut() {
            let (captured, len) = (raw.bytes.len(), raw.wire_len);
            why.add(format_args!("captured {captured} of {len} bytes of the {side}"));
        }
        if let Some(note) = raw.note {
            why.add(format_args!("{side} {note}"));
        }
        if raw.bytes.len() < HEADER {
            why.add(format_args!("the counts of the {side} were not captured"));
        }
        match records.fault {
            Some(fault) if fault.section == MessageSection::Question => {
                why.add(format_args!("{fault} in the {side}"));
            }
            Some(fault) => why.add(format_args!("{fault}")),
            None => {}
        }
        if self.omitted_questions() > 0 {
            why.add(format_args!("{} more questions", self.omitted_questions()));
        }
        // Stateful operations have other data there: RFC 8490, section 5.4.
        if records.trailing > 0 && self.header.opcode != Opcode::DSO.to_int() {
            let trailing = records.trailing;
            why.add(format_args!("{trailing} bytes after the last record of the {side}"));
        }
    }
}
