//! Finds captures, and reads the formats of the truths.

use std::collections::BTreeSet;
use std::fs;
use std::num::NonZero;
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicUsize, Ordering};
use std::thread;

/// Files in a folder and its subfolders, in order of their paths.
pub(crate) fn files_below(folder: &Path) -> Vec<PathBuf> {
    let mut files = Vec::new();
    let mut folders = vec![folder.to_owned()];
    while let Some(folder) = folders.pop() {
        for entry in fs::read_dir(&folder).into_iter().flatten().flatten() {
            let path = entry.path();
            if path.is_dir() {
                folders.push(path);
            } else {
                files.push(path);
            }
        }
    }
    files.sort();
    files
}

/// Savefiles in a folder and its subfolders, among them captures in other formats.
pub(crate) fn captures_below(folder: &Path) -> Vec<PathBuf> {
    let mut files = files_below(folder);
    files.retain(|file| {
        let extension = file.extension().unwrap_or_default();
        ["pcap", "pcapng", "cap", "snoop"].iter().any(|known| extension == *known)
    });
    files
}

/// The results of `action` for all items, in their order, computed with a thread for each core.
pub(crate) fn in_parallel<T: Sync, R: Send>(
    items: &[T],
    action: impl Fn(&T) -> R + Sync,
) -> Vec<R> {
    let threads = thread::available_parallelism().map_or(1, NonZero::get);
    let next = AtomicUsize::new(0);
    let mut results: Vec<(usize, R)> = thread::scope(|scope| {
        let work = || {
            let mut results = Vec::new();
            loop {
                let index = next.fetch_add(1, Ordering::Relaxed);
                match items.get(index) {
                    Some(item) => results.push((index, action(item))),
                    None => return results,
                }
            }
        };
        let workers: Vec<_> = (0..threads).map(|_| scope.spawn(work)).collect();
        workers
            .into_iter()
            .flat_map(|worker| {
                worker.join().unwrap_or_else(|panic| std::panic::resume_unwind(panic))
            })
            .collect()
    });
    results.sort_by_key(|(index, _)| *index);
    results.into_iter().map(|(_, result)| result).collect()
}

/// One `filter` of the checks in a `test.yaml`.
#[derive(Debug, Default)]
pub(crate) struct Filter {
    /// Number of records that match it.
    pub(crate) count: u64,
    /// Fields and their values, without quotes.
    pub(crate) fields: Vec<(String, String)>,
}

impl Filter {
    /// The value of a field.
    pub(crate) fn get(&self, field: &str) -> Option<&str> {
        self.fields.iter().find(|(name, _)| name == field).map(|(_, value)| value.as_str())
    }
}

/// The checks of a `test.yaml`, which use only a small part of YAML.
pub(crate) fn filters(path: &Path) -> Vec<Filter> {
    let text = fs::read_to_string(path).unwrap_or_default();
    let mut filters: Vec<Filter> = Vec::new();
    for line in text.lines().map(str::trim) {
        if line == "- filter:" {
            filters.push(Filter::default());
            continue;
        }
        let Some((field, value)) = line.split_once(':') else { continue };
        let value = value.trim().trim_matches('"');
        let Some(filter) = filters.last_mut().filter(|_| !line.starts_with('#')) else { continue };
        if field == "count" {
            filter.count = value.split(' ').next().and_then(|word| word.parse().ok()).unwrap_or(0);
        } else {
            filter.fields.push((field.to_owned(), value.to_owned()));
        }
    }
    filters
}

/// Decodes base64, RFC 4648.
pub(crate) fn base64(text: &str) -> Option<Vec<u8>> {
    const ALPHABET: &[u8] = b"ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789+/";
    let mut bytes = Vec::new();
    let (mut bits, mut held) = (0_u32, 0);
    for letter in text.bytes().take_while(|&letter| letter != b'=') {
        let value = ALPHABET.iter().position(|&known| known == letter)?;
        bits = bits << 6 | u32::try_from(value).ok()?;
        held += 6;
        if held >= 8 {
            held -= 8;
            bytes.push(u8::try_from(bits >> held & 0xff).ok()?);
        }
    }
    Some(bytes)
}

/// Decodes pairs of hexadecimal digits, with blanks anywhere.
pub(crate) fn hex(text: &str) -> Option<Vec<u8>> {
    let digits: Vec<u32> = text
        .chars()
        .filter(|letter| !letter.is_whitespace())
        .map(|letter| letter.to_digit(16))
        .collect::<Option<_>>()?;
    digits.chunks(2).map(|pair| u8::try_from(pair[0] << 4 | *pair.get(1)?).ok()).collect()
}

/// True if `whole` consists of all of `left` and all of `right`, each in its order.
pub(crate) fn is_interleaved(whole: &[u8], left: &[u8], right: &[u8]) -> bool {
    if whole.len() != left.len() + right.len() {
        return false;
    }
    // All numbers of bytes of `left` that may be used so far.
    let mut used = BTreeSet::from([0]);
    for (at, byte) in whole.iter().enumerate() {
        let mut next = BTreeSet::new();
        for &left_used in &used {
            if left.get(left_used) == Some(byte) {
                next.insert(left_used + 1);
            }
            if right.get(at - left_used) == Some(byte) {
                next.insert(left_used);
            }
        }
        used = next;
    }
    used.contains(&left.len())
}

/// Compares two byte strings and reports where they differ.
pub(crate) fn same(what: &str, got: &[u8], wanted: &[u8]) -> Result<(), String> {
    if got == wanted {
        return Ok(());
    }
    let at = got.iter().zip(wanted).position(|(got, wanted)| got != wanted);
    let at = at.unwrap_or_else(|| got.len().min(wanted.len()));
    let show = |bytes: &[u8]| {
        let from = &bytes[at.min(bytes.len())..];
        String::from_utf8_lossy(&from[..from.len().min(24)]).escape_debug().to_string()
    };
    Err(format!(
        "{what} has {} bytes instead of {}, differs from {at} on: \"{}\" instead of \"{}\"",
        got.len(),
        wanted.len(),
        show(got),
        show(wanted)
    ))
}
