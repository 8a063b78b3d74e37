//! `pcapfs exclude`: captures leave out the packets of a socket of the caller.
//!
//! It is for programs that carry captured packets over an interface that is captured, so that they
//! do not capture what they send.

use std::net::SocketAddr;

use clap::Args;
use clap_complete::engine::ArgValueCandidates;
use tokio::signal::unix::{SignalKind, signal};
use tonic::Streaming;

use super::client::{self, Client, DaemonSocket};
use super::complete;
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
    client::with(daemon, |client| async move {
        let mut ends = [SignalKind::interrupt(), SignalKind::terminate()].map(signal).into_iter();
        let (Some(Ok(mut interrupt)), Some(Ok(mut terminate))) = (ends.next(), ends.next()) else {
            return Err(Failure::System(std::io::Error::last_os_error()));
        };
        let call = ExclusionCall::begin(client, request).await?;
        tokio::select! {
            end = call.follow() => end,
            _ = interrupt.recv() => Ok(()),
            _ = terminate.recv() => Ok(()),
        }
    })
}

/// A call to the daemon, which lasts as long as the exclusion.
#[derive(Debug)]
pub(super) struct ExclusionCall {
    answers: Streaming<ExcludeResponse>,
    local: String,
}

impl ExclusionCall {
    /// Asks for the exclusion, and reports which captures leave the socket out. From then on they
    /// do.
    ///
    /// # Errors
    /// The refusal of the daemon.
    pub(super) async fn begin(
        mut client: Client,
        request: ExcludeRequest,
    ) -> Result<Self, Failure> {
        let local = request.local.clone();
        let answer = client.exclude(request).await.map_err(client::failure)?;
        let mut call = Self { answers: answer.into_inner(), local };
        call.report().await?;
        Ok(call)
    }

    /// Reports changes until the daemon ends the exclusion.
    ///
    /// # Errors
    /// Why it has ended.
    pub(super) async fn follow(mut self) -> Result<(), Failure> {
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
        output::say(format_args!("packets of {local} are left out of {excluding}"));
        if !seeing.is_empty() {
            let seeing = seeing.join(", ");
            output::say(format_args!(
                "warning: packets of {local} are still stored by {seeing}: w on it is missing"
            ));
        }
        Ok(true)
    }
}
