//! The list of revoked certificates: a text file that is looked up at every handshake and, for open
//! connections, every second.
//!
//! Lines are `SHA-256 TIME NAME`. The file is replaced as a whole, so a reader sees the old list or
//! the new one. A list that cannot be read lets no client in.

use std::collections::BTreeMap;
use std::fmt::Write as _;
use std::fs;
use std::io;
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};

use parking_lot::Mutex;

use super::certificate::Fingerprint;
use super::secret_file;

/// One line of a list: a certificate, a time or a date as text, and a name.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct ListedCertificate {
    pub(crate) fingerprint: Fingerprint,
    /// RFC 3339.
    pub(crate) time: String,
    pub(crate) name: String,
}

/// Reads a list of certificates.
///
/// # Errors
/// If it cannot be read, or has a line that is none.
pub(super) fn read_list(path: &Path) -> io::Result<Vec<ListedCertificate>> {
    let bytes = secret_file::read_public(path)?;
    let text = String::from_utf8(bytes).map_err(|_| io::Error::other("no text"))?;
    let lines = text.lines().enumerate().map(|(index, line)| (index + 1, line.trim()));
    lines
        .filter(|(_, line)| !line.is_empty() && !line.starts_with('#'))
        .map(|(number, line)| {
            let mut words = line.splitn(3, ' ');
            let first = words.next().unwrap_or_default();
            let fingerprint = first
                .parse()
                .map_err(|error| io::Error::other(format!("line {number}: {error}")))?;
            let mut word = || words.next().unwrap_or_default().to_owned();
            Ok(ListedCertificate { fingerprint, time: word(), name: word() })
        })
        .collect()
}

/// Replaces a list of certificates by one with these lines; `heading` explains it to people.
///
/// # Errors
/// Errors of writing; the list is as before then.
pub(super) fn replace_list(
    path: &Path,
    heading: &str,
    list: &[ListedCertificate],
) -> io::Result<()> {
    let mut text = format!("# {heading}\n");
    for ListedCertificate { fingerprint, time, name } in list {
        let _ = writeln!(text, "{fingerprint} {time} {name}");
    }
    secret_file::replace(path, text.as_bytes())
}

/// A list of revoked certificates in a file, which another process may replace at any time.
#[derive(Debug)]
pub(crate) struct RevocationList {
    path: PathBuf,
    known: Mutex<Option<KnownList>>,
}

/// The contents of the file, and what tells whether it is still the same file.
#[derive(Debug)]
struct KnownList {
    version: FileVersion,
    revoked: BTreeMap<Fingerprint, String>,
}

/// Device, inode, bytes, and the times of the last changes, in seconds and nanoseconds.
type FileVersion = (u64, u64, u64, (i64, i64), (i64, i64));

impl RevocationList {
    /// The list in this file.
    pub(crate) const fn new(path: PathBuf) -> Self {
        Self { path, known: Mutex::new(None) }
    }

    /// The time when a certificate was revoked, if it was.
    ///
    /// # Errors
    /// The list cannot be read; the reason is for people and names the file.
    ///
    /// # Blocking
    /// On the disk; the file is read only if it has changed.
    pub(crate) fn revoked(&self, fingerprint: &Fingerprint) -> Result<Option<String>, String> {
        let failure = |error: io::Error| format!("{}: {error}", self.path.display());
        let mut known = self.known.lock();
        // Before it is read: a list that is replaced in between is read once more.
        let version = version(&self.path).map_err(failure)?;
        if let Some(known) = known.as_ref().filter(|known| known.version == version) {
            return Ok(known.revoked.get(fingerprint).cloned());
        }
        *known = None;
        let list = read_list(&self.path).map_err(failure)?;
        let revoked = list.into_iter().map(|one| (one.fingerprint, one.time)).collect();
        let known = known.insert(KnownList { version, revoked });
        Ok(known.revoked.get(fingerprint).cloned())
    }
}

fn version(path: &Path) -> io::Result<FileVersion> {
    let found = fs::metadata(path)?;
    Ok((
        found.dev(),
        found.ino(),
        found.size(),
        (found.mtime(), found.mtime_nsec()),
        (found.ctime(), found.ctime_nsec()),
    ))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn listed(name: &str) -> ListedCertificate {
        ListedCertificate {
            fingerprint: Fingerprint::of(name.as_bytes()),
            time: "2026-11-30T10:00:00Z".to_owned(),
            name: name.to_owned(),
        }
    }

    #[test]
    fn a_change_of_the_file_counts_at_once() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("revoked");
        let list = RevocationList::new(path.clone());
        let (one, other) = (listed("one"), listed("other one"));
        let error = list.revoked(&one.fingerprint).unwrap_err();
        assert!(error.contains("revoked: "), "{error}");
        replace_list(&path, "nobody", &[]).unwrap();
        assert_eq!(list.revoked(&one.fingerprint), Ok(None));
        replace_list(&path, "one", &[one.clone(), other.clone()]).unwrap();
        assert_eq!(list.revoked(&one.fingerprint), Ok(Some(one.time.clone())));
        assert_eq!(read_list(&path).unwrap(), [one.clone(), other]);
        // A list that is damaged must let no client in.
        fs::write(&path, "not a list\n").unwrap();
        let error = list.revoked(&one.fingerprint).unwrap_err();
        assert!(error.contains("line 1: 'not' is no SHA-256"), "{error}");
    }
}
