//! The thread that writes what the engine has found into the tree: transactions and the two logs.
//!
//! It decodes bodies, since a line of `http.jsonl` says how long they are, and so must not hold the
//! engine up. Everything is told in the order in which it happened.

use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::sync::mpsc::Receiver;

use super::Shared;
use super::exchange::Exchange;
use super::gather::FlowStreams;
use super::log::LogWriter;
use super::meta::Meta;
use crate::http::body::Limits;
use crate::http::record::{BodyRecord, Record};
use crate::http::transaction::{Direction as Side, Transaction};
use crate::tcp::Direction;

/// What the engine has found.
#[derive(Debug)]
pub(super) enum Job {
    /// A flow has begun, and looked like this.
    Opened(Box<Meta>),
    /// A transaction of a flow has ended.
    Transaction { id: u64, request: Direction, transaction: Box<Transaction> },
    /// A flow has ended.
    Closed { id: u64 },
    /// A flow leaves the tree.
    Gone { id: u64 },
    /// All packets before this number are in their flows; and, if it is over, no flow is open.
    Reached { number: u64, is_over: bool },
}

/// The logs, to write.
#[derive(Debug)]
pub(super) struct Logs {
    pub(super) flows: LogWriter,
    pub(super) http: LogWriter,
}

/// Bytes of lines that are added to a log at a time: what is not in the log yet is in no bound.
const PAGE: usize = 16 << 10;

/// Does jobs until nobody gives any, or it is told to stop: what is left could take minutes.
pub(super) fn run(shared: &Arc<Shared>, mut logs: Logs, jobs: &Receiver<Vec<Job>>) {
    let mut lines = Vec::new();
    while let Ok(batch) = jobs.recv() {
        for job in batch {
            if shared.stop.load(Ordering::Relaxed) {
                return;
            }
            match job {
                Job::Opened(meta) => lines.extend(meta.line()),
                Job::Closed { id } => lines.extend(closed(shared, id)),
                Job::Transaction { id, request, transaction } => {
                    let line = ended(shared, id, request, &transaction);
                    append(&mut logs.http, &line);
                }
                Job::Gone { id } => drop(shared.table.write().remove(id)),
                Job::Reached { number, is_over } => {
                    append(&mut logs.flows, &std::mem::take(&mut lines));
                    shared.recorded.store(number, Ordering::Release);
                    shared.is_over.store(is_over, Ordering::Release);
                }
            }
            if lines.len() >= PAGE {
                append(&mut logs.flows, &lines);
                lines.clear();
            }
        }
        append(&mut logs.flows, &std::mem::take(&mut lines));
    }
}

fn append(log: &mut LogWriter, lines: &[u8]) {
    if !lines.is_empty() {
        log.append(lines);
    }
}

/// A flow has ended, and all of its transactions are told.
fn closed(shared: &Shared, id: u64) -> Vec<u8> {
    let mut table = shared.table.write();
    let oldest = shared.oldest.load(Ordering::Relaxed);
    let Some(flow) = table.flow_mut(id) else { return Vec::new() };
    flow.is_sealed = true;
    flow.expire(oldest);
    let meta = Meta::of(flow);
    drop(table);
    meta.line()
}

/// A transaction has ended: keeps it with its flow, and returns its line.
fn ended(shared: &Shared, id: u64, request: Direction, transaction: &Transaction) -> Vec<u8> {
    let streams = FlowStreams { shared, id, request };
    let limits = Limits::default();
    let measured = |side| BodyRecord::measured(transaction, side, &streams, &limits);
    let bodies = [measured(Side::Request), measured(Side::Response)];
    let decoded = [bodies[0].bytes, bodies[1].bytes];
    let [of_request, of_response] = bodies;
    let line = line(&Record::new(id, transaction, of_request, of_response));
    let exchange = Exchange::new(transaction, decoded, line.len());
    shared.table.write().add_exchange(id, exchange);
    line
}

/// A line of `http.jsonl`.
pub(super) fn line(record: &Record<'_>) -> Vec<u8> {
    // Numbers, strings and lists of them: there is nothing that could fail.
    let mut line = serde_json::to_vec(record).unwrap_or_default();
    line.push(b'\n');
    line
}
