//! Streams and fragments of PcapPlusPlus's own tests, with the changes those tests make first.

use std::fs;
use std::net::IpAddr;
use std::path::Path;

use crate::data;
use crate::edit::Savefile;
use crate::outcome::{Outcome, Reach};
use crate::tree::{Capture, Flow, Side, Tree};

const FOLDER: &str = "seladb+PcapPlusPlus/Tests/Pcap++Test/PcapExamples";

/// A capture, a change to it, and the files with the expected bytes: each holds both directions of
/// one connection in order of arrival. The files are in order of the connections.
struct Case {
    name: &'static str,
    capture: &'static str,
    change: fn(&mut Savefile),
    truths: &'static [&'static str],
}

const CASES: &[Case] = &[
    Case {
        name: "one stream",
        capture: "one_tcp_stream",
        change: |_| {},
        truths: &["one_tcp_stream_output"],
    },
    Case {
        name: "wrap of the sequence number",
        capture: "one_tcp_stream_max_seq",
        change: |_| {},
        truths: &["one_tcp_stream_output"],
    },
    Case {
        name: "no SYN",
        capture: "one_tcp_stream",
        change: |file| drop(file.records.drain(..2)),
        truths: &["one_tcp_stream_output"],
    },
    Case {
        name: "retransmissions",
        capture: "one_tcp_stream",
        change: retransmit,
        truths: &["one_tcp_stream_retransmission_output"],
    },
    Case {
        name: "missing data",
        capture: "one_tcp_stream",
        change: lose,
        truths: &["one_tcp_stream_missing_data_output"],
    },
    Case {
        name: "out of order",
        capture: "one_tcp_stream",
        change: disorder,
        truths: &["one_tcp_stream_out_of_order_output"],
    },
    Case {
        name: "out of order, missing data",
        capture: "one_tcp_stream",
        change: |file| {
            reverse(file);
            file.records.remove(29);
        },
        truths: &["one_tcp_stream_missing_data_output_ooo"],
    },
    Case {
        name: "FIN",
        capture: "one_http_stream_fin",
        change: |_| {},
        truths: &["one_http_stream_fin_output"],
    },
    Case {
        name: "RST",
        capture: "one_http_stream_rst",
        change: |_| {},
        truths: &["one_http_stream_rst_output"],
    },
    Case {
        name: "FIN with data",
        capture: "one_http_stream_fin2",
        change: |_| {},
        truths: &["one_http_stream_fin2_output"],
    },
    Case {
        // The owner's test stops at the FIN and expects a gap. But the data did arrive, and in
        // order.
        name: "data after its FIN",
        capture: "one_http_stream_fin2",
        change: |file| file.shift(6, 12),
        truths: &["one_http_stream_fin2_output"],
    },
    Case {
        name: "a packet that says it is longer",
        capture: "one_http_stream_fin2",
        change: |file| file.lie(8, 40),
        truths: &["one_http_stream_fin2_output"],
    },
    Case {
        name: "three streams",
        capture: "three_http_streams",
        change: |_| {},
        truths: &[
            "three_http_streams_conn_1_output",
            "three_http_streams_conn_2_output",
            "three_http_streams_conn_3_output",
        ],
    },
    Case {
        name: "IPv6",
        capture: "one_ipv6_http_stream",
        change: |_| {},
        truths: &["one_ipv6_http_stream"],
    },
    Case {
        name: "IPv6 out of order",
        capture: "one_ipv6_http_stream",
        change: |file| {
            file.shift(10, 12);
            file.shift(15, 17);
        },
        truths: &["one_ipv6_http_stream"],
    },
    Case {
        name: "four streams of IPv6",
        capture: "four_ipv6_http_streams",
        change: |_| {},
        truths: &["one_ipv6_http_stream4", "", "one_ipv6_http_stream3", "one_ipv6_http_stream2"],
    },
];

fn retransmit(file: &mut Savefile) {
    let copies = [
        (5, file.part(4, 0, None)),
        (12, file.part(10, 10, None)),
        (16, file.part(13, 0, Some(1340))),
        (25, file.part(21, 0, Some(1430))),
        (33, file.part(28, 10, Some(1370))),
        (40, file.part(34, 10, Some(91))),
    ];
    for (at, copy) in copies {
        file.records.insert(at, copy);
    }
}

fn lose(file: &mut Savefile) {
    // The owner's test means to cut off 20 bytes. Instead it puts the body of a request in the
    // place of its head, followed by the remainder of both.
    let payload = file.payload(3);
    let head = payload.windows(4).position(|end| end == b"\r\n\r\n").expect("a head") + 4;
    file.records[3] = file.other(3, 20, &[&payload[head..], &payload[20..]].concat());
    file.records[20] = file.part(20, 0, Some(1390));
    file.records.remove(28);
    file.records.remove(30);
}

fn disorder(file: &mut Savefile) {
    file.records.swap(9, 10);
    file.shift(18, 23);
    reverse(file);
}

fn reverse(file: &mut Savefile) {
    for place in 0..12 {
        file.shift(35, 24 + place);
    }
}

/// Checks streams and fragments.
pub(crate) fn check(root: &Path) -> Vec<Outcome> {
    let root = root.join(FOLDER);
    let mut streams =
        Outcome::new("PcapPlusPlus streams", "PcapPlusPlus: streams, both directions", Reach::All);
    let folder = tempfile::tempdir().expect("a folder for changed captures");
    let files = CASES.iter().enumerate().map(|(number, case)| {
        let mut file = Savefile::read(&root.join(case.capture).with_extension("pcap"));
        (case.change)(&mut file);
        let path = folder.path().join(format!("{number}.pcap"));
        file.write(&path);
        path
    });
    let tree = Tree::mount(files);
    for (case, capture) in CASES.iter().zip(tree.captures()) {
        streams.case(case.name, compare(case, capture, &root));
    }
    streams.close(tree);
    let one_way = "unidirectional_tcp_stream_with_missing_packet";
    let tree = Tree::mount([root.join(one_way).with_extension("pcap")]);
    streams.case(one_way, missing_packet(&tree.captures()[0]));
    streams.close(tree);
    streams.note(
        "The captures are changed before as the owner's tests do it, and a hole is taken for the \
         text `[N bytes missing]` that those write."
            .to_owned(),
    );
    vec![streams, fragments(&root)]
}

/// A stream with its holes as PcapPlusPlus writes them.
pub(crate) fn with_missing_text(flow: &Flow, side: Side) -> Result<Vec<u8>, String> {
    let stream = flow.stream(side)?;
    let mut text = Vec::new();
    let mut done = 0;
    for (start, end) in flow.gaps(side)? {
        let before = stream.get(done..start).ok_or("a gap that is outside of its stream")?;
        text.extend_from_slice(before);
        text.extend_from_slice(format!("[{} bytes missing]", end - start).as_bytes());
        done = end;
    }
    text.extend_from_slice(stream.get(done..).ok_or("a gap that is outside of its stream")?);
    Ok(text)
}

fn compare(case: &Case, capture: &Capture, root: &Path) -> Result<(), String> {
    let flows = capture.connections()?;
    if flows.len() != case.truths.len() {
        return Err(format!("{} connections instead of {}", flows.len(), case.truths.len()));
    }
    // The owner's tests order connections by a hash of their addresses.
    let mut streams = Vec::new();
    for flow in &flows {
        let [client, server] = Side::BOTH.map(|side| with_missing_text(flow, side));
        streams.push((client?, server?));
    }
    for truth in case.truths.iter().filter(|truth| !truth.is_empty()) {
        let whole = fs::read(root.join(truth).with_extension("txt"))
            .map_err(|error| format!("{truth}: {error}"))?;
        let fits =
            |(client, server): &(Vec<u8>, Vec<u8>)| data::is_interleaved(&whole, client, server);
        if !streams.iter().any(fits) {
            let sizes: Vec<_> =
                streams.iter().map(|(client, server)| (client.len(), server.len())).collect();
            return Err(format!("{sizes:?} bytes do not make the {} of {truth}", whole.len()));
        }
    }
    Ok(())
}

/// This case has no file of expected bytes: one direction, with one packet missing.
fn missing_packet(capture: &Capture) -> Result<(), String> {
    let flows = capture.connections()?;
    let [flow] = &flows[..] else { return Err(format!("{} connections", flows.len())) };
    let gaps = Side::BOTH.map(|side| flow.gaps(side));
    let [client, server] = [gaps[0].clone()?, gaps[1].clone()?];
    // The length of the other side's stream is known only from acknowledgements.
    let silent = [(0, flow.stream(Side::Server)?.len())];
    if client.len() == 1 && server == silent {
        Ok(())
    } else {
        Err(format!("gaps are {client:?} and {server:?}"))
    }
}

/// Captures, each with the file of one of its whole packets in hexadecimal digits.
const FRAGMENTS: [(&str, &str); 7] = [
    ("ip4_fragments", "ip4_fragments_packet1.txt"),
    ("ip4_fragments", "ip4_fragments_packet4.txt"),
    ("ip4_fragments", "ip4_fragments_packet6.txt"),
    ("ip6_fragments", "ip6_fragments_packet1.txt"),
    ("ip6_fragments", "ip6_fragments_packet2.txt"),
    ("frag_http_req", "frag_http_req_reassembled.txt"),
    ("frag_with_padding", "frag_with_padding_defragmented.dat"),
];

fn fragments(root: &Path) -> Outcome {
    let about = "PcapPlusPlus: payloads of fragmented packets";
    let mut outcome = Outcome::new("PcapPlusPlus fragments", about, Reach::All);
    let tree = Tree::mount(FRAGMENTS.map(|(capture, _)| root.join(capture).with_extension("pcap")));
    for (capture, (_, truth)) in tree.captures().iter().zip(FRAGMENTS) {
        outcome.case(truth, holds_packet(capture, &root.join(truth)));
    }
    outcome.close(tree);
    outcome
}

fn holds_packet(capture: &Capture, truth: &Path) -> Result<(), String> {
    let text = fs::read_to_string(truth).map_err(|error| error.to_string())?;
    let packet = data::hex(&text).ok_or("the truth is not hexadecimal")?;
    let (from, port, payload) = payload(&packet).ok_or("the truth is no packet")?;
    for flow in capture.flows()? {
        for side in Side::BOTH {
            let stream = flow.stream(side)?;
            if flow.endpoint(side)? == (from, port)
                && stream.windows(payload.len()).any(|window| window == payload)
            {
                return Ok(());
            }
        }
    }
    Err(format!("no stream from {from} port {port} has its {} bytes", payload.len()))
}

/// Source address, source port and payload of a whole Ethernet frame.
fn payload(frame: &[u8]) -> Option<(IpAddr, u16, &[u8])> {
    let tag = if frame.get(12..14)? == [0x81, 0] { 4 } else { 0 };
    let ip = frame.get(14 + tag..)?;
    let (from, protocol, rest) = match ip.first()? >> 4 {
        4 => {
            let total = usize::from(u16::from_be_bytes(ip.get(2..4)?.try_into().ok()?));
            let address: [u8; 4] = ip.get(12..16)?.try_into().ok()?;
            let header = usize::from(ip[0] & 15) * 4;
            (IpAddr::from(address), ip.get(9)?, ip.get(header..total.min(ip.len()))?)
        }
        6 => {
            let address: [u8; 16] = ip.get(8..24)?.try_into().ok()?;
            (IpAddr::from(address), ip.get(6)?, ip.get(40..)?)
        }
        _ => return None,
    };
    let port = u16::from_be_bytes(rest.get(..2)?.try_into().ok()?);
    let payload = match protocol {
        6 => rest.get(usize::from(rest.get(12)? >> 4) * 4..)?,
        // Some of these packets have more bytes after their end.
        _ => {
            let length = u16::from_be_bytes(rest.get(4..6)?.try_into().ok()?);
            rest.get(8..usize::from(length))?
        }
    };
    Some((from, port, payload))
}
