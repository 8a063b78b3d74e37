//! Files that are open when their flow leaves the tree.

use std::fs::{self, File};
use std::io::Read;
use std::os::unix::fs::{FileExt, MetadataExt};

use nix::errno::Errno;
use nix::unistd::{Whence, lseek};
use pcapfs_tests::conversation::{EPOCH, SECOND};
use pcapfs_tests::flows::{flow, names};
use pcapfs_tests::{ALIAS, Conversation, Fed, Mount, Server, skip_unless, wait_until};

use crate::support::{exchange, feed, talk};

/// Files that are a stream or an unchanged part of one.
const PARTS: [&str; 2] = ["server.bin", "bodies/0001-response-early.txt"];
/// Files that are rendered from a stream.
const TEXTS: [&str; 2] = ["http", "http.jsonl"];

/// A connection that stays open, with one response.
fn asked(number: u8) -> Conversation {
    let mut talk = talk(number);
    talk.open();
    exchange(&mut talk, "/early.txt", &[b'e'; 30_000]);
    talk
}

/// Opens files of flow 1 without reading them.
fn opened<const N: usize>(fed: &Fed, files: [&str; N]) -> [(String, File); N] {
    let folder = flow(&fed.daemon, 1);
    wait_until("the response has ended", 5, || {
        fs::metadata(folder.join(TEXTS[1])).is_ok_and(|found| found.size() > 0)
    });
    files.map(|name| (name.to_owned(), File::open(folder.join(name)).unwrap()))
}

#[track_caller]
fn has_no_bytes(name: &str, file: &File) {
    let size = file.metadata().unwrap().size();
    assert!(size > 0, "{name} has shrunk");
    for offset in [0, size / 2, size - 1] {
        let error = file.read_at(&mut [0; 100], offset).expect_err(name);
        assert_eq!(error.raw_os_error(), Some(libc::EIO), "{name} at {offset}: {error}");
    }
    assert_eq!(file.read_at(&mut [0; 100], size).unwrap(), 0, "{name} at its end");
}

#[test]
fn open_files_of_an_overwritten_flow_invent_nothing() {
    skip_unless!(mount);
    let mut fed = Fed::with(Mount::new().ring("1M"));
    let talk = asked(1);
    feed(&mut fed, &talk.packets);
    let parts = opened(&fed, PARTS);
    let texts = opened(&fed, TEXTS);
    while fed.daemon.count(ALIAS, "/ring/first_number") <= talk.packets.len() as u64 {
        fed.send(500);
    }
    wait_until("the flow has left", 10, || !names(&fed.daemon).contains(&talk.name(1)));
    for (name, file) in &texts {
        has_no_bytes(name, file);
    }
    for (name, mut file) in parts {
        // The kernel may use cached attributes of a body until their timeout.
        wait_until("it has no blocks", 5, || file.metadata().unwrap().blocks() == 0);
        assert_eq!(lseek(&file, 0, Whence::SeekData), Err(Errno::ENXIO), "{name}");
        assert_eq!(lseek(&file, 100, Whence::SeekHole), Ok(100), "{name}");
        lseek(&file, 0, Whence::SeekSet).unwrap();
        let mut bytes = Vec::new();
        file.read_to_end(&mut bytes).unwrap();
        assert_eq!(bytes.len() as u64, file.metadata().unwrap().size(), "{name}");
        assert!(bytes.iter().all(|byte| *byte == 0), "{name} is no hole");
    }
}

#[test]
fn open_files_of_a_flow_dropped_by_a_limit_give_an_error() {
    skip_unless!(mount);
    let mut fed = Fed::with(Mount::new().args(["--max-flows", "3"]));
    let first = asked(1);
    feed(&mut fed, &first.packets);
    let files = opened(&fed, [PARTS[0], PARTS[1], TEXTS[0], TEXTS[1]]);
    let [(_, meta)] = opened(&fed, ["meta.json"]);
    for number in 2..12 {
        let mut other = talk(number).at(EPOCH + u64::from(number) * SECOND);
        other.open().says(Server, b"hello");
        feed(&mut fed, &other.packets);
    }
    wait_until("the flow has left", 10, || !names(&fed.daemon).contains(&first.name(1)));
    assert_eq!(fed.daemon.count(ALIAS, "/ring/first_number"), 1, "its packets are there");
    for (name, file) in &files {
        has_no_bytes(name, file);
        // A program that copies only data, not holes, must meet the error.
        assert_eq!(lseek(file, 0, Whence::SeekData), Ok(0), "{name}");
    }
    // A file rendered when it was opened stays whole.
    let text = std::io::read_to_string(meta).unwrap();
    assert_eq!(serde_json::from_str::<serde_json::Value>(&text).unwrap()["id"], 1);
    assert!(fs::read(fed.daemon.path("web/replay.pcap")).is_ok());
}
