//! Hides the arguments of a process from other users: everyone can read `/proc/PID/cmdline`, but
//! only users who may read a capture should see its filter and its interface.

use std::ffi::{OsStr, OsString};
use std::fs::{self, OpenOptions};
use std::os::unix::ffi::OsStrExt;
use std::os::unix::fs::FileExt;

/// Removes all arguments of this process from `/proc/PID/cmdline`, except the program's name and
/// those in `kept`. They are visible until then. They stay if the kernel does not let a process
/// change its own arguments.
pub fn hide(kept: &[&OsStr]) {
    let words: Vec<_> = std::env::args_os().collect();
    let Some((start, end)) = place() else { return };
    let len = words.iter().map(|word| word.len() as u64 + 1).sum::<u64>();
    // These are not the arguments that the process was started with.
    if end.checked_sub(start) != Some(len) {
        return;
    }
    let Ok(memory) = OpenOptions::new().write(true).open("/proc/self/mem") else { return };
    let _ = memory.write_all_at(&shown(&words, kept), start);
}

/// The arguments that everyone may see, and zeros in place of the others.
fn shown(words: &[OsString], kept: &[&OsStr]) -> Vec<u8> {
    let len = words.iter().map(|word| word.len() + 1).sum();
    let is_shown = |(at, word): &(usize, &OsString)| *at == 0 || kept.contains(&word.as_os_str());
    let mut bytes = Vec::with_capacity(len);
    for (_, word) in words.iter().enumerate().filter(is_shown) {
        bytes.extend_from_slice(word.as_bytes());
        bytes.push(0);
    }
    bytes.resize(len, 0);
    bytes
}

/// The addresses of the arguments: `arg_start` and `arg_end` of proc_pid_stat(5).
fn place() -> Option<(u64, u64)> {
    let stat = fs::read_to_string("/proc/self/stat").ok()?;
    // The name of the program may have blanks and parentheses; the third field comes after it.
    let (_, fields) = stat.rsplit_once(')')?;
    let mut fields = fields.split_ascii_whitespace().skip(48 - 3);
    Some((fields.next()?.parse().ok()?, fields.next()?.parse().ok()?))
}

#[cfg(test)]
mod tests {
    use super::*;

    /// All other bytes must be zeros.
    fn check(words: &[&str], kept: &[&str], text: &[u8]) {
        let words: Vec<_> = words.iter().map(OsString::from).collect();
        let kept: Vec<_> = kept.iter().map(OsStr::new).collect();
        let bytes = shown(&words, &kept);
        assert_eq!(bytes.len(), words.iter().map(|word| word.len() + 1).sum::<usize>());
        assert_eq!(bytes.split_at(text.len()).0, text);
        assert!(bytes.iter().skip(text.len()).all(|byte| *byte == 0));
    }

    #[test]
    fn the_program_and_its_kept_descriptors_are_shown() {
        let daemon = ["pcapfs", "mount", "-c", "web=eth0 port 80", "/captures", "--ring", "1M"];
        check(&daemon, &["mount", "/captures"], b"pcapfs\0mount\0/captures\0");
        let helper = ["mount.pcapfs", "--supervise", "eth0", "/captures", "-o", "filter=port 80"];
        check(&helper, &["--supervise", "/captures"], b"mount.pcapfs\0--supervise\0/captures\0");
    }

    #[test]
    fn the_kernel_says_where_they_are() {
        let (start, end) = place().unwrap();
        assert!(start > 0 && end > start);
    }
}
