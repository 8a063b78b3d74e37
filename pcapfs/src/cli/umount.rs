//! `pcapfs umount`: takes a tree down.

use std::fs;
use std::path::PathBuf;
use std::time::{Duration, Instant};

use clap::Args;
use clap_complete::engine::ArgValueCandidates;

use super::complete;
use crate::failure::Failure;
use crate::fuse;
use crate::paths::absolute;
use crate::process::ProcessStatus;

/// A tree to be taken down.
#[derive(Debug, Args)]
pub(super) struct Umount {
    /// Where the tree is mounted
    #[arg(add = ArgValueCandidates::new(complete::trees))]
    mountpoint: PathBuf,
}

/// How long `umount` waits for the daemon to end, which then has nothing else left to do. A daemon
/// that is stuck ends itself after five seconds.
const UMOUNT_PATIENCE: Duration = Duration::from_secs(6);

/// `pcapfs umount`.
pub(super) fn run(umount: &Umount) -> Result<(), Failure> {
    let mountpoint = absolute(&umount.mountpoint).map_err(Failure::System)?;
    // The daemon is not known if it has died, or if the tree cannot be read.
    let daemon = fs::read(mountpoint.join("status.json"))
        .ok()
        .and_then(|status| serde_json::from_slice::<serde_json::Value>(&status).ok())
        .and_then(|status| status.get("pid")?.as_u64());
    fuse::unmount(&mountpoint, fuse::UnmountManner::Clean).map_err(Failure::Mount)?;
    // So that the next mount finds the rings free.
    let begun = Instant::now();
    while let Some(pid) = daemon.filter(|pid| is_alive(*pid)) {
        if begun.elapsed() >= UMOUNT_PATIENCE {
            return Err(Failure::Answer(format!(
                "{}: unmounted, but its daemon (process {pid}) goes on: another mount namespace may \
                 have the tree too (kill {pid} ends it)",
                mountpoint.display()
            )));
        }
        std::thread::sleep(Duration::from_millis(5));
    }
    Ok(())
}

/// Returns `true` if a daemon exists and has not ended; a zombie has ended. The number of a daemon
/// in another PID namespace may belong to another program here.
fn is_alive(pid: u64) -> bool {
    let status = ProcessStatus::of(pid);
    status.field("Name").is_some_and(|name| name.starts_with("pcapfs"))
        && status.field("State").is_some_and(|state| !state.starts_with(['Z', 'X']))
}
