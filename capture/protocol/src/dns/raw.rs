//! Messages and records as they were captured, before anything is made of them.

use domain::base::iana::Rtype;
use domain::base::wire::ParseError;

use super::data::Data;
use super::name::Name;
use crate::time::Timestamp;

/// A message as captured.
#[derive(Clone, Copy, Debug)]
pub struct RawMessage<'a> {
    /// Its bytes, the first ones if some were not captured.
    pub bytes: &'a [u8],
    /// Its length on the wire in bytes.
    pub wire_len: usize,
    /// When its first byte was seen.
    pub first: Timestamp,
    /// When its last byte was seen.
    pub last: Timestamp,
    /// What was odd about finding it, for `why`.
    pub(super) note: Option<&'static str>,
}

impl<'a> RawMessage<'a> {
    /// The payload of a datagram of `wire_len` bytes. `bytes` are those captured, from its
    /// beginning.
    #[must_use]
    pub const fn datagram(bytes: &'a [u8], wire_len: usize, time: Timestamp) -> Self {
        Self { bytes, wire_len, first: time, last: time, note: None }
    }

    /// Returns `true` if bytes at its end were not captured.
    pub(super) const fn is_cut(&self) -> bool {
        self.bytes.len() < self.wire_len
    }
}

/// A record whose data has not been looked at.
#[derive(Debug)]
pub(super) struct RawRecord<'a> {
    pub(super) owner: Name,
    pub(super) record_type: u16,
    pub(super) ttl: u32,
    pub(super) data: Data<'a>,
}

impl<'a> RawRecord<'a> {
    /// Takes the next record.
    pub(super) fn read(parser: &mut Data<'a>) -> Result<Self, ParseError> {
        let owner = Name::parse(parser)?;
        let record_type = parser.parse_u16_be()?;
        // The class is that of the question.
        parser.advance(2)?;
        let ttl = parser.parse_u32_be()?;
        let len = parser.parse_u16_be()?;
        let data = parser.parse_parser(len.into())?;
        Ok(Self { owner, record_type, ttl, data })
    }

    /// Returns `true` if it is the pseudo-record of EDNS: RFC 6891, section 6.1.
    pub(super) fn is_options(&self) -> bool {
        Rtype::from_int(self.record_type) == Rtype::OPT
    }

    /// The upper eight bits of the response code, if this is the pseudo-record of EDNS.
    pub(super) fn extended_rcode(&self) -> u8 {
        let [rcode, ..] = self.ttl.to_be_bytes();
        rcode
    }
}
