//! Flows in the tree, of a savefile with three connections: HTTP, one with a hole, and UDP.

use std::net::SocketAddr;
use std::ops::ControlFlow;
use std::time::{Duration, Instant};

use capture::flow::Seek;
use capture::pipeline::{Capture, CaptureState, Spec};
use capture::ring::Permissions;
use capture::source::SourceName;
use frames::Format;
use frames::flags::{ACK, SYN};
use protocol::time::Precision;
use tempfile::TempDir;

use super::open_file::FileOpener;
use super::*;

const ME: Asker = Asker { thread: 1 << 30, uid: 0, gid: 0 };
const HTTP: &str = "trace/flows/000001-tcp-10.0.0.1.2000-10.0.0.2.80";
const TORN: &str = "trace/flows/000002-tcp-10.0.0.1.2001-10.0.0.2.80";
const UDP: &str = "trace/flows/000003-udp-10.0.0.1.2002-10.0.0.2.53";
const REQUEST: &[u8] = b"GET /a.html HTTP/1.1\r\nHost: h\r\n\r\n";
const RESPONSE: &[u8] =
    b"HTTP/1.1 200 OK\r\nContent-Type: text/html\r\nContent-Length: 5\r\n\r\nhello";

const FIN: u8 = frames::flags::FIN | ACK;

/// The client's and the server's end, the sender's first.
fn ends(from_client: bool, client: u16, server: u16) -> [SocketAddr; 2] {
    let ends = [([10, 0, 0, 1], client), ([10, 0, 0, 2], server)].map(SocketAddr::from);
    if from_client { ends } else { [ends[1], ends[0]] }
}

/// An Ethernet frame around an IP packet with this content.
fn frame([from, to]: [SocketAddr; 2], protocol: u8, content: &[u8]) -> Vec<u8> {
    let packet = frames::ip(from.ip(), to.ip(), protocol, content);
    frames::ethernet(&[], frames::IPV4, &packet)
}

fn tcp(from_client: bool, port: u16, seq: u32, ack: u32, flags: u8, data: &[u8]) -> Vec<u8> {
    let ends = ends(from_client, port, 80);
    frame(ends, frames::TCP, &frames::tcp(ends[0], ends[1], [seq, ack], flags, data))
}

/// A connection, of whose answer the bytes in `lost` were not captured.
fn connection(
    port: u16,
    request: &[u8],
    answer: &[u8],
    lost: std::ops::Range<usize>,
) -> Vec<Vec<u8>> {
    let number = |len: usize| 1 + u32::try_from(len).unwrap();
    let (asked, answered) = (number(request.len()), number(answer.len()));
    let mut frames = vec![
        tcp(true, port, 0, 0, SYN, b""),
        tcp(false, port, 0, 1, SYN | ACK, b""),
        tcp(true, port, 1, 1, ACK, request),
    ];
    for part in [0..lost.start, lost.end..answer.len()] {
        let seq = number(part.start);
        frames.push(tcp(false, port, seq, asked, ACK, &answer[part]));
    }
    frames.push(tcp(true, port, asked, answered, FIN, b""));
    frames.push(tcp(false, port, answered, asked + 1, FIN, b""));
    frames.push(tcp(true, port, asked + 1, answered + 1, ACK, b""));
    frames
}

/// The tree, and the directory of the savefile. It has a directory of each kind.
pub(super) fn scene() -> (Tree, TempDir) {
    let directory = tempfile::tempdir().unwrap();
    let path = directory.path().join("trace.pcap");
    let mut bytes = Format::default().header();
    let mut frames = connection(2000, REQUEST, RESPONSE, 0..0);
    frames.extend(connection(2001, b"x", &[7; 3000], 1000..2000));
    let ends = ends(true, 2002, 53);
    frames.push(frame(ends, frames::UDP, &frames::udp(ends[0], ends[1], b"query")));
    for (second, frame) in (1..).zip(&frames) {
        Format::default().append(&mut bytes, second * 1_000_000_000, frame, frame.len());
    }
    std::fs::write(&path, bytes).unwrap();
    let spec = Spec {
        alias: "trace".to_owned(),
        source: SourceName::File(path),
        filter: None,
        snaplen: 262_144,
        promiscuous: true,
        precision: Precision::Nano,
        ring_size: 0,
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
    let begun = Instant::now();
    while capture.condition().state != CaptureState::Ended {
        assert!(begun.elapsed() < Duration::from_secs(10), "does not end");
        std::thread::yield_now();
    }
    assert!(capture.flows().is_caught_up());
    let tree = Tree::new(Permissions { uid: 0, gid: 0, mode: 0o755 });
    tree.captures.add(capture, Permissions { uid: 1, gid: 2, mode: 0o750 });
    (tree, directory)
}

fn lookup(tree: &Tree, path: &str) -> Result<Attributes, TreeError> {
    let mut attributes = tree.attributes(dir::ROOT, ME)?;
    for name in path.split('/') {
        attributes = tree.lookup(attributes.inode, name, ME)?;
    }
    Ok(attributes)
}

fn names(tree: &Tree, path: &str) -> Vec<(String, InodeKind, u64)> {
    let mut names = Vec::new();
    let inode = lookup(tree, path).unwrap().inode;
    let mut visit = |entry: list::ListedName<'_>| {
        names.push((entry.name.to_owned(), entry.kind, entry.inode));
        ControlFlow::Continue(())
    };
    // After the dots.
    tree.list(inode, 2, &mut visit).unwrap();
    names
}

fn open(tree: &Tree, path: &str) -> (Attributes, u64) {
    let attributes = lookup(tree, path).unwrap();
    let opener = FileOpener::new(ME);
    let access = OpenAccess { read: true, write: false };
    (attributes, tree.open(attributes.inode, access, opener).unwrap())
}

fn read(tree: &Tree, path: &str) -> Vec<u8> {
    let (_, handle) = open(tree, path);
    let mut bytes = Vec::new();
    let mut send = |slices: &[std::io::IoSlice<'_>]| {
        slices.iter().for_each(|slice| bytes.extend_from_slice(slice));
        Ok(())
    };
    tree.file(handle).unwrap().read(0, 1 << 20, &mut send).unwrap();
    tree.close(handle);
    bytes
}

#[test]
fn everything_below_flows_can_be_looked_up_and_has_the_size_it_says() {
    let (tree, _directory) = scene();
    let mut folders = vec!["trace/flows".to_owned()];
    let mut files = 0;
    while let Some(folder) = folders.pop() {
        for (name, kind, inode) in names(&tree, &folder) {
            let path = format!("{folder}/{name}");
            let found = lookup(&tree, &path).unwrap();
            assert_eq!((found.kind, found.inode, found.uid), (kind, inode, 1), "{path}");
            if kind == InodeKind::Directory {
                assert_eq!(found.mode, 0o750, "{path}");
                folders.push(path);
            } else {
                assert_eq!(found.mode, 0o640, "{path}");
                assert_eq!(read(&tree, &path).len() as u64, found.size, "{path}");
                files += 1;
            }
        }
    }
    // Four for each flow, four and a body for the one with HTTP.
    assert_eq!(files, 3 * 4 + 4 + 1);
}

#[test]
fn flows_have_what_each_side_sent() {
    let (tree, _directory) = scene();
    let flows: Vec<_> = names(&tree, "trace/flows").into_iter().map(|(name, ..)| name).collect();
    assert_eq!(flows, [HTTP, TORN, UDP].map(|path| &path["trace/flows/".len()..]));
    assert_eq!(read(&tree, &format!("{HTTP}/client.bin")), REQUEST);
    assert_eq!(read(&tree, &format!("{HTTP}/server.bin")), RESPONSE);
    assert_eq!(read(&tree, &format!("{HTTP}/bodies/0001-response-a.html")), b"hello");
    assert_eq!(read(&tree, &format!("{UDP}/client.bin")), b"query");
    for log in ["flows.jsonl", "http.jsonl"] {
        let text = String::from_utf8(read(&tree, &format!("trace/{log}"))).unwrap();
        assert!(text.lines().count() > 0 && text.ends_with('\n'), "{log}");
    }
}

#[test]
fn names_that_are_not_quite_right_are_not_there() {
    let (tree, _directory) = scene();
    for path in [
        "trace/flows/000001",
        "trace/flows/1-tcp-10.0.0.1.2000-10.0.0.2.80",
        "trace/flows/000002-tcp-10.0.0.1.2000-10.0.0.2.80",
        "trace/flows/000009-tcp-10.0.0.1.2000-10.0.0.2.80",
        &format!("{TORN}/http"),
        &format!("{TORN}/bodies"),
        &format!("{HTTP}/bodies/0001-response"),
        &format!("{HTTP}/bodies/1-response-a.html"),
        &format!("{HTTP}/bodies/0002-response-a.html"),
    ] {
        assert!(matches!(lookup(&tree, path), Err(TreeError::NotFound)), "{path}");
    }
}

#[test]
fn holes_are_found_and_take_no_room() {
    let (tree, _directory) = scene();
    let (attributes, handle) = open(&tree, &format!("{TORN}/server.bin"));
    assert_eq!((attributes.size, attributes.present), (3000, 2000));
    let seek = |offset, to| tree.seek(handle, offset, to, ME).ok();
    assert_eq!((seek(0, Seek::Hole), seek(1000, Seek::Data)), (Some(1000), Some(2000)));
    assert_eq!((seek(2000, Seek::Hole), seek(3000, Seek::Hole)), (Some(3000), None));
    assert_eq!(read(&tree, &format!("{TORN}/server.bin"))[1000..2000], [0; 1000]);
}
