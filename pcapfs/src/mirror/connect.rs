//! Reaches the daemon of a remote.
//!
//! Many captures of one remote lose it at the same moment, and each asks again at times of its own.
//! While the remote is away they share what they find: one attempt answers for all of them for a
//! short time. Hundreds of captures then cost the network and both machines little more than one.

use std::collections::BTreeMap;
use std::time::{Duration, Instant};

use parking_lot::Mutex;
use tonic::transport::Channel;

use crate::remote::connect;

/// How long an attempt answers for others. No capture asks again itself within this time, so one
/// that is alone makes each of its attempts.
const SHARED: Duration = Duration::from_millis(50);

/// The remotes that did not answer last.
static AWAY: Absences = Absences::new();

/// Checks that the remote is known, without connecting.
///
/// # Errors
/// The reason, for people.
pub(super) fn check(name: &str) -> Result<(), String> {
    connect::find(name).map(|_| ()).map_err(|error| error.to_string())
}

/// Connects to the daemon of a remote.
///
/// # Errors
/// The reason, for people.
pub(super) async fn channel(name: &str) -> Result<Channel, String> {
    let connected = async {
        let remote = connect::find(name).map_err(|error| error.to_string())?;
        connect::connect(&remote).await.map_err(|error| error.to_string())
    };
    let connected = connected.await;
    AWAY.note(name, connected.as_ref().err().cloned());
    connected
}

/// Returns the reason for which the remote is away if another capture has just asked for it. `Ok`
/// means that the caller is the one to ask.
///
/// # Errors
/// The reason, for people.
pub(super) fn attempt(name: &str) -> Result<(), String> {
    AWAY.attempt(name, Instant::now())
}

/// What is known of remotes that are away.
#[derive(Debug)]
struct Absences(Mutex<BTreeMap<String, Absence>>);

/// A remote that is away.
#[derive(Debug)]
struct Absence {
    why: String,
    /// When the last attempt began or ended.
    tried: Instant,
}

impl Absences {
    const fn new() -> Self {
        Self(Mutex::new(BTreeMap::new()))
    }

    /// Begins an attempt, unless another one is too recent.
    fn attempt(&self, name: &str, now: Instant) -> Result<(), String> {
        let mut remotes = self.0.lock();
        let Some(absence) = remotes.get_mut(name) else { return Ok(()) };
        if now.saturating_duration_since(absence.tried) < SHARED {
            return Err(absence.why.clone());
        }
        absence.tried = now;
        Ok(())
    }

    /// Notes how an attempt ended: with the reason of an absence, or a connection.
    fn note(&self, name: &str, why: Option<String>) {
        let mut remotes = self.0.lock();
        match why {
            Some(why) => {
                let absence = Absence { why, tried: Instant::now() };
                let _ = remotes.insert(name.to_owned(), absence);
            }
            None => drop(remotes.remove(name)),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn one_attempt_answers_for_all() {
        let absences = Absences::new();
        let now = Instant::now();
        // Nothing is known of a remote that was there.
        assert_eq!(absences.attempt("far", now), Ok(()));
        assert_eq!(absences.attempt("far", now), Ok(()));
        absences.note("far", Some("refused".to_owned()));
        let tried = Instant::now();
        assert_eq!(absences.attempt("far", tried), Err("refused".to_owned()));
        assert_eq!(absences.attempt("other", tried), Ok(()));
        // Later, the first to ask makes an attempt, and the others have the answer before.
        let later = tried + SHARED;
        assert_eq!(absences.attempt("far", later), Ok(()));
        assert_eq!(absences.attempt("far", later), Err("refused".to_owned()));
        absences.note("far", None);
        assert_eq!(absences.attempt("far", later), Ok(()));
        assert_eq!(absences.attempt("far", later), Ok(()));
    }
}
