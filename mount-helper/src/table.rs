//! The kernel's table of mounts: what is mounted where, and whether it is still the same.

use std::ffi::OsString;
use std::io;
use std::os::unix::ffi::OsStringExt;
use std::path::Path;

use crate::namespace;

/// What is on top at a mount point.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Entry {
    /// Number of the mount and of the device behind it: no two that are there at the same time
    /// have the same, but later ones may.
    pub(crate) id: Vec<u8>,
    pub(crate) device: Vec<u8>,
    /// Type of the file system.
    pub(crate) kind: Vec<u8>,
}

/// What is mounted at exactly this path, if anything is.
///
/// # Errors
/// When the table cannot be read.
pub(crate) fn top(place: &Path) -> io::Result<Option<Entry>> {
    let table = namespace::read_table()?;
    // The last line for a mount point is the mount on top.
    Ok(table.split(|byte| *byte == b'\n').rev().find_map(|line| {
        let (found, entry) = parse(line)?;
        (found == place.as_os_str()).then_some(entry)
    }))
}

/// Mount point and entry of a line, see proc_pid_mountinfo(5).
fn parse(line: &[u8]) -> Option<(OsString, Entry)> {
    let mut fields = line.split(|byte| *byte == b' ');
    let id = fields.next()?.to_vec();
    let device = fields.nth(1)?.to_vec();
    let place = unescape(fields.nth(1)?);
    // Optional fields end with a hyphen.
    let kind = fields.skip_while(|field| *field != b"-").nth(1)?.to_vec();
    Some((place, Entry { id, device, kind }))
}

/// Undoes the octal escapes: a backslash and three digits.
fn unescape(field: &[u8]) -> OsString {
    let mut plain = Vec::with_capacity(field.len());
    let mut rest = field;
    while let Some((byte, behind)) = rest.split_first() {
        let digits = behind.first_chunk::<3>().filter(|_| *byte == b'\\');
        let octal = digits.and_then(|digits| std::str::from_utf8(digits).ok());
        match octal.and_then(|octal| u8::from_str_radix(octal, 8).ok()) {
            Some(escaped) => {
                plain.push(escaped);
                rest = behind.get(3..).unwrap_or_default();
            }
            None => {
                plain.push(*byte);
                rest = behind;
            }
        }
    }
    OsString::from_vec(plain)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn lines_are_read() {
        let line = b"40 1 0:35 / /tmp/b\xff\\040c rw,nosuid shared:1 - fuse.pcapfs eth0 rw";
        let (place, entry) = parse(line).unwrap();
        assert_eq!(place.as_encoded_bytes(), b"/tmp/b\xff c");
        let expected = ("40", "0:35", "fuse.pcapfs");
        let Entry { id, device, kind } = entry;
        let text = [id, device, kind].map(|field| String::from_utf8(field).unwrap());
        assert_eq!((&*text[0], &*text[1], &*text[2]), expected);
        for line in [&b""[..], b"40", b"40 1 0:35 / /tmp rw"] {
            assert_eq!(parse(line), None);
        }
    }

    #[test]
    fn what_is_there_is_found() {
        assert_eq!(top(Path::new("/proc")).unwrap().unwrap().kind, b"proc");
        assert_eq!(top(Path::new("/proc/self")).unwrap(), None);
    }
}
