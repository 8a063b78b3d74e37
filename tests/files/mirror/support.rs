//! A daemon that captures, and another one that follows its captures.

use std::fs;
use std::path::Path;

use pcapfs_tests::savefile::check_prefix;
use pcapfs_tests::{Daemon, Fifo, Mount, wait_until};
use tempfile::TempDir;

/// The far daemon's surroundings, which outlive it: rings, socket, and the FIFO of its capture
/// `web`; and the near daemon's `remotes.toml`, which calls it `far`.
pub(crate) struct Site {
    pub(crate) folder: TempDir,
    rings: TempDir,
    pub(crate) fifo: Fifo,
}

impl Site {
    pub(crate) fn new() -> Self {
        let folder = tempfile::tempdir().unwrap();
        let site =
            Self { rings: tempfile::tempdir_in("/dev/shm").unwrap(), fifo: Fifo::new(), folder };
        fs::create_dir_all(site.folder.path().join("far")).unwrap();
        fs::create_dir_all(site.folder.path().join("near-rings")).unwrap();
        fs::create_dir_all(site.config().join("pcapfs")).unwrap();
        site.remotes(&format!("[far]\nurl = \"pcap+unix://{}\"\n", site.socket().display()));
        site
    }

    /// Writes `remotes.toml` of the near daemon.
    pub(crate) fn remotes(&self, text: &str) {
        fs::write(self.config().join("pcapfs/remotes.toml"), text).unwrap();
    }

    /// The near daemon's `$XDG_CONFIG_HOME`.
    pub(crate) fn config(&self) -> std::path::PathBuf {
        self.folder.path().join("config")
    }

    /// The far daemon's socket.
    pub(crate) fn socket(&self) -> std::path::PathBuf {
        self.folder.path().join("far.sock")
    }

    pub(crate) fn rings(&self) -> &Path {
        self.rings.path()
    }

    /// The far daemon, with the capture `web` of the FIFO.
    pub(crate) fn far(&self) -> Daemon {
        self.far_mount().capture("web", &self.fifo.source()).start()
    }

    pub(crate) fn far_mount(&self) -> Mount {
        Mount::new().socket(&self.socket()).ring_dir(self.rings())
    }

    /// A near daemon, without captures yet.
    pub(crate) fn near_mount(&self) -> Mount {
        Mount::new().env("XDG_CONFIG_HOME", self.config())
    }

    /// The near daemon, whose capture `web` follows the far one.
    pub(crate) fn near(&self) -> Daemon {
        self.near_mount().capture("web", "remote:far/web").start()
    }
}

/// Waits until the near capture has all packets up to number `last`, and checks them: each once,
/// in order, unchanged.
#[track_caller]
pub(crate) fn wait_same(near: &Daemon, alias: &str, last: u64) {
    wait_until(&format!("{alias} has packet {last}"), 30, || {
        near.count(alias, "/packets/seen") >= last
    });
    assert_eq!(sequences(near, alias), Vec::from_iter(1..=last));
    let count = |pointer: &str| near.count(alias, pointer);
    assert_eq!((count("/packets/lost_remote"), count("/packets/stored")), (0, last));
}

/// The numbers of the packets that a capture retains, in rising order.
#[track_caller]
pub(crate) fn sequences(daemon: &Daemon, alias: &str) -> Vec<u64> {
    let bytes = fs::read(daemon.path(&format!("{alias}/replay.pcap"))).unwrap();
    let prefix = check_prefix(&bytes).unwrap();
    assert_eq!(prefix.rest, 0, "the file ends with a packet");
    prefix.sequences
}
