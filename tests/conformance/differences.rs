//! Correct differences from other programs and from the expectations of the captures' owners.

/// A reason, and the cases it explains.
struct Difference {
    /// Name of the set.
    set: &'static str,
    /// It explains each case whose name begins with one of these.
    cases: &'static [&'static str],
    /// Sentences for the documentation.
    why: &'static str,
}

const RESET: &str = "Text in a segment that resets a connection says why it does (RFC 9293, 3.5.3); it is no part of the \
     stream.";
const SYN: &str = "Another SYN with another sequence number makes tshark begin another connection. It is one here until \
     the other side agrees to it.";
const UNKNOWN: &str = "Tunnels that are not looked into: wireless frames in GRE, GTP, AYIYA.";
const INSIDE: &str = "The same addresses and ports inside of a tunnel and outside of it are two conversations, not one.";
const OPTIONS: &str = "With a routing header or a home address tshark shows addresses out of the options, pcapfs those of \
     the IPv6 header.";
const MIDSTREAM: &str = "The capture begins in the middle of the connection or is shuffled, and what was sent before the first \
     byte seen came later. tshark leaves it out.";

const DIFFERENCES: &[Difference] = &[
    Difference {
        set: "Arkime",
        cases: &["40005"],
        why: "Arkime ends the stream at the gap; here the gap is listed and the rest follows it.",
    },
    Difference {
        set: "Suricata HTTP",
        cases: &[
            "http-gap-double body of 14",
            "http-gap-simple body of 14",
            "http-gap-simple-frames body of 14",
            "http-gap-whole-body body of 14",
        ],
        why: "The server says 12 and sends 14 bytes. Suricata counts the two that follow the body, \
              which nobody who asked for it would take.",
    },
    Difference {
        set: "Suricata HTTP",
        cases: &["http-multiple100 body of 34293"],
        why: "Suricata takes forms apart; the file is inside of a multipart body of 34498 bytes, \
              which is whole here.",
    },
    Difference {
        set: "tshark follow",
        cases: &[
            "OISF+suricata-verify/tests/tcp-rst-unacked-stream-01",
            "OISF+suricata-verify/tests/tcp-rst-unacked-stream-02",
            "the-tcpdump-group+tcpdump/tests/tcp_rst_",
        ],
        why: RESET,
    },
    Difference {
        set: "tshark follow",
        cases: &[
            "OISF+suricata-verify/tests/tcp-split-handshake-02-5whs",
            "arkime+arkime/tests/pcap/tcp_handshake_synthetic.pcap stream 3",
            "simsong+tcpflow/tests/test5-lines-randomized.pcap stream 1",
        ],
        why: SYN,
    },
    Difference {
        set: "tshark follow",
        cases: &["OISF+suricata-verify/tests/tcp-fastopen-10"],
        why: "The server sends its SYN again with other sequence numbers; tshark counts from the \
              first and reports bytes as missing that were never sent.",
    },
    Difference {
        set: "tshark follow",
        cases: &["simsong+tcpflow/tests/test1-", "simsong+tcpflow/tests/test5-lines-randomized"],
        why: MIDSTREAM,
    },
    Difference {
        set: "tshark follow",
        cases: &["seladb+PcapPlusPlus/Tests/Pcap++Test/PcapExamples/pcapng-example.pcapng 000001"],
        why: "The first packet has no time, and the second comes 46 years later: a connection ends \
              by then.",
    },
    Difference {
        set: "tshark follow",
        cases: &["zeek+zeek/testing/btest/Traces/ipv4/fragmented-4.pcap"],
        why: "Fragments overlap and differ. The first copy of a byte counts, in tshark the last.",
    },
    Difference {
        set: "tshark follow",
        cases: &[
            "zeek+zeek/testing/btest/Traces/chksums/ip6-hoa",
            "zeek+zeek/testing/btest/Traces/chksums/ip6-route0",
        ],
        why: OPTIONS,
    },
    Difference {
        set: "tshark follow",
        cases: &[
            "zeek+zeek/testing/btest/Traces/tunnels/ayiya",
            "zeek+zeek/testing/btest/Traces/tunnels/gre-aruba",
            "zeek+zeek/testing/btest/Traces/tunnels/gtp/",
        ],
        why: UNKNOWN,
    },
    Difference {
        set: "tshark follow",
        cases: &["zeek+zeek/testing/btest/Traces/tunnels/tunnel-direct-bypass.pcap"],
        why: INSIDE,
    },
    Difference {
        set: "layers",
        cases: &["zeek+zeek/testing/btest/Traces/tunnels/gre-aruba"],
        why: UNKNOWN,
    },
    Difference {
        set: "layers",
        cases: &["zeek+zeek/testing/btest/Traces/tunnels/tunnel-direct-bypass.pcap"],
        why: INSIDE,
    },
    Difference {
        set: "layers",
        cases: &["OISF+suricata-verify/tests/decode-nsh-"],
        why: "Network service headers (RFC 8300) are not looked into; the packets count as \
              `undecodable`.",
    },
    Difference {
        set: "layers",
        cases: &["the-tcpdump-group+tcpdump/tests/bigtcp-"],
        why: "tshark does not look into a UDP packet of more than 64 KiB, whose length is 0; \
              the connection inside is found here.",
    },
    Difference {
        set: "layers",
        cases: &["zeek+zeek/testing/btest/Traces/erspan.pcap"],
        why: "A conversation of UDP ends when nothing was sent for a while; in tshark it never does.",
    },
    Difference { set: "layers", cases: GENEVE, why: NETWORKS },
    Difference { set: "tshark follow", cases: GENEVE, why: NETWORKS },
    Difference {
        set: "layers",
        cases: &[
            "zeek+zeek/testing/btest/Traces/tunnels/Teredo.pcap",
            "zeek+zeek/testing/btest/Traces/tunnels/teredo_bubble",
            "OISF+suricata-verify/tests/decode-teredo-01",
        ],
        why: "Teredo is not looked into: its packets are of the conversation of UDP they come in.",
    },
    Difference {
        set: "tshark follow",
        cases: &[
            "OISF+suricata-verify/tests/tcp-rst-unacked-stream-03-gap/",
            "OISF+suricata-verify/tests/tcp-rst-unacked-stream-04-gap-ips/",
        ],
        why: "Text in a reset says why it was sent (RFC 1122 4.2.2.12) and is not of the stream.",
    },
    Difference {
        set: "tshark follow",
        cases: &["OISF+suricata-verify/tests/tcp-rst-unacked-stream-09/"],
        why: "tshark leaves out data that waits after a hole when the connection ends.",
    },
];

/// Captures in which each direction of a tunnel has a network identifier of its own.
const GENEVE: &[&str] = &[
    "arkime+arkime/tests/pcap/tcpdump-geneve.pcap",
    "the-tcpdump-group+tcpdump/tests/geneve.pcap",
];

const NETWORKS: &str = "Each direction of the tunnel has a network identifier of its own, and \
                        conversations in different networks are kept apart: their addresses may \
                        be the same.";

/// Explains the difference in a case, if it is known and correct.
pub(crate) fn why(set: &str, case: &str) -> Option<&'static str> {
    DIFFERENCES
        .iter()
        .filter(|difference| difference.set == set)
        .find(|difference| difference.cases.iter().any(|begin| case.starts_with(begin)))
        .map(|difference| difference.why)
}
