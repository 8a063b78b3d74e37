//! The requests of ioctl(2) to tap devices, and those to interfaces that set them up.
#![expect(unsafe_code, reason = "nix has no functions for these requests")]

use std::io;
use std::mem;
use std::os::fd::{AsRawFd, BorrowedFd, OwnedFd};

use libc::{c_int, c_short, c_uint, ifreq};
use nix::sys::socket::{AddressFamily, SockFlag, SockType, socket};

use super::{TapDescription, TapKind, TapOwner};

/// The requests that a program needs that attaches to a device, for a filter of system calls: to
/// get the device, and to switch its offloads off. Others are those of sockets.
pub const REQUESTS: [u32; 2] = [TUNSETIFF, TUNSETOFFLOAD];

/// `TUNSETIFF` and `TUNSETOFFLOAD` of `linux/if_tun.h`, which are the same on all architectures
/// that pcapfs is built for.
const TUNSETIFF: u32 = 0x4004_54ca;
const TUNSETOFFLOAD: u32 = 0x4004_54d0;

/// How to attach to a device.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum AttachManner {
    /// To a device that may be there.
    Known,
    /// To one that must not be there before.
    New,
    /// To one of the queues of a device that has several.
    Queue,
}

/// Attaches an open `/dev/net/tun` to a device.
///
/// # Errors
/// EBUSY, EINVAL or EPERM as described in `tun_set_iff` of `drivers/net/tun.c`.
pub(super) fn attach(
    device: BorrowedFd<'_>,
    wanted: &TapDescription,
    manner: AttachManner,
) -> io::Result<()> {
    let mut flags = libc::IFF_NO_PI;
    flags |= match wanted.kind {
        TapKind::Tap => libc::IFF_TAP,
        TapKind::Tun => libc::IFF_TUN,
    };
    flags |= match manner {
        AttachManner::Known => 0,
        AttachManner::New => libc::IFF_TUN_EXCL,
        AttachManner::Queue => libc::IFF_MULTI_QUEUE,
    };
    let mut request = named(&wanted.name)?;
    request.ifr_ifru.ifru_flags = low_half(flags);
    exchange(device, TUNSETIFF, &mut request)
}

/// Has only this user or group attach to the device from now on.
pub(super) fn set_owner(device: BorrowedFd<'_>, owner: TapOwner) -> io::Result<()> {
    match owner {
        TapOwner::User(id) => set(device, libc::TUNSETOWNER, id),
        TapOwner::Group(id) => set(device, libc::TUNSETGROUP, id),
    }
}

/// Has the device stay when its program has ended.
pub(super) fn set_persistent(device: BorrowedFd<'_>) -> io::Result<()> {
    set(device, libc::TUNSETPERSIST, 1)
}

/// Has the kernel compute checksums and cut segments before it hands frames over.
pub(super) fn without_offloads(device: BorrowedFd<'_>) -> io::Result<()> {
    set(device, libc::Ioctl::from(TUNSETOFFLOAD), 0)
}

/// Requests to an interface by its name, in the network namespace of the thread that makes this.
#[derive(Debug)]
pub(super) struct InterfaceRequests {
    socket: OwnedFd,
    name: String,
}

impl InterfaceRequests {
    pub(super) fn new(name: &str) -> io::Result<Self> {
        let flags = SockFlag::SOCK_CLOEXEC;
        let socket = socket(AddressFamily::Unix, SockType::Datagram, flags, None)?;
        Ok(Self { socket, name: name.to_owned() })
    }

    fn exchange(&self, number: libc::Ioctl, request: &mut ifreq) -> io::Result<()> {
        use std::os::fd::AsFd;
        let number = u32::try_from(number).map_err(|_| io::ErrorKind::InvalidInput)?;
        exchange(self.socket.as_fd(), number, request)
    }

    pub(super) fn mtu(&self) -> io::Result<u32> {
        let mut request = named(&self.name)?;
        self.exchange(libc::SIOCGIFMTU, &mut request)?;
        // SAFETY: the kernel has written this member of the union; every value of it is valid.
        let mtu = unsafe { request.ifr_ifru.ifru_mtu };
        Ok(mtu.unsigned_abs())
    }

    pub(super) fn set_mtu(&self, mtu: u32) -> io::Result<()> {
        let mut request = named(&self.name)?;
        request.ifr_ifru.ifru_mtu = c_int::try_from(mtu).unwrap_or(c_int::MAX);
        self.exchange(libc::SIOCSIFMTU, &mut request)
    }

    pub(super) fn mac(&self) -> io::Result<[u8; 6]> {
        let mut request = named(&self.name)?;
        self.exchange(libc::SIOCGIFHWADDR, &mut request)?;
        // SAFETY: the kernel has written this member of the union; every value of it is valid.
        let address = unsafe { request.ifr_ifru.ifru_hwaddr };
        let mut mac = [0; 6];
        for (to, from) in mac.iter_mut().zip(address.sa_data) {
            *to = from.to_ne_bytes()[0];
        }
        Ok(mac)
    }

    pub(super) fn set_mac(&self, mac: [u8; 6]) -> io::Result<()> {
        let mut request = named(&self.name)?;
        // SAFETY: a structure of numbers, for which zeros are valid.
        let mut address: libc::sockaddr = unsafe { mem::zeroed() };
        address.sa_family = libc::ARPHRD_ETHER;
        for (to, from) in address.sa_data.iter_mut().zip(mac) {
            *to = libc::c_char::from_ne_bytes([from]);
        }
        request.ifr_ifru.ifru_hwaddr = address;
        self.exchange(libc::SIOCSIFHWADDR, &mut request)
    }

    /// Brings the interface up, unless it is up.
    pub(super) fn bring_up(&self) -> io::Result<()> {
        let mut request = named(&self.name)?;
        self.exchange(libc::SIOCGIFFLAGS, &mut request)?;
        // SAFETY: the kernel has written this member of the union; every value of it is valid.
        let flags = unsafe { request.ifr_ifru.ifru_flags };
        let up = low_half(libc::IFF_UP);
        if flags & up != 0 {
            return Ok(());
        }
        request.ifr_ifru.ifru_flags = flags | up;
        self.exchange(libc::SIOCSIFFLAGS, &mut request)
    }
}

/// The flags as the field of `struct ifreq` holds them: their lower sixteen bits.
#[expect(clippy::cast_possible_truncation, reason = "that is the point")]
const fn low_half(flags: c_int) -> c_short {
    flags as c_short
}

/// A request to an interface.
fn named(name: &str) -> io::Result<ifreq> {
    // SAFETY: a structure of numbers, for which zeros are valid.
    let mut request: ifreq = unsafe { mem::zeroed() };
    // The last byte stays zero.
    if name.len() >= request.ifr_name.len() {
        return Err(io::ErrorKind::InvalidInput.into());
    }
    for (to, from) in request.ifr_name.iter_mut().zip(name.bytes()) {
        *to = libc::c_char::from_ne_bytes([from]);
    }
    Ok(request)
}

/// Makes a request with a structure that the kernel reads, and may write.
fn exchange(descriptor: BorrowedFd<'_>, number: u32, request: &mut ifreq) -> io::Result<()> {
    // SAFETY: the numbers given here are those of requests whose argument is a pointer to `struct
    // ifreq`. The kernel reads and writes no more than that, and keeps no pointer to it.
    let result = unsafe { libc::ioctl(descriptor.as_raw_fd(), libc::Ioctl::from(number), request) };
    if result < 0 { Err(io::Error::last_os_error()) } else { Ok(()) }
}

/// Makes a request whose argument is a number.
fn set(device: BorrowedFd<'_>, number: libc::Ioctl, value: c_uint) -> io::Result<()> {
    // SAFETY: the numbers given here are those of requests of tap devices whose argument is a number,
    // not a pointer. The kernel takes it as a long.
    let result = unsafe { libc::ioctl(device.as_raw_fd(), number, libc::c_ulong::from(value)) };
    if result < 0 { Err(io::Error::last_os_error()) } else { Ok(()) }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn numbers_are_those_of_the_kernel() {
        assert_eq!(libc::Ioctl::from(TUNSETIFF), libc::TUNSETIFF);
        assert_eq!(libc::Ioctl::from(TUNSETOFFLOAD), libc::TUNSETOFFLOAD);
    }

    #[test]
    fn an_interface_answers() {
        let loopback = InterfaceRequests::new("lo").unwrap();
        assert!(loopback.mtu().unwrap() >= 1500);
        assert_eq!(loopback.mac().unwrap(), [0; 6]);
        let missing = InterfaceRequests::new("no-such-one").unwrap();
        assert_eq!(missing.mtu().unwrap_err().raw_os_error(), Some(libc::ENODEV));
        assert!(named("a-name-too-long-by-far").is_err());
    }
}
