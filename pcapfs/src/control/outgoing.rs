//! Messages on the way to clients: limited for each user, since what is sent to a client that does
//! not read stays in memory.
//!
//! HTTP/2 lets a client announce any window, and bytes sent into it wait here until the client's
//! socket takes them. So each stream may always have one small message on the way, and more only
//! while its user has less than [`OF_USER`] bytes on the way. No user waits for another.

use std::collections::HashMap;
use std::pin::Pin;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Weak};
use std::task::{Context, Poll, Waker, ready};

use bytes::Bytes;
use http_body::{Frame, SizeHint};
use parking_lot::Mutex;
use tonic::Status;
use tonic::body::Body;

use super::chunks::CHUNK;

/// Limit of bytes of one user; beyond it, each stream has one message of [`LEAST`] bytes on the
/// way.
const OF_USER: usize = 32 << 20;

/// Bytes of a message that there is always room for.
const LEAST: usize = 16 << 10;

/// The bytes on the way for each user.
#[derive(Debug, Default)]
pub(super) struct Allowances {
    users: Mutex<HashMap<u32, Weak<Allowance>>>,
}

/// The bytes on the way for one user.
#[derive(Debug, Default)]
struct Allowance {
    used: AtomicUsize,
}

/// One stream.
#[derive(Clone, Debug)]
pub(super) struct Outgoing {
    allowance: Arc<Allowance>,
    own: Arc<OwnCaller>,
}

#[derive(Debug, Default)]
struct OwnCaller {
    /// Messages on the way.
    messages: AtomicUsize,
    /// To wake when there are none.
    waker: Mutex<Option<Waker>>,
}

/// A message on its way.
struct HeldMessage {
    bytes: Bytes,
    outgoing: Outgoing,
}

impl Allowances {
    /// For a stream to this user.
    pub(super) fn stream(&self, uid: u32) -> Outgoing {
        let mut users = self.users.lock();
        users.retain(|_, user| user.strong_count() > 0);
        let known = users.get(&uid).and_then(Weak::upgrade);
        let allowance = known.unwrap_or_default();
        users.insert(uid, Arc::downgrade(&allowance));
        Outgoing { allowance, own: Arc::default() }
    }
}

impl Outgoing {
    /// Waits until a message may be sent, and returns its maximum bytes.
    pub(super) fn poll_room(&self, context: &mut Context<'_>) -> Poll<usize> {
        let chunk = CHUNK as usize;
        if self.allowance.used.load(Ordering::Acquire) + chunk <= OF_USER {
            return Poll::Ready(chunk);
        }
        *self.own.waker.lock() = Some(context.waker().clone());
        // Checked after the waker is set, so that the last message cannot leave unnoticed in
        // between.
        if self.own.messages.load(Ordering::Acquire) == 0 {
            return Poll::Ready(LEAST);
        }
        Poll::Pending
    }

    /// A message that counts until it is sent, or its stream is gone.
    pub(super) fn hold(&self, bytes: Bytes) -> Bytes {
        self.allowance.used.fetch_add(bytes.len(), Ordering::AcqRel);
        self.own.messages.fetch_add(1, Ordering::AcqRel);
        Bytes::from_owner(HeldMessage { bytes, outgoing: self.clone() })
    }

    /// A body whose messages are held.
    pub(super) fn bound(self, body: Body) -> Body {
        Body::new(BoundedOutgoing { body, outgoing: self })
    }
}

impl AsRef<[u8]> for HeldMessage {
    fn as_ref(&self) -> &[u8] {
        &self.bytes
    }
}

impl Drop for HeldMessage {
    fn drop(&mut self) {
        let Outgoing { allowance, own } = &self.outgoing;
        allowance.used.fetch_sub(self.bytes.len(), Ordering::AcqRel);
        if own.messages.fetch_sub(1, Ordering::AcqRel) == 1
            && let Some(waker) = own.waker.lock().take()
        {
            waker.wake();
        }
    }
}

/// See [`Outgoing::bound`].
struct BoundedOutgoing {
    body: Body,
    outgoing: Outgoing,
}

impl http_body::Body for BoundedOutgoing {
    type Data = Bytes;
    type Error = Status;

    fn poll_frame(
        self: Pin<&mut Self>,
        context: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, Status>>> {
        let this = self.get_mut();
        ready!(this.outgoing.poll_room(context));
        let frame = ready!(Pin::new(&mut this.body).poll_frame(context));
        let outgoing = &this.outgoing;
        Poll::Ready(frame.map(|frame| Ok(frame?.map_data(|bytes| outgoing.hold(bytes)))))
    }

    fn is_end_stream(&self) -> bool {
        self.body.is_end_stream()
    }

    fn size_hint(&self) -> SizeHint {
        self.body.size_hint()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn room(stream: &Outgoing) -> Option<usize> {
        match stream.poll_room(&mut Context::from_waker(Waker::noop())) {
            Poll::Ready(room) => Some(room),
            Poll::Pending => None,
        }
    }

    #[test]
    fn a_user_has_so_much_on_the_way_and_each_stream_a_little() {
        let allowances = Allowances::default();
        let (one, other) = (allowances.stream(1), allowances.stream(1));
        let chunk = Bytes::from(vec![0; CHUNK as usize]);
        let mut sent = Vec::new();
        while room(&one) == Some(CHUNK as usize) {
            sent.push(one.hold(chunk.clone()));
            assert!(sent.len() <= OF_USER / CHUNK as usize);
        }
        assert_eq!((sent.len(), room(&one)), (OF_USER / CHUNK as usize, None));
        assert_eq!(room(&other), Some(LEAST), "it has nothing on the way");
        let least = other.hold(chunk.slice(..LEAST));
        assert_eq!(room(&other), None);
        assert_eq!(room(&allowances.stream(2)), Some(CHUNK as usize), "another user");
        drop(least);
        assert_eq!(room(&other), Some(LEAST));
        sent.pop();
        assert_eq!((room(&one), room(&other)), (Some(CHUNK as usize), Some(CHUNK as usize)));
        drop(sent);
        assert_eq!(one.allowance.used.load(Ordering::Relaxed), 0);
        drop((one, other));
        drop(allowances.stream(3));
        assert_eq!(allowances.users.lock().len(), 1, "nobody who is gone is remembered");
    }
}
