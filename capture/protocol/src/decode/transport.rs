//! TCP and UDP headers.
//!
//! Sources: RFC 9293, RFC 7323 (window scale), RFC 768.

use etherparse::err::tcp::HeaderSliceError;
use etherparse::{TcpHeaderSlice, UdpHeaderSlice};

use super::view::At;
use super::{DecodeResult, HeaderWalk, Ip, Reason, Stop};

/// The transport header at the beginning of an IP payload.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Transport {
    /// TCP.
    Tcp(TcpHeader),
    /// UDP.
    Udp {
        /// Source port.
        source_port: u16,
        /// Destination port.
        destination_port: u16,
    },
    /// Anything else: ICMP with the packet it complains about, SCTP, a tunnel that is not decoded,
    /// ...
    Other,
}

/// A TCP header.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct TcpHeader {
    /// Source port.
    pub source_port: u16,
    /// Destination port.
    pub destination_port: u16,
    /// Sequence number of the first byte of the payload, or of the SYN.
    pub sequence: u32,
    /// The next sequence number expected from the other side, if [`TcpFlags::ACK`] is set.
    pub acknowledgment: u32,
    /// Flags.
    pub flags: TcpFlags,
    /// Window as in the header, not scaled.
    pub window: u16,
    /// Offset of the first byte after the urgent data, if [`TcpFlags::URG`] is set.
    pub urgent: u16,
    /// Maximum segment size in bytes, if a SYN states it.
    pub maximum_segment_size: Option<u16>,
    /// Number of bits to shift windows by, if a SYN states it.
    pub window_scale: Option<u8>,
    /// The options were captured to their end.
    pub has_all_options: bool,
    /// An acknowledgment alone, with a payload of a few zeros that fills the shortest Ethernet
    /// frame: some devices count the frame's padding in the length of the packet.
    pub is_padded: bool,
}

/// The flags of a TCP header: its fourteenth byte.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash)]
pub struct TcpFlags(pub u8);

impl TcpFlags {
    /// No more data from the sender.
    pub const FIN: Self = Self(0x01);
    /// Synchronize sequence numbers.
    pub const SYN: Self = Self(0x02);
    /// Reset the connection.
    pub const RST: Self = Self(0x04);
    /// Push.
    pub const PSH: Self = Self(0x08);
    /// The acknowledgment number is valid.
    pub const ACK: Self = Self(0x10);
    /// The urgent pointer is valid.
    pub const URG: Self = Self(0x20);
    /// Explicit congestion notification: echo.
    pub const ECE: Self = Self(0x40);
    /// Explicit congestion notification: window reduced.
    pub const CWR: Self = Self(0x80);

    /// Returns `true` if all of `flags` are set.
    #[must_use]
    pub const fn contains(self, flags: Self) -> bool {
        self.0 & flags.0 == flags.0
    }
}

/// Bytes of the shortest Ethernet frame after an IPv4 header: its payload has 46 bytes.
const LEAST_FRAME: usize = 46 - 20;

impl HeaderWalk<'_> {
    pub(super) fn tcp(at: At<'_>, ip: Ip) -> Result<DecodeResult, Stop> {
        const FIXED_LEN: usize = 20;
        let bytes = at.rest();
        let (mut tcp, header_len) = match TcpHeaderSlice::from_slice(bytes) {
            Ok(header) => (TcpHeader::new(&header, header.options(), true), header.slice().len()),
            Err(HeaderSliceError::Len(error)) => {
                // The options are cut; the fixed header before them is valid all the same.
                let (fixed, options) =
                    bytes.split_first_chunk::<FIXED_LEN>().ok_or_else(|| at.lacking(FIXED_LEN))?;
                let mut alone = *fixed;
                let [.., offset, _, _, _, _, _, _, _] = &mut alone;
                *offset = 5 << 4;
                let header = TcpHeaderSlice::from_slice(&alone).map_err(|_| Reason::Malformed)?;
                (TcpHeader::new(&header, options, false), error.required_len)
            }
            Err(HeaderSliceError::Content(_)) => return Err(Reason::Malformed.into()),
        };
        let payload = at.skip(header_len)?;
        tcp.is_padded = ip.source.is_ipv4()
            && tcp.flags.0 & !(TcpFlags::ECE.0 | TcpFlags::CWR.0) == TcpFlags::ACK.0
            && at.wire_len() <= LEAST_FRAME
            && payload.wire_len() > 0
            && payload.rest().len() == payload.wire_len()
            && payload.rest().iter().all(|byte| *byte == 0);
        Ok(DecodeResult::new(6, Transport::Tcp(tcp), payload, ip))
    }

    pub(super) fn udp(&mut self, at: At<'_>, ip: Ip) -> Result<DecodeResult, Stop> {
        const HEADER_LEN: usize = 8;
        let header = UdpHeaderSlice::from_slice(at.rest()).map_err(|_| at.lacking(HEADER_LEN))?;
        let whole = match usize::from(header.length()) {
            // Its length is known once the datagram is complete.
            0 if self.is_beginning => return Err(Stop::Fragment),
            // A jumbogram (RFC 2675), or the length was not filled in yet.
            0 => at,
            len if len < HEADER_LEN => return Err(Reason::Malformed.into()),
            len => at.limit(len),
        };
        let payload = whole.skip(HEADER_LEN)?;
        let (source_port, destination_port) = (header.source_port(), header.destination_port());
        let transport = Transport::Udp { source_port, destination_port };
        let outer = || DecodeResult::new(17, transport, payload, ip);
        if self.options.tunnels
            && let Some(tunnel) = Self::udp_tunnel(destination_port)
        {
            if self.is_beginning {
                return Err(Stop::Fragment);
            }
            return self.or_outer(|walk| tunnel(walk, payload, ip), outer);
        }
        Ok(outer())
    }
}

impl TcpHeader {
    fn new(header: &TcpHeaderSlice<'_>, options: &[u8], has_all_options: bool) -> Self {
        let [.., flags, _, _, _, _, _, _] = *header.slice().first_chunk::<20>().unwrap_or(&[0; 20]);
        let flags = TcpFlags(flags);
        let mut tcp = Self {
            source_port: header.source_port(),
            destination_port: header.destination_port(),
            sequence: header.sequence_number(),
            acknowledgment: header.acknowledgment_number(),
            flags,
            window: header.window_size(),
            urgent: header.urgent_pointer(),
            maximum_segment_size: None,
            window_scale: None,
            has_all_options,
            is_padded: false,
        };
        if flags.contains(TcpFlags::SYN) {
            tcp.read_options(options);
        }
        tcp
    }

    /// Reads options up to the first that is cut or invalid, and skips unknown ones.
    fn read_options(&mut self, mut options: &[u8]) {
        while let Some((kind, rest)) = options.split_first() {
            let (skip, value) = match (kind, rest) {
                (0, _) => return,
                (1, _) => (1, rest),
                (_, [len, value @ ..]) if *len >= 2 => (usize::from(*len), value),
                _ => return,
            };
            match (kind, skip, value) {
                (2, 4, [high, low, ..]) => {
                    self.maximum_segment_size = Some(u16::from_be_bytes([*high, *low]));
                }
                // More than 14 counts as 14, RFC 7323 2.3.
                (3, 3, [shift, ..]) => self.window_scale = Some((*shift).min(14)),
                _ => {}
            }
            options = options.get(skip..).unwrap_or_default();
        }
    }
}
