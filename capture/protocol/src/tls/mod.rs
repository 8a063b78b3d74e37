//! Reads the unencrypted part of TLS: the name a client asks for, protocols and versions.
//!
//! Pure: takes the first bytes of a stream, and returns the facts in its first message. Nothing is
//! decrypted. Later messages of a side are of no interest here.
//!
//! Sources: RFC 8446 (TLS 1.3), RFC 5246 (TLS 1.2), RFC 6066 section 3 (`server_name`), RFC 7301
//! section 3.1 (ALPN), RFC 8701 (GREASE), RFC 6101 (SSL 3.0).

mod message;
mod reader;

use std::fmt;

use message::{CLIENT_HELLO, HelloMessage};
use reader::{FieldReader, HelloFault};

/// Maximum bytes of a hello including its header. Hellos with post-quantum keys have 2 KB; the
/// format allows more than this.
const LONGEST: usize = 64 << 10;

/// Number of bytes after which [`hello`] is always decided: the longest hello that is read, with a
/// record header of five bytes before each of its bytes.
pub const ENOUGH: usize = 6 * LONGEST;

/// Maximum bytes kept of a name.
const NAME: usize = 255;

/// Maximum number of protocols kept of a client's offer.
const PROTOCOLS: usize = 32;

/// `SHA-256("HelloRetryRequest")`: the random number in a server hello that is really a
/// `HelloRetryRequest`, RFC 8446, section 4.1.3.
const RETRY: [u8; 32] = [
    0xcf, 0x21, 0xad, 0x74, 0xe5, 0x9a, 0x61, 0x11, 0xbe, 0x1d, 0x8c, 0x02, 0x1e, 0x65, 0xb8, 0x91,
    0xc2, 0xa2, 0x11, 0x16, 0x7a, 0xbb, 0x8c, 0x5e, 0x07, 0x9e, 0x09, 0xe2, 0xc8, 0xa8, 0x33, 0x9c,
];

/// Extension `server_name`: RFC 6066, section 3.
const SERVER_NAME: u16 = 0;

/// Extension `application_layer_protocol_negotiation`: RFC 7301, section 3.1.
const ALPN: u16 = 16;

/// Extension `supported_versions`: RFC 8446, section 4.2.1.
const SUPPORTED_VERSIONS: u16 = 43;

/// The protocol that the first bytes of a stream show.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum HelloOutcome {
    /// The bytes so far do not decide it.
    NotYet,
    /// Not the beginning of TLS.
    No,
    /// The hello of the side that opens a TLS connection.
    Client(ClientHello),
    /// The hello of the other side.
    Server(ServerHello),
}

/// The offer of a client.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ClientHello {
    /// The host it wants to reach: at most 255 bytes, without control characters. With an encrypted
    /// hello inside, the name in the outer hello.
    pub server_name: Option<String>,
    /// The highest version offered.
    pub version: Version,
    /// Application protocols, the preferred one first. At most 32, limited like names.
    pub alpn: Vec<String>,
}

/// The choice of a server.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ServerHello {
    /// The version that will be used.
    pub version: Version,
    /// The application protocol. TLS 1.3 does not show it.
    pub alpn: Option<String>,
    /// The server first asks for another client hello (`HelloRetryRequest`).
    pub is_retry: bool,
}

/// A version number as in TLS. Displayed as `TLS 1.3` or `SSL 3.0`.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct Version(pub u16);

impl Version {
    /// A draft of TLS 1.3. RFC 8446 had 28 drafts, and they were in use for years.
    const fn is_draft(self) -> bool {
        self.0 >> 8 == 0x7f
    }

    /// The order of versions, oldest first. `None` for numbers that are not versions, such as
    /// GREASE.
    fn rank(self) -> Option<(u16, u16)> {
        match self.0.to_be_bytes() {
            [3, _] => Some((self.0, 0)),
            [0x7f, draft] => Some((0x0303, u16::from(draft).max(1))),
            _ => None,
        }
    }
}

impl fmt::Display for Version {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.0.to_be_bytes() {
            [0, 2] => write!(formatter, "SSL 2.0"),
            [3, 0] => write!(formatter, "SSL 3.0"),
            [3, minor] => write!(formatter, "TLS 1.{}", minor.saturating_sub(1)),
            [0x7f, draft] => write!(formatter, "TLS 1.3 (draft {draft})"),
            _ => write!(formatter, "0x{:04x}", self.0),
        }
    }
}

/// Reads the hello at the beginning of a stream.
///
/// Once it is decided, more bytes do not change the result; [`ENOUGH`] bytes always decide it. Each
/// call reads the hello from its beginning, so a caller that waits for a long hello should not call
/// for each new byte.
#[must_use]
pub fn hello(bytes: &[u8]) -> HelloOutcome {
    match bytes.first() {
        None => return HelloOutcome::NotYet,
        Some(first) if first & 0x80 != 0 => {
            return decide(compatible_client_hello(&mut FieldReader::new(bytes)), false);
        }
        Some(_) => {}
    }
    let message = match HelloMessage::gather(bytes) {
        Ok(message) => message,
        Err(fault) => return decide(Err(fault), false),
    };
    let mut body = FieldReader::new(&message.body);
    let found = if message.kind == CLIENT_HELLO {
        client_hello(&mut body).map(HelloOutcome::Client)
    } else {
        server_hello(&mut body).map(HelloOutcome::Server)
    };
    match found {
        Ok(_) if !message.is_whole => HelloOutcome::NotYet,
        found => decide(found, message.is_whole),
    }
}

/// `is_whole`: data that was too short will not grow.
fn decide(found: Result<HelloOutcome, HelloFault>, is_whole: bool) -> HelloOutcome {
    match found {
        Ok(outcome) => outcome,
        Err(HelloFault::Short) if !is_whole => HelloOutcome::NotYet,
        Err(_) => HelloOutcome::No,
    }
}

/// A client hello in the format of SSL 2.0, which clients of later versions sent too: RFC 5246,
/// section E.2. It names no server.
fn compatible_client_hello(reader: &mut FieldReader<'_>) -> Result<HelloOutcome, HelloFault> {
    let len = usize::from(reader.u16()? & 0x7fff);
    HelloFault::unless(reader.u8()? == CLIENT_HELLO)?;
    let version = Version(reader.u16()?);
    HelloFault::unless(matches!(version.0, 0x0002 | 0x0300..=0x0304))?;
    let ciphers = usize::from(reader.u16()?);
    HelloFault::unless(ciphers > 0 && ciphers.is_multiple_of(3))?;
    let session = usize::from(reader.u16()?);
    HelloFault::unless(matches!(session, 0 | 16))?;
    let challenge = usize::from(reader.u16()?);
    HelloFault::unless((16..=32).contains(&challenge))?;
    let fields = [ciphers, session, challenge].into_iter().fold(9, usize::saturating_add);
    HelloFault::unless(len == fields)?;
    Ok(HelloOutcome::Client(ClientHello { server_name: None, version, alpn: Vec::new() }))
}

/// RFC 8446, section 4.1.2.
fn client_hello(body: &mut FieldReader<'_>) -> Result<ClientHello, HelloFault> {
    let version = legacy_version(body)?;
    HelloFault::unless(!version.is_draft())?;
    body.take(32)?;
    session_id(body)?;
    let ciphers = usize::from(body.u16()?);
    HelloFault::unless(ciphers >= 2 && ciphers.is_multiple_of(2))?;
    body.take(ciphers)?;
    let compressions = usize::from(body.u8()?);
    HelloFault::unless(compressions >= 1)?;
    body.take(compressions)?;
    let extensions = Extensions::read(body)?;
    let versions = extensions.supported_versions.and_then(|mut versions| versions.short().ok());
    let best = versions.into_iter().flat_map(words).map(Version);
    let best = best.filter(|version| version.rank().is_some()).max_by_key(|one| one.rank());
    Ok(ClientHello {
        server_name: extensions.server_name.and_then(host_name),
        version: best.unwrap_or(version),
        alpn: extensions.alpn.map(protocols).unwrap_or_default(),
    })
}

/// RFC 8446, section 4.1.3.
fn server_hello(body: &mut FieldReader<'_>) -> Result<ServerHello, HelloFault> {
    let version = legacy_version(body)?;
    let is_retry = body.take(32)? == RETRY;
    if version.is_draft() {
        // Drafts up to 21 had no other fields. They are only recognized by this version number.
        body.take(2)?;
    } else {
        session_id(body)?;
        body.take(3)?;
    }
    let extensions = Extensions::read(body)?;
    let selected = extensions.supported_versions.and_then(|mut version| version.u16().ok());
    let selected = selected.map(Version).filter(|version| version.rank().is_some());
    let alpn = extensions.alpn.and_then(|list| protocols(list).into_iter().next());
    Ok(ServerHello { version: selected.unwrap_or(version), alpn, is_retry })
}

fn legacy_version(body: &mut FieldReader<'_>) -> Result<Version, HelloFault> {
    let major = body.u8()?;
    HelloFault::unless(matches!(major, 3 | 0x7f))?;
    Ok(Version(u16::from_be_bytes([major, body.u8()?])))
}

fn session_id(body: &mut FieldReader<'_>) -> Result<(), HelloFault> {
    let len = body.u8()?;
    HelloFault::unless(len <= 32)?;
    body.take(len.into()).map(drop)
}

/// The contents of the extensions that matter here. An extension that violates its own format is
/// ignored.
#[derive(Debug, Default)]
struct Extensions<'a> {
    server_name: Option<FieldReader<'a>>,
    alpn: Option<FieldReader<'a>>,
    supported_versions: Option<FieldReader<'a>>,
}

impl<'a> Extensions<'a> {
    /// RFC 8446, section 4.2. Versions before TLS 1.2 need not have the field at all.
    fn read(body: &mut FieldReader<'a>) -> Result<Self, HelloFault> {
        let mut found = Self::default();
        if body.is_empty() {
            return Ok(found);
        }
        let mut all = body.long()?;
        while !all.is_empty() {
            // The total length is known here, so a field that is too short will not grow.
            let kind = all.u16().map_err(|_| HelloFault::Broken)?;
            let content = all.long().map_err(|_| HelloFault::Broken)?;
            let place = match kind {
                SERVER_NAME => &mut found.server_name,
                ALPN => &mut found.alpn,
                SUPPORTED_VERSIONS => &mut found.supported_versions,
                _ => continue,
            };
            place.get_or_insert(content);
        }
        Ok(found)
    }
}

/// The first host name of a list of names: RFC 6066, section 3.
fn host_name(mut content: FieldReader<'_>) -> Option<String> {
    let mut names = content.long().ok()?;
    loop {
        let (kind, name) = (names.u8().ok()?, names.long().ok()?);
        if kind == 0 {
            return (!name.is_empty()).then(|| text(name.rest()));
        }
    }
}

/// RFC 7301, section 3.1.
fn protocols(mut content: FieldReader<'_>) -> Vec<String> {
    let mut list = content.long().unwrap_or_default();
    let names = std::iter::from_fn(|| list.short().ok());
    let names = names.filter(|name| !name.is_empty()).take(PROTOCOLS);
    names.map(|name| text(name.rest())).collect()
}

fn words(list: FieldReader<'_>) -> impl Iterator<Item = u16> {
    let (words, _) = list.rest().as_chunks::<2>();
    words.iter().map(|word| u16::from_be_bytes(*word))
}

/// A name from the wire, safe to display.
fn text(bytes: &[u8]) -> String {
    let mut name = String::new();
    for character in String::from_utf8_lossy(bytes).chars() {
        let shown = if character.is_control() { char::REPLACEMENT_CHARACTER } else { character };
        if name.len().saturating_add(shown.len_utf8()) > NAME {
            break;
        }
        name.push(shown);
    }
    name
}

#[cfg(test)]
mod tests;
