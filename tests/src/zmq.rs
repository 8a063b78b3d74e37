//! Programs of Python that use libzmq.

use std::path::Path;
use std::process::Command;

use crate::process::{python, run, tool};
use crate::require;

/// Debian's Python. Its packages are for this one, which need not be the first one in the path.
const PYTHON: &str = "/usr/bin/python3";

/// A command that runs a Python program which imports zmq; added arguments are its `sys.argv[1:]`.
#[must_use]
pub fn zmq(program: &str) -> Command {
    if !Path::new(PYTHON).exists() {
        return python(program);
    }
    let mut command = tool(PYTHON);
    command.arg("-c").arg(program);
    command
}

/// Returns true if Python has no zmq: then the test is to be left, which is reported.
#[must_use]
pub fn lacks_zmq() -> bool {
    let has = run(&mut zmq("import zmq"), 20).status.success();
    if !has {
        require::skip("the module zmq of Python (python3-zmq)");
    }
    !has
}
