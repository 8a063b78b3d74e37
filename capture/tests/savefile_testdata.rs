//! Captures from other projects: no panic on any, and as many packets as `capinfos` counts.
//!
//! The captures are no part of the project. They are looked for in `$PCAPFS_TESTDATA`, else in
//! `../shared/testdata` beside the project or, for a work tree, a level further up.

use std::collections::HashMap;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::sync::atomic::AtomicBool;

use capture::record::Records;
use capture::savefile::stream::{Event, Reader};
use capture::savefile::{Options, Savefile};
use capture::store::Store;

fn folder() -> Option<PathBuf> {
    let given = std::env::var_os("PCAPFS_TESTDATA").map(PathBuf::from);
    let root = Path::new(env!("CARGO_MANIFEST_DIR")).join("..");
    let beside = ["../shared/testdata", "../../shared/testdata"].map(|folder| root.join(folder));
    given.into_iter().chain(beside).find(|folder| folder.is_dir())
}

fn captures(folder: &Path, found: &mut Vec<PathBuf>) {
    for entry in std::fs::read_dir(folder).unwrap() {
        let path = entry.unwrap().path();
        let extension = path.extension().and_then(|extension| extension.to_str());
        if path.is_dir() {
            captures(&path, found);
        } else if matches!(extension, Some("pcap" | "pcapng" | "cap")) {
            found.push(path);
        }
    }
}

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

/// Packets served, packets found, and the problem if there is one; `None` for no savefile.
fn mapped(path: &Path) -> Option<(u64, u64, Option<String>)> {
    let store = Savefile::open(path, Options::default()).ok()?;
    store.index(&AtomicBool::new(false));
    let chunks = 0..store.capacity().used;
    let served = chunks.map(|id| Records::new(store.pin(id).unwrap().bytes()).count() as u64).sum();
    assert_eq!(served, store.bounds().next.number - 1);
    assert_eq!(served + store.foreign_packets(), store.raw_packets());
    Some((served, store.raw_packets(), store.problem()))
}

/// Packets a stream of the file gives before its end or the first thing malformed.
fn streamed(path: &Path) -> u64 {
    let bytes = std::fs::read(path).unwrap();
    let (mut reader, mut rest, mut packets) = (Reader::new(), bytes.as_slice(), 0);
    while !rest.is_empty() {
        let space = reader.space();
        let (now, later) = rest.split_at(rest.len().min(space.len()).min(10_007));
        space[..now.len()].copy_from_slice(now);
        reader.filled(now.len());
        rest = later;
        loop {
            match reader.event() {
                Ok(Some(Event::Packet(_))) => packets += 1,
                Ok(Some(_)) => {}
                Ok(None) => break,
                Err(_) => return packets,
            }
        }
    }
    packets
}

#[test]
fn captures_of_other_projects_have_as_many_packets_as_capinfos_counts() {
    let Some(folder) = folder() else {
        eprintln!("skipped: no captures; set PCAPFS_TESTDATA to a folder of them");
        return;
    };
    let mut files = Vec::new();
    captures(&folder, &mut files);
    let counts = counted(&files);
    if counts.is_none() {
        eprintln!("counts not compared: capinfos is not installed");
    }
    let counts = counts.unwrap_or_default();
    let (mut compared, mut wrong) = (0, Vec::new());
    for path in &files {
        let mapped = mapped(path);
        if let Some((served, ..)) = mapped {
            assert_eq!(served, streamed(path), "{}", path.display());
        }
        if let Some(count) = counts.get(path) {
            compared += 1;
            if mapped.as_ref().map(|(_, raw, _)| raw) != Some(count) {
                wrong.push(format!("{}: {mapped:?} instead of {count}", path.display()));
            }
        }
    }
    eprintln!("{} files, {compared} compared", files.len());
    assert!(wrong.is_empty(), "{}", wrong.join("\n"));
}
