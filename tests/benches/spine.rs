//! The benchmark of the spine: the cost of capturing and reading, compared with the tools in use
//! today.
//!
//! Run `make bench` as root, on a machine with nothing else to do. Every figure is taken several
//! times. Figures that are compared are taken alternately in the same run, so that a busy or slow
//! machine affects both sides. The load of other processes is measured and reported.
//!
//! `program.rs` lists the arguments after `--`.
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
#[allow(dead_code, reason = "shared with the other benchmark")]
mod program;
mod replay;
mod report;
mod sample;
mod start;
mod traffic;
mod walker;

use std::process::ExitCode;

pub(crate) use program::Effort;
use program::Part;

const PARTS: &[Part] = &[
    Part {
        name: "capture",
        tools: &["ip", "trafgen", "tcpreplay", "tcpdump", "dumpcap"],
        measure: capture::measure,
    },
    Part { name: "replay", tools: &["dd"], measure: replay::measure },
    Part { name: "fanout", tools: &["ip"], measure: fanout::measure },
    Part { name: "latency", tools: &["ip", "tcpdump"], measure: latency::measure },
    Part { name: "idle", tools: &["ip"], measure: idle::measure },
    Part { name: "start", tools: &["ip"], measure: start::measure },
];

fn main() -> ExitCode {
    program::run("spine", "Benchmarks", PARTS)
}
