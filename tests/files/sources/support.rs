//! A mounted savefile and the packets of a savefile, shared by the tests of sources.

use std::fs;
use std::path::PathBuf;

use frames::pcapng::{CUSTOM, block};
use pcapfs_tests::savefile::{Interface, NgPacket, Parser, parser_for, pcapng, timestamp};
use pcapfs_tests::{ALIAS, Daemon, Mount, frame};
use tempfile::TempDir;

/// A daemon with one savefile that is completely indexed.
pub(crate) struct Filed {
    pub(crate) daemon: Daemon,
    pub(crate) path: PathBuf,
    _folder: TempDir,
}

impl Filed {
    #[track_caller]
    pub(crate) fn new(bytes: &[u8], arguments: &[&str]) -> Self {
        let folder = TempDir::new().unwrap();
        let path = folder.path().join("web.pcap");
        fs::write(&path, bytes).unwrap();
        let daemon = Mount::new().arg("-r").arg(&path).args(arguments).start();
        daemon.wait_state(ALIAS, "ended");
        Self { daemon, path, _folder: folder }
    }

    pub(crate) fn read(&self, name: &str) -> Vec<u8> {
        fs::read(self.daemon.path(ALIAS).join(name)).unwrap()
    }
}

/// A packet: time in nanoseconds, link type, index of the interface, length on the wire, captured
/// bytes.
pub(crate) type Packet = (u64, u32, u32, u32, Vec<u8>);

/// The packets of a savefile. Checks that nothing follows the last one.
#[track_caller]
pub(crate) fn packets_of(name: &str, bytes: &[u8]) -> Vec<Packet> {
    let mut parser = parser_for(name);
    packets_by(&mut *parser, bytes)
}

#[track_caller]
pub(crate) fn packets_by(parser: &mut dyn Parser, bytes: &[u8]) -> Vec<Packet> {
    let mut packets = Vec::new();
    parser
        .push(bytes, &mut |record| {
            let data = record.data.to_vec();
            let (time, length) = (record.timestamp, record.original_length);
            packets.push((time, record.link_type, record.interface, length, data));
            Ok(())
        })
        .unwrap();
    assert_eq!(parser.rest(), b"", "ends inside a record");
    packets
}

pub(crate) fn frames(bytes: &[u8]) -> Vec<Vec<u8>> {
    packets_of("x.pcap", bytes).into_iter().map(|packet| packet.4).collect()
}

/// A pcapng of three packets from two interfaces. The capture and the first packet have comments,
/// secrets come before the first packet, and a custom block before the second.
pub(crate) fn talkative() -> Vec<u8> {
    let packet = |sequence: u64| NgPacket {
        interface: u32::try_from(sequence % 2).unwrap(),
        timestamp: timestamp(sequence),
        data: frame::ethernet(sequence, 50),
    };
    let interfaces = ["eth0", "eth1"].map(|name| interface(name, 1, 1_000_000_000));
    let plain = pcapng(&interfaces, &Vec::from_iter((1..=3).map(packet)));
    let (mut at, mut packets, mut bytes) = (0, 0, Vec::new());
    while at < plain.len() {
        let word = |at: usize| u32::from_le_bytes(plain[at..at + 4].try_into().unwrap());
        let (kind, length) = (word(at), word(at + 4) as usize);
        let body = &plain[at + 8..at + length - 4];
        let comment = b"\x01\0\x09\0look here\0\0\0\0\0\0\0";
        packets += u32::from(kind == 6);
        match (kind, packets) {
            (6, 1) => bytes.extend(block(10, b"KSLT\x04\0\0\0CLIE")),
            (6, 2) => bytes.extend(block(CUSTOM, b"\xd9\x7e\0\0as it is")),
            _ => {}
        }
        let is_commented = kind == 0x0a0d_0d0a || (kind, packets) == (6, 1);
        let comment: &[u8] = if is_commented { comment } else { &[] };
        bytes.extend(block(kind, &[body, comment].concat()));
        at += length;
    }
    bytes
}

pub(crate) fn interface(name: &str, link_type: u16, per_second: u64) -> Interface {
    Interface { link_type, snaplen: 65_535, name: Some(name.into()), filter: None, per_second }
}
