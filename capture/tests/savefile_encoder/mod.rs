//! Savefiles written in the simplest way, by code that shares nothing with the crate, and their
//! expected contents.

#![allow(dead_code, reason = "each test uses a part of it")]
#![allow(
    clippy::cast_possible_truncation,
    clippy::cast_sign_loss,
    reason = "plain code for small numbers of its own"
)]

use proptest::prelude::*;

/// A packet as a reader must find it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Expected {
    /// The end of its record or block in the file.
    pub(crate) end: usize,
    pub(crate) link_type: u16,
    /// The time as a native record holds it: seconds, and micro- or nanoseconds.
    pub(crate) time: (u32, u32),
    pub(crate) original_len: u32,
    pub(crate) data: Vec<u8>,
    /// Index of its interface, counted over all sections of its file.
    pub(crate) interface: usize,
    /// Its options as a file made from it has them, without their end.
    pub(crate) options: Vec<u8>,
}

/// A block that belongs to the packet after it.
#[derive(Clone, Debug)]
pub(crate) struct Kept {
    /// Its end in the file.
    pub(crate) end: usize,
    /// The block in this machine's byte order.
    pub(crate) bytes: Vec<u8>,
}

/// An interface as a reader must find it.
#[derive(Clone, Debug)]
pub(crate) struct Described {
    /// The end of its block in the file.
    pub(crate) end: usize,
    pub(crate) link_type: u16,
    pub(crate) snaplen: u32,
    pub(crate) name: Option<String>,
}

/// A file and its expected contents.
#[derive(Clone, Debug, Default)]
pub(crate) struct File {
    pub(crate) bytes: Vec<u8>,
    /// Link type in the file header; `None` for pcapng.
    pub(crate) link_type: Option<u16>,
    pub(crate) nano: bool,
    /// The end of each record or block; the first is the file or section header.
    pub(crate) ends: Vec<usize>,
    pub(crate) packets: Vec<Expected>,
    pub(crate) interfaces: Vec<Described>,
    pub(crate) kept: Vec<Kept>,
    /// Comments on sections, as options of the packet after them.
    pub(crate) comments: Vec<Kept>,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Order {
    pub(crate) big: bool,
}

impl Order {
    pub(crate) fn u16(self, value: u16) -> [u8; 2] {
        if self.big { value.to_be_bytes() } else { value.to_le_bytes() }
    }

    pub(crate) fn u32(self, value: u32) -> [u8; 4] {
        if self.big { value.to_be_bytes() } else { value.to_le_bytes() }
    }

    pub(crate) fn u64(self, value: u64) -> [u8; 8] {
        if self.big { value.to_be_bytes() } else { value.to_le_bytes() }
    }
}

/// A packet before it is written.
#[derive(Clone, Debug)]
pub(crate) struct Packet {
    pub(crate) seconds: u32,
    /// Nanoseconds below a second.
    pub(crate) nanoseconds: u32,
    pub(crate) more_on_the_wire: u32,
    pub(crate) data: Vec<u8>,
}

impl Packet {
    fn original_len(&self) -> u32 {
        self.data.len() as u32 + self.more_on_the_wire
    }
}

/// A pcap file.
pub(crate) fn pcap(order: Order, nano: bool, link_type: u16, packets: &[Packet]) -> File {
    let mut file = File { link_type: Some(link_type), nano, ..File::default() };
    let magic = if nano { 0xa1b2_3c4d } else { 0xa1b2_c3d4 };
    file.bytes.extend(order.u32(magic));
    file.bytes.extend(order.u16(2));
    file.bytes.extend(order.u16(4));
    file.bytes.extend([0; 8]);
    file.bytes.extend(order.u32(65_535));
    // With the length of a frame check sequence above the link type.
    file.bytes.extend(order.u32(0x2400_0000 | u32::from(link_type)));
    file.ends.push(file.bytes.len());
    for packet in packets {
        let fraction = packet.nanoseconds / if nano { 1 } else { 1_000 };
        let captured_len = packet.data.len() as u32;
        for field in [packet.seconds, fraction, captured_len, packet.original_len()] {
            file.bytes.extend(order.u32(field));
        }
        file.bytes.extend(&packet.data);
        file.ends.push(file.bytes.len());
        file.packets.push(Expected {
            end: file.bytes.len(),
            link_type,
            time: (packet.seconds, fraction),
            original_len: packet.original_len(),
            data: packet.data.clone(),
            interface: 0,
            options: Vec::new(),
        });
    }
    file
}

/// A step in writing a pcapng file.
#[derive(Clone, Debug)]
pub(crate) enum Item {
    Section {
        order: Order,
        comment: bool,
    },
    Interface {
        link_type: u16,
        resolution: Resolution,
        offset: Option<i16>,
        name: Option<String>,
    },
    /// `interface` is taken modulo the number of interfaces; without any, nothing is written.
    Enhanced {
        interface: usize,
        packet: Packet,
        comment: bool,
    },
    Obsolete {
        interface: usize,
        packet: Packet,
    },
    /// Of interface 0 of the section.
    Simple {
        packet: Packet,
    },
    /// Of one program's own type, to be copied.
    Custom {
        words: usize,
    },
    /// Statistics of an interface, as in [`Item::Enhanced`], at the time of the packet.
    Statistics {
        interface: usize,
        packet: Packet,
    },
    /// Of an unknown type.
    Unknown {
        words: usize,
    },
}

#[derive(Clone, Copy, Debug)]
pub(crate) enum Resolution {
    /// No option: microseconds.
    Absent,
    Decimal(u8),
    Binary(u8),
}

impl Resolution {
    /// A time in units of the resolution, and the nanoseconds that a reader gets from it.
    fn ticks(self, seconds: u32, nanoseconds: u32) -> (u64, u64) {
        let total = u128::from(seconds) * 1_000_000_000 + u128::from(nanoseconds);
        let (ticks, back) = match self {
            Self::Absent => (total / 1_000, total / 1_000 * 1_000),
            Self::Decimal(digits) => {
                let unit = 10_u128.pow(u32::from(digits));
                let ticks = total * unit / 1_000_000_000;
                (ticks, ticks * 1_000_000_000 / unit)
            }
            Self::Binary(bits) => {
                let ticks = (total << bits) / 1_000_000_000;
                (ticks, (ticks * 1_000_000_000) >> bits)
            }
        };
        (ticks as u64, back as u64)
    }
}

/// Writes a pcapng file that begins with a section in `order`.
pub(crate) fn pcapng(order: Order, items: &[Item]) -> File {
    let mut writer =
        Writer { file: File { nano: true, ..File::default() }, order, section: vec![] };
    writer.section(false);
    for item in items {
        writer.item(item);
    }
    writer.file
}

struct Writer {
    file: File,
    order: Order,
    /// The interfaces of the section: index, resolution, offset in seconds.
    section: Vec<(usize, Resolution, i64)>,
}

impl Writer {
    fn block(&mut self, block_type: u32, body: &[u8]) {
        assert_eq!(body.len() % 4, 0);
        let len = self.order.u32(body.len() as u32 + 12);
        self.file.bytes.extend(self.order.u32(block_type));
        self.file.bytes.extend(len);
        self.file.bytes.extend(body);
        self.file.bytes.extend(len);
        self.file.ends.push(self.file.bytes.len());
    }

    fn option(&self, body: &mut Vec<u8>, code: u16, value: &[u8]) {
        body.extend(self.order.u16(code));
        body.extend(self.order.u16(value.len() as u16));
        body.extend(value);
        body.resize(body.len().next_multiple_of(4), 0);
    }

    fn section(&mut self, comment: bool) {
        let mut body = Vec::from(self.order.u32(0x1a2b_3c4d));
        body.extend(self.order.u16(1));
        body.extend(self.order.u16(0));
        body.extend(self.order.u64(u64::MAX));
        self.option(&mut body, 4, b"plain encoder");
        if comment {
            self.option(&mut body, 1, b"a section");
            self.option(&mut body, 0, &[]);
        }
        self.block(0x0a0d_0d0a, &body);
        if comment {
            let header = [1_u16.to_ne_bytes(), 9_u16.to_ne_bytes()].concat();
            let bytes = [&header[..], b"a section\0\0\0"].concat();
            self.file.comments.push(Kept { end: self.file.bytes.len(), bytes });
        }
        self.section.clear();
    }

    fn item(&mut self, item: &Item) {
        match item {
            Item::Section { order, comment } => {
                self.order = *order;
                self.section(*comment);
            }
            Item::Interface { link_type, resolution, offset, name } => {
                self.interface(*link_type, *resolution, *offset, name.as_deref());
            }
            Item::Custom { words } => self.custom(*words),
            Item::Statistics { interface, packet } => self.statistics(*interface, packet),
            Item::Unknown { words } => self.block(0x0bad_0000, &vec![0xee; words * 4]),
            Item::Enhanced { interface, packet, comment } => {
                self.packet(*interface, packet, 6, *comment);
            }
            Item::Obsolete { interface, packet } => self.packet(*interface, packet, 2, false),
            Item::Simple { packet } => self.packet(0, packet, 3, false),
        }
    }

    fn custom(&mut self, words: usize) {
        let body = |number: [u8; 4]| [&number[..], &vec![0xee; words * 4]].concat();
        self.block(0xbad, &body(self.order.u32(32_473)));
        let len = u32::try_from(16 + words * 4).unwrap().to_ne_bytes();
        let body = body(32_473_u32.to_ne_bytes());
        let bytes = [&0xbad_u32.to_ne_bytes()[..], &len, &body, &len].concat();
        self.file.kept.push(Kept { end: self.file.bytes.len(), bytes });
    }

    fn statistics(&mut self, interface: usize, packet: &Packet) {
        if self.section.is_empty() {
            return;
        }
        let local = interface % self.section.len();
        let (index, resolution, offset) = self.section[local];
        let (ticks, nanoseconds) = resolution.ticks(packet.seconds, packet.nanoseconds);
        let time = (nanoseconds as i128 + i128::from(offset) * 1_000_000_000).max(0) as u64;
        let halves = |order: Order, time: u64| {
            [order.u32((time >> 32) as u32), order.u32(time as u32)].concat()
        };
        let body = |writer: &Self, interface: usize, time: u64| {
            let order = writer.order;
            let mut body = [&order.u32(interface as u32)[..], &halves(order, time)].concat();
            writer.option(&mut body, 1, b"counted");
            writer.option(&mut body, 3, &halves(order, time));
            writer.option(&mut body, 4, &order.u64(1 << 40));
            writer.option(&mut body, 0, &[]);
            body
        };
        let written = body(self, local, ticks);
        self.block(5, &written);
        let order = std::mem::replace(&mut self.order, Order { big: cfg!(target_endian = "big") });
        let body = body(self, index, time);
        self.order = order;
        let len = u32::try_from(body.len() + 12).unwrap().to_ne_bytes();
        let bytes = [&5_u32.to_ne_bytes()[..], &len, &body, &len].concat();
        self.file.kept.push(Kept { end: self.file.bytes.len(), bytes });
    }

    fn interface(
        &mut self,
        link_type: u16,
        resolution: Resolution,
        offset: Option<i16>,
        name: Option<&str>,
    ) {
        let mut body = Vec::from(self.order.u16(link_type));
        body.extend([0; 2]);
        body.extend(self.order.u32(SNAPLEN));
        if let Some(name) = name {
            self.option(&mut body, 2, name.as_bytes());
        }
        match resolution {
            Resolution::Absent => {}
            Resolution::Decimal(digits) => self.option(&mut body, 9, &[digits]),
            Resolution::Binary(bits) => self.option(&mut body, 9, &[0x80 | bits]),
        }
        if let Some(offset) = offset {
            self.option(&mut body, 14, &self.order.u64(i64::from(offset) as u64));
        }
        self.option(&mut body, 0, &[]);
        self.block(1, &body);
        let index = self.file.interfaces.len();
        self.section.push((index, resolution, i64::from(offset.unwrap_or(0))));
        let name = name.map(str::to_owned);
        let end = self.file.bytes.len();
        self.file.interfaces.push(Described { end, link_type, snaplen: SNAPLEN, name });
    }

    fn packet(&mut self, interface: usize, packet: &Packet, block_type: u32, comment: bool) {
        if self.section.is_empty() {
            return;
        }
        let local = interface % self.section.len();
        let (index, resolution, offset) = self.section[local];
        let (ticks, nanoseconds) = resolution.ticks(packet.seconds, packet.nanoseconds);
        let mut data = packet.data.clone();
        let captured_len = data.len() as u32;
        let mut original_len = packet.original_len();
        let mut body = Vec::new();
        match block_type {
            6 => body.extend(self.order.u32(local as u32)),
            2 => {
                body.extend(self.order.u16(local as u16));
                body.extend(self.order.u16(7));
            }
            _ => {}
        }
        let mut time = 0;
        if block_type == 3 {
            // The captured length is not written; it follows from the snapshot length.
            data.truncate(SNAPLEN as usize);
            if data.len() < SNAPLEN as usize {
                original_len = data.len() as u32;
            }
        } else {
            body.extend(self.order.u32((ticks >> 32) as u32));
            body.extend(self.order.u32(ticks as u32));
            body.extend(self.order.u32(captured_len));
            time = (nanoseconds as i128 + i128::from(offset) * 1_000_000_000).max(0);
        }
        body.extend(self.order.u32(original_len));
        body.extend(&data);
        body.resize(body.len().next_multiple_of(4), 0xdd);
        if comment {
            self.option(&mut body, 1, b"a comment");
            self.option(&mut body, 4, &self.order.u64(7));
            self.option(&mut body, 0, &[]);
        }
        self.block(block_type, &body);
        let mut options = Vec::new();
        if comment {
            let header = |code: u16, len: u16| [code.to_ne_bytes(), len.to_ne_bytes()].concat();
            options.extend([&header(1, 9)[..], b"a comment\0\0\0"].concat());
            options.extend([&header(4, 8)[..], &7_u64.to_ne_bytes()].concat());
        }
        let seconds = (time / 1_000_000_000) as u32;
        self.file.packets.push(Expected {
            end: self.file.bytes.len(),
            link_type: self.file.interfaces[index].link_type,
            time: (seconds, (time % 1_000_000_000) as u32),
            original_len,
            data,
            interface: index,
            options,
        });
    }
}

/// The snaplen of every interface.
const SNAPLEN: u32 = 24;

// Small numbers, so that values coincide.

pub(crate) fn order() -> impl Strategy<Value = Order> {
    any::<bool>().prop_map(|big| Order { big })
}

pub(crate) fn packet() -> impl Strategy<Value = Packet> {
    let time = (prop_oneof![0..3_u32, 1_600_000_000..1_900_000_000_u32], 0..1_000_000_000_u32);
    let data = prop::collection::vec(any::<u8>(), 0..30);
    (time, 0..2_u32, data).prop_map(|((seconds, nanoseconds), more, data)| Packet {
        seconds,
        nanoseconds,
        more_on_the_wire: more * 1_000,
        data,
    })
}

pub(crate) fn any_pcap(
    packets: impl Into<prop::collection::SizeRange>,
) -> impl Strategy<Value = File> {
    let link_type = prop_oneof![Just(1), Just(101)];
    (order(), any::<bool>(), link_type, prop::collection::vec(packet(), packets))
        .prop_map(|(order, nano, link_type, packets)| pcap(order, nano, link_type, &packets))
}

pub(crate) fn any_pcapng(
    items: impl Into<prop::collection::SizeRange>,
) -> impl Strategy<Value = File> {
    (order(), prop::collection::vec(item(), items)).prop_map(|(order, items)| pcapng(order, &items))
}

pub(crate) fn any_file() -> impl Strategy<Value = File> {
    prop_oneof![any_pcap(0..8), any_pcapng(0..14)]
}

fn item() -> impl Strategy<Value = Item> {
    let resolution = prop_oneof![
        Just(Resolution::Absent),
        (0..10_u8).prop_map(Resolution::Decimal),
        (0..31_u8).prop_map(Resolution::Binary),
    ];
    let link_type = prop_oneof![3 => Just(1), 1 => Just(113)];
    let name = prop::option::of("[a-z]{0,6}");
    let offset = prop::option::of(-3..3_i16);
    prop_oneof![
        1 => (order(), any::<bool>())
            .prop_map(|(order, comment)| Item::Section { order, comment }),
        3 => (link_type, resolution, offset, name).prop_map(
            |(link_type, resolution, offset, name)| Item::Interface {
                link_type, resolution, offset, name,
            }
        ),
        5 => (0..4_usize, packet(), any::<bool>()).prop_map(|(interface, packet, comment)| {
            Item::Enhanced { interface, packet, comment }
        }),
        1 => (0..4_usize, packet()).prop_map(|(interface, packet)| Item::Obsolete {
            interface, packet,
        }),
        1 => packet().prop_map(|packet| Item::Simple { packet }),
        1 => (0..5_usize).prop_map(|words| Item::Unknown { words }),
        1 => (0..5_usize).prop_map(|words| Item::Custom { words }),
        2 => (0..4_usize, packet()).prop_map(|(interface, packet)| Item::Statistics {
            interface, packet,
        }),
    ]
}
