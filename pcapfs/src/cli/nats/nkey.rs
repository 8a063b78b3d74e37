//! Keys of users of NATS: a seed for Ed25519 (RFC 8032) with which a client signs what the server gives
//! it.
//!
//! Source of the encoding: <https://github.com/nats-io/nkeys>. A seed is base32 without padding (RFC
//! 4648) of two bytes that say what it is, 32 bytes, and a checksum.

use data_encoding::{BASE32_NOPAD, BASE64URL_NOPAD};
use ring::signature::{Ed25519KeyPair, KeyPair};

/// The kind of a seed, in the upper five bits of its first byte: letter S.
const SEED: u8 = 18 << 3;

/// The kind of a user's key, in five bits: letter U.
const USER: u8 = 20 << 3;

/// Bytes before the seed, of the seed, and of the checksum.
const PREFIX: usize = 2;
const KEY: usize = 32;
const CHECKSUM: usize = 2;

/// A key of a user.
#[derive(Debug)]
pub(super) struct UserKey {
    pair: Ed25519KeyPair,
}

impl UserKey {
    /// Reads a seed, such as `SUACSSL3...`; `None` if the text is none.
    pub(super) fn of_seed(text: &str) -> Option<Self> {
        let bytes = BASE32_NOPAD.decode(text.as_bytes()).ok()?;
        let (bytes, checksum) = bytes.split_at_checked(PREFIX + KEY)?;
        if checksum != crc16(bytes).to_le_bytes() {
            return None;
        }
        let (prefix, seed) = bytes.split_at_checked(PREFIX)?;
        let [first, second] = *prefix else { return None };
        let kind = (first & 0b111) << 5 | second >> 3;
        if first & 0b1111_1000 != SEED || kind != USER {
            return None;
        }
        Some(Self { pair: Ed25519KeyPair::from_seed_unchecked(seed).ok()? })
    }

    /// The public key, such as `UDXU4RCS...`, by which the server knows the user.
    pub(super) fn public(&self) -> String {
        let mut bytes = Vec::with_capacity(1 + KEY + CHECKSUM);
        bytes.push(USER);
        bytes.extend_from_slice(self.pair.public_key().as_ref());
        bytes.extend_from_slice(&crc16(&bytes).to_le_bytes());
        BASE32_NOPAD.encode(&bytes)
    }

    /// The signature of a text, as a server reads it.
    pub(super) fn sign(&self, text: &str) -> String {
        BASE64URL_NOPAD.encode(self.pair.sign(text.as_bytes()).as_ref())
    }
}

/// The checksum CRC-16/XMODEM: polynomial 0x1021, beginning with 0.
fn crc16(bytes: &[u8]) -> u16 {
    let mut crc = 0_u16;
    for byte in bytes {
        crc ^= u16::from(*byte) << 8;
        for _ in 0..8 {
            crc = if crc & 0x8000 == 0 { crc << 1 } else { crc << 1 ^ 0x1021 };
        }
    }
    crc
}

#[cfg(test)]
mod tests {
    use super::*;

    /// The example of the documentation of NATS.
    const SEED_TEXT: &str = "SUACSSL3UAHUDXKFSNVUZRF5UHPMWZ6BFDTJ7M6USDXIEDNPPQYYYCU3VY";
    const PUBLIC_TEXT: &str = "UDXU4RCSJNZOIQHZNWXHXORDPRTGNJAHAHFRGZNEEJCPQTT2M7NLCNF4";

    #[test]
    fn a_seed_has_its_public_key() {
        assert_eq!(crc16(b"123456789"), 0x31c3, "the check value of CRC-16/XMODEM");
        let key = UserKey::of_seed(SEED_TEXT).unwrap();
        assert_eq!(key.public(), PUBLIC_TEXT);
        assert_eq!(key.sign("nonce").len(), 86, "64 bytes");
        let damaged = SEED_TEXT.replacen('L', "M", 1);
        for wrong in ["", "SU", PUBLIC_TEXT, &damaged, &SEED_TEXT.to_lowercase(), "S\u{e4}"] {
            assert!(UserKey::of_seed(wrong).is_none(), "{wrong}");
        }
    }
}
