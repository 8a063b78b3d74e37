//! Integers in as few bytes as they need, for long lists of packets.

/// Appends an integer in groups of 7 bits, lowest first. All bytes but the last have the high bit
/// set.
pub fn put(bytes: &mut Vec<u8>, mut value: u64) {
    loop {
        let [low, ..] = value.to_le_bytes();
        value >>= 7;
        if value == 0 {
            bytes.push(low & 0x7f);
            return;
        }
        bytes.push(low | 0x80);
    }
}

/// Removes an integer from the front; `None` if the bytes end first.
pub fn take(bytes: &mut &[u8]) -> Option<u64> {
    let mut value = 0;
    for shift in (0..u64::BITS).step_by(7) {
        let (byte, rest) = bytes.split_first()?;
        *bytes = rest;
        value |= u64::from(byte & 0x7f) << shift;
        if *byte < 0x80 {
            break;
        }
    }
    Some(value)
}

/// Maps a signed difference to a number that is small if the difference is small.
pub const fn fold(difference: i64) -> u64 {
    (difference << 1 ^ difference >> 63).cast_unsigned()
}

/// The difference that [`fold`] mapped to `folded`.
pub const fn unfold(folded: u64) -> i64 {
    (folded >> 1).cast_signed() ^ (folded & 1).cast_signed().wrapping_neg()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn values() -> Vec<u64> {
        (0..64)
            .flat_map(|bit| [(1_u64 << bit).wrapping_sub(1), 1 << bit])
            .chain([u64::MAX])
            .collect()
    }

    #[test]
    fn integers_of_all_lengths_are_read_back() {
        let mut bytes = Vec::new();
        for value in values() {
            put(&mut bytes, value);
        }
        let mut rest = bytes.as_slice();
        let back: Vec<u64> = std::iter::from_fn(|| take(&mut rest)).collect();
        assert_eq!(back, values());
    }

    #[test]
    fn differences_of_both_signs_come_back() {
        for value in values() {
            let difference = value.cast_signed();
            assert_eq!(unfold(fold(difference)), difference);
            assert_eq!(fold(unfold(value)), value);
        }
        assert_eq!([0, -1, 1, -2].map(fold), [0, 1, 2, 3], "small stays small");
    }
}
