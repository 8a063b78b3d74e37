//! Why an interface cannot be captured through AF_XDP.

use std::io;

use xdp_attach::AttachError;

/// Why an interface cannot be captured through AF_XDP.
#[derive(Debug, thiserror::Error)]
pub enum XdpError {
    /// The system needs the packets of the interface.
    #[error(
        "AF_XDP takes all packets of an interface from the system, and {interface} is in use: \
         {why} (capture a port that only receives copies, or capture {interface} without xdp:, or \
         write {source_name},force=true)"
    )]
    InUse {
        /// The source as it was written.
        source_name: String,
        /// The interface.
        interface: String,
        /// Its use, for people.
        why: String,
    },
    /// The interface is down.
    #[error("the interface is down (ip link set {interface} up)")]
    Down {
        /// The interface.
        interface: String,
    },
    /// Its packets are no Ethernet frames.
    #[error("its packets are no Ethernet frames (capture it without xdp:)")]
    NotEthernet,
    /// The process may not load and attach a program.
    #[error(
        "no permission to attach an XDP program (run as root, or with CAP_NET_RAW, CAP_NET_ADMIN \
         and CAP_BPF)"
    )]
    NotPermitted,
    /// This process may not call bpf(2).
    #[error("bpf(2) is forbidden here, or the kernel does not have it")]
    NotHere,
    /// The process that attaches programs for this one refuses.
    #[error("{0}")]
    Refused(String),
    /// The interface has an XDP program.
    #[error(
        "{interface} has another XDP program (ip link set {interface} xdp off removes one that no \
         process holds)"
    )]
    OtherProgram {
        /// The interface.
        interface: String,
    },
    /// The program is not attached.
    #[error(transparent)]
    Attach(AttachError),
    /// The interface does not have a receive queue that was named.
    #[error("{interface} has no receive queue {queue} (the last one is {last})")]
    NoQueue {
        /// The interface.
        interface: String,
        /// The number of the queue.
        queue: u32,
        /// The highest number.
        last: u32,
    },
    /// Another socket receives the packets of a queue.
    #[error("another AF_XDP socket receives the packets of queue {queue}")]
    QueueTaken {
        /// The number of the queue.
        queue: u32,
    },
    /// There is too little memory that may be locked.
    #[error("no memory that may be locked for its buffer (ulimit -l, or LimitMEMLOCK=): {0}")]
    Memory(io::Error),
    /// The kernel has no such sockets.
    #[error("this kernel has no AF_XDP sockets (CONFIG_XDP_SOCKETS)")]
    NoSockets,
    /// The system refused.
    #[error(transparent)]
    System(#[from] io::Error),
}
