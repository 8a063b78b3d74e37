//! Directories in which the daemon makes files, and checks that no other user can replace them.
//!
//! In a directory that another user can change, a name may lead to any file that this user chooses.
//! Trusted are root, this user and, if it was given a directory of the system, the user of the
//! service.

use std::fs::{self, DirBuilder, Metadata};
use std::io;
use std::os::unix::fs::{DirBuilderExt, MetadataExt, PermissionsExt};
use std::path::{Path, PathBuf};

use nix::unistd::geteuid;

use crate::fs::{user_id, user_name};

/// The user that runs daemons of `mount -t pcapfs`, and owns the directories of the system.
pub(crate) const SERVICE: &str = "pcapfs";

/// Directory of root's rings if the usual one belongs to another user: only root can make this one.
const OTHER_RINGS: &str = "/run/pcapfs/rings";

/// Default directory of rings: this user's own, in memory. Another user can make the usual name
/// first; then it is one inside a directory that only this user can write to.
pub(crate) fn default_ring_dir() -> PathBuf {
    let uid = geteuid();
    let usual = if uid.is_root() {
        PathBuf::from("/dev/shm/pcapfs")
    } else {
        PathBuf::from(format!("/dev/shm/pcapfs-{uid}"))
    };
    if !is_squatted(&usual) && check_way(&usual).is_ok() {
        return usual;
    }
    let runtime = || {
        let directory = PathBuf::from(std::env::var_os("XDG_RUNTIME_DIR")?);
        directory.is_absolute().then(|| directory.join("pcapfs/rings"))
    };
    let own = (!uid.is_root()).then(runtime).flatten();
    own.unwrap_or_else(|| OTHER_RINGS.into())
}

/// True if another user, not root, owns the file of this name.
fn is_squatted(path: &Path) -> bool {
    fs::symlink_metadata(path).is_ok_and(|metadata| !is_trusted(&metadata))
}

fn is_trusted(metadata: &Metadata) -> bool {
    metadata.uid() == 0 || metadata.uid() == geteuid().as_raw()
}

/// Why a ring directory cannot be used.
#[derive(Debug, thiserror::Error)]
#[error("{path}: {why}", path = .path.display())]
pub(crate) struct RingDirError {
    path: PathBuf,
    why: String,
}

/// Makes the ring directory, or checks that no other user can put a file into it.
///
/// # Errors
/// The problem with the directory. A directory that was made stays.
pub(crate) fn prepare_ring_dir(path: &Path) -> Result<(), RingDirError> {
    let failure = |why: String| RingDirError { path: path.to_owned(), why };
    // The parent of a default directory may be missing as well.
    if path == default_ring_dir()
        && let Some(parent) = path.parent()
    {
        // A failure shows up below.
        let _ = DirBuilder::new().recursive(true).mode(0o755).create(parent);
    }
    prepare(path, 0o700, "choose another --ring-dir").map_err(failure)
}

/// Makes the directory of an identity, or checks that no other user can put a file into it.
///
/// # Errors
/// The problem with the directory, for people. A directory that was made stays.
pub(crate) fn prepare_identity_dir(path: &Path) -> Result<(), String> {
    check_way(path)?;
    let whole = std::path::absolute(path).map_err(|error| error.to_string())?;
    let missing: Vec<&Path> = whole.ancestors().take_while(|place| !place.exists()).collect();
    for place in missing.into_iter().skip(1).rev() {
        // A failure shows up below.
        let _ = make_dir(place, 0o755);
    }
    prepare(path, 0o755, "choose another --dir")
}

/// Makes a directory with these permission bits, whatever the umask.
fn make_dir(path: &Path, mode: u32) -> io::Result<()> {
    DirBuilder::new().mode(mode).create(path)?;
    fs::set_permissions(path, fs::Permissions::from_mode(mode))
}

/// Makes a directory with these permission bits, or checks that no other user can put a file into
/// it. `advice` is part of the reason for a refusal.
fn prepare(path: &Path, mode: u32, advice: &str) -> Result<(), String> {
    check_way(path)?;
    match make_dir(path, mode) {
        Ok(()) => return Ok(()),
        Err(error) if error.kind() == io::ErrorKind::AlreadyExists => {}
        Err(error) => return Err(format!("cannot be made: {error} ({advice})")),
    }
    // In a directory in which every user may make files, it could be a link of any user.
    let named = fs::symlink_metadata(path).map_err(|error| error.to_string())?;
    let metadata = fs::metadata(path).map_err(|error| error.to_string())?;
    for found in [&named, &metadata] {
        if !is_trusted(found) {
            let owner = user_name(found.uid());
            return Err(format!("belongs to user {owner} ({advice})"));
        }
    }
    if !metadata.is_dir() {
        return Err("not a directory".to_owned());
    }
    // A file in a directory that others may write to could be a file of theirs.
    if metadata.mode() & 0o022 != 0 {
        return Err(format!("others may write to this directory ({advice}, or chmod go-w it)"));
    }
    Ok(())
}

/// Checks that no other user can replace the directory of a socket or the socket in it.
///
/// # Errors
/// The reason for a refusal, for people.
pub(crate) fn check_socket_dir(path: &Path, metadata: &Metadata) -> Result<(), String> {
    check_way(path)?;
    let of_service = Some(metadata.uid()) == user_id(SERVICE);
    if !is_trusted(metadata) && !of_service {
        let owner = user_name(metadata.uid());
        return Err(format!(
            "its directory belongs to user {owner}, who may replace it (choose another --socket)"
        ));
    }
    if metadata.mode() & 0o1002 == 0o002 {
        return Err(
            "everybody may replace a socket in this directory (chmod o-w it, or choose another \
             --socket)"
                .to_owned(),
        );
    }
    Ok(())
}

/// Checks that no other user can change where `path` leads: neither it nor a directory above it is
/// a link of another user, and no directory above it lets every user rename its entries.
fn check_way(path: &Path) -> Result<(), String> {
    let path = std::path::absolute(path).map_err(|error| error.to_string())?;
    for place in path.ancestors() {
        // A missing part has no owner.
        if let Ok(named) = fs::symlink_metadata(place)
            && named.is_symlink()
            && !is_trusted(&named)
        {
            let owner = user_name(named.uid());
            return Err(format!("{} is a link of user {owner}", place.display()));
        }
    }
    let real = path.ancestors().skip(1).find_map(|above| fs::canonicalize(above).ok());
    let loose = real
        .as_deref()
        .into_iter()
        .flat_map(Path::ancestors)
        .find(|above| fs::metadata(above).is_ok_and(|found| found.mode() & 0o1002 == 0o002));
    match loose {
        Some(loose) => Err(format!(
            "every user may replace what is in {} (chmod +t or o-w it, or choose another place)",
            loose.display()
        )),
        None => Ok(()),
    }
}

/// A path that is valid in every directory, with links followed as far as it exists.
///
/// # Errors
/// The current directory is not known, or the path is empty.
pub(crate) fn absolute(path: &Path) -> io::Result<PathBuf> {
    // A mount point whose daemon died cannot be resolved, and need not be.
    match fs::canonicalize(path) {
        Ok(whole) => Ok(whole),
        Err(_) => {
            let whole = std::path::absolute(path)?;
            // The parent can be resolved, and must be: mount tables have no links.
            match (whole.parent().map(fs::canonicalize), whole.file_name()) {
                (Some(Ok(parent)), Some(name)) => Ok(parent.join(name)),
                _ => Ok(whole),
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use std::fs::Permissions;
    use std::os::unix::fs::{chown, lchown, symlink};

    use super::*;

    const STRANGER: u32 = 54_321;

    fn refused(path: &Path) -> String {
        prepare_ring_dir(path).unwrap_err().to_string()
    }

    #[test]
    fn a_ring_directory_belongs_to_no_other_user() {
        if !geteuid().is_root() {
            return;
        }
        let folder = tempfile::tempdir().unwrap();
        let path = |name: &str| folder.path().join(name);
        for name in ["own", "theirs", "open", "loose"] {
            fs::create_dir(path(name)).unwrap();
        }
        chown(path("theirs"), Some(STRANGER), None).unwrap();
        fs::set_permissions(path("open"), Permissions::from_mode(0o770)).unwrap();
        fs::set_permissions(path("loose"), Permissions::from_mode(0o777)).unwrap();
        symlink(path("own"), path("link")).unwrap();
        symlink(path("own"), path("their-link")).unwrap();
        lchown(path("their-link"), Some(STRANGER), None).unwrap();
        symlink(folder.path(), path("their-way")).unwrap();
        lchown(path("their-way"), Some(STRANGER), None).unwrap();
        for name in ["own", "new", "link", "theirs/below"] {
            prepare_ring_dir(&path(name)).unwrap_or_else(|error| panic!("{name}: {error}"));
        }
        assert!(refused(&path("theirs")).contains("belongs to user 54321"));
        assert!(refused(&path("their-link")).contains("is a link of user 54321"));
        assert!(refused(&path("open")).contains("others may write"));
        assert!(refused(&path("their-way/own")).contains("is a link of user 54321"));
        assert!(refused(&path("loose/rings")).contains("every user may replace what is in"));
        fs::set_permissions(path("loose"), Permissions::from_mode(0o1777)).unwrap();
        prepare_ring_dir(&path("loose/rings")).unwrap();
    }

    #[test]
    fn the_directory_of_a_socket_belongs_to_no_other_user() {
        if !geteuid().is_root() {
            return;
        }
        let folder = tempfile::tempdir().unwrap();
        let check = || check_socket_dir(folder.path(), &fs::metadata(folder.path()).unwrap());
        check().unwrap();
        chown(folder.path(), Some(STRANGER), None).unwrap();
        let why = check().unwrap_err();
        assert!(why.contains("belongs to user 54321, who may replace it"), "{why}");
    }

    #[test]
    fn a_name_that_another_user_has_taken_is_not_used() {
        if !geteuid().is_root() {
            return;
        }
        let folder = tempfile::tempdir().unwrap();
        assert!(!is_squatted(folder.path()) && !is_squatted(&folder.path().join("none")));
        let path = folder.path().join("taken");
        symlink("/nowhere", &path).unwrap();
        assert!(!is_squatted(&path));
        lchown(&path, Some(STRANGER), None).unwrap();
        assert!(is_squatted(&path));
    }
}
