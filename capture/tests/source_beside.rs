//! The data that a pcapng stream has beside packets: a capture of the stream has the same data as a
//! capture of the same savefile.

mod support;
mod testdata;
mod wait;

use std::fs::OpenOptions;
use std::io::Write;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::AtomicBool;

use capture::cursor::snapshot::{Snapshot, SnapshotExtent};
use capture::cursor::{Begin, Cursor, ReadOutcome, SavefileFormat};
use capture::pipeline::{Capture, Spec, counters};
use capture::savefile::Savefile;
use capture::source::SourceName;
use capture::store::Store;
use frames::pcapng::{self, COMMENT, CUSTOM, IF_NAME, IF_TSRESOL, block, option};
use support::{EPOCH, collect, data, directory};
use wait::wait_until;

fn start(directory: &Path) -> (Arc<Capture>, PathBuf) {
    start_with(directory, true)
}

fn start_with(directory: &Path, export_keys: bool) -> (Arc<Capture>, PathBuf) {
    let path = directory.join("fifo");
    if !path.exists() {
        nix::unistd::mkfifo(&path, nix::sys::stat::Mode::S_IRWXU).unwrap();
    }
    let spec = Spec {
        alias: "test".to_owned(),
        source: SourceName::Stream(path.clone()),
        filter: None,
        snaplen: 262_144,
        promiscuous: true,
        precision: protocol::time::Precision::Nano,
        ring_size: 32 << 20,
        is_default_ring: false,
        kernel_buffer: None,
        backend: capture::source::InterfaceBackend::default(),
        workers: capture::source::Workers::ONE,
        inject_speed: capture::injection::InjectSpeed::default(),
        export_keys,
        ring_dir: directory.to_owned(),
        flows: capture::flow::FlowOptions::default(),
    };
    (Capture::start_new(spec).unwrap().capture, path)
}

/// Writes a file into a FIFO, and waits until `stored` packets are stored in total.
fn send(capture: &Capture, path: &Path, file: &[u8], stored: u64) {
    OpenOptions::new().write(true).open(path).unwrap().write_all(file).unwrap();
    wait_until("all is stored", || counters(&**capture.store()).0.stored == stored);
}

fn error(capture: &Capture) -> String {
    capture.condition().error.unwrap_or_default()
}

fn read(store: &dyn Store) -> Vec<u8> {
    let mut cursor = Cursor::new(store, SavefileFormat::Pcapng, Begin::Oldest, false);
    support::drain(&mut cursor, store, 1 << 20).0
}

fn u32_at(bytes: &[u8], at: usize) -> u32 {
    u32::from_ne_bytes(bytes[at..at + 4].try_into().unwrap())
}

/// The blocks of a file: type and body.
fn blocks(mut bytes: &[u8]) -> Vec<(u32, &[u8])> {
    let mut found = Vec::new();
    while !bytes.is_empty() {
        let len = u32_at(bytes, 4) as usize;
        found.push((u32_at(bytes, 0), &bytes[8..len - 4]));
        bytes = &bytes[len..];
    }
    found
}

fn name(mut options: &[u8]) -> Option<String> {
    while options.len() >= 4 {
        let [code, len] = [0, 2].map(|at| u16::from_ne_bytes([options[at], options[at + 1]]));
        let value = &options[4..4 + usize::from(len)];
        if code == 2 {
            return Some(String::from_utf8_lossy(value).into_owned());
        }
        options = &options[4 + usize::from(len).next_multiple_of(4)..];
    }
    None
}

/// The properties of a packet that must be the same in a savefile and in a stream.
#[derive(Debug)]
struct Told {
    /// Name of its interface.
    interface: Option<String>,
    /// Bodies of the blocks before it.
    blocks: Vec<Vec<u8>>,
    /// The body of its own block after the number of the interface.
    body: Vec<u8>,
}

fn told(bytes: &[u8]) -> Vec<Told> {
    let (mut names, mut before, mut told) = (Vec::new(), Vec::new(), Vec::new());
    for (kind, body) in blocks(bytes) {
        match kind {
            0x0a0d_0d0a => {}
            1 => names.push(name(&body[8..])),
            6 => {
                let interface = names[u32_at(body, 0) as usize].clone();
                let blocks = std::mem::take(&mut before);
                told.push(Told { interface, blocks, body: body[4..].to_vec() });
            }
            _ => before.push(body.to_vec()),
        }
    }
    told
}

/// A read at any offset of the file gives the same bytes as reading straight on.
fn check_seeks(store: &dyn Store) {
    let whole = read(store);
    let extent = SnapshotExtent::new(store, SavefileFormat::Pcapng);
    assert_eq!(extent.size(store), whole.len() as u64);
    let mut snapshot = Snapshot::new(store, extent);
    for at in (0..whole.len()).rev().step_by(1 + whole.len() / 2_000) {
        let mut bytes = Vec::new();
        let outcome = snapshot.read(store, at as u64, 300, &mut collect(&mut bytes)).unwrap();
        assert!(matches!(outcome, ReadOutcome::Sent(_)));
        assert!(bytes[..] == whole[at..at + bytes.len()], "at {at} of {}", whole.len());
    }
}

/// Checks that a stream of the file has the same contents as the file. Returns whether both could
/// be compared.
fn check_file(path: &Path) -> bool {
    let Ok(savefile) = Savefile::open(path, capture::savefile::SavefileOptions::default()) else {
        return false;
    };
    savefile.index(&AtomicBool::new(false));
    let stored = savefile.bounds().next.number - 1;
    let file = std::fs::read(path).unwrap();
    let is_pcapng = u32_at(&file, 0) == 0x0a0d_0d0a;
    if !is_pcapng || stored == 0 || savefile.foreign_packets() > 0 || file.len() > 16 << 20 {
        return false;
    }
    let directory = directory();
    let (capture, fifo) = start(directory.path());
    send(&capture, &fifo, &file, stored);
    let (wanted, found) = (told(&read(&savefile)), told(&read(&**capture.store())));
    assert_eq!(wanted.len(), found.len(), "{}", path.display());
    for (index, (wanted, found)) in wanted.iter().zip(&found).enumerate() {
        let same = (&wanted.blocks, &wanted.body) == (&found.blocks, &found.body);
        let is_named = wanted.interface.is_none() || wanted.interface == found.interface;
        assert!(same && is_named, "{}: packet {index}: {wanted:?}, not {found:?}", path.display());
    }
    check_seeks(&**capture.store());
    true
}

#[test]
fn a_stream_keeps_what_a_savefile_keeps() {
    let folders = testdata::folders(&["testdata", "faults"]);
    let files: Vec<_> = folders.iter().flat_map(|folder| testdata::captures(folder)).collect();
    let compared = files.iter().filter(|path| check_file(path)).count();
    eprintln!("{compared} of {} captures compared", files.len());
    assert!(compared > 0 || files.is_empty());
}

/// A section with a comment.
fn section(comment: &str) -> Vec<u8> {
    pcapng::section(&[(COMMENT, comment.as_bytes())])
}

/// An interface with times in nanoseconds.
fn interface(name: &str) -> Vec<u8> {
    pcapng::interface(1, 0, &[(IF_NAME, name.as_bytes()), (IF_TSRESOL, &[9])])
}

fn packet(interface: u32, number: u64, comment: &str) -> Vec<u8> {
    let comment = (!comment.is_empty()).then_some((COMMENT, comment.as_bytes()));
    pcapng::packet(interface, EPOCH + number, &data(number, 64), 65, comment.as_slice())
}

/// Two interfaces captured by one program, as by `dumpcap -i a -i b`.
fn two_interfaces(first: u64) -> Vec<u8> {
    let packets = (0..4).map(|index| packet(u32::try_from(index % 2).unwrap(), first + index, ""));
    [section("of two"), interface("a"), interface("b"), packets.collect::<Vec<_>>().concat()]
        .concat()
}

fn names(capture: &Capture) -> Vec<String> {
    names_in(&read(&**capture.store()))
}

fn names_in(bytes: &[u8]) -> Vec<String> {
    told(bytes).into_iter().map(|packet| packet.interface.unwrap_or_default()).collect()
}

#[test]
fn interfaces_of_a_stream_stay_apart_after_a_restart_too() {
    let directory = directory();
    let (capture, fifo) = start(directory.path());
    send(&capture, &fifo, &two_interfaces(1), 4);
    assert_eq!(names(&capture), ["a", "b", "a", "b"]);
    let before = read(&**capture.store());
    drop(capture);
    let (capture, fifo) = start(directory.path());
    assert_eq!(read(&**capture.store()), before);
    let mut live = Cursor::new(&**capture.store(), SavefileFormat::Pcapng, Begin::Next, false);
    // The same interfaces come back, in another order and with a third one; then plain pcap.
    let other = [section("of two"), interface("b"), interface("c")].concat();
    let other = [other, packet(0, 5, ""), packet(1, 6, "")].concat();
    send(&capture, &fifo, &other, 6);
    let mut pcap = frames::Format::default().header();
    frames::Format::default().append(&mut pcap, EPOCH + 7, &data(7, 64), 65);
    send(&capture, &fifo, &pcap, 7);
    let own = format!("stream:{}", fifo.display());
    assert_eq!(names(&capture), ["a", "b", "a", "b", "b", "c", &own]);
    let live = support::drain(&mut live, &**capture.store(), 1 << 20).0;
    assert_eq!(names_in(&live), ["b", "c", &own]);
    let described = blocks(&read(&**capture.store())).iter().filter(|(kind, _)| *kind == 1).count();
    assert_eq!(described, 4);
    check_seeks(&**capture.store());
    assert_eq!(error(&capture), "");
}

#[test]
fn comments_of_sections_are_kept() {
    let directory = directory();
    let (capture, fifo) = start(directory.path());
    let file = |comment: &str, number| {
        [section(comment), interface("a"), packet(0, number, "own")].concat()
    };
    send(&capture, &fifo, &file("the first", 1), 1);
    send(&capture, &fifo, &file("the first", 2), 2);
    send(&capture, &fifo, &[file("another", 3), file("one after it", 4)].concat(), 4);
    let bytes = read(&**capture.store());
    let has =
        |bytes: &[u8], text: &str| bytes.windows(text.len()).any(|part| part == text.as_bytes());
    let (_, header) = blocks(&bytes)[0];
    assert!(has(header, "the first"));
    let told = told(&bytes);
    for (packet, said) in told.iter().zip(["own", "own", "another", "one after it"]) {
        assert!(has(&packet.body, said) && has(&packet.body, "own"), "{said}");
        assert!(!has(&packet.body, "the first"), "it is in the header");
    }
}

/// Statistics of an interface.
fn statistics(interface: u32, received: u64) -> Vec<u8> {
    let fixed = [interface, 0, 7].map(u32::to_ne_bytes).concat();
    let options = [option(1, b"so far"), option(4, &received.to_ne_bytes()), option(0, b"")];
    block(5, &[fixed, options.concat()].concat())
}

#[test]
fn statistics_of_a_stream_are_of_the_interface_that_the_ring_has() {
    let directory = directory();
    let (capture, fifo) = start(directory.path());
    // Before the first packet, and after the last one of this writer.
    let first = [section(""), interface("a"), interface("b"), statistics(1, 10), statistics(2, 0)];
    let first = [first.concat(), packet(0, 1, ""), packet(1, 2, ""), statistics(0, 20)].concat();
    send(&capture, &fifo, &first, 2);
    let other = [section(""), interface("c"), interface("b"), statistics(1, 30), packet(0, 3, "")];
    send(&capture, &fifo, &other.concat(), 3);
    let bytes = read(&**capture.store());
    let (mut names, mut found) = (Vec::new(), Vec::new());
    for (kind, body) in blocks(&bytes) {
        match kind {
            1 => names.push(name(&body[8..]).unwrap()),
            5 => {
                let block = block(5, body);
                let of = u32_at(body, 0);
                let received = (10..40).step_by(10).find(|one| block == statistics(of, *one));
                found.push((names[of as usize].clone(), received.unwrap()));
            }
            _ => {}
        }
    }
    let wanted = [("b", 10), ("a", 20), ("b", 30)];
    assert_eq!(found, wanted.map(|(name, received)| (name.to_owned(), received)));
    check_seeks(&**capture.store());
    // Statistics of an interface that does not exist.
    wait_until("it is reported", || error(&capture).contains("1 block or comment left out"));
}

#[test]
fn notes_that_a_ring_cannot_keep_are_reported() {
    let directory = directory();
    let (capture, fifo) = start(directory.path());
    let mut file = section("");
    for index in 0..70 {
        file.extend(interface(&format!("if{index}")));
    }
    file.extend(packet(0, 1, "one"));
    // Longer than any block that is kept.
    file.extend(block(CUSTOM, &vec![7; 2 << 20]));
    file.extend(block(CUSTOM, b"kept"));
    file.extend(packet(69, 2, "two"));
    send(&capture, &fifo, &file, 2);
    wait_until("it is reported", || {
        error(&capture).ends_with(
            "1 block or comment left out: damaged, or without a packet or room in the ring; \
             6 interfaces taken for others, beyond the 64 that are told apart",
        )
    });
    let told = told(&read(&**capture.store()));
    assert_eq!(told[1].interface.as_deref(), Some("if63"));
    assert_eq!(told[1].blocks, [b"kept"]);
}

#[test]
fn secrets_are_in_no_file_if_they_are_not_to_be_given_out() {
    let directory = directory();
    let secrets = block(10, b"KSLT\x04\0\0\0CLIE");
    let parts = [section(""), secrets.clone(), interface("a"), block(CUSTOM, b"custom")];
    let file = [parts.concat(), packet(0, 1, "one"), secrets, packet(0, 2, "two")].concat();
    let path = directory.path().join("file");
    std::fs::write(&path, &file).unwrap();
    for (export_keys, wanted) in [(true, [2, 1]), (false, [1, 0])] {
        let without_keys = !export_keys;
        let options = capture::savefile::SavefileOptions { without_keys, ..Default::default() };
        let savefile = Savefile::open(&path, options).unwrap();
        savefile.index(&AtomicBool::new(false));
        assert_eq!(savefile.note(), None);
        check_seeks(&savefile);
        let (capture, fifo) = start_with(directory.path(), export_keys);
        send(&capture, &fifo, &file, 2);
        assert_eq!(error(&capture), "");
        for store in [&savefile, &**capture.store()] {
            let told = told(&read(store));
            assert_eq!(told.iter().map(|packet| packet.blocks.len()).collect::<Vec<_>>(), wanted);
        }
        drop(capture);
        std::fs::remove_file(directory.path().join("test.ring")).unwrap();
    }
}
