//! The process at the other end of a UNIX socket, as the kernel knows it.
#![expect(unsafe_code, reason = "SO_PEERGROUPS has no safe wrapper")]

use std::io;
use std::mem::size_of;
use std::os::fd::{AsFd, AsRawFd};

use nix::sys::socket::{getsockopt, sockopt};

use crate::fs::access::Caller;

/// Maximum number of groups of a process: `NGROUPS_MAX` of `linux/limits.h`.
const MOST_GROUPS: usize = 65_536;

/// The number of groups to ask for first; few processes have more.
const USUAL_GROUPS: usize = 32;

/// The peer's credentials when it connected (`SO_PEERCRED`, `SO_PEERGROUPS`; unix(7) and
/// socket(7)), and its process, 0 if it is not in this pid namespace.
///
/// # Errors
/// Errors of getsockopt(2).
pub(super) fn credentials(socket: &impl AsFd) -> io::Result<(Caller, u32)> {
    let peer = getsockopt(socket, sockopt::PeerCredentials)?;
    let groups = groups(socket)?;
    let process = u32::try_from(peer.pid()).unwrap_or(0);
    Ok((Caller { uid: peer.uid(), gid: peer.gid(), groups }, process))
}

/// The supplementary groups of the peer.
fn groups(socket: &impl AsFd) -> io::Result<Vec<u32>> {
    let mut groups: Vec<libc::gid_t> = vec![0; USUAL_GROUPS];
    loop {
        let bytes = groups.len() * size_of::<libc::gid_t>();
        let mut len = libc::socklen_t::try_from(bytes).unwrap_or(libc::socklen_t::MAX);
        // SAFETY: the descriptor is open, as it is borrowed. `groups` has at least `len`
        // initialised bytes that no other code uses, aligned for group ids, and the kernel writes
        // at most `len` bytes; `len` is a local variable.
        let result = unsafe {
            libc::getsockopt(
                socket.as_fd().as_raw_fd(),
                libc::SOL_SOCKET,
                libc::SO_PEERGROUPS,
                groups.as_mut_ptr().cast(),
                &raw mut len,
            )
        };
        let count = len as usize / size_of::<libc::gid_t>();
        if result == 0 {
            groups.truncate(count);
            return Ok(groups);
        }
        let error = io::Error::last_os_error();
        // The kernel has stored the number of groups.
        if error.raw_os_error() == Some(libc::ERANGE)
            && (groups.len()..=MOST_GROUPS).contains(&count)
        {
            groups.resize(count + 1, 0);
        } else {
            return Err(error);
        }
    }
}

#[cfg(test)]
mod tests {
    use std::os::unix::net::UnixStream;

    use nix::unistd::{getegid, geteuid, getgroups};

    use super::*;

    #[test]
    fn this_process_is_known() {
        let (ours, _theirs) = UnixStream::pair().unwrap();
        let (caller, process) = credentials(&ours).unwrap();
        assert_eq!((caller.uid, caller.gid), (geteuid().as_raw(), getegid().as_raw()));
        let groups: Vec<u32> = getgroups().unwrap().iter().map(|group| group.as_raw()).collect();
        assert_eq!(caller.groups, groups);
        assert_eq!(process, std::process::id());
    }
}
