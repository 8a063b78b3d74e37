//! Names as text.

use std::fmt::{Result, Write};

use domain::base::name::ParsedName;

/// A name in a message. It has at most 255 bytes, and its compression pointers lead backwards.
pub(super) type Name<'a> = ParsedName<&'a [u8]>;

/// Characters that have a meaning in the text of a name or in a master file: RFC 1035, section 5.1.
const SPECIAL: &[u8] = b".\\\"();@$";

/// Writes a name without a dot at its end; the root is a dot. Special characters have a backslash
/// before them; blanks and what is not printable ASCII are three decimal digits after one
/// (RFC 1035, section 5.1).
pub(super) fn write(name: &Name<'_>, text: &mut impl Write) -> Result {
    if name.is_root() {
        return text.write_char('.');
    }
    let labels = name.iter().take_while(|label| !label.is_root());
    for (number, label) in labels.enumerate() {
        if number > 0 {
            text.write_char('.')?;
        }
        for byte in label.as_slice() {
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
pub(super) struct Bounded {
    text: String,
    room: usize,
}

impl Bounded {
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

impl Write for Bounded {
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
    use domain::dep::octseq::Parser;

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
    fn bounded_text_stays_within_its_room() {
        let mut text = Bounded::new(6);
        text.write_str("ab\\").unwrap();
        assert!(text.write_str("\"x").is_err());
        text.write_str("\"").unwrap();
        text.clear();
        text.write_str("123456").unwrap();
        assert_eq!(&*text.into_text(), "123456");
    }
}
