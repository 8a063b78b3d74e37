//! A savefile that another program is still writing. Readers that wait for the added packets, and
//! readers that come later, read them as if they had been there from the beginning.

mod savefile_encoder;
mod wait;

use std::fs::File as Output;
use std::io::Write;
use std::path::PathBuf;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread::{self, JoinHandle};

use capture::cursor::snapshot::SnapshotExtent;
use capture::cursor::{Begin, Cursor, ReadOutcome, SavefileFormat};
use capture::savefile::{Indexed, Savefile, SavefileOptions};
use capture::store::Store;
use proptest::prelude::*;
use savefile_encoder::{File, Item, Order, Packet, Resolution, any_pcap, any_pcapng, pcap, pcapng};
use tempfile::TempDir;
use wait::wait_until;

/// A file that is written bit by bit.
struct Written {
    _folder: TempDir,
    path: PathBuf,
    output: Output,
    len: usize,
}

impl Written {
    fn new() -> Self {
        let folder = TempDir::new().unwrap();
        let path = folder.path().join("grows.pcap");
        let output = Output::create(&path).unwrap();
        Self { _folder: folder, path, output, len: 0 }
    }

    fn to(&mut self, file: &File, len: usize) {
        self.output.write_all(&file.bytes[self.len..len]).unwrap();
        self.len = len;
    }
}

/// A savefile that is followed by a thread.
struct Followed {
    savefile: Arc<Savefile>,
    stop: Arc<AtomicBool>,
    thread: Option<JoinHandle<Indexed>>,
}

impl Followed {
    fn new(written: &Written) -> Self {
        let options = SavefileOptions { follow: true, ..SavefileOptions::default() };
        let savefile = Arc::new(Savefile::open(&written.path, options).unwrap());
        let stop = Arc::new(AtomicBool::new(false));
        let mut followed = Self { savefile, stop, thread: None };
        followed.start();
        followed
    }

    fn start(&mut self) {
        self.stop.store(false, Ordering::Relaxed);
        let (savefile, stop) = (Arc::clone(&self.savefile), Arc::clone(&self.stop));
        self.thread = Some(thread::spawn(move || savefile.index(&stop)));
    }

    fn stop(&mut self) -> Indexed {
        self.stop.store(true, Ordering::Relaxed);
        let thread = self.thread.take().unwrap();
        thread.thread().unpark();
        thread.join().unwrap()
    }

    fn wait_for(&self, packets: usize) {
        wait_until("the packets are there", || self.savefile.bounds().next.number > packets as u64);
    }
}

impl Drop for Followed {
    fn drop(&mut self) {
        if self.thread.is_some() {
            self.stop();
        }
    }
}

/// All bytes that a cursor can give now.
fn read(cursor: &mut Cursor, store: &dyn Store) -> Vec<u8> {
    let mut bytes = Vec::new();
    loop {
        let mut got = Vec::new();
        let mut send = |slices: &[std::io::IoSlice<'_>]| {
            slices.iter().for_each(|slice| got.extend_from_slice(slice));
            Ok(())
        };
        let outcome = cursor.read(store, 5_000, &mut send).unwrap();
        bytes.extend(got);
        if matches!(outcome, ReadOutcome::Empty | ReadOutcome::End) {
            return bytes;
        }
    }
}

fn all_of(store: &dyn Store, format: SavefileFormat) -> Vec<u8> {
    read(&mut Cursor::new(store, format, Begin::Oldest, false), store)
}

/// Packets whose records end within the first `len` bytes of the file.
fn packets(file: &File, len: usize) -> usize {
    file.packets.iter().filter(|packet| packet.end <= len).count()
}

fn check(file: &File, cuts: &[usize]) {
    let Some(first) = file.packets.first() else { return };
    let mut written = Written::new();
    // The bytes before the first packet determine the link type of the files.
    written.to(file, first.end);
    let mut followed = Followed::new(&written);
    let formats = [SavefileFormat::Pcap, SavefileFormat::Pcapng];
    let mut cursors =
        formats.map(|format| Cursor::new(&*followed.savefile, format, Begin::Oldest, false));
    let mut got = [Vec::new(), Vec::new()];
    let mut lens: Vec<usize> = cuts.iter().map(|cut| cut % file.bytes.len()).collect();
    lens.push(file.bytes.len());
    lens.sort_unstable();
    for (step, len) in lens.into_iter().enumerate() {
        if step % 3 == 2 {
            assert_eq!(followed.stop(), Indexed::Stopped);
            assert!(followed.savefile.bounds().ended);
        }
        if len > written.len {
            written.to(file, len);
        }
        if followed.thread.is_none() {
            assert!(followed.savefile.look_again().unwrap());
            followed.start();
        }
        followed.wait_for(packets(file, written.len));
        for (cursor, got) in cursors.iter_mut().zip(&mut got) {
            got.extend(read(cursor, &*followed.savefile));
        }
    }
    assert_eq!(followed.savefile.problem(), None);
    let whole = Savefile::open(&written.path, SavefileOptions::default()).unwrap();
    assert_eq!(whole.index(&AtomicBool::new(false)), Indexed::Finished);
    for (format, got) in formats.into_iter().zip(got) {
        let mut wanted = all_of(&whole, format);
        if format == SavefileFormat::Pcapng {
            // While more may come, blocks wait for the packet after them.
            wanted.truncate(wanted.len() - usize::try_from(whole.bounds().trailing).unwrap());
        }
        assert!(got == wanted, "{format:?} as it grew");
        assert!(got == all_of(&*followed.savefile, format), "{format:?} from the beginning");
    }
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(24))]

    #[test]
    fn records_added_to_a_pcap_are_read_wherever_it_was_cut(
        file in any_pcap(1..12),
        cuts in prop::collection::vec(any::<usize>(), 0..6),
    ) {
        check(&file, &cuts);
    }

    #[test]
    fn blocks_added_to_a_pcapng_are_read_wherever_it_was_cut(
        file in any_pcapng(1..20),
        cuts in prop::collection::vec(any::<usize>(), 0..6),
    ) {
        check(&file, &cuts);
    }
}

#[test]
fn blocks_after_the_last_packet_are_before_an_added_packet() {
    let order = Order { big: cfg!(target_endian = "little") };
    let packet = Packet { seconds: 7, nanoseconds: 0, more_on_the_wire: 0, data: vec![1; 20] };
    let interface = Item::Interface {
        link_type: 1,
        resolution: Resolution::Decimal(3),
        offset: Some(1),
        name: Some("eth0".to_owned()),
    };
    let statistics = Item::Statistics { interface: 0, packet: packet.clone() };
    let enhanced = Item::Enhanced { interface: 0, packet, comment: true };
    let custom = Item::Custom { words: 3 };
    let items = [interface, enhanced.clone(), statistics.clone(), custom, enhanced, statistics];
    let file = pcapng(order, &items);
    let mut written = Written::new();
    written.to(&file, file.kept[0].end);
    let savefile = Savefile::open(&written.path, SavefileOptions::default()).unwrap();
    let stop = AtomicBool::new(false);
    let mut cursor = Cursor::new(&savefile, SavefileFormat::Pcapng, Begin::Oldest, false);
    let mut got = Vec::new();
    // Each of the other blocks, and no more.
    for end in [file.kept[0].end, file.kept[1].end, file.packets[1].end, file.bytes.len()] {
        written.to(&file, end);
        assert_eq!(savefile.look_again(), Ok(true));
        assert_eq!(savefile.index(&stop), Indexed::Finished);
        got.extend(read(&mut cursor, &savefile));
        assert!(got == all_of(&savefile, SavefileFormat::Pcapng), "up to {end}");
        assert_eq!(
            SnapshotExtent::new(&savefile, SavefileFormat::Pcapng).size(&savefile),
            got.len() as u64
        );
        let whole = Savefile::open(&written.path, SavefileOptions::default()).unwrap();
        assert_eq!(whole.index(&stop), Indexed::Finished);
        assert!(got == all_of(&whole, SavefileFormat::Pcapng), "up to {end}");
        assert_eq!(whole.note(), None);
    }
    assert!(got.ends_with(&file.kept[2].bytes));
}

fn many(count: u32) -> File {
    let packet = |number: u32| Packet {
        seconds: number,
        nanoseconds: 0,
        more_on_the_wire: 0,
        data: number.to_be_bytes().repeat(300),
    };
    pcap(Order { big: false }, true, 1, &(1..=count).map(packet).collect::<Vec<_>>())
}

#[test]
fn many_small_additions_make_few_chunks() {
    let file = many(2_000);
    let mut written = Written::new();
    written.to(&file, file.packets[0].end);
    let followed = Followed::new(&written);
    followed.wait_for(1);
    let mut cursor = Cursor::new(&*followed.savefile, SavefileFormat::Pcap, Begin::Next, false);
    for number in 1..file.packets.len() {
        written.to(&file, file.packets[number].end);
        if number % 100 == 0 {
            followed.wait_for(number);
        }
    }
    followed.wait_for(2_000);
    let chunks = followed.savefile.capacity().segments;
    assert!(chunks <= 12, "{chunks} chunks of 256 KiB");
    assert_eq!(read(&mut cursor, &*followed.savefile).len() / 1_216, 1_999);
}

#[test]
fn a_second_look_finds_added_packets() {
    let file = many(10);
    let mut written = Written::new();
    let end = |packets: usize| file.packets[packets - 1].end;
    written.to(&file, end(3) + 5);
    let savefile = Savefile::open(&written.path, SavefileOptions::default()).unwrap();
    let run = || assert_eq!(savefile.index(&AtomicBool::new(false)), Indexed::Finished);
    run();
    assert_eq!(savefile.problem().as_deref().map(|problem| &problem[..9]), Some("cut short"));
    assert_eq!(savefile.look_again(), Ok(false));
    written.to(&file, end(10));
    assert_eq!(savefile.bounds().next.number, 4, "not by itself");
    assert_eq!(savefile.look_again(), Ok(true));
    run();
    assert_eq!((savefile.bounds().next.number, savefile.problem()), (11, None));
    assert!(all_of(&savefile, SavefileFormat::Pcap)[24..] == file.bytes[24..]);
    assert_eq!(savefile.look_again(), Ok(false));
}

#[test]
fn the_reason_why_reading_stopped_is_reported() {
    let file = many(3);
    let mut written = Written::new();
    written.to(&file, file.bytes.len());
    written.output.write_all(&[0xff; 40]).unwrap();
    let savefile = Savefile::open(&written.path, SavefileOptions::default()).unwrap();
    assert_eq!(savefile.index(&AtomicBool::new(false)), Indexed::Finished);
    written.output.write_all(&[0xff; 40]).unwrap();
    let malformed = savefile.look_again().unwrap_err();
    assert!(malformed.contains("is malformed"), "{malformed}");
    let other = written.path.with_extension("new");
    std::fs::write(&other, b"something else").unwrap();
    std::fs::rename(other, &written.path).unwrap();
    let other = savefile.look_again().unwrap_err();
    assert!(other.contains("another file by now"), "{other}");
    written.output.set_len(10).unwrap();
    assert!(savefile.look_again().unwrap_err().contains("was cut to 10 bytes"));
}
