//! Captures with known contents: mounted, read through the tree, and compared with the truth.
//!
//! Run `make conformance`. Arguments after `--` are names of parts (by default all parts) and
//! `--markdown FILE`, which also writes the result to that file. `PCAPFS_TESTDATA` names the folder
//! with captures of other projects, `PCAPFS_TOOLS` the folder with the generator of captures; see
//! `tests/src/require.rs`.
#![allow(clippy::print_stdout, reason = "a program that prints its result")]

mod data;
mod differences;
mod digest;
mod edit;
mod evader;
mod follow;
mod hostile;
mod layers;
mod outcome;
mod pcapplusplus;
mod suricata;
mod tcpflow;
mod tree;
mod wiregen;

use std::panic::{self, AssertUnwindSafe};
use std::path::{Path, PathBuf};
use std::process::{Command, ExitCode};
use std::time::Instant;

use outcome::{Outcome, Reach};
use pcapfs_tests::{binary, require};

/// Checks some sets of captures.
enum Check {
    /// Captures of other projects.
    Data(fn(&Path) -> Vec<Outcome>),
    /// Captures made by the generator, whose path is given.
    Generated(fn(&Path) -> Vec<Outcome>),
}

const PARTS: &[(&str, Check)] = &[
    ("evader", Check::Data(evader::check)),
    ("pcapplusplus", Check::Data(pcapplusplus::check)),
    ("tcpflow", Check::Data(tcpflow::check)),
    ("suricata", Check::Data(suricata::check)),
    ("wiregen", Check::Generated(wiregen::check)),
    ("follow", Check::Data(follow::check)),
    ("layers", Check::Data(layers::check)),
    ("hostile", Check::Data(hostile::check)),
];

/// The arguments of the command line.
struct Arguments {
    parts: Vec<&'static (&'static str, Check)>,
    markdown: Option<PathBuf>,
}

/// Reads the command line. Returns `None` when `cargo test` runs this program, since that has tests
/// of its own.
fn arguments() -> Result<Option<Arguments>, String> {
    let mut asked = false;
    let mut parts = Vec::new();
    let mut markdown = None;
    let mut words = std::env::args().skip(1);
    while let Some(word) = words.next() {
        match word.as_str() {
            "--bench" => asked = true,
            "--markdown" => markdown = Some(words.next().ok_or("--markdown needs a file")?.into()),
            name => parts.push(
                PARTS
                    .iter()
                    .find(|(part, _)| *part == name)
                    .ok_or_else(|| format!("no part {name}"))?,
            ),
        }
    }
    if parts.is_empty() {
        parts.extend(PARTS);
    }
    Ok(asked.then_some(Arguments { parts, markdown }))
}

fn main() -> ExitCode {
    let Arguments { parts, markdown } = match arguments() {
        Ok(Some(arguments)) => arguments,
        Ok(None) => {
            println!("not looking: run it with `make conformance`");
            return ExitCode::SUCCESS;
        }
        Err(why) => {
            eprintln!("conformance: {why}");
            return ExitCode::from(2);
        }
    };
    if let Err(lack) = require::mount() {
        eprintln!("conformance: needs {lack}");
        return ExitCode::FAILURE;
    }
    let mut outcomes = Vec::new();
    for (name, check) in parts {
        let begin = Instant::now();
        let found = look(name, check);
        println!("== {name}, {:.0} s", begin.elapsed().as_secs_f64());
        for outcome in &found {
            print!("{}", outcome.details());
        }
        outcomes.extend(found);
    }
    println!("\n{}", outcome::table(&outcomes));
    if let Some(path) = markdown
        && let Err(error) = std::fs::write(&path, outcome::markdown(&machine(), &outcomes))
    {
        eprintln!("conformance: {}: {error}", path.display());
        return ExitCode::FAILURE;
    }
    let missed = outcomes.iter().filter(|outcome| outcome.met() == Some(false)).count();
    if missed == 0 { ExitCode::SUCCESS } else { ExitCode::FAILURE }
}

/// Runs one part. A panic in it, such as of a daemon that did not start, makes the part fail.
fn look(name: &'static str, check: &Check) -> Vec<Outcome> {
    let (needed, check) = match check {
        Check::Data(check) => (require::testdata(""), check),
        Check::Generated(check) => (require::generator("wiregen.py"), check),
    };
    let Some(path) = needed else {
        let lack = "the captures, see tests/src/require.rs";
        return vec![Outcome::skipped(name, lack)];
    };
    panic::catch_unwind(AssertUnwindSafe(|| check(&path))).unwrap_or_else(|cause| {
        let what = cause
            .downcast_ref::<String>()
            .cloned()
            .or_else(|| cause.downcast_ref::<&str>().map(|text| (*text).to_owned()))
            .unwrap_or_else(|| "a panic".to_owned());
        let mut outcome = Outcome::new(name, name, Reach::All);
        outcome.case("the part as a whole", Err(what));
        vec![outcome]
    })
}

/// The machine, and the versions of the programs compared.
fn machine() -> Vec<(&'static str, String)> {
    let version = |program: &Path| {
        let output = Command::new(program).arg("--version").output();
        let output = output.map(|output| [output.stdout, output.stderr].concat());
        let text = output.map_or_else(
            |_| "none".to_owned(),
            |bytes| String::from_utf8_lossy(&bytes).into_owned(),
        );
        text.lines().find(|line| line.contains(char::is_numeric)).unwrap_or_default().to_owned()
    };
    vec![
        ("pcapfs", version(&binary("pcapfs"))),
        ("tshark", version(Path::new("tshark"))),
        ("tcpflow", version(Path::new("tcpflow"))),
    ]
}
