//! State that outlives the daemon beside the rings: captures made by `init`, and changed
//! permissions.
//!
//! It is one JSON file, rewritten as a whole for each change: written beside its place, synced, and
//! renamed, so that the file is always complete. It exists only once there was something to keep. A
//! file that cannot be read, as after a crash of the machine, is set aside with a message, and the
//! daemon goes on without it: running the captures is worth more than anything in the file.

use std::collections::BTreeMap;
use std::env;
use std::fs::{self, DirBuilder, File};
use std::io::{self, Write};
use std::os::unix::ffi::OsStrExt;
use std::os::unix::fs::{DirBuilderExt, MetadataExt};
use std::path::{Path, PathBuf};

use capture::ring::Permissions;
use nix::errno::Errno;
use nix::fcntl::{Flock, FlockArg};
use nix::unistd::{Gid, Uid, geteuid, getgid, getuid, setegid, seteuid};
use parking_lot::Mutex;
use protocol::time::Precision;
use serde::{Deserialize, Serialize};

use crate::output::say;

/// Version of the format.
const VERSION: u32 = 1;

/// The directory of daemons of `mount -t pcapfs`. It belongs to their user, who can put any file
/// there.
const OF_SERVICE: &str = "/var/lib/pcapfs";

/// The directory of daemons that run as root: no other user can put a file there.
const OF_ROOT: &str = "/var/lib/pcapfs-root";

/// The maximum size of the file, in bytes: ten thousand captures.
const MAX_FILE: u64 = 16 << 20;

/// The kept state.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub(super) struct KeptState {
    version: u32,
    /// Permissions of the root of the tree, if they were changed.
    pub(super) root: Option<SavedPermissions>,
    /// Captures made by `init`, in that order.
    pub(super) captures: Vec<SavedCapture>,
    /// Other names made by `init`, each with the alias of its capture.
    pub(super) links: Vec<(String, String)>,
    /// Permissions that were changed, by alias.
    pub(super) permissions: BTreeMap<String, ChangedPermissions>,
}

impl KeptState {
    /// Forgets the state kept under a name, and returns what was forgotten. If `is_there`, the tree
    /// has a capture of this name, whose permissions and other names stay.
    pub(super) fn forget(&mut self, name: &str, is_there: bool) -> Vec<&'static str> {
        let mut forgotten = Vec::new();
        let counts = (self.captures.len(), self.links.len());
        self.captures.retain(|saved| saved.alias != name);
        self.links.retain(|(link, target)| link != name && (is_there || target != name));
        if self.captures.len() < counts.0 {
            forgotten.push("a capture made by pcapfs init");
        }
        if self.links.len() < counts.1 {
            forgotten.push("another name made by pcapfs init");
        }
        if !is_there && self.permissions.remove(name).is_some() {
            forgotten.push("changed permissions");
        }
        forgotten
    }
}

/// A capture made by `init`.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(super) struct SavedCapture {
    pub(super) alias: String,
    pub(super) interface: String,
    pub(super) filter: Option<String>,
    pub(super) snaplen: u32,
    #[serde(default = "yes")]
    pub(super) promiscuous: bool,
    pub(super) precision: SavedPrecision,
    pub(super) ring: u64,
    /// Nobody has chosen that size.
    #[serde(default)]
    pub(super) is_default_ring: bool,
    /// Bytes; `None` for a share of the common buffer.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub(super) kernel_buffer: Option<u64>,
    /// As it is written; `None` for the daemon's own.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub(super) backend: Option<String>,
    /// As it is written; `None` for the daemon's own.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub(super) workers: Option<String>,
    /// As it is written; `None` for the daemon's own.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub(super) inject_speed: Option<String>,
    pub(super) permissions: SavedPermissions,
}

/// The value in files from before the option existed.
const fn yes() -> bool {
    true
}

/// [`Precision`], in the file.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub(super) enum SavedPrecision {
    Micro,
    Nano,
}

impl From<Precision> for SavedPrecision {
    fn from(precision: Precision) -> Self {
        match precision {
            Precision::Micro => Self::Micro,
            Precision::Nano => Self::Nano,
        }
    }
}

impl From<SavedPrecision> for Precision {
    fn from(precision: SavedPrecision) -> Self {
        match precision {
            SavedPrecision::Micro => Self::Micro,
            SavedPrecision::Nano => Self::Nano,
        }
    }
}

/// Permissions as they were changed, and as they were configured at that time. If the configuration
/// differs now, it is newer than the change and takes precedence.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(super) struct ChangedPermissions {
    pub(super) now: SavedPermissions,
    pub(super) configured: SavedPermissions,
}

/// [`Permissions`], in the file.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(super) struct SavedPermissions {
    uid: u32,
    gid: u32,
    mode: u32,
}

impl From<Permissions> for SavedPermissions {
    fn from(Permissions { uid, gid, mode }: Permissions) -> Self {
        Self { uid, gid, mode }
    }
}

impl From<SavedPermissions> for Permissions {
    fn from(SavedPermissions { uid, gid, mode }: SavedPermissions) -> Self {
        Self { uid, gid, mode: mode & 0o777 }
    }
}

/// The file.
#[derive(Debug)]
pub(crate) struct StateFile {
    path: PathBuf,
    held: Mutex<HeldLock>,
}

#[derive(Debug, Default)]
struct HeldLock {
    state: KeptState,
    /// Keeps other daemons from writing the same file; taken at the first write.
    lock: Option<Flock<File>>,
}

impl StateFile {
    /// Reads the file, if it exists. A bad file is reported and set aside.
    pub(crate) fn load(path: PathBuf) -> Self {
        let mut held = HeldLock::default();
        match read(&path, &mut held.lock) {
            Ok(state) => held.state = state,
            Err(why) => say(format_args!("{}: {why}", path.display())),
        }
        Self { path, held: Mutex::new(held) }
    }

    /// The path of the file.
    pub(super) fn path(&self) -> &Path {
        &self.path
    }

    /// The state as it is now.
    pub(super) fn state(&self) -> KeptState {
        self.held.lock().state.clone()
    }

    /// Changes the state.
    ///
    /// # Errors
    /// The reason why the state was not written, for people. The change is then lost with this
    /// process.
    ///
    /// # Blocking
    /// On the disk.
    pub(super) fn change(&self, change: impl FnOnce(&mut KeptState)) -> Result<(), String> {
        let mut held = self.held.lock();
        let before = held.state.clone();
        change(&mut held.state);
        if held.state == before {
            return Ok(());
        }
        held.state.version = VERSION;
        let failure = |error: io::Error| format!("{}: {error}", self.path.display());
        let folder = self.path.parent().unwrap_or_else(|| Path::new("."));
        make_folder(folder).map_err(failure)?;
        if held.lock.is_none() {
            held.lock = Some(lock(&self.path)?);
        }
        write(&self.path, folder, &held.state).map_err(failure)
    }
}

/// Forgets the state under a name in the file at `path`. Returns what was forgotten, or `None`.
///
/// # Errors
/// The reason why the file cannot be read or changed, for people; also if a daemon is using it.
pub(crate) fn forget_in(path: &Path, name: &str) -> Result<Option<String>, String> {
    let _owner =
        Acting::as_owner_of(path).map_err(|error| format!("{}: {error}", path.display()))?;
    let mut held = HeldLock::default();
    held.state = read(path, &mut held.lock).map_err(|why| format!("{}: {why}", path.display()))?;
    let file = StateFile { path: path.to_owned(), held: Mutex::new(held) };
    let mut forgotten = Vec::new();
    file.change(|state| forgotten.extend(state.forget(name, false)))?;
    let what = forgotten.join(", ");
    Ok((!forgotten.is_empty()).then(|| format!("{what} ({})", path.display())))
}

/// Root acting as the user whose directory it changes: files it writes there belong to that user,
/// and the user's links cannot lead it to files that only root may reach. It applies to the whole
/// process.
struct Acting {
    is_root: bool,
}

impl Acting {
    fn as_owner_of(path: &Path) -> io::Result<Self> {
        let owner = path.parent().and_then(|folder| fs::metadata(folder).ok());
        let owner = owner.filter(|owner| geteuid().is_root() && owner.uid() != 0);
        let acting = Self { is_root: owner.is_none() };
        if let Some(owner) = owner {
            setegid(Gid::from_raw(owner.gid()))?;
            seteuid(Uid::from_raw(owner.uid()))?;
        }
        Ok(acting)
    }
}

impl Drop for Acting {
    fn drop(&mut self) {
        if !self.is_root {
            // Back to the real ids. If that fails, later operations fail for lack of rights.
            let _ = seteuid(getuid());
            let _ = setegid(getgid());
        }
    }
}

/// The state files of this user's daemons by default; for root, also those of `mount -t pcapfs`.
pub(crate) fn default_files() -> Vec<PathBuf> {
    let own = default_path(None, Path::new("/"), false);
    let service = geteuid().is_root().then(|| Path::new(OF_SERVICE));
    let folders = own.as_deref().and_then(Path::parent).into_iter().chain(service);
    let entries = folders.filter_map(|folder| fs::read_dir(folder).ok()).flatten().flatten();
    let mut files: Vec<_> = entries
        .map(|entry| entry.path())
        .filter(|path| path.extension().is_some_and(|end| end == "state"))
        .collect();
    files.sort();
    files
}

fn make_folder(folder: &Path) -> io::Result<()> {
    match DirBuilder::new().mode(0o700).create(folder) {
        Err(error) if error.kind() == io::ErrorKind::AlreadyExists => Ok(()),
        result => result,
    }
}

/// Takes the lock that belongs to a file.
fn lock(path: &Path) -> Result<Flock<File>, String> {
    let path = beside(path, ".lock");
    let file = File::options().create(true).truncate(false).write(true).open(&path);
    let file =
        file.map_err(|error| format!("{}: {error} (choose another --state)", path.display()));
    let file = file?;
    Flock::lock(file, FlockArg::LockExclusiveNonblock).map_err(|(_, errno)| match errno {
        Errno::EWOULDBLOCK => {
            format!("{}: another pcapfs is using it (choose another --state)", path.display())
        }
        errno => format!("{}: {errno}", path.display()),
    })
}

fn beside(path: &Path, end: &str) -> PathBuf {
    let mut name = path.as_os_str().to_owned();
    name.push(end);
    name.into()
}

fn read(path: &Path, held: &mut Option<Flock<File>>) -> Result<KeptState, String> {
    match fs::metadata(path) {
        Ok(metadata) if metadata.len() > MAX_FILE => {
            return Err("far too long; captures made by pcapfs init are not there".to_owned());
        }
        Ok(_) => {}
        // If the directory cannot exist, no state was kept. That no state can be kept is reported
        // at the first change.
        Err(error) => {
            log::debug!("{}: {error}", path.display());
            return Ok(KeptState::default());
        }
    }
    *held = Some(lock(path)?);
    let bytes = fs::read(path).map_err(|error| error.to_string())?;
    let read = serde_json::from_slice::<KeptState>(&bytes).map_err(|error| error.to_string());
    let read = read.and_then(|state| match state.version {
        VERSION => Ok(state),
        other => Err(format!("version {other}, which this program does not know")),
    });
    read.map_err(|why| {
        let aside = beside(path, ".damaged");
        let moved = match fs::rename(path, &aside) {
            Ok(()) => format!("it is {} now", aside.display()),
            Err(error) => format!("and cannot be set aside: {error}"),
        };
        format!("damaged ({why}), {moved}; captures made by pcapfs init are not there")
    })
}

fn write(path: &Path, folder: &Path, state: &KeptState) -> io::Result<()> {
    let mut file = tempfile::Builder::new().prefix(".pcapfs-state-").tempfile_in(folder)?;
    let text = serde_json::to_vec_pretty(state)?;
    file.write_all(&text)?;
    file.write_all(b"\n")?;
    file.as_file().sync_all()?;
    file.persist(path)?;
    // Syncs the name as well. If directories cannot be synced, there is no other way.
    let _ = File::open(folder).and_then(|folder| folder.sync_all());
    Ok(())
}

/// The path of the state file if no option sets it: in the directory of the rings if the daemon has
/// its own, otherwise a path derived from the mount point. `None` if there is no such place.
/// `is_systems`: root has started the daemon for all users, even if it runs as another user.
pub(crate) fn default_path(
    own_ring_dir: Option<&Path>,
    mountpoint: &Path,
    is_systems: bool,
) -> Option<PathBuf> {
    if let Some(directory) = own_ring_dir {
        return Some(directory.join("pcapfs.state"));
    }
    let name = format!("{}.state", escaped(mountpoint));
    if is_systems {
        return Some(Path::new(OF_SERVICE).join(name));
    }
    if geteuid().is_root() {
        return Some(Path::new(OF_ROOT).join(name));
    }
    let home =
        |variable| env::var_os(variable).map(PathBuf::from).filter(|path| path.is_absolute());
    let directory = home("XDG_STATE_HOME").or_else(|| Some(home("HOME")?.join(".local/state")))?;
    Some(directory.join("pcapfs").join(name))
}

/// A path as one file name.
fn escaped(path: &Path) -> String {
    let bytes = path.as_os_str().as_bytes();
    let bytes = bytes.strip_prefix(b"/").unwrap_or(bytes);
    let mut name = String::new();
    for &byte in bytes {
        match byte {
            b'/' => name.push('-'),
            b'A'..=b'Z' | b'a'..=b'z' | b'0'..=b'9' | b'_' | b'.' => name.push(char::from(byte)),
            _ => name.push_str(&format!("%{byte:02x}")),
        }
    }
    name
}

#[cfg(test)]
mod tests {
    use super::*;

    fn saved(alias: &str) -> SavedCapture {
        SavedCapture {
            alias: alias.to_owned(),
            interface: "eth0".to_owned(),
            filter: Some("tcp".to_owned()),
            snaplen: 262_144,
            promiscuous: true,
            precision: SavedPrecision::Nano,
            ring: 64 << 20,
            is_default_ring: false,
            kernel_buffer: Some(4 << 20),
            backend: Some("libpcap".to_owned()),
            workers: Some("2".to_owned()),
            inject_speed: Some("max".to_owned()),
            permissions: Permissions { uid: 1, gid: 2, mode: 0o750 }.into(),
        }
    }

    #[test]
    fn the_kept_state_is_read_back() {
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().join("pcapfs.state");
        let file = StateFile::load(path.clone());
        file.change(|_| {}).unwrap();
        assert!(!path.exists(), "there is nothing to keep");
        file.change(|state| state.captures.push(saved("web"))).unwrap();
        let kept = file.state();
        let other = StateFile::load(path.clone());
        assert_eq!(other.state(), KeptState::default(), "it is in use");
        assert!(other.change(|state| state.captures.clear()).is_ok(), "nothing to change");
        let error = other.change(|state| state.captures.push(saved("dns"))).unwrap_err();
        assert!(error.contains("another pcapfs is using it"), "{error}");
        drop((file, other));
        assert_eq!(StateFile::load(path).state(), kept);
    }

    #[test]
    fn a_truncated_state_is_set_aside() {
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().join("pcapfs.state");
        StateFile::load(path.clone()).change(|state| state.captures.push(saved("web"))).unwrap();
        let whole = fs::read(&path).unwrap();
        for len in 0..whole.len() - 2 {
            fs::write(&path, &whole[..len]).unwrap();
            let file = StateFile::load(path.clone());
            assert_eq!(file.state(), KeptState::default(), "{len}");
            assert!(!path.exists() && beside(&path, ".damaged").exists(), "{len}");
            file.change(|state| state.captures.push(saved("dns"))).unwrap();
            assert!(path.exists(), "{len}");
        }
    }

    #[test]
    fn paths_become_names() {
        for (path, name) in [("/captures", "captures"), ("/a/b-c d", "a-b%2dc%20d"), ("/", "")] {
            assert_eq!(escaped(Path::new(path)), name);
        }
        let own = default_path(Some(Path::new("/rings")), Path::new("/captures"), false);
        assert_eq!(own, Some("/rings/pcapfs.state".into()));
        let systems = default_path(None, Path::new("/captures"), true);
        assert_eq!(systems, Some("/var/lib/pcapfs/captures.state".into()));
        if geteuid().is_root() {
            let roots = default_path(None, Path::new("/captures"), false);
            assert_eq!(roots, Some("/var/lib/pcapfs-root/captures.state".into()));
        }
    }
}
