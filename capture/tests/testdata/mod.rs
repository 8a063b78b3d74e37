//! Captures of other projects, which are not part of this one.
//!
//! They are looked for in `$PCAPFS_TESTDATA`, or else in `../shared/testdata` beside the project
//! or, for a work tree, one level further up.

#![allow(dead_code, reason = "each test uses some of it")]

use std::ffi::OsStr;
use std::ops::ControlFlow;
use std::path::{Path, PathBuf};

use capture::savefile::stream::{StreamEvent, StreamReader};

/// The folder of captures, if it exists here.
pub(crate) fn folder() -> Option<PathBuf> {
    folders(&["testdata"]).into_iter().next()
}

/// The existing folders with one of these names, the one in `$PCAPFS_TESTDATA` first.
pub(crate) fn folders(names: &[&str]) -> Vec<PathBuf> {
    let given = std::env::var_os("PCAPFS_TESTDATA").map(PathBuf::from);
    let root = Path::new(env!("CARGO_MANIFEST_DIR")).join("..");
    let shared = ["../shared", "../../shared"].map(|shared| root.join(shared));
    let beside = shared.iter().flat_map(|shared| names.iter().map(|name| shared.join(name)));
    given.into_iter().chain(beside).filter(|folder| folder.is_dir()).collect()
}

/// All captures in a folder and its subfolders, in order.
pub(crate) fn captures(folder: &Path) -> Vec<PathBuf> {
    let mut found = Vec::new();
    let entries = std::fs::read_dir(folder).unwrap();
    let mut entries: Vec<_> = entries.map(|entry| entry.unwrap().path()).collect();
    entries.sort();
    for path in entries {
        let is_capture = |extension: &OsStr| {
            ["pcap", "pcapng", "cap"].iter().any(|known| extension.eq_ignore_ascii_case(known))
        };
        if path.is_dir() {
            found.extend(captures(&path));
        } else if path.extension().is_some_and(is_capture) {
            found.push(path);
        }
    }
    found
}

/// Reads a capture as a stream that comes in parts of at most `part` bytes. Ends at the end of the
/// file, at the first malformed data, or when `each` breaks.
pub(crate) fn stream<B>(
    mut bytes: &[u8],
    part: usize,
    mut each: impl FnMut(StreamEvent<'_>) -> ControlFlow<B>,
) -> Option<B> {
    let mut reader = StreamReader::new();
    while !bytes.is_empty() {
        let space = reader.space();
        let (now, later) = bytes.split_at(bytes.len().min(space.len()).min(part));
        space[..now.len()].copy_from_slice(now);
        reader.filled(now.len());
        bytes = later;
        loop {
            match reader.event() {
                Ok(Some(event)) => {
                    if let ControlFlow::Break(value) = each(event) {
                        return Some(value);
                    }
                }
                Ok(None) => break,
                Err(_) => return None,
            }
        }
    }
    None
}
