//! The service: translates requests into orders, and refusals into status codes.

use std::io;
use std::pin::Pin;
use std::sync::Arc;
use std::time::Duration;

use capture::cursor::SavefileFormat;
use capture::pipeline::{CaptureError, CaptureState};
use tokio_stream::wrappers::IntervalStream;
use tokio_stream::{Empty, Stream, StreamExt};
use tonic::body::Body;
use tonic::{Code, Request, Response, Status};

use super::chunks;
use super::connections::{Busy, Peer};
use super::exclude::{ExcludeStream, ExcludedSockets};
use super::flow_packets::{self, FlowPacketsStream};
use super::follow::FollowAnswers;
use super::messages::control_server;
use super::messages::{self as message, StatusResponse};
use super::outgoing::Allowances;
use super::streams::{self, SavefileStream, Tasks};

use crate::fs::SavefileKind;
use crate::fs::captures::CaptureEntry;
use crate::registry::{InitOrder, Refusal, Registry};
use crate::waiters::Waiters;

/// The minimum time between two answers of a repeated status.
const LEAST_INTERVAL: Duration = Duration::from_millis(100);

/// The codec's stream of savefile chunks, which is always empty, see [`chunks`].
type Chunks = Empty<Result<message::Chunk, Status>>;

/// The same for the answers of a stream of packets.
type NoAnswers = Empty<Result<message::FollowResponse, Status>>;

/// The service.
#[derive(Debug)]
pub(super) struct Service {
    registry: Arc<Registry>,
    waiters: Arc<Waiters<Tasks>>,
    allowances: Allowances,
    excluded: ExcludedSockets,
}

impl Service {
    /// A service in the current runtime.
    ///
    /// # Errors
    /// Errors of making the sockets that wake its streams.
    pub(super) fn new(registry: Arc<Registry>) -> io::Result<Self> {
        Ok(Self {
            registry,
            waiters: streams::waiters()?,
            allowances: Allowances::default(),
            excluded: ExcludedSockets::default(),
        })
    }

    fn savefile<T>(
        &self,
        request: &Request<T>,
        capture: &str,
        format: message::Format,
        wanted: SavefileKind,
    ) -> Result<Response<Chunks>, Status> {
        let peer = peer(request)?;
        let entry = self.registry.readable(&peer.caller, capture).map_err(refused)?;
        peer.shown_rights();
        let format = match format {
            message::Format::Pcapng => SavefileFormat::Pcapng,
            message::Format::Pcap | message::Format::Unspecified => SavefileFormat::Pcap,
        };
        let uid = peer.caller.uid;
        let opener = peer.opener();
        let tree = &self.registry.tree;
        let what = (wanted, format);
        let outgoing = self.allowances.stream(uid);
        let savefile = SavefileStream::open(
            tree,
            &self.waiters,
            &entry,
            what,
            opener,
            (peer.busy(), outgoing),
        );
        let mut response = Response::new(tokio_stream::empty());
        chunks::hand_over(response.extensions_mut(), Body::new(savefile));
        Ok(response)
    }
}

/// The sender of a request.
fn peer<T>(request: &Request<T>) -> Result<Arc<Peer>, Status> {
    let peer = request.extensions().get::<Arc<Peer>>();
    let peer = peer.ok_or_else(|| Status::internal("nobody knows who is connected"))?;
    match peer.remote.as_ref().and_then(|remote| remote.refusal.as_ref()) {
        Some(refusal) => Err(Status::unauthenticated(refusal)),
        None => Ok(Arc::clone(peer)),
    }
}

/// A refusal as a status.
pub(super) fn refused(refusal: Refusal) -> Status {
    let code = match &refusal {
        Refusal::Denied(_) | Refusal::OnlyRoot(_) => Code::PermissionDenied,
        Refusal::NoSuchCapture(_) | Refusal::NothingKept(_) => Code::NotFound,
        Refusal::BadAlias(_)
        | Refusal::Reserved(_)
        | Refusal::NotAnInterface(_)
        | Refusal::Wrong(_) => Code::InvalidArgument,
        Refusal::Taken { .. } => Code::AlreadyExists,
        Refusal::Capture(CaptureError::Filter(_)) => Code::InvalidArgument,
        Refusal::Capture(_)
        | Refusal::RingDir(_)
        | Refusal::InTheTree(_)
        | Refusal::OnlyInTheTree(_)
        | Refusal::NotForgotten(_) => Code::FailedPrecondition,
    };
    Status::new(code, refusal.to_string())
}

/// Carries out a peer's order on a thread that may block.
async fn carry_out<R: Send + 'static>(
    registry: &Arc<Registry>,
    peer: Arc<Peer>,
    order: impl FnOnce(&Registry, &Peer) -> Result<R, Refusal> + Send + 'static,
) -> Result<R, Status> {
    let busy: Busy = peer.busy();
    let registry = Arc::clone(registry);
    let task = tokio::task::spawn_blocking(move || {
        let result = order(&registry, &peer);
        if result.is_ok() {
            peer.shown_rights();
        }
        drop(busy);
        result
    });
    task.await.map_err(|error| Status::internal(error.to_string()))?.map_err(refused)
}

#[tonic::async_trait]
impl control_server::Control for Service {
    async fn init(
        &self,
        request: Request<message::InitRequest>,
    ) -> Result<Response<message::InitResponse>, Status> {
        let peer = peer(&request)?;
        let asked = request.into_inner();
        let order = InitOrder {
            interface: asked.interface,
            filter: asked.filter,
            alias: asked.alias,
            ring: asked.ring,
            snaplen: asked.snaplen,
            group: asked.group,
            mode: asked.mode,
            promiscuous: asked.promiscuous,
            kernel_buffer: asked.kernel_buffer,
            backend: asked.backend,
            workers: asked.workers,
            inject_speed: asked.inject_speed,
        };
        let made = carry_out(&self.registry, peer, move |registry, peer| {
            registry.init(&peer.caller, &order)
        });
        let made = made.await?;
        let alias_of = if made.is_alias { made.entry.alias().to_owned() } else { String::new() };
        Ok(Response::new(message::InitResponse {
            id: number(&made.entry),
            alias: made.alias,
            alias_of,
            note: made.note.unwrap_or_default(),
        }))
    }

    async fn start(
        &self,
        request: Request<message::StartRequest>,
    ) -> Result<Response<message::StartResponse>, Status> {
        let (peer, capture) = (peer(&request)?, request.into_inner().capture);
        carry_out(&self.registry, peer, move |registry, peer| {
            registry.start(&peer.caller, &capture)
        })
        .await?;
        Ok(Response::new(message::StartResponse {}))
    }

    async fn stop(
        &self,
        request: Request<message::StopRequest>,
    ) -> Result<Response<message::StopResponse>, Status> {
        let (peer, capture) = (peer(&request)?, request.into_inner().capture);
        carry_out(&self.registry, peer, move |registry, peer| {
            registry.stop(&peer.caller, &capture)
        })
        .await?;
        Ok(Response::new(message::StopResponse {}))
    }

    async fn remove(
        &self,
        request: Request<message::RemoveRequest>,
    ) -> Result<Response<message::RemoveResponse>, Status> {
        let (peer, capture) = (peer(&request)?, request.into_inner().capture);
        let note = carry_out(&self.registry, peer, move |registry, peer| {
            registry.remove(&peer.caller, &capture)
        });
        Ok(Response::new(message::RemoveResponse { note: note.await?.unwrap_or_default() }))
    }

    async fn forget(
        &self,
        request: Request<message::ForgetRequest>,
    ) -> Result<Response<message::ForgetResponse>, Status> {
        let (peer, name) = (peer(&request)?, request.into_inner().capture);
        let note = carry_out(&self.registry, peer, move |registry, peer| {
            registry.forget(&peer.caller, &name)
        });
        Ok(Response::new(message::ForgetResponse { note: note.await? }))
    }

    async fn list(
        &self,
        request: Request<message::ListRequest>,
    ) -> Result<Response<message::ListResponse>, Status> {
        let peer = peer(&request)?;
        let capture = &request.get_ref().capture;
        let entries = if capture.is_empty() {
            self.registry.list(&peer.caller)
        } else {
            vec![self.registry.readable(&peer.caller, capture).map_err(refused)?]
        };
        if !entries.is_empty() {
            peer.shown_rights();
        }
        let captures = entries.iter().map(|entry| described(&self.registry, entry)).collect();
        let note = if capture.is_empty() { self.registry.hidden(&peer.caller) } else { None };
        Ok(Response::new(message::ListResponse { captures, note: note.unwrap_or_default() }))
    }

    type StatusStream = Pin<Box<dyn Stream<Item = Result<StatusResponse, Status>> + Send>>;

    async fn status(
        &self,
        request: Request<message::StatusRequest>,
    ) -> Result<Response<Self::StatusStream>, Status> {
        let peer = peer(&request)?;
        let message::StatusRequest { capture, interval } = request.into_inner();
        // Checked again each time: permissions may change while a client watches.
        let registry = Arc::clone(&self.registry);
        let busy = peer.busy();
        let outgoing = self.allowances.stream(peer.caller.uid);
        let answer = move || {
            let _while_watching = &busy;
            status(&registry, &peer, &capture)
        };
        let first = answer()?;
        if interval == 0 {
            return Ok(Response::new(Box::pin(tokio_stream::once(Ok(first)))));
        }
        let interval = Duration::from_millis(u64::from(interval)).max(LEAST_INTERVAL);
        let mut ticks = tokio::time::interval(interval);
        // A slow client gets the current status, not an old one.
        ticks.set_missed_tick_behavior(tokio::time::MissedTickBehavior::Skip);
        let answers = IntervalStream::new(ticks).map(move |_| answer());
        let mut response: Response<Self::StatusStream> = Response::new(Box::pin(answers));
        response.extensions_mut().insert(outgoing);
        Ok(response)
    }

    type ReplayStream = Chunks;

    async fn replay(
        &self,
        request: Request<message::ReplayRequest>,
    ) -> Result<Response<Chunks>, Status> {
        let asked = request.get_ref();
        // A savefile that is still being indexed ends with its last packet; this waits for it.
        let is_being_read = || {
            let entry = self.registry.readable(&peer(&request)?.caller, &asked.capture);
            let capture = &entry.map_err(refused)?.capture;
            let is_savefile = capture.spec().source.is_complete_savefile();
            Ok::<_, Status>(is_savefile && !capture.store().bounds().ended)
        };
        let wanted = if asked.live || is_being_read()? {
            SavefileKind::Follow
        } else {
            SavefileKind::Replay
        };
        self.savefile(&request, &asked.capture, asked.format(), wanted)
    }

    type ListenStream = Chunks;

    async fn listen(
        &self,
        request: Request<message::ListenRequest>,
    ) -> Result<Response<Chunks>, Status> {
        let asked = request.get_ref();
        self.savefile(&request, &asked.capture, asked.format(), SavefileKind::Live)
    }

    type FollowStream = NoAnswers;

    async fn follow(
        &self,
        request: Request<message::FollowRequest>,
    ) -> Result<Response<NoAnswers>, Status> {
        let peer = peer(&request)?;
        let asked = request.get_ref();
        let entry = self.registry.readable(&peer.caller, &asked.capture).map_err(refused)?;
        peer.shown_rights();
        let uid = peer.caller.uid;
        let opener = peer.opener();
        let packets = SavefileStream::packets(
            &self.registry.tree,
            &self.waiters,
            &entry,
            FollowAnswers::new(&self.registry, &peer, &entry, asked)?,
            opener,
            (peer.busy(), self.allowances.stream(uid)),
        );
        let mut response = Response::new(tokio_stream::empty());
        chunks::hand_over(response.extensions_mut(), Body::new(packets));
        Ok(response)
    }

    type FlowPacketsStream = FlowPacketsStream;

    async fn flow_packets(
        &self,
        request: Request<message::FlowPacketsRequest>,
    ) -> Result<Response<FlowPacketsStream>, Status> {
        let peer = peer(&request)?;
        let asked = request.get_ref();
        let entry = self.registry.readable(&peer.caller, &asked.capture).map_err(refused)?;
        peer.shown_rights();
        let outgoing = self.allowances.stream(peer.caller.uid);
        let packets = flow_packets::open(&entry, asked, peer.busy())?;
        let mut response = Response::new(packets);
        response.extensions_mut().insert(outgoing);
        Ok(response)
    }

    type ExcludeStream = ExcludeStream;

    async fn exclude(
        &self,
        request: Request<message::ExcludeRequest>,
    ) -> Result<Response<ExcludeStream>, Status> {
        let peer = peer(&request)?;
        let stream = ExcludeStream::open(&self.registry, &self.excluded, peer, request.get_ref())?;
        Ok(Response::new(stream))
    }
}

/// One answer to a request for a status.
fn status(registry: &Registry, peer: &Peer, capture: &str) -> Result<StatusResponse, Status> {
    let status = if capture.is_empty() {
        let entries = registry.list(&peer.caller);
        if !entries.is_empty() {
            peer.shown_rights();
        }
        registry.tree.status_of_daemon(&entries)
    } else {
        let entry = registry.readable(&peer.caller, capture).map_err(refused)?;
        peer.shown_rights();
        registry.tree.status_of(&entry)
    };
    Ok(StatusResponse { status: text(status) })
}

fn text(json: Vec<u8>) -> String {
    // JSON text is always UTF-8.
    String::from_utf8(json).unwrap_or_default().trim_end().to_owned()
}

/// The number of a capture for people, from 1.
const fn number(entry: &CaptureEntry) -> u32 {
    entry.id.saturating_add(1)
}

pub(super) const fn state_of(state: CaptureState) -> message::State {
    match state {
        CaptureState::Pending => message::State::Pending,
        CaptureState::Running => message::State::Running,
        CaptureState::Retrying => message::State::Retrying,
        CaptureState::Stopped => message::State::Stopped,
        CaptureState::Ended => message::State::Ended,
        CaptureState::Failed => message::State::Failed,
    }
}

fn described(registry: &Registry, entry: &CaptureEntry) -> message::Capture {
    let spec = entry.capture.spec();
    let condition = entry.capture.condition();
    let state = state_of(condition.state);
    message::Capture {
        id: number(entry),
        alias: entry.alias().to_owned(),
        aliases: registry.tree.captures.links_to(entry.alias()),
        source: spec.source.to_string(),
        filter: spec.filter.clone().unwrap_or_default(),
        state: state.into(),
        error: condition.error.unwrap_or_default(),
        status: text(registry.tree.status_of(entry)),
    }
}
