//! The time that the decoder takes for a packet. `make bench` prints it.

#![allow(clippy::print_stdout, reason = "a benchmark is a program that prints")]

use std::hint::black_box;
use std::net::{IpAddr, SocketAddr};
use std::time::Instant;

use frames::{IPV4, IPV6, TCP, UDP, ethernet};
use protocol::decode::{DecodeOptions, Decoder};
use protocol::linktype::LinkType;
use protocol::time::Timestamp;

/// Packets decoded for one figure. The best of [`TURNS`] figures is printed.
const ROUNDS: u64 = 5_000_000;
const TURNS: u32 = 5;

/// An IP packet with a TCP segment of 1,400 bytes and three words of options.
fn segment(from: IpAddr, to: IpAddr) -> Vec<u8> {
    let (source, destination) = (SocketAddr::new(from, 40_000), SocketAddr::new(to, 80));
    let data = [0; 1_400];
    let segment =
        frames::tcp_with_options(source, destination, [1, 2], frames::flags::ACK, &[1; 12], &data);
    frames::ip(from, to, TCP, &segment)
}

/// An Ethernet frame in VXLAN number 5 (RFC 7348).
fn in_vxlan(frame: &[u8], from: IpAddr, to: IpAddr) -> Vec<u8> {
    let content = [&[8, 0, 0, 0, 0, 0, 5, 0], frame].concat();
    frames::ip(from, to, UDP, &frames::udp_without_checksum(50_000, 4_789, &content))
}

fn main() {
    if !std::env::args().any(|argument| argument == "--bench") {
        println!("not measuring: run it with `make bench`");
        return;
    }
    let [from, to] = [[10, 0, 0, 1], [10, 0, 0, 2]].map(IpAddr::from);
    let [from6, to6] = [[1; 16], [2; 16]].map(IpAddr::from);
    let plain = segment(from, to);
    let tags = [(0x88a8, 5), (0x8100, 6)];
    let tunnel = in_vxlan(&ethernet(&[], IPV4, &plain), from, to);
    println!("Decoding a packet");
    for (name, frame) in [
        ("IPv4 and TCP", ethernet(&[], IPV4, &plain)),
        ("IPv6 and TCP", ethernet(&[], IPV6, &segment(from6, to6))),
        ("IPv4 and TCP, two VLAN tags", ethernet(&tags, IPV4, &plain)),
        ("IPv4 and TCP in VXLAN", ethernet(&[], IPV4, &tunnel)),
    ] {
        let mut decoder = Decoder::new(DecodeOptions::default());
        let len = u32::try_from(frame.len()).expect("a frame");
        let mut best = f64::MAX;
        for _ in 0..TURNS {
            let begin = Instant::now();
            for number in 0..ROUNDS {
                let data = black_box(frame.as_slice());
                let time = Timestamp::default();
                black_box(decoder.packet(LinkType::ETHERNET, number, time, len, data));
            }
            best = best.min(begin.elapsed().as_nanos() as f64 / ROUNDS as f64);
        }
        println!("  {name}: {best:.1} ns");
    }
}
