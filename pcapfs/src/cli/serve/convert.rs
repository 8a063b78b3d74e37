//! The changes to a savefile on its way to a client: packets that do not match are left out,
//! others cut, and a program that reads neither nanoseconds nor custom blocks gets none.
//!
//! The savefile comes from the daemon, in this machine's byte order. A client gets whole packets
//! only, also at the end that an order brings.

use bytes::Bytes;
use capture::savefile::FilteredSavefile;

use super::pcap::{PcapConverter, PcapMeter};
use super::pcapng::BlockConverter;
use crate::control::messages::Format;

/// The changes that the user wants.
#[derive(Clone, Debug, Default)]
pub(super) struct Conversion {
    /// Only packets that match.
    pub(super) filter: Option<String>,
    /// Time stamps of a pcap in microseconds.
    pub(super) microseconds: bool,
    /// Maximum number of bytes of a packet.
    pub(super) snaplen: Option<u32>,
}

impl Conversion {
    /// The bytes of a packet that are sent.
    pub(super) fn cut<'a>(&self, data: &'a [u8]) -> &'a [u8] {
        let most = self.snaplen.map_or(usize::MAX, |snaplen| snaplen as usize);
        data.get(..most).unwrap_or(data)
    }

    /// The snaplen to state for packets that were captured with `snaplen`; 0 is no limit.
    pub(super) fn stated_snaplen(&self, snaplen: u32) -> u32 {
        match self.snaplen {
            Some(most) if snaplen == 0 || snaplen > most => most,
            _ => snaplen,
        }
    }

    const fn keeps_packets(&self) -> bool {
        !self.microseconds && self.snaplen.is_none()
    }
}

/// A number of four bytes at this offset, in this machine's byte order; 0 beyond the end.
pub(in crate::cli) fn word(bytes: &[u8], at: usize) -> u32 {
    let word = bytes.get(at..).and_then(|rest| rest.first_chunk());
    u32::from_ne_bytes(word.copied().unwrap_or_default())
}

/// Changes the savefile of one client.
#[derive(Debug)]
pub(super) struct Converter {
    filter: Option<FilteredSavefile>,
    changes: Changes,
}

#[derive(Debug)]
enum Changes {
    /// A pcap that stays as it is: packets are counted, and no byte is copied.
    None(PcapMeter),
    Pcap(PcapConverter),
    Pcapng(BlockConverter),
}

impl Converter {
    /// For a savefile of this format.
    ///
    /// # Errors
    /// The filter does not compile.
    pub(super) fn new(format: Format, conversion: &Conversion) -> Result<Self, String> {
        let filter = conversion.filter.as_deref().map(FilteredSavefile::new).transpose();
        let filter = filter.map_err(|error| error.to_string())?;
        let changes = match format {
            Format::Pcapng => Changes::Pcapng(BlockConverter::new(conversion.clone())),
            Format::Pcap | Format::Unspecified if conversion.keeps_packets() => {
                Changes::None(PcapMeter::default())
            }
            Format::Pcap | Format::Unspecified => {
                Changes::Pcap(PcapConverter::new(conversion.clone()))
            }
        };
        Ok(Self { filter, changes })
    }

    /// The bytes for the client after the next bytes of the savefile; up to the end of the packet
    /// on the way, if it `is_last`.
    ///
    /// # Errors
    /// The savefile cannot be converted; the reason is for people.
    pub(super) fn push(&mut self, bytes: Bytes, is_last: bool) -> Result<Bytes, String> {
        let bytes = match &mut self.filter {
            Some(filter) => {
                let mut passed = Vec::new();
                filter.push(&bytes, &mut passed).map_err(|error| error.to_string())?;
                passed.into()
            }
            None => bytes,
        };
        match &mut self.changes {
            Changes::None(meter) => Ok(meter.push(bytes, is_last)),
            Changes::Pcap(converter) => converter.push(&bytes),
            Changes::Pcapng(converter) => converter.push(&bytes),
        }
    }

    /// True if the bytes so far end with a packet.
    pub(super) const fn is_between_packets(&self) -> bool {
        match &self.changes {
            Changes::None(meter) => meter.is_between_packets(),
            // They give out whole packets only.
            Changes::Pcap(_) | Changes::Pcapng(_) => true,
        }
    }

    /// The number of packets in the bytes so far.
    pub(super) const fn packets(&self) -> u64 {
        match &self.changes {
            Changes::None(meter) => meter.packets(),
            Changes::Pcap(converter) => converter.packets(),
            Changes::Pcapng(converter) => converter.packets(),
        }
    }
}
