//! Lines of a capture to a stream of NATS JetStream.
//!
//! The feed is a cursor, and its place moves with the acknowledgements of the server: a line that the
//! server has not acknowledged is sent again, over whatever connection, with the same id, by which the
//! server leaves repeats out.

mod session;

use std::sync::Arc;
use std::time::Duration;

use serde_json::{Value, json};
use tokio::sync::watch;
use tokio::time::sleep;

use super::feed::{Feed, FeedSettings};
use super::tracker::SentTracker;
use crate::cli::nats::protocol::token;
use crate::cli::nats::server::NatsServer;
use crate::cli::nats::{STREAM, SUBJECTS};
use crate::cli::outlet::saved::SavedPositions;
use crate::failure::Failure;
use session::{Session, SessionEnd, Unacknowledged};

/// The first wait before a server that is away is tried again, and the longest.
const PATIENCE: (Duration, Duration) = (Duration::from_millis(200), Duration::from_secs(5));

/// A server, and what it is to have.
#[derive(Clone, Debug)]
pub(super) struct NatsSettings {
    pub(super) server: NatsServer,
    /// Name of this machine.
    pub(super) host: String,
    /// The stream that is to be made: its bounds.
    pub(super) created: Option<StreamBounds>,
}

/// Bounds of a stream that is made.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct StreamBounds {
    /// Bytes.
    pub(super) max_bytes: u64,
    /// `None` for no bound.
    pub(super) max_age: Option<Duration>,
}

/// The configuration of the stream that is made.
fn stream(bounds: StreamBounds) -> Value {
    let max_age = bounds.max_age.map_or(0, |age| u64::try_from(age.as_nanos()).unwrap_or(u64::MAX));
    json!({
        "name": STREAM, "subjects": [SUBJECTS], "retention": "limits", "storage": "file",
        "discard": "old", "max_bytes": bounds.max_bytes, "max_age": max_age,
    })
}

/// Publishes until `stopping` is true.
///
/// # Errors
/// The place cannot be saved.
pub(super) async fn publish(
    nats: &NatsSettings,
    settings: &Arc<FeedSettings>,
    saved: SavedPositions,
    is_resumed: bool,
    mut stopping: watch::Receiver<bool>,
) -> Result<(), Failure> {
    let position = saved.position(&settings.capture).filter(|_| is_resumed).cloned();
    let tracker = SentTracker::new(position.unwrap_or_default());
    let feed = Feed::start(settings, Some(&tracker.position()));
    let subject = format!("pcapfs.{}.{}", token(&nats.host), token(&settings.capture));
    let mut waiting = Unacknowledged::new(tracker, saved, settings, subject);
    let mut session = Session { nats, settings, feed };
    let server = nats.server.to_string();
    settings.reporter.ready(&server, "NATS", false);
    let (mut wait, mut said) = (PATIENCE.0, None);
    loop {
        let before = waiting.acknowledged();
        match session.run(&mut waiting, &mut stopping).await? {
            SessionEnd::Stopped => return waiting.finish(&server),
            SessionEnd::Away(why) => {
                if waiting.acknowledged() > before {
                    (wait, said) = (PATIENCE.0, None);
                }
                if said.as_ref() != Some(&why) {
                    settings.reporter.waiting(&server, &why);
                    said = Some(why);
                }
            }
        }
        tokio::select! {
            _ = stopping.wait_for(|is_stopping| *is_stopping) => return waiting.finish(&server),
            () = sleep(wait) => {}
        }
        wait = (wait * 2).min(PATIENCE.1);
    }
}
