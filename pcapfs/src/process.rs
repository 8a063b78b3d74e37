//! The kernel's facts about processes and threads: the readers of `/proc/PID`.
//!
//! A process may have ended, or belong to another user and not be visible. Then nothing is known
//! about it, which is no error. Two tables have their readers elsewhere: the mounts, which
//! `mount.pcapfs` reads as well (`mount_helper::mountinfo`), and the limits of the memory
//! (`capture/src/flow/memory.rs`).

use std::ffi::OsString;
use std::fmt::Display;
use std::fs;
use std::io;

/// The name of this machine, proc_sys_kernel(5).
///
/// # Errors
/// The file is not there, as without /proc.
pub(crate) fn host_name() -> io::Result<String> {
    Ok(fs::read_to_string("/proc/sys/kernel/hostname")?.trim().to_owned())
}

/// The status of a process or thread at the time of the read, proc_pid_status(5).
#[derive(Debug)]
pub(crate) struct ProcessStatus {
    /// Empty if the process is gone or not visible.
    text: String,
}

impl ProcessStatus {
    /// The status of a process or thread: its number, or `self`.
    pub(crate) fn of(process: impl Display) -> Self {
        // The name in it can have any bytes.
        let text = fs::read(format!("/proc/{process}/status")).unwrap_or_default();
        Self { text: String::from_utf8_lossy(&text).into_owned() }
    }

    /// A field, without blanks around it; `None` if there is no field of this name.
    pub(crate) fn field(&self, name: &str) -> Option<&str> {
        let mut lines = self.text.lines().filter_map(|line| line.split_once(':'));
        lines.find_map(|(found, value)| (found == name).then(|| value.trim()))
    }

    /// A field in kibibytes, converted to bytes.
    pub(crate) fn bytes(&self, name: &str) -> Option<u64> {
        let kibibytes: u64 = self.field(name)?.strip_suffix("kB")?.trim().parse().ok()?;
        kibibytes.checked_mul(1024)
    }

    /// Returns `true` if a mask of signals has this one.
    pub(crate) fn has_signal(&self, mask: &str, signal: i32) -> bool {
        let mask = self.field(mask).and_then(|mask| u64::from_str_radix(mask, 16).ok());
        mask.is_some_and(|mask| mask >> (signal - 1) & 1 == 1)
    }
}

/// The process that a thread belongs to; the thread's own number if it is gone or not visible.
pub(crate) fn of_thread(thread: u32) -> u32 {
    ProcessStatus::of(thread)
        .field("Tgid")
        .and_then(|process| process.parse().ok())
        .unwrap_or(thread)
}

/// Returns `true` if a thread has SIGKILL pending. The kernel sends it to every thread of a process
/// that a signal is about to end, except for signals that write a core file. `false` for a thread
/// that is not visible.
pub(crate) fn is_being_killed(thread: u32) -> bool {
    ProcessStatus::of(thread).has_signal("SigPnd", libc::SIGKILL)
}

/// The name of a thread, which is that of its program unless the thread has set another; empty if
/// the thread is not visible.
pub(crate) fn name_of_thread(thread: u32) -> String {
    // A name can have any bytes.
    let name = fs::read(format!("/proc/{thread}/comm")).unwrap_or_default();
    String::from_utf8_lossy(&name).trim_end_matches('\n').to_owned()
}

/// The name of the file of a thread's program. Only root and its own user may see that of another
/// process.
pub(crate) fn program_of_thread(thread: u32) -> Option<OsString> {
    let program = fs::read_link(format!("/proc/{thread}/exe")).ok()?;
    program.file_name().map(ToOwned::to_owned)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn fields_are_found() {
        let status = ProcessStatus {
            text: "Name:\ta: b\nSigIgn:\t0000000000000201\nRssAnon:\t  12 kB\n".into(),
        };
        assert_eq!((status.field("Name"), status.field("Nam")), (Some("a: b"), None));
        assert_eq!((status.bytes("RssAnon"), status.bytes("Name")), (Some(12_288), None));
        let has = |signal| status.has_signal("SigIgn", signal);
        assert_eq!((has(1), has(2), has(10)), (true, false, true));
        assert!(ProcessStatus::of("self").bytes("RssAnon").is_some());
        assert_eq!(ProcessStatus::of(1_u64 << 40).field("Name"), None);
    }

    #[test]
    fn threads_have_a_name_and_a_program() {
        let thread = std::thread::Builder::new().name("reads /proc".to_owned());
        let thread = thread.spawn(|| {
            let own = u32::try_from(nix::unistd::gettid().as_raw()).unwrap();
            (of_thread(own), name_of_thread(own), program_of_thread(own))
        });
        let program = std::env::current_exe().unwrap().file_name().map(ToOwned::to_owned);
        let known = (std::process::id(), "reads /proc".to_owned(), program);
        assert_eq!(thread.unwrap().join().unwrap(), known);
        let gone = 1 << 30;
        assert_eq!((name_of_thread(gone), program_of_thread(gone)), (String::new(), None));
    }
}
