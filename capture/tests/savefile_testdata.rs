//! Captures from other projects: none causes a panic, and each has as many packets as `capinfos`
//! counts.

mod testdata;

use std::collections::HashMap;
use std::ops::ControlFlow;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::sync::atomic::AtomicBool;

use capture::cursor::snapshot::{Snapshot, SnapshotExtent};
use capture::cursor::{Begin, Cursor, ReadOutcome, SavefileFormat};
use capture::record::PacketRecords;
use capture::savefile::stream::StreamEvent;
use capture::savefile::{Savefile, SavefileOptions};
use capture::store::Store;
use testdata::{captures, folder, stream};

/// Packets in each file that `capinfos` reads to its end; `None` if it is not installed.
fn counted(files: &[PathBuf]) -> Option<HashMap<PathBuf, u64>> {
    let mut counts = HashMap::new();
    for file in files {
        let output = Command::new("capinfos").args(["-T", "-r", "-c", "-M"]).arg(file).output();
        let output = output.ok()?;
        let text = String::from_utf8_lossy(&output.stdout);
        let count = text.trim_end().rsplit('\t').next().and_then(|count| count.parse().ok());
        if let (Some(count), true, []) = (count, output.status.success(), output.stderr.as_slice())
        {
            counts.insert(file.clone(), count);
        }
    }
    Some(counts)
}

/// The contents of a file.
#[derive(Debug)]
struct Mapped {
    /// Packets for readers of pcapng, and for readers of pcap.
    pcapng: u64,
    pcap: u64,
}

/// Reads a file as a savefile; `None` if it is not one.
fn mapped(path: &Path) -> Option<Mapped> {
    let store = Savefile::open(path, SavefileOptions::default()).ok()?;
    store.index(&AtomicBool::new(false));
    let count = |bytes: &[u8]| PacketRecords::new(bytes).count() as u64;
    let (mut pcapng, mut pcap) = (0, 0);
    for id in 0..store.capacity().used {
        let chunk = store.pin(id).unwrap();
        pcapng += count(chunk.bytes());
        pcap += count(chunk.pcap_bytes());
    }
    assert_eq!(pcapng, store.bounds().next.number - 1);
    assert_eq!(pcapng, store.raw_packets());
    assert_eq!(pcap + store.foreign_packets(), pcapng);
    for (format, packets) in [(SavefileFormat::Pcap, pcap), (SavefileFormat::Pcapng, pcapng)] {
        let mut snapshot = Snapshot::new(&store, SnapshotExtent::new(&store, format));
        let mut offset = 0;
        loop {
            let outcome = snapshot.read(&store, offset, 1 << 20, &mut |_| Ok(())).unwrap();
            let ReadOutcome::Sent(sent) = outcome else { break };
            offset += sent as u64;
        }
        assert_eq!(offset, SnapshotExtent::new(&store, format).size(&store), "{}", path.display());
        let progress = snapshot.progress(&store);
        let expected = (packets, store.raw_packets() - packets, 0);
        assert_eq!((progress.delivered, progress.lost, progress.lag), expected);
    }
    Some(Mapped { pcapng, pcap })
}

/// Writes the bytes that a reader of pcapng gets from a file.
fn replayed(path: &Path, to: &Path) {
    let store = Savefile::open(path, SavefileOptions::default()).unwrap();
    store.index(&AtomicBool::new(false));
    let mut cursor = Cursor::new(&store, SavefileFormat::Pcapng, Begin::Oldest, false);
    let mut bytes = Vec::new();
    let mut send = |slices: &[std::io::IoSlice<'_>]| {
        slices.iter().for_each(|slice| bytes.extend_from_slice(slice));
        Ok(())
    };
    while matches!(cursor.read(&store, 1 << 20, &mut send).unwrap(), ReadOutcome::Sent(_)) {}
    std::fs::write(to, bytes).unwrap();
}

/// Packets of the file as a stream, up to its end or the first malformed data.
fn streamed(path: &Path) -> u64 {
    let mut packets = 0;
    let _: Option<()> = stream(&std::fs::read(path).unwrap(), 10_007, |event| {
        packets += u64::from(matches!(event, StreamEvent::Packet(_)));
        ControlFlow::Continue(())
    });
    packets
}

#[test]
fn captures_of_other_projects_have_as_many_packets_as_capinfos_counts() {
    let Some(folder) = folder() else {
        eprintln!("skipped: no captures; set PCAPFS_TESTDATA to a folder of them");
        return;
    };
    let files = captures(&folder);
    let counts = counted(&files);
    if counts.is_none() {
        eprintln!("counts not compared: capinfos is not installed");
    }
    let counts = counts.unwrap_or_default();
    let (mut compared, mut wrong) = (0, Vec::new());
    let directory = tempfile::tempdir().unwrap();
    let mut mixed = HashMap::new();
    for path in &files {
        let mapped = mapped(path);
        if let Some(mapped) = &mapped {
            assert_eq!(mapped.pcap, streamed(path), "{}", path.display());
        }
        if let Some(count) = counts.get(path) {
            compared += 1;
            if mapped.as_ref().map(|mapped| mapped.pcapng) != Some(*count) {
                wrong.push(format!("{}: {mapped:?} instead of {count}", path.display()));
            } else if mapped.is_some_and(|mapped| mapped.pcap != mapped.pcapng) {
                let copy = directory.path().join(format!("{}.pcapng", mixed.len()));
                replayed(path, &copy);
                mixed.insert(copy, *count);
            }
        }
    }
    eprintln!("{} files, {compared} compared, {} of them mixed", files.len(), mixed.len());
    let copies: Vec<PathBuf> = mixed.keys().cloned().collect();
    assert_eq!(counted(&copies).unwrap_or_default(), mixed, "what a reader of pcapng gets");
    assert!(wrong.is_empty(), "{}", wrong.join("\n"));
}
