//! PCAP-over-IP: captures from far ends, and captures served to others.

mod connecting;
mod faults;
mod listening;
mod serving;
mod support;
mod tls;
