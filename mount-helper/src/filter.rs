//! The filter of the daemon's system calls, as a program for the kernel (seccomp(2)).
//!
//! It is a list of allowed calls, so that calls that were not thought of, and calls of future
//! kernels, are refused. The list has the calls of a program that reads packets and serves files:
//! files, memory, threads, sockets, time. It leaves out calls in which the kernel's worst bugs were
//! found, and calls that a daemon without privileges does not need: mounts, namespaces, ptrace,
//! BPF, io_uring, keys, modules, other processes.
//!
//! A call that is not on the list fails with ENOSYS, as on a kernel that does not have it: the C
//! library knows what to do then. A call on the list with an argument that is not allowed fails
//! with EPERM. Starting a program is on the list, since this filter is in force before the daemon
//! starts; the daemon forbids it itself once it runs.

use libc::{SECCOMP_RET_ALLOW, SECCOMP_RET_KILL_PROCESS, sock_filter};
use mount_helper::seccomp::{
    call, compare, load_architecture, load_argument, load_call, mask, refusal, verdict,
};
use mount_helper::tap;

/// `AUDIT_ARCH_*` of `linux/audit.h`: on another architecture, the numbers below mean other calls.
#[cfg(target_arch = "x86_64")]
const ARCHITECTURE: u32 = 0xC000_003E;
#[cfg(target_arch = "aarch64")]
const ARCHITECTURE: u32 = 0xC000_00B7;

/// Families of sockets: local ones; the network, to look up a host that a filter names; the
/// kernel's list of interfaces; packets.
const FAMILIES: [i32; 5] =
    [libc::AF_UNIX, libc::AF_INET, libc::AF_INET6, libc::AF_NETLINK, libc::AF_PACKET];

/// Allowed types of ioctl(2) requests, the second byte of their numbers: those of sockets and
/// interfaces, and of wireless interfaces, with which libpcap examines the interface that it opens.
/// Requests that change an interface need another capability.
const REQUEST_TYPES: [u32; 2] = [0x89, 0x8b];

/// Allowed single requests of ioctl(2): whether a descriptor is a terminal, the number of readable
/// bytes, not to block, to be closed on exec; and another queue of a FUSE device,
/// `FUSE_DEV_IOC_CLONE`. Those of tap devices are in [`tap::REQUESTS`].
const REQUESTS: [u32; 6] = [0x5401, 0x541b, 0x5421, 0x5450, 0x5451, 0x8004_e500];

/// Calls that are allowed with any arguments.
const ALLOWED: &[libc::c_long] = &[
    // Reading and writing.
    libc::SYS_read,
    libc::SYS_write,
    libc::SYS_readv,
    libc::SYS_writev,
    libc::SYS_pread64,
    libc::SYS_pwrite64,
    libc::SYS_preadv,
    libc::SYS_pwritev,
    libc::SYS_preadv2,
    libc::SYS_pwritev2,
    libc::SYS_lseek,
    libc::SYS_sendfile,
    libc::SYS_splice,
    libc::SYS_tee,
    libc::SYS_copy_file_range,
    libc::SYS_fsync,
    libc::SYS_fdatasync,
    libc::SYS_fadvise64,
    libc::SYS_fallocate,
    libc::SYS_ftruncate,
    libc::SYS_truncate,
    libc::SYS_sync_file_range,
    // Descriptors.
    libc::SYS_openat,
    libc::SYS_openat2,
    libc::SYS_close,
    libc::SYS_close_range,
    libc::SYS_dup,
    libc::SYS_dup3,
    libc::SYS_pipe2,
    libc::SYS_fcntl,
    libc::SYS_flock,
    libc::SYS_memfd_create,
    libc::SYS_eventfd2,
    libc::SYS_timerfd_create,
    libc::SYS_timerfd_settime,
    libc::SYS_timerfd_gettime,
    libc::SYS_signalfd4,
    libc::SYS_inotify_init1,
    libc::SYS_inotify_add_watch,
    libc::SYS_inotify_rm_watch,
    // Names and attributes.
    libc::SYS_newfstatat,
    libc::SYS_fstat,
    libc::SYS_statx,
    libc::SYS_statfs,
    libc::SYS_fstatfs,
    libc::SYS_faccessat,
    libc::SYS_faccessat2,
    libc::SYS_readlinkat,
    libc::SYS_getdents64,
    libc::SYS_getcwd,
    libc::SYS_chdir,
    libc::SYS_fchdir,
    libc::SYS_mkdirat,
    libc::SYS_unlinkat,
    libc::SYS_renameat,
    libc::SYS_renameat2,
    libc::SYS_linkat,
    libc::SYS_symlinkat,
    libc::SYS_fchmod,
    libc::SYS_fchmodat,
    libc::SYS_fchown,
    libc::SYS_fchownat,
    libc::SYS_utimensat,
    libc::SYS_umask,
    libc::SYS_getxattr,
    libc::SYS_fgetxattr,
    libc::SYS_lgetxattr,
    // Waiting.
    libc::SYS_ppoll,
    libc::SYS_pselect6,
    libc::SYS_epoll_create1,
    libc::SYS_epoll_ctl,
    libc::SYS_epoll_pwait,
    libc::SYS_epoll_pwait2,
    libc::SYS_futex,
    libc::SYS_futex_waitv,
    // Memory.
    libc::SYS_mmap,
    libc::SYS_munmap,
    libc::SYS_mprotect,
    libc::SYS_mremap,
    libc::SYS_madvise,
    libc::SYS_msync,
    libc::SYS_mincore,
    libc::SYS_brk,
    libc::SYS_membarrier,
    // Threads, and the end of all of them.
    libc::SYS_set_robust_list,
    libc::SYS_get_robust_list,
    libc::SYS_rseq,
    libc::SYS_set_tid_address,
    libc::SYS_gettid,
    libc::SYS_getpid,
    libc::SYS_exit,
    libc::SYS_exit_group,
    libc::SYS_tgkill,
    libc::SYS_tkill,
    libc::SYS_restart_syscall,
    libc::SYS_sched_yield,
    libc::SYS_sched_getaffinity,
    libc::SYS_sched_setaffinity,
    libc::SYS_sched_getparam,
    libc::SYS_sched_getscheduler,
    libc::SYS_getcpu,
    libc::SYS_wait4,
    libc::SYS_waitid,
    // Signals.
    libc::SYS_rt_sigaction,
    libc::SYS_rt_sigprocmask,
    libc::SYS_rt_sigreturn,
    libc::SYS_rt_sigpending,
    libc::SYS_rt_sigtimedwait,
    libc::SYS_rt_sigsuspend,
    libc::SYS_sigaltstack,
    // The identity and place of this process, and dropping its rights.
    libc::SYS_getuid,
    libc::SYS_geteuid,
    libc::SYS_getgid,
    libc::SYS_getegid,
    libc::SYS_getresuid,
    libc::SYS_getresgid,
    libc::SYS_getgroups,
    libc::SYS_getppid,
    libc::SYS_getpgid,
    libc::SYS_getsid,
    libc::SYS_setsid,
    libc::SYS_capget,
    libc::SYS_uname,
    libc::SYS_sysinfo,
    libc::SYS_getrusage,
    libc::SYS_times,
    libc::SYS_getrlimit,
    libc::SYS_prlimit64,
    libc::SYS_getpriority,
    libc::SYS_setpriority,
    libc::SYS_sched_setattr,
    libc::SYS_prctl,
    libc::SYS_seccomp,
    libc::SYS_landlock_create_ruleset,
    libc::SYS_landlock_add_rule,
    libc::SYS_landlock_restrict_self,
    libc::SYS_execve,
    // Time and random numbers.
    libc::SYS_clock_gettime,
    libc::SYS_clock_getres,
    libc::SYS_clock_nanosleep,
    libc::SYS_nanosleep,
    libc::SYS_gettimeofday,
    libc::SYS_getrandom,
    // Sockets, except making one.
    libc::SYS_socketpair,
    libc::SYS_bind,
    libc::SYS_listen,
    libc::SYS_accept,
    libc::SYS_accept4,
    libc::SYS_connect,
    libc::SYS_getsockname,
    libc::SYS_getpeername,
    libc::SYS_getsockopt,
    libc::SYS_setsockopt,
    libc::SYS_sendto,
    libc::SYS_recvfrom,
    libc::SYS_sendmsg,
    libc::SYS_recvmsg,
    libc::SYS_sendmmsg,
    libc::SYS_recvmmsg,
    libc::SYS_shutdown,
];

/// The same calls in the form that only older architectures have.
#[cfg(target_arch = "x86_64")]
const ALLOWED_HERE: &[libc::c_long] = &[
    libc::SYS_open,
    libc::SYS_dup2,
    libc::SYS_pipe,
    libc::SYS_stat,
    libc::SYS_lstat,
    libc::SYS_access,
    libc::SYS_readlink,
    libc::SYS_mkdir,
    libc::SYS_rmdir,
    libc::SYS_unlink,
    libc::SYS_rename,
    libc::SYS_chmod,
    libc::SYS_chown,
    libc::SYS_poll,
    libc::SYS_select,
    libc::SYS_epoll_create,
    libc::SYS_epoll_wait,
    libc::SYS_eventfd,
    libc::SYS_inotify_init,
    libc::SYS_getpgrp,
    libc::SYS_time,
    libc::SYS_arch_prctl,
];
#[cfg(not(target_arch = "x86_64"))]
const ALLOWED_HERE: &[libc::c_long] = &[];

/// The family of sockets, and the command of bpf(2) that puts one into a map, for captures through
/// AF_XDP. The daemon has no right to make a map or a program: it gets them from the supervisor.
const XDP_FAMILY: i32 = libc::AF_XDP;
const MAP_UPDATE: u32 = 2;

/// The filter program. `has_xdp` allows captures through AF_XDP.
pub(crate) fn program(has_xdp: bool) -> Vec<sock_filter> {
    let mut program = vec![
        load_architecture(),
        compare(ARCHITECTURE, 0, 1),
        compare(ARCHITECTURE, 1, 0),
        verdict(SECCOMP_RET_KILL_PROCESS),
        load_call(),
    ];
    for number in ALLOWED.iter().chain(ALLOWED_HERE) {
        program.extend([compare(call(*number), 0, 1), verdict(SECCOMP_RET_ALLOW)]);
    }
    // It allows threads of this process, but no processes. clone3 has its flags in memory, which a
    // filter cannot read: it is not on the list, and the C library then uses clone.
    let thread = libc::CLONE_THREAD.unsigned_abs();
    program.extend([
        compare(call(libc::SYS_clone), 0, 5),
        load_argument(0),
        mask(thread),
        compare(thread, 0, 1),
        verdict(SECCOMP_RET_ALLOW),
        refusal(libc::EPERM),
    ]);
    // The request is the second argument.
    let requests = REQUESTS.into_iter().chain(tap::REQUESTS);
    let len = 2 * (requests.clone().count() + REQUEST_TYPES.len()) + 3;
    let past = u8::try_from(len).unwrap_or(u8::MAX);
    program.extend([compare(call(libc::SYS_ioctl), 0, past), load_argument(1)]);
    for request in requests {
        program.extend([compare(request, 0, 1), verdict(SECCOMP_RET_ALLOW)]);
    }
    program.push(mask(0xffff_ff00));
    for kind in REQUEST_TYPES {
        program.extend([compare(kind << 8, 0, 1), verdict(SECCOMP_RET_ALLOW)]);
    }
    program.push(refusal(libc::EPERM));
    if has_xdp {
        // The command is the first argument.
        program.extend([
            compare(call(libc::SYS_bpf), 0, 4),
            load_argument(0),
            compare(MAP_UPDATE, 0, 1),
            verdict(SECCOMP_RET_ALLOW),
            refusal(libc::EPERM),
        ]);
    }
    let families = FAMILIES.into_iter().chain(has_xdp.then_some(XDP_FAMILY));
    let families: Vec<u32> = families.map(i32::unsigned_abs).collect();
    let behind = u8::try_from(families.len() * 2 + 2).unwrap_or(u8::MAX);
    program.extend([compare(call(libc::SYS_socket), 0, behind), load_argument(0)]);
    for family in families {
        program.extend([compare(family, 0, 1), verdict(SECCOMP_RET_ALLOW)]);
    }
    program.push(refusal(libc::EPERM));
    program.push(refusal(libc::ENOSYS));
    program
}

#[cfg(test)]
mod tests {
    use std::process::Command;

    use libc::{
        BPF_ABS, BPF_ALU, BPF_AND, BPF_JEQ, BPF_JMP, BPF_K, BPF_LD, BPF_RET, BPF_W,
        SECCOMP_RET_ERRNO,
    };
    use mount_helper::seccomp;
    use nix::sys::prctl::set_no_new_privs;

    use super::*;
    use crate::sys;

    const EPERM: u32 = SECCOMP_RET_ERRNO | libc::EPERM.unsigned_abs();
    const ENOSYS: u32 = SECCOMP_RET_ERRNO | libc::ENOSYS.unsigned_abs();

    /// The program's answer to a call: an interpreter of the few instructions that it uses.
    fn judge(architecture: u32, number: u32, arguments: [u32; 2]) -> u32 {
        judge_by(false, architecture, number, arguments)
    }

    fn judge_by(has_xdp: bool, architecture: u32, number: u32, arguments: [u32; 2]) -> u32 {
        let [first, second] = arguments;
        let word = |offset: u32| match offset {
            0 => number,
            4 => architecture,
            16 => first,
            24 => second,
            other => panic!("loads {other}"),
        };
        let program = program(has_xdp);
        let (mut at, mut accumulator) = (0, 0);
        loop {
            let sock_filter { code, jt, jf, k } = program[at];
            at += 1;
            match u32::from(code) {
                code if code == BPF_LD | BPF_W | BPF_ABS => accumulator = word(k),
                code if code == BPF_ALU | BPF_AND | BPF_K => accumulator &= k,
                code if code == BPF_RET | BPF_K => return k,
                code if code == BPF_JMP | BPF_JEQ | BPF_K => {
                    at += usize::from(if accumulator == k { jt } else { jf });
                }
                other => panic!("instruction {other:#x}"),
            }
        }
    }

    fn of(number: libc::c_long, first_argument: i32) -> u32 {
        judge(ARCHITECTURE, call(number), [first_argument.unsigned_abs(), 0])
    }

    #[test]
    fn listed_calls_are_allowed() {
        for number in ALLOWED.iter().chain(ALLOWED_HERE) {
            assert_eq!(of(*number, 0), SECCOMP_RET_ALLOW, "{number}");
        }
        for family in FAMILIES {
            assert_eq!(of(libc::SYS_socket, family), SECCOMP_RET_ALLOW, "{family}");
        }
        assert_eq!(of(libc::SYS_clone, libc::CLONE_THREAD | libc::CLONE_VM), SECCOMP_RET_ALLOW);
    }

    #[test]
    fn requests_of_ioctl_are_those_of_interfaces() {
        let of = |request| judge(ARCHITECTURE, call(libc::SYS_ioctl), [3, request]);
        // SIOCGIFINDEX, SIOCETHTOOL, SIOCGIWNAME.
        let known = REQUESTS.into_iter().chain(tap::REQUESTS);
        for request in known.chain([0x8933, 0x8946, 0x8b01]) {
            assert_eq!(of(request), SECCOMP_RET_ALLOW, "{request:#x}");
        }
        // TIOCSTI, TIOCLINUX, FIFREEZE, KVM_CREATE_VM, TUNSETPERSIST, a type in the wrong byte.
        for request in [0x5412, 0x541c, 0xc004_5877, 0xae01, 0x4004_54cb, 0x0001_8933, 0] {
            assert_eq!(of(request), EPERM, "{request:#x}");
        }
    }

    #[test]
    fn what_af_xdp_needs_is_allowed_only_with_it() {
        let of = |has_xdp, number, argument| {
            judge_by(has_xdp, ARCHITECTURE, call(number), [argument, 0])
        };
        let family = XDP_FAMILY.unsigned_abs();
        assert_eq!(of(true, libc::SYS_socket, family), SECCOMP_RET_ALLOW);
        assert_eq!(of(true, libc::SYS_bpf, MAP_UPDATE), SECCOMP_RET_ALLOW);
        // BPF_MAP_CREATE, BPF_PROG_LOAD, BPF_PROG_ATTACH, BPF_LINK_CREATE.
        for command in [0, 5, 8, 28] {
            assert_eq!(of(true, libc::SYS_bpf, command), EPERM, "{command}");
            assert_eq!(of(false, libc::SYS_bpf, command), ENOSYS, "{command}");
        }
        assert_eq!(of(false, libc::SYS_socket, family), EPERM);
        assert_eq!(of(false, libc::SYS_bpf, MAP_UPDATE), ENOSYS);
        for call in [libc::SYS_ptrace, libc::SYS_setns] {
            assert_eq!(of(true, call, 0), ENOSYS, "{call}");
        }
    }

    #[test]
    fn everything_else_is_refused() {
        for number in [
            libc::SYS_mount,
            libc::SYS_umount2,
            libc::SYS_fsopen,
            libc::SYS_ptrace,
            libc::SYS_bpf,
            libc::SYS_unshare,
            libc::SYS_setns,
            libc::SYS_clone3,
            libc::SYS_io_uring_setup,
            libc::SYS_perf_event_open,
            libc::SYS_keyctl,
            libc::SYS_init_module,
            libc::SYS_process_vm_readv,
            libc::SYS_userfaultfd,
            libc::SYS_kill,
            libc::SYS_setuid,
            libc::SYS_capset,
            libc::SYS_execveat,
            100_000,
        ] {
            assert_eq!(of(number, 0), ENOSYS, "{number}");
        }
        for family in [libc::AF_VSOCK, libc::AF_ALG, libc::AF_BLUETOOTH, libc::AF_XDP, 99] {
            assert_eq!(of(libc::SYS_socket, family), EPERM, "{family}");
        }
        assert_eq!(of(libc::SYS_clone, libc::SIGCHLD), EPERM, "a process");
        assert_eq!(judge(0x4000_0003, 0, [0, 0]), SECCOMP_RET_KILL_PROCESS, "calls of 32 bits");
        assert_eq!(judge(ARCHITECTURE, 0x4000_0000, [0, 0]), ENOSYS, "calls of x32");
    }

    #[test]
    fn the_kernel_accepts_the_filter() {
        let mut command = Command::new("unshare");
        command.args(["--user", "true"]).env("LC_ALL", "C");
        sys::before_exec(&mut command, || {
            set_no_new_privs()?;
            seccomp::install(&program(false))
        });
        let output = command.output().unwrap();
        let said = String::from_utf8_lossy(&output.stderr);
        assert!(!output.status.success() && said.contains("not implemented"), "{said}");
    }
}
