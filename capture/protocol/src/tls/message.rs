//! Joins the first handshake message of a stream from its records.

use std::borrow::Cow;

use super::LONGEST;
use super::reader::{FieldReader, HelloFault};

/// Content type of a record that carries handshake messages: RFC 8446, section 5.1.
const HANDSHAKE: u8 = 22;

/// Maximum bytes of a record's content: RFC 8446, section 5.1.
const RECORD: usize = 1 << 14;

/// Handshake message `client_hello`: RFC 8446, section 4.
pub(super) const CLIENT_HELLO: u8 = 1;

/// Handshake message `server_hello`.
const SERVER_HELLO: u8 = 2;

/// Bytes of a handshake message before its body.
const HEADER: usize = 4;

/// A hello, as far as its bytes are known.
#[derive(Debug)]
pub(super) struct HelloMessage<'a> {
    /// [`CLIENT_HELLO`] or [`SERVER_HELLO`].
    pub(super) kind: u8,
    pub(super) body: Cow<'a, [u8]>,
    pub(super) is_whole: bool,
}

impl<'a> HelloMessage<'a> {
    /// The message at the beginning of a stream, without a copy if one record contains all of it.
    ///
    /// Records may cut a message anywhere, but nothing comes between its parts, and no record is
    /// empty: RFC 8446, section 5.1.
    pub(super) fn gather(stream: &'a [u8]) -> Result<Self, HelloFault> {
        let mut reader = FieldReader::new(stream);
        let mut content = Cow::Borrowed(fragment(&mut reader)?);
        loop {
            match header(&mut FieldReader::new(&content)) {
                Ok((_, len)) if content.len() >= len => break,
                // Short: the header itself is spread over several records.
                Ok(_) | Err(HelloFault::Short) => {}
                Err(HelloFault::Broken) => return Err(HelloFault::Broken),
            }
            match fragment(&mut reader) {
                Ok(more) => content.to_mut().extend_from_slice(more),
                Err(HelloFault::Short) => break,
                Err(HelloFault::Broken) => return Err(HelloFault::Broken),
            }
        }
        let (kind, len) = header(&mut FieldReader::new(&content))?;
        let is_whole = content.len() >= len;
        let body = match content {
            Cow::Borrowed(bytes) => Cow::Borrowed(body(bytes, len)),
            Cow::Owned(bytes) => Cow::Owned(body(&bytes, len).to_vec()),
        };
        Ok(Self { kind, body, is_whole })
    }
}

fn body(content: &[u8], len: usize) -> &[u8] {
    content.get(HEADER..len.min(content.len())).unwrap_or_default()
}

/// The kind of the message, and its length including this header. A message has a body.
fn header(message: &mut FieldReader<'_>) -> Result<(u8, usize), HelloFault> {
    let kind = message.u8()?;
    HelloFault::unless(matches!(kind, CLIENT_HELLO | SERVER_HELLO))?;
    let len = usize::try_from(message.u24()?).unwrap_or(usize::MAX).saturating_add(HEADER);
    HelloFault::unless((HEADER.saturating_add(1)..=LONGEST).contains(&len))?;
    Ok((kind, len))
}

/// The content of the next record, as far as its bytes are known. At least one byte.
fn fragment<'a>(reader: &mut FieldReader<'a>) -> Result<&'a [u8], HelloFault> {
    HelloFault::unless(reader.u8()? == HANDSHAKE)?;
    HelloFault::unless(reader.u8()? == 3)?;
    HelloFault::unless(reader.u8()? <= 4)?;
    let len = usize::from(reader.u16()?);
    HelloFault::unless((1..=RECORD).contains(&len))?;
    let there = len.min(reader.rest().len());
    if there == 0 {
        return Err(HelloFault::Short);
    }
    reader.take(there)
}
