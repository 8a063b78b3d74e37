//! Filter expressions of libpcap that also match through VLAN tags.
//!
//! As libpcap compiles it, `tcp port 80` looks for the IP header only after an untagged Ethernet
//! header. Here an expression for Ethernet is compiled three times, for packets with no, one and
//! two tags. A few instructions before the three programs look at the EtherType and choose one:
//!
//! ```text
//!   EtherType at 12 is no tag      -> the expression
//!   a tag, and at 16 is no tag     -> the expression after one tag
//!   a tag, and at 16 is a tag      -> the expression after two tags
//! ```
//!
//! So `not port 22` is correct for tagged frames too, unlike `EXPR or (vlan and EXPR)`. An
//! expression that itself refers to tags or to fixed offsets (`vlan`, `ether[`, ...) is used
//! unchanged. On a live interface the kernel removes the outermost tag before it runs the filter,
//! so filters match through three tags there.

pub(crate) mod marked;
mod recent;
mod shift;

use pcap::{Capture, Linktype};
use protocol::linktype::LinkType;

use crate::libpcap::{self, Instruction};
use shift::shifted;

/// Maximum length of a program in the kernel: `BPF_MAXINSNS` of `linux/bpf_common.h`.
const MAX_IN_KERNEL: usize = 4096;

/// Maximum length of any program: a fifth of a millisecond for a packet that goes through all of
/// it, and the maximum of libpcap's length field for the kernel.
const MAX_INSTRUCTIONS: usize = 65_535;

/// Maximum number of words, from the end, that are looked at for a syntax error: a filter of
/// hundreds of hosts takes long to compile.
const MAX_WORDS: usize = 32;

/// A compiled filter.
#[derive(Clone, Debug)]
pub struct Filter {
    program: Vec<Instruction>,
    /// A program for a packet socket, if `program` is too long for the kernel; it accepts more
    /// packets.
    coarse: Option<Vec<Instruction>>,
    expression: String,
}

/// An expression that cannot be the filter of a capture.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum FilterError {
    /// It does not compile.
    #[error("filter '{expression}' does not compile: {why}")]
    Compile {
        /// The expression.
        expression: String,
        /// libpcap's error message.
        why: String,
    },
    /// It uses data that only the kernel has about a packet, and the packets do not come from the
    /// kernel.
    #[error(
        "filter '{expression}' is for interfaces only: 'inbound', 'outbound' and 'ifindex' ask \
         the kernel, and a savefile or stream does not say (leave them out; in packets captured \
         on 'any' as LINUX_SLL2, link[10] = 4 is outbound and link[4:4] is the interface)"
    )]
    KernelOnly {
        /// The expression.
        expression: String,
    },
}

/// Who runs a filter.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Runner {
    /// A packet socket, where the kernel has more data about a packet than its bytes.
    Kernel,
    /// This process, over the bytes of packets.
    Process,
}

impl Filter {
    /// Compiles `expression` for packets of `link_type` that this process reads. The empty
    /// expression matches all packets.
    ///
    /// # Errors
    /// [`FilterError`], with libpcap's message, or because the expression uses data that only the
    /// kernel has.
    pub fn compile(expression: &str, link_type: LinkType) -> Result<Self, FilterError> {
        Self::compile_for(expression, link_type, Runner::Process)
    }

    /// Compiles `expression` for a packet socket that delivers packets of `link_type`.
    ///
    /// # Errors
    /// [`FilterError::Compile`], with libpcap's message.
    pub fn compile_live(expression: &str, link_type: LinkType) -> Result<Self, FilterError> {
        Self::compile_for(expression, link_type, Runner::Kernel)
    }

    /// Checks that `expression` can be a filter that `runner` runs, as far as possible before the
    /// link type of the source is known. Ethernet is the likely one.
    ///
    /// # Errors
    /// [`FilterError`].
    pub fn check(expression: &str, runner: Runner) -> Result<(), FilterError> {
        Self::compile_for(expression, LinkType::ETHERNET, runner).map(|_| ())
    }

    fn compile_for(
        expression: &str,
        link_type: LinkType,
        runner: Runner,
    ) -> Result<Self, FilterError> {
        // A configuration is checked as a whole before its first capture is created.
        if let Some(filter) = recent::take(expression, link_type, runner) {
            return Ok(filter);
        }
        let filter = Self::compile_anew(expression, link_type, runner)?;
        recent::keep(&filter, link_type, runner);
        Ok(filter)
    }

    fn compile_anew(
        expression: &str,
        link_type: LinkType,
        runner: Runner,
    ) -> Result<Self, FilterError> {
        let error = |why: String| FilterError::Compile { expression: expression.to_owned(), why };
        let dead = Capture::dead(Linktype(link_type.to_dlt()))
            .map_err(|problem| error(problem.to_string()))?;
        let compile = |text: &str| {
            dead.compile(text, true)
                .map(|program| libpcap::instructions(&program))
                .map_err(|problem| error(explain(&problem)))
        };
        let plain = compile(expression).map_err(|problem| match problem {
            FilterError::Compile { expression, why } if why.contains("syntax error") => {
                let place = place(&expression, |part| compile(part).is_ok());
                FilterError::Compile { why: format!("{why}{place}"), expression }
            }
            other => other,
        })?;
        if runner == Runner::Process && plain.iter().any(Instruction::asks_the_kernel) {
            return Err(FilterError::KernelOnly { expression: expression.to_owned() });
        }
        // An expression that matches all packets need not look at the EtherType, which a runt
        // lacks.
        let is_plain = sees_tags(expression)
            || link_type != LinkType::ETHERNET
            || expression.trim().is_empty();
        let tagged = |tags: usize| {
            // Compiling hundreds of ports takes seconds; shifting a compiled program does not.
            let moved = shifted(&plain, tags);
            moved
                .map_or_else(|| compile(&format!("{}({expression})", "vlan and ".repeat(tags))), Ok)
        };
        let (program, coarse) = if is_plain {
            (plain, None)
        } else {
            // If the expression compiles, it also compiles after a tag. If libpcap should refuse
            // that, the filter does not match through tags.
            match (tagged(1), tagged(2)) {
                (Ok(once), Ok(twice)) => {
                    let all = choose(&plain, &once, &twice);
                    let coarse = (all.len() > MAX_IN_KERNEL).then(|| {
                        let any = [Instruction::returning(u32::MAX)];
                        choose(&plain, &any, &any)
                    });
                    (all, coarse)
                }
                _ => (plain, None),
            }
        };
        let filter = Self::checked(program, expression);
        let filter = filter.ok_or_else(|| error("the program is too long".to_owned()))?;
        let coarse = coarse.filter(|coarse| coarse.len() <= MAX_IN_KERNEL);
        Ok(Self { coarse, ..filter })
    }

    /// The program of an expression that was compiled elsewhere, for a live capture's own link
    /// type.
    pub(crate) fn checked(program: Vec<Instruction>, expression: &str) -> Option<Self> {
        (program.len() <= MAX_INSTRUCTIONS && libpcap::is_valid(&program)).then(|| Self {
            program,
            coarse: None,
            expression: expression.to_owned(),
        })
    }

    /// Returns true if only the kernel can run it.
    pub(crate) fn asks_the_kernel(&self) -> bool {
        self.program.iter().any(Instruction::asks_the_kernel)
    }

    /// Returns true if packets that pass [`Filter::program`] must also be checked with
    /// [`Filter::matches`].
    pub(crate) fn is_coarse(&self) -> bool {
        self.coarse.is_some()
    }

    /// The expression it was compiled from.
    #[must_use]
    pub fn expression(&self) -> &str {
        &self.expression
    }

    /// Returns true if a packet matches. `data` are its captured bytes, of `original_len` on the
    /// wire.
    #[must_use]
    pub fn matches(&self, original_len: u32, data: &[u8]) -> bool {
        libpcap::matches(&self.program, original_len, data)
    }

    /// The program for a packet socket; `snaplen` is the number of bytes to keep of a packet that
    /// matches.
    pub(crate) fn program(&self, snaplen: u32) -> Vec<Instruction> {
        let mut program = self.coarse.as_ref().unwrap_or(&self.program).clone();
        for instruction in &mut program {
            if instruction.code == libpcap::RETURN_CONSTANT && instruction.operand != 0 {
                instruction.operand = snaplen;
            }
        }
        program
    }
}

/// The place of a syntax error, which libpcap does not report: after the longest beginning of whole
/// words that is an expression itself. Empty if no beginning is.
fn place(expression: &str, compiles: impl Fn(&str) -> bool) -> String {
    let blanks = expression.rmatch_indices(char::is_whitespace).take(MAX_WORDS);
    let parts = blanks.map(|(at, _)| expression.split_at(at));
    let parts = parts.map(|(right, wrong)| (right.trim(), wrong.trim()));
    let mut parts = parts.filter(|(right, wrong)| !right.is_empty() && !wrong.is_empty());
    let found = parts.find(|(right, _)| compiles(right));
    found.map_or_else(String::new, |(right, wrong)| {
        format!("; it is right up to '{right}', and wrong in '{wrong}'")
    })
}

/// libpcap's message without the prefix that the pcap crate adds.
pub(crate) fn explain(error: &pcap::Error) -> String {
    match error {
        pcap::Error::PcapError(text) => text.trim().to_owned(),
        other => other.to_string(),
    }
}

/// Returns true if an expression itself refers to VLAN tags or offsets, so that shifting it by a
/// tag would change its meaning.
pub(crate) fn sees_tags(expression: &str) -> bool {
    let compact: String =
        expression.to_ascii_lowercase().chars().filter(|c| !c.is_whitespace()).collect();
    let word = |wanted: &str| {
        expression
            .split(|c: char| !c.is_ascii_alphanumeric())
            .any(|found| found.eq_ignore_ascii_case(wanted))
    };
    word("vlan")
        || ["ether[", "link[", "0x8100", "0x88a8", "0x9100"]
            .iter()
            .any(|part| compact.contains(part))
}

/// `ldh [k]`
const LOAD_HALF: u16 = 0x28;
/// `jeq #k`
pub(crate) const JUMP_IF_EQUAL: u16 = 0x15;
/// `ja k`
const JUMP: u16 = 0x05;
/// EtherTypes of VLAN tags: 802.1Q, 802.1ad, and the one that QinQ used before 802.1ad.
const TAGS: [u32; 3] = [0x8100, 0x88a8, 0x9100];

/// Combines three programs and the choice between them.
///
/// Programs end in returns, so one can follow the other. Only the distance to their beginnings must
/// be computed, and `ja` has 32 bits for it.
fn choose(
    plain: &[Instruction],
    tagged: &[Instruction],
    twice: &[Instruction],
) -> Vec<Instruction> {
    let jump = |distance: usize| Instruction {
        code: JUMP,
        jump_true: 0,
        jump_false: 0,
        // The length of the program is checked afterwards; a truncated distance fails validation.
        operand: u32::try_from(distance).unwrap_or(u32::MAX),
    };
    // Continues with the next instruction if the EtherType at `offset` is not a tag, and skips it
    // if it is.
    let test = |offset: u32| {
        let load = Instruction { code: LOAD_HALF, jump_true: 0, jump_false: 0, operand: offset };
        let compare = |(tag, to): (u32, u8)| Instruction {
            code: JUMP_IF_EQUAL,
            jump_true: to,
            jump_false: 0,
            operand: tag,
        };
        std::iter::once(load).chain(TAGS.into_iter().zip([3, 2, 1]).map(compare))
    };
    let test_len = 1 + TAGS.len();
    let mut program: Vec<Instruction> = test(12).collect();
    program.push(jump(test_len + 2));
    program.extend(test(16));
    program.push(jump(1 + plain.len()));
    program.push(jump(plain.len() + tagged.len()));
    program.extend(plain.iter().chain(tagged).chain(twice));
    program
}

#[cfg(test)]
mod tests {
    use std::net::SocketAddr;

    use super::*;

    /// An Ethernet frame with these tags around an IPv4 TCP segment to `port`.
    fn frame(tags: &[u16], port: u16) -> Vec<u8> {
        let tags: Vec<_> = tags.iter().map(|tag| (*tag, 10)).collect();
        let [from, to] = [([10, 0, 0, 1], 40_000), ([10, 0, 0, 2], port)].map(SocketAddr::from);
        let segment = frames::tcp(from, to, [0, 0], 0, b"");
        frames::ethernet(
            &tags,
            frames::IPV4,
            &frames::ip(from.ip(), to.ip(), frames::TCP, &segment),
        )
    }

    #[test]
    fn a_syntax_error_is_said_with_its_place() {
        for (expression, says) in [
            ("udp prt 53", "right up to 'udp', and wrong in 'prt 53'"),
            ("udp port 53 and or tcp", "right up to 'udp port 53', and wrong in 'and or tcp'"),
            ("tcp port 80 andd host", "right up to 'tcp port 80', and wrong in 'andd host'"),
        ] {
            let error = Filter::compile(expression, LinkType::ETHERNET).unwrap_err().to_string();
            assert!(error.contains("syntax error") && error.ends_with(says), "{error}");
        }
        // There is no such part.
        let error = Filter::compile("prt 53", LinkType::ETHERNET).unwrap_err().to_string();
        assert!(error.ends_with("syntax error"), "{error}");
    }

    fn matches(expression: &str, frame: &[u8]) -> bool {
        let filter = Filter::compile(expression, LinkType::ETHERNET).unwrap();
        filter.matches(u32::try_from(frame.len()).unwrap(), frame)
    }

    #[test]
    fn expressions_work_inside_tags_and_negations_stay_right() {
        for tags in [&[][..], &[0x8100], &[0x88a8, 0x8100], &[0x8100, 0x8100], &[0x9100]] {
            for port in [80, 22] {
                let frame = frame(tags, port);
                for (expression, expected) in [
                    ("tcp port 80", port == 80),
                    ("not port 22", port != 22),
                    ("tcp port 80 or tcp port 22", true),
                    ("udp", false),
                    ("", true),
                    ("ether host 02:00:00:00:00:01", true),
                ] {
                    assert_eq!(matches(expression, &frame), expected, "{expression} {tags:x?}");
                }
            }
        }
    }

    #[test]
    fn expressions_about_tags_are_not_changed() {
        assert!(matches("vlan 10", &frame(&[0x8100], 80)));
        assert!(!matches("vlan 10", &frame(&[], 80)));
        assert!(matches("ether[12:2] = 0x8100", &frame(&[0x8100], 80)));
        assert!(sees_tags("tcp or VLAN 5"));
        assert!(!sees_tags("host vlan5.example"), "a host name is not the word");
    }

    #[test]
    fn the_original_length_counts_not_the_captured_one() {
        let filter = Filter::compile("greater 1000", LinkType::ETHERNET).unwrap();
        let frame = frame(&[], 80);
        assert!(filter.matches(1500, &frame));
        assert!(!filter.matches(500, &frame));
    }

    #[test]
    fn short_packets_match_nothing() {
        let filter = Filter::compile("tcp port 80", LinkType::ETHERNET).unwrap();
        let whole = frame(&[0x8100, 0x8100], 80);
        for len in 0..whole.len() - 18 {
            assert!(!filter.matches(60, &whole[..len]));
        }
    }

    #[test]
    fn an_empty_expression_matches_the_shortest_packets_too() {
        let filter = Filter::compile(" ", LinkType::ETHERNET).unwrap();
        assert!(filter.matches(0, &[]) && filter.matches(10, &[0; 10]));
    }

    #[test]
    fn a_syntax_error_has_libpcaps_message() {
        let error = Filter::compile("tcp prot 80", LinkType::ETHERNET).unwrap_err();
        assert!(error.to_string().contains("'tcp prot 80' does not compile: "), "{error}");
        assert!(error.to_string().contains("syntax error"), "{error}");
    }

    #[test]
    fn other_link_types_are_compiled_as_they_are() {
        let raw = Filter::compile("tcp port 80", LinkType::RAW).unwrap();
        let packet = &frame(&[], 80)[14..];
        assert!(raw.matches(40, packet));
        assert!(Filter::compile("tcp port 80", LinkType::LINUX_SLL2).is_ok());
    }

    #[test]
    fn a_match_returns_the_snaplen() {
        let filter = Filter::compile("tcp", LinkType::ETHERNET).unwrap();
        let returns: Vec<u32> = filter
            .program(96)
            .iter()
            .filter(|instruction| instruction.code == libpcap::RETURN_CONSTANT)
            .map(|instruction| instruction.operand)
            .collect();
        assert!(returns.contains(&96) && returns.iter().all(|value| [0, 96].contains(value)));
    }

    #[test]
    fn expressions_that_only_the_kernel_can_evaluate_are_refused_for_read_packets() {
        for expression in ["inbound", "outbound", "not inbound", "ifindex 2", "tcp and outbound"] {
            let error = Filter::compile(expression, LinkType::ETHERNET).unwrap_err();
            assert!(matches!(error, FilterError::KernelOnly { .. }), "{error}");
            assert!(error.to_string().contains(&format!("'{expression}' is for interfaces only")));
            assert_eq!(Filter::check(expression, Runner::Process), Err(error));
            let live = Filter::compile_live(expression, LinkType::ETHERNET).unwrap();
            assert!(live.asks_the_kernel());
            assert_eq!(Filter::check(expression, Runner::Kernel), Ok(()));
        }
        // Cooked packets have the direction in their header.
        assert!(Filter::compile("outbound", LinkType::LINUX_SLL2).is_ok());
        assert!(Filter::compile("inbound", LinkType::LINUX_SLL).is_ok());
        assert_eq!(Filter::check("tcp port 80", Runner::Process), Ok(()));
    }

    #[test]
    fn hundreds_of_ports_are_a_filter() {
        let ports: Vec<String> = (1..=300).map(|port| format!("tcp port {}", port * 7)).collect();
        let filter = Filter::compile(&ports.join(" or "), LinkType::ETHERNET).unwrap();
        for tags in [&[][..], &[0x8100], &[0x88a8, 0x8100]] {
            assert!(filter.matches(60, &frame(tags, 70)));
            assert!(!filter.matches(60, &frame(tags, 71)));
        }
        // A filter too long for the kernel accepts all tagged frames there, but no other frames.
        assert!(filter.is_coarse() && filter.program(96).len() <= MAX_IN_KERNEL);
        let coarse = filter.program(96);
        assert!(libpcap::is_valid(&coarse));
        assert!(libpcap::matches(&coarse, 60, &frame(&[], 70)));
        assert!(!libpcap::matches(&coarse, 60, &frame(&[], 71)));
        assert!(libpcap::matches(&coarse, 60, &frame(&[0x8100], 71)));
    }
}
