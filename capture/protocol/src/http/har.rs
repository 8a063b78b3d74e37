//! `http.har`: transactions for programs that read HAR 1.2.
//!
//! Facts without a field in HAR go into fields whose names begin with an underscore, which HAR
//! allows. HAR requires some values that the capture does not have. For those, HAR defines -1 for
//! sizes and times, the empty string for texts, and 0 for a status.

use serde::Serialize;

use super::body::{self, DecodedBody, DecodingLimits, Streams};
use super::direction::MessageRole;
use super::head::{Head, StartLine};
use super::transaction::{HttpMessage, HttpTransaction};
use crate::json;
use crate::time::Timestamp;

/// A whole file, written entry by entry: only one entry is in memory besides the text.
#[derive(Debug)]
pub struct Har {
    text: Vec<u8>,
    is_empty: bool,
}

#[derive(Debug, Serialize)]
struct Creator {
    name: &'static str,
    version: &'static str,
}

impl Har {
    /// A file without entries.
    #[must_use]
    pub fn new() -> Self {
        Self { text: Self::beginning(), is_empty: true }
    }

    /// The text before the first entry.
    #[must_use]
    pub fn beginning() -> Vec<u8> {
        let mut text = br#"{"log":{"version":"1.2","creator":"#.to_vec();
        let creator = Creator { name: "pcapfs", version: env!("CARGO_PKG_VERSION") };
        json::append(&mut text, &creator);
        text.extend_from_slice(br#","entries":["#);
        text
    }

    /// The text after the last entry.
    pub const END: &[u8] = b"]}}\n";

    /// Adds an entry.
    pub fn push(&mut self, entry: &HarEntry) {
        if !std::mem::take(&mut self.is_empty) {
            self.text.push(b',');
        }
        json::append(&mut self.text, entry);
    }

    /// Length of the text so far, in bytes.
    #[must_use]
    pub fn written(&self) -> u64 {
        self.text.len() as u64
    }

    /// The text of the file.
    #[must_use]
    pub fn into_text(mut self) -> Vec<u8> {
        self.text.extend_from_slice(Self::END);
        self.text.shrink_to_fit();
        self.text
    }
}

impl Default for Har {
    fn default() -> Self {
        Self::new()
    }
}

/// One transaction.
#[derive(Debug, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct HarEntry {
    started_date_time: String,
    time: f64,
    request: HarRequest,
    response: Response,
    cache: HarCache,
    timings: Timings,
    #[serde(rename = "serverIPAddress", skip_serializing_if = "Option::is_none")]
    server_address: Option<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    connection: Option<String>,
    #[serde(rename = "_state")]
    state: super::transaction::TransactionState,
    #[serde(skip_serializing_if = "Option::is_none")]
    comment: Option<String>,
}

#[derive(Debug, Serialize)]
struct HarCache {}

#[derive(Debug, Serialize)]
#[serde(rename_all = "camelCase")]
struct HarRequest {
    method: String,
    url: String,
    http_version: String,
    cookies: Vec<Cookie>,
    headers: Vec<Pair>,
    query_string: Vec<Pair>,
    #[serde(skip_serializing_if = "Option::is_none")]
    post_data: Option<PostData>,
    headers_size: i64,
    body_size: i64,
}

#[derive(Debug, Serialize)]
#[serde(rename_all = "camelCase")]
struct Response {
    status: u16,
    status_text: String,
    http_version: String,
    cookies: Vec<Cookie>,
    headers: Vec<Pair>,
    content: HarContent,
    #[serde(rename = "redirectURL")]
    redirect_url: String,
    headers_size: i64,
    body_size: i64,
}

#[derive(Debug, PartialEq, Serialize)]
struct Pair {
    name: String,
    value: String,
}

#[derive(Debug, PartialEq, Serialize)]
struct Cookie {
    name: String,
    value: String,
}

#[derive(Debug, Serialize)]
#[serde(rename_all = "camelCase")]
struct PostData {
    mime_type: String,
    params: Vec<Pair>,
    text: String,
    #[serde(rename = "_encoding", skip_serializing_if = "Option::is_none")]
    encoding: Option<&'static str>,
}

#[derive(Debug, Serialize)]
#[serde(rename_all = "camelCase")]
struct HarContent {
    size: i64,
    compression: i64,
    mime_type: String,
    text: String,
    #[serde(skip_serializing_if = "Option::is_none")]
    encoding: Option<&'static str>,
    #[serde(skip_serializing_if = "Option::is_none")]
    comment: Option<String>,
}

#[derive(Debug, Serialize)]
struct Timings {
    send: f64,
    wait: f64,
    receive: f64,
}

/// The address of a connection's server, for the entry.
#[derive(Clone, Debug, Default)]
pub struct Server {
    /// Its address, without a port.
    pub address: Option<String>,
    /// The host of URLs if a request does not name one: address and port.
    pub authority: Option<String>,
    /// Name of the connection.
    pub connection: Option<String>,
}

/// The entry of a transaction.
#[must_use]
pub fn entry(
    transaction: &HttpTransaction,
    server: &Server,
    streams: &dyn Streams,
    limits: &DecodingLimits,
) -> HarEntry {
    let (request, response) = (&transaction.request, &transaction.response);
    let first = request.as_ref().or(response.as_ref()).map(|message| message.first);
    let timings = timings(request.as_ref(), response.as_ref());
    HarEntry {
        started_date_time: first.unwrap_or_default().to_rfc3339(),
        time: timings.send.max(0.0) + timings.wait.max(0.0) + timings.receive.max(0.0),
        request: request_of(transaction, server, streams, limits),
        response: response_of(response.as_ref(), streams, limits),
        cache: HarCache {},
        timings,
        server_address: server.address.clone(),
        connection: server.connection.clone(),
        state: transaction.state,
        comment: transaction.why_or_remark().map(str::to_owned),
    }
}

fn milliseconds(from: Timestamp, to: Timestamp) -> f64 {
    let nanoseconds = to.nanoseconds().saturating_sub(from.nanoseconds());
    #[expect(clippy::cast_precision_loss, reason = "2^53 ns are 104 days")]
    let nanoseconds = nanoseconds as f64;
    nanoseconds / 1e6
}

fn timings(request: Option<&HttpMessage>, response: Option<&HttpMessage>) -> Timings {
    Timings {
        send: request.map_or(0.0, |one| milliseconds(one.first, one.last)),
        wait: request.zip(response).map_or(0.0, |(a, b)| milliseconds(a.last, b.first)),
        receive: response.map_or(0.0, |one| milliseconds(one.first, one.last)),
    }
}

fn size(bytes: u64) -> i64 {
    i64::try_from(bytes).unwrap_or(i64::MAX)
}

fn pairs(head: Option<&Head>) -> Vec<Pair> {
    let headers = head.map_or(&[][..], |head| &head.headers);
    headers.iter().map(|(name, value)| Pair { name: name.clone(), value: value.clone() }).collect()
}

fn cookies(head: Option<&Head>, header: &str) -> Vec<Cookie> {
    let Some(head) = head else { return Vec::new() };
    let values = head.values(header).flat_map(|value| {
        // `Set-Cookie` has attributes after its one cookie.
        value.split(';').take(if header == "cookie" { usize::MAX } else { 1 })
    });
    values
        .filter_map(|one| one.trim().split_once('='))
        .map(|(name, value)| Cookie { name: name.to_owned(), value: value.to_owned() })
        .collect()
}

fn request_of(
    transaction: &HttpTransaction,
    server: &Server,
    streams: &dyn Streams,
    limits: &DecodingLimits,
) -> HarRequest {
    let message = transaction.request.as_ref();
    let head = message.and_then(|message| message.head.as_ref());
    let url = url(transaction, server);
    let query = url.split_once('?').map_or("", |(_, query)| query);
    let query = query.split('#').next().unwrap_or_default();
    let query_string = query.split('&').filter(|pair| !pair.is_empty()).map(|pair| {
        let (name, value) = pair.split_once('=').unwrap_or((pair, ""));
        Pair { name: name.to_owned(), value: value.to_owned() }
    });
    let post_data = message.filter(|message| message.body.wire_bytes() > 0).map(|message| {
        let decoded = body::read(streams, MessageRole::Request, &message.body, limits);
        let (text, encoding) = text(decoded.bytes);
        let mime_type = content_type(head);
        PostData { mime_type, params: Vec::new(), text, encoding }
    });
    HarRequest {
        method: head.and_then(Head::method).unwrap_or_default().to_owned(),
        query_string: query_string.collect(),
        url,
        http_version: head.and_then(Head::version).unwrap_or_default().to_owned(),
        cookies: cookies(head, "cookie"),
        headers: pairs(head),
        post_data,
        headers_size: message.map_or(-1, head_size),
        body_size: message.map_or(-1, |message| size(message.body.wire_bytes())),
    }
}

fn head_size(message: &HttpMessage) -> i64 {
    size(message.head_range.end.saturating_sub(message.head_range.start))
}

fn response_of(
    message: Option<&HttpMessage>,
    streams: &dyn Streams,
    limits: &DecodingLimits,
) -> Response {
    let head = message.and_then(|message| message.head.as_ref());
    let reason = head.and_then(|head| match &head.start {
        StartLine::Response { reason, .. } => reason.clone(),
        StartLine::Request { .. } => None,
    });
    let wire = message.map_or(0, |message| message.body.wire_bytes());
    let decoded = match message {
        Some(message) if wire > 0 => {
            body::read(streams, MessageRole::Response, &message.body, limits)
        }
        _ => DecodedBody::default(),
    };
    let bytes = size(decoded.bytes.len() as u64);
    let (text, encoding) = text(decoded.bytes);
    let notes: Vec<_> = decoded.notes.iter().map(|note| note.text()).collect();
    Response {
        status: head.and_then(Head::status).unwrap_or(0),
        status_text: reason.unwrap_or_default(),
        http_version: head.and_then(Head::version).unwrap_or_default().to_owned(),
        cookies: cookies(head, "set-cookie"),
        headers: pairs(head),
        content: HarContent {
            size: bytes,
            compression: bytes.saturating_sub(size(wire)),
            mime_type: content_type(head),
            text,
            encoding,
            comment: (!notes.is_empty()).then(|| notes.join("; ")),
        },
        redirect_url: head.and_then(|head| head.value("location")).unwrap_or_default().to_owned(),
        headers_size: message.map_or(-1, head_size),
        body_size: message.map_or(-1, |_| size(wire)),
    }
}

fn content_type(head: Option<&Head>) -> String {
    head.and_then(|head| head.value("content-type")).unwrap_or_default().to_owned()
}

/// The absolute URL of a request, RFC 9112 section 3.3.
fn url(transaction: &HttpTransaction, server: &Server) -> String {
    let head = transaction.request.as_ref().and_then(|one| one.head.as_ref());
    let Some(target) = head.and_then(Head::target) else { return String::new() };
    if target.contains("://") {
        return target.to_owned();
    }
    if head.and_then(Head::method) == Some("CONNECT") {
        return format!("http://{target}");
    }
    let host = transaction.host().or(server.authority.as_deref()).unwrap_or("unknown");
    let path = if target == "*" { "" } else { target };
    let slash = if path.is_empty() || path.starts_with('/') { "" } else { "/" };
    format!("http://{host}{slash}{path}")
}

/// A body in HAR: text, or base64.
///
/// Control characters make it base64: each would become six characters of JSON.
fn text(bytes: Vec<u8>) -> (String, Option<&'static str>) {
    let is_text = |byte: &u8| *byte >= 0x20 || matches!(byte, b'\t' | b'\n' | b'\r');
    if !bytes.iter().all(is_text) || json::has_controls(&bytes) {
        return (base64(&bytes), Some("base64"));
    }
    match String::from_utf8(bytes) {
        Ok(text) => (text, None),
        Err(error) => (base64(error.as_bytes()), Some("base64")),
    }
}

/// RFC 4648 4.
fn base64(bytes: &[u8]) -> String {
    const DIGITS: &[u8; 64] = b"ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789+/";
    let mut out = String::with_capacity(bytes.len().div_ceil(3).saturating_mul(4));
    for chunk in bytes.chunks(3) {
        let byte = |at: usize| u32::from(chunk.get(at).copied().unwrap_or(0));
        let bits = byte(0) << 16 | byte(1) << 8 | byte(2);
        for (at, shift) in [18, 12, 6, 0].into_iter().enumerate() {
            let digit = DIGITS.get((bits >> shift & 63) as usize).filter(|_| at <= chunk.len());
            out.push(digit.map_or('=', |digit| char::from(*digit)));
        }
    }
    out
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn base64_as_in_rfc_4648() {
        for (bytes, text) in
            [("", ""), ("f", "Zg=="), ("fo", "Zm8="), ("foo", "Zm9v"), ("foobar", "Zm9vYmFy")]
        {
            assert_eq!(base64(bytes.as_bytes()), text);
        }
    }

    #[test]
    fn bodies_that_would_swell_as_text_are_in_base64() {
        let kind = |body: &str| text(body.as_bytes().to_vec()).1;
        for body in ["a\u{1}", "a\u{7f}", "a\u{80}", "\u{9f}"] {
            assert_eq!(kind(body), Some("base64"), "{body:?}");
        }
        for body in ["", "a\r\n\tb", "\u{a0}\u{a3}\u{e9}\u{20ac}"] {
            assert_eq!(kind(body), None, "{body:?}");
        }
    }
}
