//! Names: read from a message, and written as text.
//!
//! `domain` has a type for names, which refuses compression pointers that lead forwards. Resolvers
//! and tshark follow such pointers, so names are read here.

use std::fmt::{Result, Write};

use domain::base::wire::ParseError;
use domain::dep::octseq::Parser;

/// Maximum length of a name on the wire without compression: RFC 1035, section 2.3.4.
const MAX_NAME: usize = 255;

/// Maximum number of pointers in a name. No program makes a longer chain: it is a loop.
const MAX_POINTERS: usize = 128;

/// Characters that have a meaning in the text of a name or in a master file: RFC 1035, section 5.1.
const SPECIAL: &[u8] = b".\\\"();@$";

/// A name without compression.
#[derive(Clone, Debug)]
pub(super) struct Name {
    /// The labels, each with its length before it, without the root.
    labels: Vec<u8>,
}

impl Name {
    /// Reads a name. Its compression pointers (RFC 1035, section 4.1.4) may lead anywhere in the
    /// message.
    pub(super) fn parse(parser: &mut Parser<'_, [u8]>) -> std::result::Result<Self, ParseError> {
        let mut labels = Vec::new();
        let mut pointers = 0_usize;
        // After the first pointer, the name goes on elsewhere.
        let mut elsewhere = *parser;
        loop {
            let at = if pointers == 0 { &mut *parser } else { &mut elsewhere };
            let first = at.parse_u8()?;
            match first {
                0 => return Ok(Self { labels }),
                1..=63 => {
                    let label = at.parse_octets(first.into())?;
                    labels.push(first);
                    labels.extend_from_slice(label);
                    if labels.len() >= MAX_NAME {
                        return Err(ParseError::form_error("long name"));
                    }
                }
                0xc0.. => {
                    let target = u16::from_be_bytes([first & 0x3f, at.parse_u8()?]);
                    pointers = pointers.saturating_add(1);
                    if pointers > MAX_POINTERS {
                        return Err(ParseError::form_error("too many pointers"));
                    }
                    elsewhere = Parser::from_ref(parser.octets_ref());
                    elsewhere.seek(target.into())?;
                }
                _ => return Err(ParseError::form_error("unknown label")),
            }
        }
    }

    /// Skips a name without following its pointer.
    pub(super) fn skip(parser: &mut Parser<'_, [u8]>) -> std::result::Result<(), ParseError> {
        let mut len = 0_usize;
        loop {
            let first = parser.parse_u8()?;
            match first {
                0 => return Ok(()),
                1..=63 => parser.advance(first.into())?,
                0xc0.. => return Ok(parser.advance(1)?),
                _ => return Err(ParseError::form_error("unknown label")),
            }
            len = len.saturating_add(first.into()).saturating_add(1);
            if len >= MAX_NAME {
                return Err(ParseError::form_error("long name"));
            }
        }
    }

    /// The labels without their lengths.
    fn labels(&self) -> impl Iterator<Item = &[u8]> {
        let mut rest = self.labels.as_slice();
        std::iter::from_fn(move || {
            let (len, after) = rest.split_first()?;
            let (label, after) = after.split_at_checked(usize::from(*len))?;
            rest = after;
            Some(label)
        })
    }
}

/// Writes a name without a dot at its end; the root is a dot. Special characters have a backslash
/// before them; blanks and what is not printable ASCII are three decimal digits after one
/// (RFC 1035, section 5.1).
pub(super) fn write(name: &Name, text: &mut impl Write) -> Result {
    if name.labels.is_empty() {
        return text.write_char('.');
    }
    for (number, label) in name.labels().enumerate() {
        if number > 0 {
            text.write_char('.')?;
        }
        for byte in label {
            match byte {
                byte if SPECIAL.contains(byte) => write!(text, "\\{}", char::from(*byte))?,
                b'!'..=b'~' => text.write_char(char::from(*byte))?,
                _ => write!(text, "\\{byte:03}")?,
            }
        }
    }
    Ok(())
}

/// Text that does not exceed its limit. Writing fails if it would.
#[derive(Debug, Default)]
pub(super) struct BoundedText {
    text: String,
    room: usize,
}

impl BoundedText {
    /// Empty text that may take `room` bytes in a string of JSON.
    pub(super) fn new(room: usize) -> Self {
        Self { text: String::new(), room }
    }

    /// Empties the text.
    pub(super) fn clear(&mut self) {
        self.room = self.room.saturating_add(json_len(&self.text));
        self.text.clear();
    }

    pub(super) fn into_text(self) -> Box<str> {
        self.text.into_boxed_str()
    }
}

impl Write for BoundedText {
    fn write_str(&mut self, text: &str) -> Result {
        self.room = self.room.checked_sub(json_len(text)).ok_or(std::fmt::Error)?;
        self.text.push_str(text);
        Ok(())
    }
}

/// The bytes that printable ASCII takes in a string of JSON.
pub(super) fn json_len(text: &str) -> usize {
    let escaped = text.bytes().filter(|byte| matches!(byte, b'"' | b'\\')).count();
    text.len().saturating_add(escaped)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn text(wire: &[u8]) -> String {
        let name = Name::parse(&mut Parser::from_ref(wire)).unwrap();
        let mut text = String::new();
        write(&name, &mut text).unwrap();
        text
    }

    #[test]
    fn special_characters_are_escaped() {
        assert_eq!(text(b"\x03www\x07Example\x03com\0"), "www.Example.com");
        assert_eq!(text(b"\0"), ".");
        assert_eq!(text(b"\x03a.b\x02\\c\0"), "a\\.b.\\\\c");
        assert_eq!(text(b"\x07a b\0\xff\"@\0"), "a\\032b\\000\\255\\\"\\@");
    }

    #[test]
    fn pointers_lead_anywhere_and_end() {
        let parse = |wire: &[u8], at: usize| {
            let mut parser = Parser::from_ref(wire);
            parser.seek(at).unwrap();
            let name = Name::parse(&mut parser).ok()?;
            let mut text = String::new();
            write(&name, &mut text).unwrap();
            Some((text, parser.pos()))
        };
        let found = |text: &str, at: usize| Some((text.to_owned(), at));
        assert_eq!(parse(b"\x01a\0\x01b\xc0\0!", 3), found("b.a", 7));
        assert_eq!(parse(b"\x01b\xc0\x04\x01a\0", 0), found("b.a", 4));
        assert_eq!(parse(b"\xc0\0", 0), None);
        assert_eq!(parse(b"\x01a\xc0\0", 0), None);
        assert_eq!(parse(b"\x01a\xc0\x09", 0), None);
        assert_eq!(parse(b"\x41a\0", 0), None);
        let longest = [&[63; 64][..], &[63; 64], &[63; 64], &[61; 62], &[0]].concat();
        assert!(parse(&longest, 0).is_some());
        let longer = [&[63; 64][..], &[63; 64], &[63; 64], &[62; 63], &[0]].concat();
        assert_eq!(parse(&longer, 0), None);
        assert!(Name::skip(&mut Parser::from_ref(&longest[..])).is_ok());
        assert!(Name::skip(&mut Parser::from_ref(&longer[..])).is_err());
    }

    #[test]
    fn bounded_text_stays_within_its_room() {
        let mut text = BoundedText::new(6);
        text.write_str("ab\\").unwrap();
        assert!(text.write_str("\"x").is_err());
        text.write_str("\"").unwrap();
        text.clear();
        text.write_str("123456").unwrap();
        assert_eq!(&*text.into_text(), "123456");
    }
}
