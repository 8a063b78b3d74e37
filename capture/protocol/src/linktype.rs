//! Link types: what the first byte of a packet is.
//!
//! Savefiles hold `LINKTYPE_` numbers, libpcap's API hands out `DLT_` numbers. They agree but for
//! a few old ones (<https://www.tcpdump.org/linktypes.html>); everything in this crate is
//! `LINKTYPE_`.

/// A `LINKTYPE_` number as savefiles hold it.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct LinkType(pub u16);

/// The `LINKTYPE_` numbers this crate has to know by name, with libpcap's names for them.
const NAMES: &[(u16, &str)] = &[
    (0, "NULL"),
    (1, "EN10MB"),
    (6, "IEEE802"),
    (9, "PPP"),
    (50, "PPP_SERIAL"),
    (51, "PPP_ETHER"),
    (101, "RAW"),
    (104, "C_HDLC"),
    (105, "IEEE802_11"),
    (107, "FRELAY"),
    (108, "LOOP"),
    (113, "LINUX_SLL"),
    (127, "IEEE802_11_RADIO"),
    (147, "USER0"),
    (187, "BLUETOOTH_HCI_H4"),
    (189, "USB_LINUX"),
    (195, "IEEE802_15_4"),
    (201, "BLUETOOTH_HCI_H4_WITH_PHDR"),
    (220, "USB_LINUX_MMAPPED"),
    (227, "CAN_SOCKETCAN"),
    (228, "IPV4"),
    (229, "IPV6"),
    (239, "NFLOG"),
    (249, "USBPCAP"),
    (253, "NETLINK"),
    (276, "LINUX_SLL2"),
];

impl LinkType {
    /// Ethernet.
    pub const ETHERNET: Self = Self(1);
    /// IPv4 or IPv6 with nothing before it.
    pub const RAW: Self = Self(101);
    /// Linux "cooked" capture, version 1: what libpcap made of `any` before 1.10.
    pub const LINUX_SLL: Self = Self(113);
    /// Linux "cooked" capture, version 2.
    pub const LINUX_SLL2: Self = Self(276);

    /// The savefile number for one of libpcap's `DLT_` numbers.
    ///
    /// On Linux only `DLT_RAW` differs: 12 there, 101 in files (`pcap/dlt.h`, `pcap-common.c`).
    /// `None` for a number that does not fit a savefile.
    #[must_use]
    pub fn from_dlt(dlt: i32) -> Option<Self> {
        match dlt {
            12 => Some(Self::RAW),
            other => u16::try_from(other).ok().map(Self),
        }
    }

    /// libpcap's `DLT_` number for this link type.
    #[must_use]
    pub fn to_dlt(self) -> i32 {
        if self == Self::RAW { 12 } else { i32::from(self.0) }
    }

    /// libpcap's name, such as `EN10MB`; `LINKTYPE_<number>` for one this crate does not know.
    #[must_use]
    pub fn name(self) -> String {
        NAMES
            .iter()
            .find(|(number, _)| *number == self.0)
            .map_or_else(|| format!("LINKTYPE_{}", self.0), |(_, name)| (*name).to_owned())
    }
}

impl std::fmt::Display for LinkType {
    fn fmt(&self, formatter: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        formatter.write_str(&self.name())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn raw_differs_between_files_and_the_api() {
        assert_eq!(LinkType::from_dlt(12), Some(LinkType::RAW));
        assert_eq!(LinkType::RAW.to_dlt(), 12);
        assert_eq!(LinkType::from_dlt(1), Some(LinkType::ETHERNET));
        assert_eq!(LinkType::from_dlt(-1), None);
        assert_eq!(LinkType(276).name(), "LINUX_SLL2");
        assert_eq!(LinkType(999).name(), "LINKTYPE_999");
    }
}
