//! The part of a socket filter that cuts the packets that this process sends to one byte.
//!
//! It comes after the filter of the capture, in place of its returns, so that only packets that
//! match are counted:
//!
//! ```text
//!     the filter, with a jump to the end for each return of a match
//!     ld  mark
//!     jeq #ours, cut, keep
//!   cut:  ret #1
//!   keep: ret #snaplen
//! ```

use crate::libpcap::{Instruction, RETURN_CONSTANT};

use super::{JUMP, JUMP_IF_EQUAL, MAX_IN_KERNEL};

/// `ld [k]`
const LOAD_WORD: u16 = 0x20;

/// Offset at which a load gives the mark of a packet: `SKF_AD_OFF + SKF_AD_MARK` of
/// `linux/filter.h`.
const MARK: u32 = 0xffff_f014;

/// Bytes that the kernel hands over of a packet with our mark.
pub(crate) const CUT_LEN: u32 = 1;

/// Number of instructions that are added.
pub(crate) const LEN: usize = 4;

/// The program with the cut; `None` if it would be too long, or has no match to cut.
pub(crate) fn cut(mut program: Vec<Instruction>, mark: u32) -> Option<Vec<Instruction>> {
    let end = program.len();
    let mut kept = None;
    for (place, instruction) in program.iter_mut().enumerate() {
        if instruction.code == RETURN_CONSTANT && instruction.operand != 0 {
            // All matches return the same number.
            kept = kept.max(Some(instruction.operand));
            let operand = u32::try_from(end - place - 1).ok()?;
            *instruction = Instruction { code: JUMP, jump_true: 0, jump_false: 0, operand };
        }
    }
    let with = |code, operand, jump_false| Instruction { code, jump_true: 0, jump_false, operand };
    program.extend([
        with(LOAD_WORD, MARK, 0),
        with(JUMP_IF_EQUAL, mark, 1),
        Instruction::returning(CUT_LEN),
        Instruction::returning(kept?),
    ]);
    (program.len() <= MAX_IN_KERNEL).then_some(program)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::filter::Filter;
    use crate::libpcap;
    use protocol::linktype::LinkType;

    /// What the kernel returns for a packet with this mark. Outside of it, a load of the mark is
    /// out of bounds, so the test loads a constant.
    fn returned(program: &[Instruction], mark: u32, data: &[u8]) -> bool {
        let program: Vec<Instruction> = program
            .iter()
            .map(|instruction| match instruction.operand {
                MARK => Instruction { code: 0x00, operand: mark, ..*instruction },
                _ if *instruction == Instruction::returning(CUT_LEN) => Instruction::returning(0),
                _ => *instruction,
            })
            .collect();
        assert!(libpcap::is_valid(&program));
        libpcap::matches(&program, 1000, data)
    }

    #[test]
    fn only_matches_with_the_mark_are_cut() {
        let filter = Filter::compile("tcp port 80 or udp", LinkType::RAW).unwrap();
        let program = cut(filter.program(300), 0x3007).unwrap();
        let [from, to] =
            [([10, 0, 0, 1], 40_000), ([10, 0, 0, 2], 80)].map(std::net::SocketAddr::from);
        let segment = frames::tcp(from, to, [0, 0], 0, b"");
        let packet = frames::ip(from.ip(), to.ip(), frames::TCP, &segment);
        assert!(!returned(&program, 0x3007, &packet), "cut");
        for mark in [0, 0x3006, 0x1_3007] {
            assert!(returned(&program, mark, &packet), "{mark:#x}");
        }
        let other = frames::ip(from.ip(), to.ip(), 1, &segment);
        assert!(!returned(&program, 0, &other), "does not match");
        let cuts = program.iter().filter(|one| **one == Instruction::returning(CUT_LEN)).count();
        assert_eq!(cuts, 1);
    }

    #[test]
    fn a_program_without_a_match_or_without_room_is_left_alone() {
        assert_eq!(cut(vec![Instruction::returning(0)], 7), None);
        assert_eq!(cut(Vec::new(), 7), None);
        assert_eq!(cut(vec![Instruction::returning(9); MAX_IN_KERNEL - 3], 7), None);
        assert!(cut(vec![Instruction::returning(9); MAX_IN_KERNEL - 4], 7).is_some());
    }
}
