//! Users that no account has, for tests about permissions.

use std::process::Command;

use crate::daemon::{Daemon, SOCKET, binary};
use crate::process::{Finished, run, tool};

/// A user by numbers. Only root can run commands as one.
#[derive(Clone, Copy, Debug)]
pub struct User {
    /// User id.
    pub id: u32,
    /// Group id.
    pub group: u32,
    /// Supplementary groups.
    pub groups: &'static [u32],
}

impl User {
    /// A command that runs as this user.
    #[must_use]
    pub fn command(self, program: &str) -> Command {
        let mut command = tool("setpriv");
        command.arg(format!("--reuid={}", self.id)).arg(format!("--regid={}", self.group));
        if self.groups.is_empty() {
            command.arg("--clear-groups");
        } else {
            let groups: Vec<String> = self.groups.iter().map(u32::to_string).collect();
            command.arg(format!("--groups={}", groups.join(",")));
        }
        command.arg(program);
        command
    }

    /// Runs a `pcapfs` command of this user for a daemon.
    #[track_caller]
    pub fn verb(self, daemon: &Daemon, words: &[&str]) -> Finished {
        let mut command = self.command(binary("pcapfs").to_str().expect("test paths are text"));
        run(command.args(words).env(SOCKET, daemon.socket()), 10)
    }
}
