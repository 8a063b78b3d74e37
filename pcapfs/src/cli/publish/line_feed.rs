//! Messages of the lines of logs, and of the bodies of transactions.

use std::collections::BTreeMap;
use std::collections::VecDeque;
use std::fs::File;
use std::io::{self, Read};
use std::net::IpAddr;
use std::path::PathBuf;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use bytes::Bytes;
use serde::{Deserialize, Serialize};
use serde_json::Value;
use tokio::time::{Instant, sleep};

use super::feed::{FeedItem, FeedSender, FeedSettings};
use super::message::{Message, MessagePlace};
use crate::cli::outlet::daemon::CaptureView;
use crate::cli::outlet::event_kind::EventKind;
use crate::cli::outlet::follower::{CaptureFollower, LinesTaken, TakenLine};
use crate::cli::outlet::position::CapturePosition;
use crate::cli::outlet::tree::CaptureDirectory;
use crate::cli::outlet::trouble::Trouble;

/// The time between two looks for new lines.
const INTERVAL: Duration = Duration::from_millis(100);

/// The bodies of several lines are read in one task, since each task wakes two threads: the maximum
/// number of lines, and the bytes of bodies after which no further line is added.
const BATCH_LINES: usize = 64;
const BATCH_BYTES: u64 = 1 << 20;

/// Maximum room that is reserved for a body before it is read.
const MAX_PRESIZED: u64 = 1 << 20;

/// The time for which a look at the capture counts.
const FRESH: Duration = Duration::from_secs(1);

/// A feed of lines.
#[derive(Debug)]
pub(super) struct LineFeed {
    settings: Arc<FeedSettings>,
    follower: CaptureFollower,
    sender: FeedSender,
    /// Lines that had left a log, by its kind.
    lost: BTreeMap<EventKind, u64>,
    /// The sum of all feeds of the reader.
    counter: Arc<AtomicU64>,
    view: Option<(Instant, CaptureView)>,
    /// The place that was handed over last.
    marked: CapturePosition,
}

/// The reader has gone.
struct Over;

/// The part of a message's JSON about the message itself.
#[derive(Serialize)]
struct PublishedLine {
    position: String,
    /// Lines of this log that were lost so far.
    lost: u64,
    /// The frames after the JSON.
    bodies: Vec<PublishedBody>,
}

/// A body in a frame.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
struct PublishedBody {
    of: &'static str,
    /// Bytes in the frame.
    bytes: u64,
    /// True if that is the whole body.
    complete: bool,
    why: Option<String>,
}

/// The fields of a line of HTTP by which its bodies are found.
#[derive(Deserialize)]
struct HttpLine {
    flow: u64,
    client: LineEnd,
    server: LineEnd,
    request_body: Option<LineBody>,
    response_body: Option<LineBody>,
}

#[derive(Clone, Copy, Deserialize)]
struct LineEnd {
    address: IpAddr,
    port: u16,
}

#[derive(Deserialize)]
struct LineBody {
    bytes: Option<u64>,
    file: Option<String>,
}

impl LineFeed {
    pub(super) fn new(
        settings: Arc<FeedSettings>,
        saved: Option<CapturePosition>,
        sender: FeedSender,
        counter: &Arc<AtomicU64>,
    ) -> Self {
        let (lost, counter) = (BTreeMap::new(), Arc::clone(counter));
        let follower = CaptureFollower::new(&settings.kinds, settings.beginning, saved);
        let marked = follower.position().clone();
        Self { settings, follower, sender, lost, counter, view: None, marked }
    }

    /// Hands over until the reader has gone.
    pub(super) async fn run(mut self) {
        while self.look().await.is_ok() {}
    }

    /// Hands over what has come, or waits a moment.
    async fn look(&mut self) -> Result<(), Over> {
        let taken = match self.take().await {
            Ok(taken) => taken,
            Err(trouble) => {
                self.view = None;
                self.settings.reporter.away(&trouble.text);
                sleep(INTERVAL).await;
                return if self.sender.is_closed() { Err(Over) } else { Ok(()) };
            }
        };
        self.settings.reporter.back();
        let LinesTaken { is_restarted, lost, lines, is_all } = taken;
        if is_restarted {
            self.settings.reporter.restarted();
        }
        for (kind, lines) in lost {
            *self.lost.entry(kind).or_default() += lines;
            self.counter.fetch_add(lines, Ordering::Relaxed);
            self.settings.reporter.lost(kind.name(), lines);
        }
        let is_empty = lines.is_empty();
        self.mark(is_restarted || is_empty).await?;
        let mut lines: VecDeque<TakenLine> = lines.into();
        while !lines.is_empty() {
            let batch = self.batch(&mut lines);
            let bodies = self.bodies(&batch).await;
            for (ChosenLine { line, is_wanted, .. }, bodies) in batch.into_iter().zip(bodies) {
                let (kind, number) = (line.kind, line.number);
                if is_wanted && let Some(message) = self.message(line, bodies) {
                    self.hand(FeedItem::Message(message)).await?;
                }
                self.follower.delivered(kind, number);
            }
        }
        if is_all && is_empty {
            sleep(INTERVAL).await;
        }
        if self.sender.is_closed() { Err(Over) } else { Ok(()) }
    }

    async fn take(&mut self) -> Result<LinesTaken, Trouble> {
        let source = Arc::clone(&self.settings.source);
        let view = match &self.view {
            Some((seen, view)) if seen.elapsed() < FRESH => view.clone(),
            _ => source.daemon.capture(&self.settings.capture).await?,
        };
        if self.view.as_ref().is_none_or(|(seen, _)| seen.elapsed() >= FRESH) {
            self.view = Some((Instant::now(), view.clone()));
        }
        self.follower.take(&source, &view).await
    }

    /// Hands over the place, if it is due and has changed.
    async fn mark(&mut self, is_due: bool) -> Result<(), Over> {
        let position = self.follower.position();
        if !is_due || *position == self.marked {
            return Ok(());
        }
        self.marked = position.clone();
        self.hand(FeedItem::Lines(Box::new(self.marked.clone()))).await
    }

    async fn hand(&self, item: FeedItem) -> Result<(), Over> {
        self.sender.send(item).await.map_err(|_| Over)
    }

    /// Takes the next lines. Their bodies are read together.
    fn batch(&self, lines: &mut VecDeque<TakenLine>) -> Vec<ChosenLine> {
        let mut batch = Vec::new();
        let mut bytes: u64 = 0;
        while batch.len() < BATCH_LINES
            && bytes < BATCH_BYTES
            && let Some(line) = lines.pop_front()
        {
            let is_wanted = self.is_wanted(&line.text);
            let has_bodies = is_wanted && line.kind == EventKind::Http && self.settings.has_bodies;
            let wanted = if has_bodies { WantedBodies::of(&line.text) } else { WantedBodies::None };
            if let WantedBodies::Of(http) = &wanted {
                bytes = bytes.saturating_add(http.body_bytes(self.settings.max_body));
            }
            batch.push(ChosenLine { line, is_wanted, bodies: wanted });
        }
        batch
    }

    fn is_wanted(&self, text: &[u8]) -> bool {
        let expression = &self.settings.expression;
        expression.is_empty()
            || serde_json::from_slice(text).is_ok_and(|fields: Value| expression.holds_for(&fields))
    }

    /// The message of a line; `None` if the line is no JSON object.
    fn message(&self, line: TakenLine, bodies: Bodies) -> Option<Message> {
        let TakenLine { kind, number, text } = line;
        let (said, bytes): (Vec<PublishedBody>, Vec<Bytes>) = bodies.into_iter().unzip();
        let id = self.follower.position().of_line(kind, number);
        let published = PublishedLine {
            position: id.clone(),
            lost: self.lost.get(&kind).copied().unwrap_or(0),
            bodies: said,
        };
        let mut json = b"{\"published\":".to_vec();
        protocol::json::append(&mut json, &published);
        json.push(b',');
        json.extend_from_slice(text.get(1..)?);
        let frames = std::iter::once(Bytes::from(json)).chain(bytes).collect();
        let place = MessagePlace::Line(kind, number);
        Some(Message { topic: kind.singular(), frames, place, id, sequence: 0 })
    }

    /// The bodies of each line, read in one task. If that fails, each is read for itself, so that one
    /// body does not cost the others theirs.
    async fn bodies(&self, batch: &[ChosenLine]) -> Vec<Bodies> {
        let wanted: Vec<_> = batch.iter().map(|chosen| chosen.bodies.clone()).collect();
        if wanted.iter().all(|wanted| matches!(wanted, WantedBodies::None)) {
            return vec![Vec::new(); batch.len()];
        }
        if let Ok(bodies) = self.read_bodies(wanted.clone()).await {
            return bodies;
        }
        let mut all = Vec::new();
        for wanted in wanted {
            let read = self.read_bodies(vec![wanted]).await;
            let none = |trouble: Trouble| vec![no_body(Some(trouble.text))];
            all.push(read.map_or_else(none, |mut bodies| bodies.pop().unwrap_or_default()));
        }
        all
    }

    async fn read_bodies(&self, wanted: Vec<WantedBodies>) -> Result<Vec<Bodies>, Trouble> {
        let source = &self.settings.source;
        let tree = source.tree.tree(&source.daemon).await?;
        let (directory, max) = (tree.capture(&self.settings.capture), self.settings.max_body);
        let read = source.tree.read(move || {
            let bodies = wanted.iter().map(|wanted| match wanted {
                WantedBodies::None => Vec::new(),
                WantedBodies::Unknown => vec![no_body(Some("the line names no body".to_owned()))],
                WantedBodies::Of(line) => line_bodies(&directory, line, max),
            });
            Ok::<_, Trouble>(bodies.collect())
        });
        read.await
    }
}

/// The bodies of a message.
type Bodies = Vec<(PublishedBody, Bytes)>;

/// A line that has been read.
struct ChosenLine {
    line: TakenLine,
    /// Whether it is published.
    is_wanted: bool,
    bodies: WantedBodies,
}

/// The bodies that are published with a line.
#[derive(Clone)]
enum WantedBodies {
    /// None: it is no line of HTTP, or bodies are not published.
    None,
    /// They are published, but the line does not name them.
    Unknown,
    /// Those of this line.
    Of(Arc<HttpLine>),
}

impl WantedBodies {
    fn of(text: &[u8]) -> Self {
        serde_json::from_slice(text).map_or(Self::Unknown, |line| Self::Of(Arc::new(line)))
    }
}

impl HttpLine {
    /// Bytes of the bodies, as far as they are published.
    fn body_bytes(&self, max: u64) -> u64 {
        let len = |body: &Option<LineBody>| body.as_ref().and_then(|body| body.bytes).unwrap_or(0);
        len(&self.request_body).min(max).saturating_add(len(&self.response_body).min(max))
    }
}

/// The entry for a response without a body, or with one that cannot be read.
fn no_body(why: Option<String>) -> (PublishedBody, Bytes) {
    (PublishedBody { of: "response", bytes: 0, complete: why.is_none(), why }, Bytes::new())
}

/// The bodies of a transaction: that of the response, even if it is empty, and that of the request if
/// there is one.
fn line_bodies(directory: &CaptureDirectory, line: &HttpLine, max: u64) -> Bodies {
    let has = |body: &Option<LineBody>| body.as_ref().is_some_and(|body| body.file.is_some());
    if !has(&line.response_body) && !has(&line.request_body) {
        return vec![no_body(None)];
    }
    let flow = flow_directory(directory, line);
    let mut bodies = vec![match &line.response_body {
        Some(body) if body.file.is_some() => read_body("response", &flow, body, max),
        _ => no_body(None),
    }];
    if let Some(body) = line.request_body.as_ref().filter(|body| body.file.is_some()) {
        bodies.push(read_body("request", &flow, body, max));
    }
    bodies
}

/// The directory of the flow of a transaction; `None` if it has left the tree. The client of the
/// transaction need not be that of the flow.
fn flow_directory(directory: &CaptureDirectory, line: &HttpLine) -> Option<PathBuf> {
    let end = |end: LineEnd| format!("{}.{}", end.address.to_string().replace(':', "_"), end.port);
    let (client, server) = (end(line.client), end(line.server));
    let names = [(&client, &server), (&server, &client)]
        .map(|(one, other)| format!("{:06}-tcp-{one}-{other}", line.flow));
    let found = names.into_iter().map(|name| directory.flow(&name)).find(|path| path.is_dir());
    found.or_else(|| {
        let name = directory.flow_name(line.flow).ok().flatten()?;
        Some(directory.flow(&name))
    })
}

fn read_body(
    of: &'static str,
    flow: &Option<PathBuf>,
    body: &LineBody,
    max: u64,
) -> (PublishedBody, Bytes) {
    let gone = |why: String| {
        (PublishedBody { of, bytes: 0, complete: false, why: Some(why) }, Bytes::new())
    };
    let Some(flow) = flow else { return gone("its flow has left the tree".to_owned()) };
    let Some(file) = body.file.as_deref().filter(|file| is_plain(file)) else {
        return gone("a name that is no body's".to_owned());
    };
    let read = || -> io::Result<Vec<u8>> {
        // With room for one byte more, the first read is the whole body and the second one its end.
        let len = body.bytes.unwrap_or(0).min(max).min(MAX_PRESIZED);
        let mut bytes = Vec::with_capacity(usize::try_from(len).unwrap_or(0) + 1);
        File::open(flow.join(file))?.take(max.saturating_add(1)).read_to_end(&mut bytes)?;
        Ok(bytes)
    };
    let mut bytes = match read() {
        Ok(bytes) => bytes,
        Err(error) => return gone(Trouble::of_tree(file, &error).text),
    };
    let is_cut = bytes.len() as u64 > max;
    bytes.truncate(usize::try_from(max).unwrap_or(usize::MAX));
    let length = bytes.len() as u64;
    let is_short = body.bytes.is_some_and(|whole| length < whole);
    let why = match (is_cut, is_short) {
        (true, _) => Some("cut at --max-body".to_owned()),
        (false, true) => Some("bytes of it are missing".to_owned()),
        (false, false) => None,
    };
    (PublishedBody { of, bytes: length, complete: why.is_none(), why }, bytes.into())
}

/// True for `bodies/NAME`: a line is the daemon's, but names in it come from strangers.
fn is_plain(file: &str) -> bool {
    file.strip_prefix("bodies/").is_some_and(|name| !name.contains('/') && name != "..")
}

#[cfg(test)]
mod tests {
    use std::fs;

    use super::*;
    use crate::cli::outlet::tree::tests::directory_at;

    #[test]
    fn bodies_are_read_up_to_a_bound() {
        let folder = tempfile::tempdir().unwrap();
        let flow = folder.path().join("flows/000007-tcp-fd00__1.4-10.0.0.2.80");
        fs::create_dir_all(flow.join("bodies")).unwrap();
        fs::write(flow.join("bodies/0001-response"), b"0123456789").unwrap();
        let line = |client: &str, server: &str| {
            let end = |text: &str, port| LineEnd { address: text.parse().unwrap(), port };
            HttpLine {
                flow: 7,
                client: end(client, 4),
                server: end(server, 80),
                request_body: None,
                response_body: None,
            }
        };
        let directory = directory_at(folder.path());
        let found = flow_directory(&directory, &line("fd00::1", "10.0.0.2"));
        assert_eq!(found, Some(flow));
        assert_eq!(flow_directory(&directory, &line("10.0.0.9", "10.0.0.2")), found, "by number");
        let body = |file: &str, bytes| LineBody { bytes: Some(bytes), file: Some(file.to_owned()) };
        let read = |file: &str, bytes, max| read_body("response", &found, &body(file, bytes), max);
        let (said, bytes) = read("bodies/0001-response", 10, 10);
        assert_eq!((said.complete, said.why, &bytes[..]), (true, None, &b"0123456789"[..]));
        let (said, bytes) = read("bodies/0001-response", 10, 4);
        assert_eq!((said.complete, said.why.as_deref()), (false, Some("cut at --max-body")));
        assert_eq!((said.bytes, &bytes[..]), (4, &b"0123"[..]));
        assert!(!read("bodies/0001-response", 12, 100).0.complete);
        for file in ["bodies/0002-response", "bodies/../meta.json", "/etc/passwd", "bodies/.."] {
            let (said, bytes) = read(file, 1, 100);
            assert!(!said.complete && said.why.is_some() && bytes.is_empty(), "{file}");
        }
        assert!(read_body("request", &None, &body("bodies/x", 1), 1).0.why.is_some());
    }
}
