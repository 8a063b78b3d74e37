//! Tunnels: packets within IP packets.
//!
//! Sources: RFC 2784, 2890 and 1701 (GRE), RFC 2637 (PPTP), RFC 7637 (NVGRE),
//! draft-foschiano-erspan, RFC 8086 (GRE in UDP), RFC 7348 and draft-ietf-nvo3-vxlan-gpe (VXLAN),
//! RFC 8926 (Geneve).

use std::net::IpAddr;

use super::link::ether_type;
use super::view::At;
use super::{DecodeResult, HeaderWalk, Ip, Reason, Stop};

/// The tunnel a packet came through.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct PacketTunnel {
    /// The kind of tunnel.
    pub kind: TunnelKind,
    /// Identifies the tunnel: the key of GRE, the session of PPTP, PPPoE and ERSPAN, the network of
    /// NVGRE, VXLAN and Geneve, the innermost label of MPLS. `None` if it has none.
    ///
    /// Labels, and keys of some routers, differ between the two directions.
    pub id: Option<u32>,
    /// Source and destination of the innermost IP packet around it; `None` without such a packet,
    /// as with MPLS and PPPoE on a link.
    pub endpoints: Option<(IpAddr, IpAddr)>,
}

/// Kinds of tunnels.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum TunnelKind {
    /// GRE around IP, Ethernet (including NVGRE) or MPLS.
    Gre,
    /// GRE version 1 around PPP.
    Pptp,
    /// ERSPAN type I, which has no header.
    Erspan1,
    /// ERSPAN type II.
    Erspan2,
    /// ERSPAN type III.
    Erspan3,
    /// VXLAN, and VXLAN-GPE.
    Vxlan,
    /// Geneve.
    Geneve,
    /// IPv4 in IPv4 or IPv6.
    Ipip,
    /// IPv6 in IPv4 or IPv6.
    Ip6in,
    /// MPLS.
    Mpls,
    /// PPPoE.
    Pppoe,
}

impl TunnelKind {
    /// Its name in files and for people: `gre`, `vxlan`, ...
    #[must_use]
    pub const fn name(self) -> &'static str {
        match self {
            Self::Gre => "gre",
            Self::Pptp => "pptp",
            Self::Erspan1 => "erspan1",
            Self::Erspan2 => "erspan2",
            Self::Erspan3 => "erspan3",
            Self::Vxlan => "vxlan",
            Self::Geneve => "geneve",
            Self::Ipip => "ipip",
            Self::Ip6in => "ip6in",
            Self::Mpls => "mpls",
            Self::Pppoe => "pppoe",
        }
    }
}

/// Flag bits of the first two bytes of GRE.
mod gre {
    pub(super) const CHECKSUM: u16 = 0x8000;
    pub(super) const ROUTING: u16 = 0x4000;
    pub(super) const KEY: u16 = 0x2000;
    pub(super) const SEQUENCE: u16 = 0x1000;
    /// Version 1 only.
    pub(super) const ACKNOWLEDGMENT: u16 = 0x0080;
    pub(super) const VERSION: u16 = 0x0007;
    pub(super) const ERSPAN_1_2: u16 = 0x88be;
    pub(super) const ERSPAN_3: u16 = 0x22eb;
    /// Web cache redirection: IPv4, in version 2 with four bytes before it.
    pub(super) const WCCP: u16 = 0x883e;
}

/// Maximum number of routing entries in a GRE header. Routing entries are obsolete.
const MAX_ROUTES: usize = 16;

/// A function that decodes the contents of a tunnel.
type Inner<'w> = fn(&mut HeaderWalk<'w>, At<'_>, Ip) -> Result<DecodeResult, Stop>;

impl<'w> HeaderWalk<'w> {
    pub(super) fn ip_in_ip(
        &mut self,
        is_ipv6: bool,
        at: At<'_>,
        ip: Ip,
    ) -> Result<DecodeResult, Stop> {
        let kind = if is_ipv6 { TunnelKind::Ip6in } else { TunnelKind::Ipip };
        self.through(kind, None, ip)?;
        if is_ipv6 { self.ipv6(at) } else { self.ipv4(at) }
    }

    pub(super) fn gre(&mut self, at: At<'_>, ip: Ip) -> Result<DecodeResult, Stop> {
        let ([a, b, c, d], mut at) = at.take::<4>()?;
        let (flags, protocol) = (u16::from_be_bytes([*a, *b]), u16::from_be_bytes([*c, *d]));
        let has = |flag| flags & flag != 0;
        match flags & gre::VERSION {
            0 => {}
            1 => return self.pptp(flags, protocol, at, ip),
            _ => return Err(Reason::NotIp.into()),
        }
        if has(gre::CHECKSUM | gre::ROUTING) {
            at = at.skip(4)?;
        }
        let mut key = None;
        if has(gre::KEY) {
            let (value, rest) = at.take::<4>()?;
            key = Some(u32::from_be_bytes(*value));
            at = rest;
        }
        if has(gre::SEQUENCE) {
            at = at.skip(4)?;
        }
        if has(gre::ROUTING) {
            at = behind_routes(at)?;
        }
        match protocol {
            gre::ERSPAN_1_2 if has(gre::SEQUENCE) => {
                let ([_, _, high, low, ..], inner) = at.take::<8>()?;
                let session = u16::from_be_bytes([*high, *low]) & 0x3ff;
                self.through(TunnelKind::Erspan2, Some(session.into()), ip)?;
                self.ethernet(inner)
            }
            gre::ERSPAN_1_2 => {
                self.through(TunnelKind::Erspan1, None, ip)?;
                self.ethernet(at)
            }
            gre::ERSPAN_3 => self.erspan_3(at, ip),
            gre::WCCP => {
                self.through(TunnelKind::Gre, key, ip)?;
                let is_ip = at.peek::<1>()?.first().is_some_and(|first| first >> 4 == 4);
                self.ipv4(if is_ip { at } else { at.skip(4)? })
            }
            ether_type::BRIDGED => {
                // NVGRE: 24 bits of network and 8 bits of flow, and the key's flag alone.
                let is_nvgre = flags == gre::KEY;
                let id = if is_nvgre { key.map(|key| key >> 8) } else { key };
                self.through(TunnelKind::Gre, id, ip)?;
                self.ethernet(at)
            }
            ether_type::PPP => {
                self.through(TunnelKind::Gre, key, ip)?;
                self.ppp(at)
            }
            protocol if protocol < ether_type::LEAST => Err(Reason::NotIp.into()),
            protocol => {
                self.through(TunnelKind::Gre, key, ip)?;
                self.ether_type(protocol, at)
            }
        }
    }

    /// GRE version 1: length and call instead of the key, and acknowledgments.
    fn pptp(
        &mut self,
        flags: u16,
        protocol: u16,
        at: At<'_>,
        ip: Ip,
    ) -> Result<DecodeResult, Stop> {
        if protocol != ether_type::PPP || flags & gre::KEY == 0 {
            return Err(Reason::NotIp.into());
        }
        let ([a, b, c, d], mut at) = at.take::<4>()?;
        let (len, call) = (u16::from_be_bytes([*a, *b]), u16::from_be_bytes([*c, *d]));
        for flag in [gre::SEQUENCE, gre::ACKNOWLEDGMENT] {
            if flags & flag != 0 {
                at = at.skip(4)?;
            }
        }
        // A packet without a sequence number is only an acknowledgment.
        if flags & gre::SEQUENCE == 0 || len == 0 {
            return Err(Reason::NotIp.into());
        }
        self.through(TunnelKind::Pptp, Some(call.into()), ip)?;
        self.ppp(at.limit(usize::from(len)))
    }

    fn erspan_3(&mut self, at: At<'_>, ip: Ip) -> Result<DecodeResult, Stop> {
        let ([_, _, high, low, .., kind, options], mut inner) = at.take::<12>()?;
        let session = u16::from_be_bytes([*high, *low]) & 0x3ff;
        self.through(TunnelKind::Erspan3, Some(session.into()), ip)?;
        let has_platform_header = options & 1 != 0;
        if has_platform_header {
            inner = inner.skip(8)?;
        }
        match kind >> 2 & 0x1f {
            0 => self.ethernet(inner),
            2 => self.ip(inner),
            _ => Err(Reason::NotIp.into()),
        }
    }

    /// The function that decodes a UDP payload sent to `port`, if that is the port of a tunnel.
    pub(super) fn udp_tunnel(port: u16) -> Option<Inner<'w>> {
        match port {
            // Linux used the second before a number was assigned, and flannel still does.
            4789 | 8472 => Some(|walk, at, ip| walk.vxlan(false, at, ip)),
            // GRE in UDP, RFC 8086.
            4754 => Some(Self::gre),
            4790 => Some(|walk, at, ip| walk.vxlan(true, at, ip)),
            6081 => Some(Self::geneve),
            _ => None,
        }
    }

    fn vxlan(&mut self, is_generic: bool, at: At<'_>, ip: Ip) -> Result<DecodeResult, Stop> {
        const HAS_NETWORK: u8 = 0x08;
        const HAS_NEXT: u8 = 0x04;
        let ([flags, _, _, next, id @ .., _], inner) = at.take::<8>()?;
        if flags & HAS_NETWORK == 0 {
            return Err(Reason::NotIp.into());
        }
        let [high, middle, low] = *id;
        let id = u32::from_be_bytes([0, high, middle, low]);
        self.through(TunnelKind::Vxlan, Some(id), ip)?;
        if !is_generic || flags & HAS_NEXT == 0 {
            return self.ethernet(inner);
        }
        match next {
            1 => self.ipv4(inner),
            2 => self.ipv6(inner),
            3 => self.ethernet(inner),
            5 => self.mpls(inner),
            _ => Err(Reason::NotIp.into()),
        }
    }

    fn geneve(&mut self, at: At<'_>, ip: Ip) -> Result<DecodeResult, Stop> {
        let ([first, _, high, low, id @ .., _], inner) = at.take::<8>()?;
        let version = first >> 6;
        if version != 0 {
            return Err(Reason::NotIp.into());
        }
        let options_len = usize::from(first & 0x3f).saturating_mul(4);
        let inner = inner.skip(options_len)?;
        let [top, middle, bottom] = *id;
        let id = u32::from_be_bytes([0, top, middle, bottom]);
        self.through(TunnelKind::Geneve, Some(id), ip)?;
        match u16::from_be_bytes([*high, *low]) {
            ether_type::BRIDGED => self.ethernet(inner),
            protocol if protocol < ether_type::LEAST => Err(Reason::NotIp.into()),
            protocol => self.ether_type(protocol, inner),
        }
    }
}

impl HeaderWalk<'_> {
    fn through(&mut self, kind: TunnelKind, id: Option<u32>, ip: Ip) -> Result<(), Stop> {
        let endpoints = Some((ip.source, ip.destination));
        self.layers.tunnel = Some(PacketTunnel { kind, id, endpoints });
        self.deeper()
    }

    /// Endpoints of the innermost IP packet so far, if there was an IP packet.
    pub(super) fn endpoints(&self) -> Option<(IpAddr, IpAddr)> {
        self.layers.tunnel.and_then(|tunnel| tunnel.endpoints)
    }
}

/// The place after the source routing entries of RFC 1701. An entry of length 0 ends them.
fn behind_routes(mut at: At<'_>) -> Result<At<'_>, Reason> {
    for _ in 0..MAX_ROUTES {
        let ([a, b, _, len], rest) = at.take::<4>()?;
        if (*a, *b, *len) == (0, 0, 0) {
            return Ok(rest);
        }
        at = rest.skip(usize::from(*len))?;
    }
    Err(Reason::TooDeep)
}
