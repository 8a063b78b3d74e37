//! Network interfaces by name: what exists, and how an interface may be called.

use nix::net::if_::{if_indextoname, if_nametoindex};

use crate::source::{ANY, SourceError};

/// The name that the kernel and sysfs use for an interface, which may have been given by one of its
/// alternative names (`ip link property add dev eth0 altname lan`).
///
/// # Errors
/// [`SourceError::NoInterface`].
pub fn real_name(name: &str) -> Result<String, SourceError> {
    let names = names();
    let is_known = name == ANY || names.iter().any(|known| known == name);
    if is_known || is_device(name) {
        return Ok(name.to_owned());
    }
    // The kernel finds an interface by any of its names, and returns the real one.
    let real = if_nametoindex(name).and_then(if_indextoname);
    match real.map(|real| real.to_string_lossy().into_owned()) {
        Ok(real) => Ok(real),
        Err(_) => Err(SourceError::no_interface(name, &names)),
    }
}

/// One interface, for a list that people choose from.
#[derive(Clone, Debug, PartialEq, Eq, serde::Serialize)]
pub struct InterfaceInfo {
    /// Its name.
    pub name: String,
    /// Administratively up.
    pub up: bool,
    /// Up and with a carrier.
    pub running: bool,
    /// A loopback interface.
    pub loopback: bool,
    /// Its addresses, IPv4 and IPv6.
    pub addresses: Vec<String>,
}

/// The network interfaces of this network namespace, in the kernel's order.
///
/// # Errors
/// The errors of getifaddrs(3).
pub fn interfaces() -> std::io::Result<Vec<InterfaceInfo>> {
    use nix::net::if_::InterfaceFlags as Flags;
    let mut found: Vec<InterfaceInfo> = Vec::new();
    for address in nix::ifaddrs::getifaddrs()? {
        let index = found.iter().position(|known| known.name == address.interface_name);
        let index = index.unwrap_or_else(|| {
            found.push(InterfaceInfo {
                name: address.interface_name.clone(),
                up: address.flags.contains(Flags::IFF_UP),
                running: address.flags.contains(Flags::IFF_RUNNING),
                loopback: address.flags.contains(Flags::IFF_LOOPBACK),
                addresses: Vec::new(),
            });
            found.len() - 1
        });
        let text = address.address.and_then(|storage| {
            let v4 = storage.as_sockaddr_in().map(|v4| v4.ip().to_string());
            v4.or_else(|| storage.as_sockaddr_in6().map(|v6| v6.ip().to_string()))
        });
        if let (Some(interface), Some(text)) = (found.get_mut(index), text) {
            interface.addresses.push(text);
        }
    }
    Ok(found)
}

/// Prefixes of libpcap devices that are not network interfaces.
const DEVICES: [&str; 4] = ["nflog", "usbmon", "bluetooth", "dbus-"];

/// Returns true for a libpcap device that is no network interface.
pub(super) fn is_device(name: &str) -> bool {
    DEVICES.iter().any(|device| name.starts_with(device))
}

fn names() -> Vec<String> {
    let found = interfaces().unwrap_or_default();
    found.into_iter().map(|interface| interface.name).collect()
}
