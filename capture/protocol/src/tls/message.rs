//! Joins the first handshake message of a stream from its records.

use std::borrow::Cow;

use super::LONGEST;
use super::reader::{Fault, Reader};

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
pub(super) struct Message<'a> {
    /// [`CLIENT_HELLO`] or [`SERVER_HELLO`].
    pub(super) kind: u8,
    pub(super) body: Cow<'a, [u8]>,
    pub(super) is_whole: bool,
}

impl<'a> Message<'a> {
    /// The message at the beginning of a stream, without a copy if one record contains all of it.
    ///
    /// Records may cut a message anywhere, but nothing comes between its parts, and no record is
    /// empty: RFC 8446, section 5.1.
    pub(super) fn gather(stream: &'a [u8]) -> Result<Self, Fault> {
        let mut reader = Reader::new(stream);
        let mut content = Cow::Borrowed(fragment(&mut reader)?);
        loop {
            match header(&mut Reader::new(&content)) {
                Ok((_, len)) if content.len() >= len => break,
                // Short: the header itself is spread over several records.
                Ok(_) | Err(Fault::Short) => {}
                Err(Fault::Broken) => return Err(Fault::Broken),
            }
            match fragment(&mut reader) {
                Ok(more) => content.to_mut().extend_from_slice(more),
                Err(Fault::Short) => break,
                Err(Fault::Broken) => return Err(Fault::Broken),
            }
        }
        let (kind, len) = header(&mut Reader::new(&content))?;
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
fn header(message: &mut Reader<'_>) -> Result<(u8, usize), Fault> {
    let kind = message.u8()?;
    Fault::unless(matches!(kind, CLIENT_HELLO | SERVER_HELLO))?;
    let len = usize::try_from(message.u24()?).unwrap_or(usize::MAX).saturating_add(HEADER);
    Fault::unless((HEADER.saturating_add(1)..=LONGEST).contains(&len))?;
    Ok((kind, len))
}

/// The content of the next record, as far as its bytes are known. At least one byte.
fn fragment<'a>(reader: &mut Reader<'a>) -> Result<&'a [u8], Fault> {
    Fault::unless(reader.u8()? == HANDSHAKE)?;
    Fault::unless(reader.u8()? == 3)?;
    Fault::unless(reader.u8()? <= 4)?;
    let len = usize::from(reader.u16()?);
    Fault::unless((1..=RECORD).contains(&len))?;
    let there = len.min(reader.rest().len());
    if there == 0 {
        return Err(Fault::Short);
    }
    reader.take(there)
}
