//! What other users see of the supervisor's arguments: `/proc/PID/cmdline` is there for everybody, and
//! a filter or the name of an interface is for those who may read the capture.

use std::ffi::OsString;
use std::fs::{self, OpenOptions};
use std::os::unix::ffi::OsStrExt;
use std::os::unix::fs::FileExt;
use std::path::Path;

use crate::plan::SUPERVISE;

/// Has `/proc/PID/cmdline` say no more than what it is and where it mounts. Until now it said all.
/// Where the kernel does not let a process change its own arguments they stay.
pub(crate) fn hide(directory: &Path) {
    let words: Vec<_> = std::env::args_os().collect();
    let Some((start, end)) = place() else { return };
    let len = words.iter().map(|word| word.len() as u64 + 1).sum::<u64>();
    // Not what this process was started with.
    if end.checked_sub(start) != Some(len) {
        return;
    }
    let Ok(memory) = OpenOptions::new().write(true).open("/proc/self/mem") else { return };
    let _ = memory.write_all_at(&shown(&words, directory), start);
}

/// The arguments that everybody may see, and zeros in place of the others.
fn shown(words: &[OsString], directory: &Path) -> Vec<u8> {
    let len = words.iter().map(|word| word.len() + 1).sum();
    let is_shown = |(at, word): &(usize, &OsString)| {
        *at == 0 || *word == SUPERVISE || *word == directory.as_os_str()
    };
    let mut bytes = Vec::with_capacity(len);
    for (_, word) in words.iter().enumerate().filter(is_shown) {
        bytes.extend_from_slice(word.as_bytes());
        bytes.push(0);
    }
    bytes.resize(len, 0);
    bytes
}

/// Where in memory the arguments are: `arg_start` and `arg_end` of proc_pid_stat(5).
fn place() -> Option<(u64, u64)> {
    let stat = fs::read_to_string("/proc/self/stat").ok()?;
    // The name of the program may have blanks and parentheses; the third field is behind it.
    let (_, fields) = stat.rsplit_once(')')?;
    let mut fields = fields.split_ascii_whitespace().skip(48 - 3);
    Some((fields.next()?.parse().ok()?, fields.next()?.parse().ok()?))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_it_is_and_the_mount_point_are_shown() {
        let words = ["mount.pcapfs", SUPERVISE, "eth0", "/captures", "-o", "filter=port 80"];
        let words = words.map(OsString::from);
        let bytes = shown(&words, Path::new("/captures"));
        let text = b"mount.pcapfs\0--supervise\0/captures\0";
        assert_eq!(bytes.len(), words.iter().map(|word| word.len() + 1).sum::<usize>());
        assert_eq!(bytes.split_at(text.len()).0, text);
        assert!(bytes.iter().skip(text.len()).all(|byte| *byte == 0));
        let (start, end) = place().unwrap();
        assert!(start > 0 && end > start);
    }
}
