//! Record data as text, in the presentation format of the RFC that defines its type.
//!
//! A type is a list of fields. Data of unknown types, and data that does not have the format of its
//! type, is written in the general form of RFC 3597, section 5: `\# 3 0a0b0c`.

use std::fmt::{self, Write};
use std::net::{Ipv4Addr, Ipv6Addr};

use domain::base::iana::Rtype;
use domain::dep::octseq::parse::ShortInput;
use domain::utils::{base32, base64};

use super::data::{Data, Problem, counted, escaped};
use super::mnemonic;
use super::name::{self, BoundedText, Name};
use super::{place, service};
use crate::time::Timestamp;

/// A part of record data.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Field {
    /// Numbers of so many bits, in decimal.
    U8,
    U16,
    U32,
    Name,
    /// A character string, in quotes.
    Text,
    /// One or more of them.
    Texts,
    /// A character string without quotes.
    Word,
    /// All that follows, in quotes.
    Rest,
    Ipv4,
    Ipv6,
    /// All that follows, in hexadecimal.
    Hex,
    /// All that follows, in Base64.
    Base64,
    /// A set of types: RFC 4034, section 4.1.2.
    Types,
    /// A type: RFC 4034, section 3.2.
    Type,
    /// Seconds since the Unix epoch: RFC 4034, section 3.2.
    Time,
    /// A salt with its length: RFC 5155, section 3.3.
    Salt,
    /// A hashed name with its length: RFC 5155, section 3.3.
    Hash,
    /// 64 bits in groups of 16: RFC 6742, section 2.1.2.
    Locator,
    /// All that follows, as bytes with hyphens: RFC 7043, section 3.2.
    Eui,
    /// The parameters of a service: RFC 9460, section 2.1.
    Service,
    /// A place on the earth: RFC 1876.
    Place,
}

/// The fields of a type. `None` if its format is not known here.
#[rustfmt::skip]
fn fields(record_type: Rtype) -> Option<&'static [Field]> {
    use Field::*;
    Some(match record_type {
        // RFC 1035, section 3.3.
        Rtype::A => &[Ipv4],
        Rtype::NS | Rtype::MD | Rtype::MF | Rtype::CNAME | Rtype::MB | Rtype::MG | Rtype::MR
        | Rtype::PTR => &[Name],
        Rtype::SOA => &[Name, Name, U32, U32, U32, U32, U32],
        Rtype::HINFO => &[Text, Text],
        Rtype::MINFO => &[Name, Name],
        Rtype::MX => &[U16, Name],
        Rtype::TXT => &[Texts],
        // RFC 3596.
        Rtype::AAAA => &[Ipv6],
        // RFC 1183.
        Rtype::RP => &[Name, Name],
        Rtype::AFSDB | Rtype::RT => &[U16, Name],
        Rtype::X25 => &[Text],
        Rtype::ISDN => &[Texts],
        // RFC 1712, RFC 1876.
        Rtype::GPOS => &[Text, Text, Text],
        Rtype::LOC => &[Place],
        // RFC 2163, RFC 2230, RFC 2782, RFC 3403, RFC 6672.
        Rtype::PX => &[U16, Name, Name],
        Rtype::KX => &[U16, Name],
        Rtype::SRV => &[U16, U16, U16, Name],
        Rtype::NAPTR => &[U16, U16, Text, Text, Text, Name],
        Rtype::DNAME => &[Name],
        // RFC 4034, RFC 4431, RFC 7344, and RFC 2535 for SIG and KEY.
        Rtype::DS | Rtype::CDS | Rtype::DLV | Rtype::TA => &[U16, U8, U8, Hex],
        Rtype::RRSIG | Rtype::SIG => &[Type, U8, U8, U32, Time, Time, U16, Name, Base64],
        Rtype::NSEC => &[Name, Types],
        Rtype::DNSKEY | Rtype::CDNSKEY | Rtype::KEY => &[U16, U8, U8, Base64],
        // RFC 5155.
        Rtype::NSEC3 => &[U8, U8, U16, Salt, Hash, Types],
        Rtype::NSEC3PARAM => &[U8, U8, U16, Salt],
        // RFC 4255, RFC 4398, RFC 4701, RFC 6698, RFC 8162, RFC 7929.
        Rtype::SSHFP => &[U8, U8, Hex],
        Rtype::CERT => &[U16, U16, U8, Base64],
        Rtype::DHCID | Rtype::OPENPGPKEY => &[Base64],
        Rtype::TLSA | Rtype::SMIMEA => &[U8, U8, U8, Hex],
        // RFC 6742.
        Rtype::NID | Rtype::L64 => &[U16, Locator],
        Rtype::L32 => &[U16, Ipv4],
        Rtype::LP => &[U16, Name],
        // RFC 7043, RFC 7208, RFC 7477, RFC 7553, RFC 8659, RFC 8976, RFC 9460, RFC 9606.
        Rtype::EUI48 | Rtype::EUI64 => &[Eui],
        Rtype::SPF | Rtype::RESINFO => &[Texts],
        Rtype::CSYNC => &[U32, U16, Types],
        Rtype::URI => &[U16, U16, Rest],
        Rtype::CAA => &[U8, Word, Rest],
        Rtype::ZONEMD => &[U32, U8, U8, Hex],
        Rtype::SVCB | Rtype::HTTPS => &[U16, Name, Service],
        _ => return None,
    })
}

/// Writes the data of a record. Fails if the text has no room for it.
pub(super) fn write(record_type: u16, data: Data<'_>, text: &mut BoundedText) -> fmt::Result {
    if let Some(fields) = fields(Rtype::from_int(record_type))
        && data.remaining() > 0
    {
        match known(fields, &mut data.clone(), text) {
            Ok(()) => return Ok(()),
            Err(Problem::NoRoom) => return Err(fmt::Error),
            Err(Problem::Malformed) => text.clear(),
        }
    }
    write!(text, "\\# {}", data.remaining())?;
    if data.remaining() > 0 {
        text.write_char(' ')?;
    }
    hex(data.peek_all(), text)
}

fn known(fields: &[Field], data: &mut Data<'_>, text: &mut BoundedText) -> Result<(), Problem> {
    for (number, field) in fields.iter().enumerate() {
        let may_be_empty =
            matches!(field, Field::Hex | Field::Base64 | Field::Types | Field::Service);
        if may_be_empty && data.remaining() == 0 {
            continue;
        }
        if number > 0 {
            text.write_char(' ')?;
        }
        write_field(*field, data, text)?;
    }
    if data.remaining() > 0 { Err(Problem::Malformed) } else { Ok(()) }
}

fn write_field(field: Field, data: &mut Data<'_>, text: &mut BoundedText) -> Result<(), Problem> {
    match field {
        Field::U8 => write!(text, "{}", data.parse_u8()?)?,
        Field::U16 => write!(text, "{}", data.parse_u16_be()?)?,
        Field::U32 => write!(text, "{}", data.parse_u32_be()?)?,
        Field::Name => name::write(&Name::parse(data)?, text)?,
        Field::Text => quoted(counted(data)?, text)?,
        Field::Texts => {
            quoted(counted(data)?, text)?;
            while data.remaining() > 0 {
                text.write_char(' ')?;
                quoted(counted(data)?, text)?;
            }
        }
        Field::Word => {
            let word = counted(data)?;
            if word.is_empty() || !word.iter().all(u8::is_ascii_alphanumeric) {
                return Err(Problem::Malformed);
            }
            escaped(word, text)?;
        }
        Field::Rest => quoted(rest(data), text)?,
        Field::Ipv4 => write!(text, "{}", Ipv4Addr::from(data.parse_u32_be()?))?,
        Field::Ipv6 => write!(text, "{}", Ipv6Addr::from(array::<16>(data)?))?,
        Field::Hex => hex(rest(data), text)?,
        Field::Base64 => base64::display(rest(data), text)?,
        Field::Types => types(data, text)?,
        Field::Type => text.write_str(&mnemonic::record_type(data.parse_u16_be()?))?,
        Field::Time => time(data.parse_u32_be()?, text)?,
        Field::Salt => match counted(data)? {
            [] => text.write_char('-')?,
            salt => hex(salt, text)?,
        },
        Field::Hash => match counted(data)? {
            [] => return Err(Problem::Malformed),
            hash => base32::display_hex(hash, text)?,
        },
        Field::Locator => {
            let [a, b, c, d, e, f, g, h] = array::<8>(data)?;
            write!(text, "{a:02x}{b:02x}:{c:02x}{d:02x}:{e:02x}{f:02x}:{g:02x}{h:02x}")?;
        }
        Field::Eui => eui(rest(data), text)?,
        Field::Service => service::write(data, text)?,
        Field::Place => place::write(data, text)?,
    }
    Ok(())
}

/// All bytes that are left.
fn rest<'a>(data: &mut Data<'a>) -> &'a [u8] {
    data.parse_octets(data.remaining()).unwrap_or_default()
}

fn array<const LEN: usize>(data: &mut Data<'_>) -> Result<[u8; LEN], ShortInput> {
    let mut bytes = [0; LEN];
    data.parse_buf(&mut bytes)?;
    Ok(bytes)
}

fn quoted(bytes: &[u8], text: &mut BoundedText) -> fmt::Result {
    text.write_char('"')?;
    escaped(bytes, text)?;
    text.write_char('"')
}

fn hex(bytes: &[u8], text: &mut BoundedText) -> fmt::Result {
    bytes.iter().try_for_each(|byte| write!(text, "{byte:02x}"))
}

fn eui(bytes: &[u8], text: &mut BoundedText) -> Result<(), Problem> {
    if !matches!(bytes.len(), 6 | 8) {
        return Err(Problem::Malformed);
    }
    for (number, byte) in bytes.iter().enumerate() {
        let separator = if number > 0 { "-" } else { "" };
        write!(text, "{separator}{byte:02x}")?;
    }
    Ok(())
}

/// `YYYYMMDDHHmmSS` in UTC.
fn time(seconds: u32, text: &mut BoundedText) -> fmt::Result {
    let time = Timestamp::from_nanoseconds(u64::from(seconds).saturating_mul(1_000_000_000));
    let digits = time.to_rfc3339();
    digits
        .chars()
        .filter(char::is_ascii_digit)
        .take(14)
        .try_for_each(|digit| text.write_char(digit))
}

fn types(data: &mut Data<'_>, text: &mut BoundedText) -> Result<(), Problem> {
    let mut is_first = true;
    while data.remaining() > 0 {
        let (window, bitmap) = (data.parse_u8()?, counted(data)?);
        if !matches!(bitmap.len(), 1..=32) {
            return Err(Problem::Malformed);
        }
        for (byte, bits) in (0_u8..32).zip(bitmap) {
            for bit in (0..8_u8).filter(|bit| bits.rotate_left(u32::from(*bit)) & 0x80 != 0) {
                if !is_first {
                    text.write_char(' ')?;
                }
                is_first = false;
                // A byte number below 32, and three bits.
                let low = byte.wrapping_shl(3) | bit;
                let number = u16::from_be_bytes([window, low]);
                text.write_str(&mnemonic::record_type(number))?;
            }
        }
    }
    Ok(())
}
