//! Tap and tun devices: `tap:NAME` and `tun:NAME`, with options after commas.
//!
//! [`TapDevice`] captures the frames that the system sends into the interface. This file finds the
//! device or makes it: in this process if it may, otherwise through the mount helper that has started
//! this daemon.

use std::os::fd::OwnedFd;
use std::sync::OnceLock;

use capture::source::{
    ExternalSource, Source, SourceError, SourceOpener, SourceOptions, TapDevice,
};
use mount_helper::message::unnumbered;
use mount_helper::tap::{self, TapDescription, TapError, TapKind, TapOwner};
use nix::net::if_::if_nametoindex;
use nix::unistd::geteuid;
use protocol::linktype::LinkType;

use crate::fs::group_id;
use crate::fuse::DeviceHandoff;

/// The mount helper that has started this daemon.
static HELPER: OnceLock<DeviceHandoff> = OnceLock::new();

/// Has this helper make devices that this process may not make; only the first call counts.
pub(crate) fn make_taps_with(helper: DeviceHandoff) {
    let _ = HELPER.set(helper);
}

/// A device as it was written.
#[derive(Debug)]
struct TapOpener {
    written: String,
    wanted: TapDescription,
}

/// Parses a device.
///
/// # Errors
/// The mistake, for people.
pub(super) fn parse(text: &str) -> Result<ExternalSource, String> {
    let wanted = TapDescription::parse(text).map_err(|why| format!("{text}: {why}"))?;
    Ok(ExternalSource::new(TapOpener { written: text.to_owned(), wanted }))
}

impl TapOpener {
    /// Finds or makes the device.
    fn device(&self) -> Result<OwnedFd, SourceError> {
        let mut wanted = self.wanted.clone();
        let owner = match &wanted.group {
            None => TapOwner::User(geteuid().as_raw()),
            Some(name) => {
                let group = name.parse().ok().or_else(|| group_id(name));
                let group = group.ok_or_else(|| {
                    self.refused(format!("group={name}: no such group (groupadd {name} makes it)"))
                })?;
                wanted.group = Some(group.to_string());
                TapOwner::Group(group)
            }
        };
        match (tap::open(&wanted, owner), HELPER.get()) {
            (Ok(device), _) => Ok(device),
            // Without the device file, the helper may still have it.
            (Err(TapError::Missing(..) | TapError::NoDriver(_)), Some(helper))
                if if_nametoindex(wanted.name.as_str()).is_err() =>
            {
                helper.make_tap(&wanted).map_err(|why| self.refused(why))
            }
            (Err(missing @ TapError::Missing(..)), _) => Err(SourceError::NoInterface {
                name: self.written.clone(),
                advice: missing.to_string(),
            }),
            (Err(error), _) => Err(self.refused(unnumbered(&error.to_string()))),
        }
    }

    fn refused(&self, why: String) -> SourceError {
        SourceError::Device { name: self.written.clone(), why }
    }
}

impl SourceOpener for TapOpener {
    fn written(&self) -> &str {
        &self.written
    }

    fn default_alias(&self) -> String {
        self.wanted.name.clone()
    }

    fn open(&self, options: &SourceOptions<'_>) -> Result<Box<dyn Source>, SourceError> {
        let TapDescription { kind, name, .. } = &self.wanted;
        let link_type = match kind {
            TapKind::Tap => LinkType::ETHERNET,
            TapKind::Tun => LinkType::RAW,
        };
        let device = self.device()?;
        let written = self.written.clone();
        Ok(Box::new(TapDevice::new(written, device, (name, link_type), options)?))
    }

    fn interface(&self) -> Option<&str> {
        Some(&self.wanted.name)
    }

    fn takes_frames(&self) -> bool {
        true
    }

    fn is_for_root(&self) -> bool {
        true
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn devices_are_known_by_what_is_written() {
        for (text, alias, interface) in
            [("tap:lab,mtu=9000", "lab", "lab"), ("tun:vpn.1,persist", "vpn.1", "vpn.1")]
        {
            let source = parse(text).unwrap();
            assert_eq!((source.written(), source.interface()), (text, Some(interface)));
            assert_eq!(source.default_alias(), alias);
        }
        assert_eq!(
            parse("tap:lab,speed=2").unwrap_err(),
            "tap:lab,speed=2: 'speed=2' is no option of a device (have: mtu=, mac=, group=, persist)"
        );
    }
}
