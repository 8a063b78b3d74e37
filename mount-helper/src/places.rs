//! Directories that the daemon writes to and cannot make by itself.

use std::fs::{self, File, OpenOptions, Permissions};
use std::io;
use std::os::unix::fs::{DirBuilderExt, MetadataExt, OpenOptionsExt, PermissionsExt, fchown};
use std::path::Path;

use crate::account::Account;

/// The default directory of the daemon's socket, and its permission bits: all users may connect.
const RUN: (&str, u32) = ("/run/pcapfs", 0o755);

/// The default directory of state that outlives the daemon: captures made by `pcapfs init`.
const STATE: (&str, u32) = ("/var/lib/pcapfs", 0o700);

/// Makes a directory for rings that belongs to this user, unless the name exists. The daemon checks
/// whether it can use the directory.
///
/// # Errors
/// If it cannot be made.
pub(crate) fn make_ring_directory(path: &Path, account: &Account) -> io::Result<()> {
    if !make(path)? {
        return Ok(());
    }
    give(&open(path)?, 0o700, account)
}

/// Makes `/run/pcapfs` and `/var/lib/pcapfs` for this user if they are missing. A directory that
/// root's daemon has made, or that an installation left to root, is given to the user.
///
/// Failures are ignored here: the daemon reports a directory that it needs and cannot use.
pub(crate) fn make_defaults(account: &Account) {
    for (path, mode) in [RUN, STATE] {
        let _ = provide(Path::new(path), mode, account);
    }
}

fn provide(path: &Path, mode: u32, account: &Account) -> io::Result<()> {
    let is_new = make(path)?;
    let directory = open(path)?;
    let metadata = directory.metadata()?;
    // If it belongs to another user, or another user can write to it, it is not given away.
    if is_new || (metadata.uid() == 0 && metadata.mode() & 0o022 == 0) {
        give(&directory, mode, account)?;
    }
    Ok(())
}

/// Makes a directory that only this process can use; returns whether it was missing.
fn make(path: &Path) -> io::Result<bool> {
    match fs::DirBuilder::new().mode(0o700).create(path) {
        Ok(()) => Ok(true),
        Err(error) if error.kind() == io::ErrorKind::AlreadyExists => Ok(false),
        Err(error) => Err(error),
    }
}

/// Opens a directory, but no link: exactly this directory is given away later.
fn open(path: &Path) -> io::Result<File> {
    OpenOptions::new().read(true).custom_flags(libc::O_DIRECTORY | libc::O_NOFOLLOW).open(path)
}

fn give(directory: &File, mode: u32, account: &Account) -> io::Result<()> {
    // Before it belongs to the user, since then it would take another capability.
    directory.set_permissions(Permissions::from_mode(mode))?;
    fchown(directory, Some(account.uid.as_raw()), Some(account.gid.as_raw()))
}

#[cfg(test)]
mod tests {
    use std::os::unix::fs::symlink;

    use nix::unistd::{Gid, Uid, geteuid};

    use super::*;

    #[test]
    fn only_directories_of_root_are_given_away() {
        if !geteuid().is_root() {
            return;
        }
        let folder = std::env::temp_dir().join(format!("pcapfs-places-{}", std::process::id()));
        fs::create_dir(&folder).unwrap();
        let account =
            Account { uid: Uid::from_raw(54_321), gid: Gid::from_raw(54_322), groups: vec![] };
        let found = |name: &str| {
            let metadata = fs::symlink_metadata(folder.join(name)).unwrap();
            (metadata.uid(), metadata.gid(), metadata.mode() & 0o7777)
        };
        for (name, mode) in [("roots", 0o700), ("open", 0o777)] {
            fs::create_dir(folder.join(name)).unwrap();
            fs::set_permissions(folder.join(name), Permissions::from_mode(mode)).unwrap();
        }
        symlink(folder.join("roots"), folder.join("link")).unwrap();
        fs::write(folder.join("file"), "").unwrap();
        for name in ["new", "open"] {
            provide(&folder.join(name), 0o755, &account).unwrap();
        }
        assert!(provide(&folder.join("link"), 0o755, &account).is_err());
        assert!(provide(&folder.join("file"), 0o755, &account).is_err());
        assert_eq!(found("new"), (54_321, 54_322, 0o755));
        assert_eq!(found("open"), (0, 0, 0o777), "others may write to it");
        assert_eq!(found("roots"), (0, 0, 0o700), "not through a link");
        provide(&folder.join("roots"), 0o755, &account).unwrap();
        assert_eq!(found("roots"), (54_321, 54_322, 0o755));
        fs::remove_dir_all(&folder).unwrap();
    }
}
