//! The source of the packets: a savefile, standard input, or a capture of a daemon.

use std::fs::{self, File};
use std::io::{self, Read};
use std::path::{Path, PathBuf};
use std::thread;

use bytes::Bytes;
use capture::savefile::FilteredSavefile;
use capture::savefile::stream::{StreamEvent, StreamReader};
use tokio::sync::mpsc;
use tonic::Code;

use crate::cli::client::{self, DaemonSocket};
use crate::cli::savefile::PacketRange;
use crate::control::chunks::{MessagePart, MessageParts};
use crate::control::messages::Format;
use crate::failure::Failure;

/// Bytes of one read of a file.
const READ: usize = 256 << 10;

/// Reads of a file that may wait to be looked at.
const READS: usize = 4;

/// A place to read packets from.
#[derive(Debug)]
pub(super) enum PacketInput {
    /// A file, with its name as it was given.
    File(PathBuf),
    /// Standard input.
    Stdin,
    /// A capture of a daemon, with its name there.
    Capture { daemon: DaemonSocket, name: String, range: PacketRange },
}

impl PacketInput {
    /// The input that a word names: a file if there is one or if it is written as a path, otherwise
    /// a capture.
    ///
    /// # Errors
    /// There is no such remote.
    pub(super) fn named(
        word: &str,
        range: PacketRange,
        daemon: &DaemonSocket,
    ) -> Result<Self, Failure> {
        if word == "-" {
            return Ok(Self::Stdin);
        }
        let path = Path::new(word);
        // A remote has a colon before any slash.
        let is_path =
            word.find('/').is_some_and(|slash| word.find(':').is_none_or(|at| slash < at));
        if is_path || path.is_file() {
            return Ok(Self::File(path.to_owned()));
        }
        let (daemon, name) = daemon.of(word)?;
        Ok(Self::Capture { daemon, name: name.to_owned(), range })
    }

    /// True if it can be read twice: once to see which connections it needs, once to send.
    pub(super) fn can_be_repeated(&self) -> bool {
        match self {
            // A stream of a mounted tree has no length.
            Self::File(path) => {
                fs::metadata(path).is_ok_and(|found| found.is_file() && found.len() > 0)
            }
            Self::Stdin => false,
            Self::Capture { range, .. } => *range == PacketRange::Replay,
        }
    }

    /// True if its packets are sent when they come, which is when they are captured.
    pub(super) const fn is_live(&self) -> bool {
        matches!(self, Self::Capture { range: PacketRange::Live | PacketRange::Follow, .. })
    }

    /// Begins to read it, through a filter if there is one.
    ///
    /// # Errors
    /// It cannot be read, or the filter does not compile.
    pub(super) async fn open(&self, filter: Option<&str>) -> Result<PacketReader, Failure> {
        let filter = filter.map(FilteredSavefile::new).transpose();
        let filter = filter.map_err(|error| Failure::Argument(format!("--filter: {error}")))?;
        let (bytes, name) = match self {
            Self::File(path) => {
                let name = path.display().to_string();
                let file = File::open(path);
                let file = file.map_err(|error| Failure::Answer(format!("{name}: {error}")))?;
                (SavefileBytes::Thread(in_thread(file)?), name)
            }
            Self::Stdin => {
                (SavefileBytes::Thread(in_thread(io::stdin())?), "standard input".to_owned())
            }
            Self::Capture { daemon, name, range } => {
                // The packets of all link types are in a pcapng.
                let asked = match client::receiver(daemon).await {
                    Ok(mut receiver) => {
                        range.request(&mut receiver, name.clone(), Format::Pcapng).await
                    }
                    Err(failure) => Err(failure),
                };
                let parts = match asked {
                    Ok(parts) => parts,
                    Err(failure) => return Err(refused(daemon, name, failure).await),
                };
                (SavefileBytes::Daemon(Box::new(parts), daemon.clone()), daemon.shown(name))
            }
        };
        let reader = StreamReader::new();
        Ok(PacketReader { bytes, reader, filter, pending: Bytes::new(), name, lost: 0 })
    }
}

/// The failure for a capture that the daemon does not give. Its name may have been meant for a file.
async fn refused(daemon: &DaemonSocket, name: &str, failure: Failure) -> Failure {
    let is_missing = matches!(&failure, Failure::Status(status) if status.code() == Code::NotFound);
    let failure = client::explained(daemon, failure).await;
    if daemon.remote.is_some() {
        return failure;
    }
    let no_file = if Path::new(name).exists() {
        format!("{name}: not an ordinary file (write ./{name} to read it anyway)")
    } else {
        format!("{name}: no such file")
    };
    match failure {
        Failure::NoDaemon(why) => Failure::NoDaemon(format!("{no_file}; {why}")),
        Failure::Answer(why) if is_missing => Failure::Answer(format!("{no_file}; {why}")),
        failure => failure,
    }
}

/// The bytes of a savefile.
#[derive(Debug)]
enum SavefileBytes {
    /// From a thread that reads a file or a pipe, which may block.
    Thread(mpsc::Receiver<io::Result<Bytes>>),
    Daemon(Box<MessageParts>, DaemonSocket),
}

/// Reads in a thread of its own. It ends with the last read, or when the receiver is dropped.
fn in_thread(
    mut file: impl Read + Send + 'static,
) -> Result<mpsc::Receiver<io::Result<Bytes>>, Failure> {
    let (sender, receiver) = mpsc::channel(READS);
    let read = move || {
        let mut buffer = vec![0; READ];
        loop {
            let bytes = match file.read(&mut buffer) {
                Ok(0) => return,
                Ok(len) => Ok(Bytes::copy_from_slice(buffer.get(..len).unwrap_or_default())),
                Err(error) if error.kind() == io::ErrorKind::Interrupted => continue,
                Err(error) => Err(error),
            };
            let is_last = bytes.is_err();
            if sender.blocking_send(bytes).is_err() || is_last {
                return;
            }
        }
    };
    thread::Builder::new().name("savefile".to_owned()).spawn(read).map_err(Failure::System)?;
    Ok(receiver)
}

/// Reads the packets of a savefile as they come.
#[derive(Debug)]
pub(super) struct PacketReader {
    bytes: SavefileBytes,
    reader: StreamReader,
    filter: Option<FilteredSavefile>,
    /// Bytes that the reader has no room for.
    pending: Bytes,
    name: String,
    /// Packets that the daemon had and this reader lost, since it was too slow.
    pub(super) lost: u64,
}

impl PacketReader {
    /// The next event of the bytes that have come; `None` if more are needed.
    ///
    /// # Errors
    /// The savefile is malformed.
    pub(super) fn event(&mut self) -> Result<Option<StreamEvent<'_>>, Failure> {
        let name = &self.name;
        self.reader.event().map_err(|error| Failure::Answer(format!("{name}: {error}")))
    }

    /// Waits for more bytes after all events were taken; false if there are none. May be dropped and called again.
    ///
    /// # Errors
    /// The file cannot be read, or the daemon has gone away.
    pub(super) async fn fill(&mut self) -> Result<bool, Failure> {
        if !self.pending.is_empty() {
            self.push();
            return Ok(true);
        }
        loop {
            let bytes = match &mut self.bytes {
                SavefileBytes::Thread(receiver) => match receiver.recv().await {
                    None => return Ok(false),
                    Some(Ok(bytes)) => bytes,
                    Some(Err(error)) => {
                        return Err(Failure::Answer(format!("{}: {error}", self.name)));
                    }
                },
                SavefileBytes::Daemon(parts, daemon) => match parts.next().await {
                    Ok(None) => return Ok(false),
                    Ok(Some(MessagePart::Data(bytes))) => bytes,
                    Ok(Some(MessagePart::Lost(lost))) => {
                        self.lost = lost;
                        continue;
                    }
                    Ok(Some(MessagePart::Total(_))) => continue,
                    Err(status) => {
                        let failure = client::failure(status);
                        return Err(client::explained(daemon, failure).await);
                    }
                },
            };
            self.pending = match &mut self.filter {
                None => bytes,
                Some(filter) => {
                    let mut passed = Vec::new();
                    let pushed = filter.push(&bytes, &mut passed);
                    pushed.map_err(|error| Failure::Answer(format!("{}: {error}", self.name)))?;
                    passed.into()
                }
            };
            self.push();
            return Ok(true);
        }
    }

    /// Gives the reader as much as it has room for.
    fn push(&mut self) {
        let space = self.reader.space();
        let now = self.pending.split_to(space.len().min(self.pending.len()));
        if let Some(space) = space.get_mut(..now.len()) {
            space.copy_from_slice(&now);
        }
        self.reader.filled(now.len());
    }

    /// Bytes of an incomplete packet at the end.
    pub(super) fn incomplete(&self) -> u64 {
        self.reader.finish()
    }

    /// Name of the savefile or capture, for people.
    pub(super) fn name(&self) -> &str {
        &self.name
    }
}
