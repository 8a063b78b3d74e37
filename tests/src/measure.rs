//! Measures the resources that a process uses, from /proc.

use std::fs;
use std::time::Duration;

use nix::unistd::{Pid, SysconfVar, sysconf};

/// CPU time that a process has used, all threads, in user and kernel.
#[must_use]
pub fn cpu_time(pid: Pid) -> Duration {
    let stat = fs::read_to_string(format!("/proc/{pid}/stat")).expect("the process is there");
    // The command's name may hold blanks and parentheses; fields are counted after it, proc(5).
    let fields: Vec<&str> =
        stat.rsplit_once(')').expect("a name in parentheses").1.split_whitespace().collect();
    let ticks: u64 = fields[11].parse::<u64>().unwrap() + fields[12].parse::<u64>().unwrap();
    let per_second = sysconf(SysconfVar::CLK_TCK).ok().flatten().expect("a clock tick");
    Duration::from_millis(ticks * 1_000 / u64::try_from(per_second).expect("a positive number"))
}

/// Bytes of anonymous memory a process keeps resident; rings, which are files, are not counted.
#[must_use]
pub fn anonymous_memory(pid: Pid) -> u64 {
    status_kilobytes(pid, "RssAnon:") * 1024
}

/// Bytes of files a process has resident: rings, mapped savefiles and its programs.
#[must_use]
pub fn file_memory(pid: Pid) -> u64 {
    ["RssFile:", "RssShmem:"].into_iter().map(|field| status_kilobytes(pid, field) * 1024).sum()
}

/// The peak of a process's anonymous memory since a moment, as the kernel kept it: it has every
/// peak, however short.
#[derive(Debug)]
pub struct Peak {
    pid: Pid,
    /// Bytes of files that were resident at that moment. Nothing removes them during a test, so the
    /// peak had them too, and any further bytes of files count as anonymous.
    files: u64,
}

impl Peak {
    /// Begins now.
    #[must_use]
    pub fn from_now(pid: Pid) -> Self {
        let files = file_memory(pid);
        // Sets VmHWM to the resident memory, see proc_pid_clear_refs(5).
        fs::write(format!("/proc/{pid}/clear_refs"), "5").expect("root may reset the peak");
        Self { pid, files }
    }

    /// Bytes.
    #[must_use]
    pub fn anonymous(&self) -> u64 {
        (status_kilobytes(self.pid, "VmHWM:") * 1024).saturating_sub(self.files)
    }
}

/// Bytes a process keeps resident, all kinds.
#[must_use]
pub fn resident_memory(pid: Pid) -> u64 {
    status_kilobytes(pid, "VmRSS:") * 1024
}

fn status_kilobytes(pid: Pid, field: &str) -> u64 {
    let status = fs::read_to_string(format!("/proc/{pid}/status")).expect("the process is there");
    status
        .lines()
        .find_map(|line| line.strip_prefix(field))
        .and_then(|value| value.trim().strip_suffix(" kB"))
        .and_then(|value| value.trim().parse().ok())
        .unwrap_or_else(|| panic!("no {field} in {status}"))
}

/// Descriptors a process has open.
#[must_use]
pub fn descriptors(pid: Pid) -> usize {
    fs::read_dir(format!("/proc/{pid}/fd")).expect("the process is there").count()
}

/// Threads of a process.
#[must_use]
pub fn threads(pid: Pid) -> usize {
    fs::read_dir(format!("/proc/{pid}/task")).expect("the process is there").count()
}
