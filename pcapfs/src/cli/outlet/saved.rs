//! Places in captures that outlive a process: a small file of JSON, replaced as a whole.
//!
//! The file belongs to one process at a time, which holds a lock beside it.

use std::collections::BTreeMap;
use std::env;
use std::fs::{self, DirBuilder, File};
use std::io::{self, Write};
use std::os::unix::fs::DirBuilderExt;
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use nix::errno::Errno;
use nix::fcntl::{Flock, FlockArg};
use ring::digest::{SHA256, digest};
use serde::{Deserialize, Serialize};

use super::position::CapturePosition;
use crate::failure::Failure;

/// The time between two saves while places change: what is delivered in it is delivered again if the
/// process is killed.
const INTERVAL: Duration = Duration::from_secs(1);

/// Maximum number of bytes of the file: some ten thousand captures.
const MAX_FILE: u64 = 4 << 20;

/// The version of the file that this program writes.
const VERSION: u32 = 1;

/// The content of the file.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
struct PositionsFile {
    version: u32,
    /// By the name of the capture.
    captures: BTreeMap<String, CapturePosition>,
}

/// The file, and what is to be in it.
#[derive(Debug)]
pub(in crate::cli) struct SavedPositions {
    path: PathBuf,
    _lock: Flock<File>,
    content: PositionsFile,
    is_changed: bool,
    written: Instant,
}

/// The file of a command without `--state`: in `$STATE_DIRECTORY` of systemd, or
/// `$XDG_STATE_HOME/pcapfs`. `words` are the arguments, so that commands with other ones have files of
/// their own.
///
/// # Errors
/// No such directory is known.
pub(in crate::cli) fn default_path(command: &str, words: &[&str]) -> Result<PathBuf, Failure> {
    let set = |name: &str| env::var_os(name).map(PathBuf::from).filter(|path| path.is_absolute());
    let of_service = || {
        let all = env::var("STATE_DIRECTORY").ok()?;
        Some(PathBuf::from(all.split(':').next()?)).filter(|path| path.is_absolute())
    };
    let of_user = || set("XDG_STATE_HOME").or_else(|| Some(set("HOME")?.join(".local/state")));
    let directory = of_service().or_else(|| Some(of_user()?.join("pcapfs"))).ok_or_else(|| {
        Failure::Argument(
            "no place to remember where it was: neither $XDG_STATE_HOME nor $HOME is set (name a \
             file with --state)"
                .to_owned(),
        )
    })?;
    let digest = digest(&SHA256, words.join("\0").as_bytes());
    let digits = digest.as_ref().iter().take(6).map(|byte| format!("{byte:02x}"));
    Ok(directory.join(format!("{command}-{}.json", digits.collect::<String>())))
}

impl SavedPositions {
    /// Reads the file, if there is one, and keeps other processes from using it.
    ///
    /// # Errors
    /// Another process uses it, or it cannot be read or written.
    pub(in crate::cli) fn open(path: &Path) -> Result<Self, Failure> {
        let failure = |why: String| Failure::Answer(format!("{}: {why}", path.display()));
        if let Some(parent) = path.parent().filter(|parent| !parent.as_os_str().is_empty()) {
            let made = DirBuilder::new().recursive(true).mode(0o700).create(parent);
            made.map_err(|error| failure(format!("its directory cannot be made: {error}")))?;
        }
        let mut beside = path.as_os_str().to_owned();
        beside.push(".lock");
        let lock = File::options().create(true).truncate(false).write(true).open(&beside);
        let lock = lock.map_err(|error| failure(format!("cannot be locked: {error}")))?;
        let lock = Flock::lock(lock, FlockArg::LockExclusiveNonblock).map_err(|(_, error)| {
            failure(if error == Errno::EWOULDBLOCK {
                "another pcapfs with the same arguments uses it (end that one, or give this one a \
                 file of its own with --state)"
                    .to_owned()
            } else {
                format!("cannot be locked: {error}")
            })
        })?;
        let content = match read(path) {
            Ok(content) => content,
            Err(error) if error.kind() == io::ErrorKind::NotFound => PositionsFile::default(),
            Err(error) => {
                return Err(failure(format!("{error} (remove it to begin without it)")));
            }
        };
        if content.version > VERSION {
            return Err(failure(format!(
                "of a later version of pcapfs ({}); name another file with --state",
                content.version
            )));
        }
        let mut saved = Self {
            path: path.to_owned(),
            _lock: lock,
            content: PositionsFile { version: VERSION, ..content },
            is_changed: false,
            written: Instant::now(),
        };
        // A place that cannot be remembered is reported before anything is delivered.
        saved.write()?;
        Ok(saved)
    }

    /// The place in a capture.
    pub(in crate::cli) fn position(&self, capture: &str) -> Option<&CapturePosition> {
        self.content.captures.get(capture)
    }

    /// The names of the captures with a place.
    pub(in crate::cli) fn captures(&self) -> impl Iterator<Item = &str> {
        self.content.captures.keys().map(String::as_str)
    }

    /// Sets the place in a capture.
    pub(in crate::cli) fn set(&mut self, capture: &str, position: &CapturePosition) {
        match self.content.captures.get_mut(capture) {
            Some(known) if known == position => return,
            Some(known) => known.clone_from(position),
            None => {
                self.content.captures.insert(capture.to_owned(), position.clone());
            }
        }
        self.is_changed = true;
    }

    /// Forgets the place in a capture.
    pub(in crate::cli) fn forget(&mut self, capture: &str) {
        self.is_changed |= self.content.captures.remove(capture).is_some();
    }

    /// Saves the places, if some have changed and the last save was long enough ago.
    ///
    /// # Errors
    /// The file cannot be written.
    pub(in crate::cli) fn save_if_due(&mut self) -> Result<(), Failure> {
        if self.written.elapsed() < INTERVAL { Ok(()) } else { self.save() }
    }

    /// Saves the places, if some have changed.
    ///
    /// # Errors
    /// The file cannot be written.
    pub(in crate::cli) fn save(&mut self) -> Result<(), Failure> {
        if self.is_changed { self.write() } else { Ok(()) }
    }

    fn write(&mut self) -> Result<(), Failure> {
        let failure = |error: io::Error| {
            Failure::Answer(format!("{}: cannot be written: {error}", self.path.display()))
        };
        let directory = match self.path.parent() {
            Some(parent) if !parent.as_os_str().is_empty() => parent,
            _ => Path::new("."),
        };
        let text = serde_json::to_vec_pretty(&self.content).map_err(io::Error::other);
        let write = |text: &[u8]| {
            let mut file = tempfile::NamedTempFile::new_in(directory)?;
            file.write_all(text)?;
            file.write_all(b"\n")?;
            // After a power cut it is the file before or this one, and not an empty one.
            file.as_file().sync_data()?;
            file.persist(&self.path).map_err(|error| error.error)?;
            Ok(())
        };
        text.and_then(|text| write(&text)).map_err(failure)?;
        (self.is_changed, self.written) = (false, Instant::now());
        Ok(())
    }
}

fn read(path: &Path) -> io::Result<PositionsFile> {
    let length = fs::metadata(path)?.len();
    if length > MAX_FILE {
        return Err(io::Error::other("too long for places in captures"));
    }
    let text = fs::read(path)?;
    serde_json::from_slice(&text).map_err(|error| io::Error::other(format!("no places: {error}")))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::cli::outlet::event_kind::EventKind;

    #[test]
    fn places_are_found_again_and_the_file_has_one_user() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("below/state.json");
        let mut saved = SavedPositions::open(&path).unwrap();
        assert_eq!(saved.position("web"), None);
        let mut position = CapturePosition::default();
        position.begin("0a1b", 3);
        position.set_line(EventKind::Http, 7);
        saved.set("web", &position);
        saved.save().unwrap();
        let busy = SavedPositions::open(&path).unwrap_err().to_string();
        assert!(busy.contains("another pcapfs") && busy.contains("--state"), "{busy}");
        drop(saved);
        let mut saved = SavedPositions::open(&path).unwrap();
        assert_eq!(saved.position("web"), Some(&position));
        saved.forget("web");
        saved.save().unwrap();
        drop(saved);
        assert_eq!(SavedPositions::open(&path).unwrap().captures().count(), 0);
    }

    #[test]
    fn a_file_that_is_none_is_left_alone() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("state.json");
        for text in ["", "{", "[1]", r#"{"version": 1}"#] {
            fs::write(&path, text).unwrap();
            let error = SavedPositions::open(&path).unwrap_err().to_string();
            assert!(error.contains("remove it"), "{error}");
            assert_eq!(fs::read_to_string(&path).unwrap(), text);
        }
        fs::write(&path, r#"{"version": 2, "captures": {}}"#).unwrap();
        assert!(SavedPositions::open(&path).unwrap_err().to_string().contains("later version"));
    }

    #[test]
    fn other_arguments_have_another_file() {
        let name = |words: &[&str]| default_path("watch", words).unwrap();
        assert_ne!(name(&["web"]), name(&["web", "x"]));
        assert_ne!(name(&["we", "b"]), name(&["web"]));
        assert_eq!(name(&["web"]), name(&["web"]));
    }
}
