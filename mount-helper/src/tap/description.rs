//! A tap or tun device as a user writes it: `tap:lab,mtu=9000`.

use std::fmt;

/// Maximum bytes of the name of an interface: `IFNAMSIZ` of `linux/if.h`, less the zero at the end.
const NAME_MAX: usize = 15;

/// The mtu that a device can have: `ETH_MIN_MTU`, and the maximum that `tun_net_initialize` of
/// `drivers/net/tun.c` sets for each kind.
const MTU_MIN: u32 = 68;
const TAP_MTU_MAX: u32 = 65_521;
const TUN_MTU_MAX: u32 = 65_535;

/// The kind of a device.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum TapKind {
    /// It carries Ethernet frames.
    Tap,
    /// It carries IP packets.
    Tun,
}

impl TapKind {
    /// The word that begins a source of this kind, without its colon.
    #[must_use]
    pub const fn word(self) -> &'static str {
        match self {
            Self::Tap => "tap",
            Self::Tun => "tun",
        }
    }
}

impl fmt::Display for TapKind {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter.write_str(self.word())
    }
}

/// A device, and the settings that it is to have.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct TapDescription {
    /// Its kind.
    pub kind: TapKind,
    /// Name of the interface.
    pub name: String,
    /// Maximum bytes of a packet in a frame; `None` for the kernel's default.
    pub mtu: Option<u32>,
    /// Ethernet address of the system's end; `None` for a random one.
    pub mac: Option<[u8; 6]>,
    /// The group whose members may attach, by name or number.
    pub group: Option<String>,
    /// It stays when its program has ended.
    pub persist: bool,
}

impl TapDescription {
    /// Parses the written form: `tap:NAME` or `tun:NAME`, then options after commas.
    ///
    /// # Errors
    /// The mistake, for people, without the written form itself.
    pub fn parse(text: &str) -> Result<Self, String> {
        let (kind, rest) = [TapKind::Tap, TapKind::Tun]
            .into_iter()
            .find_map(|kind| Some((kind, text.strip_prefix(kind.word())?.strip_prefix(':')?)))
            .ok_or("a device is written tap:NAME or tun:NAME")?;
        let mut words = rest.split(',');
        let name = words.next().unwrap_or_default();
        check_name(name)?;
        let mut device =
            Self { kind, name: name.to_owned(), mtu: None, mac: None, group: None, persist: false };
        for word in words {
            device.option(word)?;
        }
        if device.group.is_some() && !device.persist {
            return Err("group= is for a device that stays: add ,persist".to_owned());
        }
        Ok(device)
    }

    fn option(&mut self, word: &str) -> Result<(), String> {
        match word.split_once('=') {
            None if word == "persist" => self.persist = true,
            Some(("mtu", value)) => {
                let most = if self.kind == TapKind::Tap { TAP_MTU_MAX } else { TUN_MTU_MAX };
                let mtu = value.parse().ok().filter(|mtu| (MTU_MIN..=most).contains(mtu));
                self.mtu = Some(mtu.ok_or_else(|| {
                    format!("mtu={value}: a number from {MTU_MIN} to {most} is needed")
                })?);
            }
            Some(("mac", value)) if self.kind == TapKind::Tap => {
                self.mac = Some(mac(value).ok_or_else(|| {
                    format!(
                        "mac={value}: write the address of one station, as mac=02:00:00:00:00:01"
                    )
                })?);
            }
            Some(("mac", _)) => return Err("mac=: a tun device has no Ethernet address".to_owned()),
            Some(("group", value)) if !value.is_empty() => self.group = Some(value.to_owned()),
            Some(("group", _)) => return Err("group=: write the name of a group".to_owned()),
            _ => {
                return Err(format!(
                    "'{word}' is no option of a device (have: mtu=, mac=, group=, persist)"
                ));
            }
        }
        Ok(())
    }
}

impl fmt::Display for TapDescription {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { kind, name, mtu, mac, group, persist } = self;
        write!(formatter, "{kind}:{name}")?;
        if let Some(mtu) = mtu {
            write!(formatter, ",mtu={mtu}")?;
        }
        if let Some(mac) = mac {
            write!(formatter, ",mac={}", mac_text(*mac))?;
        }
        if let Some(group) = group {
            write!(formatter, ",group={group}")?;
        }
        if *persist {
            formatter.write_str(",persist")?;
        }
        Ok(())
    }
}

/// The kernel accepts more names. `%d` in a name would make another one of it.
fn check_name(name: &str) -> Result<(), String> {
    let is_plain = |c: char| c.is_ascii_graphic() && !"/:%,\"'\\".contains(c);
    if name.is_empty() {
        return Err("the name of the interface is missing".to_owned());
    }
    if name.len() > NAME_MAX {
        return Err(format!("'{name}': the name of an interface has at most {NAME_MAX} bytes"));
    }
    if !name.chars().all(is_plain) || [".", ".."].contains(&name) {
        return Err(format!("'{name}' is no name of an interface"));
    }
    Ok(())
}

/// An Ethernet address of one station.
fn mac(text: &str) -> Option<[u8; 6]> {
    let mut address = [0; 6];
    let mut parts = text.split(':');
    for byte in &mut address {
        let part = parts.next().filter(|part| part.len() == 2)?;
        if !part.bytes().all(|digit| digit.is_ascii_hexdigit()) {
            return None;
        }
        *byte = u8::from_str_radix(part, 16).ok()?;
    }
    // The lowest bit of the first byte is set in addresses of groups.
    let is_station = address[0] & 1 == 0 && address != [0; 6];
    (parts.next().is_none() && is_station).then_some(address)
}

/// An Ethernet address as it is written.
pub(super) fn mac_text(address: [u8; 6]) -> String {
    address.map(|byte| format!("{byte:02x}")).join(":")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn devices_are_read_as_they_are_written() {
        for text in [
            "tap:lab",
            "tun:vpn0",
            "tap:lab,mtu=9000,mac=02:00:00:00:00:0a,group=netdev,persist",
            "tun:t,mtu=65535,persist",
        ] {
            let device = TapDescription::parse(text).unwrap();
            assert_eq!(device.to_string(), text);
        }
        let device = TapDescription::parse("tap:lab,mtu=9000,mac=02:00:00:00:00:0A").unwrap();
        assert_eq!((device.mtu, device.mac), (Some(9000), Some([2, 0, 0, 0, 0, 10])));
    }

    #[test]
    fn mistakes_are_named() {
        for (text, part) in [
            ("tap:", "name of the interface is missing"),
            ("tap:a-name-too-long-by-far", "at most 15 bytes"),
            ("tap:tap%d", "no name of an interface"),
            ("tap:a/b", "no name of an interface"),
            ("tap:..", "no name of an interface"),
            ("tap:a b", "no name of an interface"),
            ("tap:lab,mtu=67", "from 68 to 65521"),
            ("tap:lab,mtu=65522", "from 68 to 65521"),
            ("tap:lab,mtu=", "from 68 to 65521"),
            ("tap:lab,mac=01:00:00:00:00:00", "one station"),
            ("tap:lab,mac=00:00:00:00:00:00", "one station"),
            ("tap:lab,mac=2:0:0:0:0:1", "one station"),
            ("tap:lab,mac=02:00:00:00:00:01:02", "one station"),
            ("tap:lab,mac=+2:00:00:00:00:01", "one station"),
            ("tun:lab,mac=02:00:00:00:00:01", "no Ethernet address"),
            ("tap:lab,group=x", "add ,persist"),
            ("tap:lab,group=,persist", "name of a group"),
            ("tap:lab,follow", "'follow' is no option"),
            ("tap:lab,", "'' is no option"),
            ("eth0", "tap:NAME or tun:NAME"),
        ] {
            let mistake = TapDescription::parse(text).unwrap_err();
            assert!(mistake.contains(part), "{text}: {mistake}");
        }
    }
}
