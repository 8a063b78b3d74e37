//! PUB: a cursor for each peer, which begins with its first subscription.
//!
//! A peer that does not read finds its messages in the daemon later, and loses what the daemon has no
//! longer. That is counted for this peer, and no other notices.

use std::sync::Arc;

use tokio::sync::watch;
use tokio::time::timeout;

use super::LAST_MESSAGES;
use super::feed::{Feed, FeedItem, FeedSettings};
use super::peer::{self, PeerEnd, ReadyPeer, SharedSubscriptions};
use super::queue::{MessageQueue, queue};

/// Serves a peer with the messages of its subscriptions, until it leaves or `stopping` is true.
pub(super) async fn serve(
    peer: ReadyPeer,
    settings: Arc<FeedSettings>,
    stopping: watch::Receiver<bool>,
) -> PeerEnd {
    let (queue, messages) = queue();
    let subscribed = Arc::clone(&peer.subscribed);
    let feeding = tokio::spawn(feed(queue, settings, subscribed, stopping.clone()));
    let mut late = stopping;
    let mut end = tokio::select! {
        end = peer::serve(peer, messages, |_| {}) => end,
        () = async {
            // An error means that all has ended.
            let _ = late.wait_for(|is_stopping| *is_stopping).await;
            tokio::time::sleep(LAST_MESSAGES).await;
        } => PeerEnd::closed(),
    };
    // It ends when nobody takes its messages any more.
    if let Ok(Ok(fed)) = timeout(LAST_MESSAGES, feeding).await {
        end.counts.lost = fed.lost;
        if let Some(why) = fed.failed {
            end.why = why;
        }
    }
    end
}

/// How a feed ended.
#[derive(Debug, Default)]
struct FeedEnd {
    lost: u64,
    /// Why it could not go on.
    failed: Option<String>,
}

async fn feed(
    queue: MessageQueue,
    settings: Arc<FeedSettings>,
    subscribed: Arc<SharedSubscriptions>,
    mut stopping: watch::Receiver<bool>,
) -> FeedEnd {
    tokio::select! {
        () = subscribed.first() => {}
        _ = stopping.wait_for(|is_stopping| *is_stopping) => return FeedEnd::default(),
    }
    let mut feed = Feed::start(&settings, None);
    loop {
        let item = tokio::select! {
            item = feed.next() => item,
            _ = stopping.wait_for(|is_stopping| *is_stopping) => break,
            () = queue.closed() => break,
        };
        match item {
            FeedItem::Message(message) if subscribed.wants(message.topic) => {
                if queue.put(message).await.is_err() {
                    break;
                }
            }
            FeedItem::Failed(why) => return FeedEnd { lost: feed.lost(), failed: Some(why) },
            FeedItem::Message(_)
            | FeedItem::Lines(_)
            | FeedItem::Packets(_)
            | FeedItem::Segments(_) => {}
        }
    }
    FeedEnd { lost: feed.lost(), failed: None }
}
