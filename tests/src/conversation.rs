//! Handmade conversations: packets as a network carries them, and as it should not.
//!
//! ```ignore
//! let mut talk = Conversation::tcp("10.0.0.1:40000", "10.0.0.2:80");
//! talk.open().says(Client, b"hello").says(Server, b"world").close(Client);
//! let savefile = savefile_of([talk]);
//! ```
//!
//! Every packet has a time of its own, which shows its place in the order. Checksums are right.

use std::net::{IpAddr, SocketAddr};

use frames::{HARDWARE, IPV4, IPV6, TCP, UDP, ethernet_header, ip, tcp, udp};

pub use frames::flags::{ACK, FIN, PSH, RST, SYN};

use crate::savefile::Format;

/// One of the two ends.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Side {
    /// The side that begins.
    Client,
    /// The side that answers.
    Server,
}

pub use Side::{Client, Server};

impl Side {
    /// The other side.
    #[must_use]
    pub const fn other(self) -> Self {
        match self {
            Client => Server,
            Server => Client,
        }
    }

    const fn index(self) -> usize {
        match self {
            Client => 0,
            Server => 1,
        }
    }
}

/// The default start of conversations, in nanoseconds since the Unix epoch.
pub const EPOCH: u64 = 1_700_000_000_123_456_789;
/// The default time between two packets of a conversation: 1 ms and 1 ns.
pub const STEP: u64 = 1_000_001;
/// Nanoseconds of a second.
pub const SECOND: u64 = 1_000_000_000;

/// A packet as captured.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Packet {
    /// Nanoseconds since the Unix epoch.
    pub time: u64,
    /// The Ethernet frame.
    pub data: Vec<u8>,
    /// The sender.
    pub from: Side,
}

impl Packet {
    /// Appends its record in the default format.
    pub fn append(&self, bytes: &mut Vec<u8>) {
        Format::default().append(bytes, self.time, &self.data, self.data.len());
    }
}

/// The headers around the IP packets.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Around {
    Vxlan(u32),
    Gre,
}

/// A conversation under construction.
#[derive(Clone, Debug)]
pub struct Conversation {
    ends: [SocketAddr; 2],
    is_udp: bool,
    /// Next sequence numbers.
    next: [u32; 2],
    /// The bytes that each side has sent, as its peer has them.
    streams: [Vec<u8>; 2],
    time: u64,
    step: u64,
    most: usize,
    vlans: Vec<u16>,
    around: Option<Around>,
    /// The captured packets.
    pub packets: Vec<Packet>,
}

impl Conversation {
    fn new(client: &str, server: &str, is_udp: bool) -> Self {
        let end = |text: &str| text.parse().unwrap_or_else(|_| panic!("{text} is no endpoint"));
        Self {
            ends: [end(client), end(server)],
            is_udp,
            next: [1_000_000, 2_000_000],
            streams: [Vec::new(), Vec::new()],
            time: EPOCH,
            step: STEP,
            most: 1_460,
            vlans: Vec::new(),
            around: None,
            packets: Vec::new(),
        }
    }

    /// TCP between these endpoints, such as `10.0.0.1:40000` and `[fd00::2]:80`.
    #[must_use]
    pub fn tcp(client: &str, server: &str) -> Self {
        Self::new(client, server, false)
    }

    /// UDP between these endpoints.
    #[must_use]
    pub fn udp(client: &str, server: &str) -> Self {
        Self::new(client, server, true)
    }

    /// Sets the start time.
    #[must_use]
    pub fn at(mut self, time: u64) -> Self {
        self.time = time;
        self
    }

    /// Sets the time between packets.
    #[must_use]
    pub fn every(mut self, step: u64) -> Self {
        self.step = step;
        self
    }

    /// Limits the payload of a segment.
    #[must_use]
    pub fn segments_of(mut self, most: usize) -> Self {
        self.most = most;
        self
    }

    /// Sets the sequence numbers of the SYNs.
    #[must_use]
    pub fn numbered_from(mut self, client: u32, server: u32) -> Self {
        self.next = [client, server];
        self
    }

    /// Adds VLAN tags to the frames, the outermost tag first.
    #[must_use]
    pub fn tagged(mut self, vlans: &[u16]) -> Self {
        self.vlans = vlans.to_vec();
        self
    }

    /// Puts the packets into a VXLAN with this number, between 192.0.2.1 and 192.0.2.2.
    #[must_use]
    pub fn in_vxlan(mut self, network: u32) -> Self {
        self.around = Some(Around::Vxlan(network));
        self
    }

    /// Puts the packets into GRE without a key, between 192.0.2.1 and 192.0.2.2.
    #[must_use]
    pub fn in_gre(mut self) -> Self {
        self.around = Some(Around::Gre);
        self
    }

    /// The name of its directory as flow number `id`.
    #[must_use]
    pub fn name(&self, id: u64) -> String {
        let protocol = if self.is_udp { "udp" } else { "tcp" };
        let name = |end: SocketAddr| format!("{}.{}", end.ip(), end.port()).replace(':', "_");
        let [client, server] = self.ends.map(name);
        format!("{id:06}-{protocol}-{client}-{server}")
    }

    /// The bytes that a side has sent so far, each once.
    #[must_use]
    pub fn stream(&self, side: Side) -> &[u8] {
        &self.streams[side.index()]
    }

    /// The number of a side's captured packets.
    #[must_use]
    pub fn count(&self, side: Side) -> u64 {
        self.packets.iter().filter(|packet| packet.from == side).count() as u64
    }

    /// The number of bytes in a side's captured packets.
    #[must_use]
    pub fn bytes(&self, side: Side) -> u64 {
        let of_side = self.packets.iter().filter(|packet| packet.from == side);
        of_side.map(|packet| packet.data.len() as u64).sum()
    }

    /// The next sequence number of a side.
    #[must_use]
    pub fn next(&self, side: Side) -> u32 {
        self.next[side.index()]
    }

    /// Time of the first and of the last packet captured.
    #[must_use]
    pub fn times(&self) -> (u64, u64) {
        (self.packets[0].time, self.packets[self.packets.len() - 1].time)
    }

    /// SYN, SYN-ACK, ACK.
    pub fn open(&mut self) -> &mut Self {
        self.syn().syn_ack().ack(Client)
    }

    /// The client's SYN.
    pub fn syn(&mut self) -> &mut Self {
        let number = self.next(Client);
        self.raw(Client, number, 0, SYN, &[]);
        self.advance(Client, 1)
    }

    /// The server's SYN-ACK.
    pub fn syn_ack(&mut self) -> &mut Self {
        let number = self.next(Server);
        let peer = self.next(Client);
        self.raw(Server, number, peer, SYN | ACK, &[]);
        self.advance(Server, 1)
    }

    /// An acknowledgment of everything that the peer has sent.
    pub fn ack(&mut self, side: Side) -> &mut Self {
        self.again(side, 0, ACK, &[])
    }

    /// Sends bytes, in one or more segments or datagrams.
    pub fn says(&mut self, side: Side, bytes: impl AsRef<[u8]>) -> &mut Self {
        for part in bytes.as_ref().chunks(self.most) {
            if self.is_udp {
                self.raw(side, 0, 0, 0, part);
            } else {
                self.again(side, 0, ACK | PSH, part);
                self.advance(side, u32::try_from(part.len()).expect("a segment"));
            }
            self.streams[side.index()].extend_from_slice(part);
        }
        self
    }

    /// Sends bytes that are not captured.
    pub fn unseen(&mut self, side: Side, bytes: impl AsRef<[u8]>) -> &mut Self {
        let (captured, time) = (self.packets.len(), self.time);
        self.says(side, bytes);
        self.packets.truncate(captured);
        self.time = time;
        self
    }

    /// Both sides send their FIN, `first` before the other, and acknowledge.
    pub fn close(&mut self, first: Side) -> &mut Self {
        self.fin(first).fin(first.other()).ack(first)
    }

    /// A side's FIN.
    pub fn fin(&mut self, side: Side) -> &mut Self {
        self.again(side, 0, FIN | ACK, &[]);
        self.advance(side, 1)
    }

    /// A side's reset.
    pub fn reset(&mut self, side: Side) -> &mut Self {
        self.again(side, 0, RST | ACK, &[])
    }

    /// A segment that begins `back` bytes before the next byte due, and does not change that byte.
    pub fn again(&mut self, side: Side, back: u32, flags: u8, bytes: &[u8]) -> &mut Self {
        let number = self.next(side).wrapping_sub(back);
        let peer = self.next(side.other());
        self.raw(side, number, peer, flags, bytes)
    }

    /// Lets time pass.
    pub fn wait(&mut self, nanoseconds: u64) -> &mut Self {
        self.time += nanoseconds;
        self
    }

    /// Exchanges the last two captured packets, but not their times.
    pub fn swap(&mut self) -> &mut Self {
        let last = self.packets.len() - 1;
        self.exchange(last - 1, last)
    }

    /// Exchanges two packets, but not their times.
    pub fn exchange(&mut self, one: usize, other: usize) -> &mut Self {
        self.packets.swap(one, other);
        let time = self.packets[one].time;
        self.packets[one].time = self.packets[other].time;
        self.packets[other].time = time;
        self
    }

    /// Captures the last packet a second time.
    pub fn repeat(&mut self) -> &mut Self {
        let mut packet = self.packets[self.packets.len() - 1].clone();
        packet.time = self.time;
        self.time += self.step;
        self.packets.push(packet);
        self
    }

    /// Removes the last captured packet.
    pub fn lose(&mut self) -> &mut Self {
        self.packets.pop();
        self
    }

    /// Keeps only the packets that this side sent.
    pub fn only(&mut self, side: Side) -> &mut Self {
        self.packets.retain(|packet| packet.from == side);
        self
    }

    fn advance(&mut self, side: Side, bytes: u32) -> &mut Self {
        let next = &mut self.next[side.index()];
        *next = next.wrapping_add(bytes);
        self
    }

    /// A segment with these numbers, or a datagram.
    pub fn raw(
        &mut self,
        from: Side,
        sequence: u32,
        acknowledgment: u32,
        flags: u8,
        payload: &[u8],
    ) -> &mut Self {
        let (source, destination) = (self.ends[from.index()], self.ends[from.other().index()]);
        let transport = if self.is_udp {
            udp(source, destination, payload)
        } else {
            tcp(source, destination, [sequence, acknowledgment], flags, payload)
        };
        let protocol = if self.is_udp { UDP } else { TCP };
        let inner = ip(source.ip(), destination.ip(), protocol, &transport);
        let outer = [[192, 0, 2, 1], [192, 0, 2, 2]].map(IpAddr::from);
        let (here, there) = (outer[from.index()], outer[from.other().index()]);
        let data = match self.around {
            None => ethernet(from, &self.vlans, &inner),
            Some(Around::Vxlan(network)) => {
                let mut bytes = (0x0800_0000u32).to_be_bytes().to_vec();
                bytes.extend((network << 8).to_be_bytes());
                bytes.extend(ethernet(from, &[], &inner));
                let datagram = udp((here, 50_000).into(), (there, 4_789).into(), &bytes);
                ethernet(from, &self.vlans, &ip(here, there, UDP, &datagram))
            }
            Some(Around::Gre) => {
                let bytes = [&[0, 0][..], &ether_type(&inner).to_be_bytes(), &inner].concat();
                ethernet(from, &self.vlans, &ip(here, there, 47, &bytes))
            }
        };
        self.packets.push(Packet { time: self.time, data, from });
        self.time += self.step;
        self
    }
}

fn ether_type(ip: &[u8]) -> u16 {
    if ip[0] >> 4 == 4 { IPV4 } else { IPV6 }
}

/// An Ethernet frame around an IP packet, with VLAN tags, the outermost first.
#[must_use]
pub fn ethernet(from: Side, vlans: &[u16], ip: &[u8]) -> Vec<u8> {
    let [server, client] = HARDWARE;
    let hardware = if from == Client { [server, client] } else { [client, server] };
    // 802.1ad outside, 802.1Q inside.
    let protocol = |at: usize| if at + 1 < vlans.len() { 0x88a8 } else { 0x8100 };
    let tags: Vec<_> = vlans.iter().enumerate().map(|(at, vlan)| (protocol(at), *vlan)).collect();
    let mut frame = ethernet_header(hardware, &tags, ether_type(ip));
    frame.extend_from_slice(ip);
    frame
}

/// The packets of conversations in the order of their times.
#[must_use]
pub fn merged(conversations: impl IntoIterator<Item = Conversation>) -> Vec<Packet> {
    let mut packets: Vec<_> = conversations.into_iter().flat_map(|talk| talk.packets).collect();
    packets.sort_by_key(|packet| packet.time);
    packets
}

/// Records of packets, as they follow the header of a savefile.
#[must_use]
pub fn records<'a>(packets: impl IntoIterator<Item = &'a Packet>) -> Vec<u8> {
    let mut bytes = Vec::new();
    packets.into_iter().for_each(|packet| packet.append(&mut bytes));
    bytes
}

/// A nanosecond savefile of packets.
#[must_use]
pub fn savefile<'a>(packets: impl IntoIterator<Item = &'a Packet>) -> Vec<u8> {
    [Format::default().header(), records(packets)].concat()
}

/// A nanosecond savefile of conversations, whose packets are in the order of their times.
#[must_use]
pub fn savefile_of(conversations: impl IntoIterator<Item = Conversation>) -> Vec<u8> {
    savefile(&merged(conversations))
}

/// Bytes without a pattern that are the same every time: `length` of them for each `seed`.
#[must_use]
pub fn noise(seed: u64, length: usize) -> Vec<u8> {
    let mut state = seed.wrapping_mul(2).wrapping_add(0x9e37_79b9_7f4a_7c15);
    let mut bytes = Vec::with_capacity(length + 8);
    while bytes.len() < length {
        // xorshift64*
        state ^= state >> 12;
        state ^= state << 25;
        state ^= state >> 27;
        bytes.extend(state.wrapping_mul(0x2545_f491_4f6c_dd1d).to_be_bytes());
    }
    bytes.truncate(length);
    bytes
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::process::{run, tool};
    use crate::skip_unless;

    #[test]
    fn checksums_and_numbers_pass_tsharks_checks() {
        skip_unless!("tshark");
        let ends = [("10.0.0.1:40000", "10.0.0.2:80"), ("[fd00::1]:40000", "[fd00::2]:80")];
        let mut talks = Vec::new();
        for (client, server) in ends {
            let tcp = Conversation::tcp(client, server).numbered_from(u32::MAX - 2, 9);
            let plain = [tcp, Conversation::udp(client, server)];
            for mut talk in plain {
                if !talk.is_udp {
                    talk.open();
                }
                talk.says(Client, b"some bytes").says(Server, noise(1, 3_001));
                if !talk.is_udp {
                    talk.close(Client);
                }
                talks.push(talk);
            }
        }
        let folder = tempfile::tempdir().unwrap();
        let file = folder.path().join("talks.pcap");
        std::fs::write(&file, savefile_of(talks)).unwrap();
        let checks = ["ip.check_checksum", "tcp.check_checksum", "udp.check_checksum"];
        let checks = checks.iter().flat_map(|name| ["-o".to_owned(), format!("{name}:TRUE")]);
        let complaints = "_ws.malformed || tcp.analysis.flags || _ws.expert.severity >= 0x600000";
        let output =
            run(tool("tshark").args(checks).args(["-n", "-Y", complaints, "-r"]).arg(file), 30);
        assert_eq!(output.success().text(), "");
    }
}
