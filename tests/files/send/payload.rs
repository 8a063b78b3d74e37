//! What is sent, and over which connection.

use std::fs::{self, File};
use std::io::Write;

use pcapfs_tests::conversation::{Client, Conversation, Server, merged, savefile};
use pcapfs_tests::savefile::{Format, Parser, PcapParser};
use pcapfs_tests::{Receiving, Running, run, skip_unless, tool};

use crate::support::{Savefile, json, ports, received, send, send_command};

/// Two hosts that talk over IPv4, with one that only listens, and two over IPv6 with tags.
fn conversations() -> [Conversation; 3] {
    let mut first = Conversation::tcp("10.0.0.9:40000", "10.0.0.2:80");
    first.open().says(Server, b"a banner").says(Client, b"a question").says(Server, b" and more");
    let mut silent = Conversation::tcp("10.0.0.7:40000", "10.0.0.8:80");
    silent.open().close(Client);
    let mut tagged = Conversation::tcp("[fd00::1]:40000", "[fd00::2]:80").tagged(&[7, 8]);
    tagged.wait(10_000_000).open().says(Client, b"tagged").says(Server, b"too");
    [first, silent, tagged]
}

#[test]
fn sources_have_consecutive_ports_in_the_order_of_their_first_payload() {
    let (contents, said) = received(&Savefile::of(conversations()), 4, &[]);
    let expected = ports([b"a banner and more", b"a question", b"tagged", b"too"]);
    assert_eq!(contents, expected, "{said}");
    assert!(said.contains("pcapfs: port 5000 gets 10.0.0.2\n"), "{said}");
    assert!(said.contains("pcapfs: port 5003 got 3 bytes of fd00::2 in 1 packet\n"), "{said}");
    assert!(said.contains("pcapfs: 36 bytes sent in 5 packets on 4 connections\n"), "{said}");
}

#[test]
fn each_direction_of_a_flow_may_have_a_connection() {
    let mut one = Conversation::tcp("10.0.0.1:40000", "10.0.0.2:80");
    one.open().says(Client, b"one").says(Server, b"answer");
    let mut other = Conversation::tcp("10.0.0.1:40001", "10.0.0.2:80");
    other.wait(10_000_000).open().says(Client, b"other");
    let savefile = Savefile::of([one, other]);
    let (contents, said) = received(&savefile, 3, &["--connections", "flow"]);
    assert_eq!(contents, ports([b"one", b"answer", b"other"]));
    assert!(said.contains("port 5001 gets tcp 10.0.0.2:80 to 10.0.0.1:40000\n"), "{said}");
    let (contents, _) = received(&savefile, 2, &[]);
    assert_eq!(contents, ports([b"oneother", b"answer"]));
}

#[test]
fn payload_is_sent_as_often_as_it_was_captured() {
    let mut talk = Conversation::tcp("10.0.0.1:40000", "10.0.0.2:80");
    talk.open().says(Client, b"once ").repeat().says(Client, b"later").swap();
    let (contents, _) = received(&Savefile::of([talk]), 1, &[]);
    assert_eq!(contents, ports([b"once lateronce "]));
}

#[test]
fn datagrams_are_sent_if_they_are_asked_for() {
    let mut talk = Conversation::tcp("10.0.0.1:40000", "10.0.0.2:80");
    talk.open().says(Client, b"stream");
    let mut asked = Conversation::udp("10.0.0.3:40000", "10.0.0.4:53");
    asked.wait(10_000_000).says(Client, b"datagram").says(Server, b"reply");
    let savefile = Savefile::of([talk, asked]);
    let (contents, said) = received(&savefile, 1, &[]);
    assert_eq!(contents, ports([b"stream"]));
    assert!(said.contains("; not sent: 2 packets of other protocols (see --protocol)"), "{said}");
    let (contents, _) = received(&savefile, 2, &["--protocol", "udp"]);
    assert_eq!(contents, ports([b"datagram", b"reply"]));
    for part in ["payload", "stream"] {
        let (contents, _) = received(&savefile, 3, &["--protocol", "any", "--what", part]);
        assert_eq!(contents, ports([b"stream", b"datagram", b"reply"]));
    }
}

#[test]
fn a_filter_leaves_packets_out_also_when_ports_are_counted() {
    let (contents, _) = received(&Savefile::of(conversations()), 2, &["--filter", "ip6"]);
    assert_eq!(contents, ports([b"tagged", b"too"]));
    let receiving = Receiving::start(1, &[]);
    let refused = send(&Savefile::of([]).path, &receiving, &["--filter", "udp prt 53"]);
    assert_eq!(refused.status.code(), Some(2), "{}", refused.stderr);
    assert!(refused.stderr.contains("--filter: filter 'udp prt 53' does not compile"));
}

#[test]
fn bytes_that_were_not_captured_are_counted() {
    let mut talk = Conversation::tcp("10.0.0.1:40000", "10.0.0.2:80");
    talk.open().says(Client, [b'x'; 100]).says(Client, [b'y'; 20]);
    let mut bytes = Format { snaplen: 94, ..Format::default() }.header();
    for packet in &talk.packets {
        let captured = &packet.data[..packet.data.len().min(94)];
        Format::default().append(&mut bytes, packet.time, captured, packet.data.len());
    }
    let savefile = Savefile::new(&bytes);
    for part in ["payload", "stream"] {
        let (contents, said) = received(&savefile, 1, &["--what", part]);
        assert_eq!(contents, ports([&[&[b'x'; 40][..], &[b'y'; 20]].concat()]), "{part}");
        assert!(said.contains(", without 60 bytes that were not captured\n"), "{said}");
        assert!(said.contains("; not sent: 60 bytes that were not captured\n"), "{said}");
    }
}

#[test]
fn fragments_are_put_together() {
    let datagram = frames::udp(
        "10.0.0.1:40000".parse().unwrap(),
        "10.0.0.2:53".parse().unwrap(),
        &Vec::from_iter(0..200),
    );
    let addresses = ([10, 0, 0, 1], [10, 0, 0, 2]);
    // The place is in units of eight bytes, with the flag of more fragments; the last one first.
    let fragments = [(0x0008_u16, &datagram[64..]), (0x2000, &datagram[..64])];
    let mut bytes = Format::default().header();
    for (number, (place, part)) in (1..).zip(fragments) {
        let packet = frames::ipv4_fragment(addresses, frames::UDP, place, 7, part);
        let frame = frames::ethernet(&[], frames::IPV4, &packet);
        Format::default().append(&mut bytes, number, &frame, frame.len());
    }
    let savefile = Savefile::new(&bytes);
    let (contents, said) = received(&savefile, 1, &["--protocol", "udp"]);
    assert_eq!(contents, ports([&Vec::from_iter(0..200)]), "{said}");
    assert!(!said.contains("not sent"), "{said}");
    let (_, said) = received(&savefile, 1, &[]);
    let end = "; not sent: 2 packets of other protocols (see --protocol)\n";
    assert!(said.ends_with(end), "{said}");
    let (contents, said) = received(&savefile, 1, &["--what", "pcap"]);
    assert_eq!(contents, ports([&bytes]), "{said}");
    let alone = Savefile::new(&bytes[..bytes.len() - 16 - 14 - 20 - 64]);
    let (contents, said) = received(&alone, 1, &["--protocol", "udp"]);
    assert!(contents.is_empty() && said.contains("not sent: 1 fragments of incomplete"), "{said}");
}

#[test]
fn frames_and_savefiles_have_all_headers() {
    let conversations = conversations();
    let packets = merged(conversations.clone());
    let all = Savefile::new(&savefile(&packets));
    // The silent ones have frames too.
    let sources = ["10.0.0.9", "10.0.0.2", "10.0.0.7", "10.0.0.8", "fd00::1", "fd00::2"];
    let of = |source: &str| {
        let conversation = match source {
            "10.0.0.9" | "10.0.0.2" => &conversations[0],
            "10.0.0.7" | "10.0.0.8" => &conversations[1],
            _ => &conversations[2],
        };
        let side =
            if ["10.0.0.9", "10.0.0.7", "fd00::1"].contains(&source) { Client } else { Server };
        conversation.packets.iter().filter(move |packet| packet.from == side)
    };
    let (contents, said) = received(&all, 6, &["--what", "frames"]);
    let (savefiles, _) = received(&all, 6, &["--what", "pcap"]);
    for source in sources {
        let line = said.lines().find(|line| line.ends_with(&format!(" gets {source}"))).unwrap();
        let port: u16 = line.split(' ').nth(2).unwrap().parse().unwrap();
        let frames: Vec<u8> = of(source).flat_map(|packet| packet.data.clone()).collect();
        assert!(contents[&port] == frames, "{source}");
        assert!(savefiles[&port] == savefile(of(source)), "{source}");
    }
}

#[test]
fn everything_may_be_sent_several_times() {
    let savefile = Savefile::of(conversations());
    let (contents, said) = received(&savefile, 4, &["--loop", "3"]);
    let expected =
        [&b"a banner and more"[..], b"a question", b"tagged", b"too"].map(|one| one.repeat(3));
    assert_eq!(contents, ports(expected.each_ref().map(Vec::as_slice)));
    assert!(said.contains("pcapfs: sending 108 bytes in 15 packets of "), "{said}");
    // A savefile that is sent several times has one header.
    let mut talk = Conversation::tcp("10.0.0.1:40000", "10.0.0.2:80");
    talk.syn();
    let once = pcapfs_tests::conversation::savefile_of([talk]);
    let (contents, _) = received(&Savefile::new(&once), 1, &["--what", "pcap", "--loop", "2"]);
    assert_eq!(contents, ports([&[&once[..], &once[24..]].concat()]));
}

#[test]
fn every_kind_of_savefile_is_read() {
    let conversations = conversations();
    let expected = ports([b"a banner and more", b"a question", b"tagged", b"too"]);
    for format in [
        Format { big_endian: true, ..Format::default() },
        Format { nanoseconds: false, ..Format::default() },
    ] {
        let mut bytes = format.header();
        for packet in merged(conversations.clone()) {
            format.append(&mut bytes, packet.time, &packet.data, packet.data.len());
        }
        assert_eq!(received(&Savefile::new(&bytes), 4, &[]).0, expected);
    }
    let mut blocks = vec![
        frames::pcapng::section(&[]),
        frames::pcapng::interface(1, 0, &[(frames::pcapng::IF_TSRESOL, &[9])]),
    ];
    for packet in merged(conversations.clone()) {
        let (data, len) = (&packet.data, packet.data.len());
        blocks.push(frames::pcapng::packet(0, packet.time, data, len, &[]));
    }
    assert_eq!(received(&Savefile::new(&blocks.concat()), 4, &[]).0, expected);
}

#[test]
fn standard_input_may_be_a_file_or_a_pipe() {
    let savefile = Savefile::of(conversations());
    let expected = ports([b"a banner and more", b"a question", b"tagged", b"too"]);
    let mut receiving = Receiving::start(4, &[]);
    let mut command = send_command("-".as_ref(), &receiving, &[]);
    let finished = run(command.stdin(File::open(&savefile.path).unwrap()), 20).success();
    receiving.end();
    assert_eq!(receiving.contents(), expected, "{}", finished.stderr);

    // A pipe under way: connections are made when they have something to send.
    let bytes = fs::read(&savefile.path).unwrap();
    let mut receiving = Receiving::start(4, &[]);
    let (pipe, mut end) = std::io::pipe().unwrap();
    let mut command = send_command("-".as_ref(), &receiving, &[]);
    let mut running = Running::spawn(command.stdin(pipe));
    drop(command);
    let packets = merged(conversations());
    let first = packets.iter().position(|packet| packet.data.ends_with(b"a banner")).unwrap();
    let until: usize = 24 + packets[..=first].iter().map(|one| 16 + one.data.len()).sum::<usize>();
    end.write_all(&bytes[..until]).unwrap();
    receiving.wait_bytes(Receiving::PORT, 8);
    assert_eq!(receiving.files().len(), 1);
    end.write_all(&bytes[until..]).unwrap();
    drop(end);
    assert!(running.wait(20).success(), "{}", running.stderr());
    receiving.end();
    assert_eq!(receiving.contents(), expected);
}

#[test]
fn programs_get_lines_of_json() {
    let savefile = Savefile::of(conversations());
    let receiving = Receiving::start(4, &[]);
    let finished = send(&savefile.path, &receiving, &["--json"]).success();
    assert_eq!(finished.stderr, "");
    let lines = json(&finished);
    let events: Vec<&str> = lines.iter().map(|line| line["event"].as_str().unwrap()).collect();
    let [planned, rest @ ..] = &events[..] else { panic!("{events:?}") };
    assert_eq!((*planned, rest[..4].to_vec()), ("planned", vec!["connected"; 4]));
    assert_eq!((rest[4..8].to_vec(), rest[8]), (vec!["closed"; 4], "ended"));
    assert_eq!((&lines[0]["connections"], &lines[0]["bytes"]), (&4.into(), &36.into()));
    let last = &lines[5];
    assert_eq!((&last["port"], &last["sender"]), (&5000.into(), &"10.0.0.2".into()));
    assert_eq!((&last["written"], &last["bytes"]), (&17.into(), &17.into()));
    assert_eq!(
        (&last["packets"], &last["missing"], &last["why"].is_null()),
        (&2.into(), &0.into(), &true)
    );
    assert_eq!((&lines[9]["packets"], &lines[9]["unsent"]), (&5.into(), &0.into()));
}

#[test]
fn tshark_reads_the_savefile_of_a_source() {
    skip_unless!("tshark");
    let mut receiving = Receiving::start(1, &[]);
    let mut talk = Conversation::tcp("10.0.0.1:40000", "10.0.0.2:80");
    talk.open().says(Client, b"hello").only(Client);
    let savefile = Savefile::of([talk.clone()]);
    let _ = send(&savefile.path, &receiving, &["--what", "pcap"]).success();
    receiving.end();
    let mut tshark = tool("tshark");
    tshark.args(["-T", "fields", "-e", "tcp.payload", "-Y", "tcp.len > 0", "-r"]);
    assert_eq!(run(tshark.arg(&receiving.files()[0]), 20).success().text(), "68656c6c6f\n");
    let mut parser = PcapParser::default();
    let bytes = fs::read(&receiving.files()[0]).unwrap();
    let mut times = Vec::new();
    let mut each = |record: pcapfs_tests::savefile::Record<'_>| {
        times.push(record.timestamp);
        Ok(())
    };
    parser.push(&bytes, &mut each).unwrap();
    assert_eq!(times, talk.packets.iter().map(|packet| packet.time).collect::<Vec<_>>());
}
