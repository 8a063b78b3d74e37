//! The `pcapfs` command; see the library.

use std::process::ExitCode;

fn main() -> ExitCode {
    pcapfs::run()
}
