//! The system's own use of an interface, which ends when AF_XDP takes all of its packets.
//!
//! Only the network namespace of this thread is looked at.

use std::fs;
use std::net::IpAddr;

use super::link::LinkState;

/// The routes of the network namespace of a thread, proc_net(5).
const ROUTES_4: &str = "/proc/thread-self/net/route";
const ROUTES_6: &str = "/proc/thread-self/net/ipv6_route";

/// `RTF_UP`, and `RTF_REJECT` of routes that lead nowhere.
const UP: u32 = 0x0001;
const REJECT: u32 = 0x0200;

/// Why the system needs the packets of an interface, for people; `None` if it does not seem to.
pub(super) fn use_of(interface: &str, link: &LinkState) -> Option<String> {
    if let Some(address) = addresses(interface).into_iter().next() {
        return Some(format!("it has the address {address}"));
    }
    let read = |path| fs::read_to_string(path).unwrap_or_default();
    if has_default_4(&read(ROUTES_4), interface) || has_default_6(&read(ROUTES_6), interface) {
        return Some("the default route leads there".to_owned());
    }
    link.master.map(|master| {
        let master = nix::net::if_::if_indextoname(master);
        let master =
            master.map_or_else(|_| "another".to_owned(), |name| name.to_string_lossy().into());
        format!("it is part of the interface {master}")
    })
}

/// The addresses of an interface. The IPv6 address that each interface gets by itself does not
/// count: a port without an address has it as well.
fn addresses(interface: &str) -> Vec<IpAddr> {
    let all = nix::ifaddrs::getifaddrs().into_iter().flatten();
    let own = all.filter(|address| address.interface_name == interface);
    let addresses = own.filter_map(|address| {
        let address = address.address?;
        let v4 = address.as_sockaddr_in().map(|v4| IpAddr::from(v4.ip()));
        v4.or_else(|| address.as_sockaddr_in6().map(|v6| v6.ip().into()))
    });
    addresses.filter(|address| !is_automatic(*address)).collect()
}

const fn is_automatic(address: IpAddr) -> bool {
    match address {
        IpAddr::V4(_) => false,
        IpAddr::V6(address) => address.is_unicast_link_local(),
    }
}

/// Looks for the default route in the table of IPv4: interface, destination, gateway, flags, three
/// numbers, mask, in hexadecimal digits.
fn has_default_4(table: &str, interface: &str) -> bool {
    table.lines().skip(1).any(|line| {
        let mut words = line.split_ascii_whitespace();
        let name = words.next();
        let destination = words.next();
        let flags = words.nth(1).and_then(|flags| u32::from_str_radix(flags, 16).ok());
        let mask = words.nth(3);
        name == Some(interface)
            && destination == Some("00000000")
            && mask == Some("00000000")
            && flags.is_some_and(leads)
    })
}

/// Looks for the default route in the table of IPv6: destination and length of its prefix, six
/// other words, flags, interface.
fn has_default_6(table: &str, interface: &str) -> bool {
    table.lines().any(|line| {
        let words: Vec<&str> = line.split_ascii_whitespace().collect();
        let [destination, prefix, _, _, _, _, _, _, flags, name] = words[..] else { return false };
        name == interface
            && prefix == "00"
            && destination.bytes().all(|digit| digit == b'0')
            && u32::from_str_radix(flags, 16).is_ok_and(leads)
    })
}

const fn leads(flags: u32) -> bool {
    flags & UP != 0 && flags & REJECT == 0
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn default_routes_are_found_in_the_tables_of_the_kernel() {
        let table = "\
Iface\tDestination\tGateway \tFlags\tRefCnt\tUse\tMetric\tMask\t\tMTU\tWindow\tIRTT
eth0\t00000000\t010200C0\t0003\t0\t0\t0\t00000000\t0\t0\t0
eth0\t000200C0\t00000000\t0001\t0\t0\t0\t00FFFFFF\t0\t0\t0
eth1\t00000000\t00000000\t0001\t0\t0\t0\t000000FF\t0\t0\t0
eth2\t00000000\t00000000\t0200\t0\t0\t0\t00000000\t0\t0\t0
";
        for (interface, expected) in [("eth0", true), ("eth1", false), ("eth2", false)] {
            assert_eq!(has_default_4(table, interface), expected, "{interface}");
        }
        let zero = "0".repeat(32);
        let line = |prefix: &str, flags: &str, name: &str| {
            format!("{zero} {prefix} {zero} 00 {zero} 00000400 00000001 00000000 {flags} {name}\n")
        };
        let table = [
            line("00", "00000003", "    eth0"),
            line("00", "00200200", "      lo"),
            line("40", "00000001", "    eth1"),
        ];
        for (interface, expected) in [("eth0", true), ("lo", false), ("eth1", false)] {
            assert_eq!(has_default_6(&table.concat(), interface), expected, "{interface}");
        }
    }

    #[test]
    fn the_address_that_each_interface_has_does_not_count() {
        for (address, expected) in
            [("fe80::1", true), ("2001:db8::1", false), ("169.254.1.1", false), ("::1", false)]
        {
            assert_eq!(is_automatic(address.parse().unwrap()), expected, "{address}");
        }
        assert_eq!(addresses("lo").first(), Some(&IpAddr::from([127, 0, 0, 1])));
    }
}
