//! What a container has of interest here: a process in a network namespace without a name.

use nix::sys::signal::Signal;
use nix::unistd::Pid;

use crate::process::{Running, python, run, tool};

/// A process in a network namespace that has no name and only a loopback interface.
#[derive(Debug)]
pub struct Container {
    process: Running,
}

impl Container {
    /// A new one.
    #[must_use]
    pub fn new() -> Self {
        let process = Running::spawn(tool("unshare").args([
            "--net",
            "sh",
            "-c",
            "ip link set lo up && echo up && exec sleep 60",
        ]));
        process.wait_stdout("its loopback is up", 10, |bytes| bytes == b"up\n");
        Self { process }
    }

    /// The process.
    #[must_use]
    pub fn pid(&self) -> Pid {
        self.process.pid()
    }

    /// Sends datagrams to port 40,001 of the loopback inside.
    pub fn send(&self, count: u64) {
        let program = "import socket, sys\n\
                       s = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)\n\
                       for i in range(int(sys.argv[1])): s.sendto(b'x' * 100, ('127.0.0.1', 40001))";
        let python = python(program);
        let mut command = tool("nsenter");
        command.arg(format!("--net=/proc/{}/ns/net", self.pid())).arg(python.get_program());
        // An error may come back for each, since nobody listens.
        let _ = run(command.args(python.get_args()).arg(count.to_string()), 10);
    }

    /// Kills the process.
    pub fn kill(&mut self) {
        self.process.signal(Signal::SIGKILL);
        let _ = self.process.wait(5);
    }
}

impl Default for Container {
    fn default() -> Self {
        Self::new()
    }
}
