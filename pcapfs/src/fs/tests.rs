//! The tree without FUSE: the requests that a kernel would make, and their answers.

use std::io::{IoSlice, Write};
use std::ops::ControlFlow;
use std::path::Path;
use std::time::{Duration, Instant};

use capture::cursor::ReadOutcome;
use capture::pipeline::{Capture, Spec};
use capture::record;
use capture::ring::Permissions;
use capture::source::SourceName;
use protocol::time::Precision;
use tempfile::TempDir;

use super::inodes::SAME_FILE;
use super::*;
use crate::fs::open_file::FileOpener;

/// A tree with one capture, `web`, of a FIFO with a writer.
struct Scene {
    tree: Tree,
    fifo: std::fs::File,
    sent: u32,
    _directory: TempDir,
}

// Above any process's number (proc_sys_kernel(5): pid_max is at most 2^22).
const ME: Asker = Asker { thread: 1 << 30, uid: 0, gid: 0 };
const OTHER: Asker = Asker { thread: (1 << 30) + 100, ..ME };
const PERMISSIONS: Permissions = Permissions { uid: 1, gid: 2, mode: 0o750 };
const DATA: usize = 1000;

impl Scene {
    fn new() -> Self {
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().join("fifo");
        nix::unistd::mkfifo(&path, nix::sys::stat::Mode::S_IRWXU).unwrap();
        let spec = Spec {
            alias: "web".to_owned(),
            source: SourceName::Stream(path.clone()),
            filter: None,
            snaplen: 262_144,
            promiscuous: true,
            precision: Precision::Nano,
            ring_size: 512 << 10,
            is_default_ring: false,
            kernel_buffer: None,
            inject_speed: capture::injection::InjectSpeed::default(),
            backend: capture::source::InterfaceBackend::default(),
            workers: capture::source::Workers::ONE,
            export_keys: true,
            ring_dir: directory.path().to_owned(),
            flows: capture::flow::FlowOptions::default(),
        };
        let capture = Capture::start_new(spec).unwrap().capture;
        let tree = Tree::new(Permissions { uid: 0, gid: 0, mode: 0o755 });
        tree.captures.add(capture, PERMISSIONS);
        tree.captures.link("www", "web");
        let mut scene = Self { tree, fifo: writer(&path), sent: 0, _directory: directory };
        scene.fifo.write_all(&frames::Format::default().header()).unwrap();
        scene
    }

    /// Has `count` more packets stored.
    fn store(&mut self, count: u32) {
        for _ in 0..count {
            self.sent += 1;
            let time = Timestamp::from_parts(self.sent, 0, Precision::Nano);
            let len = u32::try_from(DATA).unwrap();
            self.fifo.write_all(&record::header(time, Precision::Nano, len, len)).unwrap();
            self.fifo.write_all(&[7; DATA]).unwrap();
        }
        let entry = self.tree.captures.by_id(0).unwrap();
        let begun = Instant::now();
        while entry.capture.store().bounds().next.number <= u64::from(self.sent) {
            assert!(begun.elapsed() < Duration::from_secs(10), "packets do not arrive");
            std::thread::yield_now();
        }
    }

    fn lookup(&self, path: &str, asker: Asker) -> Result<Attributes, TreeError> {
        let mut attributes = self.tree.attributes(dir::ROOT, asker)?;
        for name in path.split('/') {
            attributes = self.tree.lookup(attributes.inode, name, asker)?;
        }
        Ok(attributes)
    }

    fn open(&self, path: &str, asker: Asker) -> Result<(Attributes, u64), TreeError> {
        let attributes = self.lookup(path, asker)?;
        let opener = FileOpener::new(asker);
        let access = OpenAccess { read: true, write: false };
        Ok((attributes, self.tree.open(attributes.inode, access, opener)?))
    }

    /// At most `count` names after a cookie, with their cookies.
    fn list(&self, inode: u64, after: u64, count: usize) -> Vec<(String, InodeKind, u64)> {
        let mut names = Vec::new();
        let mut visit = |entry: list::ListedName<'_>| {
            if names.len() == count {
                return ControlFlow::Break(());
            }
            names.push((entry.name.to_owned(), entry.kind, entry.cookie));
            ControlFlow::Continue(())
        };
        self.tree.list(inode, after, &mut visit).unwrap();
        names
    }

    fn control(&self) -> u64 {
        let inode = self.lookup("web/ctl", ME).unwrap().inode;
        let opener = FileOpener::new(ME);
        self.tree.open(inode, OpenAccess { read: false, write: true }, opener).unwrap()
    }

    /// Reads until there is no more.
    fn read(&self, handle: u64, mut offset: u64) -> Vec<u8> {
        let file = self.tree.file(handle).unwrap();
        let mut bytes = Vec::new();
        loop {
            let mut send = |slices: &[IoSlice<'_>]| {
                slices.iter().for_each(|slice| bytes.extend_from_slice(slice));
                Ok(())
            };
            match file.read(offset, 4096, &mut send).unwrap() {
                ReadOutcome::Sent(sent) => offset += sent as u64,
                ReadOutcome::Empty | ReadOutcome::End => return bytes,
            }
        }
    }
}

fn writer(path: &Path) -> std::fs::File {
    std::fs::OpenOptions::new().write(true).open(path).unwrap()
}

#[test]
fn every_name_that_is_listed_can_be_looked_up() {
    let scene = Scene::new();
    let root = scene.list(dir::ROOT, 0, usize::MAX);
    let names: Vec<_> = root.iter().map(|(name, ..)| name.as_str()).collect();
    assert_eq!(names, [".", "..", "README", "status.json", "web", "www"]);
    for (name, kind, _) in &root[2..] {
        assert_eq!(scene.lookup(name, ME).unwrap().kind, *kind, "{name}");
    }
    for (name, kind, _) in &scene.list(scene.lookup("web", ME).unwrap().inode, 0, usize::MAX)[2..] {
        let found = scene.lookup(&format!("web/{name}"), ME).unwrap();
        assert_eq!(found.kind, *kind, "{name}");
        assert_eq!((found.uid, found.gid), (PERMISSIONS.uid, PERMISSIONS.gid));
    }
    assert!(matches!(scene.lookup("nothing", ME), Err(TreeError::NotFound)));
    assert!(matches!(scene.lookup("web/nothing", ME), Err(TreeError::NotFound)));
    assert!(matches!(scene.lookup("README/x", ME), Err(TreeError::NotADirectory)));
    let link = scene.lookup("www", ME).unwrap();
    assert_eq!(scene.tree.link_target(link.inode).unwrap(), "web");
    assert_eq!(link.size, 3);
}

#[test]
fn permissions_of_files_are_those_of_their_directory() {
    let scene = Scene::new();
    let mode = |path| scene.lookup(path, ME).unwrap().mode;
    assert_eq!((mode("web"), mode("web/live.pcap"), mode("web/ctl")), (0o750, 0o640, 0o200));
    let directory = scene.lookup("web", ME).unwrap().inode;
    let change = AttributeChange { mode: Some(0o4770), gid: Some(9), ..AttributeChange::default() };
    scene.tree.change(directory, ME, change).unwrap();
    assert_eq!((mode("web"), mode("web/live.pcap"), mode("web/ctl")), (0o770, 0o660, 0o220));
    assert_eq!(scene.lookup("web/status.json", ME).unwrap().gid, 9);
    let file = scene.lookup("web/live.pcap", ME).unwrap().inode;
    assert!(matches!(scene.tree.change(file, ME, change), Err(TreeError::Fixed)));
    let control = scene.lookup("web/ctl", ME).unwrap().inode;
    let emptied = AttributeChange { size: Some(0), ..AttributeChange::default() };
    assert!(scene.tree.change(control, ME, emptied).is_ok(), "a shell's > does this");
}

#[test]
fn a_replay_is_the_same_file_until_it_begins_elsewhere() {
    let mut scene = Scene::new();
    scene.store(10);
    let (first, handle) = scene.open("web/replay.pcap", ME).unwrap();
    assert_eq!(first.size, 24 + 10 * (16 + DATA as u64));
    scene.store(10);
    let grown = scene.lookup("web/replay.pcap", OTHER).unwrap();
    assert_eq!((grown.inode, grown.size), (first.inode, 24 + 20 * (16 + DATA as u64)));
    // More than the ring holds.
    scene.store(1000);
    let fresh =
        scene.lookup("web/replay.pcap", Asker { thread: OTHER.thread + 1, ..OTHER }).unwrap();
    assert_ne!(fresh.inode, first.inode);
    assert!(scene.tree.attributes(first.inode, ME).unwrap().size > grown.size, "never shrinks");
    assert_eq!(scene.read(handle, 0).len() % (16 + DATA), 24, "whole records");
    // Three lookups of the first and none left: the kernel has no more use for it.
    scene.tree.close(handle);
    scene.tree.forget(first.inode, 2);
    assert!(matches!(scene.tree.attributes(first.inode, ME), Err(TreeError::NotFound)));
}

#[test]
fn who_looks_up_and_then_opens_finds_the_same_replay() {
    let mut scene = Scene::new();
    scene.store(400);
    let entry = scene.tree.captures.by_id(0).unwrap();
    // The clock decides how long that holds, so the ring must move on faster; it mostly does.
    for _ in 0..50 {
        let before = Instant::now();
        let looked_up = scene.lookup("web/replay.pcap", ME).unwrap().inode;
        let begins = entry.capture.store().bounds().oldest;
        scene.store(200);
        let again = scene.lookup("web/replay.pcap", ME).unwrap().inode;
        if before.elapsed() < SAME_FILE {
            assert_ne!(entry.capture.store().bounds().oldest, begins, "the ring has moved on");
            assert_eq!(again, looked_up, "to the process that was here a moment ago");
            assert_ne!(scene.lookup("web/replay.pcap", OTHER).unwrap().inode, looked_up);
            return;
        }
    }
    eprintln!("skipped: this machine is too slow to do it within {SAME_FILE:?}");
}

#[test]
fn a_rendered_text_has_the_size_that_its_opener_sees() {
    let mut scene = Scene::new();
    let (before, handle) = scene.open("web/status.json", ME).unwrap();
    scene.store(1000);
    let seen = scene.tree.attributes(before.inode, ME).unwrap();
    assert_eq!(scene.read(handle, 0).len() as u64, seen.size);
    let (_, fresh) = scene.open("web/status.json", OTHER).unwrap();
    let status: serde_json::Value = serde_json::from_slice(&scene.read(fresh, 0)).unwrap();
    assert_eq!(status["packets"]["stored"], 1000);
    let old: serde_json::Value = serde_json::from_slice(&scene.read(handle, 0)).unwrap();
    assert_eq!(old["packets"]["stored"], 0);
}

#[test]
fn readers_are_counted_while_and_after_they_read() {
    let mut scene = Scene::new();
    scene.store(5);
    let (_, handle) = scene.open("web/follow.pcap", ME).unwrap();
    scene.read(handle, 0);
    let lines = |scene: &Scene| {
        let (_, readers) = scene.open("web/readers.jsonl", OTHER).unwrap();
        let text = String::from_utf8(scene.read(readers, 0)).unwrap();
        scene.tree.close(readers);
        text.lines().map(|line| serde_json::from_str(line).unwrap()).collect::<Vec<_>>()
    };
    let found: Vec<serde_json::Value> = lines(&scene);
    let [reader] = &found[..] else { panic!("{found:?}") };
    assert_eq!((&reader["file"], &reader["pid"]), (&"follow.pcap".into(), &ME.thread.into()));
    assert_eq!((&reader["delivered_packets"], &reader["lag_packets"]), (&5.into(), &0.into()));
    scene.tree.close(handle);
    assert!(lines(&scene).is_empty());
    assert_eq!(scene.tree.open_files(), 0);
    let (_, status) = scene.open("web/status.json", ME).unwrap();
    let status: serde_json::Value = serde_json::from_slice(&scene.read(status, 0)).unwrap();
    assert_eq!(status["readers"]["delivered"], 5);
    assert_eq!(status["readers"]["open"], 0);
}

#[test]
fn orders_are_words_and_nothing_else_is() {
    let mut scene = Scene::new();
    scene.store(5);
    let control = scene.control();
    for nonsense in [&b""[..], b"\n", b"STOP", b"stop start", b"stop\n\n", b"\xff"] {
        assert!(matches!(scene.tree.write(control, nonsense), Err(TreeError::BadOrder)));
    }
    let entry = scene.tree.captures.by_id(0).unwrap();
    for (order, ended) in [(&b"stop\n"[..], true), (b"stop", true), (b"start", false)] {
        scene.tree.write(control, order).unwrap();
        assert_eq!(entry.capture.store().bounds().ended, ended);
    }
    let (_, reader) = scene.open("web/live.pcap", ME).unwrap();
    assert!(matches!(scene.tree.write(reader, b"stop"), Err(TreeError::WrongAccess)));
    assert!(matches!(scene.tree.write(99, b"stop"), Err(TreeError::BadHandle)));
}

#[test]
fn files_are_opened_for_what_they_are_for() {
    let scene = Scene::new();
    let opener = || FileOpener::new(ME);
    for name in ["live.pcap", "replay.pcap", "status.json", "readers.jsonl"] {
        let inode = scene.lookup(&format!("web/{name}"), ME).unwrap().inode;
        for (read, write) in [(true, true), (false, true)] {
            let result = scene.tree.open(inode, OpenAccess { read, write }, opener());
            assert!(matches!(result, Err(TreeError::WrongAccess)), "{name}");
        }
    }
    let control = scene.lookup("web/ctl", ME).unwrap().inode;
    let result = scene.tree.open(control, OpenAccess { read: true, write: true }, opener());
    assert!(matches!(result, Err(TreeError::WrongAccess)));
    assert_eq!(scene.tree.open_files(), 0, "nothing that was refused stays open");
}

#[test]
fn a_directory_is_listed_a_page_at_a_time() {
    let scene = Scene::new();
    let web = scene.lookup("web", ME).unwrap().inode;
    let whole = scene.list(web, 0, usize::MAX);
    assert_eq!((whole[0].0.as_str(), whole[1].0.as_str()), (".", ".."));
    for page in 1..=whole.len() {
        let mut pieces = Vec::new();
        let mut after = 0;
        loop {
            let names = scene.list(web, after, page);
            let Some((_, _, last)) = names.last() else { break };
            after = *last;
            pieces.extend(names);
        }
        assert_eq!(pieces, whole, "{page} at a time");
    }
    assert!(matches!(
        scene.tree.list(scene.lookup("README", ME).unwrap().inode, 0, &mut |_| panic!()),
        Err(TreeError::NotADirectory)
    ));
}

#[test]
fn the_status_of_the_daemon_has_what_its_opener_may_read() {
    let scene = Scene::new();
    for (uid, gid, shown) in [(0, 0, 1), (1, 9, 1), (8, 2, 1), (8, 9, 0)] {
        let asker = Asker { uid, gid, ..ME };
        let (_, handle) = scene.open("status.json", asker).unwrap();
        let text = scene.read(handle, 0);
        let status: serde_json::Value = serde_json::from_slice(&text).unwrap();
        assert_eq!(status["captures"].as_array().unwrap().len(), shown, "{asker:?}");
        let seen = scene.lookup("status.json", asker).unwrap();
        assert_eq!(seen.size, text.len() as u64, "the size of the open text");
        scene.tree.close(handle);
    }
}

#[test]
fn files_without_holes_are_data_up_to_their_end() {
    let mut scene = Scene::new();
    scene.store(10);
    let (attributes, handle) = scene.open("web/replay.pcap", ME).unwrap();
    let seek = |offset, to| scene.tree.seek(handle, offset, to, ME);
    assert_eq!(seek(0, Seek::Data).unwrap(), 0);
    assert_eq!(seek(7, Seek::Data).unwrap(), 7);
    assert_eq!(seek(7, Seek::Hole).unwrap(), attributes.size);
    for to in [Seek::Data, Seek::Hole] {
        assert!(matches!(seek(attributes.size, to), Err(TreeError::NothingThere)));
        assert!(matches!(scene.tree.seek(99, 0, to, ME), Err(TreeError::BadHandle)));
    }
}
