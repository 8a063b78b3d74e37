//! The thread that writes the engine's findings into the tree: transactions, and lines of the two
//! logs.
//!
//! It decodes bodies, because a line of `http.jsonl` has their lengths, and it must not hold the
//! engine up while it does. It records everything in the order in which it happened.

mod pressure;

use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::sync::mpsc::{Receiver, SyncSender};
use std::time::Instant;

use protocol::http::body::{Limits, Workspace};
use protocol::http::direction::Direction as Side;
use protocol::http::record::{BodyRecord, Connection, Record};
use protocol::http::transaction::Transaction;
use protocol::json;
use protocol::tcp::Direction;

use super::apps::exchange::Exchange;
use super::files::gather::FlowStreams;
use super::key::Key;
use super::log::LogWriter;
use super::meta::Meta;
use super::places::{Places, Spans};
use super::shared::Shared;
use super::table::Table;
use pressure::Pressure;

/// An event for the recorder.
#[derive(Debug)]
pub(in crate::flow) enum Job {
    /// A flow has begun, or a flow without transactions has ended; this was its state.
    Flow(Box<Meta>),
    /// A transaction of a flow has ended.
    Transaction { id: u64, key: Key, request: Direction, transaction: Arc<Transaction> },
    /// A flow with transactions has ended.
    Closed { id: u64 },
    /// A flow is to leave the tree.
    Gone { id: u64 },
    /// All packets before this number are in their flows and, if `is_over`, no flow is open.
    Reached { number: u64, is_over: bool },
}

/// The writers of the logs.
#[derive(Debug)]
pub(in crate::flow) struct Logs {
    pub(in crate::flow) flows: LogWriter,
    pub(in crate::flow) http: LogWriter,
}

/// Bytes of lines that are added to a log at a time. Lines that are not in the log yet count
/// against no limit.
const PAGE: usize = 16 << 10;

/// Bytes of decoded bodies after which finished jobs are put into the tree, before their batch is
/// done.
const PORTION: u64 = 8 << 20;

/// Does jobs until the engine is gone, or until stopped: the jobs left could take minutes.
///
/// The engine holds the table most of the time, and being woken when it releases it takes longer
/// than most jobs. So a batch reads the table once, and then writes to it once.
pub(in crate::flow) fn run(shared: &Arc<Shared>, mut logs: Logs, queue: &Queue) {
    let mut lines = Vec::new();
    let mut done = Vec::new();
    let mut spent = Vec::new();
    let mut places = Places::default();
    let mut workspace = Workspace::default();
    let (begun, mut pressure) = (Instant::now(), Pressure::default());
    while let Ok(batch) = queue.jobs.recv() {
        let mut decoded = 0_u64;
        for (job, spans) in look_up(shared, batch, &mut places) {
            if shared.stop.load(Ordering::Relaxed) {
                return;
            }
            done.push(match job {
                Job::Transaction { id, key, request, mut transaction } => {
                    let mut is_pressed = || {
                        let oldest = shared.store.bounds().oldest.number;
                        let position = shared.position.load(Ordering::Relaxed);
                        pressure.is_high(begun.elapsed(), oldest, position)
                    };
                    if is_decoded(&transaction) && is_pressed() {
                        // Readers have the other copy, and show no encoded body of it.
                        leave_as_sent(Arc::make_mut(&mut transaction));
                    }
                    let found = places.of(spans);
                    let streams = FlowStreams { shared, id, request, found: Some(&found) };
                    let connection = key.connection(&shared.capture, id, request);
                    let (exchange, line) =
                        ended(&streams, &connection, &transaction, &mut workspace);
                    append(&mut logs.http, &line);
                    decoded = decoded.saturating_add(exchange.decoded());
                    spent.push(Spent::Transaction(transaction));
                    Done::Exchange { id, exchange }
                }
                Job::Flow(meta) => Done::Told(Told::Flow(meta)),
                Job::Closed { id } => Done::Closed { id },
                Job::Gone { id } => Done::Gone { id },
                Job::Reached { number, is_over } => Done::Told(Told::Reached { number, is_over }),
            });
            if decoded > PORTION {
                tell(shared, &mut done, &mut logs.flows, &mut lines, &mut spent);
                decoded = 0;
            }
        }
        tell(shared, &mut done, &mut logs.flows, &mut lines, &mut spent);
        // If the engine does not take them, they are freed here.
        let _ = queue.spent.try_send(std::mem::take(&mut spent));
        let _ = shared.batches.fetch_add(1, Ordering::Release);
    }
}

/// The queue of jobs from the engine, and the queue of finished jobs back to it.
#[derive(Debug)]
pub(in crate::flow) struct Queue {
    pub(in crate::flow) jobs: Receiver<Vec<Job>>,
    /// Jobs for the engine to free. When one thread allocates memory and another frees it, both
    /// spend most of the time waiting for the allocator, with a million small flows.
    pub(in crate::flow) spent: SyncSender<Vec<Spent>>,
}

/// The memory of a finished job.
#[derive(Debug)]
#[expect(dead_code, reason = "only to be freed")]
pub(in crate::flow) enum Spent {
    Flow(Box<Meta>),
    Transaction(Arc<Transaction>),
}

/// A job that is done as far as possible without the table.
enum Done {
    Exchange {
        id: u64,
        exchange: Exchange,
    },
    Closed {
        id: u64,
    },
    Gone {
        id: u64,
    },
    /// A job that needs no table.
    Told(Told),
}

/// The part of a job that is left when the table is no longer needed.
enum Told {
    /// A line of `flows.jsonl`.
    Flow(Box<Meta>),
    Reached {
        number: u64,
        is_over: bool,
    },
}

/// Puts finished jobs into the tree and into the log of flows, in order.
fn tell(
    shared: &Shared,
    done: &mut Vec<Done>,
    log: &mut LogWriter,
    lines: &mut Vec<u8>,
    spent: &mut Vec<Spent>,
) {
    // Freed after the table is released.
    let mut gone = Vec::new();
    let mut told = Vec::new();
    let needs_table = |one: &Done| !matches!(one, Done::Told(_));
    let mut table = done.iter().any(needs_table).then(|| shared.table.write());
    for one in done.drain(..) {
        match (one, &mut table) {
            (Done::Told(one), _) => told.push(one),
            (Done::Exchange { id, exchange }, Some(table)) => table.add_exchange(id, exchange),
            (Done::Closed { id }, Some(table)) => told.extend(closed(shared, table, id)),
            (Done::Gone { id }, Some(table)) => gone.push(table.remove(id)),
            // The table was locked if any job needs it.
            (_, None) => {}
        }
    }
    drop(table);
    drop(gone);
    for one in told {
        match one {
            Told::Flow(meta) => {
                lines.extend(meta.line());
                spent.push(Spent::Flow(meta));
            }
            Told::Reached { number, is_over } => {
                append(log, &std::mem::take(lines));
                shared.reached(number, is_over);
            }
        }
        if lines.len() >= PAGE {
            append(log, lines);
            lines.clear();
        }
    }
    append(log, &std::mem::take(lines));
}

/// Returns true if a body of a transaction must be decoded.
fn is_decoded(transaction: &Transaction) -> bool {
    let messages = Side::BOTH.iter().filter_map(|side| transaction.message(*side));
    messages.into_iter().any(|message| message.body.is_decoded())
}

/// Marks the bodies of a transaction that would be decoded, so that they are left as they were
/// sent.
fn leave_as_sent(transaction: &mut Transaction) {
    for message in [&mut transaction.request, &mut transaction.response].into_iter().flatten() {
        message.body.as_sent = message.body.is_decoded();
    }
}

/// Looks up the bodies that must be decoded for the jobs of a batch, all at once.
fn look_up(shared: &Shared, batch: Vec<Job>, places: &mut Places) -> Vec<(Job, Spans)> {
    let needs = |job: &Job| match job {
        Job::Transaction { transaction, .. } => is_decoded(transaction),
        _ => false,
    };
    places.clear();
    let table = batch.iter().any(needs).then(|| shared.table.read());
    let with_spans = batch.into_iter().map(|job| {
        let spans = match (&job, &table) {
            (Job::Transaction { id, request, transaction, .. }, Some(table)) => {
                places.look_up(table.flow(*id), *request, transaction)
            }
            _ => Spans::default(),
        };
        (job, spans)
    });
    with_spans.collect()
}

fn append(log: &mut LogWriter, lines: &[u8]) {
    if !lines.is_empty() {
        log.append(lines);
    }
}

/// Ends a flow whose transactions have all been recorded.
fn closed(shared: &Shared, table: &mut Table, id: u64) -> Option<Told> {
    let oldest = shared.oldest.load(Ordering::Relaxed);
    let flow = table.flow_mut(id)?;
    flow.is_sealed = true;
    flow.expire(oldest);
    Some(Told::Flow(Box::new(Meta::of(flow, &shared.capture))))
}

/// A transaction has ended: the exchange to keep of it, and its line.
fn ended(
    streams: &FlowStreams<'_>,
    connection: &Connection<'_>,
    transaction: &Transaction,
    workspace: &mut Workspace,
) -> (Exchange, Vec<u8>) {
    let limits = Limits::default();
    let mut measured = |side| BodyRecord::measured(transaction, side, streams, &limits, workspace);
    let bodies = [measured(Side::Request), measured(Side::Response)];
    let [of_request, of_response] = &bodies;
    let line = json::line(&Record::new(connection, transaction, of_request, of_response));
    (Exchange::new(transaction, &bodies, line.len()), line)
}
