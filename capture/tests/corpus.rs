//! The fuzz targets over their corpus, and over random changes of it.

#[path = "../fuzz/bodies.rs"]
mod bodies;
mod savefile_encoder;

use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use proptest::prelude::*;
use proptest::strategy::ValueTree;
use proptest::test_runner::{Config, RngAlgorithm, TestRng, TestRunner};
use savefile_encoder::{any_pcap, any_pcapng};

type Body = fn(&[u8]);

const TARGETS: [(&str, Body); 8] = [
    ("decode", bodies::decode),
    ("http", bodies::http),
    ("http_body", bodies::http_body),
    ("pcap_stream", bodies::pcap_stream),
    ("pcapng_stream", bodies::pcapng_stream),
    ("savefile", bodies::savefile),
    ("tcp", bodies::tcp),
    ("tls", bodies::tls),
];

fn corpus(target: &str) -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("fuzz/corpus").join(target)
}

fn seeds(target: &str) -> Vec<Vec<u8>> {
    let mut paths: Vec<_> =
        std::fs::read_dir(corpus(target)).unwrap().map(|entry| entry.unwrap().path()).collect();
    paths.sort();
    assert!(!paths.is_empty(), "no corpus for {target}");
    paths.iter().map(|path| std::fs::read(path).unwrap()).collect()
}

/// The same random numbers each time.
fn runner() -> TestRunner {
    TestRunner::new_with_rng(Config::default(), TestRng::from_seed(RngAlgorithm::ChaCha, &[7; 32]))
}

#[test]
fn every_file_of_the_corpus_passes() {
    for (target, body) in TARGETS {
        for seed in seeds(target) {
            body(&seed);
        }
    }
}

/// For machines without a fuzzer. Each target gets a second; `CORPUS_SECONDS` gives it more.
#[test]
fn random_changes_of_the_corpus_pass() {
    let seconds = std::env::var("CORPUS_SECONDS").ok().and_then(|text| text.parse().ok());
    let time = Duration::from_secs(seconds.unwrap_or(1));
    let mut runner = runner();
    for (target, body) in TARGETS {
        let seeds = seeds(target);
        let changes = (
            prop::sample::select(seeds),
            prop::collection::vec((any::<prop::sample::Index>(), byte()), 0..6),
            any::<prop::sample::Index>(),
            any::<bool>(),
        );
        let start = Instant::now();
        while start.elapsed() < time {
            let (mut bytes, changes, cut, is_cut) =
                changes.new_tree(&mut runner).unwrap().current();
            for (at, value) in changes {
                let at = at.index(bytes.len());
                bytes[at] = value;
            }
            if is_cut {
                bytes.truncate(cut.index(bytes.len()));
            }
            body(&bytes);
        }
    }
}

/// Bytes that occur in the numbers of a header, more often than others.
fn byte() -> impl Strategy<Value = u8> {
    prop_oneof![
        prop::sample::select(vec![0, 1, 2, 3, 4, 6, 8, 12, 16, 0x7f, 0x80, 0xff]),
        any::<u8>()
    ]
}

/// Writes the seeds. Run by hand, with `cargo test -p capture --test corpus -- --ignored`.
#[test]
#[ignore = "writes into the source folder"]
fn write_seeds() {
    let (mut runner, mut tcp_runner) = (runner(), runner());
    for number in 0..12_u8 {
        let pcap = any_pcap(1..4).new_tree(&mut runner).unwrap().current().bytes;
        let pcapng = any_pcapng(3..10).new_tree(&mut runner).unwrap().current().bytes;
        let write = |target: &str, bytes: &[u8]| {
            let bytes = [&[number * 20], bytes].concat();
            std::fs::write(corpus(target).join(format!("seed-{number:02}")), bytes).unwrap();
        };
        write("pcap_stream", &pcap[4..]);
        write("pcapng_stream", &pcapng[4..]);
        let segments = prop::collection::vec(0..64_u8, 40..200).new_tree(&mut tcp_runner).unwrap();
        write("tcp", &segments.current());
        write("savefile", if number % 2 == 0 { &pcapng } else { &pcap });
    }
}
