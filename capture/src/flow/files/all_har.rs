//! `http.har` of a whole capture. It is made when a program asks for its size or opens it, entry by
//! entry, and kept compressed.
//!
//! Its compressed bytes count against the room for the open contents of the capture. A reader holds
//! one block of it in plain bytes. Packets that are overwritten after it was made are still in it.

use std::sync::Arc;
use std::sync::atomic::Ordering;

use protocol::http::body::DecodingLimits;
use protocol::http::direction::MessageRole;
use protocol::http::har::{self, Har, Server};
use protocol::json;
use protocol::tcp::Direction;

use super::gather::FlowStreams;
use super::hars::{AsOf, Packed};
use super::render::har_server;
use crate::flow::apps::http::exchange::Exchange;
use crate::flow::conversation::Flow;
use crate::flow::error::FlowOpenError;
use crate::flow::log::LogWriter;
use crate::flow::shared::SharedFlows;

/// Maximum bytes of one decoded body. A longer body is cut, and marked as cut. A reader has one
/// entry in memory.
const BODY: u64 = 1 << 20;

/// Maximum bytes of all bodies. Later bodies are left out, and marked as left out; their files have
/// them.
const BODIES: u64 = 64 << 20;

/// Flows that are looked at while the table is locked.
const PAGE: usize = 1_024;

/// One flow, with the data its entries need.
struct HarSource {
    id: u64,
    request: Direction,
    server: Server,
    exchanges: Vec<Exchange>,
}

impl SharedFlows {
    /// `http.har` of the capture as of now. Only one is made at a time. The last one is kept,
    /// because a reader asks for the size before it reads.
    pub(in crate::flow) fn all_har(&self) -> Result<Packed, FlowOpenError> {
        self.bodies.in_turn(|| {
            let as_of = self.as_of();
            if let Some((_, packed)) = self.hars.lock().all.as_ref().filter(|(of, _)| *of == as_of)
            {
                return Ok(packed.clone());
            }
            // Files cached for a possible later reader make room for the file asked for now.
            self.hars.lock().clear();
            let packed = self.make_all_har()?;
            self.hars.lock().all = Some((as_of, packed.clone()));
            Ok(packed)
        })
    }

    /// A stamp that changes whenever the file would change.
    fn as_of(&self) -> AsOf {
        (self.batches.load(Ordering::Acquire), self.oldest.load(Ordering::Relaxed))
    }

    fn make_all_har(&self) -> Result<Packed, FlowOpenError> {
        let mut writer = LogWriter::new(usize::MAX);
        let mut line = Har::beginning();
        line.push(b'\n');
        writer.append(&line);
        let (mut left, mut from, mut is_first) = (BODIES, 0, true);
        while let Some((next, source)) = self.next_with_http(from) {
            from = next;
            let Some(HarSource { id, request, server, exchanges }) = source else { continue };
            let streams = FlowStreams::new(self, id, request);
            for exchange in exchanges {
                let most = BODY.min(left);
                let limits =
                    DecodingLimits { input: most, output: most, ..DecodingLimits::default() };
                let sides = MessageRole::BOTH.iter().filter_map(|side| exchange.part(*side));
                let taken: u64 = sides.map(|part| part.decoded.min(most)).sum();
                left = left.saturating_sub(taken);
                let transaction = exchange.transaction(&streams);
                line.clear();
                if !std::mem::take(&mut is_first) {
                    line.push(b',');
                }
                json::append(&mut line, &har::entry(&transaction, &server, &streams, &limits));
                line.push(b'\n');
                writer.append(&line);
                if !self.bodies.has_room(writer.log().memory() as u64) {
                    return Err(FlowOpenError::NoRoom);
                }
            }
        }
        writer.append(Har::END);
        let log = Arc::clone(writer.log());
        let taken = self.bodies.hold(log.memory() as u64).ok_or(FlowOpenError::NoRoom)?;
        Ok(Packed { log, _taken: taken })
    }

    /// The next flow with HTTP at or after number `from`, and the number to continue with; `None`
    /// after the last flow.
    fn next_with_http(&self, from: u64) -> Option<(u64, Option<HarSource>)> {
        let table = self.table.read();
        let mut last = None;
        for flow in table.from(from).take(PAGE) {
            last = Some(flow.id.saturating_add(1));
            if let Some(source) = source(flow) {
                return last.map(|next| (next, Some(source)));
            }
        }
        last.map(|next| (next, None))
    }
}

fn source(flow: &Flow) -> Option<HarSource> {
    let http = flow.kept.http.as_ref()?;
    let server = har_server(flow, http.request);
    let (request, exchanges) = (http.request, http.exchanges.clone());
    Some(HarSource { id: flow.id, request, server, exchanges })
}
