//! Broken, truncated and malicious captures: the daemon survives, and so do the captures beside
//! them.

use std::fs;
use std::path::{Path, PathBuf};

use pcapfs_tests::measure;

use crate::data::{self, in_parallel};
use crate::edit::{self, Random};
use crate::outcome::{Outcome, Reach};
use crate::tree::{Capture, Side, Tree};

/// Number of captures in one mount, not counting the neighbour.
const BATCH: usize = 250;

/// Small captures whose copies get flipped bytes.
const ORIGINALS: [&str; 8] = [
    "arkime+arkime/tests/pcap/tcp-reassembly-synthetic.pcap",
    "arkime+arkime/tests/pcap/gre-erspan-vxlan.pcap",
    "arkime+arkime/tests/pcap/http-content-gzip.pcap",
    "arkime+arkime/tests/pcap/mpls-basic.pcap",
    "seladb+PcapPlusPlus/Tests/Pcap++Test/PcapExamples/three_http_streams.pcap",
    "seladb+PcapPlusPlus/Tests/Pcap++Test/PcapExamples/ip6_fragments.pcap",
    "OISF+suricata-verify/tests/http-brotli-ce/input.pcap",
    "zeek+zeek/testing/btest/Traces/pcapng-multi-interface.pcapng",
];

const COPIES: usize = 1000;

/// A good capture that is mounted with every batch.
const NEIGHBOUR: &str =
    "seladb+PcapPlusPlus/Tests/Pcap++Test/PcapExamples/one_http_stream_fin.pcap";

/// Maximum memory of a daemon with one batch of small captures, in bytes.
const MEMORY: u64 = 256 << 20;

pub(crate) fn check(root: &Path) -> Vec<Outcome> {
    let mut given = Outcome::new(
        "every capture",
        "every capture of the test data, many at once: alive, no panic, bounded, neighbours whole",
        Reach::All,
    );
    let files: Vec<PathBuf> = data::files_below(root)
        .into_iter()
        .filter(|file| {
            let name = file.to_string_lossy();
            [".pcap", ".cap", ".snoop"].iter().any(|form| name.contains(form))
        })
        .collect();
    all(root, &files, &mut given);

    let mut flipped = Outcome::new(
        "flipped bytes",
        "copies of small captures with flipped bytes: alive, no panic, bounded, neighbours whole",
        Reach::All,
    );
    let folder = tempfile::tempdir().expect("a folder for copies");
    let mut random = Random::new(0x70_63_61_70);
    let copies: Vec<PathBuf> = (0..COPIES)
        .filter_map(|number| {
            let original = root.join(ORIGINALS[number % ORIGINALS.len()]);
            let mut bytes = fs::read(&original).ok()?;
            edit::flip(&mut bytes, &mut random);
            let path = folder.path().join(format!("{number:04}")).with_extension("pcap");
            fs::write(&path, bytes).ok()?;
            Some(path)
        })
        .collect();
    all(root, &copies, &mut flipped);
    vec![given, flipped]
}

fn all(root: &Path, files: &[PathBuf], outcome: &mut Outcome) {
    let mut most = 0;
    for batch in files.chunks(BATCH) {
        let neighbour = root.join(NEIGHBOUR);
        let tree = Tree::mount(batch.iter().chain([&neighbour]));
        let Some((neighbour, captures)) = tree.captures().split_last() else { continue };
        for (capture, result) in captures.iter().zip(in_parallel(captures, read_all)) {
            outcome.case(capture.name(), result);
        }
        let memory = measure::anonymous_memory(tree.daemon.pid());
        most = most.max(memory);
        let case = |what: &str| format!("{what} beside {}", captures[0].name());
        outcome.case(case("the neighbour"), is_whole(neighbour));
        let bounded = if memory <= MEMORY { Ok(()) } else { Err(format!("{memory} bytes")) };
        outcome.case(case("memory"), bounded);
        outcome.close(tree);
    }
    outcome.note(format!(
        "Up to {BATCH} captures in one daemon, every file of every flow read; own memory at most \
         {} MiB.",
        most >> 20
    ));
}

/// Reads every file of every flow. A file that is not a savefile must have been refused, or have
/// failed with a reason.
fn read_all(capture: &Capture) -> Result<(), String> {
    if capture.is_refused() {
        return Ok(());
    }
    if capture.state == "failed" {
        let status = crate::tree::json(&capture.folder.join("status.json"))?;
        return if status["error"].is_string() {
            Ok(())
        } else {
            Err("failed without error".into())
        };
    }
    for flow in capture.flows()? {
        for file in data::files_below(&flow.folder) {
            let bytes = fs::read(&file).map_err(|error| format!("{}: {error}", file.display()))?;
            let size = fs::metadata(&file).map_err(|error| error.to_string())?.len();
            if bytes.len() as u64 != size {
                let wrong = format!("{} bytes of {size}", bytes.len());
                return Err(format!("{}: {wrong}", file.display()));
            }
        }
        if flow.name().starts_with(char::is_numeric) {
            continue;
        }
        return Err(format!("{}: a name that is none", flow.name()));
    }
    for file in ["status.json", "flows.jsonl", "http.jsonl", "replay.pcap", "replay.pcapng"] {
        let path = capture.folder.join(file);
        let bytes = fs::read(&path).map_err(|error| format!("{file}: {error}"))?;
        if bytes.len() > 64 << 20 {
            return Err(format!("{file} has {} bytes", bytes.len()));
        }
    }
    Ok(())
}

fn is_whole(neighbour: &Capture) -> Result<(), String> {
    let truth = fs::read(neighbour.file.with_file_name("one_http_stream_fin_output.txt"))
        .map_err(|error| error.to_string())?;
    let flows = neighbour.connections()?;
    let [flow] = &flows[..] else { return Err(format!("{} connections", flows.len())) };
    let (client, server) = (flow.stream(Side::Client)?, flow.stream(Side::Server)?);
    if data::is_interleaved(&truth, &client, &server) {
        Ok(())
    } else {
        Err("its streams are not as they were".to_owned())
    }
}
