//! Sources that come and go: FIFOs with their writers, and interfaces.
//!
//! Each wait is for a condition, with a deadline that ends a failed test.
#![expect(clippy::cast_possible_truncation, reason = "small numbers of the test's own making")]

mod support;
mod wait;

use std::fs::{File, OpenOptions};
use std::io::{Read, Write};
use std::path::{Path, PathBuf};
use std::process::Command;
use std::sync::Arc;

use capture::cursor::{Begin, Cursor, ReadOutcome, SavefileFormat};
use capture::filter::FilterError;
use capture::pipeline::{Capture, CaptureError, CaptureState, Spec, counters};
use capture::source::{SourceError, SourceName};
use frames::Format as Variety;
use frames::pcapng::{self, IF_NAME, IF_TSRESOL};
use support::{EPOCH, Parser, data, directory};
use wait::wait_until;

fn spec(directory: &Path, source: SourceName, filter: Option<&str>) -> Spec {
    Spec {
        alias: "test".to_owned(),
        source,
        filter: filter.map(str::to_owned),
        snaplen: 262_144,
        promiscuous: true,
        precision: protocol::time::Precision::Nano,
        ring_size: 4 << 20,
        is_default_ring: false,
        kernel_buffer: None,
        backend: capture::source::InterfaceBackend::default(),
        workers: capture::source::Workers::ONE,
        inject_speed: capture::injection::InjectSpeed::default(),
        export_keys: true,
        ring_dir: directory.to_owned(),
        flows: capture::flow::FlowOptions::default(),
    }
}

fn stored(capture: &Capture) -> u64 {
    let (packets, _) = counters(&**capture.store());
    assert_eq!(packets.seen, packets.stored + packets.dropped_kernel + packets.dropped_oversize);
    packets.stored
}

/// Numbers of the retained packets, each checked against [`packet`].
fn numbers(capture: &Capture) -> Vec<u64> {
    let store = &**capture.store();
    let mut cursor = Cursor::new(store, SavefileFormat::Pcap, Begin::Oldest, false);
    let mut parser = Parser::new(false);
    parser.any_snaplen = true;
    parser.feed(&support::drain(&mut cursor, store, 1 << 20).0);
    parser.packets.iter().for_each(support::Packet::check);
    parser.packets.iter().map(|packet| packet.number).collect()
}

/// Nanoseconds, in this machine's byte order.
const NATIVE: Variety = Variety {
    nanoseconds: true,
    big_endian: cfg!(target_endian = "big"),
    link_type: 1,
    snaplen: 65_535,
};

/// A packet with its number in its time stamp.
fn packet(style: Variety, number: u64, len: usize) -> Vec<u8> {
    let mut record = Vec::new();
    style.append(&mut record, EPOCH + number, &data(number, len), len + 1);
    record
}

fn savefile(style: Variety, numbers: &[u64]) -> Vec<u8> {
    let mut file = style.header();
    for &number in numbers {
        file.extend(packet(style, number, 100 + number as usize % 50));
    }
    file
}

/// Options of an interface with times in nanoseconds.
const NANOSECONDS: (u16, &[u8]) = (IF_TSRESOL, &[9]);

/// A pcapng file with one interface and these packets.
fn pcapng(numbers: &[u64]) -> Vec<u8> {
    pcapng_of(&[], numbers)
}

/// A pcapng file with these interfaces, or one without a name, and these packets of the first.
fn pcapng_of(names: &[&str], numbers: &[u64]) -> Vec<u8> {
    let mut file = pcapng::section(&[]);
    for name in names {
        let options = [NANOSECONDS, (IF_NAME, name.as_bytes())];
        file.extend(pcapng::interface(1, 262_144, &options));
    }
    if names.is_empty() {
        file.extend(pcapng::interface(1, 262_144, &[NANOSECONDS]));
    }
    for &number in numbers {
        file.extend(pcapng::packet(0, EPOCH + number, &data(number, 64), 65, &[]));
    }
    file
}

fn fifo(directory: &Path) -> PathBuf {
    let path = directory.join("fifo");
    nix::unistd::mkfifo(&path, nix::sys::stat::Mode::S_IRWXU).unwrap();
    path
}

/// Opens a FIFO without waiting for a reader: one must exist already.
fn writer(path: &Path) -> File {
    use std::os::unix::fs::OpenOptionsExt;
    let file = OpenOptions::new().write(true).custom_flags(libc::O_NONBLOCK).open(path);
    let file = file.expect("the FIFO has a reader");
    // From here on with the usual flags of a writer.
    nix::fcntl::fcntl(&file, nix::fcntl::FcntlArg::F_SETFL(nix::fcntl::OFlag::empty())).unwrap();
    file
}

fn start(directory: &Path, path: &Path, filter: Option<&str>) -> Arc<Capture> {
    let source = SourceName::Stream(path.to_owned());
    Capture::start_new(spec(directory, source, filter)).unwrap().capture
}

fn error(capture: &Capture) -> String {
    capture.condition().error.unwrap_or_default()
}

#[test]
fn writers_come_and_go_in_one_capture() {
    let directory = directory();
    let path = fifo(directory.path());
    let capture = start(directory.path(), &path, None);
    assert_eq!(capture.condition().state, CaptureState::Pending);
    // A reader waits before the link type is known.
    let store = &**capture.store();
    let mut early = Cursor::new(store, SavefileFormat::Pcap, Begin::Next, false);
    assert_eq!(early.read(store, 100, &mut |_| Ok(())).unwrap(), ReadOutcome::Empty);

    let mut first = writer(&path);
    first.write_all(&NATIVE.header()).unwrap();
    wait_until("the header is known", || capture.condition().state == CaptureState::Running);
    for number in [1, 2] {
        first.write_all(&packet(NATIVE, number, 300)).unwrap();
        wait_until("each is stored as it comes", || stored(&capture) == number);
    }
    // The writer leaves in the middle of a record.
    first.write_all(&packet(NATIVE, 3, 300)[..200]).unwrap();
    drop(first);
    wait_until("the missing bytes are reported", || {
        error(&capture).contains("ended inside a record")
    });
    assert_eq!(capture.condition().state, CaptureState::Running);

    // Another writer starts over, as from a different machine and program.
    let other = Variety { big_endian: true, nanoseconds: false, ..NATIVE };
    let mut second = writer(&path);
    second.write_all(&other.header()).unwrap();
    second.write_all(&packet(other, 4_000, 80)).unwrap();
    wait_until("the next is stored", || stored(&capture) == 3);
    assert_eq!(error(&capture), "", "the error is gone");
    second.write_all(&[0; 9]).unwrap();
    drop(second);
    wait_until("9 bytes are dropped", || error(&capture).contains("9 bytes dropped"));

    // A third writer sends single bytes.
    let mut third = writer(&path);
    for byte in savefile(NATIVE, &[5_000, 5_001]) {
        third.write_all(&[byte]).unwrap();
    }
    wait_until("the last is stored", || stored(&capture) == 5);
    assert_eq!(numbers(&capture), [1, 2, 4_000, 5_000, 5_001]);
    let mut parser = Parser::new(false);
    parser.any_snaplen = true;
    parser.feed(&support::drain(&mut early, store, 1 << 20).0);
    assert_eq!(parser.packets.len(), 5, "one who was there before the header");
}

/// Sends a valid file, which must be stored whether or not the departure of the previous writer was
/// seen.
fn write_well(capture: &Capture, path: &Path, file: &[u8]) {
    let before = stored(capture);
    writer(path).write_all(file).unwrap();
    wait_until("a good writer is taken again", || stored(capture) > before);
}

#[test]
fn writers_in_quick_succession_lose_nothing() {
    let directory = directory();
    let path = fifo(directory.path());
    let capture = start(directory.path(), &path, None);
    let wanted: Vec<u64> = (1..=200).collect();
    for number in &wanted {
        writer(&path).write_all(&savefile(NATIVE, &[*number])).unwrap();
    }
    wait_until("all are stored", || stored(&capture) == 200);
    assert_eq!(numbers(&capture), wanted);
    assert_eq!(error(&capture), "");
}

#[test]
fn an_unsuitable_stream_is_refused_with_a_reason_and_the_next_one_read() {
    let directory = directory();
    let path = fifo(directory.path());
    let capture = start(directory.path(), &path, None);
    write_well(&capture, &path, &savefile(NATIVE, &[1]));
    let refused = [
        (savefile(Variety { link_type: 101, ..NATIVE }, &[7]), "RAW"),
        (b"GET / HTTP/1.1\r\n\r\n".repeat(20_000), "fifo"),
        ([NATIVE.header(), vec![0xff; 64]].concat(), "fifo"),
    ];
    for (round, (file, word)) in refused.into_iter().enumerate() {
        let before = stored(&capture);
        {
            let mut bad = writer(&path);
            // The pipe never breaks, however long this continues.
            bad.write_all(&file).unwrap();
            bad.write_all(&file).unwrap();
            wait_until("it is refused", || error(&capture).contains(word));
        }
        assert_eq!(stored(&capture), before, "nothing of it is stored");
        assert_eq!(capture.condition().state, CaptureState::Running);
        let number = 10 + round as u64;
        write_well(&capture, &path, &savefile(NATIVE, &[number]));
        assert_eq!(error(&capture), "");
        assert_eq!(numbers(&capture).last(), Some(&number));
    }
}

#[test]
fn the_interfaces_of_a_pcapng_stream_are_named() {
    for names in [&["eth7"][..], &["a", "b"], &[]] {
        let directory = directory();
        let path = fifo(directory.path());
        let capture = start(directory.path(), &path, None);
        let mut writer = writer(&path);
        let file = pcapng_of(names, &[1]);
        writer.write_all(&file).unwrap();
        wait_until("it is stored", || stored(&capture) == 1);
        let named = |capture: &Capture| -> Vec<String> {
            let interfaces = (0..).map_while(|id| capture.store().interface(id));
            interfaces.map(|interface| interface.name.unwrap()).collect()
        };
        // An interface without a name gets the name of the source.
        let own = format!("stream:{}", path.display());
        let mut wanted: Vec<_> = names.iter().map(|name| (*name).to_owned()).collect();
        if names.is_empty() {
            wanted.push(own);
        }
        assert_eq!(named(&capture), wanted);
        // Later writers add their interfaces, because readers may have seen the others.
        writer.write_all(&pcapng_of(&["other"], &[2])).unwrap();
        wait_until("it is stored", || stored(&capture) == 2);
        wanted.push("other".to_owned());
        assert_eq!(named(&capture), wanted);
    }
}

#[test]
fn pcapng_comes_through_a_fifo_too() {
    let directory = directory();
    let path = fifo(directory.path());
    let capture = start(directory.path(), &path, None);
    let mut writer = writer(&path);
    let file = pcapng(&[1, 2, 3]);
    let (begin, end) = file.split_at(file.len() - 30);
    writer.write_all(begin).unwrap();
    wait_until("whole blocks are stored", || stored(&capture) == 2);
    writer.write_all(end).unwrap();
    wait_until("and the rest", || stored(&capture) == 3);
    assert_eq!(numbers(&capture), [1, 2, 3]);
}

#[test]
fn packets_of_another_link_type_are_left_out_and_reported() {
    let directory = directory();
    let path = fifo(directory.path());
    let capture = start(directory.path(), &path, None);
    let mut file = pcapng(&[1, 2]);
    let second = pcapng(&[3, 4, 5]);
    // Skip the section header of 28 bytes. The file's interface becomes the second one, of type
    // RAW.
    let mut blocks = second[28..].to_vec();
    blocks[8] = 101;
    for packet in 0..3 {
        blocks[32 + packet * 96 + 8] = 1;
    }
    file.extend(blocks);
    writer(&path).write_all(&file).unwrap();
    wait_until("the packets left out are reported", || {
        error(&capture).ends_with("3 packets left out, not of link type EN10MB as the first")
    });
    assert_eq!(numbers(&capture), [1, 2]);
    capture.stop();
    assert!(error(&capture).contains("3 packets left out"), "they still are");
}

#[test]
fn neither_readers_nor_a_full_ring_delay_a_writer() {
    let directory = directory();
    let path = fifo(directory.path());
    let capture = start(directory.path(), &path, None);
    let store = &**capture.store();
    let mut idle = Cursor::new(store, SavefileFormat::Pcap, Begin::Oldest, false);
    let mut writer = writer(&path);
    writer.write_all(&NATIVE.header()).unwrap();
    // Five times the size of the ring, and twenty times that of a pipe.
    const COUNT: u64 = 400;
    for number in 1..=COUNT {
        writer.write_all(&packet(NATIVE, number, 50_000)).unwrap();
    }
    wait_until("all of it is stored", || stored(&capture) == COUNT);
    let (packets, _) = counters(store);
    assert!(packets.overwritten > 200);
    let mut parser = Parser::new(false);
    parser.any_snaplen = true;
    parser.feed(&support::drain(&mut idle, store, 1 << 20).0);
    assert_eq!(parser.packets.last().unwrap().number, COUNT);
    let progress = idle.progress(store);
    assert_eq!((progress.lost, progress.lag), (packets.overwritten, 0));
}

#[test]
fn a_writer_is_not_held_up_while_the_capture_is_stopped() {
    let directory = directory();
    let path = fifo(directory.path());
    let capture = start(directory.path(), &path, None);
    let mut writer = writer(&path);
    writer.write_all(&savefile(NATIVE, &[1])).unwrap();
    wait_until("it is stored", || stored(&capture) == 1);
    capture.stop();
    // Far more than a pipe holds: this would block for ever.
    for number in 2..=2_000 {
        writer.write_all(&packet(NATIVE, number, 2_000)).unwrap();
    }
    assert_eq!(stored(&capture), 1, "packets sent while it is stopped are not kept");
    assert_eq!(capture.condition().state, CaptureState::Stopped);
    capture.start().unwrap();
    writer.write_all(&packet(NATIVE, 2_001, 10)).unwrap();
    wait_until("it goes on", || numbers(&capture).last() == Some(&2_001));
    // Bytes that were still in the pipe, at most a megabyte, were stored after the restart.
    assert!(stored(&capture) < 600, "{} stored", stored(&capture));
}

#[test]
fn stop_start_and_clear() {
    let directory = directory();
    let path = fifo(directory.path());
    let capture = start(directory.path(), &path, None);
    let store = &**capture.store();
    let mut live = Cursor::new(store, SavefileFormat::Pcap, Begin::Next, false);
    let mut writer = writer(&path);
    writer.write_all(&savefile(NATIVE, &[1, 2])).unwrap();
    wait_until("both are stored", || stored(&capture) == 2);

    capture.stop();
    assert_eq!(capture.condition().state, CaptureState::Stopped);
    assert!(store.bounds().ended);
    assert_eq!(support::drain(&mut live, store, 1 << 20).1, ReadOutcome::End);
    // The pipe does not break, and nothing is lost, not even half a record.
    let record = packet(NATIVE, 3, 200);
    writer.write_all(&record[..100]).unwrap();
    assert_eq!(stored(&capture), 2);
    capture.start().unwrap();
    capture.start().unwrap();
    writer.write_all(&record[100..]).unwrap();
    wait_until("the packets sent in between are stored", || stored(&capture) == 3);
    assert_eq!(capture.condition().state, CaptureState::Running);
    assert!(!store.bounds().ended);
    assert_eq!(numbers(&capture), [1, 2, 3]);

    assert!(capture.clear());
    wait_until("nothing is retained", || counters(store).0.retained == 0);
    assert_eq!((stored(&capture), counters(store).0.overwritten), (3, 3));
    writer.write_all(&packet(NATIVE, 4, 10)).unwrap();
    wait_until("the next is stored", || stored(&capture) == 4);
    assert_eq!(numbers(&capture), [4]);
    capture.stop();
    assert!(capture.clear(), "also while it is stopped");
    assert_eq!(counters(store).0.retained, 0);

    // The next process continues where this one was.
    drop(capture);
    let again = start(directory.path(), &path, None);
    assert_eq!((stored(&again), counters(&**again.store()).0.retained), (4, 0));
}

#[test]
fn a_filter_is_compiled_for_the_link_type_of_the_stream() {
    let directory = directory();
    let path = fifo(directory.path());
    let source = SourceName::Stream(path.clone());
    let bad = Capture::start_new(spec(directory.path(), source, Some("tcp prot 80")));
    assert!(matches!(
        bad,
        Err(CaptureError::Source(SourceError::Filter(FilterError::Compile { .. })))
    ));
    assert_eq!(std::fs::read_dir(directory.path()).unwrap().count(), 1, "no ring is left");
    let capture = start(directory.path(), &path, Some("less 110"));
    let mut writer = writer(&path);
    // Lengths on the wire: one more than 100 + number % 50.
    writer.write_all(&savefile(NATIVE, &[1, 30, 5, 40, 9])).unwrap();
    writer.write_all(&packet(NATIVE, 50, 20)).unwrap();
    wait_until("the last is stored", || numbers(&capture).last() == Some(&50));
    assert_eq!(numbers(&capture), [1, 5, 9, 50]);
}

#[test]
fn a_file_that_is_not_a_fifo_is_refused() {
    let directory = directory();
    let path = directory.path().join("file");
    std::fs::write(&path, b"").unwrap();
    for (source, word) in [
        (SourceName::Stream(path.clone()), "not a FIFO"),
        (SourceName::Stream(directory.path().join("none")), "no such FIFO"),
        (SourceName::Interface("nosuchif0".to_owned()), "no such interface (have: "),
    ] {
        let error = Capture::start_new(spec(directory.path(), source, None)).unwrap_err();
        assert!(error.to_string().contains(word), "{error}");
    }
    assert!(!directory.path().join("test.ring").exists());
}

/// A pair of connected interfaces, removed when it is dropped.
struct Pair {
    near: String,
    far: String,
}

impl Pair {
    fn new(tag: &str) -> Option<Self> {
        if !nix::unistd::geteuid().is_root() {
            eprintln!("skipped: needs root, for interfaces of its own");
            return None;
        }
        let id = std::process::id();
        let pair = Self { near: format!("pf{tag}{id}n"), far: format!("pf{tag}{id}f") };
        pair.create();
        Some(pair)
    }

    fn create(&self) {
        let Self { near, far } = self;
        ip(&["link", "add", near, "type", "veth", "peer", "name", far]);
        for name in [near, far] {
            // Only the frames of the test are sent. Without IPv6 the file does not exist, and need
            // not be set.
            let _ = std::fs::write(format!("/proc/sys/net/ipv6/conf/{name}/disable_ipv6"), "1");
            ip(&["link", "set", name, "up"]);
        }
    }

    fn remove(&self) {
        ip(&["link", "del", &self.near]);
    }

    fn send(&self, frames: &[Vec<u8>]) {
        let mut socket = pcap::Capture::from_device(self.far.as_str()).unwrap().open().unwrap();
        for frame in frames {
            socket.sendpacket(frame.as_slice()).unwrap();
        }
    }
}

impl Drop for Pair {
    fn drop(&mut self) {
        // The interfaces are gone already if the test failed between removing and creating them.
        let _ = Command::new("ip").args(["link", "del", &self.near]).output();
    }
}

fn ip(arguments: &[&str]) {
    let output = Command::new("ip").args(arguments).output().unwrap();
    assert!(output.status.success(), "ip {arguments:?}: {output:?}");
}

/// A frame with these tags around a UDP datagram to `port`; `mark` is its payload.
fn frame(tags: &[u16], port: u16, mark: u32) -> Vec<u8> {
    let tags: Vec<_> = tags.iter().map(|tag| (*tag, 10)).collect();
    let payload = [&mark.to_be_bytes()[..], &[0x55; 28]].concat();
    let datagram = frames::udp_without_checksum(40_000, port, &payload);
    let packet = frames::ipv4(([10, 9, 8, 1], [10, 9, 8, 2]), frames::UDP, &datagram);
    frames::ethernet(&tags, frames::IPV4, &packet)
}

/// The retained frames.
fn frames(capture: &Capture) -> Vec<Vec<u8>> {
    let store = &**capture.store();
    let chunk = store.pin(store.bounds().oldest_chunk).unwrap();
    capture::record::PacketRecords::new(chunk.bytes()).map(|record| record.data.to_vec()).collect()
}

#[test]
fn an_interface_is_filtered_through_tags_and_stopped_without_loss() {
    let Some(pair) = Pair::new("a") else { return };
    let directory = directory();
    let source = SourceName::Interface(pair.near.clone());
    let spec = spec(directory.path(), source, Some("udp port 7777"));
    let capture = Capture::start_new(spec).unwrap().capture;
    assert_eq!(capture.condition().state, CaptureState::Running);
    let tags: [&[u16]; 4] = [&[], &[0x8100], &[0x88a8, 0x8100], &[0x8100, 0x8100]];
    let wanted: Vec<Vec<u8>> =
        (0..).zip(tags).map(|(mark, tags)| frame(tags, 7_777, mark)).collect();
    let mut sent = Vec::new();
    for (wanted, tags) in wanted.iter().zip(tags) {
        sent.push(frame(tags, 9_999, 0));
        sent.push(wanted.clone());
    }
    pair.send(&sent);
    wait_until("all that match", || stored(&capture) as usize >= wanted.len());
    assert_eq!(frames(&capture), wanted, "as they were sent, tags and all");

    // Frames sent before the order to stop are stored after it.
    let mut expected = stored(&capture);
    for round in 0..5_u32 {
        let burst: Vec<_> = (0..40 + round).map(|mark| frame(&[], 7_777, mark)).collect();
        pair.send(&burst);
        capture.stop();
        expected += burst.len() as u64;
        assert_eq!(stored(&capture), expected, "round {round}");
        assert_eq!(capture.condition().state, CaptureState::Stopped);
        pair.send(&burst);
        capture.start().unwrap();
        assert_eq!(stored(&capture), expected, "no packet sent in between");
    }
    let (packets, _) = counters(&**capture.store());
    assert_eq!((packets.dropped_kernel, packets.dropped_interface), (0, 0));
}

#[test]
fn an_interface_that_goes_away_is_waited_for() {
    let Some(pair) = Pair::new("b") else { return };
    let directory = directory();
    let source = SourceName::Interface(pair.near.clone());
    let capture = Capture::start_new(spec(directory.path(), source, Some("udp"))).unwrap().capture;
    pair.send(&[frame(&[], 1, 1)]);
    wait_until("the first is stored", || stored(&capture) == 1);
    for round in 0..2 {
        pair.remove();
        wait_until("its loss is noticed", || capture.condition().state == CaptureState::Retrying);
        wait_until("and said", || error(&capture).contains(&pair.near));
        assert!(!capture.store().bounds().ended, "readers of streams wait as well");
        if round == 1 {
            assert!(capture.clear(), "orders are obeyed in between");
            wait_until("it is clear", || counters(&**capture.store()).0.retained == 0);
        }
        pair.create();
        wait_until("it is found again", || capture.condition().state == CaptureState::Running);
        assert_eq!(error(&capture), "");
        let before = stored(&capture);
        pair.send(&[frame(&[], 1, 2)]);
        wait_until("it goes on", || stored(&capture) == before + 1);
    }
    pair.remove();
    wait_until("its loss is noticed", || capture.condition().state == CaptureState::Retrying);
    capture.stop();
    assert_eq!(capture.condition().state, CaptureState::Stopped);
    assert!(matches!(capture.start(), Err(CaptureError::Source(SourceError::NoInterface { .. }))));
    assert_eq!(capture.condition().state, CaptureState::Stopped);
    pair.create();
    capture.start().unwrap();
    assert_eq!(capture.condition().state, CaptureState::Running);
}

/// The pages of a ring are prepared in the background, and that must not keep the ring open.
#[test]
fn a_ring_is_free_as_soon_as_its_capture_is_gone() {
    let directory = directory();
    let path = fifo(directory.path());
    for _ in 0..20 {
        let source = SourceName::Stream(path.clone());
        let spec = Spec { ring_size: 64 << 20, ..spec(directory.path(), source, None) };
        drop(Capture::start_new(spec).unwrap());
        let ring = File::open(directory.path().join("test.ring")).unwrap();
        let lock = nix::fcntl::FlockArg::LockExclusiveNonblock;
        drop(nix::fcntl::Flock::lock(ring, lock).expect("no process has it"));
    }
}

#[test]
fn the_writer_gets_an_error_when_its_fifo_is_no_longer_captured() {
    let directory = directory();
    let path = fifo(directory.path());
    let capture = start(directory.path(), &path, None);
    let mut writer = writer(&path);
    writer.write_all(&savefile(NATIVE, &[1])).unwrap();
    wait_until("it is stored", || stored(&capture) == 1);
    drop(capture);
    let error = writer.write_all(&packet(NATIVE, 2, 10)).unwrap_err();
    assert_eq!(error.kind(), std::io::ErrorKind::BrokenPipe);
    // The lock on the ring is released too.
    let mut ring = File::open(directory.path().join("test.ring")).unwrap();
    nix::fcntl::Flock::lock(ring.try_clone().unwrap(), nix::fcntl::FlockArg::LockExclusiveNonblock)
        .unwrap();
    let mut magic = [0; 8];
    ring.read_exact(&mut magic).unwrap();
    assert_eq!(&magic, b"pcapfsR1");
}
