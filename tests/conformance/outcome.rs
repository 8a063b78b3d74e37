//! Results of sets of captures, and the tables made of them.

use std::fmt::Write as _;

use crate::differences;
use crate::tree::{Capture, Tree};

/// Number of a set's cases that must agree with the truth.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Reach {
    /// All cases except for differences that [`differences`] explains.
    All,
    /// At least this number of cases.
    AtLeast(usize),
}

/// A case that differs from the truth.
#[derive(Debug)]
struct Failure {
    case: String,
    what: String,
}

/// One row of the result.
#[derive(Debug)]
pub(crate) struct Outcome {
    set: &'static str,
    about: String,
    reach: Reach,
    cases: usize,
    failures: Vec<Failure>,
    others: Vec<(&'static str, usize)>,
    notes: Vec<String>,
    lacking: Option<String>,
}

impl Outcome {
    /// A set without cases so far.
    ///
    /// Its differences are listed under `set`, and the table calls it `about`.
    pub(crate) fn new(set: &'static str, about: &str, reach: Reach) -> Self {
        Self {
            set,
            about: about.to_owned(),
            reach,
            cases: 0,
            failures: Vec::new(),
            others: Vec::new(),
            notes: Vec::new(),
            lacking: None,
        }
    }

    /// A set that cannot be checked here.
    pub(crate) fn skipped(set: &'static str, lack: &str) -> Self {
        let mut outcome = Self::new(set, set, Reach::All);
        outcome.lacking = Some(lack.to_owned());
        outcome
    }

    /// Counts a case.
    pub(crate) fn case(&mut self, case: impl Into<String>, result: Result<(), String>) {
        self.cases += 1;
        if let Err(what) = result {
            self.failures.push(Failure { case: case.into(), what });
        }
    }

    /// Ends the daemon of some cases. A wrong end counts as a failed case.
    pub(crate) fn close(&mut self, tree: Tree) {
        let first = tree.captures().first().map(Capture::name).unwrap_or_default();
        if let Err(what) = tree.close() {
            self.case(format!("the daemon with {first}"), Err(what));
        }
    }

    /// Adds the number of the same cases that another program passes.
    pub(crate) fn other(&mut self, tool: &'static str, passed: usize) {
        self.others.push((tool, passed));
    }

    /// Adds a sentence below the table.
    pub(crate) fn note(&mut self, note: String) {
        self.notes.push(note);
    }

    fn passed(&self) -> usize {
        self.cases - self.failures.len()
    }

    fn unexplained(&self) -> impl Iterator<Item = &Failure> {
        self.failures.iter().filter(|failure| differences::why(self.set, &failure.case).is_none())
    }

    /// Returns whether the set reaches its goal, or `None` for a set that was skipped.
    pub(crate) fn met(&self) -> Option<bool> {
        if self.lacking.is_some() {
            return None;
        }
        Some(match self.reach {
            Reach::All => self.cases > 0 && self.unexplained().count() == 0,
            Reach::AtLeast(wanted) => self.passed() >= wanted,
        })
    }

    fn row(&self) -> [String; 4] {
        let reach = match self.reach {
            Reach::All => "all".to_owned(),
            Reach::AtLeast(wanted) => format!("{wanted} or more"),
        };
        let explained = self.failures.len() - self.unexplained().count();
        let verdict = match (self.met(), &self.lacking) {
            (None, lacking) => {
                format!("skipped: needs {}", lacking.as_deref().unwrap_or_default())
            }
            (Some(true), _) if explained > 0 => format!("reached, {explained} explained"),
            (Some(true), _) => "reached".to_owned(),
            (Some(false), _) => format!("MISSED, {} unexplained", self.unexplained().count()),
        };
        let mut got = format!("{} of {}", self.passed(), self.cases);
        for (tool, passed) in &self.others {
            let _ = write!(got, "; {tool} {passed}");
        }
        [self.about.clone(), reach, got, verdict]
    }

    /// The failed cases, one on each line, for a terminal.
    pub(crate) fn details(&self) -> String {
        let mut text = String::new();
        for failure in &self.failures {
            let known = differences::why(self.set, &failure.case).is_some();
            let mark = if known { "explained" } else { "DIFFERS" };
            let _ = writeln!(text, "   {mark} {}: {}: {}", self.set, failure.case, failure.what);
        }
        for note in &self.notes {
            let _ = writeln!(text, "   {note}");
        }
        text
    }

    fn markdown(&self) -> String {
        if self.failures.is_empty() && self.notes.is_empty() {
            return String::new();
        }
        let mut text = format!("\n## {}\n\n", self.about);
        for note in &self.notes {
            let _ = writeln!(text, "{note}\n");
        }
        let mut explained: Vec<(&str, Vec<&Failure>)> = Vec::new();
        for failure in &self.failures {
            let why = differences::why(self.set, &failure.case).unwrap_or("Not explained.");
            match explained.iter_mut().find(|(known, _)| *known == why) {
                Some((_, failures)) => failures.push(failure),
                None => explained.push((why, vec![failure])),
            }
        }
        for (why, failures) in explained {
            let _ = writeln!(text, "{why}\n");
            for failure in failures {
                let _ = writeln!(text, "* `{}`: {}", failure.case, failure.what);
            }
            text.push('\n');
        }
        text.truncate(text.trim_end().len());
        text.push('\n');
        text
    }
}

const COLUMNS: [&str; 4] = ["set", "reach", "got", "verdict"];

/// The table for a terminal.
pub(crate) fn table(outcomes: &[Outcome]) -> String {
    let rows: Vec<_> = outcomes.iter().map(Outcome::row).collect();
    let widths = widths(&rows);
    let line = |cells: [&str; 4]| {
        let mut text = String::from("  ");
        for (cell, width) in cells.iter().zip(widths) {
            let _ = write!(text, " {cell:<width$} ");
        }
        text.trim_end().to_owned() + "\n"
    };
    let mut text = line(COLUMNS);
    for row in &rows {
        text += &line(row.each_ref().map(String::as_str));
    }
    text
}

/// The file for `docs/`.
pub(crate) fn markdown(machine: &[(&str, String)], outcomes: &[Outcome]) -> String {
    let rows: Vec<_> = outcomes.iter().map(Outcome::row).collect();
    let widths = widths(&rows);
    let mut text = String::from(
        "# Conformance\n\n\
         Written by `make conformance`, which mounts captures whose contents are known, reads\n\
         flows through the tree alone, and compares. The captures are those that other projects\n\
         publish with their own tests, which are not part of this repository, and generated ones\n\
         with the truth beside them. A set is reached when every case is as the truth says; where\n\
         one is not, and rightly so, it is listed below the table with the reason.\n\n",
    );
    for (what, value) in machine {
        let _ = writeln!(text, "* {what}: {value}");
    }
    text.push('\n');
    let mut line = |cells: [&str; 4]| {
        for (cell, width) in cells.iter().zip(widths) {
            let _ = write!(text, "| {cell:<width$} ");
        }
        text += "|\n";
    };
    line(COLUMNS);
    let rules = widths.map(|width| "-".repeat(width));
    line(rules.each_ref().map(String::as_str));
    for row in &rows {
        line(row.each_ref().map(String::as_str));
    }
    for outcome in outcomes {
        text += &outcome.markdown();
    }
    text
}

fn widths(rows: &[[String; 4]]) -> [usize; 4] {
    let mut widths = COLUMNS.map(str::len);
    for row in rows {
        for (width, cell) in widths.iter_mut().zip(row) {
            *width = (*width).max(cell.chars().count());
        }
    }
    widths
}
