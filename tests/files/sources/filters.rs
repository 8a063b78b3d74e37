//! Filters, also for frames with VLAN tags, and the snaplen.

use std::fs::{self, File};
use std::net::{SocketAddr, UdpSocket};
use std::os::unix::fs::PermissionsExt;

use ::frames::flags::SYN;
use ::frames::{IPV4, TCP};
use pcapfs_tests::savefile::{Format, check_prefix, numbered, timestamp};
use pcapfs_tests::{ALIAS, Fifo, Mount, Net, frame, skip_unless};
use tempfile::TempDir;

use crate::support::{Filed, frames, packets_of};

#[test]
fn filters_choose_in_savefiles_and_streams() {
    skip_unless!(mount);
    let mut bytes = Format::default().header();
    let mut wanted = Vec::new();
    for sequence in 1..=50 {
        let mut data = frame::ethernet(sequence, 60);
        if sequence % 3 == 0 {
            data[36..38].copy_from_slice(&53u16.to_be_bytes());
            wanted.push(data.clone());
        }
        Format::default().append(&mut bytes, timestamp(sequence), &data, data.len());
    }
    let folder = TempDir::new().unwrap();
    let path = folder.path().join("web.pcap");
    fs::write(&path, &bytes).unwrap();
    let source = format!("file:{} udp dst port 53", path.display());
    let by_capture = Mount::new().capture(ALIAS, &source).start();
    let by_flag = Mount::new().arg("-r").arg(&path).args(["-f", "udp dst port 53"]).start();
    let piped = File::open(&path).unwrap();
    let by_stream = Mount::new().stdin(piped).capture(ALIAS, "- udp dst port 53").start();
    for daemon in [&by_capture, &by_flag, &by_stream] {
        daemon.wait_state(ALIAS, "ended");
        let served = fs::read(daemon.path("web/replay.pcap")).unwrap();
        assert_eq!(frames(&served), wanted);
        assert_eq!(daemon.count(ALIAS, "/packets/seen"), wanted.len() as u64);
    }
}

#[test]
fn snaplen_cuts_the_kept_bytes_and_not_the_reported_length() {
    skip_unless!(root);
    let net = Net::new();
    let fifo = Fifo::new();
    let daemon = Mount::new()
        .inside(&net.a)
        .args(["--snaplen", "96"])
        .capture("wire", Net::DEVICE)
        .capture("pipe", &fifo.source())
        .start();
    daemon.wait_state("wire", "running");
    net.sender(1_000).send(20);
    let mut feed = fifo.connect();
    feed.send(20, 1_000);
    for alias in ["wire", "pipe"] {
        daemon.wait_stored(alias, 20);
        assert_eq!(daemon.status(alias)["snaplen"], 96);
        for name in ["replay.pcap", "replay.pcapng"] {
            let bytes = fs::read(daemon.path(alias).join(name)).unwrap();
            assert_eq!(check_prefix(&bytes).unwrap().whole(), Vec::from_iter(1..=20));
            for (.., length, data) in packets_of(name, &bytes) {
                assert_eq!((length, data.len()), (1_042, 96), "{name} of {alias}");
            }
        }
    }
}

/// A frame to or from TCP port `port` with these tags, each a protocol and its control information.
fn tcp(tags: &[(u16, u16)], port: u16, mark: u8) -> Vec<u8> {
    let ends = [([10, 0, 0, 1], 40_000), ([10, 0, 0, 2], port)].map(SocketAddr::from);
    let segment = ::frames::tcp(ends[0], ends[1], [1, 0], SYN, &[mark; 20]);
    ::frames::ethernet(tags, IPV4, &::frames::ip(ends[0].ip(), ends[1].ip(), TCP, &segment))
}

/// Every kind of tagging, each to port 81 (not wanted) and to port 80 (wanted). Returns all frames,
/// and the wanted ones.
fn tagged() -> (Vec<Vec<u8>>, Vec<Vec<u8>>) {
    let (q, ad) = (0x8100, 0x88a8);
    let ways: [&[(u16, u16)]; 6] =
        [&[], &[(q, 7)], &[(q, 0xa000)], &[(q, 4094)], &[(ad, 5), (q, 7)], &[(q, 5), (q, 7)]];
    let (mut all, mut wanted) = (Vec::new(), Vec::new());
    for (mark, tags) in (1..).zip(ways) {
        all.push(tcp(tags, 81, mark));
        wanted.push(tcp(tags, 80, mark));
        all.extend(wanted.last().cloned());
    }
    (all, wanted)
}

#[test]
fn tagged_frames_match_on_an_interface() {
    skip_unless!(root, "python3");
    let net = Net::new();
    let captures = [
        ("web", "wire-a tcp port 80"),
        ("seven", "wire-a vlan 7"),
        ("not", "wire-a not tcp port 80 and tcp"),
        ("all", "wire-a"),
    ];
    let mut mount = Mount::new().inside(&net.a);
    for (alias, source) in captures {
        mount = mount.capture(alias, source);
    }
    let daemon = mount.start();
    for (alias, _) in captures {
        daemon.wait_state(alias, "running");
    }
    let (all, wanted) = tagged();
    net.send_frames(&all);
    let stored = |alias: &str| {
        daemon.wait_stored(alias, all.len() as u64);
        frames(&fs::read(daemon.path(alias).join("replay.pcap")).unwrap())
    };
    assert_eq!(stored("all"), all, "frames are as they were sent, tags in their place");
    // The ring of `all` has every frame, so the kernel has offered each of them to every capture.
    // Another capture is done when it has stored as many frames as it should.
    let served = |alias: &str, count: usize| {
        daemon.wait_stored(alias, count as u64);
        frames(&fs::read(daemon.path(alias).join("replay.pcap")).unwrap())
    };
    assert_eq!(served("web", wanted.len()), wanted);
    let seven: Vec<Vec<u8>> =
        all.iter().filter(|frame| frame[12..16] == [0x81, 0, 0, 7]).cloned().collect();
    assert_eq!(served("seven", 2), seven, "a filter that speaks of tags is taken as it stands");
    let not: Vec<Vec<u8>> = all.iter().filter(|frame| !wanted.contains(frame)).cloned().collect();
    assert_eq!(served("not", not.len()), not, "unwanted packets are not stored, tagged or not");
}

#[test]
fn tagged_frames_match_in_savefiles_and_streams() {
    skip_unless!(mount);
    let (all, wanted) = tagged();
    let mut bytes = Format::default().header();
    for (sequence, frame) in (1..).zip(&all) {
        Format::default().append(&mut bytes, timestamp(sequence), frame, frame.len());
    }
    let filed = Filed::new(&bytes, &["-f", "tcp port 80"]);
    assert_eq!(frames(&filed.read("replay.pcap")), wanted);
    let input = File::open(&filed.path).unwrap();
    let daemon = Mount::new().stdin(input).capture(ALIAS, "- tcp port 80").start();
    daemon.wait_state(ALIAS, "ended");
    assert_eq!(frames(&fs::read(daemon.path("web/replay.pcap")).unwrap()), wanted);
    let not = Filed::new(&bytes, &["-f", "not tcp port 80"]);
    let others: Vec<Vec<u8>> =
        all.iter().filter(|frame| !wanted.contains(frame)).cloned().collect();
    assert_eq!(frames(&not.read("replay.pcap")), others);
}

#[test]
fn expressions_that_only_the_kernel_can_evaluate_need_an_interface() {
    skip_unless!(mount);
    let folder = TempDir::new().unwrap();
    let path = folder.path().join("web.pcap");
    fs::write(&path, numbered(Format::default(), 5, 60)).unwrap();
    let fifo = Fifo::new();
    let configuration = folder.path().join("pcapfs.toml");
    let text =
        format!("[[capture]]\nsource = \"file:{}\"\nfilter = \"not inbound\"\n", path.display());
    fs::write(&configuration, text).unwrap();
    fs::set_permissions(&configuration, PermissionsExt::from_mode(0o600)).unwrap();
    let mounts = [
        Mount::new().arg("-r").arg(&path).args(["-f", "inbound"]),
        Mount::new().capture(ALIAS, &format!("file:{} ifindex 2", path.display())),
        Mount::new().capture(ALIAS, &format!("{} outbound", fifo.source())),
        Mount::new().stdin(File::open(&path).unwrap()).capture(ALIAS, "- tcp and not outbound"),
        Mount::new().arg("--config").arg(&configuration),
    ];
    for mount in mounts {
        let refused = mount.try_start().unwrap_err();
        assert!(!refused.status.success() && !refused.left_mounted, "{refused:?}");
        assert!(refused.stderr.contains("is for interfaces only"), "{refused:?}");
    }
}

#[test]
fn the_direction_of_packets_is_known_from_the_first_one_on() {
    skip_unless!(root);
    let net = Net::new();
    let daemon = Mount::new()
        .inside(&net.a)
        .capture("in", "wire-a inbound and udp")
        .capture("out", "wire-a outbound and udp")
        .capture("tagged", "wire-a inbound and udp or vlan")
        .capture("all", "wire-a udp")
        .start();
    for alias in ["in", "out", "tagged", "all"] {
        daemon.wait_state(alias, "running");
    }
    net.sender(100).send(3);
    for alias in ["all", "in", "tagged"] {
        daemon.wait_stored(alias, 3);
    }
    net.a.run(|| {
        let socket = UdpSocket::bind((Net::ADDRESS, 0)).unwrap();
        for _ in 0..2 {
            socket.send_to(b"x", (Net::PEER_ADDRESS, 9)).unwrap();
        }
    });
    for (alias, count) in [("all", 5), ("out", 2), ("in", 3), ("tagged", 3)] {
        daemon.wait_stored(alias, count);
        assert_eq!(daemon.count(alias, "/packets/seen"), count, "{alias}");
    }
}
