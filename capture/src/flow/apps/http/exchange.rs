//! A transaction as a flow keeps it: places and times, no text.
//!
//! Heads are read from the ring again when a reader asks for them. Values that cannot be found
//! again after packets are overwritten are kept: names of body files, sizes, and the lengths of
//! lines that were shown. So files stay the same.

use std::borrow::Cow;
use std::ops::Range;
use std::sync::Arc;

use protocol::http::body::framed::{Body, Framing};
use protocol::http::body::{BodyPiece, DecodingNote, Streams};
use protocol::http::direction::MessageRole;
use protocol::http::head::Head;
use protocol::http::names;
use protocol::http::parser::ParserLimits;
use protocol::http::record::BodyRecord;
use protocol::http::transaction::{HttpMessage, HttpTransaction, TransactionState};
use protocol::http::transcript::{self, TransactionProgress};
use protocol::tcp;
use protocol::time::Timestamp;

/// A message without its text.
#[derive(Clone, Debug)]
pub(in crate::flow) struct StoredMessage {
    has_head: bool,
    head: Range<u64>,
    trailer: Option<Range<u64>>,
    first: Timestamp,
    last: Timestamp,
    framing: Framing,
    is_ended: bool,
    ranges: Box<[Range<u64>]>,
    holes: Box<[Range<u64>]>,
    codings: Box<[Box<str>]>,
    /// Name of the body's file; empty if it has none.
    pub(in crate::flow) file: Box<str>,
    /// Bytes of the body when decoded.
    pub(in crate::flow) decoded: u64,
    /// The note about it in the line of `http.jsonl`.
    pub(in crate::flow) note: Option<DecodingNote>,
    /// Whether the file has the body's bytes exactly as they are in the stream.
    pub(in crate::flow) is_plain: bool,
}

/// A transaction that has ended.
#[derive(Clone, Debug)]
pub(in crate::flow) struct Exchange {
    pub(in crate::flow) index: u64,
    pub(in crate::flow) request: Option<Box<StoredMessage>>,
    pub(in crate::flow) response: Option<Box<StoredMessage>>,
    interim: Box<[Range<u64>]>,
    pub(in crate::flow) state: TransactionState,
    why: Option<Cow<'static, str>>,
    remark: Option<&'static str>,
    switched: bool,
    /// Bytes of its line in `http.jsonl`.
    pub(in crate::flow) line: u32,
    /// Bytes of its part of the transcript; `None` until a reader asks for it.
    pub(in crate::flow) transcript: Option<u32>,
}

impl StoredMessage {
    fn new(
        transaction: &HttpTransaction,
        direction: MessageRole,
        (decoded, note): (u64, Option<DecodingNote>),
    ) -> Option<Box<Self>> {
        let message = transaction.message(direction)?;
        let body = &message.body;
        let file = if body.wire_bytes() > 0 {
            names::body_file(transaction, direction).into_boxed_str()
        } else {
            Box::default()
        };
        Some(Box::new(Self {
            has_head: message.head.is_some(),
            head: message.head_range.clone(),
            trailer: message.trailer.clone(),
            first: message.first,
            last: message.last,
            framing: body.framing,
            is_ended: body.ended,
            ranges: body.ranges.clone().into_boxed_slice(),
            holes: body.holes.clone().into_boxed_slice(),
            codings: body.codings.iter().map(|name| name.as_str().into()).collect(),
            file,
            decoded,
            note,
            is_plain: !body.is_decoded() || note.is_some_and(DecodingNote::leaves_as_sent),
        }))
    }

    /// The time of its last byte.
    pub(in crate::flow) fn last(&self) -> Timestamp {
        self.last
    }

    /// Bytes of the body's file, and how many of them were captured. Bytes that the store has
    /// dropped since count as captured; a decoded body has no holes.
    pub(in crate::flow) fn size(&self) -> (u64, u64) {
        let len = |hole: &Range<u64>| hole.end.saturating_sub(hole.start);
        let holes = if self.is_plain { self.holes.iter().map(len).sum() } else { 0 };
        (self.decoded, self.decoded.saturating_sub(holes))
    }

    /// The effort to decode the body: bytes that go in plus bytes that come out.
    pub(in crate::flow) fn effort(&self) -> u64 {
        let len = |range: &Range<u64>| range.end.saturating_sub(range.start);
        let sent = self.ranges.iter().map(len).sum::<u64>();
        // With several codings, the data between them may be much larger than both.
        if self.codings.len() > 1 { u64::MAX } else { sent.saturating_add(self.decoded) }
    }

    /// The ranges of the stream that hold its body.
    pub(in crate::flow) fn ranges(&self) -> &[Range<u64>] {
        &self.ranges
    }

    fn message(&self, direction: MessageRole, streams: &dyn Streams) -> HttpMessage {
        let head = self.has_head.then(|| read_head(direction, self.head.clone(), streams));
        HttpMessage {
            head: head.flatten(),
            head_range: self.head.clone(),
            body: Body {
                framing: self.framing,
                ranges: self.ranges.to_vec(),
                holes: self.holes.to_vec(),
                ended: self.is_ended,
                codings: self.codings.iter().map(|name| String::from(&**name)).collect(),
                as_sent: self.note == Some(DecodingNote::Busy),
            },
            trailer: self.trailer.clone(),
            first: self.first,
            last: self.last,
        }
    }

    fn memory(&self) -> usize {
        let ranges = self.ranges.len().saturating_add(self.holes.len());
        let codings = self.codings.iter().map(|name| name.len().saturating_add(32)).sum::<usize>();
        size_of::<Self>()
            .saturating_add(ranges.saturating_mul(16))
            .saturating_add(codings)
            .saturating_add(self.file.len())
    }
}

/// Parses a head again; `None` if its bytes are gone.
fn read_head(direction: MessageRole, range: Range<u64>, streams: &dyn Streams) -> Option<Head> {
    let limits = ParserLimits::default();
    let mut bytes = Vec::new();
    let mut is_whole = true;
    streams.read(direction, range, &mut |piece| match piece {
        BodyPiece::Bytes(part) => bytes.extend_from_slice(part),
        BodyPiece::Hole(_) => is_whole = false,
    });
    if !is_whole {
        return None;
    }
    Head::parse(direction == MessageRole::Response, &bytes, limits.headers)
}

impl Exchange {
    /// Keeps a transaction. `bodies` are its bodies as they were measured, request first, and
    /// `line` is the length in bytes of its line in `http.jsonl`.
    pub(in crate::flow) fn new(
        transaction: &HttpTransaction,
        bodies: &[BodyRecord; 2],
        line: usize,
    ) -> Self {
        let [request, response] =
            bodies.each_ref().map(|body| (body.bytes.unwrap_or(body.wire_bytes), body.note));
        Self {
            index: transaction.index,
            request: StoredMessage::new(transaction, MessageRole::Request, request),
            response: StoredMessage::new(transaction, MessageRole::Response, response),
            interim: transaction.interim.clone().into_boxed_slice(),
            state: transaction.state,
            why: transaction.why.clone(),
            remark: transaction.remark,
            switched: transaction.switched,
            line: u32::try_from(line).unwrap_or(u32::MAX),
            transcript: None,
        }
    }

    /// Bytes of both decoded bodies.
    pub(in crate::flow) fn decoded(&self) -> u64 {
        let parts = [&self.request, &self.response].into_iter().flatten();
        parts.map(|part| part.decoded).sum()
    }

    /// The effort to make a text of both messages: their heads, and their bodies, see
    /// [`StoredMessage::effort`].
    fn effort(&self) -> u64 {
        let parts = [&self.request, &self.response].into_iter().flatten();
        parts.fold(HEADS, |sum, part| {
            let head = part.head.end.saturating_sub(part.head.start);
            sum.saturating_add(head).saturating_add(part.effort())
        })
    }

    /// The message that went in `direction`.
    pub(in crate::flow) fn part(&self, direction: MessageRole) -> Option<&StoredMessage> {
        match direction {
            MessageRole::Request => self.request.as_deref(),
            MessageRole::Response => self.response.as_deref(),
        }
    }

    /// The time of its last byte.
    pub(in crate::flow) fn last(&self) -> Option<Timestamp> {
        let parts = [&self.request, &self.response];
        parts.into_iter().flatten().map(|part| part.last).max()
    }

    /// The original transaction. Its heads are read again; a head whose bytes are gone is `None`.
    pub(in crate::flow) fn transaction(&self, streams: &dyn Streams) -> HttpTransaction {
        let message = |direction| self.part(direction).map(|part| part.message(direction, streams));
        HttpTransaction {
            index: self.index,
            request: message(MessageRole::Request),
            response: message(MessageRole::Response),
            interim: self.interim.to_vec(),
            state: self.state,
            why: self.why.clone(),
            remark: self.remark,
            switched: self.switched,
        }
    }

    /// Bytes of memory on the heap; an estimate.
    pub(in crate::flow) fn memory(&self) -> usize {
        let parts = [&self.request, &self.response];
        let parts = parts.into_iter().flatten().map(|part| part.memory()).sum::<usize>();
        parts.saturating_add(self.interim.len().saturating_mul(16))
    }
}

/// The effort to make a text of a transaction besides its heads and bodies, in bytes of a body.
pub(in crate::flow) const HEADS: u64 = 4 << 10;

/// More than the parser's limit on transactions under way at a time.
const PENDING: usize = 512;

/// The HTTP of a flow.
#[derive(Debug)]
pub(in crate::flow) struct HttpExchanges {
    /// The direction of requests.
    pub(in crate::flow) request: tcp::Direction,
    /// Ended transactions, in the order in which they ended.
    pub(in crate::flow) exchanges: Vec<Exchange>,
    /// Number of these that are not complete.
    pub(in crate::flow) incomplete: u64,
    /// The highest index among them.
    newest: u64,
    /// The effort to make texts of all of them.
    pub(in crate::flow) effort: u64,
    /// Heap memory of `exchanges`.
    pub(in crate::flow) memory: usize,
    /// Transactions that have ended and are not in `exchanges` yet.
    pub(in crate::flow) transit: Vec<Arc<HttpTransaction>>,
    /// The shown parts of the last transaction in the transcript, when the transcript was last
    /// asked for.
    pub(in crate::flow) shown: Option<Box<ShownTranscript>>,
}

/// The lengths of the parts of a transcript that were shown before the transaction ended. The parts
/// keep their length and their place, even when their bytes are gone.
#[derive(Clone, Debug)]
pub(in crate::flow) struct ShownTranscript {
    pub(in crate::flow) index: u64,
    pub(in crate::flow) parts: Vec<(transcript::TranscriptPart, u32)>,
}

/// Maximum number of parts of one body; above it, the first two are merged.
const TEXT_PARTS: usize = 16;

impl ShownTranscript {
    /// Bytes of all parts.
    pub(in crate::flow) fn len(&self) -> u64 {
        self.parts.iter().map(|(_, len)| u64::from(*len)).sum()
    }

    /// Adds a part whose text has `len` bytes.
    pub(in crate::flow) fn push(&mut self, part: transcript::TranscriptPart, len: u32) {
        use transcript::TranscriptPart::Text;
        self.parts.push((part, len));
        let Text(direction, ..) = part else { return };
        let is_text =
            |part: &transcript::TranscriptPart| matches!(part, Text(of, ..) if *of == direction);
        let texts = self.parts.iter().filter(|(part, _)| is_text(part)).count();
        let first = self.parts.iter().position(|(part, _)| is_text(part));
        if let (true, Some(first)) = (texts > TEXT_PARTS, first)
            && let [(Text(_, _, bytes), len), (Text(_, _, more), with), ..] =
                self.parts.get_mut(first..).unwrap_or_default()
        {
            *bytes = bytes.saturating_add(*more);
            *len = len.saturating_add(*with);
            self.parts.remove(first.saturating_add(1));
        }
    }
}

/// A transaction, ended or not.
#[derive(Clone, Copy, Debug)]
pub(in crate::flow) enum TransactionView<'a> {
    /// It has ended, and its record is complete.
    Ended(&'a Exchange),
    /// It is under way, or ended a moment ago.
    UnderWay(&'a HttpTransaction, TransactionProgress),
}

impl TransactionView<'_> {
    /// Its number in the flow.
    pub(in crate::flow) fn index(&self) -> u64 {
        match self {
            Self::Ended(exchange) => exchange.index,
            Self::UnderWay(transaction, _) => transaction.index,
        }
    }

    /// The time of the last byte of a message, so far.
    pub(in crate::flow) fn last(&self, direction: MessageRole) -> Option<Timestamp> {
        match self {
            Self::Ended(exchange) => exchange.part(direction).map(StoredMessage::last),
            Self::UnderWay(transaction, _) => transaction.message(direction).map(|one| one.last),
        }
    }

    /// Bytes of the file of a body, and how many of them were captured; `None` if it has no file.
    pub(in crate::flow) fn size(&self, direction: MessageRole) -> Option<(u64, u64)> {
        self.file(direction)?;
        match self {
            Self::Ended(exchange) => exchange.part(direction).map(StoredMessage::size),
            Self::UnderWay(transaction, _) => {
                let body = &transaction.message(direction)?.body;
                let bytes = body.wire_bytes();
                Some((bytes, bytes.saturating_sub(body.missing())))
            }
        }
    }

    /// The name of the file of a body, if it has one. A body with codings has no file before its
    /// end, because its decoded length is not known.
    pub(in crate::flow) fn file(&self, direction: MessageRole) -> Option<Cow<'_, str>> {
        match self {
            Self::Ended(exchange) => {
                let part = exchange.part(direction).filter(|part| !part.file.is_empty())?;
                Some(Cow::Borrowed(&part.file))
            }
            Self::UnderWay(transaction, _) => {
                let body = &transaction.message(direction)?.body;
                (body.wire_bytes() > 0 && !body.is_decoded())
                    .then(|| Cow::Owned(names::body_file(transaction, direction)))
            }
        }
    }
}

impl HttpExchanges {
    /// No transactions yet.
    pub(in crate::flow) fn new(request: tcp::Direction) -> Self {
        Self {
            request,
            exchanges: Vec::new(),
            incomplete: 0,
            newest: 0,
            effort: 0,
            memory: 0,
            transit: Vec::new(),
            shown: None,
        }
    }

    /// Adds a transaction that has ended.
    pub(in crate::flow) fn push(&mut self, exchange: Exchange) {
        if exchange.state != TransactionState::Complete {
            self.incomplete = self.incomplete.saturating_add(1);
        }
        self.memory = self.memory.saturating_add(exchange.memory());
        self.newest = self.newest.max(exchange.index);
        self.effort = self.effort.saturating_add(exchange.effort());
        self.transit.retain(|transaction| transaction.index != exchange.index);
        if self.transit.is_empty() {
            self.transit = Vec::new();
        }
        self.exchanges.push(exchange);
    }

    /// Has readers see what has become of a transaction on its way to the recorder.
    pub(in crate::flow) fn replace_in_transit(&mut self, transaction: &Arc<HttpTransaction>) {
        let same = self.transit.iter_mut().find(|one| one.index == transaction.index);
        if let Some(same) = same {
            *same = Arc::clone(transaction);
        }
    }

    /// The transaction with this index, if it has ended.
    pub(in crate::flow) fn exchange(&self, index: u64) -> Option<&Exchange> {
        self.exchanges.get(self.place(index)?)
    }

    /// Its place among the ended transactions.
    fn place(&self, index: u64) -> Option<usize> {
        if index == 0 || index > self.newest {
            return None;
        }
        // Transactions end nearly in the order in which they begin: no more than `PENDING` are
        // under way.
        let near = usize::try_from(index.saturating_sub(1)).ok()?;
        match self.exchanges.get(near) {
            Some(exchange) if exchange.index == index => return Some(near),
            _ => {}
        }
        let from = near.saturating_sub(PENDING).min(self.exchanges.len());
        let to = near.saturating_add(PENDING).min(self.exchanges.len());
        let at = self.exchanges.get(from..to)?.iter().position(|exchange| exchange.index == index);
        at.and_then(|at| at.checked_add(from))
    }

    /// The transaction with this index, to change, if it has ended.
    pub(in crate::flow) fn exchange_mut(&mut self, index: u64) -> Option<&mut Exchange> {
        let at = self.place(index)?;
        self.exchanges.get_mut(at)
    }

    /// All transactions from an index on, in the order in which they began. `under_way` are the
    /// transactions that have not ended.
    pub(in crate::flow) fn from<'a>(
        &'a self,
        index: u64,
        under_way: impl Iterator<Item = (&'a HttpTransaction, TransactionProgress)>,
    ) -> impl Iterator<Item = TransactionView<'a>> {
        let ended = TransactionProgress::UnderWay { request: true, response: true };
        let transit = self.transit.iter().map(|transaction| (&**transaction, ended));
        let mut others: Vec<_> = transit.chain(under_way).collect();
        others.sort_unstable_by_key(|(transaction, _)| transaction.index);
        let last = others.last().map_or(0, |(transaction, _)| transaction.index);
        (index.max(1)..=self.newest.max(last)).filter_map(move |index| {
            let other = others.binary_search_by_key(&index, |(transaction, _)| transaction.index);
            match other.ok().and_then(|at| others.get(at)) {
                Some((transaction, progress)) => {
                    Some(TransactionView::UnderWay(transaction, *progress))
                }
                None => self.exchange(index).map(TransactionView::Ended),
            }
        })
    }

    /// Bytes of memory; an estimate.
    pub(in crate::flow) fn memory(&self) -> usize {
        let table = self.exchanges.capacity().saturating_mul(size_of::<Exchange>());
        let transit = self.transit.capacity().saturating_mul(size_of::<Arc<HttpTransaction>>());
        let shown = self.shown.as_ref().map_or(0, |shown| shown.parts.capacity());
        let shown = shown.saturating_mul(size_of::<(transcript::TranscriptPart, u32)>());
        let own = size_of::<Self>().saturating_add(transit).saturating_add(shown);
        self.memory.saturating_add(table).saturating_add(own)
    }
}
