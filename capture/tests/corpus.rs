//! Runs the fuzz targets over their corpus, and over random changes of it.

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

const TARGETS: [(&str, Body); 9] = [
    ("decode", bodies::decode),
    ("dns", bodies::dns),
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

/// Each random test gets a second; `CORPUS_SECONDS` gives it more.
fn time() -> Duration {
    let seconds = std::env::var("CORPUS_SECONDS").ok().and_then(|text| text.parse().ok());
    Duration::from_secs(seconds.unwrap_or(1))
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

/// A seed, the bytes to change and their new values, a place to cut, and whether to cut.
type Changes = (Vec<u8>, Vec<(prop::sample::Index, u8)>, prop::sample::Index, bool);

fn changes(seeds: Vec<Vec<u8>>) -> impl Strategy<Value = Changes> {
    (
        prop::sample::select(seeds),
        prop::collection::vec((any::<prop::sample::Index>(), byte()), 0..6),
        any::<prop::sample::Index>(),
        any::<bool>(),
    )
}

fn changed(changes: &impl Strategy<Value = Changes>, runner: &mut TestRunner) -> Vec<u8> {
    let (mut bytes, changes, cut, is_cut) = changes.new_tree(runner).unwrap().current();
    for (at, value) in changes {
        let at = at.index(bytes.len());
        bytes[at] = value;
    }
    if is_cut {
        bytes.truncate(cut.index(bytes.len()));
    }
    bytes
}

/// For machines without a fuzzer.
#[test]
fn random_changes_of_the_corpus_pass() {
    let time = time();
    let mut runner = runner();
    for (target, body) in TARGETS {
        let seeds = seeds(target);
        let changes = changes(seeds);
        let start = Instant::now();
        while start.elapsed() < time {
            body(&changed(&changes, &mut runner));
        }
    }
}

/// Parts of valid messages, and parts that do not belong there.
const WORDS: [&str; 36] = [
    "GET / HTTP/1.1\r\n",
    "POST /a HTTP/1.1\r\n",
    "HEAD / HTTP/1.0\r\n",
    "CONNECT h:1 HTTP/1.1\r\n",
    "GET /old\r\n",
    "HTTP/1.1 200 OK\r\n",
    "HTTP/1.1 100 Continue\r\n",
    "HTTP/1.0 304 No\r\n",
    "HTTP/1.1 101 Switch\r\nUpgrade: x\r\n",
    "Host: h\r\n",
    "Content-Length: 5\r\n",
    "Content-Length: 0\r\n",
    "Content-Length: 9, 5\r\n",
    "Transfer-Encoding: chunked\r\n",
    "Content-Encoding: gzip\r\n",
    "Expect: 100-continue\r\n",
    " folded\r\n",
    "\r\n",
    "\n",
    "\r",
    " ",
    "\t",
    "\0",
    "5\r\nhello\r\n",
    "0\r\n\r\n",
    "0\r\nT: x\r\n\r\n",
    "5;a=b\n",
    "hello",
    "0000000000000000",
    "ffffffffffffffffff",
    "0x5",
    "HTT",
    "P/1.1 ",
    "G",
    "aaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaa",
    ":",
];

/// Connections of random words, as [`bodies::http`] reads them.
fn words() -> impl Strategy<Value = Vec<u8>> {
    let part = prop::collection::vec(prop::sample::select(WORDS.to_vec()), 1..12);
    let operation = prop_oneof![8 => 6..8_u8, 1 => 0..2_u8, 1 => 4..6_u8];
    let operations = prop::collection::vec((operation, part, any::<u8>()), 1..8);
    (0..2_u8, operations).prop_map(|(limits, operations)| {
        let mut bytes = vec![limits];
        for (operation, part, number) in operations {
            let mut part = part.concat().into_bytes();
            part.truncate(255);
            match operation {
                6.. => bytes
                    .extend([&[operation, u8::try_from(part.len()).unwrap()], &part[..]].concat()),
                // A gap, or an acknowledgment.
                _ => bytes.extend([operation, number % 20]),
            }
        }
        bytes
    })
}

/// The transactions of a connection are the same, however its bytes are cut.
#[test]
fn http_is_the_same_however_its_bytes_are_cut() {
    for seed in seeds("http") {
        bodies::http_cuts(&seed);
    }
    let mut runner = runner();
    let (changes, words) = (changes(seeds("http")), words());
    let start = Instant::now();
    let time = time();
    while start.elapsed() < time {
        bodies::http_cuts(&changed(&changes, &mut runner));
        bodies::http_cuts(&words.new_tree(&mut runner).unwrap().current());
    }
}

/// Values that are common in the numbers of a header occur more often than others.
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
