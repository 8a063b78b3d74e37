//! The common parts of the benchmark programs: a command line, parts, a report.
//!
//! Arguments after `--` are names of parts (by default all parts), `--rounds N`, `--daemon ARG`
//! (any number of times) to give the daemons of the flows another argument, and `--markdown FILE`
//! to write the result to a file as well.

use std::path::PathBuf;
use std::process::ExitCode;
use std::sync::OnceLock;
use std::time::Instant;

use pcapfs_tests::require;

use crate::machine;
use crate::report::{Report, Section};

/// The amount of measuring.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Effort {
    /// Number of times that each figure is taken.
    pub(crate) rounds: usize,
}

/// One measurement.
pub(crate) struct Part {
    /// Its name on the command line.
    pub(crate) name: &'static str,
    /// Programs it needs.
    pub(crate) tools: &'static [&'static str],
    /// Measures it.
    pub(crate) measure: fn(Effort) -> Section,
}

/// Arguments for daemons, from the command line.
static DAEMON: OnceLock<Vec<String>> = OnceLock::new();

/// Arguments for daemons from the command line, such as an option to try out.
pub(crate) fn daemon_arguments() -> &'static [String] {
    DAEMON.get().map_or(&[], Vec::as_slice)
}

/// The arguments of the command line.
struct Arguments {
    parts: Vec<&'static Part>,
    effort: Effort,
    markdown: Option<PathBuf>,
}

/// Reads the command line. Returns `None` when `cargo test` runs this program, since that must not
/// measure anything.
fn arguments(known: &'static [Part]) -> Result<Option<Arguments>, String> {
    let mut asked = false;
    let mut parts = Vec::new();
    let mut effort = Effort { rounds: 3 };
    let mut markdown = None;
    let mut daemon = Vec::new();
    let mut words = std::env::args().skip(1);
    while let Some(word) = words.next() {
        let mut value = || words.next().ok_or_else(|| format!("{word} needs a value"));
        match word.as_str() {
            "--bench" => asked = true,
            "--rounds" => {
                effort.rounds = value()?.parse().map_err(|_| "--rounds needs a number")?;
            }
            "--daemon" => daemon.push(value()?),
            "--markdown" => markdown = Some(PathBuf::from(value()?)),
            name => parts.push(
                known
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
        parts.extend(known);
    }
    let _ = DAEMON.set(daemon);
    Ok(asked.then_some(Arguments { parts, effort, markdown }))
}

/// Runs the measurements that the command line asks for.
pub(crate) fn run(
    program: &'static str,
    chapter: &'static str,
    known: &'static [Part],
) -> ExitCode {
    let Arguments { parts, effort, markdown } = match arguments(known) {
        Ok(Some(arguments)) => arguments,
        Ok(None) => {
            println!("not measuring: run it with `make bench`");
            return ExitCode::SUCCESS;
        }
        Err(why) => {
            eprintln!("{program}: {why}");
            return ExitCode::from(2);
        }
    };
    if let Err(lack) = require::root() {
        eprintln!("{program}: needs {lack}");
        return ExitCode::FAILURE;
    }
    let begin = Instant::now();
    let mut report = Report::new(chapter, machine::describe(), effort.rounds);
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
        && let Err(error) = report.write(&path)
    {
        eprintln!("{program}: {}: {error}", path.display());
        return ExitCode::FAILURE;
    }
    ExitCode::SUCCESS
}
