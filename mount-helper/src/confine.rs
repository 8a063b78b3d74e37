//! Starting the daemon with less: the steps between fork and exec, in the order in which they
//! happen. docs/threat-model.md has the same list, with reasons.

use std::ffi::OsString;
use std::io;
use std::os::fd::{AsRawFd, OwnedFd};
use std::os::unix::process::CommandExt;
use std::path::Path;
use std::process::{Child, Command};

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
    // Threads: three for each capture. The kernel counts those of other processes of the same user
    // too.
    (Resource::RLIMIT_NPROC, 4096),
];

/// Where programs are looked for; the daemon starts none.
const PATH: &str = "/usr/sbin:/usr/bin:/sbin:/bin";

/// What the daemon is started with.
#[derive(Clone, Debug)]
pub(crate) struct Confinement {
    pub(crate) account: Account,
    /// See [`crate::filter::program`].
    pub(crate) filter: Vec<libc::sock_filter>,
}

/// Starts the daemon. The new process has `socket` under the same number as this one, and `stderr`
/// as its standard error.
///
/// # Errors
/// Those of fork and exec, and of each step, which the new process has named on its standard error.
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
        // What is typed at a terminal is for this process, which tells the daemon.
        .process_group(0);
    let confinement = confinement.clone();
    sys::before_exec(&mut command, move || confinement.enter(&socket));
    command.spawn()
}

impl Confinement {
    /// All steps, in the new process.
    fn enter(&self, socket: &OwnedFd) -> io::Result<()> {
        let Account { uid, gid, groups } = &self.account;
        // No program of another mount namespace is run.
        step("leave the mount namespace", namespace::go_back())?;
        step("close descriptors", sys::close_descriptors_on_exec())?;
        step("keep the socket open", keep_open(socket))?;
        // This process waits for its signals in a way of its own.
        step("unblock signals", SigSet::empty().thread_set_mask())?;
        // What the daemon makes has modes of its own; where it was started does not matter.
        umask(Mode::from_bits_truncate(0o022));
        step("leave the directory", chdir("/"))?;
        for (resource, most) in LIMITS {
            step("set limits", limit(resource, most))?;
        }
        // First, since it needs a capability that is gone afterwards.
        step("limit capabilities", sys::limit_bounding_set(CAP_NET_RAW))?;
        // Or they would all go with the user.
        step("keep capabilities", set_keepcaps(true))?;
        step("change groups", setgroups(groups))?;
        step("change the group", setresgid(*gid, *gid, *gid))?;
        step("change the user", setresuid(*uid, *uid, *uid))?;
        step("drop capabilities", sys::keep_one_capability(CAP_NET_RAW))?;
        step("renounce new privileges", set_no_new_privs())?;
        step("filter system calls", sys::install_filter(&self.filter))
    }
}

/// Names a step that failed: only a number finds its way back to the process that has forked.
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

/// Sets both limits, as far as this process has that much itself.
fn limit(resource: Resource, most: u64) -> nix::Result<()> {
    let (_, hard) = getrlimit(resource)?;
    let limit = most.min(hard);
    setrlimit(resource, limit, limit)
}
