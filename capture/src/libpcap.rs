//! The few calls into libpcap and the packet socket that the pcap crate lacks.
#![expect(unsafe_code, reason = "foreign functions and one socket option, each argued below")]

use std::ffi::{CStr, c_char, c_int, c_void};
use std::io;
use std::mem;
use std::os::fd::{AsRawFd, BorrowedFd};

use pcap::{Active, BpfProgram, Capture};
use protocol::time::Timestamp;

use crate::clock;

/// One instruction of a classic BPF program: `struct bpf_insn` of `pcap/bpf.h`, which is also
/// `struct sock_filter` of `linux/filter.h`.
#[repr(C)]
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Instruction {
    /// Operation.
    pub(crate) code: u16,
    /// Instructions to skip if a comparison holds.
    pub(crate) jump_true: u8,
    /// Instructions to skip if the comparison does not hold.
    pub(crate) jump_false: u8,
    /// Operand.
    pub(crate) operand: u32,
}

/// `ret #k`
pub(crate) const RETURN_CONSTANT: u16 = 0x06;

/// Bits of a code for the class and mode of a load, but not its size.
const LOAD: u16 = 0xe7;
/// Loads from an absolute offset of the packet: `ld [k]`, `ldh [k]`, `ldb [k]`.
pub(crate) const LOAD_ABSOLUTE: u16 = 0x20;
/// The first offset that is outside of the packet: `SKF_LL_OFF` of `linux/filter.h`.
const FIRST_OF_KERNEL: u32 = 0xffe0_0000;

impl Instruction {
    /// `ret #k`
    pub(crate) const fn returning(operand: u32) -> Self {
        Self { code: RETURN_CONSTANT, jump_true: 0, jump_false: 0, operand }
    }

    /// The code without the size of a load.
    pub(crate) const fn load_mode(&self) -> u16 {
        self.code & LOAD
    }

    /// Returns true if it loads data that the kernel has about a packet besides its bytes
    /// (`SKF_AD_OFF` and the like). Outside of the kernel such a load is out of bounds.
    pub(crate) const fn asks_the_kernel(&self) -> bool {
        self.load_mode() == LOAD_ABSOLUTE && self.operand >= FIRST_OF_KERNEL
    }
}

/// `struct bpf_program` of `pcap/bpf.h`.
#[repr(C)]
struct Program {
    len: u32,
    instructions: *const Instruction,
}

/// `struct pcap_pkthdr` of `pcap/pcap.h`.
#[repr(C)]
struct PacketHeader {
    time: libc::timeval,
    captured_len: u32,
    original_len: u32,
}

// Linked through the pcap crate.
unsafe extern "C" {
    fn pcap_setfilter(capture: *mut c_void, program: *const Program) -> c_int;
    fn pcap_geterr(capture: *mut c_void) -> *const c_char;
    fn pcap_offline_filter(
        program: *const Program,
        header: *const PacketHeader,
        packet: *const u8,
    ) -> c_int;
    fn bpf_validate(program: *const Instruction, len: c_int) -> c_int;
}

/// The instructions of a program that the pcap crate compiled.
pub(crate) fn instructions(program: &BpfProgram) -> Vec<Instruction> {
    let compiled = program.get_instructions();
    const { assert!(size_of::<pcap::BpfInstruction>() == size_of::<Instruction>()) };
    // SAFETY: BpfInstruction is repr(transparent) over libpcap's struct bpf_insn, and Instruction
    // has the same layout; all bit patterns are valid; the length is that of the slice.
    unsafe { std::slice::from_raw_parts(compiled.as_ptr().cast::<Instruction>(), compiled.len()) }
        .to_vec()
}

/// Returns true if a program ends, stays inside itself and never divides by zero: [`matches`] needs
/// that.
pub(crate) fn is_valid(program: &[Instruction]) -> bool {
    let Ok(len) = c_int::try_from(program.len()) else { return false };
    // SAFETY: pointer and length are those of the slice, which bpf_validate only reads.
    unsafe { bpf_validate(program.as_ptr(), len) != 0 }
}

/// Runs a valid program over a packet, whose captured bytes are `data`.
///
/// The pcap crate's own function uses the captured length as the original length, so that `greater
/// 1000` would not match a large packet cut to 60 bytes.
pub(crate) fn matches(program: &[Instruction], original_len: u32, data: &[u8]) -> bool {
    let (Ok(len), Ok(captured_len)) = (u32::try_from(program.len()), u32::try_from(data.len()))
    else {
        return false;
    };
    let program = Program { len, instructions: program.as_ptr() };
    let header =
        PacketHeader { time: libc::timeval { tv_sec: 0, tv_usec: 0 }, captured_len, original_len };
    // SAFETY: both structures and the packet outlive the call and are only read; the caller has
    // validated the program; the interpreter checks every load against captured_len.
    unsafe { pcap_offline_filter(&raw const program, &raw const header, data.as_ptr()) != 0 }
}

/// Sets the filter of a live capture. libpcap copies and validates the program, passes it to the
/// kernel, and applies it itself to packets that arrived before.
///
/// # Errors
/// libpcap's error message.
pub(crate) fn set_filter(capture: &Capture<Active>, program: &[Instruction]) -> Result<(), String> {
    let len = u32::try_from(program.len()).map_err(|_| "the filter is too long".to_owned())?;
    let program = Program { len, instructions: program.as_ptr() };
    let handle = capture.as_ptr().cast::<c_void>();
    // SAFETY: the handle is open for as long as the capture is borrowed; the program is copied.
    if unsafe { pcap_setfilter(handle, &raw const program) } == 0 {
        return Ok(());
    }
    // SAFETY: pcap_geterr returns a string inside the handle, valid until the next call with it.
    let text = unsafe { CStr::from_ptr(pcap_geterr(handle)) };
    Err(text.to_string_lossy().into_owned())
}

/// Sets the filter on the socket of a live capture without libpcap. libpcap would run it itself
/// over packets that arrived before, and cannot if it [asks the
/// kernel](Instruction::asks_the_kernel).
///
/// Every packet that the kernel delivers with a time after the returned one has passed the filter.
///
/// # Errors
/// The errors of setsockopt(2); ENOMEM means that the filter is too long (`net.core.optmem_max`).
pub(crate) fn set_kernel_filter(
    socket: BorrowedFd<'_>,
    program: &[Instruction],
) -> io::Result<Timestamp> {
    attach(socket, &[Instruction::returning(0)])?;
    wait_for_receivers();
    let now = clock::now();
    attach(socket, program)?;
    Ok(now)
}

/// Waits until no processor is still delivering a packet that arrived before this call.
///
/// This is the kernel's `synchronize_rcu()`; packets are delivered under RCU. Where it is not
/// available (`nohz_full`), a packet of this very microsecond may slip through.
pub(crate) fn wait_for_receivers() {
    // SAFETY: no pointers.
    unsafe { libc::syscall(libc::SYS_membarrier, libc::MEMBARRIER_CMD_GLOBAL, 0, 0) };
}

/// The program that is attached to a socket; empty if there is none.
///
/// # Errors
/// The errors of getsockopt(2); EACCES if the filter is no classic program.
pub(crate) fn attached(socket: BorrowedFd<'_>) -> io::Result<Vec<Instruction>> {
    // The kernel counts in instructions here (`sk_get_filter` of net/core/filter.c), and only tells
    // the number if the room is 0.
    let get = |room: &mut [Instruction]| {
        let mut len = libc::socklen_t::try_from(room.len()).unwrap_or(0);
        // SAFETY: the kernel writes at most `len` instructions, each of the size of struct
        // sock_filter, to `room`, which has room for as many, and their number to `len`. Any bits
        // are a valid Instruction.
        let result = unsafe {
            libc::getsockopt(
                socket.as_raw_fd(),
                libc::SOL_SOCKET,
                libc::SO_GET_FILTER,
                room.as_mut_ptr().cast(),
                &raw mut len,
            )
        };
        if result == 0 { Ok(len as usize) } else { Err(io::Error::last_os_error()) }
    };
    let len = get(&mut [])?;
    let mut program = vec![Instruction::returning(0); len];
    let len = get(&mut program)?;
    program.truncate(len);
    Ok(program)
}

/// Replaces the filter of a socket at once (`SO_ATTACH_FILTER` of socket(7)).
///
/// # Errors
/// The errors of setsockopt(2).
pub(crate) fn attach(socket: BorrowedFd<'_>, program: &[Instruction]) -> io::Result<()> {
    const { assert!(size_of::<Instruction>() == size_of::<libc::sock_filter>()) };
    let len = u16::try_from(program.len()).map_err(|_| io::ErrorKind::InvalidInput)?;
    let filter = program.as_ptr().cast_mut().cast::<libc::sock_filter>();
    let program = libc::sock_fprog { len, filter };
    // SAFETY: the kernel reads the structure and the instructions, which outlive the call and have
    // the layout of struct sock_filter.
    let result = unsafe {
        libc::setsockopt(
            socket.as_raw_fd(),
            libc::SOL_SOCKET,
            libc::SO_ATTACH_FILTER,
            (&raw const program).cast(),
            libc::socklen_t::try_from(size_of_val(&program)).unwrap_or(0),
        )
    };
    if result == 0 { Ok(()) } else { Err(io::Error::last_os_error()) }
}

/// Packets that the kernel dropped on this packet socket since the last call, because its buffer
/// was full (`PACKET_STATISTICS`, packet(7), resets the counters it returns).
///
/// # Errors
/// The errors of getsockopt(2).
pub(crate) fn take_kernel_drops(socket: BorrowedFd<'_>) -> io::Result<u64> {
    // A TPACKET_V3 socket fills all three fields, an older one the first two.
    // SAFETY: three integers, for which zero is a valid value.
    let mut statistics: libc::tpacket_stats_v3 = unsafe { mem::zeroed() };
    let mut len = libc::socklen_t::try_from(size_of_val(&statistics)).unwrap_or(0);
    // SAFETY: the kernel writes at most `len` bytes to `statistics` and their number to `len`.
    let result = unsafe {
        libc::getsockopt(
            socket.as_raw_fd(),
            libc::SOL_PACKET,
            libc::PACKET_STATISTICS,
            (&raw mut statistics).cast(),
            &raw mut len,
        )
    };
    if result == 0 { Ok(u64::from(statistics.tp_drops)) } else { Err(io::Error::last_os_error()) }
}
