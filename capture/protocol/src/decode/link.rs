//! Link layers: everything before the first IP header.
//!
//! Sources: <https://www.tcpdump.org/linktypes.html> and the pages it names; IEEE 802.1Q-2018,
//! RFC 3032 and RFC 4385 (MPLS), RFC 2516 (PPPoE), RFC 1661 and 1662 (PPP).

use etherparse::{Ethernet2HeaderSlice, SingleVlanHeaderSlice};

use super::view::At;
use super::{DecodeResult, HeaderWalk, PacketTunnel, Reason, Stop, TunnelKind};
use crate::linktype::LinkType;

/// Maximum number of consecutive tags, including those without an id.
const MAX_TAGS: usize = 16;

/// Maximum number of labels in one MPLS stack. Segment routing has about ten.
const MAX_LABELS: usize = 32;

/// Maximum number of attributes of an NFLOG packet; Linux has 23 kinds.
const MAX_ATTRIBUTES: usize = 64;

pub(super) mod ether_type {
    pub(crate) const IPV4: u16 = 0x0800;
    pub(crate) const IPV6: u16 = 0x86dd;
    pub(crate) const ARP: u16 = 0x0806;
    /// 802.1Q.
    pub(crate) const TAG: u16 = 0x8100;
    /// 802.1ad.
    pub(crate) const SERVICE_TAG: u16 = 0x88a8;
    /// QinQ used it before 802.1ad.
    pub(crate) const OLD_SERVICE_TAG: u16 = 0x9100;
    pub(crate) const MPLS: u16 = 0x8847;
    pub(crate) const MPLS_MULTICAST: u16 = 0x8848;
    pub(crate) const PPPOE_SESSION: u16 = 0x8864;
    /// E-tag of 802.1BR.
    pub(crate) const PORT_TAG: u16 = 0x893f;
    /// VN-tag.
    pub(crate) const CISCO_PORT_TAG: u16 = 0x8926;
    /// Transparent Ethernet bridging, RFC 1701.
    pub(crate) const BRIDGED: u16 = 0x6558;
    /// PPP, RFC 2637.
    pub(crate) const PPP: u16 = 0x880b;
    /// Values below are lengths of 802.3 frames.
    pub(crate) const LEAST: u16 = 0x0600;
}

impl HeaderWalk<'_> {
    pub(super) fn link(&mut self, link_type: LinkType, at: At<'_>) -> Result<DecodeResult, Stop> {
        match link_type.0 {
            1 => self.ethernet(at),
            // RAW, the numbers that DLT_RAW has on other systems, IPV4 and IPV6.
            12 | 14 | 101 | 228 | 229 => self.ip(at),
            // NULL and LOOP: an address family, in the byte order of the host or of the network.
            0 | 108 => self.family(at),
            113 => {
                let (header, inner) = at.take::<16>()?;
                let [_, _, hardware @ .., _, _, _, _, _, _, _, _, _, _, high, low] = *header;
                let [hardware_high, hardware_low, ..] = hardware;
                let hardware = u16::from_be_bytes([hardware_high, hardware_low]);
                self.cooked(hardware, u16::from_be_bytes([high, low]), inner)
            }
            276 => {
                let (header, inner) = at.take::<20>()?;
                let [high, low, _, _, _, _, _, _, hardware_high, hardware_low, ..] = *header;
                let hardware = u16::from_be_bytes([hardware_high, hardware_low]);
                self.cooked(hardware, u16::from_be_bytes([high, low]), inner)
            }
            239 => self.nflog(at),
            9 => self.ppp(at),
            50 => self.ppp_serial(at),
            51 => self.pppoe(at),
            104 => self.cisco_hdlc(at),
            // PPP_PPPD and PPP_WITH_DIR: a byte for the direction, then PPP. In the former, that
            // byte replaces the address.
            166 | 204 => {
                let ([_], inner) = at.take::<1>()?;
                match inner.peek::<1>()? {
                    [0x03] => self.ppp(inner.skip(1)?),
                    _ => self.ppp(inner),
                }
            }
            _ => Err(Reason::LinkType.into()),
        }
    }

    pub(super) fn ethernet(&mut self, at: At<'_>) -> Result<DecodeResult, Stop> {
        let header = Ethernet2HeaderSlice::from_slice(at.rest()).map_err(|_| at.lacking(14))?;
        self.ether_type(header.ether_type().0, at.skip(14)?)
    }

    /// Decodes the bytes after an EtherType or an 802.3 length.
    #[inline]
    pub(super) fn ether_type(&mut self, ether_type: u16, at: At<'_>) -> Result<DecodeResult, Stop> {
        match ether_type {
            ether_type::IPV4 => self.ipv4(at),
            ether_type::IPV6 => self.ipv6(at),
            ether_type::TAG | ether_type::SERVICE_TAG | ether_type::OLD_SERVICE_TAG => {
                self.tags(at)
            }
            ether_type::MPLS | ether_type::MPLS_MULTICAST => self.mpls(at),
            ether_type::PPPOE_SESSION => self.pppoe(at),
            // These tags name the port of an extender, not a VLAN.
            ether_type::PORT_TAG => self.behind_tag::<6>(at),
            ether_type::CISCO_PORT_TAG => self.behind_tag::<4>(at),
            len if len < ether_type::LEAST => self.llc(at.limit(usize::from(len))),
            _ => Err(Reason::NotIp.into()),
        }
    }

    fn tags(&mut self, mut at: At<'_>) -> Result<DecodeResult, Stop> {
        self.deeper()?;
        for _ in 0..MAX_TAGS {
            let tag = SingleVlanHeaderSlice::from_slice(at.rest()).map_err(|_| at.lacking(4))?;
            let id = tag.vlan_identifier().value();
            if id != 0 && !self.layers.vlans.push(id) {
                return Err(Reason::TooDeep.into());
            }
            at = at.skip(4)?;
            match tag.ether_type().0 {
                ether_type::TAG | ether_type::SERVICE_TAG | ether_type::OLD_SERVICE_TAG => {}
                other => return self.ether_type(other, at),
            }
        }
        Err(Reason::TooDeep.into())
    }

    /// Decodes the bytes after a tag of `N` bytes and the EtherType that follows it.
    fn behind_tag<const N: usize>(&mut self, at: At<'_>) -> Result<DecodeResult, Stop> {
        self.deeper()?;
        let (ether_type, inner) = at.skip(N)?.take::<2>()?;
        self.ether_type(u16::from_be_bytes(*ether_type), inner)
    }

    /// IEEE 802.2: IP over SNAP (RFC 1042), and IP with its own service access point.
    fn llc(&mut self, at: At<'_>) -> Result<DecodeResult, Stop> {
        match at.peek::<3>()? {
            [0xaa, 0xaa, 0x03] => {
                let (header, inner) = at.take::<8>()?;
                let [_, _, _, organization @ .., high, low] = *header;
                let ether_type = u16::from_be_bytes([high, low]);
                // 00-00-f8 is bridging of frames that could not be translated, IEEE 802.1H.
                let is_ether_type = matches!(organization, [0, 0, 0] | [0, 0, 0xf8]);
                if !is_ether_type || ether_type < ether_type::LEAST {
                    return Err(Reason::NotIp.into());
                }
                self.ether_type(ether_type, inner)
            }
            [0x06, 0x06, 0x03] => self.ip(at.skip(3)?),
            _ => Err(Reason::NotIp.into()),
        }
    }

    /// A label stack. No field names its contents; the first four bits are the usual guess.
    pub(super) fn mpls(&mut self, mut at: At<'_>) -> Result<DecodeResult, Stop> {
        self.deeper()?;
        for _ in 0..MAX_LABELS {
            let (entry, inner) = at.take::<4>()?;
            let entry = u32::from_be_bytes(*entry);
            at = inner;
            let is_bottom = entry & 0x100 != 0;
            if is_bottom {
                self.layers.tunnel = Some(PacketTunnel {
                    kind: TunnelKind::Mpls,
                    id: Some(entry >> 12),
                    endpoints: self.endpoints(),
                });
                return self.below_labels(at);
            }
        }
        Err(Reason::TooDeep.into())
    }

    fn below_labels(&mut self, at: At<'_>) -> Result<DecodeResult, Stop> {
        // A MAC address may begin like an IP header too. But then a known EtherType is unlikely to
        // be at its place by chance, and so is a plausible IP header.
        let is_ethernet = |at: At<'_>| {
            at.peek_behind::<2>(12).map(|field| {
                matches!(
                    u16::from_be_bytes(*field),
                    ether_type::IPV4
                        | ether_type::IPV6
                        | ether_type::ARP
                        | ether_type::TAG
                        | ether_type::SERVICE_TAG
                        | ether_type::OLD_SERVICE_TAG
                        | ether_type::MPLS
                        | ether_type::PPPOE_SESSION
                )
            })
        };
        let [first] = *at.peek::<1>()?;
        match first >> 4 {
            4 if first & 0xf >= 5 => {
                let [_, _, high, low] = *at.peek::<4>()?;
                let total = usize::from(u16::from_be_bytes([high, low]));
                let plausible = total == 0 || (20..=at.wire_len()).contains(&total);
                if plausible || !is_ethernet(at)? { self.ipv4(at) } else { self.ethernet(at) }
            }
            6 => {
                let [_, _, _, _, high, low] = *at.peek::<6>()?;
                let payload = usize::from(u16::from_be_bytes([high, low]));
                let plausible = payload.saturating_add(40) <= at.wire_len();
                if plausible || !is_ethernet(at)? { self.ipv6(at) } else { self.ethernet(at) }
            }
            // The control word of a pseudo-wire before the frame, unless only a frame without one
            // is plausible.
            0 => {
                let inner = at.skip(4)?;
                if is_ethernet(inner)? || !is_ethernet(at)? {
                    self.ethernet(inner)
                } else {
                    self.ethernet(at)
                }
            }
            _ => self.ethernet(at),
        }
    }

    fn pppoe(&mut self, at: At<'_>) -> Result<DecodeResult, Stop> {
        let ([version, code, session @ .., high, low], inner) = at.take::<6>()?;
        if *version != 0x11 {
            return Err(Reason::Malformed.into());
        }
        if *code != 0 {
            return Err(Reason::NotIp.into());
        }
        self.deeper()?;
        self.layers.tunnel = Some(PacketTunnel {
            kind: TunnelKind::Pppoe,
            id: Some(u16::from_be_bytes(*session).into()),
            endpoints: self.endpoints(),
        });
        self.ppp(inner.limit(usize::from(u16::from_be_bytes([*high, *low]))))
    }

    /// PPP, with or without address and control field. The protocol may be compressed to one byte.
    pub(super) fn ppp(&mut self, at: At<'_>) -> Result<DecodeResult, Stop> {
        let at = match at.peek::<1>()? {
            [0xff] => {
                let ([_, control], inner) = at.take::<2>()?;
                if *control != 0x03 {
                    return Err(Reason::NotIp.into());
                }
                inner
            }
            _ => at,
        };
        let ([first], rest) = at.take::<1>()?;
        let (protocol, inner) = if first & 1 == 1 {
            (u16::from(*first), rest)
        } else {
            let (protocol, inner) = at.take::<2>()?;
            (u16::from_be_bytes(*protocol), inner)
        };
        match protocol {
            0x0021 => self.ipv4(inner),
            0x0057 => self.ipv6(inner),
            0x0281 | 0x0283 => self.mpls(inner),
            _ => Err(Reason::NotIp.into()),
        }
    }

    /// `LINKTYPE_PPP_HDLC`: PPP in HDLC-like framing, or Cisco's.
    fn ppp_serial(&mut self, at: At<'_>) -> Result<DecodeResult, Stop> {
        match at.peek::<1>()? {
            [0x0f | 0x8f] => self.cisco_hdlc(at),
            _ => self.ppp(at),
        }
    }

    fn cisco_hdlc(&mut self, at: At<'_>) -> Result<DecodeResult, Stop> {
        let ([_, _, high, low], inner) = at.take::<4>()?;
        match u16::from_be_bytes([*high, *low]) {
            len if len < ether_type::LEAST => Err(Reason::NotIp.into()),
            ether_type => self.ether_type(ether_type, inner),
        }
    }

    /// An address family: 2 for IPv4; for IPv6 each system has its own number.
    fn family(&mut self, at: At<'_>) -> Result<DecodeResult, Stop> {
        let (family, inner) = at.take::<4>()?;
        // A small number in the wrong byte order becomes a large one.
        match u32::from_be_bytes(*family).min(u32::from_le_bytes(*family)) {
            2 => self.ipv4(inner),
            10 | 24 | 28 | 30 => self.ipv6(inner),
            // Some programs write an EtherType in the last two bytes.
            _ => match *family {
                [_, _, 0x08, 0x00] => self.ipv4(inner),
                [_, _, 0x86, 0xdd] => self.ipv6(inner),
                _ => Err(Reason::NotIp.into()),
            },
        }
    }

    /// Decodes the bytes after the header of a Linux "cooked" packet from a device of type
    /// `hardware`.
    fn cooked(&mut self, hardware: u16, protocol: u16, at: At<'_>) -> Result<DecodeResult, Stop> {
        /// `ARPHRD_NETLINK`: the protocol field is a netlink family.
        const NETLINK: u16 = 824;
        match protocol {
            _ if hardware == NETLINK => Err(Reason::NotIp.into()),
            // 802.2 (`ETH_P_802_2`); no length comes before it.
            0x0004 => self.llc(at),
            protocol if protocol < ether_type::LEAST => Err(Reason::NotIp.into()),
            protocol => self.ether_type(protocol, at),
        }
    }

    /// Attributes of a Netfilter log message; one of them is the packet.
    ///
    /// Lengths and types are in the byte order of the capturing host, which no field names. Types
    /// are small, so they reveal it.
    fn nflog(&mut self, at: At<'_>) -> Result<DecodeResult, Stop> {
        const PAYLOAD: u16 = 9;
        let ([_, version, _, _], mut at) = at.take::<4>()?;
        if *version != 0 {
            return Err(Reason::NotIp.into());
        }
        for _ in 0..MAX_ATTRIBUTES {
            if at.wire_len() == 0 {
                return Err(Reason::NotIp.into());
            }
            let ([a, b, c, d], inner) = at.take::<4>()?;
            let (len, kind) = if *c == 0 && *d != 0 {
                (u16::from_be_bytes([*a, *b]), u16::from_be_bytes([*c, *d]))
            } else {
                (u16::from_le_bytes([*a, *b]), u16::from_le_bytes([*c, *d]))
            };
            let len = usize::from(len);
            let Some(value_len) = len.checked_sub(4) else {
                return Err(Reason::Malformed.into());
            };
            if kind & 0x3fff == PAYLOAD {
                return self.ip(inner.limit(value_len));
            }
            // The last attribute may come without its padding.
            at = at.skip(len.next_multiple_of(4).min(at.wire_len().max(len)))?;
        }
        Err(Reason::NotIp.into())
    }
}
