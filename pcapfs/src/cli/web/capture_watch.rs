//! All captures once a second, for the event streams: they share one request to the daemon, and
//! without a stream no request is sent.

use std::sync::Arc;
use std::time::Duration;

use tokio::sync::{Notify, watch};
use tokio::time::sleep;

use crate::cli::outlet::daemon::{CaptureView, DaemonLink};
use crate::cli::outlet::trouble::Trouble;

/// The time between two looks at the captures.
const INTERVAL: Duration = Duration::from_secs(1);

/// The captures at one moment, or why they are not known.
pub(super) type Captures = Arc<Result<Vec<CaptureView>, Trouble>>;

/// Looks at the captures while somebody watches.
#[derive(Debug)]
pub(super) struct CaptureWatch {
    sender: watch::Sender<Captures>,
    wanted: Notify,
}

impl Default for CaptureWatch {
    fn default() -> Self {
        let nothing = Trouble::unavailable("the daemon was not asked yet");
        Self { sender: watch::Sender::new(Arc::new(Err(nothing))), wanted: Notify::new() }
    }
}

impl CaptureWatch {
    /// The captures from now on. What the receiver holds at first may be old.
    pub(super) fn subscribe(&self) -> watch::Receiver<Captures> {
        let receiver = self.sender.subscribe();
        self.wanted.notify_one();
        receiver
    }

    /// Looks, for as long as this is polled.
    pub(super) async fn run(&self, daemon: &DaemonLink) {
        loop {
            if self.sender.receiver_count() == 0 {
                self.wanted.notified().await;
                continue;
            }
            self.sender.send_replace(Arc::new(daemon.captures("").await));
            sleep(INTERVAL).await;
        }
    }
}
