//! What speaks over a TCP flow: found out from its bytes, whatever its ports.

use super::messages::{Messages, Pair};
use super::window::Window;
use crate::http::probe::{self, Verdict};
use crate::http::transaction::Direction as Side;
use crate::tcp::Direction;
use crate::tls::{self, ClientHello, Outcome, ServerHello};

/// Pieces of stream whose first bytes are looked at: enough for a protocol that speaks before it
/// turns to TLS, as SMTP does.
const MAX_TRIES: u8 = 32;

/// Bytes from the beginning of a stream that are looked at: a `ClientHello` with post-quantum keys
/// and a ticket has some 2,000, and may be as long as four records.
const MAX_PROBE: u64 = 64 << 10;

/// What a flow speaks.
#[derive(Debug)]
pub(super) enum App {
    /// Not known yet.
    Probing(Probing),
    /// HTTP/1.x
    Http(Box<Messages>),
    /// TLS, of which nothing more is looked at.
    Tls,
    /// Not known, and not looked for any more.
    Unknown,
}

/// What TLS says in the clear.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(super) struct TlsHellos {
    pub(super) client: Option<ClientHello>,
    pub(super) server: Option<ServerHello>,
}

/// Looking for a protocol.
#[derive(Debug, Default)]
pub(super) struct Probing {
    tries: u8,
    /// Where in the streams, forward and backward, lies what does not say yet, and up to where it
    /// was looked at.
    from: [Option<(u64, u64)>; 2],
    /// Bytes are missing, or the beginning was not captured: a message may begin anywhere.
    is_torn: bool,
    /// Of TLS.
    hellos: Option<Box<TlsHellos>>,
}

/// What a look at a stream has found.
pub(super) enum Found {
    Nothing,
    /// HTTP.
    Http {
        /// The direction of requests.
        request: Direction,
        /// Stream offsets, forward and backward, at which it begins.
        begins: [u64; 2],
    },
    /// TLS with both hellos, or as much as will be found.
    Tls,
    Unknown,
}

impl Probing {
    /// Bytes are missing, or the beginning of the flow was not seen.
    pub(super) fn tear(&mut self) {
        self.is_torn = true;
    }

    /// TLS as far as it was seen.
    pub(super) fn hellos(&self) -> Option<&TlsHellos> {
        self.hellos.as_deref()
    }

    /// The same, to keep.
    pub(super) fn take_hellos(&mut self) -> Option<Box<TlsHellos>> {
        self.hellos.take()
    }

    /// The stream sent in `direction` has come to its `range`.
    pub(super) fn look(
        &mut self,
        direction: Direction,
        range: &std::ops::Range<u64>,
        pair: &impl Pair,
        window: &Window<'_>,
    ) -> Found {
        let index = usize::from(direction == Direction::Backward);
        let Some(from) = self.from.get_mut(index) else { return Found::Nothing };
        let (start, seen) = from.unwrap_or((range.start, 0));
        // A look begins at the beginning again: not for every byte of a segment each.
        let grown = range.end.saturating_sub(seen);
        if seen > 0 && grown < seen.saturating_sub(start) / 16 {
            return Found::Nothing;
        }
        *from = None;
        let end = range.end.min(start.saturating_add(MAX_PROBE));
        let bytes = contiguous(direction, start..end, pair, window);
        let is_full = end < range.end || bytes.len() as u64 >= MAX_PROBE;
        let mut may_follow = false;
        if start == 0 || self.is_torn {
            for side in [Side::Request, Side::Response] {
                match probe::probe(side, &bytes) {
                    Verdict::Yes => return self.http(direction, side, start, pair),
                    Verdict::NotYet => may_follow = true,
                    Verdict::No => {}
                }
            }
        }
        match tls::hello(&bytes) {
            Outcome::Client(hello) => {
                self.hellos.get_or_insert_default().client.get_or_insert(hello);
            }
            Outcome::Server(hello) => {
                self.hellos.get_or_insert_default().server.get_or_insert(hello);
            }
            Outcome::NotYet => may_follow = true,
            Outcome::No => {}
        }
        if self.hellos.as_ref().is_some_and(|one| one.client.is_some() && one.server.is_some()) {
            return Found::Tls;
        }
        if may_follow && !is_full {
            if let Some(from) = self.from.get_mut(index) {
                *from = Some((start, range.end));
            }
        } else {
            self.tries = self.tries.saturating_add(1);
        }
        match self.tries {
            MAX_TRIES.. if self.hellos.is_some() => Found::Tls,
            MAX_TRIES.. => Found::Unknown,
            _ => Found::Nothing,
        }
    }
}

impl Probing {
    fn http(&self, direction: Direction, side: Side, start: u64, pair: &impl Pair) -> Found {
        let other = direction.other();
        // What came before in the other direction belongs to it if nothing was missed.
        let before = self.from.get(usize::from(other == Direction::Backward)).copied().flatten();
        let before = match (before, self.is_torn) {
            (Some((before, _)), _) => before,
            (None, true) => pair.stream(other).end(),
            (None, false) => 0,
        };
        let request = if side == Side::Request { direction } else { other };
        let begins = match direction {
            Direction::Forward => [start, before],
            Direction::Backward => [before, start],
        };
        Found::Http { request, begins }
    }
}

/// The bytes of a stream from the beginning of `range` to the first hole.
fn contiguous<'w>(
    direction: Direction,
    range: std::ops::Range<u64>,
    pair: &impl Pair,
    window: &'w Window<'_>,
) -> std::borrow::Cow<'w, [u8]> {
    let mut gathered = std::borrow::Cow::Borrowed(&[][..]);
    for chunk in pair.stream(direction).chunks(range) {
        let Some((bytes, _)) = chunk.content.ok().and_then(|extent| window.read(extent)) else {
            break;
        };
        if gathered.is_empty() {
            gathered = bytes;
        } else {
            gathered.to_mut().extend_from_slice(&bytes);
        }
    }
    gathered
}
