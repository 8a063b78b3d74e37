//! The work for one more segment or range does not grow with the number of those before it. A
//! stranger decides how many there are.
//!
//! Work is counted in instructions, by Valgrind's callgrind, so it is the same however busy the
//! machine is.

#![allow(clippy::cast_possible_truncation, reason = "the numbers of tests are small")]

mod tcp_exchange;

use std::ops::Range;
use std::path::Path;
use std::process::Command;

use protocol::http::body::framed::Body;
use protocol::http::body::{self, BodyPiece, Streams};
use protocol::http::direction::MessageRole;
use protocol::tcp::ConnectionSettings;
use tcp_exchange::after;

/// Set in the process whose instructions are counted.
const COUNTED: &str = "PROTOCOL_WORK_COUNTED";

/// Items in the two runs of a case.
const FEW: u64 = 500;
const MANY: u64 = 4_000;

/// Something to do, and the number of items to do it for.
type Case = (&'static str, Box<dyn Fn(u64)>);

/// The sequence number and length of the segment with this index.
type Place = fn(u64) -> (u32, u32);

/// Reads a body of `count` ranges, each with a hole.
fn ranges_with_holes(count: u64) {
    struct Ones;
    impl Streams for Ones {
        fn read(&self, _: MessageRole, range: Range<u64>, sink: &mut dyn FnMut(BodyPiece<'_>)) {
            sink(BodyPiece::Bytes(&[1; 8][..(range.end - range.start) as usize]));
        }
    }
    let starts = (0..count).map(|index| index * 10);
    let body = Body {
        ranges: starts.clone().map(|start| start..start + 3).collect(),
        holes: starts.map(|start| start + 1..start + 2).collect(),
        ended: true,
        ..Body::default()
    };
    let decoded = body::read(&Ones, MessageRole::Request, &body, &body::DecodingLimits::default());
    assert_eq!(decoded.bytes.len() as u64, count * 3);
}

fn cases() -> Vec<Case> {
    let plain = ConnectionSettings::default();
    let mut bounded = plain;
    bounded.limits.holes = 256;
    let mut unbounded = plain;
    unbounded.limits.holes = usize::MAX;
    unbounded.limits.pending = usize::MAX;
    let of = |name, settings: ConnectionSettings, place: Place| -> Case {
        (name, Box::new(move |count| drop(after(count, &settings, place))))
    };
    let holes: Place = |index| if index == 0 { (0, 0) } else { (index as u32 * 2 + 1, 1) };
    vec![
        of("in order", plain, |index| ((index * 1_448 + u64::from(index > 0)) as u32, 1_448)),
        of("one byte in order", plain, |index| (index as u32 + 1, 1)),
        of("pairs swapped", plain, |index| {
            let index = if index < 2 { index } else { index ^ 1 };
            ((index * 1_448 + 1) as u32, 1_448)
        }),
        of("holes, bounded", bounded, holes),
        of("holes, all kept", unbounded, holes),
        // Each segment comes before all others.
        of(
            "backwards",
            unbounded,
            |index| {
                if index == 0 { (0, 0) } else { (1_000_000 - index as u32, 1) }
            },
        ),
        of("the same two segments again and again", plain, |index| {
            (if index == 0 { 0 } else { (index as u32 % 2) * 700 + 1 }, 1_400)
        }),
        ("ranges of a body with holes", Box::new(ranges_with_holes)),
    ]
}

/// Callgrind counts the instructions in here, and writes their number to a file at the end.
#[inline(never)]
fn counted(case: &Case, count: u64) {
    (case.1)(count);
}

#[test]
fn the_work_for_an_item_does_not_grow_with_their_number() {
    let cases = cases();
    if std::env::var_os(COUNTED).is_some() {
        for case in &cases {
            counted(case, FEW);
            counted(case, MANY);
        }
        return;
    }
    let folder = format!("{}/work-{}", env!("CARGO_TARGET_TMPDIR"), std::process::id());
    let folder = Path::new(&folder);
    std::fs::create_dir(folder).unwrap();
    let output = Command::new("valgrind")
        .args(["--tool=callgrind", "--collect-atstart=no", "--toggle-collect=work::counted"])
        .arg("--dump-after=work::counted")
        .arg(format!("--callgrind-out-file={}", folder.join("counts").display()))
        .arg(std::env::current_exe().unwrap())
        .args(["--exact", "the_work_for_an_item_does_not_grow_with_their_number"])
        .env(COUNTED, "1")
        .output();
    let output = match output {
        Ok(output) => output,
        Err(error) if error.kind() == std::io::ErrorKind::NotFound => {
            let is_required = std::env::var_os("PCAPFS_REQUIRE_ALL").is_some_and(|all| all == "1");
            assert!(!is_required, "PCAPFS_REQUIRE_ALL is set, but this test needs valgrind");
            eprintln!("skipped: needs valgrind");
            return;
        }
        Err(error) => panic!("valgrind: {error}"),
    };
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
    let instructions = |part: usize| -> u64 {
        let text = std::fs::read_to_string(folder.join(format!("counts.{part}"))).unwrap();
        let totals = text.lines().find_map(|line| line.strip_prefix("totals: ")).unwrap();
        totals.trim().parse().unwrap()
    };
    for (index, (name, _)) in cases.iter().enumerate() {
        let (few, many) = (instructions(2 * index + 1), instructions(2 * index + 2));
        let (few, many) = (few / FEW, many / MANY);
        eprintln!("{name}: {few} instructions an item for {FEW}, {many} for {MANY}");
        // Finding a place among eight times as many takes three steps more of a binary search.
        assert!(few > 0 && many <= few + few / 2, "{name}: {few} instructions become {many}");
    }
    std::fs::remove_dir_all(folder).unwrap();
}
