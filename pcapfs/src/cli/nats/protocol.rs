//! The client protocol of NATS, as far as publishers and readers of a stream need it. Bytes in, values
//! out, without I/O.
//!
//! Source: <https://docs.nats.io/reference/reference-protocols/nats-protocol>, and the headers and
//! acknowledgements of JetStream.

use bytes::{Bytes, BytesMut};
use serde::{Deserialize, Serialize};

/// Maximum number of bytes of a line from the server: INFO lists the servers of a cluster.
const MAX_LINE: usize = 64 << 10;

/// Maximum number of bytes of a message from the server, whatever its `max_payload`.
const MAX_PAYLOAD: usize = 8 << 20;

/// Bytes of an answer of JetStream that come with a message of the maximum size.
const AROUND: usize = 64 << 10;

/// The line that headers begin with.
const HEADERS: &str = "NATS/1.0\r\n";

/// A message from the server.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(in crate::cli) enum ServerMessage {
    Info(ServerInfo),
    /// A message to a subject: the subject for an answer, headers, which may be empty, and its
    /// payload.
    Message {
        subject: String,
        reply: Option<String>,
        headers: Bytes,
        payload: Bytes,
    },
    Ping,
    Pong,
    Error(String),
    /// One without a meaning here.
    Other,
}

/// Properties of the server.
#[derive(Clone, Debug, PartialEq, Eq, Deserialize)]
#[serde(default)]
pub(in crate::cli) struct ServerInfo {
    /// Maximum number of bytes of a message with its headers.
    pub(in crate::cli) max_payload: usize,
    pub(in crate::cli) headers: bool,
    pub(in crate::cli) jetstream: bool,
    pub(in crate::cli) tls_required: bool,
    pub(in crate::cli) tls_available: bool,
    /// The text that a client with a key has to sign.
    pub(in crate::cli) nonce: Option<String>,
    pub(in crate::cli) version: String,
}

impl Default for ServerInfo {
    fn default() -> Self {
        Self {
            max_payload: 1 << 20,
            headers: false,
            jetstream: false,
            tls_required: false,
            tls_available: false,
            nonce: None,
            version: String::new(),
        }
    }
}

/// How a client introduces itself. It has secrets, so it cannot be shown.
#[derive(Clone, Default, Serialize)]
pub(in crate::cli) struct ClientIntroduction {
    pub(in crate::cli) verbose: bool,
    pub(in crate::cli) pedantic: bool,
    pub(in crate::cli) headers: bool,
    /// Wants to hear if nobody answers to a subject.
    pub(in crate::cli) no_responders: bool,
    pub(in crate::cli) name: &'static str,
    pub(in crate::cli) lang: &'static str,
    pub(in crate::cli) version: &'static str,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(in crate::cli) user: Option<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(in crate::cli) pass: Option<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(in crate::cli) auth_token: Option<String>,
    /// Public key of the user.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(in crate::cli) nkey: Option<String>,
    /// The statement of an account about the user, with its signature.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(in crate::cli) jwt: Option<String>,
    /// Signature of the nonce.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(in crate::cli) sig: Option<String>,
}

/// The answer of JetStream to a message or a request.
#[derive(Debug, Deserialize)]
pub(in crate::cli) struct StreamAnswer {
    pub(in crate::cli) error: Option<StreamError>,
}

/// Why JetStream did not take it.
#[derive(Clone, Debug, PartialEq, Eq, Deserialize)]
pub(in crate::cli) struct StreamError {
    #[serde(default)]
    pub(in crate::cli) code: u32,
    #[serde(default)]
    pub(in crate::cli) err_code: u32,
    #[serde(default)]
    pub(in crate::cli) description: String,
}

/// Takes the first message of what has come; `None` if it has not come completely. `max_payload` is
/// that of the server.
///
/// # Errors
/// It is malformed, or too long.
pub(in crate::cli) fn take(
    input: &mut BytesMut,
    max_payload: usize,
) -> Result<Option<ServerMessage>, String> {
    let Some(end) = input.windows(2).position(|two| two == b"\r\n") else {
        return if input.len() > MAX_LINE {
            Err("a line without an end".to_owned())
        } else {
            Ok(None)
        };
    };
    let line = input.get(..end).unwrap_or_default();
    let line = str::from_utf8(line).map_err(|_| "a line that is no text".to_owned())?;
    let (word, rest) = line.split_once([' ', '\t']).unwrap_or((line, ""));
    let rest = rest.trim();
    let message = match word.to_ascii_uppercase().as_str() {
        "MSG" | "HMSG" => return take_message(input, end, max_payload),
        "PING" => ServerMessage::Ping,
        "PONG" => ServerMessage::Pong,
        "-ERR" => ServerMessage::Error(rest.trim_matches('\'').to_owned()),
        "INFO" => {
            let info = serde_json::from_str(rest).map_err(|error| format!("its INFO: {error}"))?;
            ServerMessage::Info(info)
        }
        "+OK" => ServerMessage::Other,
        _ => return Err("no NATS server".to_owned()),
    };
    drop(input.split_to(end + 2));
    Ok(Some(message))
}

/// Takes a message whose first line ends at `end`.
fn take_message(
    input: &mut BytesMut,
    end: usize,
    max_payload: usize,
) -> Result<Option<ServerMessage>, String> {
    // The answer with a stored message has it in base64 (RFC 4648), which is a third longer.
    let max_total = max_payload.min(MAX_PAYLOAD).saturating_mul(2).saturating_add(AROUND);
    let malformed = || "a malformed message".to_owned();
    let line = str::from_utf8(input.get(..end).unwrap_or_default()).map_err(|_| malformed())?;
    let words: Vec<&str> = line.split_ascii_whitespace().collect();
    let number = |word: Option<&&str>| word.and_then(|word| word.parse::<usize>().ok());
    let total = number(words.last()).filter(|total| *total <= max_total).ok_or_else(malformed)?;
    let has_headers = words.first().is_some_and(|word| word.eq_ignore_ascii_case("HMSG"));
    let headers =
        if has_headers { number(words.iter().nth_back(1)).ok_or_else(malformed)? } else { 0 };
    let subject = words.get(1).ok_or_else(malformed)?.to_string();
    // Word, subject, subscription, perhaps the subject for an answer, and one or two lengths.
    let fixed = if has_headers { 5 } else { 4 };
    let reply = (words.len() > fixed).then(|| words.get(3)).flatten();
    let reply = reply.map(ToString::to_string);
    if headers > total {
        return Err(malformed());
    }
    let whole = end + 2 + total + 2;
    if input.len() < whole {
        return Ok(None);
    }
    let mut message = input.split_to(whole).freeze().split_off(end + 2);
    message.truncate(total);
    let payload = message.split_off(headers);
    Ok(Some(ServerMessage::Message { subject, reply, headers: message, payload }))
}

/// The status in headers, such as 503; `None` without one.
pub(in crate::cli) fn status(headers: &[u8]) -> Option<u32> {
    let text = str::from_utf8(headers).ok()?.strip_prefix("NATS/1.0")?;
    text.lines().next()?.split_ascii_whitespace().next()?.parse().ok()
}

/// Appends a message that JetStream takes once for each `id`, and whose acknowledgement goes to
/// `reply`.
pub(in crate::cli) fn append_message(
    out: &mut BytesMut,
    subject: &str,
    reply: &str,
    id: &str,
    payload: &[u8],
) {
    let headers = format!("{HEADERS}Nats-Msg-Id: {id}\r\n\r\n");
    let total = headers.len() + payload.len();
    let head = format!("HPUB {subject} {reply} {} {total}\r\n{headers}", headers.len());
    for part in [head.as_bytes(), payload, b"\r\n"] {
        out.extend_from_slice(part);
    }
}

/// Appends a request whose answer goes to `reply`.
pub(in crate::cli) fn append_request(
    out: &mut BytesMut,
    subject: &str,
    reply: &str,
    payload: &[u8],
) {
    let head = format!("PUB {subject} {reply} {}\r\n", payload.len());
    for part in [head.as_bytes(), payload, b"\r\n"] {
        out.extend_from_slice(part);
    }
}

/// A name as a token of a subject: dots, blanks and wildcards as percent signs and two digits
/// (RFC 3986, 2.1).
pub(in crate::cli) fn token(name: &str) -> String {
    let mut token = String::with_capacity(name.len());
    for byte in name.bytes() {
        if byte.is_ascii_graphic() && !b".*>%$".contains(&byte) {
            token.push(char::from(byte));
        } else {
            token.push_str(&format!("%{byte:02X}"));
        }
    }
    token
}

/// The name that a token of a subject stands for.
pub(in crate::cli) fn name_of(token: &str) -> String {
    let mut name = Vec::with_capacity(token.len());
    let mut rest = token.as_bytes();
    while let Some((first, after)) = rest.split_first() {
        let digits = after.get(..2).and_then(|two| str::from_utf8(two).ok());
        let byte = digits.and_then(|two| u8::from_str_radix(two, 16).ok());
        match byte.filter(|_| *first == b'%') {
            Some(byte) => {
                name.push(byte);
                rest = after.get(2..).unwrap_or_default();
            }
            None => {
                name.push(*first);
                rest = after;
            }
        }
    }
    String::from_utf8_lossy(&name).into_owned()
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn take_of(bytes: &[u8]) -> Result<Option<ServerMessage>, String> {
        take(&mut BytesMut::from(bytes), 1 << 20)
    }

    #[test]
    fn messages_of_a_server_are_read() {
        let info =
            take_of(b"INFO {\"max_payload\":1000,\"headers\":true,\"jetstream\":true,\"x\":1}\r\n");
        let Ok(Some(ServerMessage::Info(info))) = info else { panic!("{info:?}") };
        assert_eq!((info.max_payload, info.headers, info.tls_required), (1000, true, false));
        assert_eq!(take_of(b"PING\r\n"), Ok(Some(ServerMessage::Ping)));
        assert_eq!(take_of(b"PING\r"), Ok(None));
        let error = ServerMessage::Error("Authorization Violation".to_owned());
        assert_eq!(take_of(b"-ERR 'Authorization Violation'\r\n"), Ok(Some(error)));
        let message = |headers: &'static [u8], payload: &'static [u8]| ServerMessage::Message {
            subject: "_I.1".to_owned(),
            reply: None,
            headers: Bytes::from_static(headers),
            payload: Bytes::from_static(payload),
        };
        assert_eq!(take_of(b"MSG _I.1 9 5\r\nhello\r\n"), Ok(Some(message(b"", b"hello"))));
        let Ok(Some(ServerMessage::Message { reply, payload, .. })) =
            take_of(b"MSG _I.1 9 reply 5\r\nhello\r\n")
        else {
            panic!("no message");
        };
        assert_eq!((reply.as_deref(), &payload[..]), (Some("reply"), &b"hello"[..]));
        assert_eq!(take_of(b"MSG _I.1 9 5\r\nhello\r"), Ok(None));
        let answer = take_of(b"HMSG _I.1 9 16 16\r\nNATS/1.0 503\r\n\r\n\r\n");
        assert_eq!(answer, Ok(Some(message(b"NATS/1.0 503\r\n\r\n", b""))));
        assert_eq!(status(b"NATS/1.0 503\r\n\r\n"), Some(503));
        assert_eq!(status(b"NATS/1.0\r\nA: b\r\n\r\n"), None);
        for wrong in [
            &b"HTTP/1.1 400\r\n"[..],
            b"MSG\r\n",
            b"MSG _I.1 9 x\r\n",
            b"MSG _I.1 9 99999999\r\n",
            b"HMSG _I.1 9 6 5\r\n",
            b"INFO [\r\n",
            b"\xff\r\n",
        ] {
            assert!(take_of(wrong).is_err(), "{wrong:?}");
        }
        assert!(take_of(&vec![b'x'; MAX_LINE + 1]).is_err());
    }

    #[test]
    fn messages_have_an_id() {
        let mut out = BytesMut::new();
        append_message(&mut out, "pcapfs.a.web.http", "_I.1", "x.1", b"{}");
        let headers = "NATS/1.0\r\nNats-Msg-Id: x.1\r\n\r\n";
        let expected = format!(
            "HPUB pcapfs.a.web.http _I.1 {} {}\r\n{headers}{{}}\r\n",
            headers.len(),
            headers.len() + 2
        );
        assert_eq!(out, expected.as_bytes());
        assert_eq!(token("db-1.example.org"), "db-1%2Eexample%2Eorg");
        assert_eq!(token("a b*>%\u{e4}"), "a%20b%2A%3E%25%C3%A4");
        for name in ["db-1.example.org", "a b*>%\u{e4}", "100%", "%zz"] {
            assert_eq!(name_of(&token(name)), name);
        }
        assert_eq!(name_of("%4"), "%4");
    }

    proptest! {
        #[test]
        fn nonsense_ends_in_an_error_or_waits(wire in proptest::collection::vec(any::<u8>(), 0..200)) {
            let mut input = BytesMut::from(&wire[..]);
            while let Ok(Some(_)) = take(&mut input, 1 << 20) {}
        }
    }
}
