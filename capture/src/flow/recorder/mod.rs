//! The thread that writes the engine's findings into the tree: transactions, and lines of the logs.
//!
//! It decodes bodies, because a line of `http.jsonl` has their lengths, and it must not hold the
//! engine up while it does. It records everything in the order in which it happened.

mod pressure;

use std::ops::Range;
use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::sync::mpsc::{Receiver, SyncSender};
use std::time::Instant;

use protocol::http::body::Workspace;
use protocol::http::direction::MessageRole;

use super::apps::dissector::{Finished, KeepTransaction, Recorded, RecordingContext};
use super::file::Log;
use super::files::gather::FlowStreams;
use super::key::FlowKey;
use super::log::LogWriter;
use super::log::set::Logs;
use super::meta::Meta;
use super::places::{Places, Spans};
use super::shared::SharedFlows;
use super::table::FlowTable;
use pressure::Pressure;

/// An event for the recorder.
#[derive(Debug)]
pub(in crate::flow) enum RecorderJob {
    /// A flow has begun, or a flow without transactions has ended; this was its state.
    Flow(Box<Meta>),
    /// A transaction of a flow has ended.
    Finished { id: u64, key: FlowKey, finished: Box<dyn Finished> },
    /// A flow with transactions has ended.
    Closed { id: u64 },
    /// A flow is to leave the tree.
    Gone { id: u64 },
    /// All packets before this number are in their flows and, if `is_over`, no flow is open.
    Reached { number: u64, is_over: bool },
}

/// Bytes of lines that are added to a log at a time. No limit counts lines that wait, so few may
/// wait.
const PAGE: usize = 16 << 10;

/// Bytes of decoded bodies after which finished jobs are put into the tree, before their batch is
/// done.
const PORTION: u64 = 8 << 20;

/// Does jobs until the engine is gone, or until stopped: the jobs left could take minutes.
///
/// The engine holds the table most of the time, and being woken when it releases it takes longer
/// than most jobs. So a batch reads the table once, and then writes to it once.
pub(in crate::flow) fn run(
    shared: &Arc<SharedFlows>,
    mut logs: Logs<LogWriter>,
    queue: &RecorderQueue,
) {
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
                RecorderJob::Finished { id, key, mut finished } => {
                    let mut is_pressed = || {
                        let oldest = shared.store.bounds().oldest.number;
                        let position = shared.position.load(Ordering::Relaxed);
                        pressure.is_high(begun.elapsed(), oldest, position)
                    };
                    if finished.is_long() && is_pressed() {
                        finished.hurry();
                    }
                    let (found, request) = (places.of(spans), finished.client());
                    let streams = FlowStreams { shared, id, request, found: Some(&found) };
                    let connection = key.connection(&shared.capture, id, request);
                    let workspace = &mut workspace;
                    let mut desk = RecordingContext { connection, streams: &streams, workspace };
                    let Recorded { line, decoded: more, keep } = finished.record(&mut desk);
                    let application = finished.application();
                    let log = logs.get_mut(Log::Lines(application));
                    let Range { start, end } = log.log().range();
                    append(log, &line);
                    decoded = decoded.saturating_add(more);
                    let keep = keep.unwrap_or_else(|| {
                        let len = line.len() as u64;
                        Box::new(move |kept| kept.add_line(application, end, len, start))
                    });
                    spent.push(Spent::Finished(finished));
                    FinishedJob::Keep { id, keep }
                }
                RecorderJob::Flow(meta) => FinishedJob::AfterUnlock(AfterUnlock::Flow(meta)),
                RecorderJob::Closed { id } => FinishedJob::Closed { id },
                RecorderJob::Gone { id } => FinishedJob::Gone { id },
                RecorderJob::Reached { number, is_over } => {
                    FinishedJob::AfterUnlock(AfterUnlock::Reached { number, is_over })
                }
            });
            if decoded > PORTION {
                tell(shared, &mut done, logs.get_mut(Log::Flows), &mut lines, &mut spent);
                decoded = 0;
            }
        }
        tell(shared, &mut done, logs.get_mut(Log::Flows), &mut lines, &mut spent);
        // If the engine does not take them, they are freed here.
        let _ = queue.spent.try_send(std::mem::take(&mut spent));
        let _ = shared.batches.fetch_add(1, Ordering::Release);
    }
}

/// The queue of jobs from the engine, and the queue of finished jobs back to it.
#[derive(Debug)]
pub(in crate::flow) struct RecorderQueue {
    pub(in crate::flow) jobs: Receiver<Vec<RecorderJob>>,
    /// Jobs for the engine to free. When one thread allocates memory and another frees it, both
    /// spend most of the time waiting for the allocator, with a million small flows.
    pub(in crate::flow) spent: SyncSender<Vec<Spent>>,
}

/// The memory of a finished job.
#[derive(Debug)]
#[expect(dead_code, reason = "only to be freed")]
pub(in crate::flow) enum Spent {
    Flow(Box<Meta>),
    Finished(Box<dyn Finished>),
}

/// A job that is done as far as possible without the table.
enum FinishedJob {
    Keep {
        id: u64,
        keep: KeepTransaction,
    },
    Closed {
        id: u64,
    },
    Gone {
        id: u64,
    },
    /// A job that needs no table.
    AfterUnlock(AfterUnlock),
}

/// What is done after the table is unlocked: a line is written, or progress is published.
enum AfterUnlock {
    /// A line of `flows.jsonl`.
    Flow(Box<Meta>),
    Reached {
        number: u64,
        is_over: bool,
    },
}

/// Puts finished jobs into the tree and into the log of flows, in order.
fn tell(
    shared: &SharedFlows,
    done: &mut Vec<FinishedJob>,
    log: &mut LogWriter,
    lines: &mut Vec<u8>,
    spent: &mut Vec<Spent>,
) {
    // Freed after the table is released.
    let mut gone = Vec::new();
    let mut after_unlock = Vec::new();
    let needs_table = |one: &FinishedJob| !matches!(one, FinishedJob::AfterUnlock(_));
    let mut table = done.iter().any(needs_table).then(|| shared.table.write());
    for one in done.drain(..) {
        match (one, &mut table) {
            (FinishedJob::AfterUnlock(one), _) => after_unlock.push(one),
            (FinishedJob::Keep { id, keep }, Some(table)) => table.keep(id, keep),
            (FinishedJob::Closed { id }, Some(table)) => {
                after_unlock.extend(closed(shared, table, id))
            }
            (FinishedJob::Gone { id }, Some(table)) => gone.push(table.remove(id)),
            // The table was locked if any job needs it.
            (_, None) => {}
        }
    }
    drop(table);
    drop(gone);
    for one in after_unlock {
        match one {
            AfterUnlock::Flow(meta) => {
                lines.extend(meta.line());
                spent.push(Spent::Flow(meta));
            }
            AfterUnlock::Reached { number, is_over } => {
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

/// Looks up the bytes that will be read for the jobs of a batch, all at once.
fn look_up(
    shared: &SharedFlows,
    batch: Vec<RecorderJob>,
    places: &mut Places,
) -> Vec<(RecorderJob, Spans)> {
    let needs = |job: &RecorderJob| match job {
        RecorderJob::Finished { finished, .. } => finished.is_long(),
        _ => false,
    };
    places.clear();
    let table = batch.iter().any(needs).then(|| shared.table.read());
    let with_spans = batch.into_iter().map(|job| {
        let spans = match (&job, &table) {
            (RecorderJob::Finished { id, finished, .. }, Some(table)) => {
                let ranges = MessageRole::BOTH.map(|side| finished.reads(side));
                places.look_up(table.flow(*id), finished.client(), ranges)
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
fn closed(shared: &SharedFlows, table: &mut FlowTable, id: u64) -> Option<AfterUnlock> {
    let oldest = shared.oldest.load(Ordering::Relaxed);
    let flow = table.flow_mut(id)?;
    flow.is_sealed = true;
    flow.expire(oldest);
    Some(AfterUnlock::Flow(Box::new(Meta::of(flow, &shared.capture))))
}
