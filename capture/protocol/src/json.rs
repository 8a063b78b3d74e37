//! JSON of text from strangers, safe to show on a terminal.

use std::fmt::Write;

use serde::Serialize;

use crate::marks::reverses;

/// A value as one line of JSON, with its line feed. Just a line feed if the value cannot be JSON,
/// such as a map with lists as keys.
pub fn line(value: &impl Serialize) -> Vec<u8> {
    let mut line = escaped(serde_json::to_string(value).unwrap_or_default()).into_bytes();
    line.push(b'\n');
    line
}

/// Appends a value as JSON to text, usually without a second copy. Nothing if it cannot be JSON.
pub fn append(text: &mut Vec<u8>, value: &impl Serialize) {
    let begin = text.len();
    if serde_json::to_writer(&mut *text, value).is_err() {
        text.truncate(begin);
    }
    if !has_controls(text.get(begin..).unwrap_or_default()) {
        return;
    }
    // The appended bytes are JSON, so they are valid UTF-8.
    let added = String::from_utf8(text.split_off(begin)).unwrap_or_default();
    text.extend_from_slice(escaped(added).as_bytes());
}

/// Returns `true` if text contains characters that [`escaped`] escapes.
pub fn has_controls(text: &[u8]) -> bool {
    // Nearly no text contains a byte that these begin with, and a search for one byte is fast.
    let may_have = [0x7f, 0xc2, 0xd8, 0xe2].iter().any(|first| text.contains(first));
    may_have && String::from_utf8_lossy(text).chars().any(is_obeyed)
}

/// Characters that terminals obey and JSON allows in strings: delete, those of ISO 6429 from U+0080
/// to U+009F, those that end lines, and marks that reverse the order of displayed text (UAX #9).
fn is_obeyed(character: char) -> bool {
    let is_listed = matches!(
        character,
        '\u{7f}'..='\u{9f}' | '\u{61c}' | '\u{200e}' | '\u{200f}' | '\u{2028}' | '\u{2029}'
    );
    is_listed || reverses(character)
}

/// JSON with an escape in place of each character that a terminal obeys.
pub fn escaped(text: String) -> String {
    if !has_controls(text.as_bytes()) {
        return text;
    }
    let mut plain = String::with_capacity(text.len());
    for character in text.chars() {
        if is_obeyed(character) {
            // Writing to a string never fails.
            let _ = write!(plain, "\\u{:04x}", u32::from(character));
        } else {
            plain.push(character);
        }
    }
    plain
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn terminals_have_nothing_to_obey_and_programs_read_the_same() {
        let all: String = ('\0'..='\u{2fff}').collect();
        let line = line(&[&all]);
        let text = String::from_utf8(line).unwrap();
        assert!(!text.trim_end_matches('\n').chars().any(char::is_control), "{text:?}");
        let reversing =
            "\u{61c}\u{200e}\u{200f}\u{202a}\u{202b}\u{202d}\u{202e}\u{2066}\u{2067}\u{2068}";
        assert!(!text.chars().any(|one| reversing.contains(one)), "{text:?}");
        assert!(text.contains("\u{5d0}") && text.contains("\u{2013}"), "letters stay");
        // Each alone, so that none is found only because of another's first byte.
        for one in all.chars() {
            let alone = String::from_utf8(self::line(&one.to_string())).unwrap();
            assert!(!alone.chars().any(is_obeyed), "{one:?}");
        }
        assert_eq!(serde_json::from_str::<Vec<String>>(&text).unwrap(), [all.as_str()]);
        let mut whole = b"before ".to_vec();
        append(&mut whole, &[&all]);
        assert_eq!(String::from_utf8(whole).unwrap(), format!("before {}", text.trim_end()));
    }
}
