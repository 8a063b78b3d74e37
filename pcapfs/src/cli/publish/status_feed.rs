//! Messages of the counters of a capture: when its state changes, and at an interval.
//!
//! They say how the capture is now, so a message that was not sent in time is not made up for.

use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use capture::clock;
use serde::Serialize;
use tokio::time::{Instant, sleep};

use super::feed::{FeedItem, FeedSender, FeedSettings};
use super::message::{Message, MessagePlace};
use crate::cli::outlet::daemon::CaptureView;
use crate::cli::outlet::event_kind::EventKind;

/// The time between two looks at the capture.
const LOOKS: Duration = Duration::from_secs(1);

/// A feed of counters.
#[derive(Debug)]
pub(super) struct StatusFeed {
    settings: Arc<FeedSettings>,
    /// The time between two messages without a change.
    interval: Duration,
    sender: FeedSender,
    /// When and with which state the last message was made.
    last: Option<(Instant, CaptureCondition)>,
}

/// A change of this is published at once.
#[derive(Debug, PartialEq, Eq)]
struct CaptureCondition {
    state: &'static str,
    error: Option<String>,
}

/// The part of a message's JSON before the fields of `status.json`.
#[derive(Serialize)]
struct StatusHead<'a> {
    published: PublishedStatus,
    capture: &'a str,
    event: &'static str,
    time: String,
}

/// The part of a message's JSON about the message itself.
#[derive(Serialize)]
struct PublishedStatus {
    position: String,
}

impl StatusFeed {
    pub(super) const fn new(
        settings: Arc<FeedSettings>,
        interval: Duration,
        sender: FeedSender,
    ) -> Self {
        Self { settings, interval, sender, last: None }
    }

    /// Hands over until the reader has gone.
    pub(super) async fn run(mut self) {
        let wait = LOOKS.min(self.interval);
        loop {
            if let Some(message) = self.look().await
                && self.sender.send(FeedItem::Message(message)).await.is_err()
            {
                return;
            }
            tokio::select! {
                () = self.sender.closed() => return,
                () = sleep(wait) => {}
            }
        }
    }

    /// A message, if one is due.
    async fn look(&mut self) -> Option<Message> {
        let FeedSettings { source, capture, reporter, .. } = &*self.settings;
        let view = match source.daemon.capture(capture).await {
            Ok(view) => view,
            Err(trouble) => {
                reporter.away(&trouble.text);
                return None;
            }
        };
        reporter.back();
        let condition = CaptureCondition { state: view.state, error: view.error.clone() };
        let event = match &self.last {
            None => "begin",
            Some((_, known)) if *known != condition => "change",
            Some((when, _)) if when.elapsed() >= self.interval => "interval",
            Some(_) => return None,
        };
        self.last = Some((Instant::now(), condition));
        message(capture, event, &view)
    }
}

/// The message of a view; `None` if the daemon says nothing about the capture.
fn message(capture: &str, event: &'static str, view: &CaptureView) -> Option<Message> {
    let now = clock::now();
    // The number of the capture tells two daemons of a machine apart that publish at the same time.
    let place = format!("{:x}.{}", now.nanoseconds(), view.id());
    let position = format!("{place}.{}", EventKind::Status);
    let published = PublishedStatus { position: position.clone() };
    let head = StatusHead { published, capture, event, time: now.to_rfc3339() };
    let mut json = Vec::with_capacity(4096);
    protocol::json::append(&mut json, &head);
    if !view.status.is_object() {
        return None;
    }
    // Two objects become one.
    json.pop();
    json.push(b',');
    json.extend_from_slice(view.status.to_string().get(1..)?.as_bytes());
    Some(Message {
        topic: EventKind::Status.singular(),
        frames: vec![Bytes::from(json)],
        place: MessagePlace::Status,
        id: position,
        sequence: 0,
    })
}
