//! The pcapng savefile: the blocks of the contract, a strict reader and a writer.

use frames::pcapng::{IF_NAME, IF_TSRESOL};

use super::{Parser, Record};

/// An interface description block.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Interface {
    /// LINKTYPE_ number.
    pub link_type: u16,
    /// The maximum bytes kept of a packet, 0 for no limit.
    pub snaplen: u32,
    /// `if_name`.
    pub name: Option<String>,
    /// `if_filter` without its leading code byte.
    pub filter: Option<String>,
    /// Time stamp units in a second, from `if_tsresol`.
    pub per_second: u64,
}

/// An interface statistics block.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Statistics {
    /// Index of the interface.
    pub interface: u32,
    /// `isb_ifrecv`.
    pub received: Option<u64>,
    /// `isb_ifdrop`.
    pub dropped: Option<u64>,
    /// `isb_osdrop`.
    pub dropped_by_system: Option<u64>,
    /// `isb_usrdeliv`.
    pub delivered: Option<u64>,
    /// `opt_comment`.
    pub comment: Option<String>,
}

/// Reads pcapng of this machine's byte order.
#[derive(Debug, Default)]
pub struct NgParser {
    rest: Vec<u8>,
    started: bool,
    interfaces: Vec<Interface>,
    statistics: Vec<Statistics>,
}

fn le32(bytes: &[u8], at: usize) -> Result<u32, String> {
    let bytes = bytes.get(at..at + 4).ok_or("a block too short for its fields")?;
    Ok(u32::from_le_bytes(bytes.try_into().expect("four bytes")))
}

fn le16(bytes: &[u8], at: usize) -> Result<u16, String> {
    let bytes = bytes.get(at..at + 2).ok_or("a block too short for its fields")?;
    Ok(u16::from_le_bytes(bytes.try_into().expect("two bytes")))
}

/// Time stamps in pcapng have the more significant half first, whatever the byte order.
fn split64(bytes: &[u8], at: usize) -> Result<u64, String> {
    Ok(u64::from(le32(bytes, at)?) << 32 | u64::from(le32(bytes, at + 4)?))
}

fn option_u64(value: &[u8]) -> Result<u64, String> {
    let bytes = value.try_into().map_err(|_| "a counter option that is not 8 bytes long")?;
    Ok(u64::from_le_bytes(bytes))
}

fn option_text(value: &[u8]) -> Result<&str, String> {
    str::from_utf8(value).map_err(|error| format!("an option that is no UTF-8: {error}"))
}

/// The options of a block: code and value each.
fn options(mut bytes: &[u8]) -> Result<Vec<(u16, &[u8])>, String> {
    let mut found = Vec::new();
    while !bytes.is_empty() {
        let (code, length) = (le16(bytes, 0)?, usize::from(le16(bytes, 2)?));
        if code == 0 {
            return if length == 0 && bytes.len() == 4 {
                Ok(found)
            } else {
                Err("an end of options that is not at the end".into())
            };
        }
        let value = bytes.get(4..4 + length).ok_or("an option longer than its block")?;
        let padding = &bytes[4 + length..];
        let pad = length.next_multiple_of(4) - length;
        if padding.get(..pad).is_none_or(|pad| pad.iter().any(|&byte| byte != 0)) {
            return Err("an option without zero padding".into());
        }
        found.push((code, value));
        bytes = &padding[pad..];
    }
    if found.is_empty() { Ok(found) } else { Err("options without their end".into()) }
}

impl NgParser {
    /// Interfaces described so far.
    #[must_use]
    pub fn interfaces(&self) -> &[Interface] {
        &self.interfaces
    }

    fn block(
        &mut self,
        kind: u32,
        body: &[u8],
        each: &mut dyn FnMut(Record<'_>) -> Result<(), String>,
    ) -> Result<(), String> {
        if self.started == (kind == 0x0a0d_0d0a) {
            return Err(format!("block {kind:#x} where a section begins, or a second section"));
        }
        match kind {
            0x0a0d_0d0a => self.section(body),
            1 => self.interface(body),
            5 => self.interface_statistics(body),
            6 => self.packet(body, each),
            other => Err(format!("block {other:#x} is none the contract speaks of")),
        }
    }

    fn section(&mut self, body: &[u8]) -> Result<(), String> {
        self.started = true;
        let known = le32(body, 0)? == 0x1a2b_3c4d && le16(body, 4)? == 1 && le16(body, 6)? <= 2;
        if !known || body.get(8..16) != Some(&[0xff; 8]) {
            return Err("no native section header of version 1 and unknown length".into());
        }
        options(&body[16..]).map(drop)
    }

    fn interface(&mut self, body: &[u8]) -> Result<(), String> {
        let mut interface = Interface {
            link_type: le16(body, 0)?,
            snaplen: le32(body, 4)?,
            per_second: 1_000_000,
            ..Interface::default()
        };
        for (code, value) in options(&body[8..])? {
            match (code, value) {
                (2, name) => interface.name = Some(option_text(name)?.to_owned()),
                (9, &[resolution @ 0..=9]) => interface.per_second = 10u64.pow(resolution.into()),
                (9, other) => return Err(format!("time resolution {other:02x?}")),
                (11, [0, filter @ ..]) => interface.filter = Some(option_text(filter)?.to_owned()),
                _ => {}
            }
        }
        self.interfaces.push(interface);
        Ok(())
    }

    fn interface_statistics(&mut self, body: &[u8]) -> Result<(), String> {
        let mut statistics = Statistics { interface: le32(body, 0)?, ..Statistics::default() };
        split64(body, 4)?;
        if statistics.interface as usize >= self.interfaces.len() {
            return Err("statistics of an interface that was not described".into());
        }
        for (code, value) in options(&body[12..])? {
            match code {
                1 if statistics.comment.is_some() => {
                    return Err("two comments in statistics".into());
                }
                1 => statistics.comment = Some(option_text(value)?.to_owned()),
                4 => statistics.received = Some(option_u64(value)?),
                5 => statistics.dropped = Some(option_u64(value)?),
                7 => statistics.dropped_by_system = Some(option_u64(value)?),
                8 => statistics.delivered = Some(option_u64(value)?),
                _ => {}
            }
        }
        self.statistics.push(statistics);
        Ok(())
    }

    fn packet(
        &self,
        body: &[u8],
        each: &mut dyn FnMut(Record<'_>) -> Result<(), String>,
    ) -> Result<(), String> {
        let index = le32(body, 0)?;
        let interface = self
            .interfaces
            .get(index as usize)
            .ok_or_else(|| format!("a packet of interface {index}, which was not described"))?;
        let (kept, original_length) = (le32(body, 12)?, le32(body, 16)?);
        let end = 20 + kept as usize;
        let data = body.get(20..end).ok_or("a packet longer than its block")?;
        let padded = 20 + (kept as usize).next_multiple_of(4);
        let padding = body.get(end..padded).ok_or("a packet without its padding")?;
        if kept > original_length || padding.iter().any(|&byte| byte != 0) {
            return Err("a packet whose lengths or padding are wrong".into());
        }
        let mut comment = None;
        for (code, value) in options(&body[padded..])? {
            if code == 1 && comment.replace(option_text(value)?).is_some() {
                return Err("two comments on one packet".into());
            }
        }
        each(Record {
            timestamp: split64(body, 4)? * (1_000_000_000 / interface.per_second),
            link_type: interface.link_type.into(),
            interface: index,
            original_length,
            data,
            comment,
        })
    }
}

impl Parser for NgParser {
    fn push(
        &mut self,
        bytes: &[u8],
        each: &mut dyn FnMut(Record<'_>) -> Result<(), String>,
    ) -> Result<(), String> {
        self.rest.extend_from_slice(bytes);
        let buffer = std::mem::take(&mut self.rest);
        let mut rest = &buffer[..];
        while rest.len() >= 8 {
            let (kind, length) = (le32(rest, 0)?, le32(rest, 4)?);
            // 16 MiB: no test packet is longer, and the reader would wait forever for a torn
            // length.
            if length < 12 || length % 4 != 0 || length > 1 << 24 {
                return Err(format!("block {kind:#x} with a length of {length}"));
            }
            let Some(block) = rest.get(..length as usize) else {
                break;
            };
            if le32(block, block.len() - 4)? != length {
                return Err(format!("block {kind:#x} whose two lengths differ"));
            }
            self.block(kind, &block[8..block.len() - 4], each)?;
            rest = &rest[block.len()..];
        }
        self.rest = rest.to_vec();
        Ok(())
    }

    fn rest(&self) -> &[u8] {
        &self.rest
    }

    fn statistics(&self) -> &[Statistics] {
        &self.statistics
    }
}

/// One packet for [`pcapng`].
#[derive(Clone, Debug)]
pub struct NgPacket {
    /// Index of its interface.
    pub interface: u32,
    /// In units of the interface's resolution, since the Unix epoch.
    pub timestamp: u64,
    /// Its bytes, all of them kept.
    pub data: Vec<u8>,
}

/// A pcapng savefile with these interfaces, all described before the first packet.
#[must_use]
pub fn pcapng(interfaces: &[Interface], packets: &[NgPacket]) -> Vec<u8> {
    let mut file = frames::pcapng::section(&[]);
    for interface in interfaces {
        let digits = u8::try_from(interface.per_second.ilog10()).expect("a small number");
        let digits = [digits];
        let name = interface.name.iter().map(|name| (IF_NAME, name.as_bytes()));
        let options: Vec<(u16, &[u8])> = name.chain([(IF_TSRESOL, &digits[..])]).collect();
        let Interface { link_type, snaplen, .. } = *interface;
        file.extend(frames::pcapng::interface(link_type, snaplen, &options));
    }
    for NgPacket { interface, timestamp, data } in packets {
        file.extend(frames::pcapng::packet(*interface, *timestamp, data, data.len(), &[]));
    }
    file
}
