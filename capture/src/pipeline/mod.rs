//! A capture as a whole: a source, a store, the thread between them, and its state.
//!
//! Apart from [`flow`], this is the only module of the crate that starts threads. A capture of an
//! interface or a stream has a [ring](crate::ring) and a thread that fills it. A capture of a
//! savefile has the savefile and a thread that indexes it.

mod counters;
mod populate;
mod rate;
mod worker;

use std::collections::VecDeque;
use std::path::PathBuf;
use std::sync::Arc;

use parking_lot::Mutex;
use protocol::time::{Precision, Timestamp};

pub use counters::{ByteCounters, PacketCounters, counters};
pub use rate::Rate;

use crate::clock;
use crate::filter::Filter;
use crate::flow::{self, Flows};
use crate::injection::{InjectSpeed, Injection};
use crate::own_transport::{OwnTransport, OwnTuple};
use crate::ring::{OpenedRing, Permissions, Ring, RingError, RingNumber, RingOptions};
use crate::savefile::{Probe, Savefile, SavefileOpenError};
use crate::source::{self, InterfaceBackend, Rest, Source, SourceError, SourceName, Workers};
use crate::store::{Interface, Store};
use rate::RateMeter;
use worker::Worker;

/// Default maximum of bytes kept of one packet: libpcap's `MAXIMUM_SNAPLEN`.
pub const DEFAULT_SNAPLEN: u32 = 262_144;

/// Maximum default kernel buffer of an interface, in bytes: 22 ms at 1 GB/s, enough for a thread
/// that is not scheduled for a few time slices on a busy machine.
pub const LARGEST_KERNEL_BUFFER: u64 = 22 << 20;

/// Minimum default kernel buffer of an interface, in bytes: four blocks.
pub const SMALLEST_KERNEL_BUFFER: u64 = 1 << 20;

/// Bytes of kernel buffer for an interface whose packets go to a ring of `ring_size` bytes: half of
/// that size, within the two limits above. This memory cannot be swapped.
#[must_use]
pub fn default_kernel_buffer(ring_size: u64) -> u64 {
    (ring_size / 2).clamp(SMALLEST_KERNEL_BUFFER, LARGEST_KERNEL_BUFFER)
}

/// The parameters of a capture.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Spec {
    /// Name of the capture, see [`is_alias`].
    pub alias: String,
    /// The source of the packets.
    pub source: SourceName,
    /// Filter expression; `None` and an empty one match everything.
    pub filter: Option<String>,
    /// Maximum number of bytes kept of one packet.
    pub snaplen: u32,
    /// Have an interface receive frames for other stations too.
    pub promiscuous: bool,
    /// Resolution of the time stamps that are stored; savefiles keep their own.
    pub precision: Precision,
    /// Bytes of packets to retain; savefiles retain all packets.
    pub ring_size: u64,
    /// Nobody has chosen that size, so it may be smaller where there is little room.
    pub is_default_ring: bool,
    /// Directory of the ring file.
    pub ring_dir: PathBuf,
    /// Bytes in which the kernel keeps packets of an interface until they are fetched; `None` for
    /// [`default_kernel_buffer`].
    pub kernel_buffer: Option<u64>,
    /// How packets of an interface are received.
    pub backend: InterfaceBackend,
    /// The threads that take the packets of one interface.
    pub workers: Workers,
    /// How fast the gaps between injected frames pass.
    pub inject_speed: InjectSpeed,
    /// Serve the decryption secrets in a pcapng savefile or stream.
    pub export_keys: bool,
    /// How packets are grouped into flows.
    pub flows: flow::FlowOptions,
}

/// How the packets of an interface are received.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Reception {
    /// By which means.
    pub backend: InterfaceBackend,
    /// By how many threads.
    pub workers: u32,
}

impl Reception {
    fn of(source: &dyn Source) -> Option<Self> {
        source.backend().map(|backend| Self { backend, workers: source.workers() })
    }
}

impl Spec {
    /// Returns true if both captures would hold the same packets, so that one can be an alias of
    /// the other.
    #[must_use]
    pub fn is_same_capture(&self, other: &Self) -> bool {
        self.source == other.source
            && self.expression() == other.expression()
            && self.snaplen == other.snaplen
            && self.promiscuous == other.promiscuous
            && self.precision == other.precision
            && self.export_keys == other.export_keys
    }

    /// Bytes of kernel buffer, if the source is an interface.
    #[must_use]
    pub fn kernel_buffer(&self) -> u64 {
        self.kernel_buffer.unwrap_or_else(|| default_kernel_buffer(self.ring_size))
    }

    /// Opens the source, which must not be a savefile.
    fn open_source(
        &self,
        injection: Option<&Arc<Injection>>,
    ) -> Result<Box<dyn Source>, SourceError> {
        self.source.open(&source::SourceOptions {
            filter: self.expression(),
            snaplen: self.snaplen,
            promiscuous: self.promiscuous,
            kernel_buffer: self.kernel_buffer(),
            backend: self.backend,
            workers: self.workers,
            export_keys: self.export_keys,
            injection,
        })
    }

    fn expression(&self) -> Option<&str> {
        self.filter.as_deref().map(str::trim).filter(|text| !text.is_empty())
    }
}

/// Returns true if a name can be an alias: 1 to 64 characters of `A-Z a-z 0-9 . _ -`, the first not
/// a dot.
#[must_use]
pub fn is_alias(name: &str) -> bool {
    (1..=64).contains(&name.len())
        && !name.starts_with('.')
        && name.bytes().all(|byte| byte.is_ascii_alphanumeric() || b"._-".contains(&byte))
}

/// The state of a capture.
#[derive(Clone, Copy, Debug, PartialEq, Eq, serde::Serialize)]
#[serde(rename_all = "lowercase")]
pub enum CaptureState {
    /// It waits for the header of its source, which has the link type.
    Pending,
    /// Packets are captured as they come.
    Running,
    /// The source is gone, and the capture tries to open it again.
    Retrying,
    /// Stopped by an order.
    Stopped,
    /// The source has no more packets.
    Ended,
    /// The source failed, and will not be tried again.
    Failed,
}

/// The state of a capture, with its error.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Condition {
    /// The state.
    pub state: CaptureState,
    /// For people: the current or last error, or a note about packets that some files lack.
    pub error: Option<String>,
}

/// Why a capture cannot be created.
#[derive(Debug, thiserror::Error)]
pub enum CaptureError {
    /// An error of its source.
    #[error(transparent)]
    Source(#[from] SourceError),
    /// An error of its ring.
    #[error(transparent)]
    Ring(#[from] RingError),
    /// An error of its savefile.
    #[error(transparent)]
    Savefile(#[from] SavefileOpenError),
    /// An error of its filter.
    #[error(transparent)]
    Filter(#[from] crate::filter::FilterError),
    /// Data added to its savefile cannot be read.
    #[error("{0}")]
    NotReadOn(String),
    /// A thread or descriptor cannot be created.
    #[error("{0}")]
    System(#[from] std::io::Error),
}

/// A capture.
#[derive(Debug)]
pub struct Capture {
    spec: Spec,
    store: Arc<dyn Store>,
    kind: CaptureKind,
    flows: Arc<Flows>,
    worker: Mutex<Option<Worker>>,
    shared: Arc<SharedPipeline>,
    started: Timestamp,
}

#[derive(Debug)]
enum CaptureKind {
    Ring(Arc<Ring>),
    Savefile(Arc<Savefile>),
}

/// Whether a capture is created although its source is missing.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Patience {
    None,
    ForInterface,
}

/// Why nothing was captured between the last packet in a ring and the moment the ring was opened
/// again.
const NOT_RUNNING: &str = "the capture was not running";

/// Maximum number of interruptions kept for a capture: enough for someone who looks, and short
/// enough to be in every status.
const INTERRUPTIONS: usize = 16;

/// A time in which a source was missing, and nothing could be captured.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Interruption {
    /// When the source was found to be missing.
    pub began: Timestamp,
    /// When the source was back; `None` while it is still missing.
    pub ended: Option<Timestamp>,
    /// The cause, for people.
    pub why: String,
}

/// The state that the worker shares with the rest of the capture.
#[derive(Debug)]
struct SharedPipeline {
    condition: Mutex<Condition>,
    /// The last [`INTERRUPTIONS`], oldest first.
    interruptions: Mutex<VecDeque<Interruption>>,
    /// Of the source that was opened last.
    reception: Mutex<Option<Reception>>,
    /// Frames on their way to the source; `None` if it takes none.
    injection: Option<Arc<Injection>>,
    rate: RateMeter,
}

impl SharedPipeline {
    /// Records that the source is gone.
    fn interrupted(&self, began: Timestamp, why: &SourceError) {
        let mut interruptions = self.interruptions.lock();
        if interruptions.len() >= INTERRUPTIONS {
            interruptions.pop_front();
        }
        interruptions.push_back(Interruption { began, ended: None, why: why.to_string() });
    }

    /// Records that the source is back, or is no longer looked for.
    fn resumed(&self, ended: Timestamp) {
        if let Some(last) = self.interruptions.lock().back_mut() {
            last.ended.get_or_insert(ended);
        }
    }

    fn set(&self, state: CaptureState, error: Option<String>) {
        *self.condition.lock() = Condition { state, error };
    }

    fn error(&self) -> Option<String> {
        self.condition.lock().error.clone()
    }
}

/// A capture that has just been created.
#[derive(Debug)]
pub struct NewCapture {
    /// The capture, running.
    pub capture: Arc<Capture>,
    /// Packets that an earlier process left in its ring.
    pub recovered: u64,
    /// The part of an earlier ring that could not be kept, for people.
    pub damage: Option<String>,
}

impl Capture {
    /// Opens source and store, and starts the capture.
    ///
    /// # Errors
    /// [`CaptureError`]; nothing stays open and no file is left.
    pub fn start_new(spec: Spec) -> Result<NewCapture, CaptureError> {
        Self::make(spec, Patience::None)
    }

    /// Like [`Capture::start_new`], but waits for a missing interface: while a machine starts, it
    /// may appear later.
    ///
    /// # Errors
    /// [`CaptureError`]; nothing stays open and no file is left.
    pub fn start_waiting(spec: Spec) -> Result<NewCapture, CaptureError> {
        Self::make(spec, Patience::ForInterface)
    }

    fn make(spec: Spec, patience: Patience) -> Result<NewCapture, CaptureError> {
        match spec.source.savefile_path() {
            Some(path) => Self::of_savefile(Probe::open(path)?, spec),
            None => Self::of_ring(spec, patience),
        }
    }

    fn of_savefile(probe: Probe, spec: Spec) -> Result<NewCapture, CaptureError> {
        let filter = match spec.expression() {
            Some(expression) => Some(Filter::compile(expression, probe.link_type())?),
            None => None,
        };
        let snaplen = (spec.snaplen < DEFAULT_SNAPLEN).then_some(spec.snaplen);
        let follow = !spec.source.is_complete_savefile();
        let savefile = probe.into_savefile(crate::savefile::SavefileOptions {
            filter,
            snaplen,
            follow,
            without_keys: !spec.export_keys,
        });
        let savefile = Arc::new(savefile);
        let kind = CaptureKind::Savefile(Arc::clone(&savefile));
        let capture = Self::assemble(spec, savefile, kind, (CaptureState::Running, None))?;
        capture.start()?;
        Ok(NewCapture { capture, recovered: 0, damage: None })
    }

    fn of_ring(spec: Spec, patience: Patience) -> Result<NewCapture, CaptureError> {
        let opening = clock::now();
        let takes_frames = spec.source.external().is_some_and(|source| source.takes_frames());
        let injection = takes_frames.then(|| Injection::new(spec.inject_speed)).transpose()?;
        let (source, lack) = match spec.open_source(injection.as_ref()) {
            Ok(source) => (Some(source), None),
            Err(lack @ (SourceError::NoInterface { .. } | SourceError::NoNamespace { .. }))
                if patience == Patience::ForInterface =>
            {
                // As far as can be checked before the link type of the interface is known.
                if let Some(expression) = spec.expression() {
                    Filter::check(expression, spec.source.filter_runner())?;
                }
                (None, Some(lack))
            }
            Err(error) => return Err(error.into()),
        };
        let link_type = source.as_ref().and_then(|source| source.link_type());
        let options = RingOptions {
            path: spec.ring_dir.join(format!("{}.ring", spec.alias)),
            size: spec.ring_size,
            snaplen: spec.snaplen,
            precision: spec.precision,
            link_type,
            interface: Interface {
                name: Some(spec.source.interface_name()),
                description: spec.source.interface_description(),
                filter: spec.expression().map(str::to_owned),
                snaplen: spec.snaplen,
                link_type: None,
            },
        };
        let OpenedRing { ring, mut writer, recovered, left, damage } = Ring::open(&options)?;
        let resumes = source.as_ref().is_some_and(|source| source.rest() == Rest::Resumed);
        if recovered > 0
            && !resumes
            && let Some(left) = left
        {
            // A killed process may have stored packets after it last stored a time in the ring.
            let newest = ring.bounds().newest_time.filter(|newest| *newest < opening);
            writer.source_rests(newest.map_or(left, |newest| newest.max(left)), NOT_RUNNING);
        }
        let state = if link_type.is_some() { CaptureState::Running } else { CaptureState::Pending };
        populate::populate(&ring);
        let kind = CaptureKind::Ring(Arc::clone(&ring));
        let capture = Self::assemble(spec, ring, kind, (state, injection))?;
        let mut worker = Worker::idle(writer, source);
        match lack {
            None => worker.start_at(opening, &capture.spec, &capture.shared)?,
            Some(lack) => worker.look_for(&lack, &capture.spec, &capture.shared)?,
        }
        *capture.worker.lock() = Some(worker);
        Ok(NewCapture { capture, recovered, damage })
    }

    fn assemble(
        spec: Spec,
        store: Arc<dyn Store>,
        kind: CaptureKind,
        (state, injection): (CaptureState, Option<Arc<Injection>>),
    ) -> Result<Arc<Self>, CaptureError> {
        let condition = Mutex::new(Condition { state, error: None });
        let flows = Arc::new(Flows::start(&spec.alias, Arc::clone(&store), spec.flows)?);
        Ok(Arc::new(Self {
            spec,
            store,
            kind,
            flows,
            worker: Mutex::new(None),
            shared: Arc::new(SharedPipeline {
                condition,
                interruptions: Mutex::default(),
                reception: Mutex::default(),
                injection,
                rate: RateMeter::default(),
            }),
            started: clock::now(),
        }))
    }

    /// The parameters of the capture.
    #[must_use]
    pub fn spec(&self) -> &Spec {
        &self.spec
    }

    /// The store with its packets.
    #[must_use]
    pub fn store(&self) -> &Arc<dyn Store> {
        &self.store
    }

    /// The flows of its packets.
    #[must_use]
    pub fn flows(&self) -> &Arc<Flows> {
        &self.flows
    }

    /// When the capture was created.
    #[must_use]
    pub fn started(&self) -> Timestamp {
        self.started
    }

    /// The current state. A savefile has ended when all of its packets are in its flows.
    #[must_use]
    pub fn condition(&self) -> Condition {
        let mut condition = self.shared.condition.lock().clone();
        if matches!(self.kind, CaptureKind::Savefile(_))
            && condition.state == CaptureState::Ended
            && !self.flows.is_caught_up()
        {
            condition.state = CaptureState::Running;
        }
        if let CaptureKind::Savefile(savefile) = &self.kind
            && let Some(problem) = savefile.problem().or_else(|| savefile.note())
        {
            condition.error = Some(problem);
        }
        condition
    }

    /// Returns true if everything that the savefile had at the last look is in the store and in the
    /// flows, or never will be. Always true for other sources.
    #[must_use]
    pub fn is_read(&self) -> bool {
        let CaptureKind::Savefile(savefile) = &self.kind else { return true };
        let is_over =
            !matches!(self.condition().state, CaptureState::Pending | CaptureState::Running);
        is_over || (savefile.is_read() && self.flows.is_caught_up())
    }

    /// The last times in which the source was missing, oldest first.
    #[must_use]
    pub fn interruptions(&self) -> Vec<Interruption> {
        self.shared.interruptions.lock().iter().cloned().collect()
    }

    /// How packets of its interface are received; `None` for other sources, and before the interface
    /// was there.
    #[must_use]
    pub fn reception(&self) -> Option<Reception> {
        *self.shared.reception.lock()
    }

    /// Takes frames for its interface; `None` if its source takes none.
    #[must_use]
    pub fn injection(&self) -> Option<&Arc<Injection>> {
        self.shared.injection.as_ref()
    }

    /// The connections of this process whose packets the capture leaves out: none unless it is one
    /// of an interface.
    #[must_use]
    pub fn excluded(&self) -> Vec<OwnTuple> {
        match &self.kind {
            CaptureKind::Ring(ring) if self.spec.source.is_of_own_network() => {
                OwnTransport::of_process().tuples(Some(ring.number()))
            }
            CaptureKind::Ring(_) | CaptureKind::Savefile(_) => Vec::new(),
        }
    }

    /// The number of its ring; `None` for a savefile.
    #[must_use]
    pub fn ring_number(&self) -> Option<RingNumber> {
        match &self.kind {
            CaptureKind::Ring(ring) => Some(ring.number()),
            CaptureKind::Savefile(_) => None,
        }
    }

    /// Packets and bits per second, over about the last second.
    #[must_use]
    pub fn rate(&self) -> Rate {
        self.shared.rate.get()
    }

    /// The path of its ring file; `None` for a savefile.
    #[must_use]
    pub fn ring_path(&self) -> Option<&std::path::Path> {
        match &self.kind {
            CaptureKind::Ring(ring) => Some(ring.path()),
            CaptureKind::Savefile(_) => None,
        }
    }

    /// The permissions kept with the ring.
    #[must_use]
    pub fn permissions(&self) -> Option<Permissions> {
        match &self.kind {
            CaptureKind::Ring(ring) => ring.permissions(),
            CaptureKind::Savefile(_) => None,
        }
    }

    /// Keeps permissions with the ring. A savefile's capture does not keep them.
    pub fn keep_permissions(&self, permissions: Permissions) {
        if let CaptureKind::Ring(ring) = &self.kind {
            ring.set_permissions(permissions);
        }
    }

    /// Starts the capture, or starts it again. A running capture does not change.
    ///
    /// # Errors
    /// [`CaptureError`] if the source cannot be opened; the capture stays stopped.
    pub fn start(&self) -> Result<(), CaptureError> {
        let mut worker = self.worker.lock();
        match &self.kind {
            CaptureKind::Savefile(savefile) => {
                let is_at_work = worker.as_ref().is_some_and(Worker::is_indexing);
                // Index the data added since, and the data left when indexing was stopped.
                if !is_at_work && savefile.look_again().map_err(CaptureError::NotReadOn)? {
                    self.shared.set(CaptureState::Running, None);
                    *worker = Some(Worker::index(savefile, &self.shared)?);
                }
            }
            CaptureKind::Ring(_) => {
                if let Some(worker) = worker.as_mut() {
                    worker.start(&self.spec, &self.shared)?;
                }
            }
        }
        Ok(())
    }

    /// Stops the capture: readers of streams get the stored packets and then the end. A FIFO is
    /// still read, so that the programs that write into it are not held up, but nothing of it is
    /// stored.
    ///
    /// # Blocking
    /// Waits for the thread to finish its batch.
    pub fn stop(&self) {
        let mut worker = self.worker.lock();
        if let Some(worker) = worker.as_mut() {
            worker.stop(&self.shared);
        }
    }

    /// Drops all retained packets. Returns whether that is possible: packets of a savefile cannot
    /// be dropped.
    pub fn clear(&self) -> bool {
        match &self.kind {
            CaptureKind::Savefile(_) => false,
            CaptureKind::Ring(_) => {
                if let Some(worker) = self.worker.lock().as_mut() {
                    worker.clear();
                }
                true
            }
        }
    }
}

impl Drop for Capture {
    fn drop(&mut self) {
        if let Some(worker) = self.worker.get_mut() {
            worker.end(&self.shared);
        }
        if let CaptureKind::Ring(ring) = &self.kind {
            populate::leave(ring);
        }
    }
}
