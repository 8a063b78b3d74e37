//! The benchmark of the spine: what capturing and reading cost, beside the tools people use today.
//!
//! `make bench`, as root, on a machine with nothing else to do. Every figure is taken several
//! times, and what is compared is taken alternately in the same run, so that a machine that is
//! busy or slow is so for both sides. What other processes used meanwhile is measured and said.
//!
//! Behind `--` come names of parts (`capture replay fanout latency idle start`; all of them when
//! none is named), `--rounds N`, and `--markdown FILE`, which also writes the result there.
#![allow(clippy::print_stdout, reason = "a benchmark is a program that prints")]
#![allow(
    clippy::cast_possible_truncation,
    clippy::cast_sign_loss,
    reason = "figures are far below the limits of their types, and rounded for people"
)]

mod capture;
mod cores;
mod fanout;
mod idle;
mod latency;
mod load;
mod machine;
mod memory;
mod replay;
mod report;
mod sample;
mod start;
mod walker;

use std::path::PathBuf;
use std::process::ExitCode;
use std::time::Instant;

use pcapfs_tests::require;
use report::{Report, Section};

/// How much to measure.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Effort {
    /// How often each figure is taken.
    pub(crate) rounds: usize,
}

struct Part {
    name: &'static str,
    tools: &'static [&'static str],
    measure: fn(Effort) -> Section,
}

const PARTS: &[Part] = &[
    Part {
        name: "capture",
        tools: &["ip", "trafgen", "tcpdump", "dumpcap"],
        measure: capture::measure,
    },
    Part { name: "replay", tools: &["dd"], measure: replay::measure },
    Part { name: "fanout", tools: &["ip"], measure: fanout::measure },
    Part { name: "latency", tools: &["ip", "tcpdump"], measure: latency::measure },
    Part { name: "idle", tools: &["ip"], measure: idle::measure },
    Part { name: "start", tools: &["ip"], measure: start::measure },
];

/// What the command line asks for.
struct Arguments {
    parts: Vec<&'static Part>,
    effort: Effort,
    markdown: Option<PathBuf>,
}

/// Reads the command line; `None` when `cargo test` runs this, which is not to measure anything.
fn arguments() -> Result<Option<Arguments>, String> {
    let mut asked = false;
    let mut parts = Vec::new();
    let mut effort = Effort { rounds: 3 };
    let mut markdown = None;
    let mut words = std::env::args().skip(1);
    while let Some(word) = words.next() {
        let mut value = || words.next().ok_or_else(|| format!("{word} needs a value"));
        match word.as_str() {
            "--bench" => asked = true,
            "--rounds" => {
                effort.rounds = value()?.parse().map_err(|_| "--rounds needs a number")?;
            }
            "--markdown" => markdown = Some(PathBuf::from(value()?)),
            name => parts.push(
                PARTS
                    .iter()
                    .find(|part| part.name == name)
                    .ok_or_else(|| format!("no part {name}"))?,
            ),
        }
    }
    if effort.rounds == 0 {
        return Err("--rounds needs at least 1".to_owned());
    }
    if parts.is_empty() {
        parts.extend(PARTS);
    }
    Ok(asked.then_some(Arguments { parts, effort, markdown }))
}

fn main() -> ExitCode {
    let Arguments { parts, effort, markdown } = match arguments() {
        Ok(Some(arguments)) => arguments,
        Ok(None) => {
            println!("not measuring: run it with `make bench`");
            return ExitCode::SUCCESS;
        }
        Err(why) => {
            eprintln!("spine: {why}");
            return ExitCode::from(2);
        }
    };
    if let Err(lack) = require::root() {
        eprintln!("spine: needs {lack}");
        return ExitCode::FAILURE;
    }
    let begin = Instant::now();
    let mut report = Report::new(machine::describe(), effort.rounds);
    println!("{}", report.head());
    for part in parts {
        let lacking = part.tools.iter().find_map(|name| require::tool(name).err());
        let section = match lacking {
            Some(lack) => Section::skipped(part.name, &lack),
            None => (part.measure)(effort),
        };
        println!("{}", section.plain());
        report.add(section);
    }
    println!("{}", report.verdicts());
    println!("took {:.0} s", begin.elapsed().as_secs_f64());
    if let Some(path) = markdown
        && let Err(error) = std::fs::write(&path, report.markdown())
    {
        eprintln!("spine: {}: {error}", path.display());
        return ExitCode::FAILURE;
    }
    ExitCode::SUCCESS
}
