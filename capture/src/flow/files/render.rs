//! The texts of a flow's directory.

use std::sync::Arc;

use protocol::http::body::{self, DecodingLimits};
use protocol::http::direction::MessageRole;
use protocol::http::har::{self, Har, Server};
use protocol::http::record::{BodyRecord, HttpRecord};
use protocol::http::transaction::HttpTransaction;
use protocol::http::transcript;
use protocol::json;
use protocol::linktype::LinkType;
use protocol::tcp::Direction;

use super::gather::FlowStreams;
use super::hars::{HARS, Hars, OfFlow};
use crate::flow::apps::http::exchange::{Exchange, StoredMessage, TransactionView};
use crate::flow::conversation::Flow;
use crate::flow::error::FlowOpenError;
use crate::flow::file::File;
use crate::flow::key::{self, FlowKey};
use crate::flow::made::{self, MadeContent};
use crate::flow::meta::Meta;
use crate::flow::shared::SharedFlows;
use crate::savefile::pcap;
use crate::store::StoreHeader;

/// Maximum bytes of decoded bodies in one `http.har`, which is made in memory. Later bodies are
/// left out, and marked as left out; their files have them.
const HAR_BODIES: u64 = 64 << 20;

/// `meta.json`
pub(in crate::flow) fn meta(shared: &SharedFlows, flow: &Flow) -> Vec<u8> {
    Meta::of(flow, &shared.capture).line()
}

/// The file header of `packets.pcap`.
pub(in crate::flow) fn pcap_header(
    shared: &SharedFlows,
    link_type: Option<LinkType>,
) -> Option<[u8; pcap::FILE_HEADER_LEN]> {
    let header = shared.store.header()?;
    let link_type = link_type.unwrap_or(header.link_type);
    Some(pcap::file_header(&StoreHeader { link_type, ..header }))
}

/// A transaction's part of `http`.
pub(in crate::flow) fn transcript(exchange: &Exchange, streams: &FlowStreams<'_>) -> Vec<u8> {
    let transaction = exchange.transaction(streams);
    let decoded = |side| exchange.part(side).map_or(0, |part| part.decoded);
    let len = decoded(MessageRole::Request).max(decoded(MessageRole::Response));
    let text = || transcript::transcript(&transaction, streams, &DecodingLimits::default());
    let bodies = &streams.shared.bodies;
    if len > made::LARGE { bodies.in_turn(text) } else { text() }.into_bytes()
}

/// The line of a transaction in `http.jsonl`, as it was when the transaction ended.
pub(in crate::flow) fn line(
    key: &FlowKey,
    exchange: &Exchange,
    streams: &FlowStreams<'_>,
) -> Vec<u8> {
    let transaction = exchange.transaction(streams);
    let body = |side| body_record(&transaction, side, exchange.part(side));
    let connection = key.connection(&streams.shared.capture, streams.id, streams.request);
    let bodies = [MessageRole::Request, MessageRole::Response].map(body);
    let [request, response] = &bodies;
    json::line(&HttpRecord::new(&connection, &transaction, request, response))
}

/// A line for each transaction of a flow that is under way, and the number of these transactions.
pub(in crate::flow) fn open_lines(shared: &SharedFlows, flow: &Flow) -> (Vec<u8>, usize) {
    let Some(http) = &flow.kept.http else { return Default::default() };
    let connection = flow.key.connection(&shared.capture, flow.id, http.request);
    let (mut lines, mut count) = (Vec::new(), 0_usize);
    for view in flow.transactions(1) {
        let TransactionView::UnderWay(transaction, _) = view else { continue };
        let [request, response] = MessageRole::BOTH
            .map(|side| BodyRecord::under_way(transaction, side, view.file(side).as_deref()));
        let record = HttpRecord::new(&connection, transaction, &request, &response).under_way();
        lines.extend(json::line(&record));
        count = count.saturating_add(1);
    }
    (lines, count)
}

fn body_record(
    transaction: &HttpTransaction,
    side: MessageRole,
    part: Option<&StoredMessage>,
) -> BodyRecord {
    let Some(part) = part else { return BodyRecord::default() };
    // The name cannot be made again once the head is gone.
    let file = (!part.file.is_empty()).then(|| format!("bodies/{}", part.file));
    BodyRecord { file, note: part.note, ..BodyRecord::new(transaction, side, part.decoded) }
}

/// A body without its codings, with the length it had when it was first decoded.
pub(in crate::flow) fn body(
    exchange: &Exchange,
    side: MessageRole,
    streams: &FlowStreams<'_>,
) -> Option<Vec<u8>> {
    let transaction = exchange.transaction(streams);
    let message = transaction.message(side)?;
    let mut bytes = body::read(streams, side, &message.body, &DecodingLimits::default()).bytes;
    let len = exchange.part(side)?.decoded;
    bytes.resize(usize::try_from(len).unwrap_or(usize::MAX), 0);
    Some(bytes)
}

/// The server of a flow whose requests go in `request`, for `http.har`.
pub(in crate::flow) fn har_server(flow: &Flow, request: Direction) -> Server {
    let (address, port) = flow.key.sender(request.other());
    let authority =
        if address.is_ipv6() { format!("[{address}]:{port}") } else { format!("{address}:{port}") };
    Server {
        address: Some(address.to_string()),
        authority: Some(authority),
        connection: Some(key::name(flow.id, &flow.key, flow.client)),
    }
}

/// Lines that are made while the table is locked; each takes some 5 microseconds.
const OPEN_LINES: usize = 64;

impl SharedFlows {
    /// `http-open.jsonl` of the capture. One is made at a time; an error if there is no room for
    /// it.
    pub(in crate::flow) fn open_http(&self) -> Result<Vec<u8>, FlowOpenError> {
        self.bodies.in_turn(|| {
            let (mut lines, mut from) = (Vec::new(), 0_u64);
            loop {
                let table = self.table.read();
                let mut count = 0_usize;
                let before = from;
                for flow in table.with_open_http(from) {
                    let (of_flow, more) = open_lines(self, flow);
                    lines.extend(of_flow);
                    count = count.saturating_add(more.max(1));
                    from = flow.id.saturating_add(1);
                    if count >= OPEN_LINES {
                        break;
                    }
                }
                if from == before {
                    return Ok(lines);
                }
                if !self.bodies.has_room(lines.len() as u64) {
                    return Err(FlowOpenError::NoRoom);
                }
            }
        })
    }

    /// `http.har` of a flow as of now.
    pub(in crate::flow) fn har(&self, id: u64) -> Result<Arc<MadeContent>, FlowOpenError> {
        // A file that is made quickly does not wait for one that takes long.
        if self.effort(id, File::Har) > made::LARGE {
            self.bodies.in_turn(|| self.make_har(id))
        } else {
            self.make_har(id)
        }
    }

    fn make_har(&self, id: u64) -> Result<Arc<MadeContent>, FlowOpenError> {
        let table = self.table.read();
        let flow = table.flow(id).ok_or(FlowOpenError::Gone)?;
        let http = flow.kept.http.as_ref().ok_or(FlowOpenError::Gone)?;
        let count = http.exchanges.len();
        let is_that = |one: &&OfFlow| (one.id, one.count) == (id, count);
        let there =
            self.hars.lock().of_flows.iter().find(is_that).and_then(|one| one.text.upgrade());
        if let Some(made) = there {
            return Ok(made);
        }
        let server = har_server(flow, http.request);
        let (request, exchanges) = (http.request, http.exchanges.clone());
        drop(table);
        let streams = FlowStreams::new(self, id, request);
        let mut left = HAR_BODIES;
        let mut har = Har::new();
        for exchange in exchanges {
            let most = DecodingLimits::default();
            let limits = DecodingLimits {
                input: left.min(most.input),
                output: left.min(most.output),
                ..most
            };
            let sides =
                [MessageRole::Request, MessageRole::Response].map(|side| exchange.part(side));
            let taken: u64 = sides.into_iter().flatten().map(|part| part.decoded).sum();
            left = left.saturating_sub(taken);
            har.push(&har::entry(&exchange.transaction(&streams), &server, &streams, &limits));
            // Heads have no common limit, and may be six times as long as JSON text.
            if !self.bodies.has_room(har.written()) {
                self.hars.lock().clear();
                if !self.bodies.has_room(har.written()) {
                    return Err(FlowOpenError::NoRoom);
                }
            }
        }
        let bytes = har.into_text();
        let mut hars = self.hars.lock();
        hars.of_flows.retain(|one| one.id != id);
        let len = |hars: &Hars| hars.of_flows.iter().map(OfFlow::len).sum::<usize>();
        while hars.of_flows.len() > 1 && len(&hars).saturating_add(bytes.len()) > HARS {
            hars.of_flows.remove(0);
        }
        if !self.bodies.has_room(bytes.len() as u64) {
            // Files cached for a possible later reader make room for the file asked for now.
            hars.clear();
        }
        let made = self.bodies.keep(bytes).ok_or(FlowOpenError::NoRoom)?;
        let (text, kept) = (Arc::downgrade(&made), Some(Arc::clone(&made)));
        hars.of_flows.push(OfFlow { id, count, text, kept });
        Ok(made)
    }
}
