//! Files with one text for each transaction of a flow: `http` and `http.jsonl`.
//!
//! `http.jsonl` has the ended transactions, in the order in which they ended. `http` has all
//! transactions, in the order in which they began, up to the first one under way; it shows the part
//! of that one that is certain. So both files grow at their end and nowhere else. Texts are made
//! when they are read. The length of each text is kept, so that files do not change when packets
//! are overwritten.

use protocol::http::body::DecodingLimits;
use protocol::http::transaction::HttpTransaction;
use protocol::http::transcript::{self, TransactionProgress};
use protocol::tcp::Direction;

use super::gather::FlowStreams;
use super::render;
use crate::flow::apps::http::exchange::{Exchange, ShownTranscript, TransactionView};
use crate::flow::conversation::Flow;
use crate::flow::error::FlowReadError;
use crate::flow::shared::SharedFlows;

/// The text of a transaction, or of a part of it.
#[derive(Debug)]
pub(in crate::flow) struct Text {
    /// The transaction: its index for `http`, its place among the ended ones for `http.jsonl`.
    number: u64,
    /// Offsets in the file at which the transaction begins, and at which this text begins.
    unit: u64,
    begin: u64,
    text: Vec<u8>,
}

/// The kind of text for each transaction.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(in crate::flow) enum TextKind {
    /// A part of `http`.
    Transcript,
    /// A line of `http.jsonl`.
    Line,
}

impl Text {
    /// Offset in the file at which it ends.
    fn end(&self) -> u64 {
        self.begin.saturating_add(self.text.len() as u64)
    }
}

/// A transaction whose transcript may be longer than known.
struct Unknown {
    request: Direction,
    source: TextSource,
    shown: Option<ShownTranscript>,
    /// Bytes of the file before this transaction.
    before: u64,
}

/// The transaction that a text is made from.
enum TextSource {
    Ended(Exchange),
    UnderWay(Box<HttpTransaction>, TransactionProgress),
}

impl TextSource {
    fn new(view: TransactionView<'_>) -> Self {
        match view {
            TransactionView::Ended(exchange) => Self::Ended(exchange.clone()),
            TransactionView::UnderWay(transaction, progress) => {
                Self::UnderWay(Box::new(transaction.clone()), progress)
            }
        }
    }

    fn transaction(self, streams: &FlowStreams<'_>) -> (HttpTransaction, TransactionProgress) {
        match self {
            Self::Ended(exchange) => (exchange.transaction(streams), TransactionProgress::Ended),
            Self::UnderWay(transaction, progress) => (*transaction, progress),
        }
    }
}

impl SharedFlows {
    /// Reads a file with one text for each transaction.
    pub(in crate::flow) fn read_texts(
        &self,
        id: u64,
        kind: TextKind,
        made: &mut Option<Text>,
        offset: u64,
        want: usize,
        bytes: &mut Vec<u8>,
    ) -> Result<(), FlowReadError> {
        let mut at = offset;
        while bytes.len() < want {
            let last = made.as_ref().filter(|made| made.begin <= at);
            if last.is_none_or(|made| made.end() <= at) {
                // A reader that continues does not start at the first transaction again.
                let from = made.as_ref().filter(|made| made.unit <= at);
                let from = from.map_or((0, 0), |made| (made.number, made.unit));
                *made = match kind {
                    TextKind::Transcript => self.make_transcript(id, from, at),
                    TextKind::Line => self.make_line(id, from, at),
                };
            }
            // `None` means that the flow has left the tree, and its text can no longer be made.
            let made = made.as_ref().ok_or(FlowReadError::Expired)?;
            let skip = usize::try_from(at.saturating_sub(made.begin)).unwrap_or(usize::MAX);
            let part = made.text.get(skip..).unwrap_or_default();
            let room = want.saturating_sub(bytes.len());
            let part = part.get(..room).unwrap_or(part);
            bytes.extend_from_slice(part);
            at = at.saturating_add(part.len() as u64);
        }
        Ok(())
    }

    /// Makes the line that covers `at`, starting the search at `from`: the place of a transaction,
    /// and the offset at which its line begins. `None` if the flow has left the tree, even during
    /// the call.
    fn make_line(&self, id: u64, from: (u64, u64), at: u64) -> Option<Text> {
        let (first, mut begin) = from;
        let skip = usize::try_from(first).unwrap_or(usize::MAX);
        let table = self.table.read();
        let flow = table.flow(id)?;
        let http = flow.kept.http.as_ref()?;
        for (number, exchange) in (first..).zip(http.exchanges.iter().skip(skip)) {
            let len = u64::from(exchange.line);
            let end = begin.saturating_add(len);
            if at < end {
                let (key, request, exchange) = (flow.key, http.request, exchange.clone());
                drop(table);
                let streams = FlowStreams::new(self, id, request);
                let text = fitted(render::line(&key, &exchange, &streams), len);
                let text = Text { number, unit: begin, begin, text };
                return self.has(id).then_some(text);
            }
            begin = end;
        }
        None
    }

    /// Makes the part of a transcript that covers `at`, starting the search at `from`: the index of
    /// a transaction, and the offset at which its transcript begins. `None` if the flow has left
    /// the tree, even during the call.
    fn make_transcript(&self, id: u64, from: (u64, u64), at: u64) -> Option<Text> {
        let Covering { number, unit, request, source, part, len } =
            covering(self.table.read().flow(id)?, from, at)?;
        let streams = FlowStreams::new(self, id, request);
        let (begin, text) = match (part, source) {
            (None, TextSource::Ended(exchange)) => (0, render::transcript(&exchange, &streams)),
            (Some((part, before)), source) => {
                let (transaction, _) = source.transaction(&streams);
                let text =
                    transcript::text(&transaction, part, &streams, &DecodingLimits::default());
                (before, text.into_bytes())
            }
            (None, TextSource::UnderWay(..)) => return None,
        };
        let begin = unit.saturating_add(begin);
        let text = Text { number, unit, begin, text: fitted(text, len) };
        self.has(id).then_some(text)
    }

    /// Bytes of a file with one text for each transaction; `None` if the flow has left the tree.
    pub(in crate::flow) fn measure(&self, id: u64, kind: TextKind) -> Option<u64> {
        match kind {
            TextKind::Line => {
                let table = self.table.read();
                let exchanges = &table.flow(id)?.kept.http.as_ref()?.exchanges;
                Some(exchanges.iter().map(|exchange| u64::from(exchange.line)).sum())
            }
            TextKind::Transcript => self.measure_transcript(id),
        }
    }

    /// Bytes of `http`. Texts that were never made are made now, to find their lengths.
    fn measure_transcript(&self, id: u64) -> Option<u64> {
        let mut from = (0, 0);
        loop {
            let unknown = match first_unknown(self.table.read().flow(id)?, from)? {
                Ok(len) => return Some(len),
                Err(unknown) => unknown,
            };
            let streams = FlowStreams::new(self, id, unknown.request);
            match (unknown.source, unknown.shown) {
                (TextSource::Ended(exchange), None) => {
                    let len = render::transcript(&exchange, &streams).len();
                    let len = u32::try_from(len).unwrap_or(u32::MAX);
                    self.has_transcript(id, exchange.index, len);
                    from = (exchange.index, unknown.before);
                }
                (source, shown) => {
                    let (transaction, progress) = source.transaction(&streams);
                    let before = shown.as_ref().map_or(0, |shown| shown.parts.len());
                    let known = shown.as_ref().and_then(|shown| shown.parts.last().copied());
                    let mut shown = shown.unwrap_or_else(|| ShownTranscript {
                        index: transaction.index,
                        parts: Vec::new(),
                    });
                    let is_more = show(&mut shown, &transaction, progress, &streams);
                    let len = unknown.before.saturating_add(shown.len());
                    if is_more || progress == TransactionProgress::Ended {
                        let is_ended = progress == TransactionProgress::Ended;
                        self.has_shown(id, shown, (before, known), is_ended);
                    } else {
                        return Some(len);
                    }
                    from = (transaction.index, unknown.before);
                }
            }
        }
    }

    /// Keeps the length of a transcript, unless another reader has shown a part of it since the
    /// transcript was made: then its parts decide.
    fn has_transcript(&self, id: u64, index: u64, len: u32) {
        let mut table = self.table.write();
        let Some(http) = table.flow_mut(id).and_then(|flow| flow.kept.http.as_mut()) else {
            return;
        };
        if http.shown.as_ref().is_some_and(|shown| shown.index == index) {
            return;
        }
        if let Some(exchange) = http.exchange_mut(index) {
            exchange.transcript.get_or_insert(len);
        }
    }

    /// Keeps the parts of a transcript shown so far, unless another reader has shown more of it
    /// since it had `parts` parts, the last of them `last`, or has shown all of it.
    fn has_shown(
        &self,
        id: u64,
        shown: ShownTranscript,
        (parts, last): (usize, Option<(transcript::TranscriptPart, u32)>),
        is_ended: bool,
    ) {
        let mut table = self.table.write();
        let Some(flow) = table.flow_mut(id) else { return };
        let Some(http) = &mut flow.kept.http else { return };
        let is_same = match &http.shown {
            Some(now) if now.index == shown.index => {
                (now.parts.len(), now.parts.last().copied()) == (parts, last)
            }
            Some(now) => now.index < shown.index && parts == 0,
            None => parts == 0,
        };
        let exchange = http.exchange(shown.index);
        if !is_same || exchange.is_some_and(|exchange| exchange.transcript.is_some()) {
            return;
        }
        if is_ended && let Some(exchange) = http.exchange_mut(shown.index) {
            exchange.transcript = Some(u32::try_from(shown.len()).unwrap_or(u32::MAX));
        }
        http.shown = Some(Box::new(shown));
    }
}

/// The first transaction at or after `from` whose transcript may be longer than known; `from` is
/// its index, and the bytes of the file before it. The bytes of all transactions if there is no
/// such transaction. `None` if the flow has no HTTP.
fn first_unknown(flow: &Flow, from: (u64, u64)) -> Option<Result<u64, Unknown>> {
    let http = flow.kept.http.as_ref()?;
    let (first, mut before) = from;
    for view in flow.transactions(first) {
        if let TransactionView::Ended(exchange) = view
            && let Some(len) = exchange.transcript
        {
            before = before.saturating_add(len.into());
            continue;
        }
        let shown = http.shown.as_ref().filter(|shown| shown.index == view.index());
        let shown = shown.map(|shown| (**shown).clone());
        let (request, source) = (http.request, TextSource::new(view));
        return Some(Err(Unknown { request, source, shown, before }));
    }
    Some(Ok(before))
}

/// Adds the parts of a transcript that are certain by now. Returns whether any was added.
fn show(
    shown: &mut ShownTranscript,
    transaction: &HttpTransaction,
    progress: TransactionProgress,
    streams: &FlowStreams<'_>,
) -> bool {
    let mut is_more = false;
    loop {
        let last = shown.parts.last().map(|(part, _)| *part);
        let Some(part) = transcript::next(transaction, progress, last, streams) else { break };
        let len = transcript::text(transaction, part, streams, &DecodingLimits::default()).len();
        shown.push(part, u32::try_from(len).unwrap_or(u32::MAX));
        is_more = true;
    }
    is_more
}

/// The part of a transcript that covers an offset in the file.
struct Covering {
    /// Index of the transaction, and the offset in the file at which its transcript begins.
    number: u64,
    unit: u64,
    request: Direction,
    source: TextSource,
    /// The part, and the bytes of the transcript before it; `None` for the whole transcript.
    part: Option<(transcript::TranscriptPart, u64)>,
    /// Bytes of the part, or of the whole transcript.
    len: u64,
}

/// Finds the transaction, and the part of it, that covers `at`; starts the search at `from`.
fn covering(flow: &Flow, from: (u64, u64), at: u64) -> Option<Covering> {
    let http = flow.kept.http.as_ref()?;
    let (first, mut unit) = from;
    for view in flow.transactions(first) {
        let shown = http.shown.as_ref().filter(|shown| shown.index == view.index());
        let len = match (shown, view) {
            (Some(shown), _) => shown.len(),
            (None, TransactionView::Ended(exchange)) => exchange.transcript.map(u64::from)?,
            (None, TransactionView::UnderWay(..)) => return None,
        };
        let end = unit.saturating_add(len);
        if at >= end {
            unit = end;
            continue;
        }
        let (part, len) = match shown {
            Some(shown) => {
                let (part, before, len) = part_at(shown, at.saturating_sub(unit))?;
                (Some((part, before)), len.into())
            }
            None => (None, len),
        };
        let (number, request, source) = (view.index(), http.request, TextSource::new(view));
        return Some(Covering { number, unit, request, source, part, len });
    }
    None
}

/// The shown part at an offset, the bytes before it, and its own length.
fn part_at(shown: &ShownTranscript, offset: u64) -> Option<(transcript::TranscriptPart, u64, u32)> {
    let mut before = 0_u64;
    for (part, len) in &shown.parts {
        let end = before.saturating_add(u64::from(*len));
        if offset < end {
            return Some((*part, before, *len));
        }
        before = end;
    }
    None
}

/// Text of exactly `len` bytes. A text that was shown once keeps its length, although heads and
/// bodies may be gone since.
fn fitted(mut text: Vec<u8>, len: u64) -> Vec<u8> {
    let len = usize::try_from(len).unwrap_or(usize::MAX);
    if text.len() != len {
        text.truncate(len);
        if text.last() == Some(&b'\n') {
            text.pop();
        }
        text.resize(len.saturating_sub(1), b' ');
        text.push(b'\n');
    }
    text
}
