//! What identifies a flow: addresses, ports, and the network of its packets.

use std::hash::{BuildHasher, Hash, Hasher, RandomState};
use std::net::{IpAddr, Ipv6Addr, SocketAddr};

use protocol::decode::{DecodedPacket, PacketTunnel, TunnelKind, Vlans};
use protocol::flow_context::FlowContext;
use protocol::linktype::LinkType;
use protocol::tcp::Direction;

/// A transport protocol that has flows.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, serde::Serialize)]
#[serde(rename_all = "lowercase")]
pub(super) enum TransportProtocol {
    /// RFC 9293.
    Tcp,
    /// RFC 768.
    Udp,
}

impl TransportProtocol {
    /// The name in file names and in `meta.json`.
    #[must_use]
    pub(super) const fn name(self) -> &'static str {
        match self {
            Self::Tcp => "tcp",
            Self::Udp => "udp",
        }
    }
}

/// Both endpoints of a flow, the lower one first, so that both directions have the same key.
///
/// [`Direction::Forward`] is from the lower endpoint to the higher.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct FlowKey {
    /// IPv4 addresses are mapped into IPv6; `is_ipv4` records that.
    low: u128,
    high: u128,
    /// See [`Network::tag`].
    network: u64,
    low_port: u16,
    high_port: u16,
    pub(super) protocol: TransportProtocol,
    is_ipv4: bool,
}

impl Hash for FlowKey {
    /// Hashes all fields at once, which takes half the time of one field after the other.
    fn hash<H: Hasher>(&self, state: &mut H) {
        let Self { low, high, network, low_port, high_port, protocol, is_ipv4 } = *self;
        let rest = u128::from(network) << 64
            | u128::from(low_port) << 32
            | u128::from(high_port) << 16
            | u128::from(protocol as u8) << 8
            | u128::from(is_ipv4);
        state.write([low, high, rest].map(u128::to_ne_bytes).as_flattened());
    }
}

impl FlowKey {
    /// The key of a packet, and its direction.
    pub(super) fn new(
        packet: &DecodedPacket<'_>,
        protocol: TransportProtocol,
        (source_port, destination_port): (u16, u16),
        network: u64,
    ) -> (Self, Direction) {
        let source = (number(packet.source), source_port);
        let destination = (number(packet.destination), destination_port);
        let (direction, low, high) = if source <= destination {
            (Direction::Forward, source, destination)
        } else {
            (Direction::Backward, destination, source)
        };
        let key = Self {
            low: low.0,
            high: high.0,
            network,
            low_port: low.1,
            high_port: high.1,
            protocol,
            is_ipv4: packet.source.is_ipv4(),
        };
        (key, direction)
    }

    /// Address and port of the endpoint that sends in `direction`.
    pub(super) fn sender(&self, direction: Direction) -> (IpAddr, u16) {
        let (number, port) = match direction {
            Direction::Forward => (self.low, self.low_port),
            Direction::Backward => (self.high, self.high_port),
        };
        let address = Ipv6Addr::from_bits(number);
        let mapped = address.to_ipv4_mapped().filter(|_| self.is_ipv4);
        (mapped.map_or(IpAddr::V6(address), IpAddr::V4), port)
    }

    /// Both endpoints: the one that sends forward, and the one that sends backward.
    pub(super) fn ends(&self) -> [SocketAddr; 2] {
        [Direction::Forward, Direction::Backward].map(|direction| self.sender(direction).into())
    }

    /// The flow with this key as lines about it name it, if its client sends in direction `client`.
    pub(super) fn connection<'a>(
        &self,
        capture: &'a str,
        flow: u64,
        client: Direction,
    ) -> FlowContext<'a> {
        FlowContext::new(capture, flow, self.ends(), client)
    }
}

/// Prefix of IPv4 addresses mapped into IPv6, RFC 4291 section 2.5.5.2.
const MAPPED: u128 = 0xffff << 32;

fn number(address: IpAddr) -> u128 {
    match address {
        IpAddr::V4(address) => MAPPED | u128::from(address.to_bits()),
        IpAddr::V6(address) => address.to_bits(),
    }
}

/// The network headers around the first packet of a flow.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Network {
    pub(super) vlans: Vlans,
    pub(super) tunnel: Option<PacketTunnel>,
    /// Link type of the packets, if it differs from that of the store's header.
    pub(super) link_type: Option<LinkType>,
}

impl Network {
    /// `None` for the plain case, which needs no memory.
    pub(super) fn of(packet: &DecodedPacket<'_>, link_type: Option<LinkType>) -> Option<Self> {
        let is_plain =
            packet.vlans.as_slice().is_empty() && packet.tunnel.is_none() && link_type.is_none();
        (!is_plain).then_some(Self { vlans: packet.vlans, tunnel: packet.tunnel, link_type })
    }

    /// A number that differs between networks in which the same addresses may belong to different
    /// hosts. Networks differ by their VLAN ids, unless `any_vlan`, and by the kind of an IP
    /// tunnel, and by its network id where both directions have the same. Labels of MPLS and keys
    /// of GRE may differ between directions, and one direction may come without a label; outer
    /// addresses change with the route.
    ///
    /// Two networks have the same number by chance once in 2^64, and no outsider can find out
    /// which.
    pub(super) fn tag(packet: &DecodedPacket<'_>, any_vlan: bool, hasher: &RandomState) -> u64 {
        let vlans = if any_vlan { Vlans::default() } else { packet.vlans };
        let tunnel = packet.tunnel.and_then(|tunnel| match tunnel.kind {
            TunnelKind::Mpls | TunnelKind::Pppoe => None,
            kind @ (TunnelKind::Vxlan | TunnelKind::Geneve) => Some((kind, tunnel.id)),
            kind => Some((kind, None)),
        });
        if vlans.as_slice().is_empty() && tunnel.is_none() {
            return 0;
        }
        hasher.hash_one((vlans, tunnel))
    }
}

/// Name of a flow's directory: `000042-tcp-10.0.0.1.43512-10.0.0.2.80`, the client first.
///
/// IPv6 addresses have `_` in place of `:`. Some file systems cannot store a colon, and rsync, scp
/// and tar take the text before it for a host name.
pub(super) fn name(id: u64, key: &FlowKey, client: Direction) -> String {
    let end = |direction| {
        let (address, port) = key.sender(direction);
        let address = match address {
            IpAddr::V4(address) => address.to_string(),
            IpAddr::V6(address) => address.to_string().replace(':', "_"),
        };
        format!("{address}.{port}")
    };
    format!("{id:06}-{}-{}-{}", key.protocol.name(), end(client), end(client.other()))
}
