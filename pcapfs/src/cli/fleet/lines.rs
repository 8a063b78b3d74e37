//! Lines of a stream, in the order in which the server took them.
//!
//! A consumer of the server gives them out in batches that are asked for. So a slow reader holds up no
//! other, and misses nothing that the stream keeps.

use std::time::Duration;

use bytes::BytesMut;
use capture::clock;
use protocol::time::Timestamp;
use serde::Deserialize;
use serde_json::{Value, json};

use super::FleetError;
use super::reference::FlowReference;
use crate::cli::client::DaemonSocket;
use crate::cli::nats::STREAM;
use crate::cli::nats::connection::Connection;
use crate::cli::nats::protocol::{self as wire, ServerMessage, StreamError, append_request};
use crate::cli::outlet::event_kind::EventKind;
use crate::cli::outlet::expression::Expression;
use crate::cli::savefile::TransferSignals;
use crate::cli::watch::event::WatchEvent;
use crate::failure::Failure;
use crate::output;

/// Lines of a batch.
const BATCH: usize = 256;

/// The time for which the server waits for lines before it is asked again.
const EXPIRES: Duration = Duration::from_secs(20);

/// The time after which the server forgets a consumer that asks for nothing.
const FORGOTTEN: Duration = Duration::from_secs(60);

/// The last token of the subject to which lines come.
const LINES: &str = "line";

/// Statuses that end a batch without further lines (JetStream: none there, expired).
const ENDS: [u32; 2] = [404, 408];

/// The lines that are wanted.
#[derive(Debug)]
pub(super) struct LineRequest {
    pub(super) host: Option<String>,
    pub(super) capture: Option<String>,
    pub(super) kinds: Vec<EventKind>,
    /// A line must meet all of them.
    pub(super) expressions: [Expression; 2],
    pub(super) since: Option<Duration>,
    pub(super) json: bool,
    /// Goes on with lines to come, and without `since` leaves out those that are there.
    pub(super) follow: bool,
}

/// The answer to the request for a consumer.
#[derive(Debug, Deserialize)]
struct ConsumerAnswer {
    error: Option<StreamError>,
    #[serde(default)]
    name: String,
    #[serde(default)]
    num_pending: u64,
}

impl LineRequest {
    /// The subjects that the server selects. Several kinds are selected here.
    fn subject(&self) -> String {
        let any = || "*".to_owned();
        let name = |name: &Option<String>| name.as_deref().map_or_else(any, wire::token);
        let kind = match &self.kinds[..] {
            [kind] => kind.name(),
            _ => "*",
        };
        format!("pcapfs.{}.{}.{kind}", name(&self.host), name(&self.capture))
    }

    /// The consumer that gives the lines out.
    fn consumer(&self) -> Value {
        let mut config = json!({
            "ack_policy": "none", "replay_policy": "instant", "filter_subject": self.subject(),
            "inactive_threshold": nanoseconds(FORGOTTEN),
        });
        match self.since {
            Some(since) => {
                let past = clock::now().nanoseconds().saturating_sub(nanoseconds(since));
                config["deliver_policy"] = json!("by_start_time");
                config["opt_start_time"] = json!(Timestamp::from_nanoseconds(past).to_rfc3339());
            }
            None => config["deliver_policy"] = json!(if self.follow { "new" } else { "all" }),
        }
        json!({ "stream_name": STREAM, "config": config })
    }

    /// The question for the next batch.
    fn batch(&self) -> Value {
        if self.follow {
            json!({ "batch": BATCH, "expires": nanoseconds(EXPIRES) })
        } else {
            json!({ "batch": BATCH, "no_wait": true })
        }
    }

    /// The text for a message of the stream; `None` if it is not wanted.
    fn text(&self, subject: &str, payload: &[u8]) -> Option<Vec<u8>> {
        let mut tokens = subject.split('.').skip(1).map(wire::name_of);
        let (host, capture, kind) = (tokens.next()?, tokens.next()?, tokens.next()?);
        let kind = *self.kinds.iter().find(|known| known.name() == kind)?;
        let event = WatchEvent::of_line(kind, String::new(), payload.to_vec())?;
        if !self.expressions.iter().all(|expression| expression.holds_for(event.fields())) {
            return None;
        }
        let reference = FlowReference::of_line(&host, &capture, event.fields());
        let reference = reference.map(|reference| reference.to_string());
        if !self.json {
            let place = reference.unwrap_or_else(|| format!("{host}/{capture}"));
            return Some(format!("{}\n", event.text_at(&place)).into_bytes());
        }
        let origin = json!({
            "host": host, "capture": capture, "what": kind.singular(), "ref": reference,
        });
        let rest = payload.trim_ascii_end().get(1..)?;
        Some([format!("{{\"fleet\":{origin},").as_bytes(), rest, b"\n"].concat())
    }
}

/// Prints lines: those that are in the stream, or until a signal comes.
pub(super) async fn print(
    mut connection: Connection,
    request: &LineRequest,
    daemon: &DaemonSocket,
) -> Result<(), FleetError> {
    let mut signals = TransferSignals::new().map_err(FleetError::Output)?;
    // Captures of this machine would store the lines that come.
    let _excluded = connection.keep_out(daemon).await;
    tokio::select! {
        _ = signals.any() => Ok(()),
        done = read(&mut connection, request) => done,
    }
}

async fn read(connection: &mut Connection, request: &LineRequest) -> Result<(), FleetError> {
    let subject = format!("CONSUMER.CREATE.{STREAM}");
    let answer: ConsumerAnswer =
        connection.ask(&subject, &request.consumer()).await.map_err(FleetError::Server)?;
    if let Some(error) = answer.error {
        return Err(FleetError::Server(no_stream(&error)));
    }
    let mut pending = answer.num_pending;
    let subject = format!("$JS.API.CONSUMER.MSG.NEXT.{STREAM}.{}", answer.name);
    let reply = format!("{}.{LINES}", connection.inbox);
    while request.follow || pending > 0 {
        let mut out = BytesMut::new();
        append_request(&mut out, &subject, &reply, request.batch().to_string().as_bytes());
        connection.write(&out).await.map_err(FleetError::Server)?;
        match batch(connection, request, &mut pending).await? {
            BatchEnd::ReaderGone => break,
            BatchEnd::Empty if !request.follow => break,
            BatchEnd::Empty | BatchEnd::Full => {}
        }
    }
    Ok(())
}

/// How a batch ended.
#[derive(Debug, PartialEq, Eq)]
enum BatchEnd {
    /// With its last line.
    Full,
    /// The server has no more lines at the moment.
    Empty,
    /// No program reads standard output any more.
    ReaderGone,
}

/// Prints the lines of a batch.
async fn batch(
    connection: &mut Connection,
    request: &LineRequest,
    pending: &mut u64,
) -> Result<BatchEnd, FleetError> {
    let mut taken = 0;
    while taken < BATCH {
        match connection.message().await.map_err(FleetError::Server)? {
            ServerMessage::Message { subject, reply, headers, payload } => {
                match wire::status(&headers) {
                    Some(status) if ENDS.contains(&status) => return Ok(BatchEnd::Empty),
                    Some(status) => {
                        let why = format!("the server ends the lines (status {status})");
                        return Err(FleetError::Server(why));
                    }
                    None => {}
                }
                taken += 1;
                *pending = left(reply.as_deref()).unwrap_or(0);
                if let Some(text) = request.text(&subject, &payload) {
                    let printed = output::print_on(&text);
                    let printed =
                        printed.map_err(|error| FleetError::Output(Failure::Output(error)));
                    if !printed? {
                        return Ok(BatchEnd::ReaderGone);
                    }
                }
                if *pending == 0 && !request.follow {
                    return Ok(BatchEnd::Empty);
                }
            }
            ServerMessage::Ping => {
                connection.write(b"PONG\r\n").await.map_err(FleetError::Server)?;
            }
            ServerMessage::Error(why) => return Err(FleetError::Server(why)),
            ServerMessage::Info(_) | ServerMessage::Pong | ServerMessage::Other => {}
        }
    }
    Ok(BatchEnd::Full)
}

/// The number of lines after this one, which is the last token of the subject for its
/// acknowledgement.
fn left(reply: Option<&str>) -> Option<u64> {
    reply?.rsplit('.').next()?.parse().ok()
}

/// Explains an error of JetStream about the stream.
pub(super) fn no_stream(error: &StreamError) -> String {
    /// Error of JetStream for a stream that is not there.
    const MISSING: u32 = 10_059;
    if error.err_code == MISSING {
        return format!(
            "it has no stream '{STREAM}' (make it with: pcapfs publish ALIAS nats://HOST --create-stream)"
        );
    }
    format!("{} ({})", error.description, error.code)
}

fn nanoseconds(time: Duration) -> u64 {
    u64::try_from(time.as_nanos()).unwrap_or(u64::MAX)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn request(kinds: &[EventKind], json: bool) -> LineRequest {
        LineRequest {
            host: Some("a.example".to_owned()),
            capture: None,
            kinds: kinds.to_vec(),
            expressions: [Expression::default(), Expression::read("status=5xx", kinds).unwrap()],
            since: None,
            json,
            follow: false,
        }
    }

    #[test]
    fn lines_are_chosen_by_subject_and_fields() {
        let wanted = request(&[EventKind::Http, EventKind::Flows], true);
        assert_eq!(wanted.subject(), "pcapfs.a%2Eexample.*.*");
        assert_eq!(request(&[EventKind::Http], true).subject(), "pcapfs.a%2Eexample.*.http");
        let line = |status: u32| {
            let ends =
                r#""client":{"address":"::1","port":4},"server":{"address":"::2","port":80}"#;
            format!("{{\"host\":\"b\",\"flow\":7,{ends},\"status\":{status}}}\n").into_bytes()
        };
        let text = wanted.text("pcapfs.a%2Eexample.web.http", &line(503)).unwrap();
        let text: Value = serde_json::from_slice(&text).unwrap();
        let origin = json!({
            "host": "a.example", "capture": "web", "what": "http",
            "ref": "a.example/web/7-__1.4-__2.80",
        });
        assert_eq!((&text["fleet"], &text["host"]), (&origin, &json!("b")));
        assert_eq!(wanted.text("pcapfs.a%2Eexample.web.http", &line(200)), None);
        assert_eq!(wanted.text("pcapfs.a%2Eexample.web.dns", &line(503)), None);
        for wrong in ["pcapfs.a.web", "x", ""] {
            assert_eq!(wanted.text(wrong, &line(503)), None, "{wrong}");
        }
        for wrong in [&b""[..], b"[]", b"7", b"{"] {
            assert_eq!(wanted.text("pcapfs.a.web.http", wrong), None);
        }
        let shown = request(&[EventKind::Http], false);
        let text = shown.text("pcapfs.a%1B.web.http", &line(503)).unwrap();
        assert!(text.starts_with(b"a?/web/7-__1.4-__2.80 http 503 ") && text.ends_with(b"\n"));
        let about_none = shown.text("pcapfs.a.web.http", br#"{"status":503}"#).unwrap();
        assert!(about_none.starts_with(b"a/web http 503 "));
    }

    #[test]
    fn the_number_of_lines_left_is_read() {
        assert_eq!(left(Some("$JS.ACK.pcapfs.x.1.5.5.1700000000000000000.12")), Some(12));
        assert_eq!((left(Some("x")), left(None)), (None, None));
    }
}
