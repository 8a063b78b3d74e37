//! `pcapfs exclude`: captures leave out the packets of a socket of the caller.
//!
//! It is for programs that carry captured packets over an interface that is captured, so that they
//! do not capture what they send.

use std::net::SocketAddr;
use std::time::Duration;

use clap::Args;
use clap_complete::engine::ArgValueCandidates;
use tokio::task::JoinHandle;
use tokio::time::sleep;
use tonic::{Code, Streaming};

use super::client::{self, DaemonSocket};
use super::complete;
use super::savefile::TransferSignals;
use crate::control::messages::{ExcludeRequest, ExcludeResponse};
use crate::failure::Failure;
use crate::output;

/// A socket to be left out.
#[derive(Debug, Args)]
pub(super) struct Exclude {
    /// Address and port at which the socket listens, or of this end of its connection
    #[arg(value_name = "ADDRESS:PORT")]
    pub(super) local: SocketAddr,

    /// Address and port of the other end, if the socket is connected
    #[arg(value_name = "ADDRESS:PORT")]
    pub(super) remote: Option<SocketAddr>,

    /// The capture that leaves it out [default: all on which you may write]
    #[arg(long, value_name = "ALIAS", add = ArgValueCandidates::new(complete::captures))]
    pub(super) capture: Option<String>,
}

/// `pcapfs exclude`: until it is interrupted, or the socket is closed.
pub(super) fn run(exclude: &Exclude, daemon: &DaemonSocket) -> Result<(), Failure> {
    let capture = exclude.capture.clone().unwrap_or_default();
    let request = ExcludeRequest {
        local: exclude.local.to_string(),
        remote: exclude.remote.map(|remote| remote.to_string()).unwrap_or_default(),
        capture,
    };
    client::with(daemon, |mut client| async move {
        let mut signals = TransferSignals::new()?;
        let answer = client.exclude(request).await.map_err(client::failure)?;
        let call =
            ExclusionCall { answers: answer.into_inner(), local: exclude.local, quiet: false };
        tokio::select! {
            end = call.follow() => end,
            () = signals.any() => Ok(()),
        }
    })
}

/// The time until a daemon that went away is asked again.
const RESPITE: Duration = Duration::from_secs(1);

/// The socket of an outlet, left out until this is dropped.
#[derive(Debug)]
pub(super) enum ExcludedOutlet {
    /// The call to the daemon.
    Excluded(JoinHandle<()>),
    /// There is no daemon now.
    NoDaemon,
    /// The daemon leaves nothing out, and would not later.
    Refused,
}

impl ExcludedOutlet {
    /// Has the socket left out by each daemon that comes after the one that was asked, for as long
    /// as this future is polled.
    pub(super) async fn renew(mut self, daemon: &DaemonSocket, local: SocketAddr) {
        loop {
            match &mut self {
                // A task that panicked has said so.
                Self::Excluded(call) => drop(call.await),
                Self::NoDaemon => {}
                Self::Refused => return,
            }
            sleep(RESPITE).await;
            self = keep_out(daemon, local, None).await;
        }
    }

    /// True if captures were asked to leave it out and some do.
    pub(super) const fn is_kept(&self) -> bool {
        matches!(self, Self::Excluded(_))
    }
}

impl Drop for ExcludedOutlet {
    fn drop(&mut self) {
        if let Self::Excluded(call) = self {
            call.abort();
        }
    }
}

/// Has captures leave out the packets of an outlet that listens at `local`, or is connected to
/// `remote`, and warns if some do not. When this returns, the others do.
pub(super) async fn keep_out(
    daemon: &DaemonSocket,
    local: SocketAddr,
    remote: Option<SocketAddr>,
) -> ExcludedOutlet {
    let remote = remote.map(|remote| remote.to_string()).unwrap_or_default();
    let request = ExcludeRequest { local: local.to_string(), remote, capture: String::new() };
    let Ok(mut client) = client::open(daemon).await else { return ExcludedOutlet::NoDaemon };
    match client.exclude(request).await {
        Ok(answer) => {
            let mut call = ExclusionCall { answers: answer.into_inner(), local, quiet: true };
            // The first answer comes at once.
            if call.report().await.is_err() {
                return ExcludedOutlet::NoDaemon;
            }
            ExcludedOutlet::Excluded(tokio::spawn(async move {
                if let Err(failure) = call.follow().await {
                    output::say(format_args!("warning: {failure}"));
                }
            }))
        }
        // A daemon in another network namespace does not see these packets.
        Err(status) if status.code() == Code::FailedPrecondition => ExcludedOutlet::Refused,
        Err(status) => {
            output::say(format_args!("warning: {}", client::failure(status)));
            ExcludedOutlet::Refused
        }
    }
}

/// A call to the daemon, which lasts as long as the exclusion.
#[derive(Debug)]
struct ExclusionCall {
    answers: Streaming<ExcludeResponse>,
    local: SocketAddr,
    /// Report only captures that store the packets.
    quiet: bool,
}

impl ExclusionCall {
    /// Reports the captures, and changes of them, until the daemon ends the exclusion.
    ///
    /// # Errors
    /// Why it has ended.
    async fn follow(mut self) -> Result<(), Failure> {
        while self.report().await? {}
        Ok(())
    }

    /// Reports the next answer; false after the last one.
    async fn report(&mut self) -> Result<bool, Failure> {
        let answer = self.answers.message().await.map_err(client::failure)?;
        let Some(ExcludeResponse { excluding, seeing }) = answer else { return Ok(false) };
        let local = &self.local;
        let excluding = match excluding.as_slice() {
            [] => "no capture".to_owned(),
            names => names.join(", "),
        };
        if !self.quiet {
            output::say(format_args!("packets of {local} are left out of {excluding}"));
        }
        if !seeing.is_empty() {
            let seeing = seeing.join(", ");
            output::say(format_args!(
                "warning: packets of {local} are still stored by {seeing}: w on it is missing"
            ));
        }
        Ok(true)
    }
}
