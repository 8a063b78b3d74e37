//! The peers: those that connect, or the one that is connected to.

use std::io;
use std::sync::Arc;
use std::time::Duration;

use nix::unistd::geteuid;
use tokio::sync::{mpsc, watch};
use tokio::task::JoinSet;
use tokio::time::{sleep, timeout};

use super::LAST_MESSAGES;
use super::distribution::{self, Distribution, PeerReports};
use super::endpoint::{Endpoint, PeerConnection};
use super::feed::FeedSettings;
use super::zmtp::SenderType;
use super::{peer, subscription};
use crate::cli::exclude;
use crate::cli::outlet::saved::SavedPositions;
use crate::failure::Failure;

/// Maximum number of peers: a PUB of packets has a connection to the daemon for each, which takes 64
/// of a user, and other commands need some.
const PEERS: usize = 56;

/// The same for root, who has more.
const PEERS_OF_ROOT: usize = 192;

/// The wait after no peer could be accepted, usually for want of descriptors.
const RESPITE: Duration = Duration::from_millis(200);

/// The first wait before a peer that is not there is tried again, and the longest.
const PATIENCE: (Duration, Duration) = (Duration::from_millis(100), Duration::from_secs(5));

/// What is published, and to whom.
#[derive(Clone, Debug)]
pub(super) struct Publishing {
    endpoint: Endpoint,
    sender: SenderType,
    /// Permission bits of a socket of `ipc://`.
    mode: u32,
    settings: Arc<FeedSettings>,
    stopping: watch::Receiver<bool>,
}

impl Publishing {
    pub(super) const fn new(
        endpoint: Endpoint,
        sender: SenderType,
        mode: u32,
        settings: Arc<FeedSettings>,
        stopping: watch::Receiver<bool>,
    ) -> Self {
        Self { endpoint, sender, mode, settings, stopping }
    }

    /// Lets peers connect, until the order to end.
    ///
    /// # Errors
    /// It is not possible to listen, or a place cannot be saved.
    pub(super) async fn bind(
        self,
        saved: Option<SavedPositions>,
        is_resumed: bool,
    ) -> Result<(), Failure> {
        let bound = self.endpoint.bind(self.mode).await?;
        let daemon = self.settings.source.daemon.socket().clone();
        // Captures would store what it sends, and it would send that too.
        let excluded = match bound.address() {
            Some(address) => Some((exclude::keep_out(&daemon, address, None).await, address)),
            None => None,
        };
        self.settings.reporter.ready(&bound.name(), self.sender.name(), true);
        let (reports, received) = mpsc::unbounded_channel();
        let accepting = async {
            // Its senders are gone when this and all peers have ended.
            let reports = reports;
            self.accept_all(&bound, &reports).await;
        };
        let renewing = async {
            if let Some((excluded, address)) = excluded {
                excluded.renew(&daemon, address).await;
            }
            std::future::pending::<()>().await;
        };
        let distributing = self.distribute(saved, is_resumed, received);
        let working = async { tokio::join!(accepting, distributing).1 };
        tokio::select! {
            done = working => done,
            () = renewing => Ok(()),
        }
    }

    /// Connects to a peer, and again when it is gone, until the order to end.
    ///
    /// # Errors
    /// A place cannot be saved.
    pub(super) async fn connect(
        self,
        saved: Option<SavedPositions>,
        is_resumed: bool,
    ) -> Result<(), Failure> {
        self.settings.reporter.ready(&self.endpoint.to_string(), self.sender.name(), false);
        let (reports, received) = mpsc::unbounded_channel();
        let connecting = async {
            let reports = reports;
            let mut stopping = self.stopping.clone();
            tokio::select! {
                () = self.connect_all(&reports) => {}
                () = async {
                    // An error means that all has ended.
                    let _ = stopping.wait_for(|is_stopping| *is_stopping).await;
                    sleep(LAST_MESSAGES).await;
                } => {}
            }
        };
        let distributing = self.distribute(saved, is_resumed, received);
        tokio::join!(connecting, distributing).1
    }

    /// Distributes messages, if that is how they are sent.
    async fn distribute(
        &self,
        saved: Option<SavedPositions>,
        is_resumed: bool,
        reports: mpsc::UnboundedReceiver<distribution::PeerReport>,
    ) -> Result<(), Failure> {
        let Some(saved) = saved else { return Ok(()) };
        let distribution = Distribution::new(saved, &self.settings.capture, !is_resumed);
        distribution.run(&self.settings, reports, self.stopping.clone()).await
    }

    async fn accept_all(&self, bound: &super::endpoint::BoundEndpoint, reports: &PeerReports) {
        let room = if geteuid().is_root() { PEERS_OF_ROOT } else { PEERS };
        let mut stopping = self.stopping.clone();
        let mut peers = JoinSet::new();
        let mut number = 0;
        loop {
            let accepted = tokio::select! {
                biased;
                _ = stopping.wait_for(|is_stopping| *is_stopping) => break,
                Some(_) = peers.join_next() => continue,
                accepted = bound.accept() => accepted,
            };
            match accepted {
                Ok(connection) if peers.len() >= room => {
                    let why = format!("{room} peers are connected");
                    self.settings.reporter.refused(&connection.name, &why);
                }
                Ok(connection) => {
                    number += 1;
                    let (this, reports) = (self.clone(), reports.clone());
                    peers.spawn(async move {
                        // A refusal has been reported.
                        let _ = this.serve(connection, number, reports).await;
                    });
                }
                Err(error) if error.kind() == io::ErrorKind::ConnectionAborted => {}
                Err(error) => {
                    self.settings.reporter.waiting(&bound.name(), &error.to_string());
                    sleep(RESPITE).await;
                }
            }
        }
        let ended = async { while peers.join_next().await.is_some() {} };
        // The others are cut.
        let _ = timeout(LAST_MESSAGES * 2, ended).await;
    }

    async fn connect_all(&self, reports: &PeerReports) {
        let daemon = self.settings.source.daemon.socket().clone();
        let (mut wait, mut number) = (PATIENCE.0, 0);
        let mut said: Option<String> = None;
        while !*self.stopping.borrow() {
            let connected = self.endpoint.connect().await;
            let why = match connected {
                Err(error) => Err(error.to_string()),
                Ok(connection) => {
                    let excluded = match connection.addresses {
                        Some((local, peer)) => {
                            Some(exclude::keep_out(&daemon, local, Some(peer)).await)
                        }
                        None => None,
                    };
                    number += 1;
                    let served = self.serve(connection, number, reports.clone()).await;
                    drop(excluded);
                    served
                }
            };
            match why {
                Ok(()) => (wait, said) = (PATIENCE.0, None),
                Err(why) if said.as_ref() != Some(&why) => {
                    self.settings.reporter.waiting(&self.endpoint.to_string(), &why);
                    said = Some(why);
                }
                Err(_) => {}
            }
            sleep(wait).await;
            wait = (wait * 2).min(PATIENCE.1);
        }
    }

    /// Serves a peer until it leaves.
    ///
    /// # Errors
    /// Why it was refused.
    async fn serve(
        &self,
        connection: PeerConnection,
        number: u64,
        reports: PeerReports,
    ) -> Result<(), String> {
        let PeerConnection { stream, name, .. } = connection;
        let reporter = &self.settings.reporter;
        let ready = match peer::greet(stream, self.sender).await {
            Ok(ready) => ready,
            Err(why) => {
                reporter.refused(&name, &why);
                return Err(why);
            }
        };
        reporter.connected(&name);
        let end = match self.sender {
            SenderType::Push => distribution::serve(ready, number, reports).await,
            SenderType::Pub => {
                drop(reports);
                let (settings, stopping) = (Arc::clone(&self.settings), self.stopping.clone());
                subscription::serve(ready, settings, stopping).await
            }
        };
        reporter.left(&name, &end.why, end.counts);
        Ok(())
    }
}
