//! The parts of a daemon's memory.

use std::fs;

use nix::unistd::Pid;

/// Resident bytes of a process, by purpose.
#[derive(Clone, Copy, Debug, Default)]
pub(crate) struct Memory {
    /// Mapped ring files.
    pub(crate) ring: u64,
    /// The kernel's buffers of packet sockets.
    pub(crate) socket: u64,
    /// Heap, stacks and other private memory.
    pub(crate) anonymous: u64,
    /// Program and libraries, shared by all processes that run them.
    pub(crate) program: u64,
}

impl Memory {
    /// The current values, from `/proc/PID/smaps`, proc(5).
    pub(crate) fn of(pid: Pid) -> Self {
        let smaps = fs::read_to_string(format!("/proc/{pid}/smaps")).expect("the process is there");
        let mut memory = Self::default();
        let (mut name, mut resident) = (String::new(), 0);
        for line in smaps.lines() {
            let mut words = line.split_whitespace();
            let first = words.next().unwrap_or_default();
            let number =
                || line.split_whitespace().nth(1).and_then(|word| word.parse::<u64>().ok());
            match first {
                "Size:" => resident = number().unwrap_or(0) << 10,
                "Rss:" => {
                    let rss = number().unwrap_or(0) << 10;
                    if name.ends_with(".ring") {
                        memory.ring += rss;
                    } else if name.starts_with("socket:") {
                        // Allocated as a whole, even if not all of it was touched through the
                        // mapping.
                        memory.socket += resident;
                    } else if name.starts_with('/') {
                        memory.program += rss;
                    } else {
                        memory.anonymous += rss;
                    }
                }
                // The first line of a mapping: range, permissions, offset, device, inode, name.
                _ if !first.ends_with(':') => {
                    name = words.nth(4).unwrap_or_default().to_owned();
                }
                _ => {}
            }
        }
        memory
    }

    /// Everything but the ring.
    pub(crate) fn beside_ring(&self) -> u64 {
        self.socket + self.anonymous + self.program
    }
}

/// Converts bytes to MiB.
pub(crate) fn mebibytes(bytes: u64) -> f64 {
    bytes as f64 / f64::from(1 << 20)
}
