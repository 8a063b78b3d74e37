//! `packets.pcap`.

use std::fs;

use pcapfs_tests::conversation::{SECOND, savefile_of};
use pcapfs_tests::savefile::{Format, Parser as _, PcapParser};
use pcapfs_tests::{Client, Filed, run, skip_unless, tool};

use crate::support::{size, sundry, talk};

#[test]
fn packets_pcap_has_the_packets_of_its_flow_and_no_others() {
    skip_unless!(mount, "tcpdump", "tshark", "capinfos");
    let talks = sundry();
    let filed = Filed::of(talks.clone());
    // The packets of replay that belong to the flow, in the same order.
    let replay = fs::read(filed.daemon.path("web/replay.pcap")).unwrap();
    assert_eq!(replay, savefile_of(talks.clone()));
    for (id, talk) in (1..).zip(&talks) {
        let path = filed.file(id, "packets.pcap");
        let bytes = fs::read(&path).unwrap();
        let own: std::collections::HashSet<_> =
            talk.packets.iter().map(|packet| (packet.time, packet.data.clone())).collect();
        let mut selected = Format::default().header();
        let mut parser = PcapParser::default();
        parser
            .push(&replay, &mut |record| {
                if own.contains(&(record.timestamp, record.data.to_vec())) {
                    let length = record.original_length as usize;
                    Format::default().append(&mut selected, record.timestamp, record.data, length);
                }
                Ok(())
            })
            .unwrap();
        assert!(bytes == selected, "flow {id}");
        assert_eq!(bytes.len() as u64, size(&path));
        assert_eq!(bytes[..4], [0x4d, 0x3c, 0xb2, 0xa1], "not the nanosecond magic");

        let count = talk.packets.len();
        let tcpdump = run(tool("tcpdump").args(["-nn", "-r"]).arg(&path), 10).success();
        assert_eq!(tcpdump.text().lines().count(), count, "tcpdump, flow {id}");
        let mut tshark = tool("tshark");
        tshark.args(["-n", "-T", "fields", "-e", "frame.time_epoch", "-r"]).arg(&path);
        let tshark = run(&mut tshark, 20).success();
        let times: Vec<_> = tshark.text().lines().map(str::to_owned).collect();
        let wanted: Vec<_> = talk
            .packets
            .iter()
            .map(|packet| format!("{}.{:09}", packet.time / SECOND, packet.time % SECOND))
            .collect();
        assert_eq!(times, wanted, "tshark, flow {id}");
        let capinfos = run(tool("capinfos").args(["-c", "-M", "-T", "-r"]).arg(&path), 10);
        let capinfos = capinfos.success();
        assert!(capinfos.text().trim_end().ends_with(&format!("\t{count}")), "{}", capinfos.text());
    }
}

#[test]
fn packets_pcap_has_the_format_of_its_capture() {
    skip_unless!(mount, "tcpdump");
    let mut talk = talk(1);
    talk.open().says(Client, b"hello").close(Client);
    for (nanoseconds, big_endian) in [(false, false), (false, true), (true, true)] {
        let format = Format { nanoseconds, big_endian, ..Format::default() };
        let mut bytes = format.header();
        for packet in &talk.packets {
            format.append(&mut bytes, packet.time, &packet.data, packet.data.len());
        }
        let filed = Filed::new(&bytes);
        let path = filed.file(1, "packets.pcap");
        let replay = fs::read(filed.daemon.path("web/replay.pcap")).unwrap();
        assert_eq!(fs::read(&path).unwrap(), replay, "{format:?}");
        assert_eq!(filed.read(1, "client.bin"), b"hello");
        let output = run(tool("tcpdump").args(["-nn", "-r"]).arg(&path), 5).success();
        assert_eq!(output.text().lines().count(), talk.packets.len());
    }
}
