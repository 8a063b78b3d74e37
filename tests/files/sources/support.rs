//! A mounted savefile, and the packets of one: what the tests of sources share.

use std::fs;
use std::path::PathBuf;

use pcapfs_tests::savefile::{Interface, Parser, parser_for};
use pcapfs_tests::{ALIAS, Daemon, Mount};
use tempfile::TempDir;

/// A daemon over one savefile, all of it indexed.
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

/// A packet: nanoseconds, link type, index of the interface, length on the wire, bytes kept.
pub(crate) type Packet = (u64, u32, u32, u32, Vec<u8>);

/// The packets of a savefile, with nothing behind the last one.
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

pub(crate) fn interface(name: &str, link_type: u16, per_second: u64) -> Interface {
    Interface { link_type, snaplen: 65_535, name: Some(name.into()), filter: None, per_second }
}
