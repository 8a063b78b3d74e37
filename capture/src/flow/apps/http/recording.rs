//! A transaction of HTTP that has ended, on its way to the recorder.

use std::ops::Range;
use std::sync::Arc;

use protocol::http::body::DecodingLimits;
use protocol::http::direction::MessageRole;
use protocol::http::record::{BodyRecord, HttpRecord};
use protocol::http::transaction::HttpTransaction;
use protocol::json;
use protocol::tcp::Direction;

use super::exchange::Exchange;
use crate::flow::apps::Application;
use crate::flow::apps::dissector::{Finished, Recorded, RecordingContext};
use crate::flow::apps::kept::FlowRecords;

/// A transaction that has ended.
#[derive(Debug)]
pub(in crate::flow) struct EndedExchange {
    /// Readers have it too, until it is recorded.
    pub(in crate::flow) transaction: Arc<HttpTransaction>,
    /// The direction of the request.
    pub(in crate::flow) request: Direction,
}

impl Finished for EndedExchange {
    fn application(&self) -> Application {
        Application::Http
    }

    fn client(&self) -> Direction {
        self.request
    }

    /// Bodies are decoded to find their lengths.
    fn is_long(&self) -> bool {
        let messages = MessageRole::BOTH.iter().filter_map(|side| self.transaction.message(*side));
        messages.into_iter().any(|message| message.body.is_decoded())
    }

    /// Leaves bodies as they were sent that would be decoded.
    fn hurry(&mut self) {
        // Readers have the other copy, and show no encoded body of it.
        let HttpTransaction { request, response, .. } = Arc::make_mut(&mut self.transaction);
        for message in [request, response].into_iter().flatten() {
            message.body.as_sent = message.body.is_decoded();
        }
    }

    fn reads(&self, side: MessageRole) -> Option<Range<u64>> {
        let body = &self.transaction.message(side)?.body;
        let (first, last) = (body.ranges.first()?, body.ranges.last()?);
        body.is_decoded().then_some(first.start..last.end)
    }

    fn record(&self, desk: &mut RecordingContext<'_>) -> Recorded {
        let (transaction, limits) = (&*self.transaction, DecodingLimits::default());
        let RecordingContext { connection, streams, workspace } = desk;
        let mut measured =
            |side| BodyRecord::measured(transaction, side, *streams, &limits, workspace);
        let bodies = [measured(MessageRole::Request), measured(MessageRole::Response)];
        let [of_request, of_response] = &bodies;
        let line = json::line(&HttpRecord::new(connection, transaction, of_request, of_response));
        let exchange = Exchange::new(transaction, &bodies, line.len());
        let decoded = exchange.decoded();
        let keep = Box::new(move |kept: &mut FlowRecords| {
            if let Some(http) = &mut kept.http {
                http.push(exchange);
            }
        });
        Recorded { line, decoded, keep: Some(keep) }
    }
}
