//! Captures of other projects: every packet is in a flow or counted with a reason.
//!
//! The captures are no part of the project. They are looked for in `$PCAPFS_TESTDATA`, else in
//! `../shared/testdata` beside the project or, for a work tree, a level further up.

#[allow(dead_code, reason = "the tests of the engine use the rest")]
#[path = "flow_engine/scene.rs"]
mod scene;

use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::AtomicBool;

use capture::flow::{Counters, File, Flows};
use capture::savefile::{self, Savefile};
use capture::store::Store;
use serde_json::Value;

use scene::{CAPTURE, free, ids, wait_until, whole};

fn folders() -> Vec<PathBuf> {
    let given = std::env::var_os("PCAPFS_TESTDATA").map(PathBuf::from);
    let root = Path::new(env!("CARGO_MANIFEST_DIR")).join("..");
    let beside = ["../shared", "../../shared"].map(|folder| root.join(folder));
    let beside = beside.iter().flat_map(|folder| [folder.join("testdata"), folder.join("faults")]);
    given.into_iter().chain(beside).filter(|folder| folder.is_dir()).collect()
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

/// All captures; none, said aloud, if there are none here.
fn all() -> Vec<PathBuf> {
    let mut found = Vec::new();
    folders().iter().for_each(|folder| captures(folder, &mut found));
    found.sort();
    if found.is_empty() {
        eprintln!("skipped: no captures of other projects");
    }
    found
}

/// What there is of a flow: its `meta.json`, and how long its streams are.
struct Told {
    meta: Value,
    lens: [u64; 2],
}

fn file(flows: &Flows, id: u64, file: File) -> Option<Vec<u8>> {
    let stat = flows.stat(id, file)?;
    Some(whole(&mut flows.open(id, file, stat.beginning).ok()?))
}

fn told(flows: &Flows) -> Vec<Told> {
    let one = |id| {
        let meta = serde_json::from_slice(&file(flows, id, File::Meta)?).unwrap();
        let len = |side| file(flows, id, side).map_or(0, |stream| stream.len() as u64);
        Some(Told { meta, lens: [len(File::Client), len(File::Server)] })
    };
    ids(flows).into_iter().filter_map(one).collect()
}

/// A capture that was read.
struct Heard {
    stored: u64,
    counters: Counters,
    told: Vec<Told>,
}

impl Heard {
    fn of(store: Arc<dyn Store>) -> Self {
        let flows = Flows::start(CAPTURE, Arc::clone(&store), free()).unwrap();
        wait_until("the flows are there", || flows.is_caught_up());
        let stored = store.bounds().next.number - 1;
        Self { stored, counters: flows.counters(), told: told(&flows) }
    }

    /// Every packet is in a flow, or counted; every byte in its stream, or counted.
    fn check(&self, path: &Path) {
        let (counters, path) = (&self.counters, path.display());
        let mut packets = counters.undecodable;
        for Told { meta, lens } in &self.told {
            for (side, len) in ["client", "server"].into_iter().zip(lens) {
                let side = &meta[side];
                let of = |name: &str| side[name].as_u64().unwrap();
                packets += of("packets");
                let len_of = |gap: &Value| gap[1].as_u64().unwrap() - gap[0].as_u64().unwrap();
                let gaps: u64 = side["gaps"].as_array().unwrap().iter().map(len_of).sum();
                assert_eq!(*len, of("stream_bytes"), "{path}: {meta}");
                let counted = of("repeated_bytes") + of("late_bytes") + of("rejected_bytes");
                assert_eq!(len - gaps + counted, of("captured_bytes"), "{path}: {meta}");
            }
        }
        assert_eq!((packets, counters.dropped), (self.stored, 0), "{path}: {counters:#?}");
        assert_eq!(counters.undecodable, counters.undecodable_by.total());
    }
}

/// `None` for what is no savefile.
fn mapped(path: &Path) -> Option<Heard> {
    let store = Savefile::open(path, savefile::Options::default()).ok()?;
    store.index(&AtomicBool::new(false));
    Some(Heard::of(Arc::new(store)))
}

#[test]
fn every_packet_is_in_a_flow_or_counted_and_every_byte_in_its_stream_or_counted() {
    for path in all() {
        if let Some(heard) = mapped(&path) {
            heard.check(&path);
        }
    }
}
