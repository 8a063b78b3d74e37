//! A connection to a server of NATS with JetStream.

use std::time::Duration;

use bytes::{Bytes, BytesMut};
use serde::de::DeserializeOwned;
use serde_json::Value;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpStream, lookup_host};
use tokio::time::timeout;

use super::protocol::{
    self, ClientIntroduction, ServerInfo, ServerMessage, StreamAnswer, StreamError, append_request,
};
use super::{NatsAddress, STREAM};
use crate::cli::client::DaemonSocket;
use crate::cli::exclude::{self, ExcludedOutlet};
use crate::cli::far_end;

/// The time for a step of the beginning, for a write, and for an answer.
pub(in crate::cli) const ANSWER: Duration = Duration::from_secs(5);

/// The last token of the subject to which answers to requests go.
const REQUEST_REPLY: &str = "answer";

/// Status of the answer to a subject at which nobody listens.
const NO_RESPONDERS: u32 = 503;

/// A connection to a server.
#[derive(Debug)]
pub(in crate::cli) struct Connection {
    stream: TcpStream,
    pub(in crate::cli) input: BytesMut,
    pub(in crate::cli) info: ServerInfo,
    /// The beginning of subjects to which answers go.
    pub(in crate::cli) inbox: String,
}

impl Connection {
    /// Connects and introduces itself.
    ///
    /// # Errors
    /// Why that is not possible now.
    pub(in crate::cli) async fn open(server: &NatsAddress) -> Result<Self, String> {
        timeout(2 * ANSWER, Self::begin(server))
            .await
            .unwrap_or_else(|_| Err("no answer".to_owned()))
    }

    async fn begin(server: &NatsAddress) -> Result<Self, String> {
        let text = |error: std::io::Error| error.to_string();
        let place = &server.place;
        let found = lookup_host((place.host.as_str(), place.port)).await.map_err(text)?;
        let stream = TcpStream::connect(&found.collect::<Vec<_>>()[..]).await.map_err(text)?;
        stream.set_nodelay(true).map_err(text)?;
        far_end::notice_when_gone(&stream).map_err(text)?;
        let inbox = format!("_INBOX.pcapfs{}{:x}", std::process::id(), unique());
        let (input, info) = (BytesMut::new(), ServerInfo::default());
        let mut connection = Self { stream, input, info, inbox };
        match connection.message().await? {
            ServerMessage::Info(info) => connection.info = info,
            _ => return Err("no NATS server".to_owned()),
        }
        let ServerInfo { headers, jetstream, tls_required, version, .. } = &connection.info;
        if *tls_required {
            return Err("the server requires TLS, which is not offered here".to_owned());
        }
        if !headers || !jetstream {
            return Err(format!(
                "the server (NATS {version}) has no JetStream (start it with: -js)"
            ));
        }
        connection.introduce(server).await?;
        Ok(connection)
    }

    async fn introduce(&mut self, server: &NatsAddress) -> Result<(), String> {
        let (user, pass, auth_token) = match server.credentials.clone() {
            Some((user, Some(password))) => (Some(user), Some(password), None),
            Some((token, None)) => (None, None, Some(token)),
            None => (None, None, None),
        };
        let introduction = ClientIntroduction {
            headers: true,
            no_responders: true,
            name: "pcapfs",
            lang: "rust",
            version: env!("CARGO_PKG_VERSION"),
            user,
            pass,
            auth_token,
            ..ClientIntroduction::default()
        };
        let introduction = serde_json::to_string(&introduction).unwrap_or_default();
        let inbox = &self.inbox;
        let text = format!("CONNECT {introduction}\r\nSUB {inbox}.* 1\r\nPING\r\n");
        self.write(text.as_bytes()).await?;
        loop {
            match self.message().await? {
                ServerMessage::Pong => return Ok(()),
                ServerMessage::Error(why) => return Err(why),
                ServerMessage::Ping => self.write(b"PONG\r\n").await?,
                _ => {}
            }
        }
    }

    /// Has captures leave out the packets of this connection, as long as the returned value lives.
    pub(in crate::cli) async fn keep_out(&self, daemon: &DaemonSocket) -> Option<ExcludedOutlet> {
        let (local, peer) = (self.stream.local_addr().ok()?, self.stream.peer_addr().ok()?);
        Some(exclude::keep_out(daemon, local, Some(peer)).await)
    }

    /// Asks JetStream, at `$JS.API.` and this subject. Returns its answer, which may be an error. No
    /// other messages may be expected meanwhile.
    ///
    /// # Errors
    /// Why there is none.
    pub(in crate::cli) async fn ask<T: DeserializeOwned>(
        &mut self,
        subject: &str,
        question: &Value,
    ) -> Result<T, String> {
        let mut out = BytesMut::new();
        let reply = format!("{}.{REQUEST_REPLY}", self.inbox);
        let question = question.to_string();
        append_request(&mut out, &format!("$JS.API.{subject}"), &reply, question.as_bytes());
        self.write(&out).await?;
        let answer = timeout(ANSWER, self.answer(&reply)).await;
        parse(&answer.map_err(|_| "no answer".to_owned())??)
    }

    async fn answer(&mut self, reply: &str) -> Result<Bytes, String> {
        loop {
            match self.message().await? {
                ServerMessage::Message { subject, headers, payload, .. } if subject == reply => {
                    if protocol::status(&headers) == Some(NO_RESPONDERS) {
                        return Err("the server has no JetStream (start it with: -js)".to_owned());
                    }
                    return Ok(payload);
                }
                ServerMessage::Ping => self.write(b"PONG\r\n").await?,
                ServerMessage::Error(why) => return Err(why),
                _ => {}
            }
        }
    }

    /// The next message.
    ///
    /// # Errors
    /// Why there is none.
    pub(in crate::cli) async fn message(&mut self) -> Result<ServerMessage, String> {
        loop {
            if let Some(message) = protocol::take(&mut self.input, self.info.max_payload)? {
                return Ok(message);
            }
            self.fill().await?;
        }
    }

    /// Waits for bytes. May be dropped and called again.
    ///
    /// # Errors
    /// The connection has ended.
    pub(in crate::cli) async fn fill(&mut self) -> Result<(), String> {
        self.input.reserve(4096);
        match self.stream.read_buf(&mut self.input).await {
            Ok(0) => Err("the server closed the connection".to_owned()),
            Ok(_) => Ok(()),
            Err(error) => Err(error.to_string()),
        }
    }

    /// Sends bytes.
    ///
    /// # Errors
    /// The server does not take them, or the connection has ended.
    pub(in crate::cli) async fn write(&mut self, bytes: &[u8]) -> Result<(), String> {
        let written = timeout(ANSWER, self.stream.write_all(bytes)).await;
        let written = written.map_err(|_| "the server takes no bytes".to_owned())?;
        written.map_err(|error| error.to_string())
    }
}

/// Checks that an answer is an acknowledgement.
///
/// # Errors
/// Why it is none.
pub(in crate::cli) fn check(headers: &[u8], payload: &Bytes) -> Result<(), String> {
    if protocol::status(headers) == Some(NO_RESPONDERS) {
        return Err(format!(
            "no stream takes the lines (make one that keeps pcapfs.>, or use --create-stream, which \
             makes '{STREAM}')"
        ));
    }
    let answer: StreamAnswer = parse(payload)?;
    match answer.error {
        None => Ok(()),
        Some(StreamError { code, description, .. }) => Err(format!("{description} ({code})")),
    }
}

fn parse<T: DeserializeOwned>(answer: &[u8]) -> Result<T, String> {
    serde_json::from_slice(answer).map_err(|_| "an answer that is none of JetStream".to_owned())
}

/// A number that no other connection of this process has.
fn unique() -> u64 {
    use std::sync::atomic::{AtomicU64, Ordering};
    static CONNECTIONS: AtomicU64 = AtomicU64::new(0);
    CONNECTIONS.fetch_add(1, Ordering::Relaxed)
}
