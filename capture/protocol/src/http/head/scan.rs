//! Finds the end of a head from its bytes alone.
//!
//! The end is found in the same place for any way of cutting the bytes into calls.

/// Searches for the end of a head while its bytes arrive, looking at each byte once.
#[derive(Clone, Copy, Debug, Default)]
pub(in crate::http) struct Scan {
    /// Lines before this offset do not end the head.
    line: usize,
    /// No LF in `line..looked`.
    looked: usize,
}

impl Scan {
    /// Length of the first line without its LF, as long as no later line was searched.
    pub(in crate::http) fn first_line(&mut self, bytes: &[u8]) -> Option<usize> {
        if self.line > 0 {
            return None;
        }
        let at = bytes.get(self.looked..)?.iter().position(|byte| *byte == b'\n');
        if at.is_none() {
            self.looked = bytes.len();
        }
        at.and_then(|at| at.checked_add(self.looked))
    }

    /// Length of the head including its empty line, once that is certain.
    pub(in crate::http) fn end(&mut self, bytes: &[u8]) -> Option<usize> {
        loop {
            let at = bytes.get(self.looked..)?.iter().position(|byte| *byte == b'\n');
            let Some(at) = at.and_then(|at| at.checked_add(self.looked)) else {
                self.looked = bytes.len();
                return None;
            };
            let after = at.saturating_add(1);
            let line = bytes.get(self.line..at).unwrap_or_default();
            if self.line > 0 && line.iter().all(|byte| is_blank(*byte)) {
                let ends = match line {
                    [] | [b'\r'] => true,
                    // Blanks: a continuation of the head, or its end from a sloppy sender.
                    _ => match bytes.get(after..).unwrap_or_default() {
                        [] | [b'\r'] => None,
                        [b'\n' | b' ' | b'\t', ..] | [b'\r', b'\n', ..] => Some(false),
                        rest => begins_header(rest).map(|begins| !begins),
                    }
                    .or_else(|| {
                        self.looked = at;
                        None
                    })?,
                };
                if ends {
                    return Some(after);
                }
            }
            (self.line, self.looked) = (after, after);
        }
    }
}

/// Maximum length of a header name in places where a header may or may not begin. The longest
/// registered name has 36 characters.
const NAME_MAX: usize = 64;

/// Whether `bytes` begin with `name:`. `None` if more bytes are needed.
pub(in crate::http) fn begins_header(bytes: &[u8]) -> Option<bool> {
    match bytes.iter().take(NAME_MAX).position(|byte| !is_token(*byte)) {
        Some(0) => Some(false),
        Some(at) => Some(bytes.get(at) == Some(&b':')),
        None if bytes.len() >= NAME_MAX => Some(false),
        None => None,
    }
}

/// Blanks around names and values. NBSP is not one of them, being a byte above 0x7f.
pub(super) const fn is_blank(byte: u8) -> bool {
    matches!(byte, b' ' | b'\t' | b'\r' | b'\n' | 0x0b | 0x0c | 0)
}

pub(super) const fn is_token(byte: u8) -> bool {
    byte.is_ascii_alphanumeric()
        || matches!(
            byte,
            b'!' | b'#'
                | b'$'
                | b'%'
                | b'&'
                | b'\''
                | b'*'
                | b'+'
                | b'-'
                | b'.'
                | b'^'
                | b'_'
                | b'`'
                | b'|'
                | b'~'
        )
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_head_ends_where_browsers_end_it() {
        for (head, body) in [
            ("HTTP/1.1 200 ok\r\nA: b\r\n\r\n", "x: y\r\n\r\n"),
            ("HTTP/1.1 200 ok\nA: b\n\n", "body"),
            ("HTTP/1.1 200 ok\nA: b\n\r\n", "body"),
            ("HTTP/1.1 200 ok\r\nA: b\n\r\r\n", "X5O!P%@"),
            ("HTTP/1.1 200 ok\r\nA: b\n\r\r\n\r\n", "4\r\n"),
            ("HTTP/1.1 200 ok\r\nA: b\n\t\n", "4\r\n"),
            ("HTTP/1.1 200 ok\r\nA: b\n \r\n\r\n", "4\r\n"),
            ("HTTP/1.1 200 ok\r\nA: b\n\u{b}\n\n", "4\r\n"),
            ("HTTP/1.1 200 ok\r\n\r\r\nA: b\r\n\r\n", "4\r\n"),
            ("HTTP/1.1 200 ok\rA: b\r\n\n", "4\r\n"),
        ] {
            let bytes = format!("{head}{body}");
            let mut scan = Scan::default();
            let mut found = None;
            for length in 0..=bytes.len() {
                found = found.or_else(|| scan.end(&bytes.as_bytes()[..length]));
            }
            assert_eq!(found, Some(head.len()), "{head:?}");
            assert_eq!(Scan::default().end(bytes.as_bytes()), Some(head.len()), "{head:?}");
        }
    }
}
