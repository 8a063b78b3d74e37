//! Commands (RFC 37, "Commands"): READY of the NULL mechanism, ERROR, and PING with its PONG.

use bytes::{BufMut, Bytes, BytesMut};

use super::{SenderType, frame};

/// Maximum number of bytes of the context of a PING (RFC 37, "Heartbeating").
const MAX_CONTEXT: usize = 16;

/// Bytes of the time in a PING.
const TIME_TO_LIVE: usize = 2;

/// The READY of a sender.
pub(in crate::cli::publish) fn ready(sender: SenderType) -> BytesMut {
    let mut data = BytesMut::new();
    // The length of the name.
    data.put_u8(11);
    data.put_slice(b"Socket-Type");
    // The name of a type is shorter than ten bytes.
    data.put_u32(u32::try_from(sender.name().len()).unwrap_or(0));
    data.put_slice(sender.name().as_bytes());
    let mut out = BytesMut::new();
    frame::append_command(&mut out, "READY", &data);
    out
}

/// The ERROR that tells a peer why it is refused.
pub(in crate::cli::publish) fn error(why: &str) -> BytesMut {
    let why = why.as_bytes();
    let why = why.get(..why.len().min(255)).unwrap_or_default();
    let mut data = BytesMut::new();
    data.put_u8(u8::try_from(why.len()).unwrap_or(0));
    data.put_slice(why);
    let mut out = BytesMut::new();
    frame::append_command(&mut out, "ERROR", &data);
    out
}

/// Checks the READY of a peer.
///
/// # Errors
/// Why the peer is refused, for people.
pub(in crate::cli::publish) fn check_ready(
    name: &[u8],
    data: &[u8],
    sender: SenderType,
) -> Result<(), String> {
    match name {
        b"READY" => {}
        b"ERROR" => {
            let why = String::from_utf8_lossy(data.get(1..).unwrap_or_default());
            return Err(format!("refuses: {why}"));
        }
        _ => return Err("begins without READY".to_owned()),
    }
    let kind = property(data, "socket-type")?.ok_or("does not say what socket it is")?;
    let is_fitting = sender.receivers().iter().any(|receiver| receiver.as_bytes() == kind);
    if !is_fitting {
        let kind = String::from_utf8_lossy(kind);
        let receivers = sender.receivers().join(" or ");
        return Err(format!("a {kind} socket, where {receivers} fits to {sender}"));
    }
    Ok(())
}

/// The value of a property of metadata; its name is compared without regard to case.
fn property<'a>(mut data: &'a [u8], wanted: &str) -> Result<Option<&'a [u8]>, String> {
    let malformed = || "malformed metadata".to_owned();
    let mut found = None;
    while let Some((length, rest)) = data.split_first() {
        let (name, rest) = rest.split_at_checked(usize::from(*length)).ok_or_else(malformed)?;
        let (length, rest) = rest.split_first_chunk::<4>().ok_or_else(malformed)?;
        let length = usize::try_from(u32::from_be_bytes(*length)).map_err(|_| malformed())?;
        let (value, rest) = rest.split_at_checked(length).ok_or_else(malformed)?;
        if name.eq_ignore_ascii_case(wanted.as_bytes()) {
            found = Some(value);
        }
        data = rest;
    }
    Ok(found)
}

/// The answer to a PING with this data.
///
/// # Errors
/// The PING is malformed.
pub(in crate::cli::publish) fn pong(data: &Bytes) -> Result<Bytes, String> {
    let context = data.get(TIME_TO_LIVE..).filter(|context| context.len() <= MAX_CONTEXT);
    let context = context.ok_or("a malformed PING")?;
    let mut out = BytesMut::new();
    frame::append_command(&mut out, "PONG", context);
    Ok(out.freeze())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn ready_of(kind: &str) -> Vec<u8> {
        let mut data = b"\x08Identity\0\0\0\0\x0bSOCKET-TYPE\0\0\0".to_vec();
        data.push(u8::try_from(kind.len()).unwrap());
        data.extend_from_slice(kind.as_bytes());
        data
    }

    #[test]
    fn peers_that_fit_are_taken() {
        assert_eq!(&ready(SenderType::Push)[..], b"\x04\x1a\x05READY\x0bSocket-Type\0\0\0\x04PUSH");
        let check = |kind, sender| check_ready(b"READY", &ready_of(kind), sender);
        assert_eq!(check("PULL", SenderType::Push), Ok(()));
        assert_eq!(check("SUB", SenderType::Pub), Ok(()));
        assert_eq!(check("XSUB", SenderType::Pub), Ok(()));
        let why = check("SUB", SenderType::Push).unwrap_err();
        assert_eq!(why, "a SUB socket, where PULL fits to PUSH");
        assert!(check_ready(b"READY", b"", SenderType::Pub).is_err());
        assert!(check_ready(b"HELLO", b"", SenderType::Pub).is_err());
        let whole = ready_of("PULL");
        for length in 1..whole.len() {
            assert!(check_ready(b"READY", &whole[..length], SenderType::Push).is_err());
        }
        let why = check_ready(b"ERROR", b"\x02no", SenderType::Pub).unwrap_err();
        assert_eq!(why, "refuses: no");
    }

    #[test]
    fn a_ping_is_answered_with_its_context() {
        let ping = |data: &'static [u8]| pong(&Bytes::from_static(data));
        assert_eq!(ping(b"\0\x0aabc").unwrap(), &b"\x04\x08\x04PONGabc"[..]);
        assert_eq!(ping(b"\0\x0a").unwrap(), &b"\x04\x05\x04PONG"[..]);
        assert!(ping(b"\0").is_err());
        assert!(ping(b"\0\x0a01234567890123456").is_err());
    }
}
