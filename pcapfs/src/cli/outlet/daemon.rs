//! The daemon, asked over its control socket.

use std::fmt;

use nix::unistd::{getegid, geteuid, getgroups};
use serde::Serialize;
use serde_json::Value;
use tokio::sync::Mutex;
use tonic::{Code, Status};

use super::trouble::{Trouble, TroubleKind, kind_of};
use crate::cli::client::{self, Client, DaemonSocket};
use crate::control::messages::{Capture, ListRequest, StartRequest, StatusRequest, StopRequest};
use crate::control::state_name;
use crate::failure::Failure;
use crate::fs::access::{Caller, PermissionBit};
use crate::fs::{group_id, user_id};
use capture::ring::Permissions;

/// A capture, as the interface shows it.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub(in crate::cli) struct CaptureView {
    pub(in crate::cli) name: String,
    aliases: Vec<String>,
    pub(in crate::cli) source: String,
    filter: String,
    pub(in crate::cli) state: &'static str,
    pub(in crate::cli) error: Option<String>,
    /// True if the user of this process may start and stop it.
    may_control: bool,
    /// Its `status.json`.
    pub(in crate::cli) status: Value,
}

impl CaptureView {
    /// Its number, which no other capture of the daemon gets.
    pub(in crate::cli) fn id(&self) -> u64 {
        self.status.get("id").and_then(Value::as_u64).unwrap_or(0)
    }
}

/// The connection to the daemon for short requests. It is made again when the daemon is back.
pub(in crate::cli) struct DaemonLink {
    socket: DaemonSocket,
    client: Mutex<Option<Client>>,
    caller: Caller,
}

impl fmt::Debug for DaemonLink {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter.debug_struct("DaemonLink").field("socket", &self.socket).finish_non_exhaustive()
    }
}

impl DaemonLink {
    pub(in crate::cli) fn new(socket: DaemonSocket) -> Self {
        let groups = getgroups().unwrap_or_default().into_iter().map(|group| group.as_raw());
        let caller =
            Caller { uid: geteuid().as_raw(), gid: getegid().as_raw(), groups: groups.collect() };
        Self { socket, client: Mutex::new(None), caller }
    }

    /// Its socket.
    pub(in crate::cli) const fn socket(&self) -> &DaemonSocket {
        &self.socket
    }

    /// Asks the daemon; once more over another connection if it went away on the first one, since it
    /// may be back.
    async fn ask<T, F: Future<Output = Result<T, Status>>>(
        &self,
        question: impl Fn(Client) -> F,
    ) -> Result<T, Trouble> {
        let known = self.client.lock().await.clone();
        if let Some(client) = known {
            match question(client).await {
                Ok(answer) => return Ok(answer),
                Err(status) if is_gone(status.code()) => {}
                Err(status) => return Err(self.trouble(client::failure(status)).await),
            }
        }
        let opened = client::open(&self.socket).await;
        *self.client.lock().await = opened.as_ref().ok().cloned();
        let asked = match opened {
            Ok(client) => question(client).await.map_err(client::failure),
            Err(failure) => Err(failure),
        };
        match asked {
            Ok(answer) => Ok(answer),
            Err(failure) => Err(self.trouble(failure).await),
        }
    }

    /// The captures that this process may read; or the one of this name.
    ///
    /// # Errors
    /// The daemon's refusal.
    pub(in crate::cli) async fn captures(&self, name: &str) -> Result<Vec<CaptureView>, Trouble> {
        let request = ListRequest { capture: name.to_owned() };
        let list = |mut client: Client| {
            let request = request.clone();
            async move { client.list(request).await }
        };
        let captures = self.ask(list).await?.into_inner().captures;
        Ok(captures.into_iter().map(|capture| self.view(capture)).collect())
    }

    /// The capture of this name.
    ///
    /// # Errors
    /// The daemon's refusal.
    pub(in crate::cli) async fn capture(&self, name: &str) -> Result<CaptureView, Trouble> {
        let missing = || Trouble::new(TroubleKind::Missing, format!("{name}: no such capture"));
        // The daemon takes an empty name for all captures.
        if name.is_empty() {
            return Err(missing());
        }
        self.captures(name).await?.into_iter().next().ok_or_else(missing)
    }

    /// The `status.json` of the root.
    ///
    /// # Errors
    /// The daemon's refusal.
    pub(in crate::cli) async fn status(&self) -> Result<Value, Trouble> {
        let ask = |mut client: Client| async move {
            let request = StatusRequest { capture: String::new(), interval: 0 };
            client.status(request).await?.into_inner().message().await
        };
        let status = self.ask(ask).await?.and_then(|one| serde_json::from_str(&one.status).ok());
        status.ok_or_else(|| Trouble::unavailable("the daemon says nothing about itself"))
    }

    /// Starts a capture, or stops it.
    ///
    /// # Errors
    /// The daemon's refusal.
    pub(in crate::cli) async fn steer(&self, name: &str, is_start: bool) -> Result<(), Trouble> {
        let steer = |mut client: Client| {
            let capture = name.to_owned();
            async move {
                if is_start {
                    client.start(StartRequest { capture }).await.map(|_| ())
                } else {
                    client.stop(StopRequest { capture }).await.map(|_| ())
                }
            }
        };
        self.ask(steer).await
    }

    /// What a failure to get an answer means.
    pub(in crate::cli) async fn trouble(&self, failure: Failure) -> Trouble {
        let kind = match &failure {
            Failure::Status(status) => kind_of(status.code()),
            _ => TroubleKind::Unavailable,
        };
        Trouble::new(kind, client::explained(&self.socket, failure).await.to_string())
    }

    fn view(&self, capture: Capture) -> CaptureView {
        let status: Value = serde_json::from_str(&capture.status).unwrap_or_default();
        CaptureView {
            may_control: self.may_control(&status),
            state: state_name(capture.state()).unwrap_or("unknown"),
            error: (!capture.error.is_empty()).then_some(capture.error),
            name: capture.alias,
            aliases: capture.aliases,
            source: capture.source,
            filter: capture.filter,
            status,
        }
    }

    /// True if the permission bits in a `status.json` let this process start and stop the capture.
    /// Only the daemon decides; this is for the page, which shows what is possible.
    fn may_control(&self, status: &Value) -> bool {
        let text = |name: &str| status.get(name).and_then(Value::as_str).unwrap_or_default();
        let number = |name: &str| text(name).parse::<u32>().ok();
        let (Some(uid), Some(gid)) = (
            user_id(text("owner")).or_else(|| number("owner")),
            group_id(text("group")).or_else(|| number("group")),
        ) else {
            return self.caller.uid == 0;
        };
        let mode = u32::from_str_radix(text("mode"), 8).unwrap_or(0);
        let bits = [PermissionBit::Write, PermissionBit::Search];
        self.caller.may(Permissions { uid, gid, mode }, &bits)
    }
}

/// True if the status is about the connection, and not an answer of the daemon.
const fn is_gone(code: Code) -> bool {
    matches!(code, Code::Unavailable | Code::Cancelled | Code::Unknown)
}
