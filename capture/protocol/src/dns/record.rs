//! One line of `dns.jsonl`.

use serde::Serialize;

use super::answers::DnsAnswer;
use super::message::DnsFlags;
use super::mnemonic;
use super::transaction::DnsTransaction;
use crate::flow_context::{Endpoint, FlowContext};

/// A transaction as a line of `dns.jsonl`. Indexes count from 1. Unknown values are null, never
/// absent. With its line feed it has at most [`MAX_LINE`](super::MAX_LINE) bytes.
#[derive(Debug, Serialize)]
pub struct DnsRecord<'a> {
    capture: &'a str,
    flow: u64,
    index: u64,
    client: Endpoint,
    server: Endpoint,
    duration_us: Option<u64>,
    id: u16,
    opcode: String,
    name: Option<&'a str>,
    #[serde(rename = "type")]
    record_type: Option<String>,
    class: Option<String>,
    rcode: Option<String>,
    flags: DnsFlags,
    answers: Vec<AnswerRecord<'a>>,
    answers_total: u32,
    queried: Option<String>,
    answered: Option<String>,
    state: &'static str,
    why: Option<&'a str>,
}

#[derive(Debug, Serialize)]
struct AnswerRecord<'a> {
    name: &'a str,
    #[serde(rename = "type")]
    record_type: String,
    ttl: u32,
    data: Option<&'a str>,
}

impl<'a> From<&'a DnsAnswer> for AnswerRecord<'a> {
    fn from(answer: &'a DnsAnswer) -> Self {
        Self {
            name: &answer.name,
            record_type: mnemonic::record_type(answer.record_type),
            ttl: answer.ttl,
            data: answer.data.as_deref(),
        }
    }
}

impl<'a> DnsRecord<'a> {
    /// The record of a transaction of the flow `context`, whose client asked.
    #[must_use]
    pub fn new(context: &FlowContext<'a>, transaction: &'a DnsTransaction) -> Self {
        let question = transaction.question.as_ref();
        let (queried, answered) = (transaction.queried, transaction.answered);
        let duration = queried.zip(answered);
        Self {
            capture: context.capture,
            flow: context.flow,
            index: transaction.index,
            client: context.client,
            server: context.server,
            duration_us: duration.and_then(|(from, to)| to.microseconds_since(from)),
            id: transaction.id,
            opcode: mnemonic::opcode(transaction.opcode),
            name: transaction.name(),
            record_type: question.map(|question| mnemonic::record_type(question.record_type)),
            class: question.map(|question| mnemonic::class(question.class)),
            rcode: transaction.rcode.map(mnemonic::rcode),
            flags: transaction.flags,
            answers: transaction.answers().iter().map(AnswerRecord::from).collect(),
            answers_total: transaction.answers.total,
            queried: queried.map(crate::time::Timestamp::to_rfc3339),
            answered: answered.map(crate::time::Timestamp::to_rfc3339),
            state: transaction.state.name(),
            why: transaction.why(),
        }
    }
}
