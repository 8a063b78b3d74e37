//! Pages of flows and of HTTP transactions: lines of the logs as they are, chosen by a query.

use std::net::IpAddr;

use super::answer::{Answer, JSON, Problem, whole};
use super::cursor::{self, Cursor};
use super::flow_index::{FlowChoice, FlowState};
use super::log::LinesAt;
use super::query::Query;
use super::records::CaptureRecords;
use super::transaction_choice::TransactionChoice;
use crate::cli::outlet::trouble::Trouble;

/// Entries of a page, unless another number is asked for.
const LIMIT: usize = 1000;

/// Maximum number of entries of a page.
const MOST: usize = 10_000;

/// Bytes of lines after which a page ends, whatever its limit.
const MAX_PAGE: usize = 16 << 20;

/// Lines that are looked at for one page; the next page goes on after them.
const MAX_LOOKED_AT: u64 = 200_000;

/// A page to be made.
#[derive(Debug)]
pub(super) struct PageRequest<C> {
    choice: C,
    after: u64,
    limit: usize,
    generation: String,
}

/// A page on its way.
#[derive(Debug)]
struct Page {
    text: Vec<u8>,
    entries: usize,
    limit: usize,
}

impl Page {
    /// A page whose entries have this name.
    fn new(name: &str, limit: usize) -> Self {
        Self { text: format!("{{\"{name}\":[").into_bytes(), entries: 0, limit }
    }

    /// Adds a line of JSON.
    fn add(&mut self, line: &[u8]) {
        if self.entries > 0 {
            self.text.push(b',');
        }
        self.text.extend_from_slice(line);
        self.entries += 1;
    }

    const fn is_full(&self) -> bool {
        self.entries >= self.limit || self.text.len() >= MAX_PAGE
    }

    fn end(mut self, generation: &str, next: Option<u64>, dropped: u64) -> Answer {
        let next = next.map(|number| format!("\"{}\"", Cursor { generation, number }));
        let next = next.as_deref().unwrap_or("null");
        self.text
            .extend_from_slice(format!("],\"next\":{next},\"dropped\":{dropped}}}").as_bytes());
        whole(JSON, self.text)
    }
}

impl PageRequest<FlowChoice> {
    /// Reads a query for flows.
    ///
    /// # Errors
    /// A field is wrong.
    pub(super) fn flows(mut query: Query, generation: &str) -> Result<Self, Problem> {
        let choice = FlowChoice {
            host: query.parse::<IpAddr>("host", "write an address")?,
            port: query.parse("port", "write a number of at most 65535")?,
            state: query.parse("state", &format!("there are: {}", FlowState::names()))?,
        };
        let request = Self::with(choice, &mut query, generation)?;
        query.end("host, port, state, after, limit")?;
        Ok(request)
    }

    /// The page.
    ///
    /// # Errors
    /// Those of reading lines.
    pub(super) fn answer(&self, records: &mut CaptureRecords) -> Result<Answer, Problem> {
        let mut page = Page::new("flows", self.limit);
        let mut next = None;
        let mut last = self.after;
        let CaptureRecords { flows, index, .. } = records;
        for (number, facts) in index.after(self.after, self.choice) {
            if page.is_full() {
                next = Some(last);
                break;
            }
            last = number;
            if facts.line < flows.first_line() {
                continue;
            }
            let at = flows.at(facts.line);
            // A line that has left counts below.
            if let LinesAt::Lines(block) =
                at.map_err(|error| Trouble::of_tree("flows.jsonl", &error))?
                && let Some(line) = block.line(facts.line)
            {
                page.add(line);
            }
        }
        let dropped = index.dropped(flows.first_line());
        Ok(page.end(&self.generation, next, dropped))
    }
}

impl PageRequest<TransactionChoice> {
    /// Reads a query for HTTP transactions.
    ///
    /// # Errors
    /// A field is wrong.
    pub(super) fn transactions(mut query: Query, generation: &str) -> Result<Self, Problem> {
        let choice = TransactionChoice::read(&mut query)?;
        let request = Self::with(choice, &mut query, generation)?;
        query.end("status, host, method, q, after, limit")?;
        Ok(request)
    }

    /// The page.
    ///
    /// # Errors
    /// Those of reading lines.
    pub(super) fn answer(&self, records: &mut CaptureRecords) -> Result<Answer, Problem> {
        let log = &mut records.transactions;
        let mut page = Page::new("http", self.limit);
        let mut number = self.after.saturating_add(1).max(log.first_line());
        let until = number.saturating_add(MAX_LOOKED_AT);
        let next = 'page: loop {
            let at = log.at(number).map_err(|error| Trouble::of_tree("http.jsonl", &error))?;
            let block = match at {
                LinesAt::Lines(block) => block,
                LinesAt::Dropped(first) => {
                    number = first;
                    continue;
                }
                LinesAt::End => break None,
            };
            for (line_number, line) in block.from(number) {
                if page.is_full() || line_number >= until {
                    break 'page Some(line_number.saturating_sub(1));
                }
                if self.choice.allows(line) {
                    page.add(line);
                }
            }
            number = block.end();
        };
        let dropped = log.first_line().saturating_sub(1);
        Ok(page.end(&self.generation, next, dropped))
    }
}

impl<C> PageRequest<C> {
    fn with(choice: C, query: &mut Query, generation: &str) -> Result<Self, Problem> {
        Ok(Self {
            choice,
            after: cursor::after(query, generation)?,
            limit: query.limit(LIMIT, MOST)?,
            generation: generation.to_owned(),
        })
    }
}
