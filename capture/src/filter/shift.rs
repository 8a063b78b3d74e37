//! Programs for packets with VLAN tags, derived from the program for packets without.
//!
//! A tag moves everything after the two addresses by four bytes, and the loads of a program move by
//! the same distance. That is enough as long as offsets occur only in loads. A program that
//! computes with offsets is not shifted; its expression is compiled again instead.

use crate::libpcap::{Instruction, LOAD_ABSOLUTE, RETURN_CONSTANT};

/// Bytes of the addresses before the first tag.
const ADDRESSES: u32 = 12;

/// Bytes of a tag.
const TAG: usize = 4;

/// `ld [x + k]` and its smaller variants, without the size.
const LOAD_INDIRECT: u16 = 0x40;
/// `ld #len`
const LOAD_LENGTH: u16 = 0x80;
/// `ldxb 4*([k]&0xf)`
const LOAD_HEADER_LENGTH: u16 = 0xb1;
/// `and #k`
const AND: u16 = 0x54;
/// Class of jumps.
const JUMP_CLASS: u16 = 0x05;
/// Bit of a jump that compares with X, or of any other instruction that uses X.
const WITH_INDEX: u16 = 0x08;

/// The program for packets with `tags` tags; `None` if it does more than load and compare.
pub(super) fn shifted(program: &[Instruction], tags: usize) -> Option<Vec<Instruction>> {
    let by = u32::try_from(tags * TAG).ok()?;
    program.iter().map(|instruction| one(*instruction, by)).collect()
}

fn one(instruction: Instruction, by: u32) -> Option<Instruction> {
    let Instruction { code, operand, .. } = instruction;
    let moves = match (code, instruction.load_mode()) {
        (LOAD_LENGTH | AND | RETURN_CONSTANT, _) => false,
        (LOAD_HEADER_LENGTH, _) | (_, LOAD_ABSOLUTE | LOAD_INDIRECT) => {
            operand >= ADDRESSES && !instruction.asks_the_kernel()
        }
        (code, _) if code & 0x07 == JUMP_CLASS && code & WITH_INDEX == 0 => false,
        _ => return None,
    };
    let operand = if moves { operand.checked_add(by)? } else { operand };
    Some(Instruction { operand, ..instruction })
}

#[cfg(test)]
mod tests {
    use pcap::{Capture, Linktype};

    use super::*;
    use crate::libpcap;

    fn compiled(expression: &str) -> Vec<Instruction> {
        let dead = Capture::dead(Linktype::ETHERNET).unwrap();
        libpcap::instructions(&dead.compile(expression, true).unwrap())
    }

    /// Frames of many kinds. Each expression below matches some of them.
    fn frames() -> Vec<Vec<u8>> {
        let mut frames = Vec::new();
        let mut seed = 1_u32;
        let mut random = |below: u32| {
            seed = seed.wrapping_mul(1_664_525).wrapping_add(1_013_904_223);
            (seed >> 8) % below
        };
        let pick = |from: &[u16], at: u32| from[at as usize % from.len()].to_be_bytes();
        for _ in 0..4_000 {
            let mut frame = vec![2, 0, 0, 0, 0, u8::try_from(random(3)).unwrap()];
            frame.extend([2, 0, 0, 0, 0, u8::try_from(random(3)).unwrap()]);
            if random(8) == 0 {
                frame[..6].fill(0xff);
            }
            let kind = pick(&[0x0800, 0x0800, 0x86dd, 0x0806, 0x8847, 0x8137], random(6));
            frame.extend(kind);
            let options = random(2);
            let protocol = u8::try_from([6, 17, 1, 58, 132][random(5) as usize]).unwrap();
            match kind {
                [0x86, 0xdd] => {
                    frame.extend([0x60, 0, 0, 0, 0, 20, protocol, 64]);
                    for _ in 0..2 {
                        frame.extend([0x20, 1, 0x0d, 0xb8, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0]);
                        frame.push(u8::try_from(random(3)).unwrap());
                    }
                }
                _ => {
                    frame.extend([0x45 + u8::try_from(options).unwrap(), 0, 0, 60, 0, 1]);
                    frame.extend(pick(&[0, 0, 0, 0x2001, 0x4000], random(5)));
                    frame.extend([64, protocol, 0, 0]);
                    for _ in 0..2 {
                        frame.extend([10, 0, u8::try_from(random(2)).unwrap()]);
                        frame.push(u8::try_from(random(3)).unwrap());
                    }
                    frame.extend(vec![1; options as usize * 4]);
                }
            }
            frame.extend(pick(&[80, 22, 53, 443, 1_000], random(5)));
            frame.extend(pick(&[80, 22, 53, 443, 1_000], random(5)));
            frame.extend((0..24).map(|_| u8::try_from(random(256)).unwrap()));
            frame.truncate(frame.len() - random(40) as usize);
            frames.push(frame);
        }
        frames
    }

    #[test]
    fn a_shifted_program_treats_tagged_frames_as_the_original_treats_untagged_ones() {
        let frames = frames();
        for expression in [
            "tcp port 80",
            "not port 22",
            "host 10.0.0.1",
            "net 10.0.1.0/24 and not host 10.0.1.2",
            "ether host 02:00:00:00:00:01",
            "ether broadcast",
            "arp or icmp",
            "ip6 and udp port 53",
            "icmp6 or sctp",
            "tcp portrange 20-100 or udp portrange 400-500",
            "tcp[tcpflags] & (tcp-syn|tcp-ack) != 0",
            "ip[0] & 0xf = 6",
            "ip6 host 2001:db8::1",
            "src port 80 or dst port 443",
            "ip proto 17 and src host 10.0.0.2",
            "mpls",
            "ipx",
            "ip[6:2] & 0x1fff != 0",
        ] {
            let plain = compiled(expression);
            let mut matched = 0;
            for tags in [1, 2] {
                let moved = shifted(&plain, tags).expect(expression);
                assert!(libpcap::is_valid(&moved), "{expression}");
                for frame in &frames {
                    let mut tagged = frame.clone();
                    for _ in 0..tags {
                        tagged.splice(12..12, [0x81, 0, 0, 7]);
                    }
                    let wanted = libpcap::matches(&plain, 1_500, frame);
                    matched += u32::from(wanted);
                    let got = libpcap::matches(&moved, 1_500, &tagged);
                    assert_eq!(got, wanted, "{expression} behind {tags}: {frame:x?}");
                }
            }
            assert!(matched > 0, "{expression} is tried with frames that match");
        }
    }

    #[test]
    fn a_program_that_computes_offsets_is_not_moved() {
        for expression in ["tcp[((tcp[12] & 0xf0) >> 2):4] = 0x47455420", "geneve and port 80"] {
            assert_eq!(shifted(&compiled(expression), 1), None, "{expression}");
        }
    }
}
