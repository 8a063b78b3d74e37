//! Captures of other projects: tshark's result for each TCP and UDP packet, and datagrams that
//! another decoder has put together from fragments.

mod testdata;

use std::collections::{BTreeMap, HashMap};
use std::fmt::Write;
use std::ops::ControlFlow;
use std::path::Path;
use std::process::Command;
use std::time::Duration;

use capture::savefile::stream::StreamEvent;
use protocol::decode::{DecodeOptions, DecodeOutcome, DecodedPacket, Decoder, Reason, Transport};
use protocol::linktype::LinkType;
use protocol::time::Timestamp;
use testdata::{captures, folder, stream};

struct Packet {
    link_type: LinkType,
    /// Number in the file, including packets of other link types, as tshark counts.
    number: u64,
    time: Timestamp,
    original_len: u32,
    data: Vec<u8>,
}

fn packets(path: &Path) -> Vec<Packet> {
    let (mut packets, mut link_type, mut number) = (Vec::new(), LinkType::ETHERNET, 0);
    let _: Option<()> = stream(&std::fs::read(path).unwrap(), usize::MAX, |event| {
        match event {
            StreamEvent::Header(header) => link_type = header.link_type,
            StreamEvent::Foreign { .. } => number += 1,
            StreamEvent::Packet(packet) => {
                number += 1;
                packets.push(Packet {
                    link_type,
                    number,
                    time: packet.time,
                    original_len: packet.original_len,
                    data: packet.data.to_vec(),
                });
            }
            _ => {}
        }
        ControlFlow::Continue(())
    });
    packets
}

fn decode<'d>(decoder: &'d mut Decoder, packet: &Packet) -> DecodeOutcome<'d> {
    let Packet { link_type, number, time, original_len, data } = packet;
    decoder.packet(*link_type, *number, *time, *original_len, data)
}

/// The values that are compared.
#[derive(Debug, PartialEq, Eq)]
struct Summary {
    protocol: u8,
    source: String,
    destination: String,
    ports: (u16, u16),
    len: u32,
    /// Only for TCP.
    sequence: Option<u32>,
    vlans: Vec<u16>,
}

impl Summary {
    fn new(decoded: &DecodedPacket<'_>) -> Option<Self> {
        let ports = match decoded.transport {
            Transport::Tcp(tcp) => (tcp.source_port, tcp.destination_port),
            Transport::Udp { source_port, destination_port } => (source_port, destination_port),
            Transport::Other => return None,
        };
        Some(Self {
            protocol: decoded.protocol,
            source: decoded.source.to_string(),
            destination: decoded.destination.to_string(),
            ports,
            len: decoded.payload.len(),
            sequence: match decoded.transport {
                Transport::Tcp(tcp) => Some(tcp.sequence),
                _ => None,
            },
            vlans: decoded.vlans.as_slice().to_vec(),
        })
    }
}

const FIELDS: [&str; 14] = [
    "frame.number",
    "frame.protocols",
    "ip.src",
    "ip.dst",
    "ipv6.src",
    "ipv6.dst",
    "tcp.srcport",
    "tcp.dstport",
    "tcp.len",
    "udp.srcport",
    "udp.dstport",
    "udp.length",
    "vlan.id",
    "tcp.seq_raw",
];

/// Layers up to the first tunnel that our decoder does not look into, and whether such a tunnel
/// exists.
fn known_layers(protocols: &str) -> (Vec<&str>, bool) {
    let layers: Vec<&str> = protocols.split(':').collect();
    let unknown = ["teredo", "gtp", "gtpprime", "ayiya", "wlan"];
    match layers.iter().position(|layer| unknown.contains(layer)) {
        Some(end) => (layers[..end].to_vec(), true),
        None => (layers, false),
    }
}

/// The innermost TCP or UDP of each packet according to tshark, with its list of protocols. `None`
/// if tshark is not installed.
fn tshark(path: &Path) -> Option<HashMap<u64, (String, Option<Summary>)>> {
    let mut command = Command::new("tshark");
    // Reassembly above IP only costs time. tshark looks into GRE, VXLAN and the like in any case.
    command.args(["-n", "-T", "fields", "-o", "tcp.desegment_tcp_streams:FALSE", "-r"]).arg(path);
    command.args(["-o", "ip.tso_support:TRUE", "-d", "udp.port==8472,vxlan"]);
    for field in FIELDS {
        command.args(["-e", field]);
    }
    let output = command.output().ok()?;
    let text = String::from_utf8_lossy(&output.stdout).into_owned();
    let mut found = HashMap::new();
    for line in text.lines() {
        let values: Vec<&str> = line.split('\t').collect();
        let [
            number,
            protocols,
            source4,
            destination4,
            source6,
            destination6,
            tcp_source,
            tcp_destination,
            tcp_len,
            udp_source,
            udp_destination,
            udp_len,
            vlan,
            tcp_sequence,
        ] = values[..]
        else {
            continue;
        };
        let (layers, is_cut) = known_layers(protocols);
        let count = |name: &str| layers.iter().filter(|layer| **layer == name).count();
        // The innermost of the layers that our decoder looks into.
        let last = |list: &str, name: &str| {
            let index = count(name).saturating_sub(1);
            list.split(',').nth(index).unwrap_or_default().to_owned()
        };
        let number_of = |list: &str, name: &str| last(list, name).parse::<u32>().unwrap_or(0);
        let place = |name: &str| layers.iter().rposition(|layer| *layer == name);
        let innermost_ip = place("ip").max(place("ipv6"));
        let (source, destination) = if place("ip") > place("ipv6") {
            (last(source4, "ip"), last(destination4, "ip"))
        } else {
            (last(source6, "ipv6"), last(destination6, "ipv6"))
        };
        let port = |list, name| u16::try_from(number_of(list, name)).unwrap();
        let (protocol, ports, len) = match (place("tcp"), place("udp")) {
            (tcp, udp) if tcp.max(udp) <= innermost_ip || place("icmp").is_some() => {
                found.insert(number.parse().unwrap(), (protocols.to_owned(), None));
                continue;
            }
            (tcp, udp) if tcp > udp => {
                let ports = (port(tcp_source, "tcp"), port(tcp_destination, "tcp"));
                (6, ports, number_of(tcp_len, "tcp"))
            }
            _ => {
                let len = number_of(udp_len, "udp").saturating_sub(8);
                (17, (port(udp_source, "udp"), port(udp_destination, "udp")), len)
            }
        };
        let vlan = if is_cut { vlan.split(',').next().unwrap() } else { vlan };
        let vlans = vlan.split(',').filter_map(|id| id.parse().ok()).filter(|id| *id != 0);
        let vlans = vlans.collect();
        let sequence = (protocol == 6).then(|| number_of(tcp_sequence, "tcp"));
        let summary = Summary { protocol, source, destination, ports, len, sequence, vlans };
        found.insert(number.parse().unwrap(), (protocols.to_owned(), Some(summary)));
    }
    Some(found)
}

/// Packets for which tshark 4.0 gives another result than the correct one, and the reason.
const DIFFERENT: [(&str, u64, &str); 8] = [
    ("ipv4/fragmented-1.pcap", 3, "goes beyond the end of its datagram: nothing to show of it"),
    ("ipv6-reassembly-state-leak.pcap", 46, "UDP length 0: here what IP says, there an error"),
    ("ip-discarder-truncated-tcp-oob.pcapng", 1, "the TCP header is cut before the flags"),
    ("tcp_header_heapoverflow.pcap", 1, "the TCP header is cut before the flags"),
    ("bigtcp-ipv4-geneve-ipv4.pcap", 1, "BIG TCP in a tunnel: tshark sees no payload"),
    ("bigtcp-ipv4-vxlan-ipv4.pcap", 1, "BIG TCP in a tunnel: tshark sees no payload"),
    ("bigtcp-ipv6-geneve-ipv6.pcap", 1, "BIG TCP in a tunnel: tshark sees no payload"),
    ("bigtcp-ipv6-vxlan-ipv6.pcap", 1, "BIG TCP in a tunnel: tshark sees no payload"),
];

#[test]
fn tcp_and_udp_packets_are_decoded_as_tshark_decodes_them() {
    let Some(folder) = folder() else {
        eprintln!("skipped: no captures; set PCAPFS_TESTDATA to a folder of them");
        return;
    };
    let wanted = std::env::var("DECODE_ONLY").unwrap_or_default();
    let mut files = Vec::new();
    for project in
        ["zeek+zeek", "arkime+arkime", "seladb+PcapPlusPlus", "the-tcpdump-group+tcpdump"]
    {
        let folder = folder.join(project);
        if folder.is_dir() {
            files.extend(captures(&folder));
        }
    }
    files.retain(|path| path.to_string_lossy().contains(&wanted));
    let (mut agreed, mut differences) = (0, String::new());
    for path in &files {
        let Some(expected) = tshark(path) else {
            eprintln!("not compared: tshark is not installed");
            return;
        };
        // tshark waits for fragments for ever.
        let options = DecodeOptions { fragment_timeout: Duration::MAX, ..DecodeOptions::default() };
        let mut decoder = Decoder::new(options);
        for packet in packets(path) {
            let Some((protocols, expected)) = expected.get(&packet.number) else {
                continue;
            };
            let outcome = decode(&mut decoder, &packet);
            let found = match &outcome {
                DecodeOutcome::Decoded(decoded) => Summary::new(decoded),
                _ => None,
            };
            if found == *expected {
                agreed += 1;
                continue;
            }
            let name = path.strip_prefix(&folder).unwrap().display();
            let known = DIFFERENT
                .iter()
                .find(|(file, number, _)| path.ends_with(file) && *number == packet.number);
            if let Some((_, number, why)) = known {
                eprintln!("{name} {number}: {why}");
            } else {
                writeln!(
                    differences,
                    "{name} {}: {protocols}\n  tshark {expected:?}\n  here   {found:?} {}",
                    packet.number,
                    match &outcome {
                        DecodeOutcome::Undecoded(reason) => reason.name(),
                        DecodeOutcome::Fragment => "fragment",
                        DecodeOutcome::Decoded(_) => "",
                    }
                )
                .unwrap();
            }
        }
    }
    eprintln!("{} files, {agreed} packets agree", files.len());
    assert!(differences.is_empty(), "\n{differences}");
}

#[test]
fn datagrams_in_fragments_are_reassembled_as_another_decoder_does() {
    let folder =
        folder().map(|folder| folder.join("seladb+PcapPlusPlus/Tests/Pcap++Test/PcapExamples"));
    let Some(folder) = folder.filter(|folder| folder.is_dir()) else {
        eprintln!("skipped: no captures; set PCAPFS_TESTDATA to a folder of them");
        return;
    };
    // The headers of Ethernet, IP and the transport layer come before the payload.
    for (capture, truths, headers_len) in [
        (
            "ip4_fragments.pcap",
            &["ip4_fragments_packet1", "ip4_fragments_packet4", "ip4_fragments_packet6"][..],
            14 + 20 + 8,
        ),
        ("ip6_fragments.pcap", &["ip6_fragments_packet1", "ip6_fragments_packet2"], 14 + 40 + 8),
        ("frag_http_req.pcap", &["frag_http_req_reassembled"], 14 + 20 + 20),
        // With a VLAN tag.
        ("frag_with_padding.pcap", &["frag_with_padding_defragmented"], 18 + 20 + 8),
    ] {
        let packets = packets(&folder.join(capture));
        let mut decoder = Decoder::new(DecodeOptions::default());
        let mut payloads = Vec::new();
        for packet in &packets {
            if let DecodeOutcome::Decoded(decoded) = decode(&mut decoder, packet) {
                let mut bytes: Vec<u8> = Vec::new();
                for part in decoded.payload.parts() {
                    assert_eq!(part.at as usize, bytes.len());
                    let number = part.extent.packet;
                    let origin = packets.iter().find(|packet| packet.number == number);
                    bytes.extend(&origin.unwrap().data[part.extent.range()]);
                }
                payloads.push(bytes);
            }
        }
        for truth in truths {
            let path = ["txt", "dat"]
                .map(|extension| folder.join(truth).with_extension(extension))
                .into_iter()
                .find(|path| path.exists());
            let text = std::fs::read_to_string(path.unwrap()).unwrap();
            let digits: Vec<u8> = text.bytes().filter(u8::is_ascii_hexdigit).collect();
            let frame: Vec<u8> = digits
                .chunks(2)
                .map(|pair| u8::from_str_radix(std::str::from_utf8(pair).unwrap(), 16).unwrap())
                .collect();
            let mut payload = &frame[headers_len..];
            if headers_len % 20 != 14 {
                // The datagram may be longer than the length in the UDP header.
                let field = &frame[headers_len - 4..headers_len - 2];
                let len = usize::from(u16::from_be_bytes([field[0], field[1]]));
                payload = &payload[..len - 8];
            }
            assert!(payloads.iter().any(|found| found == payload), "{truth}");
        }
    }
}

#[test]
fn whatever_is_in_a_capture_the_counters_add_up() {
    let Some(folder) = folder() else {
        eprintln!("skipped: no captures; set PCAPFS_TESTDATA to a folder of them");
        return;
    };
    let files = captures(&folder);
    let mut reasons = BTreeMap::new();
    let mut decoded = 0;
    for path in &files {
        let mut decoder = Decoder::new(DecodeOptions::default());
        let packets = packets(path);
        for packet in &packets {
            if let DecodeOutcome::Decoded(decoded) = decode(&mut decoder, packet) {
                let captured = decoded.payload.parts().map(|part| part.extent.len).sum::<u32>();
                assert_eq!(captured, decoded.payload.captured());
            }
        }
        let counters = decoder.counters();
        let undecoded = Reason::ALL.map(|reason| counters.undecoded(reason));
        assert_eq!(counters.packets, packets.len() as u64);
        let sum = counters.decoded + counters.fragments + undecoded.iter().sum::<u64>();
        assert_eq!(sum, counters.packets, "{}", path.display());
        decoded += counters.decoded;
        for (reason, count) in Reason::ALL.into_iter().zip(undecoded) {
            *reasons.entry(reason.name()).or_insert(0) += count;
        }
    }
    eprintln!("{} files, {decoded} packets decoded, not: {reasons:?}", files.len());
}
