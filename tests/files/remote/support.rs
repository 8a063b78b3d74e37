//! Two machines on one wire: the far one has a daemon with the service, the near one its clients.

use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;

use nix::sys::signal::Signal;
use pcapfs_tests::{Daemon, Fed, Finished, Mount, Net, Running, binary, run, tool, wait_until};
use tempfile::TempDir;

/// The port of the service.
pub(crate) const PORT: u16 = 2020;

/// A command of pcapfs.
pub(crate) fn pcapfs() -> Command {
    tool(binary("pcapfs").to_str().expect("test paths are text"))
}

/// The far machine with a daemon, and the near one with a file of remotes.
pub(crate) struct Far {
    /// The daemon, in `net.a`, with the capture `web`.
    pub(crate) fed: Fed,
    pub(crate) net: Net,
    folder: TempDir,
}

impl Far {
    /// With this after `listen` and `identity` in `[remote]`.
    #[track_caller]
    pub(crate) fn new(clients: &str) -> Self {
        Self::mounted(clients, Mount::new())
    }

    /// With further arguments of the daemon.
    #[track_caller]
    pub(crate) fn mounted(clients: &str, mount: Mount) -> Self {
        Self::configured(mount, |folder| {
            let names = format!("far.example,{}", Net::ADDRESS);
            let identity = folder.join("identity");
            let mut init = pcapfs();
            init.args(["identity", "init", "--name", &names, "--dir"]).arg(&identity);
            let _ = run(&mut init, 10).success();
            Self::config(&identity, clients)
        })
    }

    /// With the configuration that `configure` returns; it may make files in the folder of the test.
    #[track_caller]
    pub(crate) fn configured(mount: Mount, configure: impl FnOnce(&Path) -> String) -> Self {
        let folder = tempfile::tempdir().expect("a folder for the test");
        let net = Net::new();
        let config = folder.path().join("pcapfs.toml");
        fs::write(&config, configure(folder.path())).expect("our own folder");
        let mount = mount.inside(&net.a).arg("--config").arg(&config);
        let fed = Fed::with(mount);
        Self { fed, net, folder }
    }

    /// With a client `laptop-7` that maps to root, and the remote `far`.
    #[track_caller]
    pub(crate) fn with_root() -> Self {
        Self::with_root_mounted(Mount::new())
    }

    /// The same, with further arguments of the daemon.
    #[track_caller]
    pub(crate) fn with_root_mounted(mount: Mount) -> Self {
        let clients = "[[remote.client]]\nname = \"laptop-7\"\nuser = \"root\"\n";
        let far = Self::mounted(clients, mount);
        far.add("far", "laptop-7");
        far
    }

    fn config(identity: &Path, clients: &str) -> String {
        let identity = identity.display();
        format!("[remote]\nlisten = \"{}\"\nidentity = \"{identity}\"\n{clients}", Net::ADDRESS)
    }

    pub(crate) const fn daemon(&self) -> &Daemon {
        &self.fed.daemon
    }

    /// A file of the test.
    pub(crate) fn path(&self, name: &str) -> PathBuf {
        self.folder.path().join(name)
    }

    /// Runs `pcapfs identity` of the far machine.
    #[track_caller]
    pub(crate) fn identity(&self, words: &[&str]) -> Finished {
        let mut command = pcapfs();
        command.arg("identity").args(words).arg("--dir").arg(self.path("identity"));
        run(&mut command, 10).success()
    }

    /// Issues a certificate, and makes a remote of this name that shows it.
    #[track_caller]
    pub(crate) fn add(&self, remote: &str, client: &str) {
        let file = self.path(&format!("{client}.pem"));
        if !file.exists() {
            let _ = self.identity(&["issue", client, "-o", file.to_str().expect("text")]);
        }
        self.add_url(remote, &format!("pcap://{}", Net::ADDRESS), &file);
    }

    /// Makes a remote.
    #[track_caller]
    pub(crate) fn add_url(&self, remote: &str, url: &str, identity: &Path) {
        let mut command = self.command(["remote", "add", remote, url, "--identity"]);
        command.arg(identity);
        let _ = self.run(&mut command).success();
    }

    /// A command of the near machine.
    pub(crate) fn command<const N: usize>(&self, words: [&str; N]) -> Command {
        let mut command = pcapfs();
        command.args(words).env("XDG_CONFIG_HOME", self.path("config"));
        command.env("PCAPFS_SOCKET", self.path("no.sock"));
        command
    }

    /// Runs a command on the near machine.
    #[track_caller]
    pub(crate) fn run(&self, command: &mut Command) -> Finished {
        self.net.b.run(|| run(command, 30))
    }

    /// Starts a command on the near machine.
    pub(crate) fn spawn(&self, command: &mut Command) -> Running {
        self.net.b.run(|| Running::spawn(command))
    }

    /// The output of a command that must succeed.
    #[track_caller]
    pub(crate) fn verb<const N: usize>(&self, words: [&str; N]) -> String {
        self.run(&mut self.command(words)).success().text().to_owned()
    }

    /// The message of a command that must fail.
    #[track_caller]
    pub(crate) fn refused<const N: usize>(&self, words: [&str; N]) -> String {
        let finished = self.run(&mut self.command(words));
        assert_eq!(finished.status.code(), Some(1), "{finished:?}");
        finished.stderr
    }

    /// Waits until the daemon has printed this.
    #[track_caller]
    pub(crate) fn wait_log(&self, part: &str) {
        wait_until(part, 10, || self.daemon().stderr().contains(part));
    }

    /// Gives the daemon other clients.
    #[track_caller]
    pub(crate) fn reload(&self, clients: &str) {
        let config = Self::config(&self.path("identity"), clients);
        fs::write(self.path("pcapfs.toml"), config).expect("our own folder");
        let before = self.daemon().stderr().matches("read again").count();
        self.daemon().signal(Signal::SIGHUP);
        wait_until("the configuration is read again", 10, || {
            self.daemon().stderr().matches("read again").count() > before
        });
    }
}

/// Checks that a message has these parts.
#[track_caller]
pub(crate) fn says(text: &str, parts: &[&str]) {
    for part in parts {
        assert!(text.contains(part), "{part:?} is not in {text:?}");
    }
}
