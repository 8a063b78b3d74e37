//! Transfers of zones: many responses to one query (RFC 5936 for AXFR, RFC 1995 for IXFR).

use domain::base::iana::Rtype;

use super::message::DnsMessage;
use super::name::Name;
use super::raw::RawRecord;

/// The progress of a transfer.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(super) struct Transfer {
    /// Number of responses so far.
    pub(super) responses: u32,
    /// Number of records so far.
    records: u64,
    /// The serial number that the zone has at its server: that of the first record.
    serial: Option<u32>,
    /// Number of SOA records with this serial number.
    same: u32,
    /// The second record is an SOA record: differences follow.
    is_incremental: bool,
    /// The last record is an SOA record with this serial number.
    is_at_soa: bool,
}

/// Returns `true` if a query asks for a transfer.
pub(super) fn is_transfer(record_type: u16) -> bool {
    [Rtype::AXFR, Rtype::IXFR].contains(&Rtype::from_int(record_type))
}

impl Transfer {
    /// Takes a response. Returns `true` if it is the last.
    pub(super) fn response(&mut self, message: &DnsMessage<'_>) -> bool {
        self.responses = self.responses.saturating_add(1);
        for record in message.answers() {
            self.record(&record);
        }
        // An error, or a response that says nothing.
        if message.header.rcode != 0 || self.records == 0 || message.fault.is_some() {
            return true;
        }
        // A zone is between two equal SOA records. Differences end with a third one, and the last
        // of them has one in its middle (RFC 1995, section 4).
        match (self.records, self.is_incremental) {
            // The client's version is the newest.
            (1, _) => self.serial.is_none() || message.questions.iter().any(is_incremental),
            (_, false) => self.is_at_soa && self.same >= 2,
            (_, true) => self.is_at_soa && self.same >= 3,
        }
    }

    fn record(&mut self, record: &RawRecord<'_>) {
        self.records = self.records.saturating_add(1);
        let serial = serial(record);
        if self.records == 1 {
            self.serial = serial;
        }
        self.is_incremental |= self.records == 2 && serial.is_some();
        self.is_at_soa = serial.is_some() && serial == self.serial;
        self.same = self.same.saturating_add(self.is_at_soa.into());
    }
}

fn is_incremental(question: &super::message::Question) -> bool {
    Rtype::from_int(question.record_type) == Rtype::IXFR
}

/// The serial number of an SOA record: RFC 1035, section 3.3.13.
fn serial(record: &RawRecord<'_>) -> Option<u32> {
    if Rtype::from_int(record.record_type) != Rtype::SOA {
        return None;
    }
    let mut data = record.data;
    Name::parse(&mut data).ok()?;
    Name::parse(&mut data).ok()?;
    data.parse_u32_be().ok()
}
