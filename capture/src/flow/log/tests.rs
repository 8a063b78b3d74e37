//! Tests against a file that keeps everything, and with concurrent readers.

use std::thread;

use proptest::prelude::*;

use super::*;

fn line(number: u64) -> String {
    let fill = "x".repeat((number.wrapping_mul(0x9e37_79b9) >> 7) as usize % 90);
    format!("{{\"id\":{number},\"fill\":\"{fill}\"}}\n")
}

#[test]
fn an_empty_log_ends_where_it_begins() {
    let mut writer = LogWriter::new(1 << 20);
    let log = Arc::clone(writer.log());
    let mut cache = LogCache::default();
    assert_eq!((log.range(), log.memory(), log.dropped_lines()), (0..0, 0, 0));
    assert_eq!(log.read(0, 10, &mut cache), Some(vec![]));
    writer.append(b"");
    writer.append(b"one\ntwo\n");
    assert_eq!(log.read(0, 99, &mut cache).unwrap(), b"one\ntwo\n");
    assert_eq!(log.read(2, 3, &mut cache).unwrap(), b"e\nt");
    assert_eq!(log.read(8, 3, &mut cache), Some(vec![]));
    assert_eq!(log.read(u64::MAX, usize::MAX, &mut cache), Some(vec![]));
}

#[test]
fn memory_stays_within_the_limit_and_lines_add_up() {
    let limit = 300 << 10;
    let mut writer = LogWriter::new(limit);
    let log = Arc::clone(writer.log());
    let mut written = 0;
    for number in 0..400_000 {
        let line = line(number);
        writer.append(line.as_bytes());
        written += line.len() as u64;
        assert!(log.memory() <= limit);
    }
    let (range, mut cache) = (log.range(), LogCache::default());
    assert_eq!(range.end, written);
    assert!(range.end - range.start > 4 * limit as u64, "compressed");
    let rest = log.read(range.start, usize::MAX, &mut cache).unwrap();
    let first = (log.dropped_lines()..400_000).map(line).collect::<String>();
    assert!(rest == first.as_bytes());
    assert_eq!(log.read(range.start - 1, 1, &mut LogCache::default()), None);
}

#[test]
fn the_open_block_takes_no_more_than_a_block() {
    for len in [90, 700, 5_000, 40_000] {
        let mut writer = LogWriter::new(0);
        let line = [vec![b'a'; len], vec![b'\n']].concat();
        for _ in 0..2_000 {
            writer.append(&line);
            assert!(writer.log().memory() <= BLOCK, "{} of lines of {len}", writer.log().memory());
        }
    }
}

#[test]
fn a_line_longer_than_everything_is_kept_while_it_is_the_last() {
    let mut writer = LogWriter::with_block(1_000, 100);
    let long = [vec![b'a'; 5_000], vec![b'\n']].concat();
    writer.append(b"short\n");
    writer.append(&long);
    let log = Arc::clone(writer.log());
    assert_eq!((log.range(), log.dropped_lines()), (6..5_007, 1));
    assert!(log.read(6, usize::MAX, &mut LogCache::default()).unwrap() == long);
    writer.append(b"short\n");
    assert_eq!(log.range().end, 5_013);
    assert!(log.memory() < 1_000);
}

#[test]
fn readers_find_whole_lines_while_the_writer_writes() {
    let mut writer = LogWriter::with_block(40_000, 2_000);
    let log = Arc::clone(writer.log());
    let read = |want: usize| {
        let (mut cache, mut at, mut text) = (LogCache::default(), 0, Vec::new());
        // Number of the next line, if it is known; and of the last one.
        let (mut next, mut last) = (Some(0), 0);
        while last < 99_999 {
            let range = log.range();
            let Some(bytes) = log.read(at, want, &mut cache) else {
                // Overtaken: continue at the beginning of another line.
                assert!(at < log.begin());
                (at, next) = (log.begin(), None);
                text.clear();
                continue;
            };
            at += bytes.len() as u64;
            assert!(bytes.len() == want || at >= range.end || at < log.begin());
            text.extend(bytes);
            while let Some(end) = text.iter().position(|byte| *byte == b'\n') {
                let one: Vec<u8> = text.drain(..=end).collect();
                let value: serde_json::Value = serde_json::from_slice(&one).unwrap();
                let number = value["id"].as_u64().unwrap();
                assert!(next.is_none_or(|next| next == number) && number >= last);
                assert!(one == line(number).as_bytes());
                (next, last) = (Some(number + 1), number);
            }
            assert!(at != range.end || text.is_empty(), "a torn line");
        }
    };
    thread::scope(|scope| {
        scope.spawn(|| read(700));
        scope.spawn(|| read(9_000));
        scope.spawn(move || {
            for number in 0..100_000 {
                writer.append(line(number).as_bytes());
            }
        });
    });
}

proptest! {
    #[test]
    fn it_is_the_end_of_a_file(
        appends in prop::collection::vec(prop::collection::vec(0..300_usize, 0..4), 1..80),
        reads in prop::collection::vec((any::<prop::sample::Index>(), 0..2_000_usize), 40),
        limit in 300..4_000_usize,
    ) {
        let mut writer = LogWriter::with_block(limit, 500);
        let log = Arc::clone(writer.log());
        let (mut file, mut cache) = (Vec::new(), LogCache::default());
        let mut reads = reads.into_iter().cycle();
        for lens in appends {
            let lines: String =
                lens.iter().map(|len| format!("{}\n", "y".repeat(*len))).collect();
            writer.append(lines.as_bytes());
            file.extend(lines.into_bytes());
            let begin = usize::try_from(log.begin()).unwrap();
            prop_assert_eq!(log.end(), file.len() as u64);
            let before = &file[..begin];
            prop_assert!(before.last().is_none_or(|byte| *byte == b'\n'));
            let lines = before.iter().filter(|byte| **byte == b'\n').count() as u64;
            prop_assert_eq!(log.dropped_lines(), lines);
            for (at, want) in reads.by_ref().take(2) {
                let at = at.index(file.len() + 10);
                let expected = file.get(at..).unwrap_or_default();
                let expected = &expected[..want.min(expected.len())];
                match log.read(at as u64, want, &mut cache) {
                    Some(bytes) if at >= begin => prop_assert_eq!(bytes, expected),
                    Some(bytes) => prop_assert!(expected.starts_with(&bytes)),
                    None => prop_assert!(at < begin),
                }
            }
        }
    }
}
