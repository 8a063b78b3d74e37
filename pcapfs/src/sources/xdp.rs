//! Has the mount helper attach the programs of `xdp:` sources, for a daemon that may not.

use capture::source;
use mount_helper::xdp::XdpRequest;

use crate::fuse::DeviceHandoff;

/// Has this helper attach programs; only the first call counts.
pub(crate) fn attach_xdp_with(helper: DeviceHandoff) {
    source::attach_xdp_with(Box::new(move |interface, queues, mode| {
        helper.attach_xdp(&XdpRequest { interface: interface.to_owned(), queues, mode })
    }));
}
