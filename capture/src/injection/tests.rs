//! Queues and writers, without a device.

use frames::Format;

use super::*;

const ETHERNET: &[LinkType] = &[LinkType::ETHERNET];

/// A savefile of frames of `len` bytes at these times, in nanoseconds.
fn savefile(times: &[u64], len: usize) -> Vec<u8> {
    let format = Format::default();
    let mut bytes = format.header();
    for (number, time) in times.iter().enumerate() {
        format.append(&mut bytes, *time, &vec![u8::try_from(number % 256).unwrap(); len], len);
    }
    bytes
}

fn running(speed: &str) -> Arc<Injection> {
    let injection = Injection::new(InjectSpeed::parse(speed).unwrap()).unwrap();
    injection.begin(ETHERNET);
    injection
}

/// The times from the first to each of the frames that wait, and their first bytes.
fn dues(injection: &Injection) -> Vec<(u128, u8)> {
    let queues = injection.queues.lock();
    let frames: Vec<_> = queues.writers.iter().flat_map(|writer| &writer.frames).collect();
    let first = frames[0].due;
    frames.iter().map(|frame| ((frame.due - first).as_millis(), frame.bytes[0])).collect()
}

const MS: u64 = 1_000_000;

#[test]
fn gaps_are_kept_divided_or_left_out() {
    let times = [5_000 * MS, 5_100 * MS, 5_050 * MS, 7_000 * MS];
    for (speed, expected) in [
        // A frame that is earlier than the one before it comes at once after it.
        ("1.0", [0, 100, 100, 2000]),
        ("2", [0, 50, 50, 1000]),
        ("max", [0, 0, 0, 0]),
    ] {
        let injection = running(speed);
        let mut writer = injection.writer().unwrap();
        // Any piece may end anywhere.
        for byte in savefile(&times, 60) {
            writer.write(None, &[byte]).unwrap();
        }
        let dues = dues(&injection);
        if speed == "max" {
            assert!(
                dues.iter().all(|(due, _)| *due < 1000),
                "as soon as they were written: {dues:?}"
            );
        } else {
            assert_eq!(dues, Vec::from_iter(expected.into_iter().zip(0..)), "{speed}");
        }
    }
}

#[test]
fn a_second_savefile_begins_when_the_first_has_ended() {
    let injection = running("1");
    let mut writer = injection.writer().unwrap();
    writer.write(Some(0), &savefile(&[9_000 * MS, 9_300 * MS], 60)).unwrap();
    let end = savefile(&[0, 0], 60).len() as u64;
    writer.write(Some(end), &savefile(&[4_000 * MS, 4_200 * MS], 60)).unwrap();
    assert_eq!(dues(&injection), [(0, 0), (300, 1), (300, 0), (500, 1)]);
}

#[test]
fn the_first_bad_byte_is_named_and_frames_before_it_count() {
    let whole = savefile(&[MS, 2 * MS], 60);
    let mut broken = whole.clone();
    broken.extend([0xff; 40]);
    let place = format!("byte {}", whole.len());
    let mut cooked = Format { link_type: 113, ..Format::default() }.header();
    cooked.extend(&whole[24..]);
    for (bytes, part, frames) in [
        (broken, place.as_str(), 2),
        (b"this is no savefile".to_vec(), "byte 0", 0),
        (cooked, "packets of link type", 0),
    ] {
        let injection = running("1");
        let mut writer = injection.writer().unwrap();
        let said = writer.write(None, &bytes).unwrap_err();
        assert!(said.to_string().contains(part), "{said}");
        assert_eq!(writer.write(None, &bytes).unwrap_err(), said, "nothing is taken after that");
        assert_eq!(writer.lack(), None, "it was said");
        drop(writer);
        let status = injection.status();
        assert_eq!((status.queued_packets, status.error), (frames, Some(said.to_string())));
    }
}

#[test]
fn holes_and_half_records_are_reported() {
    let injection = running("1");
    let bytes = savefile(&[MS], 60);
    let mut writer = injection.writer().unwrap();
    writer.write(Some(0), &bytes[..30]).unwrap();
    let error = writer.write(Some(31), &bytes[31..]).unwrap_err();
    assert_eq!(error, InjectionError::OutOfOrder { at: 31, end: 30 });
    let mut writer = injection.writer().unwrap();
    writer.write(None, &bytes[..50]).unwrap();
    let lack = "ends inside a record: 26 bytes from byte 24 on are dropped";
    assert_eq!(writer.lack().as_deref(), Some(lack));
    drop(writer);
    assert_eq!(injection.status().error.as_deref(), Some(lack));
    assert_eq!(injection.status().writers, 1, "the other one is open");
}

#[test]
fn a_full_queue_takes_no_more_until_frames_are_out() {
    let injection = running("max");
    let mut writer = injection.writer().unwrap();
    let bytes = savefile(&vec![MS; 700], 1500);
    assert!(writer.has_room());
    writer.write(None, &bytes).unwrap();
    assert!(!writer.has_room());
    let other = injection.writer().unwrap();
    assert!(other.has_room(), "each writer has a queue");
    let mut taken = 0;
    loop {
        match injection.next(Instant::now()) {
            NextFrame::Due { frame, has_room } => {
                assert_eq!(frame.len(), 1500);
                taken += 1;
                if has_room {
                    break;
                }
            }
            other => panic!("{other:?}"),
        }
    }
    assert!(writer.has_room() && taken < 700);
    assert_eq!(injection.status().queued_packets, 700 - taken);
    assert_eq!(injection.status().queued_bytes, (700 - taken) * 1500);
    drop((writer, other));
    assert_eq!(injection.status().writers, 1, "frames of the first still wait");
    while let NextFrame::Due { .. } = injection.next(Instant::now()) {}
    assert_eq!((injection.status().writers, injection.status().queued_bytes), (0, 0));
}

#[test]
fn the_end_of_the_capture_drops_what_waits_and_is_told() {
    let injection = running("1");
    let mut writer = injection.writer().unwrap();
    let bytes = savefile(&[MS, 3_600_000 * MS, 3_600_001 * MS], 60);
    writer.write(None, &bytes).unwrap();
    assert!(matches!(injection.next(Instant::now()), NextFrame::Due { .. }));
    assert!(matches!(injection.next(Instant::now()), NextFrame::At(_)));
    injection.end();
    assert_eq!(injection.status().dropped_packets, 2);
    assert!(writer.has_room(), "it need not wait for the error");
    assert_eq!(writer.write(None, b""), Err(InjectionError::Ended));
    assert_eq!(injection.writer().unwrap_err(), InjectionError::NotRunning);
    injection.resume();
    assert!(injection.may_log() && !injection.may_log(), "once a second");
    let all: Vec<_> = std::iter::repeat_with(|| injection.writer()).take(WRITERS).collect();
    assert!(all.iter().all(Result::is_ok));
    assert_eq!(injection.writer().unwrap_err(), InjectionError::TooMany);
}
