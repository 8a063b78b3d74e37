//! Sizes as people write them.

use std::num::IntErrorKind;

/// Reads `64M`, `1G`, `512K`, `1048576`; `64MiB` and `64MB` mean the same as `64M`.
///
/// # Errors
/// The mistake, for people.
pub(crate) fn parse(text: &str) -> Result<u64, String> {
    let too_large = || format!("'{text}' is too large for a size (the most is 16777215T)");
    let bad = || format!("'{text}' is no size (write it as 512K, 64M or 2G)");
    let digits = text.find(|c: char| !c.is_ascii_digit()).unwrap_or(text.len());
    let (number, unit) = text.split_at_checked(digits).ok_or_else(bad)?;
    let number: Result<u64, _> = number.parse();
    if number.as_ref().is_err_and(|error| *error.kind() != IntErrorKind::PosOverflow) {
        return Err(bad());
    }
    let unit = unit.trim_start().to_ascii_uppercase();
    let shift = match unit.trim_end_matches('B').trim_end_matches('I') {
        "" if unit != "I" && unit != "IB" => 0,
        "K" => 10,
        "M" => 20,
        "G" => 30,
        "T" => 40,
        _ => return Err(bad()),
    };
    number.ok().and_then(|number| number.checked_mul(1 << shift)).ok_or_else(too_large)
}

#[cfg(test)]
mod tests {
    use super::parse;

    #[test]
    fn sizes_are_read_with_binary_units() {
        for (text, bytes) in [
            ("1048576", 1 << 20),
            ("512K", 512 << 10),
            ("64M", 64 << 20),
            ("64MiB", 64 << 20),
            ("64mb", 64 << 20),
            ("2G", 2 << 30),
            ("1 G", 1 << 30),
        ] {
            assert_eq!(parse(text), Ok(bytes), "{text}");
        }
        for text in ["", "M", "64X", "-1", "1.5G", "99999999999T", "5i", "6ib", "ä"] {
            assert!(parse(text).is_err(), "{text}");
        }
        assert_eq!(parse("16777215T"), Ok(16_777_215 << 40));
        for text in ["16777216T", "99999999999T", "99999999999999999999"] {
            assert!(parse(text).unwrap_err().contains("too large"), "{text}");
        }
        assert!(parse("99999999999999999999X").unwrap_err().contains("is no size"));
    }
}
