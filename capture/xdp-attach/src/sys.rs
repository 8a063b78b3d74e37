//! The four commands of bpf(2) that an attachment needs.
#![expect(unsafe_code, reason = "bpf(2) has no safe wrapper")]

use std::io;
use std::os::fd::{AsRawFd, BorrowedFd, FromRawFd, OwnedFd, RawFd};

use libc::c_long;

use crate::program::Instruction;

/// Commands: `enum bpf_cmd`.
const MAP_CREATE: c_long = 0;
const MAP_UPDATE_ELEM: c_long = 2;
const PROG_LOAD: c_long = 5;
const LINK_CREATE: c_long = 28;

/// `BPF_MAP_TYPE_XSKMAP`: AF_XDP sockets by number.
const SOCKET_MAP: u32 = 17;

/// `BPF_PROG_TYPE_XDP`, and where such a program is attached, `BPF_XDP`.
const XDP_PROGRAM: u32 = 6;
const XDP: u32 = 37;

/// `BPF_F_XDP_HAS_FRAGS`: the program takes packets in several buffers too.
const HAS_FRAGMENTS: u32 = 1 << 5;

/// The license of pcapfs. The kernel functions that the program calls are not only for the GPL.
const LICENSE: &[u8] = b"Apache-2.0\0";

/// The name of the program and the map in the lists of bpftool: `BPF_OBJ_NAME_LEN` bytes.
const NAME: [u8; 16] = *b"pcapfs\0\0\0\0\0\0\0\0\0\0";

/// The beginning of `union bpf_attr` for `BPF_MAP_CREATE`.
#[repr(C)]
struct MapAttributes {
    map_type: u32,
    key_size: u32,
    value_size: u32,
    max_entries: u32,
    map_flags: u32,
    inner_map_fd: u32,
    numa_node: u32,
    map_name: [u8; 16],
}

/// For `BPF_MAP_UPDATE_ELEM`.
#[repr(C)]
struct ElementAttributes {
    map_fd: u32,
    padding: u32,
    key: u64,
    value: u64,
    flags: u64,
}

/// For `BPF_PROG_LOAD`.
#[repr(C)]
struct ProgramAttributes {
    prog_type: u32,
    insn_cnt: u32,
    insns: u64,
    license: u64,
    log_level: u32,
    log_size: u32,
    log_buf: u64,
    kern_version: u32,
    prog_flags: u32,
    prog_name: [u8; 16],
    prog_ifindex: u32,
    expected_attach_type: u32,
}

/// For `BPF_LINK_CREATE`.
#[repr(C)]
struct LinkAttributes {
    prog_fd: u32,
    target_ifindex: u32,
    attach_type: u32,
    flags: u32,
}

/// Makes an empty map with room for the sockets of so many queues.
///
/// # Errors
/// The errors of bpf(2).
pub(crate) fn socket_map(queues: u32) -> io::Result<OwnedFd> {
    let attributes = MapAttributes {
        map_type: SOCKET_MAP,
        key_size: 4,
        value_size: 4,
        max_entries: queues,
        map_flags: 0,
        inner_map_fd: 0,
        numa_node: 0,
        map_name: NAME,
    };
    // SAFETY: as of `bpf`; the attributes have no pointers.
    let result = unsafe { bpf(MAP_CREATE, &attributes) }?;
    owned(result)
}

/// Loads a program.
///
/// # Errors
/// The errors of bpf(2); EINVAL or EACCES if the kernel cannot show that the program is safe.
pub(crate) fn load(program: &[Instruction]) -> io::Result<OwnedFd> {
    let attributes = ProgramAttributes {
        prog_type: XDP_PROGRAM,
        insn_cnt: u32::try_from(program.len()).map_err(|_| io::ErrorKind::InvalidInput)?,
        insns: program.as_ptr().expose_provenance() as u64,
        license: LICENSE.as_ptr().expose_provenance() as u64,
        log_level: 0,
        log_size: 0,
        log_buf: 0,
        kern_version: 0,
        prog_flags: HAS_FRAGMENTS,
        prog_name: NAME,
        prog_ifindex: 0,
        expected_attach_type: XDP,
    };
    // SAFETY: as of `bpf`; the kernel reads `insn_cnt` instructions of 8 bytes each, as many as the
    // slice has, and the license up to its zero. Both outlive the call.
    let result = unsafe { bpf(PROG_LOAD, &attributes) }?;
    owned(result)
}

/// Attaches a program to an interface, for as long as the returned descriptor is open.
///
/// # Errors
/// The errors of bpf(2); EBUSY or EEXIST if the interface has a program.
pub(crate) fn attach(program: BorrowedFd<'_>, interface: u32, mode: u32) -> io::Result<OwnedFd> {
    let attributes = LinkAttributes {
        prog_fd: number(program),
        target_ifindex: interface,
        attach_type: XDP,
        flags: mode,
    };
    // SAFETY: as of `bpf`; the attributes have no pointers.
    let result = unsafe { bpf(LINK_CREATE, &attributes) }?;
    owned(result)
}

/// Puts a socket into a map, at the place of a queue.
///
/// # Errors
/// The errors of bpf(2).
pub(crate) fn set_socket(
    map: BorrowedFd<'_>,
    queue: u32,
    socket: BorrowedFd<'_>,
) -> io::Result<()> {
    let socket = number(socket);
    let attributes = ElementAttributes {
        map_fd: number(map),
        padding: 0,
        key: (&raw const queue).expose_provenance() as u64,
        value: (&raw const socket).expose_provenance() as u64,
        flags: 0,
    };
    // SAFETY: as of `bpf`; the kernel reads the key and the value, which have the four bytes of the
    // map that `socket_map` makes. A map of another kind comes from no other process than the one
    // that calls `socket_map`. Both outlive the call.
    unsafe { bpf(MAP_UPDATE_ELEM, &attributes) }.map(|_| ())
}

/// Calls bpf(2). Returns its result, which is not negative.
///
/// # Safety
/// `T` must have the layout of the beginning of `union bpf_attr` for this command, without padding,
/// and pointers in it must point to what the command reads.
unsafe fn bpf<T>(command: c_long, attributes: &T) -> io::Result<c_long> {
    // SAFETY: the kernel reads as many bytes as the attributes have, and takes the rest of the union
    // for zero. Otherwise it is up to the caller.
    let result = unsafe {
        libc::syscall(libc::SYS_bpf, command, std::ptr::from_ref(attributes), size_of::<T>())
    };
    if result < 0 { Err(io::Error::last_os_error()) } else { Ok(result) }
}

/// The descriptor that bpf(2) has returned, which is closed on exec.
fn owned(result: c_long) -> io::Result<OwnedFd> {
    let descriptor = RawFd::try_from(result).map_err(|_| io::ErrorKind::InvalidData)?;
    // SAFETY: the kernel has just made it for this process, and nothing else has it. It is not -1,
    // since the result of `bpf` is not negative.
    Ok(unsafe { OwnedFd::from_raw_fd(descriptor) })
}

fn number(descriptor: BorrowedFd<'_>) -> u32 {
    descriptor.as_raw_fd().unsigned_abs()
}
