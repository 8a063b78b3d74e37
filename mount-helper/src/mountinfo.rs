//! The kernel's table of mounts, proc_pid_mountinfo(5). All of its text can have any bytes.

use std::ffi::OsString;
use std::os::unix::ffi::OsStringExt;
use std::path::Path;

/// The table of the mounts that this process sees.
pub const TABLE: &str = "/proc/self/mountinfo";

/// One mount.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Mount {
    /// Number of the mount. Two mounts that exist at the same time have different ones; later
    /// mounts may reuse it.
    pub id: Vec<u8>,
    /// Number of the device, unique in the same way: `major:minor`.
    pub device: Vec<u8>,
    /// The mount point.
    pub place: OsString,
    /// Type of the file system.
    pub kind: Vec<u8>,
    /// Options of the file system, separated by commas.
    pub options: Vec<u8>,
}

/// The mounts of a table, in its order. Lines of another form are left out.
pub fn mounts(table: &[u8]) -> impl DoubleEndedIterator<Item = Mount> {
    table.split(|byte| *byte == b'\n').filter_map(parse)
}

/// The mount on top at exactly this path.
#[must_use]
pub fn top(table: &[u8], place: &Path) -> Option<Mount> {
    mounts(table).rfind(|mount| mount.place == place.as_os_str())
}

impl Mount {
    /// The user who mounted it: FUSE's option `user_id`; `None` for another file system.
    #[must_use]
    pub fn user(&self) -> Option<u32> {
        let mut options = self.options.split(|byte| *byte == b',');
        let number = options.find_map(|option| option.strip_prefix(b"user_id="))?;
        std::str::from_utf8(number).ok()?.parse().ok()
    }
}

fn parse(line: &[u8]) -> Option<Mount> {
    let mut fields = line.split(|byte| *byte == b' ');
    let id = fields.next()?.to_vec();
    let device = fields.nth(1)?.to_vec();
    let place = unescape(fields.nth(1)?);
    // Optional fields end with a hyphen. Then come type, source and options.
    let mut fields = fields.skip_while(|field| *field != b"-").skip(1);
    let kind = fields.next()?.to_vec();
    let options = fields.nth(1)?.to_vec();
    Some(Mount { id, device, place, kind, options })
}

/// Undoes the octal escapes: a backslash and three digits.
fn unescape(field: &[u8]) -> OsString {
    let mut plain = Vec::with_capacity(field.len());
    let mut rest = field;
    while let Some((byte, after)) = rest.split_first() {
        let digits = after.first_chunk::<3>().filter(|_| *byte == b'\\');
        let octal = digits.and_then(|digits| std::str::from_utf8(digits).ok());
        match octal.and_then(|octal| u8::from_str_radix(octal, 8).ok()) {
            Some(escaped) => {
                plain.push(escaped);
                rest = after.get(3..).unwrap_or_default();
            }
            None => {
                plain.push(*byte);
                rest = after;
            }
        }
    }
    OsString::from_vec(plain)
}

#[cfg(test)]
mod tests {
    use super::*;

    const TABLE: &[u8] = b"40 1 0:35 / /tmp/b\xff\\040c rw,nosuid shared:1 - fuse.pcapfs eth0 rw
41 1 0:36 / /m rw shared:1 - fuse.pcapfs pcapfs rw,user_id=7,group_id=8

40
40 1 0:35 / /tmp rw
42 1 0:37 / /m rw - tmpfs tmpfs rw
";

    #[test]
    fn lines_are_read() {
        let all: Vec<Mount> = mounts(TABLE).collect();
        let [escaped, fuse, over] = &all[..] else { unreachable!("{all:?}") };
        assert_eq!(escaped.place.as_encoded_bytes(), b"/tmp/b\xff c");
        assert_eq!((&*escaped.id, &*escaped.device), (&b"40"[..], &b"0:35"[..]));
        assert_eq!((&*fuse.kind, fuse.user()), (&b"fuse.pcapfs"[..], Some(7)));
        assert_eq!(over.user(), None);
        assert_eq!(unescape(br"/a\040b\134c\12"), r"/a b\c\12");
    }

    #[test]
    fn the_last_mount_is_on_top() {
        assert_eq!(top(TABLE, Path::new("/m")).unwrap().kind, b"tmpfs");
        assert_eq!(top(TABLE, Path::new("/")), None);
    }
}
