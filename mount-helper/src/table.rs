//! The table of mounts that this process sees: the topmost mount at a mount point.

use std::io;
use std::path::Path;

use mount_helper::mountinfo::{self, Mount};

use crate::namespace;

/// The mount at exactly this path, if any.
///
/// # Errors
/// If the table cannot be read.
pub(crate) fn top(place: &Path) -> io::Result<Option<Mount>> {
    Ok(mountinfo::top(&namespace::read_table()?, place))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn existing_entries_are_found() {
        assert_eq!(top(Path::new("/proc")).unwrap().unwrap().kind, b"proc");
        assert_eq!(top(Path::new("/proc/self")).unwrap(), None);
    }
}
