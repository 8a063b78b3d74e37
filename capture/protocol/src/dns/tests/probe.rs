//! What is recognized as DNS.

use super::*;
use crate::dns::probe::{datagram, stream};
use crate::verdict::ProbeVerdict;

const OTHER: [u16; 2] = [40_000, 40_001];
const KNOWN: [u16; 2] = [40_000, 53];

fn is_dns(bytes: &[u8], ports: [u16; 2]) -> bool {
    datagram(bytes, bytes.len(), ports)
}

#[test]
fn ordinary_messages_are_recognized_on_any_port() {
    let response = Builder::response(1, "a", [1; 4]).record(3, "", OPT, 1232, 0, &[]);
    for message in [Builder::query(1, "example.org"), response] {
        for ports in [OTHER, KNOWN, [5353, 5353], [5355, 1024]] {
            assert!(is_dns(&message.bytes, ports));
            assert_eq!(stream(&message.framed(), ports), ProbeVerdict::Yes);
        }
        for ports in [[137, 137], [1024, 137], [138, 138]] {
            assert!(!is_dns(&message.bytes, ports));
            assert_eq!(stream(&message.framed(), ports), ProbeVerdict::No);
        }
    }
}

#[test]
fn on_other_ports_every_byte_must_be_right() {
    let query = Builder::query(1, "example.org");
    let with = |at: usize, byte: u8| {
        let mut bytes = query.bytes.clone();
        bytes[at] = byte;
        bytes
    };
    let longer = [&query.bytes[..], &[0]].concat();
    let shorter = query.bytes[..query.bytes.len() - 1].to_vec();
    // Truncated, the reserved bit, an error, two questions, an answer, an unknown type and class.
    let last = query.bytes.len();
    let odd = [(2, 0x03), (3, 0x40), (3, 3), (5, 2), (7, 1), (last - 4, 0xff), (last - 1, 9)];
    for bytes in odd.map(|(at, byte)| with(at, byte)).into_iter().chain([longer, shorter]) {
        assert!(!is_dns(&bytes, OTHER), "{bytes:?}");
    }
    assert!(!datagram(&query.bytes, query.bytes.len() + 1, OTHER));
}

#[test]
fn on_the_ports_of_dns_malformed_messages_are_recognized() {
    let query = Builder::query(1, "example.org").bytes;
    assert!(datagram(&query[..20], query.len(), KNOWN));
    assert!(is_dns(&[&query[..], &[0; 9]].concat(), KNOWN));
    assert!(is_dns(&Builder::new(1, QUERY).question_of(&[0xc0, 12], A, IN).bytes, KNOWN));
    assert!(is_dns(&Builder::new(1, RESPONSE | 1).bytes, KNOWN));
    let mut short = Builder::new(1, QUERY);
    short.count(0);
    assert!(is_dns(&[&short.bytes[..], &[0xc0, 12]].concat(), KNOWN));
}

#[test]
fn other_protocols_are_not_recognized_on_the_ports_of_dns() {
    let wireguard = [&[1, 0, 0, 0][..], &[0x5a; 144]].concat();
    let quic = [&[0xc3, 0, 0, 0, 1, 8][..], &[0xa7; 1194]].concat();
    let others: [&[u8]; 6] =
        [&wireguard, &quic, b"GET / HTTP/1.1\r\n\r\n", &[0; 40], &[0xff; 40], &[1, 2, 3]];
    for bytes in others {
        assert!(!is_dns(bytes, KNOWN), "{bytes:?}");
        assert!(!is_dns(bytes, OTHER), "{bytes:?}");
    }
}

#[test]
fn streams_are_decided_by_their_first_message() {
    let framed = Builder::query(1, "example.org").framed();
    for len in 0..framed.len() {
        assert_eq!(stream(&framed[..len], OTHER), ProbeVerdict::NotYet, "{len}");
    }
    for len in 14..framed.len() {
        assert_eq!(stream(&framed[..len], KNOWN), ProbeVerdict::Yes, "{len}");
    }
    let others: [&[u8]; 4] = [
        b"GET / HTTP/1.1\r\n\r\n",
        b"\x16\x03\x01\x02\0\x01\0\x01\xfc\x03\x03abcdefgh",
        &[0; 20],
        b"SSH-2.0-OpenSSH_9.2\r\n",
    ];
    for bytes in others {
        for ports in [OTHER, KNOWN, [1024, 853]] {
            assert_eq!(stream(bytes, ports), ProbeVerdict::No, "{bytes:?}");
        }
    }
}

#[test]
fn a_short_text_is_no_beginning_of_a_stream() {
    // If it were kept until more bytes come, a hello of TLS after it would not be found.
    for text in ["S", "STLS\r\n", "+OK\r\n", "\x16\x03\x01"] {
        assert_eq!(stream(text.as_bytes(), [40_000, 110]), ProbeVerdict::No, "{text:?}");
        assert_eq!(stream(text.as_bytes(), KNOWN), ProbeVerdict::NotYet, "{text:?}");
    }
}
