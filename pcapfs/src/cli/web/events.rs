//! Event streams (server-sent events, WHATWG HTML 9.2): new flows and transactions as they come, and
//! counters.
//!
//! A stream is a cursor over the logs: it has the numbers of the lines that it has sent, and they
//! are the id of each event. A client that reads slowly finds its lines in the daemon's logs later,
//! and loses only what has left them, which an event counts. The daemon may go and come back: the
//! stream says so and goes on.

use std::collections::HashMap;
use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use http::header::HeaderValue;
use serde::Serialize;
use tokio::sync::watch;
use tokio::time::{Instant, sleep, sleep_until};

use super::access::Visitor;
use super::answer::{AnswerBody, BodySender, Handled, Problem, with_body};
use super::capture_watch::Captures;
use super::event_text::{self, StreamPosition, Wanted};
use super::query::Query;
use super::server::Server;
use crate::cli::outlet::daemon::CaptureView;
use crate::cli::outlet::trouble::Trouble;

/// The time between two looks for new lines.
const INTERVAL: Duration = Duration::from_millis(200);

/// The time without an event after which a comment shows that the connection is alive.
const KEEPALIVE: Duration = Duration::from_secs(15);

/// A comment, which clients ignore.
const COMMENT: &[u8] = b": still here\n\n";

/// An event stream that is asked for.
#[derive(Debug)]
pub(super) struct EventRequest {
    wanted: Wanted,
    resumed: Option<StreamPosition>,
}

impl EventRequest {
    /// Reads a request for the events of a capture.
    ///
    /// # Errors
    /// A field is wrong.
    pub(super) fn of_capture(mut query: Query, last: Option<&str>) -> Result<Self, Problem> {
        let wanted = Wanted::read(query.take("what").as_deref())?;
        query.end("what")?;
        Ok(Self { wanted, resumed: last.and_then(StreamPosition::read) })
    }

    /// Reads a request for the counters of all captures.
    ///
    /// # Errors
    /// A field is wrong.
    pub(super) fn of_all(query: Query) -> Result<Self, Problem> {
        query.end("")?;
        Ok(Self { wanted: Wanted::COUNTERS, resumed: None })
    }
}

/// Answers a request for events; `capture` is `None` for the counters of all.
///
/// # Errors
/// The daemon's refusal, or too many streams are open.
pub(super) async fn serve(
    server: &Arc<Server>,
    visitor: &Visitor,
    capture: Option<&str>,
    request: EventRequest,
    is_head: bool,
) -> Handled {
    let views = match capture {
        Some(name) => vec![server.daemon.capture(name).await?],
        None => server.daemon.captures("").await?,
    };
    let kind = HeaderValue::from_static("text/event-stream");
    if is_head {
        return Ok(with_body(kind, AnswerBody::Whole(None)));
    }
    let slot = server.event_streams.take(visitor).ok_or_else(|| {
        Problem::unavailable("too many event streams are open (close some pages)")
    })?;
    let (sender, body) = AnswerBody::stream(slot);
    let capture = capture.and_then(|_| views.first()).map(|view| view.name.clone());
    let stream = EventStream {
        server: Arc::clone(server),
        capture,
        wanted: request.wanted,
        is_resumed: request.resumed.is_some(),
        position: request.resumed.unwrap_or_default(),
        watched: server.captures.subscribe(),
        latest: Arc::new(Ok(views)),
        stopping: server.stopping.clone(),
        seen: HashMap::new(),
        condition: Condition::default(),
        sender,
        silent_until: Instant::now() + KEEPALIVE,
    };
    tokio::spawn(stream.run());
    Ok(with_body(kind, body))
}

/// The state of the daemon, as an event reports it.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
struct Condition {
    state: &'static str,
    /// `absent` if it does not have the capture.
    capture: &'static str,
    /// The daemon is another one, and numbers begin again with 1.
    restarted: bool,
    error: Option<String>,
}

impl Default for Condition {
    fn default() -> Self {
        Self { state: "up", capture: "present", restarted: false, error: None }
    }
}

/// The client has left, or the server ends.
struct Over;

/// A stream on its way to a client.
struct EventStream {
    server: Arc<Server>,
    /// `None` for all.
    capture: Option<String>,
    wanted: Wanted,
    is_resumed: bool,
    position: StreamPosition,
    watched: watch::Receiver<Captures>,
    /// The captures at the last look.
    latest: Captures,
    stopping: watch::Receiver<bool>,
    /// The captures as they were sent last.
    seen: HashMap<String, CaptureView>,
    condition: Condition,
    sender: BodySender,
    silent_until: Instant,
}

impl EventStream {
    /// Sends events until the client has left.
    async fn run(mut self) {
        while self.look().await.is_ok() && self.wait().await.is_ok() {}
    }

    /// Waits until there may be something new.
    async fn wait(&mut self) -> Result<(), Over> {
        tokio::select! {
            () = self.sender.closed() => return Err(Over),
            // An error means that the server is gone.
            _ = self.stopping.wait_for(|is_stopping| *is_stopping) => return Err(Over),
            () = sleep_until(self.silent_until) => {}
            changed = self.watched.changed() => {
                changed.map_err(|_| Over)?;
                self.latest = Arc::clone(&self.watched.borrow_and_update());
                return Ok(());
            }
            () = sleep(INTERVAL), if self.wanted.has_lines() => return Ok(()),
        }
        self.send(COMMENT.into()).await
    }

    /// Sends what is new.
    async fn look(&mut self) -> Result<(), Over> {
        let captures = Arc::clone(&self.latest);
        match &*captures {
            Ok(views) => self.look_at(views).await,
            Err(problem) => {
                let error = Some(problem.text.clone());
                self.report(Condition { state: "down", error, ..self.condition.clone() }).await
            }
        }
    }

    /// Sends what is new about the captures.
    async fn look_at(&mut self, views: &[CaptureView]) -> Result<(), Over> {
        let Some(capture) = &self.capture else {
            self.report(Condition::default()).await?;
            return self.count(views).await;
        };
        let Some(view) = views.iter().find(|view| view.name == *capture) else {
            let error = Some(format!("{capture}: no such capture (any more)"));
            return self
                .report(Condition { capture: "absent", error, ..Condition::default() })
                .await;
        };
        if self.wanted.has_lines() {
            self.send_lines(view).await?;
        } else {
            self.report(Condition::default()).await?;
        }
        self.count(std::slice::from_ref(view)).await
    }

    /// Sends the counters that have changed.
    async fn count(&mut self, views: &[CaptureView]) -> Result<(), Over> {
        if !self.wanted.counters {
            return Ok(());
        }
        let mut text = Vec::new();
        for view in views {
            if self.seen.get(&view.name) != Some(view) {
                event_text::add(&mut text, "counters", &self.position, view);
                self.seen.insert(view.name.clone(), view.clone());
            }
        }
        self.seen.retain(|name, _| views.iter().any(|view| view.name == *name));
        self.send(text).await
    }

    /// Sends the lines that have come.
    async fn send_lines(&mut self, view: &CaptureView) -> Result<(), Over> {
        loop {
            match self.next_lines(view).await {
                Ok(Batch { restarted, text, position, is_last }) => {
                    self.report(Condition { restarted, ..Condition::default() }).await?;
                    self.position = position;
                    self.is_resumed = true;
                    self.send(text).await?;
                    if is_last {
                        return Ok(());
                    }
                }
                Err(problem) => {
                    // Without a tree, or while it comes.
                    let error = Some(problem.text);
                    return self.report(Condition { error, ..Condition::default() }).await;
                }
            }
        }
    }

    async fn next_lines(&self, view: &CaptureView) -> Result<Batch, Problem> {
        let server = &self.server;
        let tree = server.tree.tree(&server.daemon).await?;
        let now = StreamPosition::of(&tree.generation, view);
        let is_known = self.position.is_in(&now);
        let restarted = self.is_resumed && !is_known && !self.position.is_unset();
        let mut position = if is_known { self.position.clone() } else { now };
        let (wanted, is_new) = (self.wanted, !self.is_resumed);
        let (records, view) = (Arc::clone(&server.records), view.clone());
        let read = server.tree.read(move || {
            let records = records.of(&tree, &view)?;
            let mut records = records.lock();
            let mut text = Vec::new();
            let done = records.catch_up(None).and_then(|()| {
                if is_new {
                    position.skip_to_end(&records);
                }
                event_text::add_lines(&mut text, &mut position, wanted, &mut records)
            });
            let is_last = done.map_err(|error| Trouble::of_tree("the logs", &error))?;
            Ok(Batch { restarted, text, position, is_last })
        });
        read.await.inspect_err(|_| server.tree.forget())
    }

    /// Reports the state of the daemon, if it has changed.
    async fn report(&mut self, condition: Condition) -> Result<(), Over> {
        let mut text = Vec::new();
        if self.condition != condition {
            event_text::add(&mut text, "daemon", &self.position, &condition);
            // It is restarted once.
            self.condition = Condition { restarted: false, ..condition };
        }
        self.send(text).await
    }

    async fn send(&mut self, text: Vec<u8>) -> Result<(), Over> {
        if text.is_empty() {
            return Ok(());
        }
        self.silent_until = Instant::now() + KEEPALIVE;
        let bytes = Bytes::from(text);
        tokio::select! {
            sent = self.sender.send(Ok(bytes)) => sent.map_err(|_| Over),
            // A client that does not read does not hold up the end.
            _ = self.stopping.wait_for(|is_stopping| *is_stopping) => Err(Over),
        }
    }
}

/// Lines that are to be sent.
struct Batch {
    restarted: bool,
    text: Vec<u8>,
    /// After they are sent.
    position: StreamPosition,
    /// No more lines wait.
    is_last: bool,
}
