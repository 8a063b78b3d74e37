//! The benchmark of flows: the cost of following connections, compared with the tools in use today.
//!
//! Run `make bench` as root, on a machine with nothing else to do. It takes about ten minutes, and
//! 4 GB of disk in the folder for temporary files (`TMPDIR`), where captures that take long to make
//! are kept for the next run. `program.rs` lists the arguments after `--`.
#![allow(clippy::print_stdout, reason = "a benchmark is a program that prints")]
#![allow(
    clippy::cast_possible_truncation,
    clippy::cast_sign_loss,
    reason = "figures are far below the limits of their types, and rounded for people"
)]

#[allow(dead_code, reason = "shared with the other benchmark")]
mod cores;
mod directory;
mod growth;
mod live;
#[allow(dead_code, reason = "shared with the other benchmark")]
mod load;
mod machine;
#[allow(dead_code, reason = "shared with the other benchmark")]
mod memory;
mod mounted;
mod objects;
mod program;
#[allow(dead_code, reason = "shared with the other benchmark")]
mod report;
#[allow(dead_code, reason = "shared with the other benchmark")]
mod sample;

use std::process::ExitCode;

pub(crate) use program::Effort;
use program::Part;

const PARTS: &[Part] = &[
    Part {
        name: "objects",
        tools: &["python3", "find", "tshark", "tcpflow"],
        measure: objects::measure,
    },
    Part { name: "live", tools: &["ip", "tcpreplay"], measure: live::measure },
    Part { name: "directory", tools: &["ls"], measure: directory::measure },
    Part { name: "growth", tools: &[], measure: growth::measure },
];

fn main() -> ExitCode {
    program::run("flows", "Benchmarks of flows", PARTS)
}
