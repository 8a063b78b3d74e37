//! `pcapfs forget` without a daemon.

use std::path::Path;

use crate::failure::Failure;
use crate::paths::{absolute, default_ring_dir};
use crate::registry::{self, state};

/// `pcapfs forget --state`: forgets the state under a name in a file, and returns what was
/// forgotten.
pub(crate) fn forget_in(path: &Path, name: &str) -> Result<String, Failure> {
    let forgotten = state::forget_in(&absolute(path).map_err(Failure::System)?, name)
        .map_err(Failure::Answer)?;
    forgotten.ok_or_else(|| {
        Failure::Answer(format!("{name}: nothing is kept of it in {}", path.display()))
    })
}

/// `pcapfs forget` without a daemon: forgets the state under a name in the default files of this
/// user's daemons. Returns what was forgotten, or `None`.
pub(crate) fn forget_by_default(name: &str) -> Result<Option<String>, Failure> {
    let mut forgotten = Vec::new();
    for path in state::default_files() {
        forgotten.extend(state::forget_in(&path, name).map_err(Failure::Answer)?);
    }
    let ring = default_ring_dir().join(format!("{name}.ring"));
    if capture::pipeline::is_alias(name) && registry::forget_ring(&ring) {
        forgotten.push(format!("its packets in {}", ring.display()));
    }
    Ok((!forgotten.is_empty()).then(|| forgotten.join("; ")))
}
