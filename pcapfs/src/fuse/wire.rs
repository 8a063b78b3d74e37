//! The few messages of the FUSE protocol that the front end answers itself.
//!
//! Source: `linux/fuse.h`, protocol 7.12 and later. All fields are in this machine's byte order.

/// Bytes of `struct fuse_in_header`.
const IN_HEADER_LEN: usize = 40;

/// Bytes of `struct fuse_out_header`.
pub(super) const OUT_HEADER_LEN: usize = 16;

/// Bytes a request that is not a write has at most: a header, a structure and two names.
pub(super) const MAX_OTHER: usize = 16 << 10;

mod opcode {
    //! `enum fuse_opcode`
    pub(super) const FORGET: u32 = 2;
    pub(super) const READ: u32 = 15;
    pub(super) const WRITE: u32 = 16;
    pub(super) const INTERRUPT: u32 = 36;
    pub(super) const POLL: u32 = 40;
    pub(super) const BATCH_FORGET: u32 = 42;
}

/// `FUSE_NOTIFY_POLL` of `enum fuse_notify_code`.
const NOTIFY_POLL: i32 = 1;

/// `FUSE_POLL_SCHEDULE_NOTIFY`: somebody waits, not only asks.
const POLL_SCHEDULE_NOTIFY: u32 = 1;

/// A request, as far as the front end looks at it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Request {
    /// `FUSE_READ`
    Read(Read),
    /// `FUSE_POLL`
    Poll(Poll),
    /// `FUSE_INTERRUPT` of the request with this number.
    Interrupt {
        /// The interrupted request.
        target: u64,
    },
    /// `FUSE_WRITE`
    Write,
    /// A request that gets no reply.
    Silent,
    /// Any other.
    Other,
}

/// `struct fuse_read_in`, as far as it is used.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Read {
    pub(super) handle: u64,
    pub(super) offset: u64,
    pub(super) size: u32,
    /// The opener's file flags as of now, `O_NONBLOCK` among them.
    pub(super) flags: u32,
}

/// `struct fuse_poll_in`, as far as it is used.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Poll {
    pub(super) handle: u64,
    /// What to name in a notification.
    pub(super) kernel_handle: u64,
    /// Somebody waits for a notification.
    pub(super) notify: bool,
}

/// Number and meaning of a message; `None` if it is shorter than its structures.
pub(super) fn parse(message: &[u8]) -> Option<(u64, Request)> {
    let code = u32_at(message, 4)?;
    let unique = u64_at(message, 8)?;
    let body = message.get(IN_HEADER_LEN..)?;
    let request = match code {
        opcode::READ => Request::Read(Read {
            handle: u64_at(body, 0)?,
            offset: u64_at(body, 8)?,
            size: u32_at(body, 16)?,
            flags: u32_at(body, 32)?,
        }),
        opcode::POLL => Request::Poll(Poll {
            handle: u64_at(body, 0)?,
            kernel_handle: u64_at(body, 8)?,
            notify: u32_at(body, 16)? & POLL_SCHEDULE_NOTIFY != 0,
        }),
        opcode::INTERRUPT => Request::Interrupt { target: u64_at(body, 0)? },
        opcode::WRITE => Request::Write,
        opcode::FORGET | opcode::BATCH_FORGET => Request::Silent,
        _ => Request::Other,
    };
    Some((unique, request))
}

/// `struct fuse_out_header` before `len` bytes of reply; `error` is 0 or a positive errno.
pub(super) fn reply_header(unique: u64, error: i32, len: usize) -> [u8; OUT_HEADER_LEN] {
    out_header(unique, -error, len)
}

fn out_header(unique: u64, code: i32, len: usize) -> [u8; OUT_HEADER_LEN] {
    let total = u32::try_from(OUT_HEADER_LEN + len).unwrap_or(u32::MAX);
    let mut header = [0; OUT_HEADER_LEN];
    let (words, _) = header.as_chunks_mut::<8>();
    if let [first, second] = words {
        first[..4].copy_from_slice(&total.to_ne_bytes());
        first[4..].copy_from_slice(&code.to_ne_bytes());
        *second = unique.to_ne_bytes();
    }
    header
}

/// A reply to `FUSE_POLL`: `struct fuse_poll_out`.
pub(super) fn poll_reply(unique: u64, events: u32) -> [u8; OUT_HEADER_LEN + 8] {
    let mut reply = [0; OUT_HEADER_LEN + 8];
    reply[..OUT_HEADER_LEN].copy_from_slice(&reply_header(unique, 0, 8));
    reply[OUT_HEADER_LEN..OUT_HEADER_LEN + 4].copy_from_slice(&events.to_ne_bytes());
    reply
}

/// A notification that a polled file may be ready: `struct fuse_notify_poll_wakeup_out`.
pub(super) fn poll_wakeup(kernel_handle: u64) -> [u8; OUT_HEADER_LEN + 8] {
    let mut message = [0; OUT_HEADER_LEN + 8];
    message[..OUT_HEADER_LEN].copy_from_slice(&out_header(0, NOTIFY_POLL, 8));
    message[OUT_HEADER_LEN..].copy_from_slice(&kernel_handle.to_ne_bytes());
    message
}

fn u32_at(bytes: &[u8], offset: usize) -> Option<u32> {
    bytes.get(offset..)?.first_chunk().map(|bytes| u32::from_ne_bytes(*bytes))
}

fn u64_at(bytes: &[u8], offset: usize) -> Option<u64> {
    bytes.get(offset..)?.first_chunk().map(|bytes| u64::from_ne_bytes(*bytes))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn message(code: u32, unique: u64, body: &[u8]) -> Vec<u8> {
        let mut message = u32::try_from(IN_HEADER_LEN + body.len()).unwrap().to_ne_bytes().to_vec();
        message.extend(code.to_ne_bytes());
        message.extend(unique.to_ne_bytes());
        message.extend([0; 24]);
        message.extend(body);
        message
    }

    #[test]
    fn requests_are_read_as_the_kernel_lays_them_out() {
        let mut body = 7u64.to_ne_bytes().to_vec();
        body.extend(4096u64.to_ne_bytes());
        body.extend(131_072u32.to_ne_bytes());
        body.extend([0; 12]);
        body.extend(0o4000u32.to_ne_bytes());
        body.extend([0; 4]);
        let whole = message(15, 42, &body);
        let read = Read { handle: 7, offset: 4096, size: 131_072, flags: 0o4000 };
        assert_eq!(parse(&whole), Some((42, Request::Read(read))));
        for len in 0..whole.len() - 4 {
            assert_eq!(parse(&whole[..len]), None, "{len} bytes");
        }
        let interrupt = message(36, 43, &42u64.to_ne_bytes());
        assert_eq!(parse(&interrupt), Some((43, Request::Interrupt { target: 42 })));
        assert_eq!(parse(&message(1, 5, b"name\0")), Some((5, Request::Other)));
    }

    #[test]
    fn replies_are_laid_out_as_the_kernel_reads_them() {
        let header = reply_header(42, 4, 0);
        assert_eq!(header[..4], 16u32.to_ne_bytes());
        assert_eq!(header[4..8], (-4i32).to_ne_bytes());
        assert_eq!(header[8..], 42u64.to_ne_bytes());
        let wakeup = poll_wakeup(9);
        assert_eq!(wakeup[..4], 24u32.to_ne_bytes());
        assert_eq!(wakeup[4..8], 1i32.to_ne_bytes());
        assert_eq!(wakeup[16..], 9u64.to_ne_bytes());
        assert_eq!(poll_reply(1, 5)[16..20], 5u32.to_ne_bytes());
    }
}
