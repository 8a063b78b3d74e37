//! Captures of DNS by other projects: each message is compared with what tshark says of it. In all
//! captures, nothing else is taken for DNS.

mod testdata;

use std::collections::HashMap;
use std::fmt::Write;
use std::net::SocketAddr;
use std::ops::ControlFlow;
use std::path::{Path, PathBuf};
use std::process::Command;

use capture::savefile::stream::StreamEvent;
use protocol::decode::{DecodeOptions, DecodeOutcome, DecodedPacket, Decoder, Transport};
use protocol::dns::{DnsRecord, Framer, Pairing, RawMessage, probe};
use protocol::flow_context::FlowContext;
use protocol::linktype::LinkType;
use protocol::tcp::Direction;
use protocol::time::Timestamp;
use protocol::verdict::ProbeVerdict;
use serde_json::Value;
use testdata::{captures, folders, stream};

/// The folders with DNS, and the captures in others. The tests of other projects cover malformed
/// messages, every kind of record, updates, EDNS, mDNS and TCP.
const WITH_DNS: [&str; 23] = [
    "OISF+suricata-verify/tests/dns",
    "OISF+suricata-verify/tests/dns-opcode",
    "OISF+suricata-verify/tests/dns-reversed-udp-1",
    "OISF+suricata-verify/tests/dns-udp-junkrequest-first",
    "OISF+suricata-verify/tests/dns-eve-type-filtering",
    "OISF+suricata-verify/pcaps",
    "zeek+zeek/testing/btest/Traces/dns",
    "zeek+zeek/testing/btest/Traces/dnssec",
    "zeek+zeek/testing/btest/Traces/dns-edns-cookie.pcap",
    "zeek+zeek/testing/btest/Traces/dns-edns-ecs-weirds.pcap",
    "zeek+zeek/testing/btest/Traces/dns-https.pcap",
    "zeek+zeek/testing/btest/Traces/dns-svcb-rdlength-mismatch.pcap",
    "zeek+zeek/testing/btest/Traces/dns-tsig.pcap",
    "zeek+zeek/testing/btest/Traces/dns-txt-multiple.pcap",
    "zeek+zeek/testing/btest/Traces/dns_original_case.pcap",
    "zeek+zeek/testing/btest/Traces/ipv6-fragmented-dns.pcap",
    "arkime+arkime/tests/pcap/dns-wiresharkrepo.pcap",
    "arkime+arkime/tests/pcap/dns-udp.pcap",
    "arkime+arkime/tests/pcap/dns-dnskey.pcap",
    "arkime+arkime/tests/pcap/dns-https.pcap",
    "arkime+arkime/tests/pcap/dns-punycode.pcap",
    "seladb+PcapPlusPlus/Tests/Pcap++Test/PcapExamples/DnsPackets.pcap",
    "seladb+PcapPlusPlus/Tests/Packet++Test/PacketExamples/dns_over_tcp.pcapng",
];

/// One flow: its transactions, and its streams if it is TCP.
struct Flow {
    pairing: Pairing,
    is_dns: bool,
    ends: [SocketAddr; 2],
    framers: [Framer; 2],
    /// The next sequence number of each direction.
    next: [Option<u32>; 2],
    /// The bytes of each direction, until it is known what they are.
    begin: [Vec<(u64, Vec<u8>)>; 2],
    is_foreign: [bool; 2],
}

/// The ends of a flow, and whether it is TCP.
type Key = (SocketAddr, SocketAddr, bool);

/// The flows of a capture.
#[derive(Default)]
struct Flows {
    flows: HashMap<Key, Flow>,
    order: Vec<Key>,
}

/// The time by which the packet with this number is known again.
fn moment(number: u64) -> Timestamp {
    Timestamp::from_nanoseconds(number)
}

impl Flows {
    fn of(path: &Path) -> Self {
        let (mut flows, mut link_type, mut number) = (Self::default(), LinkType::ETHERNET, 0);
        let (mut data, mut decoder) = (HashMap::new(), Decoder::new(DecodeOptions::default()));
        let _: Option<()> = stream(&std::fs::read(path).unwrap(), usize::MAX, |event| {
            match event {
                StreamEvent::Header(header) => link_type = header.link_type,
                StreamEvent::Foreign { .. } => number += 1,
                StreamEvent::Packet(packet) => {
                    number += 1;
                    data.insert(number, packet.data.to_vec());
                    let (time, len) = (packet.time, packet.original_len);
                    let outcome = decoder.packet(link_type, number, time, len, packet.data);
                    if let DecodeOutcome::Decoded(decoded) = outcome {
                        flows.packet(number, &decoded, &data);
                    }
                }
                _ => {}
            }
            ControlFlow::Continue(())
        });
        flows
    }

    fn packet(&mut self, number: u64, decoded: &DecodedPacket<'_>, data: &HashMap<u64, Vec<u8>>) {
        let (ports, tcp) = match decoded.transport {
            Transport::Tcp(tcp) => ((tcp.source_port, tcp.destination_port), Some(tcp)),
            Transport::Udp { source_port, destination_port } => {
                ((source_port, destination_port), None)
            }
            Transport::Other => return,
        };
        let from = SocketAddr::new(decoded.source, ports.0);
        let to = SocketAddr::new(decoded.destination, ports.1);
        // The bytes up to the first that was not captured.
        let mut bytes = Vec::new();
        for part in decoded.payload.parts() {
            if part.at as usize == bytes.len() {
                bytes.extend(&data[&part.extent.packet][part.extent.range()]);
            }
        }
        let (key, direction) = match self.flows.contains_key(&(to, from, tcp.is_some())) {
            true => ((to, from, tcp.is_some()), Direction::Backward),
            false => ((from, to, tcp.is_some()), Direction::Forward),
        };
        let flow = self.flows.entry(key).or_insert_with(|| {
            self.order.push(key);
            let has_beginning = tcp.is_some_and(|tcp| tcp.flags.0 & 2 != 0);
            let framer = || if has_beginning { Framer::new() } else { Framer::joined() };
            Flow {
                pairing: Pairing::new([from, to]),
                is_dns: false,
                ends: [from, to],
                framers: [framer(), framer()],
                next: [None; 2],
                begin: Default::default(),
                is_foreign: [false; 2],
            }
        });
        let len = decoded.payload.len() as usize;
        match tcp {
            None => flow.datagram(number, direction, &bytes, len),
            Some(tcp) => {
                flow.segment(number, direction, &bytes, tcp.sequence, tcp.flags.0 & 2 != 0)
            }
        }
    }
}

impl Flow {
    fn ports(&self) -> [u16; 2] {
        self.ends.map(|end| end.port())
    }

    fn datagram(&mut self, number: u64, direction: Direction, bytes: &[u8], len: usize) {
        self.is_dns |= probe::datagram(bytes, len, self.ports());
        if self.is_dns {
            self.pairing.push(direction, RawMessage::datagram(bytes, len, moment(number)));
        }
    }

    /// Takes a segment if it comes in order.
    fn segment(
        &mut self,
        number: u64,
        direction: Direction,
        bytes: &[u8],
        sequence: u32,
        syn: bool,
    ) {
        let ports = self.ports();
        let side = usize::from(direction == Direction::Backward);
        if syn {
            self.next[side] = Some(sequence.wrapping_add(1));
            return;
        }
        let next = *self.next[side].get_or_insert(sequence);
        if bytes.is_empty() || next != sequence {
            return;
        }
        self.next[side] = Some(next.wrapping_add(u32::try_from(bytes.len()).unwrap()));
        if !self.is_dns && self.is_foreign[side] {
            return;
        }
        self.begin[side].push((number, bytes.to_vec()));
        let begin: Vec<_> = self.begin[side].iter().flat_map(|(_, bytes)| bytes.clone()).collect();
        if !self.is_dns {
            let verdict = probe::stream(&begin, ports);
            self.is_dns = verdict == ProbeVerdict::Yes;
            self.is_foreign[side] = verdict == ProbeVerdict::No;
        }
        if self.is_dns {
            let Self { framers, pairing, begin, .. } = self;
            let mut each = |message: RawMessage<'_>| pairing.push(direction, message);
            for (number, bytes) in std::mem::take(&mut begin[side]) {
                framers[side].data(moment(number), &bytes, &mut each);
            }
        }
    }

    fn lines(&mut self) -> Vec<Value> {
        let Self { framers, pairing, ends, .. } = self;
        for (framer, direction) in framers.iter_mut().zip([Direction::Forward, Direction::Backward])
        {
            framer.close(&mut |message: RawMessage<'_>| pairing.push(direction, message));
        }
        pairing.close();
        std::iter::from_fn(|| pairing.finished())
            .map(|transaction| {
                let context = FlowContext::new("c", 1, *ends, transaction.asked);
                serde_json::to_value(DnsRecord::new(&context, &transaction)).unwrap()
            })
            .collect()
    }
}

/// The number of the packet whose time is in a line.
fn packet(line: &Value, field: &str) -> Option<u64> {
    let text = line[field].as_str()?;
    text.strip_suffix('Z')?.rsplit('.').next()?.parse().ok()
}

/// A message according to tshark.
#[derive(Debug)]
struct Message {
    number: u64,
    is_response: bool,
    id: u64,
    questions: Vec<(String, u64)>,
    /// Type, time to live, and data of each answer; `None` if the data is not compared.
    answers: Vec<(u64, u64, Option<String>)>,
    rcode: Option<u64>,
    response_to: Option<u64>,
    /// Whether tshark pairs it as we do: not for mDNS, and not after malformed records.
    has_pairing: bool,
    /// The first packet of a message in a stream.
    first: Option<u64>,
}

fn number(text: &Value) -> Option<u64> {
    let text = text.as_str()?;
    text.strip_prefix("0x")
        .map_or_else(|| text.parse().ok(), |hex| u64::from_str_radix(hex, 16).ok())
}

/// The values of an object, those of equal keys apart.
fn entries(object: &Value) -> Vec<&Value> {
    let entries = object.as_object().into_iter().flat_map(|object| object.values());
    entries
        .flat_map(|entry| entry.as_array().map_or_else(|| vec![entry], |all| all.iter().collect()))
        .collect()
}

fn name(text: &str) -> String {
    if text == "<Root>" { ".".to_owned() } else { text.to_owned() }
}

fn data(answer: &Value, record_type: u64) -> Option<String> {
    let text = |field: &str| answer[field].as_str();
    let names = |field: &str| text(field).map(name);
    match record_type {
        1 => text("dns.a").map(str::to_owned),
        2 => names("dns.ns"),
        5 => names("dns.cname"),
        12 => names("dns.ptr.domain_name"),
        15 => Some(format!("{} {}", text("dns.mx.preference")?, names("dns.mx.mail_exchange")?)),
        28 => text("dns.aaaa").map(str::to_owned),
        33 => Some(format!(
            "{} {} {} {}",
            text("dns.srv.priority")?,
            text("dns.srv.weight")?,
            text("dns.srv.port")?,
            names("dns.srv.target")?
        )),
        _ => None,
    }
}

/// The messages of a capture according to tshark. `None` if tshark is not installed.
fn tshark(path: &Path) -> Option<Vec<Message>> {
    let mut command = Command::new("tshark");
    command.args(["-n", "-T", "json", "--no-duplicate-keys", "-Y", "dns || mdns", "-r"]);
    let output = command.arg(path).output().ok()?;
    let packets: Vec<Value> = serde_json::from_slice(&output.stdout).unwrap_or_default();
    let mut messages = Vec::new();
    for packet in &packets {
        let layers = &packet["_source"]["layers"];
        let protocols = layers["frame"]["frame.protocols"].as_str().unwrap();
        if protocols.contains("icmp") || protocols.contains("tls") {
            continue;
        }
        let frame = number(&layers["frame"]["frame.number"]).unwrap();
        let is_malformed = layers.get("_ws.malformed").is_some();
        let layer = if layers.get("dns").is_some() { &layers["dns"] } else { &layers["mdns"] };
        let all = layer.as_array().map_or_else(|| vec![layer], |all| all.iter().collect());
        for dns in all {
            let flags = &dns["dns.flags_tree"];
            let Some(id) = number(&dns["dns.id"]) else { continue };
            let question = |query: &&Value| {
                let name = name(query["dns.qry.name"].as_str()?);
                Some((name, number(&query["dns.qry.type"])?))
            };
            let answer = |answer: &&Value| {
                let record_type = number(&answer["dns.resp.type"])?;
                let ttl = number(&answer["dns.resp.ttl"])?;
                Some((record_type, ttl, data(answer, record_type)))
            };
            let sections = |name: &str| entries(&dns[name]).into_iter().collect::<Vec<_>>();
            messages.push(Message {
                number: frame,
                is_response: flags["dns.flags.response"] == "1",
                id,
                questions: ["Queries", "Zone"]
                    .iter()
                    .flat_map(|name| sections(name))
                    .filter_map(|one| question(&one))
                    .collect(),
                answers: sections("Answers").iter().filter_map(answer).collect(),
                rcode: number(&flags["dns.flags.rcode"]),
                response_to: number(&dns["dns.response_to"]),
                has_pairing: !is_malformed && layers.get("mdns").is_none(),
                first: number(&layers["tcp.segments"]["tcp.segment"])
                    .or_else(|| number(&layers["tcp.segments"]["tcp.segment"][0])),
            });
        }
    }
    Some(messages)
}

/// The captures with DNS.
fn with_dns() -> Vec<PathBuf> {
    let folders = folders(&["testdata", "testdata-inside"]);
    let places = folders.iter().flat_map(|folder| WITH_DNS.iter().map(|path| folder.join(path)));
    let found = places
        .filter(|place| place.exists())
        .flat_map(|place| if place.is_dir() { captures(&place) } else { vec![place] });
    found.collect()
}

/// The differences between a message and the lines.
fn compare(message: &Message, lines: &[Value]) -> Option<String> {
    let side = if message.is_response { "answered" } else { "queried" };
    let mine: Vec<_> = lines
        .iter()
        .filter(|line| line["id"] == message.id)
        .filter(|line| match packet(line, side) {
            Some(number) if message.is_response => number == message.number,
            // tshark counts the last packet of a message, and a query the first.
            Some(number) => number == message.number || message.first == Some(number),
            None => false,
        })
        .collect();
    let types = |line: &Value| (line["name"].as_str().map(unescaped), line["type"].clone());
    if !message.is_response {
        let repeated = lines.iter().any(|line| {
            line["id"] == message.id
                && line["why"].as_str().is_some_and(|why| why.contains("asked"))
        });
        if mine.is_empty() && !repeated {
            return Some("no line".to_owned());
        }
        let names: Vec<_> = mine.iter().filter_map(|line| types(line).0).collect();
        let names_of = message.questions.iter().map(|(name, _)| name.clone());
        let expected: Vec<_> = names_of.filter(|name| !name.starts_with('<')).collect();
        return (!repeated && names != expected).then(|| format!("{names:?} not {expected:?}"));
    }
    let Some(line) = mine.first() else { return Some("no line".to_owned()) };
    if let Some((first, _)) = message.questions.first()
        && types(line).0.as_deref() != Some(first)
    {
        return Some(format!("{} not {first}", line["name"]));
    }
    let answers = line["answers"].as_array().unwrap();
    let is_whole = line["why"].as_str().is_none_or(|why| !why.contains("no room"));
    if is_whole && answers.len() != message.answers.len() {
        return Some(format!("{} answers not {}", answers.len(), message.answers.len()));
    }
    // The order of entries gets lost in objects of JSON.
    for (_, ttl, data) in &message.answers {
        let is_it = |answer: &&Value| {
            let shown = answer["data"].as_str().map(unescaped);
            answer["ttl"] == *ttl && (data.is_none() || shown == *data)
        };
        if is_whole && !answers.iter().any(|answer| is_it(&answer)) {
            return Some(format!("no answer {ttl} {data:?}"));
        }
    }
    let queried = packet(line, "queried");
    let is_repeated = line["why"].as_str().is_some_and(|why| why.contains("asked"));
    if message.has_pairing && !is_repeated && queried != message.response_to {
        return Some(format!("answers {queried:?} not {:?}: {}", message.response_to, line["why"]));
    }
    (line["rcode"] == "NOERROR" && message.rcode != Some(0)).then(|| format!("{}", line["rcode"]))
}

/// A name without the escapes of RFC 1035.
fn unescaped(text: &str) -> String {
    let (mut bytes, mut rest) = (Vec::new(), text.as_bytes());
    while let [first, after @ ..] = rest {
        rest = after;
        match (first, after) {
            (b'\\', [a @ b'0'..=b'9', b, c, after @ ..]) => {
                bytes.push((a - b'0') * 100 + (b - b'0') * 10 + (c - b'0'));
                rest = after;
            }
            (b'\\', [special, after @ ..]) => {
                bytes.push(*special);
                rest = after;
            }
            _ => bytes.push(*first),
        }
    }
    String::from_utf8_lossy(&bytes).into_owned()
}

/// Messages for which tshark 4.0 says something else, and the reason.
const DIFFERENT: [(&str, u64, &str); 3] = [
    ("dns-udp-junkrequest-first/input.pcap", 1, "SNMP to port 53"),
    ("dns-udp-junkrequest-first/input.pcap", 2, "tshark pairs it with that"),
    ("dns-incomplete/input.pcap", 13, "tshark pairs it by its id, and it answers another type"),
];

#[test]
fn messages_are_what_tshark_says_they_are() {
    let (mut agreed, mut differences) = (0, String::new());
    let captures = with_dns();
    if captures.is_empty() {
        eprintln!("skipped: no captures of other projects");
        return;
    }
    for path in captures {
        let Some(messages) = tshark(&path) else {
            eprintln!("not compared: tshark is not installed");
            return;
        };
        let mut flows = Flows::of(&path);
        let order = std::mem::take(&mut flows.order);
        let lines: Vec<_> =
            order.iter().flat_map(|key| flows.flows.get_mut(key).unwrap().lines()).collect();
        for message in messages {
            let is_known = |(file, number, _): &&(&str, u64, &str)| {
                path.ends_with(file) && *number == message.number
            };
            match (compare(&message, &lines), DIFFERENT.iter().find(is_known)) {
                (None, _) => agreed += 1,
                (Some(_), Some((file, number, why))) => eprintln!("{file} {number}: {why}"),
                (Some(difference), None) => {
                    writeln!(differences, "{} {}: {difference}", path.display(), message.number)
                        .unwrap()
                }
            }
        }
    }
    eprintln!("{agreed} messages agree");
    assert!(differences.is_empty(), "\n{differences}");
}

#[test]
fn nothing_else_is_taken_for_dns() {
    let folders = folders(&["testdata", "testdata-inside"]);
    let mut found = String::new();
    let mut count = 0;
    // A query for `localhost`, on no known port.
    let real = [("vxlan-decoder-01/input.pcap", 12345)];
    for path in folders.iter().flat_map(|folder| captures(folder)) {
        let flows = Flows::of(&path);
        for key in flows.order.iter().filter(|key| flows.flows[key].is_dns) {
            count += 1;
            let (from, to, is_tcp) = key;
            let ports = [from.port(), to.port()];
            let is_real =
                real.iter().any(|(file, port)| path.ends_with(file) && ports.contains(port));
            if !is_real && ![53, 5353, 5355].iter().any(|port| ports.contains(port)) {
                let protocol = if *is_tcp { "tcp" } else { "udp" };
                writeln!(found, "{}: {protocol} {from} {to}", path.display()).unwrap();
            }
        }
    }
    eprintln!("{count} flows of DNS");
    assert!(found.is_empty(), "\n{found}");
}
