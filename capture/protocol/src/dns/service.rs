//! Parameters of service bindings: SVCB and HTTPS records, RFC 9460.

use std::fmt::{self, Write};
use std::net::{Ipv4Addr, Ipv6Addr};

use domain::utils::base64;

use super::data::{Data, Problem, counted, escaped};
use super::name::BoundedText;

/// Names of parameters by their number: RFC 9460, section 14.3.2; RFC 9461; RFC 9540.
const KEYS: [&str; 9] = [
    "mandatory",
    "alpn",
    "no-default-alpn",
    "port",
    "ipv4hint",
    "ech",
    "ipv6hint",
    "dohpath",
    "ohttp",
];

/// Writes all parameters. Their numbers must grow (RFC 9460, section 2.2).
pub(super) fn write(data: &mut Data<'_>, text: &mut BoundedText) -> Result<(), Problem> {
    let mut last = None;
    while data.remaining() > 0 {
        let (key, len) = (data.parse_u16_be()?, data.parse_u16_be()?);
        if last.is_some_and(|last| key <= last) {
            return Err(Problem::Malformed);
        }
        if last.is_some() {
            text.write_char(' ')?;
        }
        last = Some(key);
        write_key(key, text)?;
        value(key, &mut data.parse_parser(len.into())?, text)?;
    }
    Ok(())
}

fn write_key(key: u16, text: &mut BoundedText) -> fmt::Result {
    match KEYS.get(usize::from(key)) {
        Some(name) => text.write_str(name),
        None => write!(text, "key{key}"),
    }
}

/// The equals sign and the value of a parameter.
fn value(key: u16, data: &mut Data<'_>, text: &mut BoundedText) -> Result<(), Problem> {
    let has_none = matches!(KEYS.get(usize::from(key)), Some(&("no-default-alpn" | "ohttp")));
    match (has_none, data.remaining()) {
        (true, 0) => return Ok(()),
        (true, _) => return Err(Problem::Malformed),
        // Only unknown parameters may be empty.
        (false, 0) if usize::from(key) < KEYS.len() => return Err(Problem::Malformed),
        (false, 0) => return Ok(()),
        (false, _) => text.write_char('=')?,
    }
    match KEYS.get(usize::from(key)).copied() {
        Some("mandatory") => {
            list(data, text, |data, text| Ok(write_key(data.parse_u16_be()?, text)?))?
        }
        Some("alpn") => {
            text.write_char('"')?;
            list(data, text, |data, text| Ok(alpn(counted(data)?, text)?))?;
            text.write_char('"')?;
        }
        Some("port") => write!(text, "{}", data.parse_u16_be()?)?,
        Some("ipv4hint") => list(data, text, |data, text| {
            Ok(write!(text, "{}", Ipv4Addr::from(data.parse_u32_be()?))?)
        })?,
        Some("ipv6hint") => list(data, text, |data, text| {
            let mut address = [0; 16];
            data.parse_buf(&mut address)?;
            Ok(write!(text, "{}", Ipv6Addr::from(address))?)
        })?,
        Some("ech") => base64::display(all(data), text)?,
        _ => {
            text.write_char('"')?;
            escaped(all(data), text)?;
            text.write_char('"')?;
        }
    }
    if data.remaining() > 0 { Err(Problem::Malformed) } else { Ok(()) }
}

fn all<'a>(data: &mut Data<'a>) -> &'a [u8] {
    data.parse_octets(data.remaining()).unwrap_or_default()
}

/// Writes values until the end, with commas.
fn list(
    data: &mut Data<'_>,
    text: &mut BoundedText,
    one: impl Fn(&mut Data<'_>, &mut BoundedText) -> Result<(), Problem>,
) -> Result<(), Problem> {
    one(data, text)?;
    while data.remaining() > 0 {
        text.write_char(',')?;
        one(data, text)?;
    }
    Ok(())
}

/// A protocol in a quoted list: commas and backslashes are escaped twice, once for the list and
/// once for the string (RFC 9460, appendix A.1).
fn alpn(protocol: &[u8], text: &mut BoundedText) -> fmt::Result {
    for byte in protocol {
        match byte {
            b',' => text.write_str("\\\\,")?,
            b'\\' => text.write_str("\\\\\\\\")?,
            byte => escaped(&[*byte], text)?,
        }
    }
    Ok(())
}
