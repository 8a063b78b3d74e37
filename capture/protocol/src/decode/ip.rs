//! IPv4, IPv6 and its extension headers.
//!
//! Sources: RFC 791, RFC 8200, RFC 2675 (jumbograms), RFC 4302 (AH).

use std::net::IpAddr;

use etherparse::err::{ipv4, ipv6};
use etherparse::{Ipv4HeaderSlice, Ipv6FragmentHeaderSlice, Ipv6HeaderSlice};

use super::fragments::{Begun, Came, DatagramKey, Fragment, FragmentedDatagram, MAX_DATAGRAM_LEN};
use super::view::{At, narrow};
use super::{DecodeResult, HeaderWalk, Ip, Portion, Reason, Stop, Transport, Vlans};

/// Maximum number of extension headers of one packet. RFC 8200 recommends an order with eight.
const MAX_EXTENSIONS: usize = 16;

mod protocol {
    pub(super) const HOP_BY_HOP: u8 = 0;
    pub(super) const IPV4: u8 = 4;
    pub(super) const TCP: u8 = 6;
    pub(super) const UDP: u8 = 17;
    pub(super) const IPV6: u8 = 41;
    pub(super) const ROUTING: u8 = 43;
    pub(super) const FRAGMENT: u8 = 44;
    pub(super) const GRE: u8 = 47;
    pub(super) const AUTHENTICATION: u8 = 51;
    pub(super) const DESTINATION: u8 = 60;
    pub(super) const MOBILITY: u8 = 135;
    pub(super) const MPLS: u8 = 137;
    pub(super) const HIP: u8 = 139;
    pub(super) const SHIM6: u8 = 140;
}

impl HeaderWalk<'_> {
    /// An IP header of either version.
    pub(super) fn ip(&mut self, at: At<'_>) -> Result<DecodeResult, Stop> {
        let [first] = at.peek::<1>()?;
        match first >> 4 {
            4 => self.ipv4(at),
            6 => self.ipv6(at),
            _ => Err(Reason::Malformed.into()),
        }
    }

    pub(super) fn ipv4(&mut self, at: At<'_>) -> Result<DecodeResult, Stop> {
        self.deeper()?;
        let header = Ipv4HeaderSlice::from_slice(at.rest()).map_err(|error| match error {
            ipv4::HeaderSliceError::Len(error) => at.lacking(error.required_len),
            ipv4::HeaderSliceError::Content(_) => Reason::Malformed,
        })?;
        let header_len = header.slice().len();
        if !are_options(header.options()) {
            return Err(Reason::Malformed.into());
        }
        let whole = match usize::from(header.total_len()) {
            0 => at,
            total if total < header_len => return Err(Reason::Malformed.into()),
            total => at.limit(total),
        };
        let payload = whole.skip(header_len)?;
        let ip = Ip {
            source: IpAddr::V4(header.source_addr()),
            destination: IpAddr::V4(header.destination_addr()),
        };
        let protocol = header.protocol().0;
        if !header.is_fragmenting_payload() {
            return self.upper(protocol, payload, ip);
        }
        let identification = header.identification().into();
        let fragment = Fragment {
            key: DatagramKey {
                source: ip.source,
                destination: ip.destination,
                identification,
                protocol,
                vlans: self.vlans(),
                tunnel: self.layers.tunnel,
            },
            protocol,
            offset: u32::from(header.fragments_offset().byte_offset()),
            more: header.more_fragments(),
            payload,
            link_type: self.link_type,
        };
        self.fragment(&fragment, ip)
    }

    pub(super) fn ipv6(&mut self, at: At<'_>) -> Result<DecodeResult, Stop> {
        self.deeper()?;
        let header = Ipv6HeaderSlice::from_slice(at.rest()).map_err(|error| match error {
            ipv6::HeaderSliceError::Len(error) => at.lacking(error.required_len),
            ipv6::HeaderSliceError::Content(_) => Reason::Malformed,
        })?;
        let inner = at.skip(40)?;
        let next = header.next_header().0;
        let payload = match header.payload_length() {
            0 if next == protocol::HOP_BY_HOP => match jumbo_len(inner)? {
                Some(len) => inner.limit(usize::try_from(len).unwrap_or(usize::MAX)),
                None => inner.limit(0),
            },
            // Linux removes the jumbo option from packets it hands to a capture. Below 64 KiB, a
            // length of 0 can only mean an empty packet, perhaps with padding after it.
            0 if inner.wire_len() > usize::from(u16::MAX) => inner,
            len => inner.limit(usize::from(len)),
        };
        let ip = Ip {
            source: IpAddr::V6(header.source_addr()),
            destination: IpAddr::V6(header.destination_addr()),
        };
        self.upper(next, payload, ip)
    }

    /// Decodes the bytes after an IP header: extension headers, then a transport header or another
    /// packet.
    #[inline]
    fn upper(&mut self, mut next: u8, mut at: At<'_>, ip: Ip) -> Result<DecodeResult, Stop> {
        let is_ipv6 = ip.source.is_ipv6();
        for _ in 0..MAX_EXTENSIONS {
            match next {
                protocol::TCP => return Self::tcp(at, ip),
                protocol::UDP => return self.udp(at, ip),
                protocol::HOP_BY_HOP
                | protocol::ROUTING
                | protocol::DESTINATION
                | protocol::MOBILITY
                | protocol::HIP
                | protocol::SHIM6
                    if is_ipv6 =>
                {
                    let [following, len] = *at.peek::<2>()?;
                    // In units of 8 bytes; the first unit is not counted.
                    at = at.skip(usize::from(len).saturating_add(1).saturating_mul(8))?;
                    next = following;
                }
                protocol::AUTHENTICATION => {
                    let [following, len] = *at.peek::<2>()?;
                    // In units of 4 bytes; the first two units are not counted.
                    at = at.skip(usize::from(len).saturating_add(2).saturating_mul(4))?;
                    next = following;
                }
                protocol::FRAGMENT if is_ipv6 => {
                    let header = Ipv6FragmentHeaderSlice::from_slice(at.rest())
                        .map_err(|_| at.lacking(8))?;
                    at = at.skip(8)?;
                    next = header.next_header().0;
                    // An "atomic" fragment is complete by itself, RFC 6946.
                    if !header.is_fragmenting_payload() {
                        continue;
                    }
                    let fragment = Fragment {
                        key: DatagramKey {
                            source: ip.source,
                            destination: ip.destination,
                            identification: header.identification(),
                            protocol: 0,
                            vlans: self.vlans(),
                            tunnel: self.layers.tunnel,
                        },
                        protocol: next,
                        offset: u32::from(header.fragment_offset().byte_offset()),
                        more: header.more_fragments(),
                        payload: at,
                        link_type: self.link_type,
                    };
                    return self.fragment(&fragment, ip);
                }
                protocol::IPV4 | protocol::IPV6 | protocol::GRE | protocol::MPLS
                    if self.options.tunnels =>
                {
                    if self.is_beginning {
                        return Err(Stop::Fragment);
                    }
                    let inner = |walk: &mut Self| match next {
                        protocol::GRE => walk.gre(at, ip),
                        protocol::MPLS => walk.mpls(at),
                        _ => walk.ip_in_ip(next == protocol::IPV6, at, ip),
                    };
                    return self.or_outer(inner, || DecodeResult::other(next, at, ip));
                }
                _ => return Ok(DecodeResult::other(next, at, ip)),
            }
        }
        Err(Reason::TooDeep.into())
    }

    /// The contents of a tunnel, or the packet around it if they are no IP packet.
    ///
    /// A truncated inner packet stays an error: with more bytes it might have been an IP packet,
    /// and the result must not depend on the snapshot length.
    pub(super) fn or_outer(
        &mut self,
        inner: impl FnOnce(&mut Self) -> Result<DecodeResult, Stop>,
        outer: impl FnOnce() -> DecodeResult,
    ) -> Result<DecodeResult, Stop> {
        let outside = *self.layers;
        match inner(self) {
            Err(Stop::Reason(Reason::NotIp | Reason::Malformed)) => {
                *self.layers = outside;
                Ok(outer())
            }
            inner => inner,
        }
    }

    /// The VLAN ids that distinguish datagrams; none if the options ignore them.
    fn vlans(&self) -> Vlans {
        if self.options.vlans { self.layers.vlans } else { Vlans::default() }
    }

    fn fragment(&mut self, fragment: &Fragment<'_>, ip: Ip) -> Result<DecodeResult, Stop> {
        let datagram = match self.fragments.insert(fragment, self.time, self.options)? {
            Came::Whole(datagram) => datagram,
            Came::Waits if self.options.early => return self.beginning(fragment, ip),
            Came::Waits => return Err(Stop::Fragment),
            Came::Part { begun, completes, is_copy } => {
                let mut found = DecodeResult::part(fragment, &begun, completes, ip)?;
                if let Some(portion) = &mut found.portion {
                    portion.is_copy = is_copy;
                }
                return Ok(found);
            }
        };
        self.deeper()?;
        let view = datagram.view();
        let at = At::new(&view, datagram.len());
        let mut found = self.upper(datagram.protocol(), at, ip)?;
        // If `whole` is set already, the payload belongs to a datagram within this one.
        found.whole.get_or_insert(datagram);
        Ok(found)
    }

    /// Decodes a datagram that was given up as far as it goes, including the headers of a tunnel.
    pub(super) fn given_up(
        &mut self,
        datagram: &FragmentedDatagram,
        ip: Ip,
    ) -> Result<DecodeResult, Stop> {
        let view = datagram.view();
        let most = datagram.total().unwrap_or(MAX_DATAGRAM_LEN) as usize;
        let mut found = self.upper(datagram.protocol(), At::new(&view, most), ip)?;
        let goes_on = found.offset.saturating_add(found.len) >= most;
        if found.whole.is_none() && datagram.total().is_none() && goes_on {
            // No header states the payload's length, so it ends where the datagram's known part
            // ends.
            found.len = (datagram.end() as usize).saturating_sub(found.offset);
        }
        Ok(found)
    }

    /// The beginning of an incomplete datagram, if it contains the transport header.
    ///
    /// Not for a tunnel: its contents may be a fragment themselves, and are decoded only once.
    fn beginning(&mut self, fragment: &Fragment<'_>, ip: Ip) -> Result<DecodeResult, Stop> {
        let beginning = self.fragments.beginning(fragment).ok_or(Stop::Fragment)?;
        let outside = *self.layers;
        self.is_beginning = true;
        let view = beginning.view();
        let found = self.upper(beginning.protocol, At::new(&view, beginning.most()), ip);
        self.is_beginning = false;
        *self.layers = outside;
        // With more bytes the result may be different.
        let mut found = found.map_err(|_| Stop::Fragment)?;
        if found.transport == Transport::Other {
            return Err(Stop::Fragment);
        }
        let (begun, so_far) = self
            .fragments
            .begin(&fragment.key, found.transport, found.protocol, (found.offset, found.len))
            .ok_or(Stop::Fragment)?;
        let here = so_far.end();
        found.len = here.min(begun.end).saturating_sub(begun.start) as usize;
        found.portion = Some(Box::new(Portion {
            datagram: begun.datagram,
            begins: true,
            at: 0,
            len: begun.end.saturating_sub(begun.start),
            ends: beginning.total == Some(here),
            completes: false,
            is_copy: false,
        }));
        found.whole = Some(so_far);
        Ok(found)
    }
}

impl DecodeResult {
    /// The part of the payload that this fragment contains. The beginning of its datagram was
    /// returned before.
    fn part(fragment: &Fragment<'_>, begun: &Begun, completes: bool, ip: Ip) -> Result<Self, Stop> {
        let end = fragment.offset.saturating_add(narrow(fragment.len())).min(begun.end);
        let start = fragment.offset.max(begun.start).min(end.max(begun.start));
        let skipped = start.saturating_sub(fragment.offset) as usize;
        let payload = fragment.payload.skip(skipped.min(fragment.payload.wire_len()))?;
        let payload = payload.limit(end.saturating_sub(start) as usize);
        let portion = Portion {
            datagram: begun.datagram,
            begins: false,
            at: start.saturating_sub(begun.start),
            len: begun.end.saturating_sub(begun.start),
            ends: !fragment.more,
            completes,
            is_copy: false,
        };
        let found = Self::new(begun.protocol, begun.transport, payload, ip);
        Ok(Self { portion: Some(Box::new(portion)), ..found })
    }

    fn other(protocol: u8, at: At<'_>, ip: Ip) -> Self {
        Self::new(protocol, Transport::Other, at, ip)
    }

    pub(super) fn new(protocol: u8, transport: Transport, payload: At<'_>, ip: Ip) -> Self {
        Self {
            ip,
            protocol,
            transport,
            offset: payload.offset,
            len: payload.wire_len(),
            whole: None,
            portion: None,
        }
    }
}

/// Returns `true` if all options up to the end of the list lie within it, as Linux demands.
fn are_options(mut options: &[u8]) -> bool {
    const END: u8 = 0;
    const NOTHING: u8 = 1;
    loop {
        options = match options {
            [] | [END, ..] => return true,
            [NOTHING, rest @ ..] => rest,
            [_, len, ..] if *len >= 2 => match options.get(usize::from(*len)..) {
                Some(rest) => rest,
                None => return false,
            },
            _ => return false,
        }
    }
}

/// The length that a hop-by-hop option states in place of the IPv6 header.
fn jumbo_len(at: At<'_>) -> Result<Option<u32>, Reason> {
    const PAD1: u8 = 0;
    const JUMBO: u8 = 0xc2;
    let [_, len] = *at.peek::<2>()?;
    let len = usize::from(len).saturating_add(1).saturating_mul(8);
    let mut options = at.skip(2)?.limit(len.saturating_sub(2));
    // At most 2 KiB of options, with at least one byte each.
    while options.wire_len() > 0 {
        match *options.peek::<1>()? {
            [PAD1] => options = options.skip(1)?,
            [JUMBO] => {
                let [_, _, len @ ..] = *options.peek::<6>()?;
                return Ok(Some(u32::from_be_bytes(len)));
            }
            _ => {
                let [_, len] = *options.peek::<2>()?;
                options = options.skip(usize::from(len).saturating_add(2))?;
            }
        }
    }
    Ok(None)
}
