//! Tap and tun devices: interfaces whose other end is a program.
//!
//! The daemon attaches to a device, or makes one if it may. If it may not, `mount.pcapfs` makes the
//! device and passes its descriptor on. So both need this code. [`TapDescription`] is what a user asks
//! for, and [`requests`] has the calls of the kernel.
//!
//! The one invariant: a device that was there before is never changed, except that it is brought up.
//! Its settings are those of the person who made it.
//!
//! Sources: Documentation/networking/tuntap.rst, `drivers/net/tun.c` and netdevice(7).

mod description;
mod requests;

use std::fs::OpenOptions;
use std::io;
use std::os::fd::{AsFd, OwnedFd};
use std::os::unix::fs::OpenOptionsExt;

use nix::net::if_::if_nametoindex;

pub use description::{TapDescription, TapKind};
pub use requests::REQUESTS;
use requests::{AttachManner, InterfaceRequests};

/// The device file through which programs get tap and tun devices.
pub const DEVICE: &str = "/dev/net/tun";

/// Who may attach later to a device that stays when its program has ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum TapOwner {
    /// The user with this id.
    User(u32),
    /// The members of the group with this id.
    Group(u32),
}

/// Why a device cannot be opened. The messages begin after the name of the device.
#[derive(Debug, thiserror::Error)]
pub enum TapError {
    /// There is no such device, and this process may not make one.
    #[error("only root may make it; make it with: ip tuntap add dev {0} mode {1} user pcapfs")]
    Missing(String, TapKind),
    /// There is such a device already, and a new one was wanted.
    #[error("there is an interface of this name already")]
    Exists,
    /// The device belongs to another user or group.
    #[error(
        "the device belongs to another user (see: ip tuntap; make it with: ip tuntap add dev {0} \
         mode {1} user pcapfs)"
    )]
    NotOwned(String, TapKind),
    /// Another program is attached.
    #[error("another program or capture has the device open (see: ip -details tuntap)")]
    InUse,
    /// The interface of this name is none of this kind.
    #[error("{0}")]
    OtherKind(String),
    /// A setting of a device that was there before is not as wanted.
    #[error("{0}")]
    OtherSetting(String),
    /// The device is down, and this process may not bring it up.
    #[error("the interface is down (ip link set {0} up)")]
    Down(String),
    /// The device file cannot be opened.
    #[error("{DEVICE}: {0}")]
    NoDriver(io::Error),
    /// The kernel refuses a step.
    #[error("cannot {0}: {1}")]
    Refused(&'static str, io::Error),
}

/// Attaches to the device of this name. If there is none, makes one with the wanted settings, and
/// brings it up.
///
/// # Errors
/// [`TapError`]; a device that this call has made is gone then.
pub fn open(wanted: &TapDescription, owner: TapOwner) -> Result<OwnedFd, TapError> {
    if if_nametoindex(wanted.name.as_str()).is_err() {
        match make(wanted, owner) {
            // It has appeared since.
            Err(TapError::Exists) => {}
            made => return made,
        }
    }
    attach(wanted)
}

/// Makes a device with the wanted settings, and brings it up.
///
/// # Errors
/// [`TapError::Exists`] if there is an interface of this name. Otherwise [`TapError`], and there is
/// no device.
pub fn make(wanted: &TapDescription, owner: TapOwner) -> Result<OwnedFd, TapError> {
    let device = device()?;
    requests::attach(device.as_fd(), wanted, AttachManner::New).map_err(|error| {
        match error.raw_os_error() {
            // One that a program has open, one that none has open, one of another kind.
            Some(libc::EBUSY | libc::EINVAL) if if_nametoindex(wanted.name.as_str()).is_ok() => {
                TapError::Exists
            }
            Some(libc::EPERM) => TapError::Missing(wanted.name.clone(), wanted.kind),
            _ => TapError::Refused("make it", error),
        }
    })?;
    let refused = |step: &'static str| move |error| TapError::Refused(step, error);
    let interface = InterfaceRequests::new(&wanted.name).map_err(refused("set it up"))?;
    if let Some(mac) = wanted.mac {
        interface.set_mac(mac).map_err(refused("set its address"))?;
    }
    if let Some(mtu) = wanted.mtu {
        interface.set_mtu(mtu).map_err(refused("set its mtu"))?;
    }
    interface.bring_up().map_err(refused("bring it up"))?;
    if wanted.persist {
        // Without an owner, every user might attach.
        requests::set_owner(device.as_fd(), owner).map_err(refused("set its owner"))?;
        requests::set_persistent(device.as_fd()).map_err(refused("make it stay"))?;
    }
    requests::without_offloads(device.as_fd()).map_err(refused("set its offloads"))?;
    Ok(device)
}

/// Attaches to a device that is there.
fn attach(wanted: &TapDescription) -> Result<OwnedFd, TapError> {
    let TapDescription { name, kind, .. } = wanted;
    let device = device()?;
    requests::attach(device.as_fd(), wanted, AttachManner::Known).map_err(|error| {
        match error.raw_os_error() {
            Some(libc::EBUSY) => TapError::InUse,
            Some(libc::EPERM) if if_nametoindex(name.as_str()).is_ok() => {
                TapError::NotOwned(name.clone(), *kind)
            }
            Some(libc::EPERM) => TapError::Missing(name.clone(), *kind),
            Some(libc::EINVAL) => TapError::OtherKind(other_kind(wanted)),
            _ => TapError::Refused("attach to it", error),
        }
    })?;
    let refused = |step: &'static str| move |error| TapError::Refused(step, error);
    let interface = InterfaceRequests::new(name).map_err(refused("look at it"))?;
    if let Some(mtu) = wanted.mtu {
        let found = interface.mtu().map_err(refused("read its mtu"))?;
        if found != mtu {
            let what = format!("its mtu is {found} (ip link set {name} mtu {mtu})");
            return Err(TapError::OtherSetting(what));
        }
    }
    if let Some(mac) = wanted.mac {
        let found = interface.mac().map_err(refused("read its address"))?;
        if found != mac {
            let (found, mac) = (description::mac_text(found), description::mac_text(mac));
            let what = format!("its address is {found} (ip link set {name} address {mac})");
            return Err(TapError::OtherSetting(what));
        }
    }
    match interface.bring_up() {
        Ok(()) => {}
        Err(error) if error.raw_os_error() == Some(libc::EPERM) => {
            return Err(TapError::Down(name.clone()));
        }
        Err(error) => return Err(TapError::Refused("bring it up", error)),
    }
    // A program that had the device before may have left them on. Then frames would come that no
    // wire carries: without checksums, and longer than the mtu.
    requests::without_offloads(device.as_fd()).map_err(refused("set its offloads"))?;
    Ok(device)
}

/// Opens the device file. The descriptor has no device yet.
fn device() -> Result<OwnedFd, TapError> {
    let mut options = OpenOptions::new();
    options.read(true).write(true).custom_flags(libc::O_NONBLOCK | libc::O_CLOEXEC);
    options.open(DEVICE).map(OwnedFd::from).map_err(TapError::NoDriver)
}

/// Describes an interface that is no device of the wanted kind. The kernel does not name its kind,
/// but lets a program attach to it as what it is.
fn other_kind(wanted: &TapDescription) -> String {
    let TapDescription { name, kind, .. } = wanted;
    let other = if *kind == TapKind::Tap { TapKind::Tun } else { TapKind::Tap };
    let is = |wanted: &TapDescription, manner| {
        let Ok(device) = device() else { return false };
        match requests::attach(device.as_fd(), wanted, manner) {
            Ok(()) => true,
            Err(error) => matches!(error.raw_os_error(), Some(libc::EBUSY | libc::EPERM)),
        }
    };
    let as_other = TapDescription { kind: other, ..wanted.clone() };
    if is(&as_other, AttachManner::Known) {
        format!("it is a {other} device (write {other}:{name})")
    } else if [wanted, &as_other].iter().any(|one| is(one, AttachManner::Queue)) {
        "the device has several queues (make it without multi_queue)".to_owned()
    } else {
        format!("the interface is no {kind} device (see: ip -details link show {name})")
    }
}
