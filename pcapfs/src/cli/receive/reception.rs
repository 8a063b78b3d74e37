//! All ports and their connections, from the first connection to the summary.

use std::io;
use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use parking_lot::Mutex;
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::{mpsc, watch};
use tokio::task::JoinSet;
use tokio::time::{interval, sleep};

use super::connection::{
    ConnectionEnd, ConnectionReport, ReceivedConnection, SharedFile, SharedReception,
    begin_savefile, canonical, reset,
};
use super::output::{FileForm, OutputFolder};
use super::ports::ReceivingPort;
use super::report::{ReceiveReport, ReceiveSums};
use crate::cli::far_end;
use crate::cli::savefile::TransferSignals;
use crate::descriptor_limit;
use crate::failure::Failure;

/// The wait after no connection could be accepted, usually for want of descriptors.
const RESPITE: Duration = Duration::from_millis(200);

/// How often progress is shown.
const PROGRESS_INTERVAL: Duration = Duration::from_millis(500);

/// Descriptors for other things than ports, files and connections.
const OTHER_DESCRIPTORS: u64 = 32;

/// Accepted connections that may wait for the thread to look at them.
const ACCEPTED: usize = 64;

/// The user's settings.
#[derive(Debug)]
pub(super) struct ReceptionSettings {
    pub(super) per_connection: bool,
    pub(super) form: FileForm,
    /// Maximum bytes of all connections together.
    pub(super) max_bytes: Option<u64>,
    /// Maximum number of connections at a time.
    pub(super) room: usize,
}

/// The number of connections that this process has descriptors for, beside those of its ports.
///
/// # Errors
/// There are not even enough for the ports.
pub(super) fn room(ports: u16, per_connection: bool) -> Result<usize, Failure> {
    let limit = descriptor_limit::raise();
    // A port and its file, or a connection and its file.
    let (of_port, of_connection) = if per_connection { (1, 2) } else { (2, 1) };
    let taken = u64::from(ports) * of_port + OTHER_DESCRIPTORS;
    match limit.saturating_sub(taken) / of_connection {
        0 => Err(Failure::Argument(format!(
            "{ports} ports need more than {taken} open files, and {limit} are allowed (raise the \
             limit: ulimit -Hn)"
        ))),
        room => Ok(usize::try_from(room).unwrap_or(usize::MAX)),
    }
}

/// A connection as it was accepted at the port with this index.
#[derive(Debug)]
struct AcceptedConnection {
    index: usize,
    stream: TcpStream,
    peer: SocketAddr,
}

/// A port and its file.
#[derive(Debug)]
struct PortFile {
    local: SocketAddr,
    file: Option<SharedFile>,
}

/// Receives at all ports.
#[derive(Debug)]
pub(super) struct Reception {
    settings: ReceptionSettings,
    ports: Vec<PortFile>,
    accepting: JoinSet<()>,
    accepted: mpsc::Receiver<AcceptedConnection>,
    folder: OutputFolder,
    report: ReceiveReport,
    sums: ReceiveSums,
    shared: Arc<SharedReception>,
    /// The connections, each with its file if that is its own.
    connections: JoinSet<(ConnectionReport, io::Result<()>)>,
    stop: watch::Sender<bool>,
    /// The first file that could not be written to the disk, and why.
    unsynced: Option<String>,
}

impl Reception {
    pub(super) fn new(
        settings: ReceptionSettings,
        listening: Vec<ReceivingPort>,
        folder: OutputFolder,
        report: ReceiveReport,
    ) -> Self {
        let (sender, accepted) = mpsc::channel(ACCEPTED);
        let mut accepting = JoinSet::new();
        let mut ports = Vec::with_capacity(listening.len());
        for (index, ReceivingPort { listener, local }) in listening.into_iter().enumerate() {
            accepting.spawn(accept(index, listener, local, sender.clone()));
            ports.push(PortFile { local, file: None });
        }
        Self {
            shared: Arc::new(SharedReception::new(settings.max_bytes)),
            settings,
            ports,
            accepting,
            accepted,
            folder,
            report,
            sums: ReceiveSums::default(),
            connections: JoinSet::new(),
            stop: watch::Sender::new(false),
            unsynced: None,
        }
    }

    /// Receives until a signal comes, or as much as allowed has been received.
    ///
    /// # Errors
    /// A file could not be written to the disk.
    pub(super) async fn run(mut self, signals: &mut TransferSignals) -> Result<(), Failure> {
        let mut progress = interval(PROGRESS_INTERVAL);
        let shared = Arc::clone(&self.shared);
        loop {
            tokio::select! {
                biased;
                () = signals.any() => break,
                () = shared.is_complete.notified() => break,
                Some(ended) = self.connections.join_next() => {
                    // A task that panicked has said so.
                    if let Ok((report, synced)) = ended {
                        self.ended(&report, synced);
                    }
                }
                Some(accepted) = self.accepted.recv() => self.begin(accepted),
                _ = progress.tick(), if self.report.shows_progress() => {
                    self.report.progress(self.connections.len(), shared.received());
                }
            }
        }
        self.finish().await
    }

    /// Begins to receive a connection, or refuses it.
    fn begin(&mut self, accepted: AcceptedConnection) {
        let AcceptedConnection { index, stream, peer } = accepted;
        let peer = canonical(peer);
        let Some(port) = self.ports.get(index).map(|port| port.local.port()) else { return };
        match self.try_begin(index, &stream) {
            Ok(file) => {
                let shown = file.lock().path().to_owned();
                let is_savefile = self.settings.form == FileForm::Pcapng;
                let own = self.settings.per_connection.then(|| Arc::clone(&file));
                match ReceivedConnection::begin(stream, peer, file, is_savefile) {
                    Ok(connection) => {
                        self.report.opened(port, peer, &shown);
                        self.sums.connections += 1;
                        let (shared, stopping) = (Arc::clone(&self.shared), self.stop.subscribe());
                        self.connections.spawn(async move {
                            let report = connection.run(shared, stopping).await;
                            (report, sync(own).await)
                        });
                    }
                    Err(error) => self.refuse(port, peer, &error.to_string()),
                }
            }
            Err(why) => {
                reset(&stream);
                self.refuse(port, peer, &why);
            }
        }
    }

    fn refuse(&mut self, port: u16, peer: SocketAddr, why: &str) {
        self.sums.refused += 1;
        self.report.refused(port, peer, why);
    }

    /// The file for a connection at the port with this index.
    ///
    /// # Errors
    /// Why the connection is refused.
    fn try_begin(&mut self, index: usize, stream: &TcpStream) -> Result<SharedFile, String> {
        if self.connections.len() >= self.settings.room {
            let room = self.settings.room;
            return Err(format!("{room} connections are open (for more, raise: ulimit -Hn)"));
        }
        let folder = self.folder.path().display().to_string();
        let named = |error: io::Error| format!("{folder}: {error}");
        if self.folder.is_full() {
            return Err(named(io::Error::from_raw_os_error(libc::ENOSPC)));
        }
        far_end::notice_when_gone(stream).map_err(|error| error.to_string())?;
        let form = self.settings.form;
        let Some(port) = self.ports.get_mut(index) else { return Err("no such port".to_owned()) };
        if let Some(file) = &port.file {
            return Ok(Arc::clone(file));
        }
        let mut file = self.folder.create(port.local.port(), form).map_err(named)?;
        if form == FileForm::Pcapng
            && let Err(error) = begin_savefile(&mut file, port.local)
        {
            file.discard();
            return Err(named(error));
        }
        self.sums.files += 1;
        let file = Arc::new(Mutex::new(file));
        if !self.settings.per_connection {
            port.file = Some(Arc::clone(&file));
        }
        Ok(file)
    }

    fn ended(&mut self, report: &ConnectionReport, synced: io::Result<()>) {
        self.sums.bytes += report.bytes;
        if let ConnectionEnd::Unwritten(bytes, _) = report.end {
            self.sums.unwritten += bytes as u64;
        }
        self.report.closed(report);
        if let Err(error) = synced {
            self.unsynced.get_or_insert_with(|| format!("a file of port {}: {error}", report.port));
        }
    }

    /// Accepts no more, and ends the connections with what has come of them.
    async fn finish(mut self) -> Result<(), Failure> {
        self.accepting.shutdown().await;
        self.accepted.close();
        while let Some(accepted) = self.accepted.recv().await {
            self.begin(accepted);
        }
        self.stop.send_replace(true);
        while let Some(ended) = self.connections.join_next().await {
            if let Ok((report, synced)) = ended {
                self.ended(&report, synced);
            }
        }
        for file in self.ports.iter().filter_map(|port| port.file.as_ref()) {
            let file = file.lock();
            if let Err(error) = file.sync() {
                self.unsynced.get_or_insert_with(|| format!("{}: {error}", file.path().display()));
            }
        }
        if let Err(error) = self.folder.sync() {
            let folder = self.folder.path().display();
            self.unsynced.get_or_insert_with(|| format!("{folder}: {error}"));
        }
        self.report.ended(&self.sums);
        match self.unsynced {
            None => Ok(()),
            Some(why) => Err(Failure::Answer(format!("not written to the disk: {why}"))),
        }
    }
}

/// Writes a connection's own file to the disk, while others go on.
async fn sync(own: Option<SharedFile>) -> io::Result<()> {
    let Some(file) = own else { return Ok(()) };
    let synced = tokio::task::spawn_blocking(move || file.lock().sync()).await;
    synced.unwrap_or_else(|error| Err(io::Error::other(error)))
}

/// Accepts connections until the task is ended.
async fn accept(
    index: usize,
    listener: TcpListener,
    local: SocketAddr,
    accepted: mpsc::Sender<AcceptedConnection>,
) {
    loop {
        match listener.accept().await {
            Ok((stream, peer)) => {
                if accepted.send(AcceptedConnection { index, stream, peer }).await.is_err() {
                    return;
                }
            }
            Err(error) if error.kind() == io::ErrorKind::ConnectionAborted => {}
            Err(error) => {
                crate::output::say(format_args!("{local}: no connection can be accepted: {error}"));
                sleep(RESPITE).await;
            }
        }
    }
}
