//! The benchmark of captures of other machines: what it costs to follow one, how late packets come,
//! and how many captures one daemon can follow.
//!
//! Run it by hand as root, on a machine with nothing else to do: `cargo bench -p pcapfs-tests
//! --bench remote`. It is not part of `make bench`, since both machines are this one.
//!
//! `program.rs` lists the arguments after `--`.
#![allow(clippy::print_stdout, reason = "a benchmark is a program that prints")]
#![allow(
    clippy::cast_possible_truncation,
    clippy::cast_sign_loss,
    reason = "figures are far below the limits of their types, and rounded for people"
)]
#![allow(dead_code, reason = "shared with the other benchmarks")]

mod cores;
mod load;
mod machine;
mod memory;
mod mirrored;
mod program;
mod report;
mod sample;
mod walker;

use std::process::ExitCode;

pub(crate) use program::Effort;
use program::Part;

const PARTS: &[Part] = &[
    Part { name: "mirror", tools: &["ip", "trafgen"], measure: mirrored::throughput },
    Part { name: "mirror-latency", tools: &["ip"], measure: mirrored::latency },
    Part { name: "fleet", tools: &["ip"], measure: mirrored::fleet },
];

fn main() -> ExitCode {
    program::run("remote", "Captures of other machines", PARTS)
}
