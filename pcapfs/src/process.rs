//! The kernel's facts about a process or thread, proc_pid_status(5).

use std::fmt::Display;

/// The status of a process or thread at the time of the read.
#[derive(Debug)]
pub(crate) struct Status {
    /// Empty if the process is gone or not visible.
    text: String,
}

impl Status {
    /// The status of a process or thread: its number, or `self`.
    pub(crate) fn of(process: impl Display) -> Self {
        // The name in it can have any bytes.
        let text = std::fs::read(format!("/proc/{process}/status")).unwrap_or_default();
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

    /// True if a mask of signals has this one.
    pub(crate) fn has_signal(&self, mask: &str, signal: i32) -> bool {
        let mask = self.field(mask).and_then(|mask| u64::from_str_radix(mask, 16).ok());
        mask.is_some_and(|mask| mask >> (signal - 1) & 1 == 1)
    }
}

/// The process that a thread belongs to; the thread's own number if it is gone or not visible.
pub(crate) fn of_thread(thread: u32) -> u32 {
    Status::of(thread).field("Tgid").and_then(|process| process.parse().ok()).unwrap_or(thread)
}

/// True if a thread has SIGKILL pending. The kernel sends it to every thread of a process that a
/// signal is about to end, except for signals that write a core file. `false` for a thread that is
/// not visible.
pub(crate) fn is_being_killed(thread: u32) -> bool {
    Status::of(thread).has_signal("SigPnd", libc::SIGKILL)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn fields_are_found() {
        let status =
            Status { text: "Name:\ta: b\nSigIgn:\t0000000000000201\nRssAnon:\t  12 kB\n".into() };
        assert_eq!((status.field("Name"), status.field("Nam")), (Some("a: b"), None));
        assert_eq!((status.bytes("RssAnon"), status.bytes("Name")), (Some(12_288), None));
        let has = |signal| status.has_signal("SigIgn", signal);
        assert_eq!((has(1), has(2), has(10)), (true, false, true));
        assert!(Status::of("self").bytes("RssAnon").is_some());
        assert_eq!(Status::of(1_u64 << 40).field("Name"), None);
    }
}
