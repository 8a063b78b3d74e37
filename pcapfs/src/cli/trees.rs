//! Mounted trees, for users who look for a daemon.

use std::fs::File;
use std::io::Read;
use std::path::{Path, PathBuf};
use std::sync::mpsc;
use std::thread;
use std::time::{Duration, Instant};

use nix::errno::Errno;

use crate::fuse::mounted_trees;

/// How long to wait for trees to report their daemons' sockets: a tree that hangs does not answer.
const PATIENCE: Duration = Duration::from_millis(500);

/// Maximum number of bytes of `status.json` to read: ten thousand captures.
const MAX_STATUS: u64 = 4 << 20;

/// The mounted trees, with the sockets of their daemons; `None` without a tree.
pub(super) fn described() -> Option<String> {
    let places = mounted_trees();
    let (sender, answers) = mpsc::channel();
    for (index, place) in places.iter().cloned().enumerate() {
        let sender = sender.clone();
        // The thread is not joined: a tree that hangs blocks it.
        thread::spawn(move || {
            let _ = sender.send((index, socket(&place)));
        });
    }
    drop(sender);
    let mut said: Vec<String> = vec!["does not answer".to_owned(); places.len()];
    let until = Instant::now() + PATIENCE;
    while let Ok((index, answer)) =
        answers.recv_timeout(until.saturating_duration_since(Instant::now()))
    {
        if let Some(place) = said.get_mut(index) {
            *place = answer;
        }
    }
    let trees: Vec<String> = places
        .iter()
        .zip(said)
        .map(|(place, said)| format!("{} ({said})", place.display()))
        .collect();
    // Paths are a stranger's text, and terminals obey control characters.
    (!trees.is_empty()).then(|| trees.join(", ").replace(char::is_control, "?"))
}

/// The socket of the tree at `place`, or the reason why it is not known.
fn socket(place: &Path) -> String {
    let mut text = Vec::new();
    let read = File::open(place.join("status.json"))
        .and_then(|file| file.take(MAX_STATUS).read_to_end(&mut text));
    if let Err(error) = read {
        return match error.raw_os_error().map(Errno::from_raw) {
            Some(Errno::ENOTCONN) => "its daemon is gone".to_owned(),
            Some(Errno::EACCES) => "not for you".to_owned(),
            _ => error.to_string(),
        };
    }
    let status = serde_json::from_slice::<serde_json::Value>(&text).unwrap_or_default();
    match status.get("socket").and_then(|socket| socket.as_str()) {
        Some(socket) => format!("--socket {}", PathBuf::from(socket).display()),
        None => "no socket".to_owned(),
    }
}
