//! Savefile streams: packets of a capture as a client reads them, up to a bound.
//!
//! Each stream is a reader of the daemon, over a connection of its own: its packets wait in the
//! ring, and a client that does not read is overtaken like any slow reader. In a pcapng the loss is
//! a comment on the next packet.

use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use capture::filter::Filter;
use capture::savefile::FilteredSavefile;
use http::header::{CONTENT_DISPOSITION, HeaderValue};
use protocol::linktype::LinkType;
use serde_json::Value;
use tokio::sync::watch;
use tokio::task::spawn_blocking;
use tokio::time::{Instant, sleep_until, timeout};

use super::access::Visitor;
use super::answer::{Answer, AnswerBody, BodySender, Handled, Problem, with_body};
use super::bounds::{BoundedSavefile, SavefileBounds};
use super::query::Query;
use super::server::Server;
use crate::cli::client;
use crate::cli::savefile::PacketRange;
use crate::control::chunks::{MessagePart, MessageParts};
use crate::control::messages::Format;

/// The time in which the rest of a packet comes after its beginning.
const LAST_PACKET: Duration = Duration::from_secs(1);

/// Maximum number of characters of a filter: hundreds of hosts.
const MAX_FILTER: usize = 8192;

/// A time that no stream lasts, in place of none.
const A_LONG_TIME: Duration = Duration::from_secs(365 * 86_400);

/// The names of the files, for messages.
const FILES: &str = "live, follow or replay, with .pcap or .pcapng";

/// The fields of a request, for messages.
const FIELDS: &str = "filter, duration, packets, bytes";

/// A savefile that a client asks for.
#[derive(Debug)]
pub(super) struct StreamRequest {
    /// Its name, such as `live.pcap`.
    file: String,
    range: PacketRange,
    format: Format,
    filter: Option<String>,
    duration: Option<Duration>,
    bounds: SavefileBounds,
}

impl StreamRequest {
    /// Reads a request for `file`.
    ///
    /// # Errors
    /// There is no such file, or a field is wrong.
    pub(super) fn read(file: &str, mut query: Query) -> Result<Self, Problem> {
        let (range, format) = file.split_once('.').unwrap_or((file, ""));
        let range = match range {
            "live" => Some(PacketRange::Live),
            "follow" => Some(PacketRange::Follow),
            "replay" => Some(PacketRange::Replay),
            _ => None,
        };
        let format = match format {
            "pcap" => Some(Format::Pcap),
            "pcapng" => Some(Format::Pcapng),
            _ => None,
        };
        let missing = || Problem::missing(format!("{file}: no such savefile (there are: {FILES})"));
        let (range, format) = range.zip(format).ok_or_else(missing)?;
        let filter = query.take("filter");
        if filter.as_ref().is_some_and(|filter| filter.len() > MAX_FILTER) {
            return Err(Problem::wrong(format!("filter: longer than {MAX_FILTER} characters")));
        }
        let request = Self {
            file: file.to_owned(),
            range,
            format,
            filter,
            duration: query.duration("duration")?,
            bounds: SavefileBounds {
                packets: query.count("packets")?,
                bytes: query.count("bytes")?,
            },
        };
        query.end(FIELDS)?;
        Ok(request)
    }

    /// The head of the answer.
    fn answer(&self, capture: &str, body: AnswerBody) -> Answer {
        let kind = match self.format {
            Format::Pcapng => "application/x-pcapng",
            Format::Pcap | Format::Unspecified => "application/vnd.tcpdump.pcap",
        };
        let mut answer = with_body(HeaderValue::from_static(kind), body);
        let disposition = attachment(&format!("{capture}-{}", self.file));
        answer.headers_mut().insert(CONTENT_DISPOSITION, disposition);
        answer
    }
}

/// The header that has a browser save the body under this name, as far as its characters are plain.
pub(super) fn attachment(name: &str) -> HeaderValue {
    let is_plain = |one: char| one.is_ascii_alphanumeric() || "._-".contains(one);
    let name: String = name.chars().map(|one| if is_plain(one) { one } else { '_' }).collect();
    let value = HeaderValue::try_from(format!("attachment; filename=\"{name}\""));
    value.unwrap_or_else(|_| HeaderValue::from_static("attachment"))
}

/// Answers a request for a savefile. With `is_head`, only the head is wanted.
///
/// # Errors
/// The capture or the filter cannot be used, or too many streams are open.
pub(super) async fn serve(
    server: &Arc<Server>,
    visitor: &Visitor,
    capture: &str,
    request: StreamRequest,
    is_head: bool,
) -> Handled {
    let view = server.daemon.capture(capture).await?;
    if let Some(filter) = &request.filter {
        check_filter(filter.clone(), &view.status).await?;
    }
    if is_head {
        return Ok(request.answer(&view.name, AnswerBody::Whole(None)));
    }
    let slot = server.streams.take(visitor).ok_or_else(|| {
        Problem::unavailable("too many savefile streams are open (close some, or try again later)")
    })?;
    let filter = request.filter.as_deref().map(FilteredSavefile::new).transpose();
    let filter = filter.map_err(|error| Problem::wrong(error.to_string()))?;
    // The time of a stream begins when its reader is there.
    let parts = parts(server, &view.name, &request).await?;
    let stream = SavefileStream {
        parts,
        filter,
        bounded: BoundedSavefile::new(request.format, request.bounds),
        end: Instant::now() + request.duration.unwrap_or(A_LONG_TIME),
        stopping: server.stopping.clone(),
    };
    let (sender, body) = AnswerBody::stream(slot);
    tokio::spawn(stream.send(sender));
    Ok(request.answer(&view.name, body))
}

/// Checks a filter before anything is sent.
async fn check_filter(filter: String, status: &Value) -> Result<(), Problem> {
    let known = status.get("linktype").and_then(Value::as_str).and_then(LinkType::named);
    // Ethernet is the likely one.
    let link_type = known.unwrap_or(LinkType::ETHERNET);
    // It may look up the names of hosts.
    let compiled = spawn_blocking(move || Filter::compile(&filter, link_type).map(|_| ())).await;
    match compiled {
        Ok(Ok(())) => Ok(()),
        Ok(Err(error)) => Err(Problem::wrong(error.to_string())),
        Err(_) => Err(Problem::unavailable("the filter cannot be compiled now")),
    }
}

/// Asks the daemon for the savefile.
async fn parts(
    server: &Server,
    capture: &str,
    request: &StreamRequest,
) -> Result<MessageParts, Problem> {
    let daemon = server.daemon.socket();
    let asked = async {
        let mut receiver = client::receiver(daemon).await?;
        request.range.request(&mut receiver, capture.to_owned(), request.format).await
    };
    match asked.await {
        Ok(parts) => Ok(parts),
        Err(failure) => Err(server.daemon.trouble(failure).await.into()),
    }
}

/// A savefile on its way to a client.
#[derive(Debug)]
struct SavefileStream {
    parts: MessageParts,
    filter: Option<FilteredSavefile>,
    bounded: BoundedSavefile,
    /// When it ends.
    end: Instant,
    /// True once the server ends.
    stopping: watch::Receiver<bool>,
}

impl SavefileStream {
    async fn send(mut self, sender: BodySender) {
        if let Err(why) = self.send_all(&sender).await {
            // Fails if the client has left, who needs no reason.
            let _ = sender.send(Err(std::io::Error::other(why))).await;
        }
    }

    /// Sends it to its end, or until the client has left.
    async fn send_all(&mut self, sender: &BodySender) -> Result<(), String> {
        let mut is_last = false;
        let mut out = Vec::new();
        while !self.bounded.has_ended() {
            let part = tokio::select! {
                biased;
                () = sender.closed() => return Ok(()),
                () = Self::over(self.end, &mut self.stopping), if !is_last => {
                    is_last = true;
                    self.bounded.finish();
                    continue;
                }
                part = timeout(if is_last { LAST_PACKET } else { A_LONG_TIME }, self.parts.next()) => part,
            };
            let part = part.map_err(|_| "the rest of a packet does not come".to_owned())?;
            let bytes = match part {
                Ok(Some(MessagePart::Data(bytes))) => bytes,
                // Readers of pcapng find losses in comments, and all in readers.jsonl.
                Ok(Some(MessagePart::Lost(_) | MessagePart::Total(_))) => continue,
                Ok(None) => return Ok(()),
                Err(status) => return Err(client::failure(status).to_string()),
            };
            let bytes = self.filtered(bytes).await?;
            self.bounded.push(&bytes, &mut out)?;
            for bytes in out.drain(..) {
                if sender.send(Ok(bytes)).await.is_err() {
                    return Ok(());
                }
            }
        }
        Ok(())
    }

    /// Waits until the stream is to end.
    async fn over(end: Instant, stopping: &mut watch::Receiver<bool>) {
        tokio::select! {
            () = sleep_until(end) => {}
            // An error means that the server is gone.
            _ = stopping.wait_for(|is_stopping| *is_stopping) => {}
        }
    }

    async fn filtered(&mut self, bytes: Bytes) -> Result<Bytes, String> {
        let Some(mut filter) = self.filter.take() else { return Ok(bytes) };
        // It compiles the filter for each link type, which may look up the names of hosts.
        let done = spawn_blocking(move || {
            let mut passed = Vec::new();
            let result = filter.push(&bytes, &mut passed);
            (filter, result, passed)
        });
        let (filter, result, passed) = done.await.map_err(|error| error.to_string())?;
        self.filter = Some(filter);
        result.map_err(|error| error.to_string())?;
        Ok(passed.into())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn read(file: &str, query: &str) -> Result<StreamRequest, Problem> {
        StreamRequest::read(file, Query::read(Some(query)).unwrap())
    }

    #[test]
    fn requests_are_read() {
        let request = read("follow.pcapng", "filter=tcp&duration=3s&packets=7&bytes=9").unwrap();
        assert_eq!((request.range, request.format), (PacketRange::Follow, Format::Pcapng));
        assert_eq!(request.filter.as_deref(), Some("tcp"));
        assert_eq!(request.duration, Some(Duration::from_secs(3)));
        assert_eq!((request.bounds.packets, request.bounds.bytes), (Some(7), Some(9)));
        for file in ["live", "live.pcap.gz", "dead.pcap", ".pcap", "live.PCAP"] {
            let problem = read(file, "").unwrap_err();
            assert_eq!(problem.status, http::StatusCode::NOT_FOUND, "{file}");
        }
        for query in ["packets=0", "bytes=x", "duration=0", "seconds=3"] {
            assert!(read("live.pcap", query).is_err(), "{query}");
        }
        let long = format!("filter={}", "x".repeat(MAX_FILTER + 1));
        assert!(read("live.pcap", &long).is_err());
    }

    #[test]
    fn names_of_downloads_are_plain() {
        assert_eq!(attachment("a\"; b\r\n/ü.pcap"), "attachment; filename=\"a___b____.pcap\"");
    }
}
