//! Frames (RFC 37, "Framing"): a byte of flags, the length in one byte or eight, and the body.

use bytes::{BufMut, Bytes, BytesMut};

/// Flags of a frame.
const MORE: u8 = 1;
const LONG: u8 = 2;
const COMMAND: u8 = 4;

/// Maximum number of bytes of a frame from a peer: the metadata of its socket, or the prefix of a
/// subscription. libzmq sends fewer than a hundred.
const MAX_RECEIVED: usize = 4096;

/// Bytes before the body of the longest frame.
const HEAD: usize = 9;

/// Bytes of a frame with a body of this length.
pub(in crate::cli::publish) const fn length(body: usize) -> usize {
    body + if body > u8::MAX as usize { HEAD } else { 2 }
}

fn append_head(out: &mut BytesMut, flags: u8, length: usize) {
    match u8::try_from(length) {
        Ok(short) => out.put_slice(&[flags, short]),
        Err(_) => {
            out.put_u8(flags | LONG);
            out.put_u64(length as u64);
        }
    }
}

/// Appends a frame of a message; `more` if it is not the last one.
pub(in crate::cli::publish) fn append(out: &mut BytesMut, body: &[u8], more: bool) {
    append_head(out, if more { MORE } else { 0 }, body.len());
    out.put_slice(body);
}

/// Appends a command: its name and its data.
pub(in crate::cli::publish) fn append_command(out: &mut BytesMut, name: &str, data: &[u8]) {
    append_head(out, COMMAND, 1 + name.len() + data.len());
    // Names of commands are shorter than twenty bytes.
    out.put_u8(u8::try_from(name.len()).unwrap_or(0));
    out.put_slice(name.as_bytes());
    out.put_slice(data);
}

/// A frame from a peer.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(in crate::cli::publish) enum ReceivedFrame {
    /// Name and data of a command.
    Command(Bytes, Bytes),
    /// A part of a message, and whether another part follows.
    Part(Bytes, bool),
}

/// Takes the first frame of what has come; `None` if it has not come completely.
///
/// # Errors
/// It is malformed, or longer than a peer of a sender has a reason for.
pub(in crate::cli::publish) fn take(input: &mut BytesMut) -> Result<Option<ReceivedFrame>, String> {
    let Some(flags) = input.first().copied() else { return Ok(None) };
    if flags & !(MORE | LONG | COMMAND) != 0 || flags & (MORE | COMMAND) == MORE | COMMAND {
        return Err(format!("a frame with the flags {flags:#04x}"));
    }
    let (head, length) = if flags & LONG == 0 {
        let Some(length) = input.get(1) else { return Ok(None) };
        (2, u64::from(*length))
    } else {
        let Some(bytes) = input.get(1..HEAD) else { return Ok(None) };
        (HEAD, bytes.iter().fold(0, |length, byte| length << 8 | u64::from(*byte)))
    };
    let length = usize::try_from(length).unwrap_or(usize::MAX);
    if length > MAX_RECEIVED {
        return Err(format!("a frame of {length} bytes (at most {MAX_RECEIVED} are taken)"));
    }
    if input.len() < head + length {
        return Ok(None);
    }
    let mut body = input.split_to(head + length).freeze().split_off(head);
    if flags & COMMAND == 0 {
        return Ok(Some(ReceivedFrame::Part(body, flags & MORE != 0)));
    }
    let name = body.first().map(|length| usize::from(*length));
    let Some(name) = name.filter(|length| *length < body.len()) else {
        return Err("a command without a name".to_owned());
    };
    let data = body.split_off(1 + name);
    Ok(Some(ReceivedFrame::Command(body.split_off(1), data)))
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn frames_are_as_the_specification_draws_them() {
        let mut out = BytesMut::new();
        append(&mut out, b"http", true);
        append(&mut out, &[b'x'; 256], false);
        append_command(&mut out, "PONG", b"c");
        let expected =
            [&b"\x01\x04http\x02\0\0\0\0\0\0\x01\0"[..], &[b'x'; 256], b"\x04\x06\x04PONGc"];
        assert_eq!(out, expected.concat());
        assert_eq!((length(255), length(256)), (257, 265));
    }

    #[test]
    fn frames_of_peers_are_bounded() {
        let take = |bytes: &[u8]| take(&mut BytesMut::from(bytes));
        assert_eq!(take(b"").unwrap(), None);
        assert_eq!(take(b"\x04\x06\x04PONG").unwrap(), None);
        let command =
            ReceivedFrame::Command(Bytes::from_static(b"PING"), Bytes::from_static(b"\0\x01"));
        assert_eq!(take(b"\x04\x07\x04PING\0\x01").unwrap(), Some(command));
        let part = ReceivedFrame::Part(Bytes::from_static(b"\x01http"), false);
        assert_eq!(take(b"\0\x05\x01http").unwrap(), Some(part.clone()));
        assert_eq!(take(b"\x02\0\0\0\0\0\0\0\x05\x01http").unwrap(), Some(part));
        for wrong in [
            &b"\x08\0"[..],
            b"\x05\0",
            b"\x04\0",
            b"\x04\x01\x05",
            b"\x02\xff\0\0\0\0\0\0\0",
            b"\x02\0\0\0\0\0\0\x10\x01",
        ] {
            assert!(take(wrong).is_err(), "{wrong:?}");
        }
    }

    proptest! {
        #[test]
        fn nonsense_ends_in_an_error_or_waits(mut wire in proptest::collection::vec(any::<u8>(), 0..200)) {
            let mut input = BytesMut::from(&wire[..]);
            while let Ok(Some(_)) = take(&mut input) {}
            wire.clear();
        }

        #[test]
        fn what_is_sent_is_read_back(body in proptest::collection::vec(any::<u8>(), 0..600), more: bool) {
            let mut out = BytesMut::new();
            append(&mut out, &body, more);
            prop_assert_eq!(out.len(), length(body.len()));
            prop_assert_eq!(take(&mut out).unwrap(), Some(ReceivedFrame::Part(body.into(), more)));
        }
    }
}
