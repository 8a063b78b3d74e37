//! Start lines and headers: first read strictly, then as browsers read real servers.
//!
//! The lax parser differs from RFC 9112 as follows. Lines end with LF, CRLF, or with a bare CR if a
//! header follows. A line of blanks only ends a head if no header follows. Lines without a colon
//! are left out. A continuation line belongs to the line before, even to the start line. NULs and
//! blanks around names and values are ignored where their meaning matters. Start lines are split at
//! any control character. The reason, the status and the version may be missing or wrong.

mod read;
mod scan;

use scan::is_token;

pub(super) use scan::{Scan, begins_header};

/// Start line and headers of a message.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Head {
    /// The start line.
    pub start: StartLine,
    /// Names and values in order, including duplicates. Bytes that are not UTF-8 are read as
    /// Latin-1.
    pub headers: Vec<(String, String)>,
    /// Only the lax parser could read it.
    pub lax: bool,
    /// Number of headers left out because there were more than allowed.
    pub headers_dropped: usize,
    /// Of a response: text folded into another header's value that reads like a header. Some
    /// clients use it as one.
    hints: Vec<(String, String)>,
}

/// The first line of a head.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum StartLine {
    /// `GET /index.html HTTP/1.1`
    Request {
        /// As sent.
        method: String,
        /// As sent.
        target: String,
        /// `HTTP/1.1`; `None` for a request line that ends after the target (HTTP/0.9).
        version: Option<String>,
    },
    /// `HTTP/1.1 200 OK`
    Response {
        /// As sent.
        version: String,
        /// `None` if the line has no number in the place of the status.
        status: Option<u16>,
        /// `None` if the line ends after the status. Bytes are read as in headers.
        reason: Option<String>,
    },
}

/// The end of a body, as announced by the headers.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(super) struct Announced {
    /// It has a coding that reads as chunked, or nearly so.
    pub(super) chunked: bool,
    pub(super) length: Length,
}

/// The combination of all `Content-Length` headers.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(super) enum Length {
    #[default]
    None,
    /// One number, perhaps repeated.
    Exact(u64),
    /// Several numbers, or a number and other text. This is the first number.
    Doubtful(u64),
}

/// Heap bytes of an allocation of `bytes` bytes.
const fn block(bytes: usize) -> usize {
    match bytes {
        0 => 0,
        1..=24 => 32,
        bytes => bytes.saturating_add(23) & !15,
    }
}

impl Head {
    /// Reads a head including its empty line. `None` if its first line is not a start line.
    pub fn parse(response: bool, bytes: &[u8], max_headers: usize) -> Option<Self> {
        read::strict(response, bytes, max_headers)
            .or_else(|| read::lax(response, bytes, max_headers))
    }

    /// Heap memory in bytes, including the allocator's own.
    pub fn memory(&self) -> usize {
        let pairs = self.headers.iter().chain(&self.hints);
        let pairs = pairs
            .map(|(name, value)| block(name.capacity()).saturating_add(block(value.capacity())));
        let lists = self.headers.capacity().saturating_add(self.hints.capacity());
        let lists = lists.saturating_mul(size_of::<(String, String)>());
        let start = match &self.start {
            StartLine::Request { method, target, version } => block(method.capacity())
                .saturating_add(block(target.capacity()))
                .saturating_add(version.as_ref().map_or(0, |version| block(version.capacity()))),
            StartLine::Response { version, reason, .. } => block(version.capacity())
                .saturating_add(reason.as_ref().map_or(0, |reason| block(reason.capacity()))),
        };
        pairs.fold(start.saturating_add(lists), usize::saturating_add)
    }

    /// The method of a request.
    #[must_use]
    pub fn method(&self) -> Option<&str> {
        match &self.start {
            StartLine::Request { method, .. } => Some(method),
            StartLine::Response { .. } => None,
        }
    }

    /// The target of a request.
    #[must_use]
    pub fn target(&self) -> Option<&str> {
        match &self.start {
            StartLine::Request { target, .. } => Some(target),
            StartLine::Response { .. } => None,
        }
    }

    /// The status of a response, if it has one.
    #[must_use]
    pub fn status(&self) -> Option<u16> {
        match &self.start {
            StartLine::Request { .. } => None,
            StartLine::Response { status, .. } => *status,
        }
    }

    /// `HTTP/1.1`, as sent.
    #[must_use]
    pub fn version(&self) -> Option<&str> {
        match &self.start {
            StartLine::Request { version, .. } => version.as_deref(),
            StartLine::Response { version, .. } => Some(version),
        }
    }

    /// The first value of a header; `name` in lower case.
    #[must_use]
    pub fn value(&self, name: &str) -> Option<&str> {
        self.headers.iter().find(|(one, _)| same(one, name)).map(|(_, value)| value.as_str())
    }

    /// Every value of a header; `name` in lower case.
    pub fn values<'a>(&'a self, name: &'a str) -> impl Iterator<Item = &'a str> {
        self.headers.iter().filter(move |(one, _)| same(one, name)).map(|(_, value)| value.as_str())
    }

    fn values_and_hints<'a>(&'a self, name: &'a str) -> impl Iterator<Item = &'a str> {
        let hints = self.hints.iter().filter(move |(one, _)| same(one, name));
        self.values(name).chain(hints.map(|(_, value)| value.as_str()))
    }

    /// The part of `Content-Type` before any parameter, in lower case.
    #[must_use]
    pub fn media_type(&self) -> Option<String> {
        let value = self.value("content-type")?.split([';', ',']).next()?.trim();
        (!value.is_empty()).then(|| value.to_ascii_lowercase())
    }

    /// Returns `true` if `Connection` announces that the connection ends with this message.
    pub(super) fn closes(&self) -> bool {
        let mut close = false;
        let mut keep = false;
        for token in self.values("connection").flat_map(tokens) {
            close |= token == "close";
            keep |= token == "keep-alive";
        }
        close || (!keep && self.version().is_none_or(|version| !version.ends_with("1.1")))
    }

    /// Returns `true` if the client waits for permission before it sends the body.
    pub(super) fn asks_first(&self) -> bool {
        self.values("expect").flat_map(tokens).any(|token| token == "100-continue")
    }

    pub(super) fn has(&self, name: &str) -> bool {
        self.value(name).is_some()
    }

    /// How the announcement of the body's end is ambiguous: programs read it in different ways.
    pub(super) fn oddity(&self) -> Option<&'static str> {
        let is_length = |(name, _): &&(String, String)| same(name, "content-length");
        let is_transfer = |(name, _): &&(String, String)| same(name, "transfer-encoding");
        let mut lengths = self.headers.iter().filter(is_length);
        let mut transfers = self.headers.iter().chain(&self.hints).filter(is_transfer).peekable();
        if transfers.peek().is_some() && lengths.clone().next().is_some() {
            return Some("both Transfer-Encoding and Content-Length say where the body ends");
        }
        if self.announced().chunked {
            let is_plain = self.hints.iter().all(|(name, _)| !same(name, "transfer-encoding"))
                && transfers.clone().all(|(name, _)| name.bytes().all(is_token));
            let mut words = transfers.flat_map(|(_, value)| value.split(',')).map(str::trim);
            let is_last = words.by_ref().find(|word| word.to_ascii_lowercase().contains("chunked"));
            let is_exact = is_last.is_some_and(|word| word.eq_ignore_ascii_case("chunked"));
            if !is_plain || !is_exact || words.any(|word| !word.is_empty()) {
                return Some("Transfer-Encoding is read as chunked, which it does not quite say");
            }
        }
        let is_number = |value: &str| {
            value.bytes().all(|byte| byte.is_ascii_digit() || matches!(byte, b' ' | b'\t' | b','))
        };
        if lengths.any(|(name, value)| !name.bytes().all(is_token) || !is_number(value)) {
            return Some("Content-Length has characters that belong in no length");
        }
        None
    }

    /// Returns `true` if `Content-Length` is present, but contains no length.
    pub(super) fn has_no_length(&self) -> bool {
        self.has("content-length") && self.announced().length == Length::None
    }

    pub(super) fn announced(&self) -> Announced {
        let mut announced = Announced::default();
        for token in self.values_and_hints("transfer-encoding").flat_map(tokens) {
            announced.chunked |= token.contains("chunked");
        }
        for value in self.values("content-length") {
            for part in value.split(',') {
                announced.length = announced.length.and(part);
            }
        }
        announced
    }

    /// The last `limit` codings of the body, in the order in which they were applied: content
    /// codings, then transfer codings. The last ones are undone first.
    pub(super) fn codings(&self, limit: usize) -> Vec<String> {
        let content = self.values_and_hints("content-encoding").flat_map(tokens);
        let transfer = self.values_and_hints("transfer-encoding").flat_map(tokens);
        let transfer = transfer.filter(|token| super::body::Coding::named(token).is_some());
        let mut codings: Vec<_> = content.chain(transfer).collect();
        codings.drain(..codings.len().saturating_sub(limit));
        codings
    }
}

impl Length {
    fn and(self, text: &str) -> Self {
        let text = text.trim_matches(|c: char| c.is_ascii_whitespace() || c.is_ascii_control());
        let digits: String = text.chars().take_while(char::is_ascii_digit).collect();
        let exact = digits.len() == text.len();
        match (self, digits.parse::<u64>()) {
            (Self::None, Ok(number)) if exact => Self::Exact(number),
            (Self::Exact(before), Ok(number)) if exact && before == number => self,
            // `68,` and a header without a value.
            (_, Err(_)) if text.is_empty() => self,
            (Self::None, Ok(number)) => Self::Doubtful(number),
            (Self::None, Err(_)) => self,
            (Self::Exact(before) | Self::Doubtful(before), _) => Self::Doubtful(before),
        }
    }
}

/// Compares names without case, and ignores NULs and other characters that are not part of a name.
fn same(sent: &str, name: &str) -> bool {
    let sent = sent.bytes().filter(|byte| byte.is_ascii_graphic() && *byte != b':');
    sent.map(|byte| byte.to_ascii_lowercase()).eq(name.bytes())
}

/// The words of a list, in lower case, with any separators. NULs inside of words are removed.
fn tokens(value: &str) -> Vec<String> {
    let value = value.replace('\0', "").to_ascii_lowercase();
    let words = value.split(|c: char| !(c.is_ascii_alphanumeric() || c == '-' || c == '_'));
    words.filter(|word| !word.is_empty()).map(str::to_owned).collect()
}

/// Reads UTF-8 if it is valid, otherwise Latin-1, so that every byte is visible.
pub(super) fn text(bytes: &[u8]) -> String {
    match std::str::from_utf8(bytes) {
        Ok(text) => text.to_owned(),
        Err(_) => bytes.iter().copied().map(char::from).collect(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn response(bytes: &[u8]) -> Head {
        Head::parse(true, bytes, 100).unwrap()
    }

    #[test]
    fn lengths_and_chunked_of_all_kinds() {
        for (lines, chunked, length) in [
            ("Content-Length: 5", false, Length::Exact(5)),
            ("Content-Length: 5\r\nContent-Length: 5", false, Length::Exact(5)),
            ("Content-Length: 5, 5", false, Length::Exact(5)),
            ("Content-Length: 5,", false, Length::Exact(5)),
            ("Content-Length: 5\r\nContent-Length: 6", false, Length::Doubtful(5)),
            ("Content-Length: 5A", false, Length::Doubtful(5)),
            ("Content-Length: -5", false, Length::None),
            ("Content-Length: 99999999999999999999999", false, Length::None),
            ("Transfer-Encoding: Chunked", true, Length::None),
            ("Transfer-Encoding: gzip, chunked", true, Length::None),
            ("Transfer-Encoding: x-chunked\r\nContent-Length: 3", true, Length::Exact(3)),
            ("Transfer-Encoding:: chu\0nked", true, Length::None),
            ("Transfer\0-Encoding: ;chunked", true, Length::None),
            ("A: b\r\n Transfer-Encoding: chunked", true, Length::None),
            ("Transfer-Encoding: identity", false, Length::None),
        ] {
            let head = response(format!("HTTP/1.1 200 OK\r\n{lines}\r\n\r\n").as_bytes());
            assert_eq!(head.announced(), Announced { chunked, length }, "{lines:?}");
        }
    }

    #[test]
    fn codings_keep_the_order_of_application() {
        let head = response(
            b"HTTP/1.1 200 OK\r\nContent-Encoding: Deflate, GZIP\r\nTransfer-Encoding: gzip, \
              chunked\r\nContent-Encoding:br\r\n\r\n",
        );
        assert_eq!(head.codings(8), ["deflate", "gzip", "br", "gzip"]);
        assert_eq!(head.codings(2), ["br", "gzip"], "those to be undone first");
    }
}
