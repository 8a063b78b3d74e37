//! JSON of what strangers have sent, such that a terminal can show it.

use std::fmt::Write;

use serde::Serialize;

/// A value as one line of JSON, with its line feed; empty if it cannot be one, such as a map with
/// lists for keys.
pub fn line(value: &impl Serialize) -> Vec<u8> {
    let mut line = escaped(serde_json::to_string(value).unwrap_or_default()).into_bytes();
    line.push(b'\n');
    line
}

/// Appends a value as JSON to text, without a second copy of it as a rule; nothing if it cannot be one.
pub fn append(text: &mut Vec<u8>, value: &impl Serialize) {
    let begin = text.len();
    if serde_json::to_writer(&mut *text, value).is_err() {
        text.truncate(begin);
    }
    if !has_controls(text.get(begin..).unwrap_or_default()) {
        return;
    }
    // What was appended is text.
    let added = String::from_utf8(text.split_off(begin)).unwrap_or_default();
    text.extend_from_slice(escaped(added).as_bytes());
}

/// Whether text has control characters that JSON allows in strings, see [`escaped`].
pub fn has_controls(text: &[u8]) -> bool {
    // Nearly no text has either byte, and looking for a byte is quick: delete, and the one that the
    // others begin with in UTF-8.
    let second = |pair: &[u8]| matches!(pair, [0xc2, 0x80..=0x9f]);
    text.contains(&0x7f) || text.contains(&0xc2) && text.windows(2).any(second)
}

/// JSON with an escape in place of each control character that JSON allows in strings and terminals
/// obey: delete, and those of ISO 6429 from U+0080 to U+009F.
pub fn escaped(text: String) -> String {
    let is_control = |character: char| ('\u{7f}'..='\u{9f}').contains(&character);
    if !has_controls(text.as_bytes()) {
        return text;
    }
    let mut plain = String::with_capacity(text.len());
    for character in text.chars() {
        if is_control(character) {
            // A string takes any text.
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
        let all: String = ('\0'..='\u{ff}').collect();
        let line = line(&[&all]);
        let text = String::from_utf8(line).unwrap();
        assert!(!text.trim_end_matches('\n').chars().any(char::is_control), "{text:?}");
        assert_eq!(serde_json::from_str::<Vec<String>>(&text).unwrap(), [all.as_str()]);
        let mut whole = b"before ".to_vec();
        append(&mut whole, &[&all]);
        assert_eq!(String::from_utf8(whole).unwrap(), format!("before {}", text.trim_end()));
    }
}
