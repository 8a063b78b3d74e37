//! `meta.json` of a flow, which is also a line of `flows.jsonl`.

use std::net::IpAddr;
use std::sync::Arc;

use protocol::decode::PacketTunnel;
use protocol::json;
use protocol::tcp::{Absence, Direction};
use protocol::time::Timestamp;
use serde::{Serialize, Serializer};

use super::apps::Application;
use super::apps::kept::TlsHellos;
use super::conversation::Flow;
use super::key::{self, TransportProtocol};
use super::pair::of;
use super::state::FlowState;

#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "lowercase")]
enum Role {
    Client,
    Server,
}

/// The last thing that happened to the flow.
#[derive(Clone, Copy, Debug, Serialize)]
#[serde(rename_all = "lowercase")]
enum FlowEvent {
    /// It has begun.
    Opened,
    /// It has ended, and its record changes no more.
    Ended,
}

/// The record. The fields are in the order of the file.
#[derive(Clone, Debug, Serialize)]
pub(super) struct Meta {
    flow: u64,
    /// The same as `flow`.
    id: u64,
    event: FlowEvent,
    #[serde(serialize_with = "text")]
    capture: Arc<str>,
    name: String,
    protocol: TransportProtocol,
    application: Option<&'static str>,
    state: FlowState,
    closed_by: Option<Role>,
    client: SideMeta,
    server: SideMeta,
    vlan: Vec<u16>,
    tunnel: Option<Tunneled>,
    first: Time,
    last: Time,
    duration_us: u64,
    handshake_us: Option<u32>,
    tls: Option<TlsMeta>,
    http: Option<HttpMeta>,
    #[serde(flatten)]
    lines: LinesMeta,
}

#[derive(Clone, Debug, Serialize)]
struct SideMeta {
    address: IpAddr,
    port: u16,
    packets: u64,
    bytes: u64,
    stream_bytes: u64,
    captured_bytes: u64,
    repeated_bytes: u64,
    late_bytes: u64,
    rejected_bytes: u64,
    urgent_bytes: u64,
    retransmitted: u32,
    out_of_order: u32,
    overlapping: u32,
    gaps: Vec<(u64, u64, Gap)>,
}

#[derive(Clone, Copy, Debug, Serialize)]
#[serde(rename_all = "lowercase")]
enum Gap {
    Missing,
    Expired,
}

#[derive(Clone, Debug, Serialize)]
struct Tunneled {
    kind: &'static str,
    id: Option<u32>,
    source: Option<IpAddr>,
    destination: Option<IpAddr>,
}

#[derive(Clone, Debug, Serialize)]
struct TlsMeta {
    sni: Option<String>,
    /// Offered by the client; `None` if its hello was not captured.
    alpn_offered: Option<Vec<String>>,
    /// Chosen by the server; TLS 1.3 encrypts it.
    alpn: Option<String>,
    /// Chosen by the server.
    version: Option<String>,
}

#[derive(Clone, Debug, Serialize)]
struct HttpMeta {
    transactions: u64,
    incomplete: u64,
    open: u64,
}

/// The transactions of the protocols that have lines, except HTTP; under the name of the protocol.
#[derive(Clone, Copy, Debug)]
struct LinesMeta([Option<Counted>; Application::ALL.len()]);

#[derive(Clone, Copy, Debug, Serialize)]
struct Counted {
    transactions: u64,
    open: u64,
}

impl Serialize for LinesMeta {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        let all = Application::ALL.iter().zip(&self.0);
        let others =
            all.filter(|(one, _)| one.line_file_name().is_some() && **one != Application::Http);
        serializer.collect_map(others.map(|(application, counted)| (application.name(), counted)))
    }
}

/// A time in the format of RFC 3339.
#[derive(Clone, Copy, Debug)]
struct Time(Timestamp);

impl Serialize for Time {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.serialize_str(&self.0.to_rfc3339())
    }
}

/// `serde` serializes an [`Arc`] only with a feature that is off.
fn text<S: Serializer>(text: &Arc<str>, serializer: S) -> Result<S::Ok, S::Error> {
    serializer.serialize_str(text)
}

impl Meta {
    /// The current record of a flow of the capture named `capture`.
    pub(super) fn of(flow: &Flow, capture: &Arc<str>) -> Self {
        let (closed_by, handshake_us) = flow.ending();
        let role = |by| if by == flow.client { Role::Client } else { Role::Server };
        // The end is reported once nothing changes any more: the wait for stragglers is over, and
        // all transactions have been recorded.
        let state = match flow.state() {
            state if state.is_end() && !flow.is_sealed => FlowState::Closing,
            state => state,
        };
        let hellos = flow.kept.tls.as_deref();
        let network = flow.network.as_deref();
        Self {
            flow: flow.id,
            id: flow.id,
            event: if flow.is_sealed { FlowEvent::Ended } else { FlowEvent::Opened },
            capture: Arc::clone(capture),
            name: key::name(flow.id, &flow.key, flow.client),
            protocol: flow.key.protocol,
            application: flow.kept.application().map(Application::name),
            state,
            closed_by: closed_by.map(role),
            client: side(flow, flow.client),
            server: side(flow, flow.client.other()),
            vlan: network.map(|network| network.vlans.as_slice().to_vec()).unwrap_or_default(),
            tunnel: network.and_then(|network| network.tunnel.as_ref()).map(tunneled),
            first: Time(flow.first),
            last: Time(flow.last),
            duration_us: flow.last.microseconds_since(flow.first).unwrap_or_default(),
            handshake_us,
            tls: hellos.map(tls),
            http: flow.kept.http.as_ref().map(|http| HttpMeta {
                transactions: http.exchanges.len() as u64,
                incomplete: http.incomplete,
                open: flow.open_transactions() as u64,
            }),
            lines: LinesMeta(Application::ALL.map(|application| {
                let lines = flow.kept.lines(application)?;
                Some(Counted { transactions: lines.count, open: flow.pending() as u64 })
            })),
        }
    }

    /// One line, with its line feed.
    pub(super) fn line(&self) -> Vec<u8> {
        json::line(self)
    }
}

fn side(flow: &Flow, direction: Direction) -> SideMeta {
    let (address, port) = flow.key.sender(direction);
    let sent = of(&flow.sent, direction);
    let counters = flow.counters(direction);
    let stream = flow.stream(direction);
    let gaps = stream.map(|stream| stream.holes()).unwrap_or_default().into_iter();
    SideMeta {
        address,
        port,
        packets: sent.packets,
        bytes: sent.bytes,
        stream_bytes: stream.map_or(0, |stream| stream.end()),
        captured_bytes: counters.captured_bytes,
        repeated_bytes: counters.repeated_bytes,
        late_bytes: counters.late_bytes,
        rejected_bytes: counters.rejected_bytes,
        urgent_bytes: counters.urgent_bytes,
        retransmitted: counters.retransmitted,
        out_of_order: counters.out_of_order,
        overlapping: counters.overlapping,
        gaps: gaps
            .map(|(range, absence)| match absence {
                Absence::Missing => (range.start, range.end, Gap::Missing),
                Absence::Expired => (range.start, range.end, Gap::Expired),
            })
            .collect(),
    }
}

fn tls(hellos: &TlsHellos) -> TlsMeta {
    let (client, server) = (hellos.client.as_ref(), hellos.server.as_ref());
    TlsMeta {
        sni: client.and_then(|hello| hello.server_name.clone()),
        alpn_offered: client.map(|hello| hello.alpn.clone()),
        alpn: server.and_then(|hello| hello.alpn.clone()),
        version: server.map(|hello| hello.version.to_string()),
    }
}

fn tunneled(tunnel: &PacketTunnel) -> Tunneled {
    Tunneled {
        kind: tunnel.kind.name(),
        id: tunnel.id,
        source: tunnel.endpoints.map(|(source, _)| source),
        destination: tunnel.endpoints.map(|(_, destination)| destination),
    }
}
