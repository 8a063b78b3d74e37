//! The messages between a SOCKS proxy and its client before the relayed connection begins.
//!
//! SOCKS4 and SOCKS4a (as Ying-Da Lee described them) and SOCKS5 (RFC 1928, with the password of
//! RFC 1929). Nothing is kept: a caller asks again with more bytes.

/// Maximum length of a user name or a host name in SOCKS4. They end with a zero and have no limit
/// of their own; this is the limit of SOCKS5.
const MAX_NAME: usize = 255;

/// The result of reading the beginning of a stream.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Preamble {
    /// Not SOCKS.
    No,
    /// Only SOCKS so far; more bytes must follow.
    NotYet,
    /// This many bytes are SOCKS. The bytes after them are relayed.
    Len(usize),
}

/// Reads the SOCKS messages at the beginning of a stream of either side. The two sides soon look
/// different.
#[must_use]
pub fn preamble(bytes: &[u8]) -> Preamble {
    match [client(bytes), server(bytes)] {
        [Ok(rest), _] | [_, Ok(rest)] => Preamble::Len(bytes.len().saturating_sub(rest.len())),
        [Err(IncompletePreamble::Incomplete), _] | [_, Err(IncompletePreamble::Incomplete)] => {
            Preamble::NotYet
        }
        [Err(IncompletePreamble::Foreign), Err(IncompletePreamble::Foreign)] => Preamble::No,
    }
}

/// The reason why no complete preamble was read.
enum IncompletePreamble {
    Incomplete,
    Foreign,
}

type RemainingBytes<'a> = Result<&'a [u8], IncompletePreamble>;

fn take(bytes: &[u8], len: usize) -> Result<(&[u8], &[u8]), IncompletePreamble> {
    bytes.split_at_checked(len).ok_or(IncompletePreamble::Incomplete)
}

fn byte(bytes: &[u8]) -> Result<(u8, &[u8]), IncompletePreamble> {
    bytes.split_first().map(|(first, rest)| (*first, rest)).ok_or(IncompletePreamble::Incomplete)
}

fn expect(is_so: bool) -> Result<(), IncompletePreamble> {
    if is_so { Ok(()) } else { Err(IncompletePreamble::Foreign) }
}

/// Skips a length byte and as many bytes as it says.
fn counted(bytes: &[u8]) -> RemainingBytes<'_> {
    let (len, rest) = byte(bytes)?;
    Ok(take(rest, len.into())?.1)
}

/// Skips a name that ends with a zero.
fn name(bytes: &[u8]) -> RemainingBytes<'_> {
    match bytes.iter().take(MAX_NAME).position(|byte| *byte == 0) {
        Some(at) => Ok(bytes.get(at.saturating_add(1)..).unwrap_or_default()),
        None if bytes.len() < MAX_NAME => Err(IncompletePreamble::Incomplete),
        None => Err(IncompletePreamble::Foreign),
    }
}

/// Skips a kind of address, the address, and a port.
fn address(bytes: &[u8]) -> RemainingBytes<'_> {
    let (kind, rest) = byte(bytes)?;
    let rest = match kind {
        1 => take(rest, 4)?.1,
        3 => counted(rest)?,
        4 => take(rest, 16)?.1,
        _ => return Err(IncompletePreamble::Foreign),
    };
    Ok(take(rest, 2)?.1)
}

fn client(bytes: &[u8]) -> RemainingBytes<'_> {
    let (version, rest) = byte(bytes)?;
    match version {
        4 => {
            let (command, rest) = byte(rest)?;
            expect(matches!(command, 1 | 2))?;
            let (place, rest) = take(rest, 6)?;
            let rest = name(rest)?;
            // 0.0.0.x says that a host name follows.
            match place {
                [_, _, 0, 0, 0, last] if *last > 0 => name(rest),
                _ => Ok(rest),
            }
        }
        5 => {
            expect(byte(rest)?.0 > 0)?;
            let rest = counted(rest)?;
            let rest = match byte(rest)?.0 {
                1 => counted(counted(take(rest, 1)?.1)?)?,
                _ => rest,
            };
            // After connecting and binding, the relayed bytes follow in this stream.
            let (request, rest) = take(rest, 3)?;
            expect(matches!(request, [5, 1 | 2, 0]))?;
            address(rest)
        }
        _ => Err(IncompletePreamble::Foreign),
    }
}

fn server(bytes: &[u8]) -> RemainingBytes<'_> {
    let (version, rest) = byte(bytes)?;
    match version {
        0 => {
            expect(byte(rest)?.0 == 90)?;
            Ok(take(rest, 7)?.1)
        }
        5 => {
            let (method, rest) = byte(rest)?;
            let rest = match method {
                0 => rest,
                2 => {
                    let (answer, rest) = take(rest, 2)?;
                    expect(matches!(answer, [1, 0]))?;
                    rest
                }
                _ => return Err(IncompletePreamble::Foreign),
            };
            let (answer, rest) = take(rest, 3)?;
            expect(matches!(answer, [5, 0, 0]))?;
            address(rest)
        }
        _ => Err(IncompletePreamble::Foreign),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Whole preambles of both sides.
    const WHOLE: [&[u8]; 9] = [
        b"\x04\x01\0\x50\xc0\0\x02\x01me\0",
        b"\x04\x01\0\x50\0\0\0\x01\0example.org\0",
        b"\0\x5a\0\0\0\0\0\0",
        b"\x05\x01\0\x05\x01\0\x01\xc0\0\x02\x01\0\x50",
        b"\x05\x02\0\x02\x01\x02me\x03pwd\x05\x01\0\x03\x0bexample.org\0\x50",
        b"\x05\x01\0\x05\x01\0\x04\x20\x01\x0d\xb8\0\0\0\0\0\0\0\0\0\0\0\x01\0\x50",
        b"\x05\0\x05\0\0\x01\0\0\0\0\0\0",
        b"\x05\x02\x01\0\x05\0\0\x01\0\0\0\0\0\0",
        b"\x05\0\x05\0\0\x03\x04here\x04\x38",
    ];

    #[test]
    fn each_preamble_ends_where_the_relayed_stream_begins() {
        for whole in WHOLE {
            assert_eq!(preamble(whole), Preamble::Len(whole.len()), "{whole:?}");
            let relayed = [whole, b"GET / HTTP/1.1\r\n\r\n"].concat();
            assert_eq!(preamble(&relayed), Preamble::Len(whole.len()), "{whole:?}");
            for len in 0..whole.len() {
                assert_eq!(preamble(&whole[..len]), Preamble::NotYet, "{len} of {whole:?}");
            }
        }
    }

    #[test]
    fn other_streams_are_none() {
        let others: [&[u8]; 6] = [
            b"GET / HTTP/1.1",
            b"\x16\x03\x01",
            b"\0\x5b\0\0\0\0\0\0",
            b"\x05\0\x05\x01\0",
            b"\x05\x01\0\x05\x03\0\x01\0\0\0\0\0\0",
            b"\x04\x03",
        ];
        for other in others {
            assert_eq!(preamble(other), Preamble::No, "{other:?}");
        }
        assert_eq!(preamble(&[[4, 1].as_slice(), &[7; 600]].concat()), Preamble::No);
    }
}
