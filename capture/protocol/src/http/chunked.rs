//! Reads the lines between chunks as browsers do: hardly strict.

/// The result for a chunk's first line.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Line {
    /// It is incomplete. This many bytes at its beginning are blanks.
    More(usize),
    /// The chunk has `size` bytes and begins after `length` bytes.
    Size { size: u64, length: usize },
    /// It is not a chunk's first line.
    Bad(&'static str),
    /// Longer than allowed.
    TooLong,
}

/// Blanks, line ends and other control characters that are allowed before a size.
pub(super) const fn is_blank(byte: u8) -> bool {
    matches!(byte, b' ' | b'\t' | b'\r' | b'\n' | 0x0b | 0x0c | 0)
}

/// Reads the line with a chunk's size, after the line end of the chunk before it.
///
/// With `first`, the line decides whether the body is chunked at all, and its size must be a
/// separate word.
pub(super) fn size_line(bytes: &[u8], first: bool, max: usize) -> Line {
    let blanks = bytes.iter().take_while(|byte| is_blank(**byte)).count();
    let line = bytes.get(blanks..).unwrap_or_default();
    // Later bytes must not change the result, so they do not count if they are already there.
    let line = line.get(..max).unwrap_or(line);
    if first && blanks > max {
        return Line::TooLong;
    }
    let hex = match line {
        [b'0', b'x' | b'X', rest @ ..] if rest.first().is_none_or(u8::is_ascii_hexdigit) => rest,
        _ => line,
    };
    let digits = hex.iter().take_while(|byte| byte.is_ascii_hexdigit()).count();
    let end = line.iter().position(|byte| *byte == b'\n');
    match hex.get(digits) {
        None if line.len() >= max => return Line::TooLong,
        None => return Line::More(blanks),
        Some(_) if digits == 0 => return Line::Bad("a chunk's size is no number"),
        Some(byte) if first && !is_blank(*byte) && !matches!(byte, b';' | b',') => {
            return Line::Bad("a chunk's size is no number");
        }
        Some(_) => {}
    }
    let zeros = hex.iter().take_while(|byte| **byte == b'0').count().min(digits);
    let digits = hex.get(zeros..digits).unwrap_or_default();
    let size = match std::str::from_utf8(digits) {
        Ok("") => 0,
        Ok(digits) => match u64::from_str_radix(digits, 16) {
            Ok(size) if size <= i64::MAX.cast_unsigned() => size,
            _ => return Line::Bad("a chunk's size is out of range"),
        },
        Err(_) => return Line::Bad("a chunk's size is no number"),
    };
    match end {
        Some(end) => Line::Size { size, length: blanks.saturating_add(end).saturating_add(1) },
        None if line.len() >= max => Line::TooLong,
        None => Line::More(blanks),
    }
}

/// Maximum size of a first chunk whose end is checked: its bytes are kept until then.
const ODD_CHUNK: usize = 16 << 10;

/// Whether a body begins with a chunk although the digits of its size are followed by other
/// characters, which some browsers ignore. It does if a line ends where that chunk ends. `None` if
/// more bytes are needed. To be called if [`size_line`] returns [`Line::Bad`] for a first line.
pub(super) fn odd_first(bytes: &[u8], max: usize) -> Option<bool> {
    // Read as a later line, which may have any characters after the digits.
    let (size, length) = match size_line(bytes, false, max) {
        Line::Size { size, length } => (usize::try_from(size).unwrap_or(usize::MAX), length),
        Line::More(_) => return None,
        Line::Bad(_) | Line::TooLong => return Some(false),
    };
    if !(1..=ODD_CHUNK).contains(&size) {
        return Some(false);
    }
    match bytes.get(length.saturating_add(size)..) {
        Some([b'\n', ..] | [b'\r', b'\n', ..]) => Some(true),
        None | Some([] | [b'\r']) => None,
        Some(_) => Some(false),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn sizes_of_all_kinds() {
        for (line, expected) in [
            ("f\r\n", 15),
            ("F\n", 15),
            ("0000000000000000000000f\r\n", 15),
            ("f \r\n", 15),
            ("f\r\r\n", 15),
            ("f,\r\n", 15),
            ("f;name=value; x\r\n", 15),
            ("f x\r\n", 15),
            ("\r\n\r\n\t f\r\n", 15),
            ("0xf\r\n", 15),
            ("0\r\n", 0),
            ("000\n", 0),
        ] {
            let length = line.len();
            let found = size_line(line.as_bytes(), true, 100);
            assert_eq!(found, Line::Size { size: expected, length }, "{line:?}");
            for cut in 0..line.len() {
                let found = size_line(&line.as_bytes()[..cut], true, 100);
                assert!(matches!(found, Line::More(_)), "{line:?} up to {cut}");
            }
        }
    }

    #[test]
    fn a_first_chunk_with_other_characters_after_its_size() {
        for (bytes, expected) in [
            ("5x\r\nhello\r\n", Some(true)),
            ("5x\nhello\n", Some(true)),
            ("5x\r\nhello!\r\n", Some(false)),
            ("4(P^)7CC)7}$E\r\n", None),
            ("4(P^)7\r\nCC)7}$E\r\n", Some(false)),
            ("0x\r\n\r\n", Some(false)),
            ("fffffx\r\nhello\r\n", Some(false)),
        ] {
            assert_eq!(odd_first(bytes.as_bytes(), 100), expected, "{bytes:?}");
            for cut in 0..bytes.len() {
                let found = odd_first(&bytes.as_bytes()[..cut], 100);
                assert!(found.is_none() || found == expected, "{bytes:?} up to {cut}");
            }
        }
    }

    #[test]
    fn text_that_is_not_a_size_is_refused() {
        for line in ["X5O\r\n", "-1\r\n", ";\r\n", "10000000000000000\r\n", "8000000000000000\r\n"]
        {
            assert!(matches!(size_line(line.as_bytes(), false, 100), Line::Bad(_)), "{line:?}");
        }
        assert!(matches!(size_line(b"4(P^)7\r\n", true, 100), Line::Bad(_)));
        assert!(matches!(size_line(b"5;aaaaaaaaaaaaaaaa", false, 10), Line::TooLong));
    }
}
