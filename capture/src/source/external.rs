//! Sources of kinds that this crate does not have, because they need more than packet sockets and
//! files: TLS, or the protocol of another daemon.
//!
//! The program that has such a kind gives its captures a [`SourceOpener`]. The pipeline treats it
//! like every other source; two captures have the same source if both are written the same way.

use std::hash::{Hash, Hasher};
use std::sync::Arc;

use super::{Source, SourceError, SourceOptions};

/// Opens a source of a kind that this crate does not have.
///
/// Opening must not wait for another machine: a source that connects does so in [`Source::run`],
/// and reports to its [`Observer`](super::Observer) while its peer is away.
pub trait SourceOpener: std::fmt::Debug + Send + Sync {
    /// The source as a user writes it, such as `remote:laptop/web`. It identifies the source.
    fn written(&self) -> &str;

    /// The text from which the default alias of a capture is made. Characters that an alias cannot
    /// have are replaced later.
    fn default_alias(&self) -> String;

    /// Opens the source.
    ///
    /// # Errors
    /// [`SourceError`]; nothing stays open.
    fn open(&self, options: &SourceOptions<'_>) -> Result<Box<dyn Source>, SourceError>;

    /// Name of the interface of this machine that its packets come from; `None` if they come from
    /// elsewhere.
    fn interface(&self) -> Option<&str> {
        None
    }

    /// Returns `true` if frames can be injected into it, see [`Injection`](crate::injection::Injection).
    fn takes_frames(&self) -> bool {
        false
    }

    /// Returns `true` if opening the source changes something on this machine, so that only root
    /// may order it.
    fn is_for_root(&self) -> bool {
        false
    }

    /// Why the source could not be opened now, as text for people. It does not connect.
    fn lack(&self) -> Option<String> {
        None
    }

    /// The far side of the source, for the status of its capture; `None` if it has none.
    fn status(&self) -> Option<serde_json::Value> {
        None
    }
}

/// A source of a kind that this crate does not have.
#[derive(Clone, Debug)]
pub struct ExternalSource(Arc<dyn SourceOpener>);

impl ExternalSource {
    /// The source that `opener` opens.
    pub fn new(opener: impl SourceOpener + 'static) -> Self {
        Self(Arc::new(opener))
    }
}

impl std::ops::Deref for ExternalSource {
    type Target = dyn SourceOpener;

    fn deref(&self) -> &Self::Target {
        &*self.0
    }
}

impl PartialEq for ExternalSource {
    fn eq(&self, other: &Self) -> bool {
        self.written() == other.written()
    }
}

impl Eq for ExternalSource {}

impl Hash for ExternalSource {
    fn hash<H: Hasher>(&self, state: &mut H) {
        self.written().hash(state);
    }
}
