//! What all formats of record data are read and written with.

use std::fmt::{self, Write};

use domain::base::wire::ParseError;
use domain::dep::octseq::Parser;
use domain::dep::octseq::parse::ShortInput;

use super::name::BoundedText;

/// The data that is left of a record. Names in it may point to the whole message before it.
pub(super) type Data<'a> = Parser<'a, [u8]>;

/// Why data was not written.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Problem {
    /// It does not have the format of its type.
    Malformed,
    /// The text has no room for it.
    NoRoom,
}

impl From<fmt::Error> for Problem {
    fn from(_: fmt::Error) -> Self {
        Self::NoRoom
    }
}

impl From<ParseError> for Problem {
    fn from(_: ParseError) -> Self {
        Self::Malformed
    }
}

impl From<ShortInput> for Problem {
    fn from(_: ShortInput) -> Self {
        Self::Malformed
    }
}

/// A length byte and as many bytes as it says: a character string of RFC 1035, section 3.3.
pub(super) fn counted<'a>(data: &mut Data<'a>) -> Result<&'a [u8], ShortInput> {
    let len = data.parse_u8()?;
    data.parse_octets(len.into())
}

/// The inside of a quoted string: RFC 1035, section 5.1.
pub(super) fn escaped(bytes: &[u8], text: &mut BoundedText) -> fmt::Result {
    for byte in bytes {
        match byte {
            b'"' | b'\\' => write!(text, "\\{}", char::from(*byte))?,
            b' '..=b'~' => text.write_char(char::from(*byte))?,
            _ => write!(text, "\\{byte:03}")?,
        }
    }
    Ok(())
}
