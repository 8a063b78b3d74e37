//! A connection to a server of NATS with JetStream.

use std::net::SocketAddr;
use std::time::Duration;

use bytes::{Bytes, BytesMut};
use serde::de::DeserializeOwned;
use serde_json::Value;
use tokio::io::{AsyncRead, AsyncReadExt, AsyncWrite, AsyncWriteExt};
use tokio::net::{TcpStream, lookup_host};
use tokio::time::timeout;

use super::login::NatsLogin;
use super::protocol::{
    self, ClientIntroduction, ServerInfo, ServerMessage, StreamAnswer, StreamError, append_request,
};
use super::server::NatsServer;
use super::{STREAM, tls};
use crate::cli::client::DaemonSocket;
use crate::cli::exclude::{self, ExcludedOutlet};
use crate::cli::far_end;

/// The time for a step of the beginning, for a write, and for an answer.
pub(in crate::cli) const ANSWER: Duration = Duration::from_secs(5);

/// The last token of the subject to which answers to requests go.
const REQUEST_REPLY: &str = "answer";

/// Status of the answer to a subject at which nobody listens.
const NO_RESPONDERS: u32 = 503;

/// The bytes of a connection, with or without TLS.
trait ByteStream: AsyncRead + AsyncWrite + Unpin + Send {}

impl<T: AsyncRead + AsyncWrite + Unpin + Send> ByteStream for T {}

/// A connection to a server.
pub(in crate::cli) struct Connection {
    stream: Box<dyn ByteStream>,
    /// This end and the other one.
    addresses: (SocketAddr, SocketAddr),
    /// A certificate is shown to the server, if it asks for one.
    has_certificate: bool,
    pub(in crate::cli) input: BytesMut,
    pub(in crate::cli) info: ServerInfo,
    /// The beginning of subjects to which answers go.
    pub(in crate::cli) inbox: String,
}

impl std::fmt::Debug for Connection {
    fn fmt(&self, formatter: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        formatter
            .debug_struct("Connection")
            .field("addresses", &self.addresses)
            .finish_non_exhaustive()
    }
}

impl Connection {
    /// Connects and introduces itself.
    ///
    /// # Errors
    /// Why that is not possible now.
    pub(in crate::cli) async fn open(server: &NatsServer) -> Result<Self, String> {
        timeout(2 * ANSWER, Self::begin(server))
            .await
            .unwrap_or_else(|_| Err("no answer".to_owned()))
    }

    async fn begin(server: &NatsServer) -> Result<Self, String> {
        let text = |error: std::io::Error| error.to_string();
        let place = &server.address.place;
        let login = server.login()?;
        let found = lookup_host((place.host.as_str(), place.port)).await.map_err(text)?;
        let mut stream = TcpStream::connect(&found.collect::<Vec<_>>()[..]).await.map_err(text)?;
        stream.set_nodelay(true).map_err(text)?;
        far_end::notice_when_gone(&stream).map_err(text)?;
        let addresses = (stream.local_addr().map_err(text)?, stream.peer_addr().map_err(text)?);
        let mut input = BytesMut::new();
        let info = first_info(&mut stream, &mut input).await?;
        let mut has_certificate = false;
        let stream: Box<dyn ByteStream> = if server.wants_tls || info.tls_required {
            if !info.tls_required && !info.tls_available {
                return Err("the server has no TLS (add it there, or write nats://)".to_owned());
            }
            if !input.is_empty() {
                return Err("the server sends more than it may before TLS".to_owned());
            }
            let config = server.tls()?;
            has_certificate = config.client_auth_cert_resolver.has_certs();
            Box::new(tls::secured(stream, &place.host, config).await?)
        } else {
            Box::new(stream)
        };
        let inbox = format!("_INBOX.pcapfs{}{:x}", std::process::id(), unique());
        let mut connection = Self { stream, addresses, has_certificate, input, info, inbox };
        let ServerInfo { headers, jetstream, version, .. } = &connection.info;
        if !headers || !jetstream {
            return Err(format!(
                "the server (NATS {version}) has no JetStream (start it with: -js)"
            ));
        }
        connection.introduce(&login).await?;
        Ok(connection)
    }

    async fn introduce(&mut self, login: &NatsLogin) -> Result<(), String> {
        let mut introduction = ClientIntroduction {
            headers: true,
            no_responders: true,
            name: "pcapfs",
            lang: "rust",
            version: env!("CARGO_PKG_VERSION"),
            ..ClientIntroduction::default()
        };
        login.introduce(&mut introduction, self.info.nonce.as_deref())?;
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
    pub(in crate::cli) async fn keep_out(&self, daemon: &DaemonSocket) -> ExcludedOutlet {
        let (local, peer) = self.addresses;
        exclude::keep_out(daemon, local, Some(peer)).await
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
            Err(error) => Err(tls::explained(&error, self.has_certificate)),
        }
    }

    /// Sends bytes.
    ///
    /// # Errors
    /// The server does not take them, or the connection has ended.
    pub(in crate::cli) async fn write(&mut self, bytes: &[u8]) -> Result<(), String> {
        let write = async {
            self.stream.write_all(bytes).await?;
            // TLS has records that are not sent yet.
            self.stream.flush().await
        };
        let written = timeout(ANSWER, write).await;
        let written = written.map_err(|_| "the server takes no bytes".to_owned())?;
        written.map_err(|error| tls::explained(&error, self.has_certificate))
    }
}

/// The first message of the server, in the clear.
async fn first_info(stream: &mut TcpStream, input: &mut BytesMut) -> Result<ServerInfo, String> {
    loop {
        match protocol::take(input, ServerInfo::default().max_payload)? {
            Some(ServerMessage::Info(info)) => return Ok(info),
            Some(_) => return Err("no NATS server".to_owned()),
            None => {}
        }
        match stream.read_buf(input).await {
            Ok(0) => return Err("the server closed the connection".to_owned()),
            Ok(_) => {}
            Err(error) => return Err(error.to_string()),
        }
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
