//! Files with keys, and the public files beside them: written once, and read only if no other user
//! could have read or changed them.
//!
//! A file is made under its name with its permissions, so that there is no moment when others may
//! open it. No file is ever overwritten.

use std::fs::{self, File, OpenOptions};
use std::io::{self, Read, Write};
use std::os::unix::fs::{MetadataExt, OpenOptionsExt, PermissionsExt, fchown};
use std::path::Path;

use nix::unistd::geteuid;

use crate::fs::{user_id, user_name};
use crate::paths::SERVICE;

/// Bytes of the largest file that is read: a key and a long chain take some ten thousand.
const MAX_FILE: u64 = 1 << 20;

/// Permission bits of keys.
pub(super) const PRIVATE: u32 = 0o600;

/// Permission bits of certificates and lists.
pub(super) const PUBLIC: u32 = 0o644;

/// Writes a new file with these permission bits, and syncs it.
///
/// # Errors
/// If there is something of this name already, a link too; and errors of writing, after which there
/// is no file.
pub(super) fn write_new(path: &Path, mode: u32, bytes: &[u8]) -> io::Result<()> {
    let mut file = OpenOptions::new()
        .write(true)
        .create_new(true)
        .mode(mode)
        .custom_flags(libc::O_NOFOLLOW)
        .open(path)?;
    // The umask must not decide whether a daemon of another user can read it.
    let readable = file.set_permissions(fs::Permissions::from_mode(mode));
    let written = readable.and_then(|()| file.write_all(bytes)).and_then(|()| file.sync_all());
    if written.is_err() {
        let _ = fs::remove_file(path);
    }
    written
}

/// Writes a new file with a key, for the user of this process only.
///
/// # Errors
/// See [`write_new`].
pub(crate) fn write_secret(path: &Path, text: &str) -> io::Result<()> {
    write_new(path, PRIVATE, text.as_bytes())
}

/// Replaces a public file as a whole: its readers see the old contents or the new ones.
///
/// # Errors
/// Errors of writing; the file is as before then.
pub(super) fn replace(path: &Path, bytes: &[u8]) -> io::Result<()> {
    let folder = path.parent().unwrap_or_else(|| Path::new("."));
    let mut file = tempfile::Builder::new().prefix(".pcapfs-").tempfile_in(folder)?;
    // The umask must not decide whether a daemon of another user can read it.
    file.as_file().set_permissions(fs::Permissions::from_mode(PUBLIC))?;
    file.write_all(bytes)?;
    file.as_file().sync_all()?;
    file.persist(path)?;
    // The name is on the disk only then; directories that cannot be synced have no other way.
    let _ = File::open(folder).and_then(|folder| folder.sync_all());
    Ok(())
}

/// Lets the user of the service read a file, if this process may give it away and there is such a
/// user: a daemon that `mount -t pcapfs` starts runs as that user.
///
/// # Errors
/// Errors of chown(2).
pub(super) fn give_to_service(path: &Path) -> io::Result<()> {
    let Some(uid) = user_id(SERVICE).filter(|_| geteuid().is_root()) else { return Ok(()) };
    let file = OpenOptions::new().read(true).custom_flags(libc::O_NOFOLLOW).open(path)?;
    fchown(&file, Some(uid), None)
}

/// Reads a file with a key.
///
/// # Errors
/// If another user, except root and the user of the service, owns it or may read it; and errors of
/// reading.
pub(crate) fn read_secret(path: &Path) -> io::Result<Vec<u8>> {
    let file = open(path)?;
    let metadata = file.metadata()?;
    if metadata.mode() & 0o077 != 0 {
        return Err(io::Error::other(format!(
            "other users may read this key (chmod 600 {})",
            path.display()
        )));
    }
    contents(&file, check_owner(&metadata))
}

/// Reads a file that no other user may write to.
///
/// # Errors
/// If another user may; and errors of reading.
pub(super) fn read_public(path: &Path) -> io::Result<Vec<u8>> {
    let file = open(path)?;
    let metadata = file.metadata()?;
    if metadata.mode() & 0o022 != 0 {
        return Err(io::Error::other(format!(
            "other users may write to it (chmod go-w {})",
            path.display()
        )));
    }
    contents(&file, check_owner(&metadata))
}

fn open(path: &Path) -> io::Result<File> {
    // A FIFO would wait for a writer.
    OpenOptions::new().read(true).custom_flags(libc::O_NONBLOCK).open(path)
}

fn check_owner(metadata: &fs::Metadata) -> io::Result<()> {
    let uid = metadata.uid();
    let is_trusted = uid == 0 || uid == geteuid().as_raw() || Some(uid) == user_id(SERVICE);
    if !metadata.is_file() {
        return Err(io::Error::other("not a file"));
    }
    if !is_trusted {
        let owner = user_name(uid);
        return Err(io::Error::other(format!("it belongs to user {owner} (chown it)")));
    }
    Ok(())
}

fn contents(file: &File, checked: io::Result<()>) -> io::Result<Vec<u8>> {
    checked?;
    let mut bytes = Vec::new();
    file.take(MAX_FILE.saturating_add(1)).read_to_end(&mut bytes)?;
    if bytes.len() as u64 > MAX_FILE {
        return Err(io::Error::other(format!("larger than {MAX_FILE} bytes")));
    }
    Ok(bytes)
}

#[cfg(test)]
mod tests {
    use std::os::unix::fs::symlink;

    use super::*;

    #[test]
    fn a_file_is_made_once_and_no_link_is_followed() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("key");
        write_new(&path, PRIVATE, b"secret").unwrap();
        assert_eq!(fs::metadata(&path).unwrap().mode() & 0o7777, 0o600);
        assert_eq!(
            write_new(&path, PRIVATE, b"x").unwrap_err().kind(),
            io::ErrorKind::AlreadyExists
        );
        assert_eq!(read_secret(&path).unwrap(), b"secret");
        let link = folder.path().join("link");
        symlink(folder.path().join("elsewhere"), &link).unwrap();
        assert!(write_new(&link, PRIVATE, b"x").is_err());
        assert!(!folder.path().join("elsewhere").exists());
    }

    #[test]
    fn what_others_may_read_or_write_is_refused() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("key");
        write_new(&path, PUBLIC, b"x").unwrap();
        let error = read_secret(&path).unwrap_err().to_string();
        assert!(error.contains("may read this key (chmod 600 "), "{error}");
        assert_eq!(read_public(&path).unwrap(), b"x");
        fs::set_permissions(&path, fs::Permissions::from_mode(0o664)).unwrap();
        let error = read_public(&path).unwrap_err().to_string();
        assert!(error.contains("may write to it"), "{error}");
        assert!(read_public(folder.path()).unwrap_err().to_string().contains("not a file"));
    }
}
