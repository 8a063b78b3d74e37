//! `pcapfs replay` and `pcapfs listen`: savefiles from the daemon to standard output or a file.

use std::fs::{self, File};
use std::io::{self, IsTerminal, Write};
use std::os::fd::{AsFd, OwnedFd};
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};
use std::thread;
use std::time::{Duration, Instant};

use capture::savefile::FilteredSavefile;
use clap::{Args, ValueEnum};
use clap_complete::engine::ArgValueCompleter;
use nix::errno::Errno;
use nix::poll::{PollFd, PollFlags, PollTimeout, poll};
use nix::sys::stat::{Mode, umask};
use serde_json::Value;
use tempfile::NamedTempFile;
use tokio::signal::unix::{Signal, SignalKind, signal};
use tokio::sync::{oneshot, watch};

use super::client::{self, DaemonSocket, Receiver};
use super::complete;
use super::listing::{bytes, rate};
use crate::control::chunks::{MessagePart, MessageParts};
use crate::control::messages::{
    FlowPacketsRequest, Format, ListRequest, ListenRequest, ReplayRequest,
};
use crate::failure::Failure;
use crate::output;

/// How often progress is shown.
const PROGRESS_INTERVAL: Duration = Duration::from_millis(200);

/// A savefile to be fetched.
#[derive(Debug, Args)]
pub(super) struct Replay {
    /// Name or number of the capture
    #[arg(value_name = "[REMOTE:]ALIAS", add = ArgValueCompleter::new(complete::captures_of))]
    pub(super) capture: String,

    /// Go on with new packets after those that are retained
    #[arg(long)]
    pub(super) live: bool,

    #[command(flatten)]
    pub(super) output: Output,
}

/// The place and the format of a savefile.
#[derive(Debug, Args)]
pub(super) struct Output {
    /// Write to FILE, which appears under its name when it is complete; - for standard output
    #[arg(short, long, value_name = "FILE")]
    pub(super) write: Option<PathBuf>,

    /// Format of the savefile [default: pcapng if FILE ends in .pcapng, otherwise pcap]
    #[arg(long, value_name = "FORMAT", value_parser = ["pcap", "pcapng"])]
    pub(super) format: Option<String>,

    /// The same as --format pcapng
    #[arg(long, conflicts_with = "format")]
    pub(super) pcapng: bool,
}

/// Packets to be listened to.
#[derive(Debug, Args)]
pub(super) struct Listen {
    /// Name or number of the capture
    #[arg(value_name = "[REMOTE:]ALIAS", add = ArgValueCompleter::new(complete::captures_of))]
    pub(super) capture: String,

    #[command(flatten)]
    pub(super) output: Output,
}

/// The packets of a capture that a savefile has.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub(super) enum PacketRange {
    /// From the next packet on.
    Live,
    /// From the oldest packet that is retained, and on with new ones.
    Follow,
    /// Those retained, without new ones.
    Replay,
}

impl PacketRange {
    /// Asks the daemon for a savefile of these packets.
    ///
    /// # Errors
    /// The daemon's refusal.
    pub(super) async fn request(
        self,
        client: &mut Receiver,
        capture: String,
        format: Format,
    ) -> Result<MessageParts, Failure> {
        let format = format.into();
        let answer = match self {
            Self::Live => {
                let request = ListenRequest { capture, format };
                client.listen(request).await.map(client::parts)
            }
            Self::Follow | Self::Replay => {
                let live = self == Self::Follow;
                let request = ReplayRequest { capture, format, live };
                client.replay(request).await.map(client::parts)
            }
        };
        answer.map_err(client::failure)
    }
}

/// The format of the options, or else of the file name's extension.
fn format(output: &Output) -> Format {
    let end = output.write.as_deref().and_then(Path::extension);
    let named = match end.map(|end| end.to_ascii_lowercase()) {
        Some(end) if end == "pcapng" || end == "ntar" => Some(Format::Pcapng),
        Some(end) if end == "pcap" => Some(Format::Pcap),
        _ => None,
    };
    let given = match output.format.as_deref() {
        Some("pcapng") => Some(Format::Pcapng),
        Some(_) => Some(Format::Pcap),
        None => output.pcapng.then_some(Format::Pcapng),
    };
    if let (Some(given), Some(named), Some(path)) = (given, named, &output.write)
        && given != named
    {
        let format = if given == Format::Pcapng { "pcapng" } else { "pcap" };
        output::say(format_args!("{} gets {format}, whatever its name says", path.display()));
    }
    given.or(named).unwrap_or(Format::Pcap)
}

/// `pcapfs replay`.
pub(super) fn replay(replay: &Replay, daemon: &DaemonSocket) -> Result<(), Failure> {
    let (daemon, capture) = &daemon.of(&replay.capture)?;
    // A file that cannot be written is reported before any packet is transferred.
    let mut target = OutputTarget::open(&replay.output)?;
    let range = if replay.live { PacketRange::Follow } else { PacketRange::Replay };
    let format = format(&replay.output);
    target.set_mode(capture, daemon)?;
    client::receiving(daemon, |mut client| async move {
        let parts = range.request(&mut client, (*capture).to_owned(), format).await?;
        let end = copy(parts, &mut target, None).await?;
        // After an interruption, a transfer is complete only if it has no end of its own.
        if end == CopyEnd::Interrupted && !replay.live {
            return Err(Failure::Answer("interrupted".to_owned()));
        }
        target.finish()
    })
}

/// `pcapfs listen`.
pub(super) fn listen(listen: &Listen, daemon: &DaemonSocket) -> Result<(), Failure> {
    let (daemon, capture) = &daemon.of(&listen.capture)?;
    let mut target = OutputTarget::open(&listen.output)?;
    let format = format(&listen.output);
    target.set_mode(capture, daemon)?;
    client::receiving(daemon, |mut client| async move {
        let parts = PacketRange::Live.request(&mut client, (*capture).to_owned(), format).await?;
        copy(parts, &mut target, None).await?;
        target.finish()
    })
}

/// Writes the packets of a flow, as pcap.
///
/// # Errors
/// Those of the request, and of writing.
pub(super) fn flow_packets(
    request: FlowPacketsRequest,
    write: Option<PathBuf>,
    daemon: &DaemonSocket,
) -> Result<(), Failure> {
    let output = Output { write, format: Some("pcap".to_owned()), pcapng: false };
    let mut target = OutputTarget::open(&output)?;
    // Says so if the name of the file promises another format.
    format(&output);
    target.set_mode(&request.capture, daemon)?;
    client::receiving(daemon, |mut client| async move {
        let answer = client.flow_packets(request).await.map_err(client::failure)?;
        match copy(client::parts(answer), &mut target, None).await? {
            CopyEnd::Interrupted => Err(Failure::Answer("interrupted".to_owned())),
            CopyEnd::Complete | CopyEnd::Unread => target.finish(),
        }
    })
}

/// Why the copy ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum CopyEnd {
    /// All bytes have come.
    Complete,
    /// No program reads the output any more.
    Unread,
    /// A signal came.
    Interrupted,
}

/// Copies a savefile to its target, or those of its packets that pass `filter`.
pub(super) async fn copy(
    mut parts: MessageParts,
    target: &mut OutputTarget,
    mut filter: Option<FilteredSavefile>,
) -> Result<CopyEnd, Failure> {
    let mut passed = Vec::new();
    let mut signals = if target.is_named_later() { Some(TransferSignals::new()?) } else { None };
    let mut reader = target.reader();
    let mut progress = TransferProgress::new();
    let end = loop {
        let part = tokio::select! {
            biased;
            () = interrupted(signals.as_mut()) => break CopyEnd::Interrupted,
            () = gone(&mut reader) => break CopyEnd::Unread,
            part = parts.next() => part,
        };
        match part {
            Ok(Some(MessagePart::Total(total))) => progress.total = total,
            // Readers of pcapng find it in a comment, and all in readers.jsonl.
            Ok(Some(MessagePart::Lost(_))) => {}
            Ok(Some(MessagePart::Data(bytes))) => {
                progress.add(bytes.len());
                let bytes = match &mut filter {
                    None => &*bytes,
                    Some(filter) => {
                        passed.clear();
                        let pushed = filter.push(&bytes, &mut passed);
                        pushed.map_err(|error| Failure::Answer(error.to_string()))?;
                        &passed
                    }
                };
                if !target.write(bytes)? {
                    break CopyEnd::Unread;
                }
            }
            Ok(None) => break CopyEnd::Complete,
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
/// They are caught only for targets that need cleaning up: a program that waits for room in a pipe
/// would not end by a signal that it catches.
pub(super) struct TransferSignals {
    interrupt: Signal,
    terminate: Signal,
}

impl TransferSignals {
    /// Catches them from now on.
    pub(super) fn new() -> Result<Self, Failure> {
        let caught = |kind| signal(kind).map_err(Failure::System);
        Ok(Self {
            interrupt: caught(SignalKind::interrupt())?,
            terminate: caught(SignalKind::terminate())?,
        })
    }

    /// Catches them from now on, for a program of several tasks: true once one has come.
    pub(super) fn stopping() -> Result<watch::Receiver<bool>, Failure> {
        let mut signals = Self::new()?;
        let (stop, stopping) = watch::channel(false);
        tokio::spawn(async move {
            signals.any().await;
            // Fails only after the end.
            let _ = stop.send(true);
        });
        Ok(stopping)
    }

    /// Waits for one of them.
    pub(super) async fn any(&mut self) {
        tokio::select! {
            _ = self.interrupt.recv() => {}
            _ = self.terminate.recv() => {}
        }
    }
}

/// Waits for a signal.
async fn interrupted(signals: Option<&mut TransferSignals>) {
    match signals {
        Some(signals) => signals.any().await,
        None => std::future::pending().await,
    }
}

/// Waits until no program reads the output any more. A write would find that out only with the next
/// packet.
async fn gone(reader: &mut Option<oneshot::Receiver<()>>) {
    if let Some(receiver) = reader
        && receiver.await.is_ok()
    {
        return;
    }
    // There is no way to find out.
    *reader = None;
    std::future::pending().await
}

/// Reports when no program has the other end of a pipe any more; never for a target without such an
/// end.
fn watch_reader(writer: OwnedFd) -> oneshot::Receiver<()> {
    let (sender, receiver) = oneshot::channel();
    // It ends with the process. It is a thread, since waiting for an error in another way needs
    // unsafe code.
    thread::spawn(move || {
        loop {
            let mut fds = [PollFd::new(writer.as_fd(), PollFlags::empty())];
            match poll(&mut fds, PollTimeout::NONE) {
                Ok(_) if fds.iter().any(|fd| fd.any().unwrap_or(false)) => {
                    let _ = sender.send(());
                    return;
                }
                Ok(_) | Err(Errno::EINTR) => {}
                Err(_) => return,
            }
        }
    });
    receiver
}

/// The target of a savefile.
#[derive(Debug)]
pub(super) enum OutputTarget {
    Stdout,
    /// A file that is written to in place, such as a FIFO.
    Device(File, PathBuf),
    /// A file that gets its name when it is complete, and whether no file had that name before.
    File(NamedTempFile, PathBuf, bool),
}

impl OutputTarget {
    /// A FIFO that another program reads.
    ///
    /// # Blocking
    /// Until that program has opened it.
    pub(super) fn fifo(path: &Path) -> Result<Self, Failure> {
        Ok(Self::Device(Self::device(path)?, path.to_owned()))
    }

    fn device(path: &Path) -> Result<File, Failure> {
        let device = File::options().write(true).open(path);
        device.map_err(|error| Failure::Answer(format!("{}: {error}", path.display())))
    }

    fn open(output: &Output) -> Result<Self, Failure> {
        let Some(path) = output.write.as_deref() else {
            return if io::stdout().is_terminal() {
                Err(Failure::Argument(
                    "standard output is a terminal, and packets are no text: write them to a file \
                     with -w FILE, or into a program, as with: | tcpdump -n -r -"
                        .to_owned(),
                ))
            } else {
                Ok(Self::Stdout)
            };
        };
        if path == Path::new("-") {
            return Ok(Self::Stdout);
        }
        // The target of a link is replaced, not the link.
        let path = fs::canonicalize(path).unwrap_or_else(|_| path.to_owned());
        match fs::metadata(&path) {
            Ok(found) if found.is_dir() => {
                Err(Failure::Answer(format!("{}: is a directory", path.display())))
            }
            Ok(found) if !found.is_file() => Ok(Self::Device(Self::device(&path)?, path)),
            found => {
                let folder = path.parent().filter(|parent| !parent.as_os_str().is_empty());
                let folder = folder.unwrap_or_else(|| Path::new("."));
                let mut builder = tempfile::Builder::new();
                builder.prefix(".pcapfs-");
                let is_new = found.is_err();
                // A new file gets the permissions of the capture's files, as soon as they are
                // known.
                if let Ok(found) = found {
                    builder.permissions(found.permissions());
                }
                // The error would name the temporary file, which the user does not know.
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
                Ok(Self::File(file, path, is_new))
            }
        }
    }

    /// Gives a new file the permission bits of the capture's files, as cp(1) does, without the bits
    /// of the umask.
    fn set_mode(&self, capture: &str, daemon: &DaemonSocket) -> Result<(), Failure> {
        let Self::File(file, path, true) = self else { return Ok(()) };
        let request = ListRequest { capture: capture.to_owned() };
        let answer = client::with(daemon, |mut client| async move {
            client.list(request).await.map_err(client::failure)
        })?;
        let status = answer.into_inner().captures.into_iter().next().map(|one| one.status);
        let status = status.and_then(|text| serde_json::from_str::<Value>(&text).ok());
        let mode = status.as_ref().and_then(|status| status.get("mode")?.as_str());
        let mode = mode.and_then(|mode| u32::from_str_radix(mode, 8).ok()).unwrap_or(0o600);
        let mask = umask(Mode::empty());
        umask(mask);
        let bits = fs::Permissions::from_mode(mode & 0o666 & !mask.bits() | 0o200);
        let set = file.as_file().set_permissions(bits);
        set.map_err(|error| Failure::Answer(format!("{}: {error}", path.display())))
    }

    /// Reports when no program reads the output any more.
    fn reader(&self) -> Option<oneshot::Receiver<()>> {
        let descriptor = match self {
            Self::Stdout => io::stdout().as_fd().try_clone_to_owned().ok(),
            Self::Device(file, _) => file.as_fd().try_clone_to_owned().ok(),
            Self::File(..) => None,
        };
        descriptor.map(watch_reader)
    }

    const fn is_named_later(&self) -> bool {
        matches!(self, Self::File(..))
    }

    /// Writes bytes, and returns whether a program still reads them.
    fn write(&mut self, bytes: &[u8]) -> Result<bool, Failure> {
        let (result, path) = match self {
            Self::Stdout => return output::print_on(bytes).map_err(Failure::Output),
            Self::Device(file, path) => (file.write_all(bytes), path),
            Self::File(file, path, _) => (file.write_all(bytes), path),
        };
        match result {
            Ok(()) => Ok(true),
            Err(error) if error.kind() == io::ErrorKind::BrokenPipe => Ok(false),
            Err(error) => Err(Failure::Answer(format!("{}: {error}", path.display()))),
        }
    }

    /// Gives a file its name, once its bytes are on the disk.
    fn finish(self) -> Result<(), Failure> {
        let Self::File(file, path, _) = self else { return Ok(()) };
        let named = file.as_file().sync_all().and_then(|()| {
            file.persist(&path)?;
            // Syncs the name as well; if directories cannot be synced, there is no other way.
            let folder = path.parent().map(File::open);
            let _ = folder.and_then(Result::ok).map(|folder| folder.sync_all());
            Ok(())
        });
        named.map_err(|error| Failure::Answer(format!("{}: {error}", path.display())))
    }
}

/// Progress of a transfer, shown on a terminal.
struct TransferProgress {
    is_shown: bool,
    began: Instant,
    shown: Option<Instant>,
    done: u64,
    total: u64,
}

impl TransferProgress {
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
        let rate = rate(self.done, self.began.elapsed());
        let done = bytes(self.done);
        match self.done.saturating_mul(100).checked_div(self.total) {
            Some(percent) => {
                format!("{done} of {} ({}%), {rate}", bytes(self.total), percent.min(100))
            }
            None => format!("{done}, {rate}"),
        }
    }

    fn clear(&self) {
        if self.shown.is_some() {
            output::progress("");
        }
    }
}
