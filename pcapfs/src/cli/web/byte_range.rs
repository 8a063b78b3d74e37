//! The range of bytes that a request asks for (RFC 9110, 14.1.2).

/// The bytes of a file that are sent.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum ByteRange {
    /// All of them.
    Whole,
    /// Some of them; at least one.
    Part { from: u64, length: u64 },
    /// The file has none of those that are asked for.
    Outside,
}

/// Reads the header `Range` of a request for a file of `size` bytes. Units other than bytes, several
/// ranges and nonsense are ignored, as the standard allows.
pub(super) fn read(header: Option<&str>, size: u64) -> ByteRange {
    let range = header.and_then(|header| header.strip_prefix("bytes="));
    let Some((first, last)) = range.and_then(|range| range.trim().split_once('-')) else {
        return ByteRange::Whole;
    };
    // A sign would be read as a part of the number.
    let number = |text: &str| {
        let is_number = !text.is_empty() && text.bytes().all(|byte| byte.is_ascii_digit());
        is_number.then(|| text.parse().unwrap_or(u64::MAX))
    };
    let part = |from: u64, end: u64| match end.min(size).checked_sub(from) {
        None | Some(0) => ByteRange::Outside,
        Some(length) => ByteRange::Part { from, length },
    };
    match (number(first), number(last)) {
        (Some(from), None) if last.is_empty() => part(from, size),
        (Some(from), Some(last)) if from <= last => part(from, last.saturating_add(1)),
        (None, Some(count)) if first.is_empty() => part(size.saturating_sub(count), size),
        _ => ByteRange::Whole,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn ranges_are_read() {
        let part = |from, length| ByteRange::Part { from, length };
        for (header, size, wanted) in [
            ("bytes=0-0", 10, part(0, 1)),
            ("bytes=2-5", 10, part(2, 4)),
            ("bytes=2-", 10, part(2, 8)),
            ("bytes=2-99999999999999999999", 10, part(2, 8)),
            ("bytes=-3", 10, part(7, 3)),
            ("bytes=-30", 10, part(0, 10)),
            ("bytes=10-", 10, ByteRange::Outside),
            ("bytes=-0", 10, ByteRange::Outside),
            ("bytes=0-", 0, ByteRange::Outside),
            ("bytes=5-2", 10, ByteRange::Whole),
            ("bytes=1-2,4-5", 10, ByteRange::Whole),
            ("bytes=-", 10, ByteRange::Whole),
            ("bytes=+1-2", 10, ByteRange::Whole),
            ("lines=1-2", 10, ByteRange::Whole),
        ] {
            assert_eq!(read(Some(header), size), wanted, "{header}");
        }
        assert_eq!(read(None, 10), ByteRange::Whole);
    }
}
