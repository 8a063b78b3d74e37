//! The page: a text that names the interface.

use super::answer::{Answer, TEXT, whole};

/// The text.
const INTERFACE: &str = "\
pcapfs web

Captures:  /api/v1/captures
Packets:   /captures/NAME/live.pcap, follow.pcap, replay.pcap; also .pcapng
           ?filter=EXPR&duration=30s&packets=N&bytes=N
";

/// The page.
pub(super) fn page() -> Answer {
    whole(TEXT, INTERFACE)
}
