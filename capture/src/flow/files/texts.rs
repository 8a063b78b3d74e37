//! Files that have a text for each transaction of a flow: `http` and `http.jsonl`.
//!
//! `http.jsonl` has those that ended, in that order. `http` has all, in the order in which they
//! began, up to the first one that goes on: of that, what is certain. So both grow at their end and
//! nowhere else. Texts are made when they are read; how long each is stays known, so that files do
//! not change although packets are overwritten.

use protocol::http::body::Limits;
use protocol::http::transaction::Transaction;
use protocol::http::transcript::{self, Progress};
use protocol::tcp::Direction;

use super::gather::FlowStreams;
use super::render;
use crate::flow::apps::exchange::{Exchange, Shown, View};
use crate::flow::conversation::Flow;
use crate::flow::error::ReadError;
use crate::flow::shared::Shared;

/// A text that was made: of a transaction, or a part of it.
#[derive(Debug)]
pub(in crate::flow) struct Text {
    /// The transaction: its index, or its place among those that ended.
    number: u64,
    /// Where all that there is of it begins in the file, and where this.
    unit: u64,
    begin: u64,
    text: Vec<u8>,
}

/// What there is for each transaction.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(in crate::flow) enum Kind {
    /// A part of `http`.
    Transcript,
    /// A line of `http.jsonl`.
    Line,
}

impl Text {
    /// Where it ends in the file.
    fn end(&self) -> u64 {
        self.begin.saturating_add(self.text.len() as u64)
    }
}

/// A transaction whose transcript may be longer than is known.
struct Unknown {
    request: Direction,
    source: Source,
    shown: Option<Shown>,
    /// Bytes of the file before it.
    before: u64,
}

/// What a text is made of.
enum Source {
    Ended(Exchange),
    UnderWay(Box<Transaction>, Progress),
}

impl Source {
    fn new(view: View<'_>) -> Self {
        match view {
            View::Ended(exchange) => Self::Ended(exchange.clone()),
            View::UnderWay(transaction, progress) => {
                Self::UnderWay(Box::new(transaction.clone()), progress)
            }
        }
    }

    fn transaction(self, streams: &FlowStreams<'_>) -> (Transaction, Progress) {
        match self {
            Self::Ended(exchange) => (exchange.transaction(streams), Progress::Ended),
            Self::UnderWay(transaction, progress) => (*transaction, progress),
        }
    }
}

impl Shared {
    /// Reads a file that has a text for each transaction.
    pub(in crate::flow) fn read_texts(
        &self,
        id: u64,
        kind: Kind,
        made: &mut Option<Text>,
        offset: u64,
        want: usize,
        bytes: &mut Vec<u8>,
    ) -> Result<(), ReadError> {
        let mut at = offset;
        while bytes.len() < want {
            let last = made.as_ref().filter(|made| made.begin <= at);
            if last.is_none_or(|made| made.end() <= at) {
                // A reader that reads on does not begin at the first again.
                let from = made.as_ref().filter(|made| made.unit <= at);
                let from = from.map_or((0, 0), |made| (made.number, made.unit));
                *made = match kind {
                    Kind::Transcript => self.make_transcript(id, from, at),
                    Kind::Line => self.make_line(id, from, at),
                };
            }
            // Otherwise the flow has left the tree, and nothing says what was here.
            let made = made.as_ref().ok_or(ReadError::Expired)?;
            let skip = usize::try_from(at.saturating_sub(made.begin)).unwrap_or(usize::MAX);
            let part = made.text.get(skip..).unwrap_or_default();
            let room = want.saturating_sub(bytes.len());
            let part = part.get(..room).unwrap_or(part);
            bytes.extend_from_slice(part);
            at = at.saturating_add(part.len() as u64);
        }
        Ok(())
    }

    /// Makes the line that covers `at`, not before `from`: its place and where it begins; `None` if
    /// the flow has left the tree, be it meanwhile.
    fn make_line(&self, id: u64, from: (u64, u64), at: u64) -> Option<Text> {
        let (first, mut begin) = from;
        let skip = usize::try_from(first).unwrap_or(usize::MAX);
        let table = self.table.read();
        let flow = table.flow(id)?;
        let http = flow.http.as_ref()?;
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

    /// Makes the part of a transcript that covers `at`, of a transaction not before `from`: its index
    /// and where its transcript begins; `None` if the flow has left the tree, be it meanwhile.
    fn make_transcript(&self, id: u64, from: (u64, u64), at: u64) -> Option<Text> {
        let Covering { number, unit, request, source, part, len } =
            covering(self.table.read().flow(id)?, from, at)?;
        let streams = FlowStreams::new(self, id, request);
        let (begin, text) = match (part, source) {
            (None, Source::Ended(exchange)) => (0, render::transcript(&exchange, &streams)),
            (Some((part, before)), source) => {
                let (transaction, _) = source.transaction(&streams);
                let text = transcript::text(&transaction, part, &streams, &Limits::default());
                (before, text.into_bytes())
            }
            (None, Source::UnderWay(..)) => return None,
        };
        let begin = unit.saturating_add(begin);
        let text = Text { number, unit, begin, text: fitted(text, len) };
        self.has(id).then_some(text)
    }

    /// Bytes of a file that has a text for each transaction; `None` if the flow has left the tree.
    pub(in crate::flow) fn measure(&self, id: u64, kind: Kind) -> Option<u64> {
        match kind {
            Kind::Line => {
                let table = self.table.read();
                let exchanges = &table.flow(id)?.http.as_ref()?.exchanges;
                Some(exchanges.iter().map(|exchange| u64::from(exchange.line)).sum())
            }
            Kind::Transcript => self.measure_transcript(id),
        }
    }

    /// Bytes of `http`. What was never made is made, to see how long it is.
    fn measure_transcript(&self, id: u64) -> Option<u64> {
        let mut from = (0, 0);
        loop {
            let unknown = match first_unknown(self.table.read().flow(id)?, from)? {
                Ok(len) => return Some(len),
                Err(unknown) => unknown,
            };
            let streams = FlowStreams::new(self, id, unknown.request);
            match (unknown.source, unknown.shown) {
                (Source::Ended(exchange), None) => {
                    let len = render::transcript(&exchange, &streams).len();
                    let len = u32::try_from(len).unwrap_or(u32::MAX);
                    self.has_transcript(id, exchange.index, len);
                    from = (exchange.index, unknown.before);
                }
                (source, shown) => {
                    let (transaction, progress) = source.transaction(&streams);
                    let before = shown.as_ref().map_or(0, |shown| shown.parts.len());
                    let known = shown.as_ref().and_then(|shown| shown.parts.last().copied());
                    let mut shown = shown
                        .unwrap_or_else(|| Shown { index: transaction.index, parts: Vec::new() });
                    let is_more = show(&mut shown, &transaction, progress, &streams);
                    let len = unknown.before.saturating_add(shown.len());
                    if is_more || progress == Progress::Ended {
                        let is_ended = progress == Progress::Ended;
                        self.has_shown(id, shown, (before, known), is_ended);
                    } else {
                        return Some(len);
                    }
                    from = (transaction.index, unknown.before);
                }
            }
        }
    }

    /// Keeps how long a transcript is.
    fn has_transcript(&self, id: u64, index: u64, len: u32) {
        let mut table = self.table.write();
        let http = table.flow_mut(id).and_then(|flow| flow.http.as_mut());
        if let Some(exchange) = http.and_then(|http| http.exchange_mut(index)) {
            exchange.transcript.get_or_insert(len);
        }
    }

    /// Keeps what was shown of a transcript, unless somebody else has shown more of it since it
    /// had so many parts and this last one.
    fn has_shown(
        &self,
        id: u64,
        shown: Shown,
        (parts, last): (usize, Option<(transcript::Part, u32)>),
        is_ended: bool,
    ) {
        let mut table = self.table.write();
        let Some(flow) = table.flow_mut(id) else { return };
        let Some(http) = &mut flow.http else { return };
        let is_same = match &http.shown {
            Some(now) if now.index == shown.index => {
                (now.parts.len(), now.parts.last().copied()) == (parts, last)
            }
            Some(now) => now.index < shown.index && parts == 0,
            None => parts == 0,
        };
        if !is_same {
            return;
        }
        if is_ended && let Some(exchange) = http.exchange_mut(shown.index) {
            exchange.transcript = Some(u32::try_from(shown.len()).unwrap_or(u32::MAX));
        }
        http.shown = Some(Box::new(shown));
    }
}

/// The first transaction not before `from` whose transcript may be longer than is known, where `from`
/// is its index and the bytes of the file before it; or the bytes of all if there is none. `None` if
/// the flow has no HTTP.
fn first_unknown(flow: &Flow, from: (u64, u64)) -> Option<Result<u64, Unknown>> {
    let http = flow.http.as_ref()?;
    let (first, mut before) = from;
    for view in flow.transactions(first) {
        if let View::Ended(exchange) = view
            && let Some(len) = exchange.transcript
        {
            before = before.saturating_add(len.into());
            continue;
        }
        let shown = http.shown.as_ref().filter(|shown| shown.index == view.index());
        let shown = shown.map(|shown| (**shown).clone());
        let (request, source) = (http.request, Source::new(view));
        return Some(Err(Unknown { request, source, shown, before }));
    }
    Some(Ok(before))
}

/// Adds what is certain by now of a transcript. Whether there was anything.
fn show(
    shown: &mut Shown,
    transaction: &Transaction,
    progress: Progress,
    streams: &FlowStreams<'_>,
) -> bool {
    let mut is_more = false;
    loop {
        let last = shown.parts.last().map(|(part, _)| *part);
        let Some(part) = transcript::next(transaction, progress, last, streams) else { break };
        let len = transcript::text(transaction, part, streams, &Limits::default()).len();
        shown.push(part, u32::try_from(len).unwrap_or(u32::MAX));
        is_more = true;
    }
    is_more
}

/// What of a transcript covers an offset in the file.
struct Covering {
    /// Index of the transaction, and where its transcript begins in the file.
    number: u64,
    unit: u64,
    request: Direction,
    source: Source,
    /// The part, and the bytes of the transcript before it; `None` for all of it.
    part: Option<(transcript::Part, u64)>,
    /// Bytes of it.
    len: u64,
}

/// Looks for what covers `at`, not before `from`.
fn covering(flow: &Flow, from: (u64, u64), at: u64) -> Option<Covering> {
    let http = flow.http.as_ref()?;
    let (first, mut unit) = from;
    for view in flow.transactions(first) {
        let shown = http.shown.as_ref().filter(|shown| shown.index == view.index());
        let len = match (shown, view) {
            (Some(shown), _) => shown.len(),
            (None, View::Ended(exchange)) => exchange.transcript.map(u64::from)?,
            (None, View::UnderWay(..)) => return None,
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
        let (number, request, source) = (view.index(), http.request, Source::new(view));
        return Some(Covering { number, unit, request, source, part, len });
    }
    None
}

/// The part at an offset in what was shown, the bytes before it, and its own.
fn part_at(shown: &Shown, offset: u64) -> Option<(transcript::Part, u64, u32)> {
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

/// Text of exactly `len` bytes: what was shown once keeps its length, though heads and bodies may be
/// gone since.
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
