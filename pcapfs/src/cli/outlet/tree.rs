//! The mounted tree of the daemon: where it is, and its files.
//!
//! The control socket says which daemon answers, and a tree says whose it is. A tree counts if both
//! say the same process and start, so that another daemon's tree is never shown as this one's.
//! Reads of a tree whose daemon hangs do not return, so they take place on other threads, and
//! their number is bounded.

use std::fs::{self, File};
use std::io::{self, Read};
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::{Duration, Instant};

use parking_lot::Mutex;
use ring::digest::{SHA256, digest};
use serde_json::Value;
use tokio::sync::Semaphore;
use tokio::task::spawn_blocking;
use tokio::time::timeout;

use super::daemon::DaemonLink;
use super::trouble::Trouble;
use crate::fuse::mounted_trees;

/// Maximum number of reads of the tree at a time.
const READS: usize = 32;

/// The time after which a tree that does not answer is reported.
const PATIENCE: Duration = Duration::from_secs(10);

/// The time for which a tree that was found is not looked for again.
const FRESH: Duration = Duration::from_secs(1);

/// Maximum number of bytes of `status.json` to read: ten thousand captures.
const MAX_STATUS: u64 = 4 << 20;

/// The identity of a daemon, different from the one before and the one after: hexadecimal digits.
pub(in crate::cli) type Generation = Arc<str>;

/// A tree of a daemon.
#[derive(Clone, Debug)]
pub(in crate::cli) struct DaemonTree {
    root: Arc<Path>,
    pub(in crate::cli) generation: Generation,
}

/// Finds the tree, and reads it on other threads.
#[derive(Debug)]
pub(in crate::cli) struct TreeReader {
    known: Mutex<Option<(Instant, DaemonTree)>>,
    reads: Arc<Semaphore>,
}

/// A process and the time of its start, as a `status.json` of the root has them.
#[derive(Clone, Debug, PartialEq, Eq)]
struct DaemonIdentity {
    process: u64,
    started: String,
}

impl DaemonIdentity {
    fn of(status: &Value) -> Option<Self> {
        let process = status.get("pid")?.as_u64()?;
        let started = status.get("started")?.as_str()?.to_owned();
        Some(Self { process, started })
    }

    fn generation(&self) -> Generation {
        let text = format!("{} {}", self.process, self.started);
        let digest = digest(&SHA256, text.as_bytes());
        digest.as_ref().iter().take(6).map(|byte| format!("{byte:02x}")).collect::<String>().into()
    }
}

impl Default for TreeReader {
    fn default() -> Self {
        Self { known: Mutex::new(None), reads: Arc::new(Semaphore::new(READS)) }
    }
}

impl TreeReader {
    /// The tree of the daemon.
    ///
    /// # Errors
    /// The daemon does not answer, or has no tree here.
    pub(in crate::cli) async fn tree(&self, daemon: &DaemonLink) -> Result<DaemonTree, Trouble> {
        if let Some((seen, tree)) = &*self.known.lock()
            && seen.elapsed() < FRESH
        {
            return Ok(tree.clone());
        }
        let status = daemon.status().await?;
        let none = || {
            Trouble::unavailable(
                "this daemon has no tree mounted here, and flows are files of the tree (mount one \
                 with: pcapfs mount SOURCE DIR); captures and savefile streams work without",
            )
        };
        let identity = DaemonIdentity::of(&status).ok_or_else(none)?;
        let found = self.read(move || Ok::<_, Trouble>(find(&identity))).await?;
        let tree = found.ok_or_else(none)?;
        *self.known.lock() = Some((Instant::now(), tree.clone()));
        Ok(tree)
    }

    /// The tree that was found last, if it was lately.
    pub(in crate::cli) fn known(&self) -> Option<DaemonTree> {
        self.known.lock().as_ref().map(|(_, tree)| tree.clone())
    }

    /// Forgets the tree, so that it is looked for again at once.
    pub(in crate::cli) fn forget(&self) {
        *self.known.lock() = None;
    }

    /// Reads something of a tree on another thread.
    ///
    /// # Errors
    /// Those of `read`; and it did not answer in time, or too many reads wait.
    pub(in crate::cli) async fn read<T: Send + 'static, E: From<Trouble> + Send + 'static>(
        &self,
        read: impl FnOnce() -> Result<T, E> + Send + 'static,
    ) -> Result<T, E> {
        let slow = || E::from(Trouble::unavailable("the mounted tree does not answer"));
        let room = timeout(PATIENCE, Arc::clone(&self.reads).acquire_owned()).await;
        let room = room.map_err(|_| slow())?.map_err(|_| slow())?;
        let task = spawn_blocking(move || {
            let done = read();
            // Held also when the request has given up.
            drop(room);
            done
        });
        timeout(PATIENCE, task).await.map_err(|_| slow())?.map_err(|_| slow())?
    }
}

/// Looks for the tree of a daemon.
fn find(identity: &DaemonIdentity) -> Option<DaemonTree> {
    // Trees that hang are asked too; the caller does not wait for ever.
    mounted_trees().into_iter().find_map(|root: PathBuf| {
        let status = status(&root).ok()?;
        (DaemonIdentity::of(&status)? == *identity)
            .then(|| DaemonTree { root: root.into(), generation: identity.generation() })
    })
}

/// The `status.json` in a directory.
fn status(directory: &Path) -> io::Result<Value> {
    let mut text = Vec::new();
    File::open(directory.join("status.json"))?.take(MAX_STATUS).read_to_end(&mut text)?;
    serde_json::from_slice(&text).map_err(io::Error::other)
}

impl DaemonTree {
    /// The directory of a capture.
    pub(in crate::cli) fn capture(&self, alias: &str) -> CaptureDirectory {
        CaptureDirectory(self.root.join(alias))
    }
}

/// The directory of a capture in the tree.
#[derive(Clone, Debug)]
pub(in crate::cli) struct CaptureDirectory(PathBuf);

impl CaptureDirectory {
    /// A path in it.
    pub(in crate::cli) fn path(&self, name: &str) -> PathBuf {
        self.0.join(name)
    }

    /// The number of lines that have left one of its logs.
    ///
    /// # Errors
    /// Those of reading `status.json`.
    pub(in crate::cli) fn dropped_lines(&self, log: &str) -> io::Result<u64> {
        let status = status(&self.0)?;
        let by_log = status.get("flows").and_then(|flows| flows.get("log_lines_dropped_by"));
        let dropped = by_log.and_then(|logs| logs.get(log)).and_then(Value::as_u64);
        dropped
            .ok_or_else(|| io::Error::other("the daemon is too old to say what its logs dropped"))
    }

    /// The name of a flow's directory, looked for among all.
    ///
    /// # Errors
    /// Those of listing.
    pub(in crate::cli) fn flow_name(&self, flow: u64) -> io::Result<Option<String>> {
        let beginning = format!("{flow:06}-");
        for entry in fs::read_dir(self.path("flows"))? {
            let name = entry?.file_name();
            if let Some(name) = name.to_str().filter(|name| name.starts_with(&beginning)) {
                return Ok(Some(name.to_owned()));
            }
        }
        Ok(None)
    }

    /// The directory of the flow with this name.
    pub(in crate::cli) fn flow(&self, name: &str) -> PathBuf {
        self.path("flows").join(name)
    }
}

#[cfg(test)]
pub(in crate::cli) mod tests {
    use serde_json::json;

    use super::*;

    /// The directory of a capture that is a folder of a test.
    pub(in crate::cli) fn directory_at(folder: &Path) -> CaptureDirectory {
        CaptureDirectory(folder.to_owned())
    }

    #[test]
    fn daemons_are_told_apart() {
        let identity = |pid, started: &str| {
            DaemonIdentity::of(&json!({"pid": pid, "started": started})).unwrap()
        };
        let one = identity(7, "2026-01-31T23:59:59.000000000Z");
        assert_eq!(one.generation().len(), 12);
        assert_eq!(one.generation(), one.clone().generation());
        assert_ne!(one.generation(), identity(8, &one.started).generation());
        assert!(DaemonIdentity::of(&json!({"pid": 7})).is_none());
    }
}
