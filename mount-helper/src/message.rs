//! Messages for people.

/// A message without the numbers of errors, since it has their texts.
#[must_use]
pub fn unnumbered(text: &str) -> String {
    const MARK: &str = " (os error ";
    let mut parts = text.split(MARK);
    let mut plain = parts.next().unwrap_or_default().to_owned();
    for part in parts {
        match part.split_once(')') {
            Some((number, rest)) if number.bytes().all(|byte| byte.is_ascii_digit()) => {
                plain.push_str(rest);
            }
            _ => {
                plain.push_str(MARK);
                plain.push_str(part);
            }
        }
    }
    plain
}

#[cfg(test)]
mod tests {
    use std::io;

    use super::*;

    #[test]
    fn errors_are_shown_without_their_numbers() {
        let error = io::Error::from_raw_os_error(libc::ENOENT);
        let two = format!("a: {error}; b: {error} (x)");
        assert_eq!(
            unnumbered(&two),
            "a: No such file or directory; b: No such file or directory (x)"
        );
        for text in ["", "a (os error x) b", "a (os error b)", "a (os error 2"] {
            assert_eq!(unnumbered(text), text);
        }
    }
}
