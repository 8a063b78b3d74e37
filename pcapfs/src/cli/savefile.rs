//! `pcapfs replay` and `pcapfs listen`: savefiles from the daemon to standard output or a file.

use std::fs::{self, File};
use std::io::{self, IsTerminal, Write};
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use tempfile::NamedTempFile;
use tokio::signal::unix::{Signal, SignalKind, signal};

use super::args::{Daemon, Listen, Replay};
use super::listing::bytes;
use super::{client, output};
use crate::control::chunks::{Part, Parts};
use crate::control::messages::{Format, ListenRequest, ReplayRequest};
use crate::daemon::Failure;

/// How often progress is shown.
const PROGRESS_INTERVAL: Duration = Duration::from_millis(200);

const fn format(pcapng: bool) -> i32 {
    (if pcapng { Format::Pcapng } else { Format::Pcap }) as i32
}

/// `pcapfs replay`.
pub(super) fn replay(replay: &Replay, daemon: &Daemon) -> Result<(), Failure> {
    client::check_local(&replay.capture)?;
    // What cannot be written is said before anything is fetched.
    let mut target = Target::open(replay.write.as_deref())?;
    let request = ReplayRequest {
        capture: replay.capture.clone(),
        format: format(replay.pcapng),
        live: replay.live,
    };
    client::receiving(daemon, |mut client| async move {
        let answer = client.replay(request).await.map_err(client::failure)?;
        let end = copy(client::parts(answer), &mut target).await?;
        // What was interrupted is whole only if it has no end of its own.
        if end == End::Interrupted && !replay.live {
            return Err(Failure::Answer("interrupted".to_owned()));
        }
        target.finish()
    })
}

/// `pcapfs listen`.
pub(super) fn listen(listen: &Listen, daemon: &Daemon) -> Result<(), Failure> {
    client::check_local(&listen.capture)?;
    let request = ListenRequest { capture: listen.capture.clone(), format: format(listen.pcapng) };
    client::receiving(daemon, |mut client| async move {
        let mut target = Target::open(None)?;
        let answer = client.listen(request).await.map_err(client::failure)?;
        copy(client::parts(answer), &mut target).await?;
        target.finish()
    })
}

/// How copying came to its end.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum End {
    /// There is no more.
    Complete,
    /// Nobody wants more.
    Unread,
    /// By a signal.
    Interrupted,
}

async fn copy(mut parts: Parts, target: &mut Target) -> Result<End, Failure> {
    let mut signals = if target.is_named_later() { Some(Signals::new()?) } else { None };
    let mut progress = Progress::new();
    let end = loop {
        let part = tokio::select! {
            biased;
            () = interrupted(signals.as_mut()) => break End::Interrupted,
            part = parts.next() => part,
        };
        match part {
            Ok(Some(Part::Total(total))) => progress.total = total,
            Ok(Some(Part::Data(bytes))) => {
                progress.add(bytes.len());
                if !target.write(&bytes)? {
                    break End::Unread;
                }
            }
            Ok(None) => break End::Complete,
            Err(status) => {
                progress.clear();
                return Err(client::failure(status));
            }
        }
    };
    progress.clear();
    Ok(end)
}

/// The signals that end a transfer in order.
///
/// Only where there is something to put in order: a program that waits for room in a pipe would
/// not end by a signal that is caught.
struct Signals {
    interrupt: Signal,
    terminate: Signal,
}

impl Signals {
    fn new() -> Result<Self, Failure> {
        let caught = |kind| signal(kind).map_err(Failure::System);
        Ok(Self {
            interrupt: caught(SignalKind::interrupt())?,
            terminate: caught(SignalKind::terminate())?,
        })
    }
}

/// Waits for a signal.
async fn interrupted(signals: Option<&mut Signals>) {
    let Some(signals) = signals else { return std::future::pending().await };
    tokio::select! {
        _ = signals.interrupt.recv() => {}
        _ = signals.terminate.recv() => {}
    }
}

/// Where a savefile goes.
#[derive(Debug)]
enum Target {
    Stdout,
    /// Something that is written to as it is, such as a FIFO.
    Device(File, PathBuf),
    /// A file that gets its name when it is complete.
    File(NamedTempFile, PathBuf),
}

impl Target {
    fn open(path: Option<&Path>) -> Result<Self, Failure> {
        let Some(path) = path.filter(|path| *path != Path::new("-")) else {
            return Ok(Self::Stdout);
        };
        // What a link leads to is replaced, not the link.
        let path = fs::canonicalize(path).unwrap_or_else(|_| path.to_owned());
        let failure = |error: io::Error| Failure::Answer(format!("{}: {error}", path.display()));
        match fs::metadata(&path) {
            Ok(found) if found.is_dir() => {
                Err(Failure::Answer(format!("{}: is a directory", path.display())))
            }
            Ok(found) if !found.is_file() => {
                let device = File::options().write(true).open(&path).map_err(failure)?;
                Ok(Self::Device(device, path))
            }
            found => {
                let folder = path.parent().filter(|parent| !parent.as_os_str().is_empty());
                let folder = folder.unwrap_or_else(|| Path::new("."));
                let mut builder = tempfile::Builder::new();
                builder.prefix(".pcapfs-");
                if let Ok(found) = found {
                    builder.permissions(found.permissions());
                } else {
                    // As tcpdump's; who may read packets is for the umask to say.
                    builder.permissions(fs::Permissions::from_mode(0o666));
                }
                // What it says names the file that was tried, which nobody has asked for.
                let file = builder.tempfile_in(folder).map_err(|error| {
                    let (path, folder) = (path.display(), folder.display());
                    Failure::Answer(match error.kind() {
                        io::ErrorKind::NotFound => format!(
                            "{path}: no such directory: {folder} (make it with: mkdir -p {folder})"
                        ),
                        why => format!(
                            "{path}: no file can be made in {folder}: {why} (name another with -w)"
                        ),
                    })
                })?;
                Ok(Self::File(file, path))
            }
        }
    }

    const fn is_named_later(&self) -> bool {
        matches!(self, Self::File(..))
    }

    /// Writes, and says whether there is somebody to read more.
    fn write(&mut self, bytes: &[u8]) -> Result<bool, Failure> {
        let (result, path) = match self {
            Self::Stdout => return output::print_on(bytes).map_err(Failure::System),
            Self::Device(file, path) => (file.write_all(bytes), path),
            Self::File(file, path) => (file.write_all(bytes), path),
        };
        match result {
            Ok(()) => Ok(true),
            Err(error) if error.kind() == io::ErrorKind::BrokenPipe => Ok(false),
            Err(error) => Err(Failure::Answer(format!("{}: {error}", path.display()))),
        }
    }

    /// Gives a file its name, once it is on the disk.
    fn finish(self) -> Result<(), Failure> {
        let Self::File(file, path) = self else { return Ok(()) };
        let named = file.as_file().sync_all().and_then(|()| {
            file.persist(&path)?;
            // The name as well; where directories cannot be synced, nobody could do more.
            let folder = path.parent().map(File::open);
            let _ = folder.and_then(Result::ok).map(|folder| folder.sync_all());
            Ok(())
        });
        named.map_err(|error| Failure::Answer(format!("{}: {error}", path.display())))
    }
}

/// What is shown of a transfer on a terminal.
struct Progress {
    is_shown: bool,
    began: Instant,
    shown: Option<Instant>,
    done: u64,
    total: u64,
}

impl Progress {
    fn new() -> Self {
        let is_shown = io::stderr().is_terminal();
        Self { is_shown, began: Instant::now(), shown: None, done: 0, total: 0 }
    }

    fn add(&mut self, bytes: usize) {
        self.done += bytes as u64;
        if !self.is_shown || self.shown.is_some_and(|when| when.elapsed() < PROGRESS_INTERVAL) {
            return;
        }
        self.shown = Some(Instant::now());
        output::progress(&self.text());
    }

    fn text(&self) -> String {
        let milliseconds = u64::try_from(self.began.elapsed().as_millis()).unwrap_or(u64::MAX);
        let rate = bytes(self.done.saturating_mul(1000) / milliseconds.max(1));
        let done = bytes(self.done);
        match self.done.saturating_mul(100).checked_div(self.total) {
            Some(percent) => {
                format!("{done} of {} ({}%), {rate}/s", bytes(self.total), percent.min(100))
            }
            None => format!("{done}, {rate}/s"),
        }
    }

    fn clear(&self) {
        if self.shown.is_some() {
            output::progress("");
        }
    }
}
