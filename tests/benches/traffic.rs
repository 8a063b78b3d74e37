//! Packets to capture: IP, as users have it. A frame that is not IP costs the flow engine nothing,
//! and would flatter a figure.

use std::io::Write as _;

use pcapfs_tests::conversation::Side::{Client, Server};
use pcapfs_tests::conversation::{Conversation, EPOCH, noise, savefile_of};
use pcapfs_tests::{Net, run, tool};
use tempfile::NamedTempFile;

use crate::cores;

/// Bytes before the payload of a UDP datagram over IPv4 in an Ethernet frame.
const HEADERS: usize = 42;

/// Bytes before the payload of a TCP segment over IPv4 in an Ethernet frame.
const TCP_HEADERS: usize = 54;

/// Flows of the mix.
const MIXED_FLOWS: u16 = 10_000;

/// What is sent in one run.
#[derive(Clone, Copy, Debug)]
pub(crate) enum Traffic {
    /// UDP datagrams of one source to one port, in frames of this many bytes.
    OneFlow(usize),
    /// UDP datagrams of a thousand ports in turn, in frames of this many bytes.
    ThousandFlows(usize),
    /// 10,000 flows at a time: a tenth HTTP, four tenths other TCP, half UDP; frames of 60, 590 and
    /// 1442 bytes.
    Mix,
}

impl Traffic {
    /// What it is, for a table.
    pub(crate) fn name(self) -> String {
        match self {
            Self::OneFlow(length) => format!("one UDP flow, {length} bytes"),
            Self::ThousandFlows(length) => format!("1,000 UDP flows, {length} bytes"),
            Self::Mix => "mix of 10,000 flows".to_owned(),
        }
    }
}

/// Traffic that is ready to be sent.
#[derive(Debug)]
pub(crate) struct Sender {
    traffic: Traffic,
    /// The description for trafgen, or the savefile for tcpreplay.
    file: NamedTempFile,
    packets: u64,
    rate: Option<u64>,
}

impl Sender {
    /// Makes the packets. `packets` and `rate`, a second, are those of UDP; the mix has its own
    /// number, and is sent as fast as one core can.
    pub(crate) fn new(traffic: Traffic, packets: u64, rate: Option<u64>) -> Self {
        let mut file = NamedTempFile::new_in("/dev/shm").expect("a file in memory");
        let source = match traffic {
            Traffic::OneFlow(length) => Some(("4000", length)),
            Traffic::ThousandFlows(length) => Some(("dinc(4000,4999)", length)),
            Traffic::Mix => None,
        };
        match source {
            Some((port, length)) => writeln!(
                file,
                "{{ eth(da=02:00:00:00:00:99, sa=02:00:00:00:00:01), \
                 ipv4(sa=10.9.0.1, da=10.9.0.2, ttl=64), udp(sp={port}, dp=5000, csum=0), \
                 fill(0x2a, {}) }}",
                length - HEADERS
            ),
            None => file.write_all(&mix()),
        }
        .expect("a file in memory");
        Self { traffic, file, packets, rate }
    }

    /// Sends all of it from one core to the captured interface.
    pub(crate) fn send(&self, net: &Net) {
        let mut command = match self.traffic {
            Traffic::OneFlow(_) | Traffic::ThousandFlows(_) => {
                let mut command = tool("trafgen");
                command.args(["--no-sock-mem", "--cpus", "1", "--cpp"]);
                command.args(["--num", &self.packets.to_string()]);
                if let Some(rate) = self.rate {
                    command.args(["--rate", &format!("{rate}pps")]);
                }
                command.args(["--dev", Net::PEER, "--conf"]);
                command
            }
            Traffic::Mix => {
                let mut command = tool("tcpreplay");
                command.args(["--preload-pcap", "--topspeed", "--intf1", Net::PEER]);
                command
            }
        };
        command.arg(self.file.path());
        let finished = cores::on(cores::GENERATOR, || net.b.run(|| run(&mut command, 60)));
        let _ = finished.success();
    }
}

/// The savefile of the mix: about 600,000 packets.
fn mix() -> Vec<u8> {
    /// Nanoseconds between two packets of a flow, and between the beginnings of two flows. So all
    /// flows go on at the same time.
    const STEP: u64 = 10_000_000;
    const APART: u64 = STEP / MIXED_FLOWS as u64;
    savefile_of((0..MIXED_FLOWS).map(|number| {
        let client = format!("10.8.{}.{}:{}", number / 250, 1 + number % 250, 20_000 + number);
        let begin = EPOCH + u64::from(number) * APART;
        match number % 10 {
            0 => http(Conversation::tcp(&client, "10.9.0.2:80").at(begin).every(STEP)),
            1..=4 => stream(Conversation::tcp(&client, "10.9.0.2:5432").at(begin).every(STEP)),
            _ => datagrams(Conversation::udp(&client, "10.9.0.2:5000").at(begin).every(STEP)),
        }
    }))
}

/// Eight requests, each answered with 5,000 bytes.
fn http(conversation: Conversation) -> Conversation {
    let mut talk = conversation.segments_of(1442 - TCP_HEADERS);
    let body = noise(1, 5_000);
    let head = format!("HTTP/1.1 200 OK\r\nContent-Length: {}\r\n\r\n", body.len());
    talk.open();
    for request in 0..8 {
        talk.says(Client, format!("GET /{request} HTTP/1.1\r\nHost: a.example\r\n\r\n"));
        talk.says(Server, [head.as_bytes(), &body].concat()).ack(Client);
    }
    talk.close(Client);
    talk
}

/// A protocol that is not recognized: questions and answers of 590 and 1442 bytes, each followed by
/// an acknowledgment.
fn stream(mut talk: Conversation) -> Conversation {
    let [short, long] = [590, 1442].map(|length| noise(2, length - TCP_HEADERS));
    talk.open();
    for _ in 0..15 {
        talk.says(Client, &short).ack(Server).says(Server, &long).ack(Client);
    }
    talk.close(Client);
    talk
}

/// Datagrams of each length, in both directions.
fn datagrams(mut talk: Conversation) -> Conversation {
    for length in [60, 590, 1442].into_iter().cycle().take(30) {
        talk.says(Client, noise(3, length - HEADERS)).says(Server, noise(4, length - HEADERS));
    }
    talk
}
