//! The greeting with which both ends begin (RFC 37, "Greeting").
//!
//! ```text
//!   0     signature: ff, eight bytes, 7f
//!   10    version: major 3, minor
//!   12    mechanism, 20 bytes, filled up with zeros
//!   32    1 for a server of the mechanism, and 31 zeros
//! ```

/// Bytes of a greeting.
pub(in crate::cli::publish) const GREETING: usize = 64;

/// The version that this side speaks.
const VERSION: [u8; 2] = [3, 1];

const MECHANISM: &[u8; 20] = b"NULL\0\0\0\0\0\0\0\0\0\0\0\0\0\0\0\0";

/// The greeting of this side.
pub(in crate::cli::publish) fn greeting() -> [u8; GREETING] {
    let mut bytes = [0; GREETING];
    let parts = [&[0xff, 0, 0, 0, 0, 0, 0, 0, 0, 0x7f][..], &VERSION, MECHANISM];
    for (byte, value) in bytes.iter_mut().zip(parts.into_iter().flatten()) {
        *byte = *value;
    }
    bytes
}

/// Checks the greeting of a peer as far as it has come, so that a peer that is none is refused at its
/// first byte.
///
/// # Errors
/// Why it is refused, for people.
pub(in crate::cli::publish) fn check(bytes: &[u8]) -> Result<(), String> {
    let at = |place: usize| bytes.get(place).copied();
    if at(0).is_some_and(|byte| byte != 0xff) || at(9).is_some_and(|byte| byte & 1 == 0) {
        return Err("no ZeroMQ peer".to_owned());
    }
    if let Some(major) = at(10).filter(|major| *major < 3) {
        return Err(format!("speaks ZMTP {major}, and 3 is spoken here (libzmq 4.0 or later)"));
    }
    let Some(mechanism) = bytes.get(12..32) else { return Ok(()) };
    if mechanism != MECHANISM {
        let name: String = mechanism
            .iter()
            .take_while(|byte| byte.is_ascii_graphic())
            .map(|byte| char::from(*byte))
            .collect();
        return Err(format!("wants the mechanism '{name}', and there is NULL only"));
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn greetings_are_checked_as_they_come() {
        let own = greeting();
        for length in 0..=GREETING {
            assert_eq!(check(&own[..length]), Ok(()));
        }
        // As libzmq 4.3 sends it: the length of an identity of ZMTP 1 in the signature.
        let mut other = own;
        (other[8], other[11]) = (1, 0);
        assert_eq!(check(&other), Ok(()));
        for (place, byte, part) in [
            (0, b'G', "no ZeroMQ peer"),
            (9, 0x7e, "no ZeroMQ peer"),
            (10, 2, "ZMTP 2"),
            (12, b'C', "'CULL'"),
        ] {
            let mut wrong = own;
            wrong[place] = byte;
            let error = check(&wrong).unwrap_err();
            assert!(error.contains(part), "{error}");
        }
    }
}
