//! The XDP program, instruction by instruction: it is short, and so needs no compiler.
//!
//! ```text
//!   socket = lookup(sockets, &queue)
//!   if socket == 0 goto pass
//!   if adjust_meta(-8) != 0 goto redirect
//!   if data_meta + 8 > data goto redirect
//!   *data_meta = ktime
//! redirect:
//!   return redirect_map(sockets, queue, XDP_PASS)
//! pass:
//!   return XDP_PASS
//! ```
//!
//! A packet that goes on to the network stack is not touched: the stack would not join packets with
//! different bytes before them.
//!
//! Sources: Documentation/bpf/standardization/instruction-set.rst, `struct bpf_insn`, `struct xdp_md`
//! and `enum bpf_func_id` of `linux/bpf.h`.

use std::os::fd::{AsRawFd, BorrowedFd};

/// Bytes that the program puts before a packet.
pub(crate) const STAMP_LEN: usize = 8;

/// An instruction as the kernel reads it: `struct bpf_insn`.
pub(crate) type Instruction = [u8; 8];

/// Registers: results and arguments, those that calls leave alone, the stack.
const R0: u8 = 0;
const R1: u8 = 1;
const R2: u8 = 2;
const R3: u8 = 3;
const R6: u8 = 6;
const STACK: u8 = 10;

/// Offsets in `struct xdp_md`.
const DATA: i16 = 0;
const DATA_META: i16 = 8;
const RX_QUEUE_INDEX: i16 = 16;

/// `XDP_PASS`: the packet goes on to the network stack. Also what `redirect_map` returns if the map
/// has just lost its entry.
const PASS: i32 = 2;

/// Functions of the kernel: `bpf_map_lookup_elem`, `bpf_ktime_get_ns`, `bpf_redirect_map`,
/// `bpf_xdp_adjust_meta`.
const LOOKUP: i32 = 1;
const TIME: i32 = 5;
const REDIRECT_MAP: i32 = 51;
const ADJUST_META: i32 = 54;

/// `BPF_PSEUDO_MAP_FD`: the number in the instruction is a descriptor of a map.
const MAP_DESCRIPTOR: u8 = 1;

/// The place of the queue's number on the stack, and the bytes of the stamp before the packet.
const QUEUE_AT: i16 = -4;
#[expect(clippy::cast_possible_truncation, clippy::cast_possible_wrap, reason = "8")]
const STAMP: i32 = STAMP_LEN as i32;

/// The program for a map of sockets.
pub(crate) fn program(sockets: BorrowedFd<'_>) -> Vec<Instruction> {
    let map = |register| {
        let descriptor = sockets.as_raw_fd();
        [instruction(0x18, register, MAP_DESCRIPTOR, 0, descriptor), instruction(0, 0, 0, 0, 0)]
    };
    let redirect = [
        &map(R1)[..],
        &[load_word(R2, R6, RX_QUEUE_INDEX), set(R3, PASS), call(REDIRECT_MAP), exit()],
    ]
    .concat();
    let pass = [set(R0, PASS), exit()];
    // From the end to the beginning, since jumps go forward.
    let write = [store(R2, 0, R0)];
    let check = [
        load_word(R2, R6, DATA_META),
        load_word(R3, R6, DATA),
        copy(R1, R2),
        add(R1, STAMP),
        jump_if_greater(R1, R3, distance(write.len())),
    ];
    let time = [call(TIME)];
    let room = [
        copy(R1, R6),
        set(R2, -STAMP),
        call(ADJUST_META),
        jump_if_not(R0, 0, distance(time.len() + check.len() + write.len())),
    ];
    let stamp = [&room[..], &time, &check, &write].concat();
    let find = [
        &[
            copy(R6, R1),
            load_word(R1, R6, RX_QUEUE_INDEX),
            store_word(STACK, QUEUE_AT, R1),
            copy(R2, STACK),
            add(R2, QUEUE_AT.into()),
        ][..],
        &map(R1),
        &[call(LOOKUP), jump_if(R0, 0, distance(stamp.len() + redirect.len()))],
    ]
    .concat();
    [&find[..], &stamp, &redirect, &pass].concat()
}

fn distance(instructions: usize) -> i16 {
    i16::try_from(instructions).unwrap_or(i16::MAX)
}

fn instruction(code: u8, to: u8, from: u8, offset: i16, number: i32) -> Instruction {
    // Two fields of four bits.
    let registers = if cfg!(target_endian = "little") { from << 4 | to } else { to << 4 | from };
    let ([o0, o1], [n0, n1, n2, n3]) = (offset.to_ne_bytes(), number.to_ne_bytes());
    [code, registers, o0, o1, n0, n1, n2, n3]
}

/// `to = from`
fn copy(to: u8, from: u8) -> Instruction {
    instruction(0xbf, to, from, 0, 0)
}

/// `to = number`
fn set(to: u8, number: i32) -> Instruction {
    instruction(0xb7, to, 0, 0, number)
}

/// `to += number`
fn add(to: u8, number: i32) -> Instruction {
    instruction(0x07, to, 0, 0, number)
}

/// `to = *(u32 *)(from + offset)`
fn load_word(to: u8, from: u8, offset: i16) -> Instruction {
    instruction(0x61, to, from, offset, 0)
}

/// `*(u32 *)(to + offset) = from`
fn store_word(to: u8, offset: i16, from: u8) -> Instruction {
    instruction(0x63, to, from, offset, 0)
}

/// `*(u64 *)(to + offset) = from`
fn store(to: u8, offset: i16, from: u8) -> Instruction {
    instruction(0x7b, to, from, offset, 0)
}

/// `if left == number goto +by`
fn jump_if(left: u8, number: i32, by: i16) -> Instruction {
    instruction(0x15, left, 0, by, number)
}

/// `if left != number goto +by`
fn jump_if_not(left: u8, number: i32, by: i16) -> Instruction {
    instruction(0x55, left, 0, by, number)
}

/// `if left > right goto +by`
fn jump_if_greater(left: u8, right: u8, by: i16) -> Instruction {
    instruction(0x2d, left, right, by, 0)
}

/// `r0 = function(r1, r2, ...)`
fn call(function: i32) -> Instruction {
    instruction(0x85, 0, 0, 0, function)
}

fn exit() -> Instruction {
    instruction(0x95, 0, 0, 0, 0)
}

#[cfg(test)]
mod tests {
    use std::io;
    use std::os::fd::AsFd;

    use super::*;

    #[test]
    fn jumps_lead_to_the_two_ends() {
        let descriptor = io::stderr();
        let program = program(descriptor.as_fd());
        let jumps: Vec<(usize, usize)> = (0..)
            .zip(&program)
            .filter(|(_, [code, ..])| [0x15, 0x55, 0x2d].contains(code))
            .map(|(at, [_, _, o0, o1, ..])| {
                (at, at + 1 + usize::try_from(i16::from_ne_bytes([*o0, *o1])).unwrap())
            })
            .collect();
        let (pass, redirect) = (program.len() - 2, program.len() - 8);
        let targets: Vec<usize> = jumps.iter().map(|(_, to)| *to).collect();
        assert_eq!(targets, [pass, redirect, redirect]);
        assert_eq!(program[pass], set(R0, PASS));
        assert_eq!(program[redirect][0], 0x18, "the map");
        assert_eq!(program.len(), 28);
    }
}
