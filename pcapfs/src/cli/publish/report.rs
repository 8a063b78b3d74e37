//! Messages of `pcapfs publish` to the user who runs it, and the sums at its end.

use parking_lot::Mutex;
use serde::Serialize;

use crate::cli::event_line;
use crate::output::counted;

/// Writes the messages.
#[derive(Debug)]
pub(super) struct Reporter {
    is_json: bool,
    capture: String,
    state: Mutex<ReportState>,
}

#[derive(Debug, Default)]
struct ReportState {
    /// Why the capture cannot be read, as it was said.
    trouble: Option<String>,
    totals: Totals,
}

/// The sums over all peers.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(super) struct Totals {
    peers: u64,
    refused: u64,
    messages: u64,
    bytes: u64,
    lost: u64,
}

/// An event, as `--json` prints it.
#[derive(Serialize)]
#[serde(tag = "event", rename_all = "snake_case")]
enum PublishEvent<'a> {
    Ready { capture: &'a str, endpoint: &'a str, socket: &'a str },
    Connected { peer: &'a str },
    Left { peer: &'a str, why: &'a str, messages: u64, bytes: u64, lost: u64 },
    Refused { peer: &'a str, why: &'a str },
    Waiting { endpoint: &'a str, why: &'a str },
    Away { why: &'a str },
    Back,
    Restarted,
    Lost { of: &'a str, count: u64 },
    End { peers: u64, refused: u64, messages: u64, bytes: u64, lost: u64 },
}

/// The counts of a peer.
#[derive(Clone, Copy, Debug, Default)]
pub(super) struct PeerCounts {
    pub(super) messages: u64,
    pub(super) bytes: u64,
    /// Lines and packets that it lost, if it has a place of its own.
    pub(super) lost: u64,
}

impl Reporter {
    pub(super) fn new(is_json: bool, capture: &str) -> Self {
        Self { is_json, capture: capture.to_owned(), state: Mutex::default() }
    }

    fn print(&self, event: &PublishEvent<'_>, text: impl FnOnce() -> String) {
        event_line::print(self.is_json, event, text);
    }

    /// Peers can connect, or are connected to.
    pub(super) fn ready(&self, endpoint: &str, socket: &str, is_bound: bool) {
        let capture = &self.capture;
        self.print(&PublishEvent::Ready { capture, endpoint, socket }, || {
            let how = if is_bound { "at" } else { "to" };
            format!("publishing {capture} {how} {endpoint} ({socket})")
        });
    }

    pub(super) fn connected(&self, peer: &str) {
        self.state.lock().totals.peers += 1;
        self.print(&PublishEvent::Connected { peer }, || format!("{peer}: connected"));
    }

    pub(super) fn left(&self, peer: &str, why: &str, counts: PeerCounts) {
        let PeerCounts { messages, bytes, lost } = counts;
        {
            let totals = &mut self.state.lock().totals;
            totals.messages += messages;
            totals.bytes += bytes;
        }
        self.print(&PublishEvent::Left { peer, why, messages, bytes, lost }, || {
            format!("{peer}: {why}; {} sent, {lost} lost", counted(messages, "message"))
        });
    }

    /// A peer was not taken.
    pub(super) fn refused(&self, peer: &str, why: &str) {
        self.state.lock().totals.refused += 1;
        self.print(&PublishEvent::Refused { peer, why }, || format!("{peer}: refused: {why}"));
    }

    /// There is nobody to connect to.
    pub(super) fn waiting(&self, endpoint: &str, why: &str) {
        self.print(&PublishEvent::Waiting { endpoint, why }, || {
            format!("{endpoint}: {why}; it is tried again")
        });
    }

    /// The capture cannot be read now; said once.
    pub(super) fn away(&self, why: &str) {
        {
            let trouble = &mut self.state.lock().trouble;
            if trouble.as_deref() == Some(why) {
                return;
            }
            *trouble = Some(why.to_owned());
        }
        self.print(&PublishEvent::Away { why }, || format!("{why}; it is tried again"));
    }

    /// The capture can be read; said if it could not.
    pub(super) fn back(&self) {
        if self.state.lock().trouble.take().is_some() {
            self.print(&PublishEvent::Back, || format!("{} can be read again", self.capture));
        }
    }

    pub(super) fn restarted(&self) {
        self.print(&PublishEvent::Restarted, || {
            format!("{} begins anew, with the packets that are retained", self.capture)
        });
    }

    /// Lines or packets were gone before they were read.
    pub(super) fn lost(&self, of: &str, count: u64) {
        self.state.lock().totals.lost += count;
        self.print(&PublishEvent::Lost { of, count }, || format!("{count} {of} lost: too slow"));
    }

    /// The sums at the end.
    pub(super) fn end(&self) {
        let Totals { peers, refused, messages, bytes, lost } = self.state.lock().totals;
        self.print(&PublishEvent::End { peers, refused, messages, bytes, lost }, || {
            let refused = if refused > 0 { format!(", {refused} refused") } else { String::new() };
            format!(
                "{}{refused}: {} sent, {bytes} bytes, {lost} lost",
                counted(peers, "peer"),
                counted(messages, "message"),
            )
        });
    }
}
