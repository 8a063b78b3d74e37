//! Starts the daemon with fewer rights: the steps between fork and exec, in their order.
//! docs/threat-model.md has the same list, with reasons.

use std::ffi::OsString;
use std::io;
use std::os::fd::{AsRawFd, OwnedFd};
use std::os::unix::process::CommandExt;
use std::path::Path;
use std::process::{Child, Command};

use mount_helper::seccomp;
use nix::errno::Errno;
use nix::fcntl::{FcntlArg, FdFlag, fcntl};
use nix::sys::prctl::{set_keepcaps, set_no_new_privs};
use nix::sys::resource::{Resource, getrlimit, setrlimit};
use nix::sys::signal::SigSet;
use nix::sys::stat::{Mode, umask};
use nix::unistd::{chdir, setgroups, setresgid, setresuid};

use crate::account::Account;
use crate::namespace;
use crate::sys::{self, CAP_NET_RAW};

/// Limits of the daemon, which it cannot raise.
const LIMITS: [(Resource, u64); 3] = [
    // A core file would hold packets.
    (Resource::RLIMIT_CORE, 0),
    // A descriptor for each savefile and socket; readers need none.
    (Resource::RLIMIT_NOFILE, 65_536),
    // Threads: three for each capture. The kernel also counts those of other processes of the same
    // user.
    (Resource::RLIMIT_NPROC, 4096),
];

/// Bytes of memory that a daemon with captures through AF_XDP may lock: the maximum buffer of one
/// capture. The memory that such a socket shares with the kernel is locked.
const LOCKED_MEMORY: u64 = 2 << 30;

/// The search path of programs; the daemon starts none.
const PATH: &str = "/usr/sbin:/usr/bin:/sbin:/bin";

/// The rights that the daemon is started with.
#[derive(Clone, Debug)]
pub(crate) struct Confinement {
    pub(crate) account: Account,
    /// See [`crate::filter::program`].
    pub(crate) filter: Vec<libc::sock_filter>,
    /// It captures through AF_XDP, which needs memory that is locked.
    pub(crate) has_xdp: bool,
}

/// Starts the daemon. The new process has `socket` under the same number as this one, and `stderr`
/// as its standard error.
///
/// # Errors
/// Errors of fork and exec, and of each step; the new process has named the step on its standard
/// error.
pub(crate) fn start(
    daemon: &Path,
    arguments: &[OsString],
    socket: OwnedFd,
    stderr: OwnedFd,
    confinement: &Confinement,
) -> io::Result<Child> {
    let null = namespace::open_null()?;
    let mut command = Command::new(daemon);
    command
        .args(arguments)
        .arg(format!("--handoff={}", socket.as_raw_fd()))
        .env_clear()
        .env("PATH", PATH)
        .stdin(null.try_clone()?)
        .stdout(null)
        .stderr(stderr)
        // Keys typed at a terminal signal this process, which informs the daemon.
        .process_group(0);
    let confinement = confinement.clone();
    sys::before_exec(&mut command, move || confinement.enter(&socket));
    command.spawn()
}

impl Confinement {
    /// All steps, in the new process.
    fn enter(&self, socket: &OwnedFd) -> io::Result<()> {
        let Account { uid, gid, groups } = &self.account;
        // It must run no program of another mount namespace.
        step("leave the mount namespace", namespace::go_back())?;
        step("close descriptors", sys::close_descriptors_on_exec())?;
        step("keep the socket open", keep_open(socket))?;
        // This process waits for its signals in another way.
        step("unblock signals", SigSet::empty().thread_set_mask())?;
        // The daemon sets the modes of its files explicitly; its first directory does not matter.
        umask(Mode::from_bits_truncate(0o022));
        step("leave the directory", chdir("/"))?;
        for (resource, most) in LIMITS {
            step("set limits", limit(resource, most))?;
        }
        if self.has_xdp {
            step("let memory be locked", raise(Resource::RLIMIT_MEMLOCK, LOCKED_MEMORY))?;
        }
        // First, since it needs a capability that later steps remove.
        step("limit capabilities", sys::limit_bounding_set(CAP_NET_RAW))?;
        // Otherwise the change of user would clear them all.
        step("keep capabilities", set_keepcaps(true))?;
        step("change groups", setgroups(groups))?;
        step("change the group", setresgid(*gid, *gid, *gid))?;
        step("change the user", setresuid(*uid, *uid, *uid))?;
        step("drop capabilities", sys::keep_one_capability(CAP_NET_RAW))?;
        step("renounce new privileges", set_no_new_privs())?;
        step("filter system calls", seccomp::install(&self.filter))
    }
}

/// Prints the name of a step that failed: only an error number gets back to the process that has
/// forked.
fn step<E: Into<io::Error>>(what: &str, result: Result<(), E>) -> io::Result<()> {
    result.map_err(|error| {
        let error = error.into();
        eprintln!("cannot {what} for the daemon: {error}");
        error
    })
}

fn keep_open(descriptor: &OwnedFd) -> nix::Result<()> {
    fcntl(descriptor, FcntlArg::F_SETFD(FdFlag::empty())).map(|_| ())
}

/// Sets both limits, but not above this process's own hard limit.
fn limit(resource: Resource, most: u64) -> nix::Result<()> {
    let (_, hard) = getrlimit(resource)?;
    let limit = most.min(hard);
    setrlimit(resource, limit, limit)
}

/// Raises both limits to this one, or the soft limit as far as possible if this process may not raise
/// the hard one.
fn raise(resource: Resource, least: u64) -> nix::Result<()> {
    let (_, hard) = getrlimit(resource)?;
    let limit = least.max(hard);
    match setrlimit(resource, limit, limit) {
        Err(Errno::EPERM) => setrlimit(resource, hard, hard),
        result => result,
    }
}
